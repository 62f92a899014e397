/* SPDX-License-Identifier: MPL-2.0
 * The benchmarks of chasqui-bench and what they share: the running system.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "common/rt/config.h"

#include "tests/bench/measure.h"

struct bench_system {
    char *data;       /* the folder that deploy/run.sh was given */
    char *tls_ca;     /* the edges speak TLS with a certificate of this file; empty: plain */
    uint64_t port;    /* of the first edge, the others are behind it */
    uint64_t through; /* of a load balancer: where all connect instead; 0: none (failover) */
};

/* Rows of every benchmark's options; the struct begins with struct bench_system. */
#define BENCH_SYSTEM_ITEMS                                                               \
    {"data",                                                                             \
     CQ_CONFIG_STR,                                                                      \
     offsetof(struct bench_system, data),                                                \
     NULL,                                                                               \
     1,                                                                                  \
     4096,                                                                               \
     "",                                                                                 \
     "data folder of the running system"},                                               \
        {"tls-ca",                                                                       \
         CQ_CONFIG_STR,                                                                  \
         offsetof(struct bench_system, tls_ca),                                          \
         "",                                                                             \
         0,                                                                              \
         4096,                                                                           \
         "",                                                                             \
         "edges speak TLS; their certificate, PEM"},                                     \
    {                                                                                    \
        "port", CQ_CONFIG_UINT, offsetof(struct bench_system, port), NULL, 1, 65500, "", \
            "port of the first edge"                                                     \
    }

/* The same for struct options' field `seed`. */
#define BENCH_SEED_ITEM                                                           \
    {                                                                             \
        "seed", CQ_CONFIG_STR, offsetof(struct options, seed), NULL, 1, 4096, "", \
            "the people's file of chasqui-bench-seed"                             \
    }

/* TLS if it is wanted, and the list of edges that clients come back to. Gives the first's port, or
 * the load balancer's. */
uint16_t bench_system_use(const struct bench_system *s, const struct bench_procs *procs);

/* Each takes argv behind the benchmark's name and returns the exit code. */
int bench_chat_run(int argc, char **argv);
int bench_flap_run(int argc, char **argv);
int bench_idle_run(int argc, char **argv);
int bench_login_run(int argc, char **argv);
int bench_storm_run(int argc, char **argv);
int bench_failover_run(int argc, char **argv);
int bench_mosquitto_run(int argc, char **argv);

/* ---- many sessions (login.c), for idle, login and storm ---- */

struct bench_login_cfg {
    uint64_t sessions; /* at most, in the whole run */
    const char *seed;  /* people and tokens; more sessions than devices share them */
    uint64_t skip;     /* the first of the people are somebody else's */
    uint64_t in_flight;
    uint16_t port; /* of the first edge they are on, the others are behind it */
    uint64_t edges;
    bool is_returning; /* come back when their edge has gone */
};

struct bench_login;
struct bench_login *bench_login_new(const struct bench_login_cfg *cfg);
/* Opens sessions until there are `count`, at most in_flight at a time: RESUME and SYNC in one
 * frame. took (may be NULL): from connect, or from the loss of the connection, to SYNC's answer. */
void bench_login_open(struct bench_login *l, size_t count, struct bench_hist *took);
/* Closes all; bench_login_open opens the same ones again, with the tokens they have by then. */
void bench_login_close(struct bench_login *l);
void bench_login_destroy(struct bench_login **l);

#endif
