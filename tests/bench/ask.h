/* SPDX-License-Identifier: MPL-2.0
 * The benchmarks of chasqui-bench-ask: the store asked through a real broker, on a folder that
 * chasqui-bench-fill wrote.
 */
#ifndef BENCH_ASK_H
#define BENCH_ASK_H

#include "common/rt/config.h"

#include "tests/bench/people.h"
#include "tests/bench/stand.h"

struct bench_ask_options {
    char *data;
    struct bench_people people; /* as chasqui-bench-fill was told */
};

#define BENCH_ASK_ITEMS                                                                          \
    {"data",                                                                                     \
     CQ_CONFIG_STR,                                                                              \
     offsetof(struct bench_ask_options, data),                                                   \
     NULL,                                                                                       \
     1,                                                                                          \
     4000,                                                                                       \
     "",                                                                                         \
     "folder that chasqui-bench-fill wrote"},                                                    \
        {"users",                                                                                \
         CQ_CONFIG_UINT,                                                                         \
         offsetof(struct bench_ask_options, people.users),                                       \
         "1000",                                                                                 \
         3,                                                                                      \
         100000000,                                                                              \
         "",                                                                                     \
         "as for chasqui-bench-fill"},                                                           \
    {                                                                                            \
        "friends", CQ_CONFIG_UINT, offsetof(struct bench_ask_options, people.friends), "200", 2, \
            100000, "", "as for chasqui-bench-fill"                                              \
    }

/* Each takes argv behind the benchmark's name and returns the exit code. */
int bench_ask_bus_run(int argc, char **argv);
int bench_ask_history_run(int argc, char **argv);
int bench_ask_sync_run(int argc, char **argv);
int bench_ask_recovery_run(int argc, char **argv);

/* Messages into random chats, `in_flight` at a time, each device waiting for its answer
 * (ask_bus.c). Ends after `messages`, or when the time is over. */
struct bench_ask_load {
    const struct bench_people *people;
    uint64_t in_flight, messages, bytes;
    uint64_t until_ms; /* 0: no end by time */
    struct bench_hist *took;
    uint64_t answered; /* out */
};
void bench_ask_load(struct bench_ask_load *load);

#endif
