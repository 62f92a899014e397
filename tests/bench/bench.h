/* SPDX-License-Identifier: MPL-2.0
 * The benchmarks of chasqui-bench and what they share: the running system.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "common/rt/config.h"

#include "tests/bench/measure.h"

struct bench_system {
    char *data;    /* the folder that deploy/run.sh was given */
    uint64_t port; /* of the first edge, the second one's is behind it */
};

/* Rows of every benchmark's options; the struct begins with struct bench_system. */
#define BENCH_SYSTEM_ITEMS                                                               \
    {"data", CQ_CONFIG_STR, 0, NULL, 1, 4096, "", "data folder of the running system"},  \
    {                                                                                    \
        "port", CQ_CONFIG_UINT, offsetof(struct bench_system, port), NULL, 1, 65534, "", \
            "port of the first edge"                                                     \
    }

/* Each takes argv behind the benchmark's name and returns the exit code. */
int bench_chat_run(int argc, char **argv);
int bench_flap_run(int argc, char **argv);
int bench_idle_run(int argc, char **argv);
int bench_login_run(int argc, char **argv);

/* ---- many sessions of few users (login.c), for idle and login ---- */

struct bench_login;
/* Makes the users; their own connections are closed again. */
struct bench_login *bench_login_new(const struct bench_system *system, size_t sessions_max);
/* Opens sessions until there are `count`, at most in_flight at a time: RESUME and SYNC in one
 * frame. took: from connect to SYNC's answer, per session. */
void
bench_login_open(struct bench_login *l, size_t count, size_t in_flight, struct bench_hist *took);
void bench_login_destroy(struct bench_login **l);

#endif
