/* SPDX-License-Identifier: MPL-2.0
 * A broker and a store of our own on a folder that chasqui-bench-fill wrote, and an actor on their
 * bus that asks the store what an edge would ask. Everything ends with this program.
 */
#ifndef BENCH_STAND_H
#define BENCH_STAND_H

#include "common/rt/bus.h"

#include "tests/bench/measure.h"

/* Starts the broker and connects to it; the programs are those beside this one. */
void bench_stand_open(const char *data);
void bench_stand_close(void);

/* Returns when the store can be asked. */
void bench_stand_start_store(void);
/* kill -9, and waits until it is gone. */
void bench_stand_kill_store(void);
/* Takes the database's pages out of the page cache. The store does not run. */
void bench_stand_forget_pages(void);
/* Records that the last start applied, from the store's log. */
uint64_t bench_stand_replayed(void);
/* Broker and store, for CPU and bytes written. */
const struct bench_procs *bench_stand_procs(void);

/* One client operation, as the user's session on an edge would send it. fn as in cq_bus_request. */
struct bench_ask {
    struct cq_id user, device;
    uint8_t op;
    const struct cq_schema *schema;
    const void *fields;
    cq_bus_reply_fn *fn;
    void *ctx;
};
void bench_stand_ask(const struct bench_ask *ask);
/* Runs the loop until *flag is true; fails after a minute. */
void bench_stand_wait(const bool *flag);

#endif
