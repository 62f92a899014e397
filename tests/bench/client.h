/* SPDX-License-Identifier: MPL-2.0
 * A client that comes back as a real one does: RESUME and SYNC in one frame on a fresh connection;
 * when that ends, the next edge after the client library's own delays (client/reconnect.c).
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "tests/bench/conn.h"
#include "tests/bench/token.h"

enum {
    BENCH_EDGES_MAX = 16
};

struct bench_client {
    struct bench_conn conn;   /* its owner is this */
    struct bench_token token; /* its owner frees it */
    uint64_t since_ns;        /* when it began to connect, or lost its connection; of a silent one
                                 the end of the heartbeat's limit */
    uint64_t due_ns;
    size_t next; /* edge to try; as in struct cq_reconnect */
    unsigned failures;
    uint16_t port; /* to connect to when it is due */
    bool was_online;
    bool keeps_version; /* asks SYNC only for what has changed since the last */
    struct cq_id epoch;
    uint64_t version;
    bool is_returning; /* comes back by itself; else the end of its connection fails the run */
    bool is_ready;     /* SYNC is answered */
    bool is_waiting;   /* to connect again */
    void *owner;
    /* SYNC's answer is here. */
    void (*on_ready)(struct bench_client *c, struct cq_frame_op *synced);
    /* The connection of a ready one has ended (may be NULL). */
    void (*on_lost)(struct bench_client *c);
    /* Everything else, once it is ready (may be NULL). */
    void (*on_op)(struct bench_client *c, struct cq_frame_op *op);
    void (*on_turn)(struct bench_client *c);
};

enum {
    BENCH_CLIENT_RESUME_RID = UINT32_MAX - 1,
    BENCH_CLIENT_SYNC_RID = UINT32_MAX
};

/* The answer to the request `rid`: false if op is something else. Fails on ERR. */
bool bench_client_is_answer(const struct cq_frame_op *op, uint64_t rid);

/* The edges that clients may come back to: ports. */
void bench_client_edges(const uint16_t *ports, size_t count);
/* Whoever connects from now on watches the heartbeat as the client library does, once a second:
 * an edge that was silent for the limit that WELCOME names is gone. They must stay where they are.
 */
void bench_client_watch(void);
/* That limit; 0 before the first WELCOME. */
uint64_t bench_client_limit_ms(void);
/* Connects now to this port. */
void bench_client_connect(struct bench_client *c, uint16_t port);
/* Ends its connection, which is then no loss. */
void bench_client_leave(struct bench_client *c);
/* Asks SYNC again. */
void bench_client_sync(struct bench_client *c);
/* Makes those connect whose time has come. Returns when the next one's has, or `until`. */
uint64_t bench_client_due(uint64_t until);
/* How many wait to connect again, or are on their way. */
size_t bench_client_away(void);
/* How often an edge refused one (busy, too many): it tried again. */
uint64_t bench_client_refused(void);

#endif
