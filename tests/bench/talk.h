/* SPDX-License-Identifier: MPL-2.0
 * People who chat while something else happens to the system: a process of its own, so that the
 * load which is made beside it does not stand in the way of measuring. Latency counts from when a
 * message was due until the other one has it.
 */
#ifndef BENCH_TALK_H
#define BENCH_TALK_H

#include "tests/bench/measure.h"
#include "tests/bench/seed.h"

enum {
    BENCH_TALK_PHASES = 8
};

struct bench_talk;

struct bench_talk_cfg {
    const struct bench_seed *seed; /* pair p: the users 2 p (sends) and 2 p + 1 */
    size_t pairs;
    uint64_t rate; /* messages per second in total */
    uint16_t port; /* the senders' edge, the receivers' is behind it */
};

/* Starts the process and waits until all are logged in. */
struct bench_talk *bench_talk_start(const struct bench_talk_cfg *cfg);
/* What is received from now on counts for this phase; -1: for none. */
void bench_talk_phase(struct bench_talk *t, int phase);
const struct bench_hist *bench_talk_hist(const struct bench_talk *t, int phase);
/* Waits until every message has arrived, ends the process. Fails if one is missing or came twice.
 */
void bench_talk_stop(struct bench_talk **t);

#endif
