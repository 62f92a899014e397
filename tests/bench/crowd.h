/* SPDX-License-Identifier: MPL-2.0
 * More sessions than one process may have open files: they are spread over as many helpers (forked
 * processes) as it takes, each with source addresses of its own, and every helper's over all edges.
 */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include "tests/bench/bench.h"

struct bench_crowd;
/* cfg is for all of them together. After bench_system_use, before any other connection. */
struct bench_crowd *bench_crowd_new(const struct bench_login_cfg *cfg);
size_t bench_crowd_helpers(const struct bench_crowd *c);
/* Opens sessions until there are `count`. */
void bench_crowd_open(struct bench_crowd *c, size_t count);
/* Heartbeats that they have answered so far. */
uint64_t bench_crowd_pings(const struct bench_crowd *c);
/* How many have lost their connection and are not synced again. */
size_t bench_crowd_away(struct bench_crowd *c);
/* How often an edge has refused one (busy, too many): it tried again. */
uint64_t bench_crowd_refused(const struct bench_crowd *c);
/* CPU time of the helpers. */
uint64_t bench_crowd_cpu_ns(const struct bench_crowd *c);
void bench_crowd_destroy(struct bench_crowd **c);

#endif
