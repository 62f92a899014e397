/* SPDX-License-Identifier: MPL-2.0
 * The inside of a bus endpoint, shared by bus*.c only.
 *   bus.c           life
 *   bus_broker.c    registration and lease
 *   bus_in.c        what comes in
 *   bus_out.c       batches of what a turn produces
 *   bus_request.c   requests in flight
 *   bus_peer.c      who is alive
 */
#ifndef CQ_RT_BUS_IMPL_H
#define CQ_RT_BUS_IMPL_H

#include <czmq.h>

#include "common/rt/bus.h"
#include "common/wire/pack.h"

enum {
    CQ_BUS_BATCH_BYTES = 1048576, /* an envelope is closed at this size */
    CQ_BUS_BODY_HEADER = 5,       /* of an array of fixed width */
    CQ_BUS_BUCKETS = 16384,       /* of the table of requests */
    CQ_BUS_ENVELOPES_PER_TURN = 64,
    CQ_BUS_ITEMS_PER_TURN = 4096, /* no further envelope after so many */
    CQ_BUS_PEERS_MAX = 4096,
    CQ_BUS_HWM = 100000,
    CQ_BUS_TICK_MS = 100, /* while not registered */
    CQ_BUS_IDENTITY_MAX = CQ_ACTOR_NAME_MAX + 1 + 16,
};

#define CQ_BUS_BROKER "broker"

/* Counters of all endpoints of the process. */
struct cq_bus_stats {
    uint64_t envelopes_in, envelopes_out, items_in, items_out;
    uint64_t dropped_items; /* the broker was away, or its queue full */
    uint64_t garbage, denied, unknown_op, bounced_items, requests, retries, deadlines, in_flight,
        peers;
};
extern struct cq_bus_stats cq_bus_stats;

struct cq_bus_peer {
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation;
};

struct cq_bus_batch {
    char dst[CQ_ACTOR_NAME_MAX + 1];
    uint8_t op;
    bool is_closed; /* full, or an item of another operation for dst came after it */
    size_t count;
    cq_buf_t body;
};

struct cq_bus_out {
    struct cq_bus_batch *batches;
    size_t count, room;
    size_t last; /* where the last item went: the next one mostly goes there too */
    uint64_t corr;
    cq_buf_t header;
};

struct cq_bus_request {
    struct cq_bus_request *chain;       /* of its bucket */
    struct cq_bus_request *prev, *next; /* of all, oldest first */
    uint64_t rid;
    uint64_t deadline_mono_ms;
    uint64_t retry_mono_ms;
    uint32_t retry_after_ms;
    bool is_parked; /* goes out as soon as the addressee comes up */
    uint8_t op;
    char dst[CQ_ACTOR_NAME_MAX + 1];
    cq_bus_reply_fn *fn;
    void *ctx;
    size_t item_size;
    uint8_t item[]; /* packed */
};

struct cq_bus_requests {
    struct cq_bus_request *buckets[CQ_BUS_BUCKETS];
    struct cq_bus_request *first, *last;
    uint32_t count, max;
    uint64_t last_rid;
    cq_timer_t *sweep;
    bool is_sweeping;
    cq_buf_t scratch;
};

struct cq_bus {
    struct cq_bus_cfg cfg;
    cq_loop_t *loop;
    char endpoint[256];
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation;
    zsock_t *sock;
    cq_zwatch_t *watch;
    cq_timer_t *tick;
    const struct cq_bus_row *rows[256];
    zhashx_t *peers; /* name → struct cq_bus_peer */
    zhashx_t *roles; /* role → size_t, number of live members */
    struct cq_bus_out out;
    struct cq_bus_requests requests;
    bool is_registered, is_paused, is_lost;
    uint64_t broker_incarnation;
    uint64_t lease_ms;
    uint64_t read_mono_us; /* when the envelope being handled was read */
    uint64_t heard_mono_ms, pinged_mono_ms, asked_mono_ms, ticked_mono_ms;
    unsigned asked_count; /* REGISTERs since the broker last spoke */
    uint64_t logged_mono_ms[4];
};

/* Is this log line due (at most one a second and kind)? */
enum cq_bus_log {
    CQ_BUS_LOG_GARBAGE,
    CQ_BUS_LOG_DENIED,
    CQ_BUS_LOG_OP,
    CQ_BUS_LOG_BIG
};
bool cq_bus_log_due(cq_bus_t *bus, enum cq_bus_log kind);

/* Closes the socket and opens a new one. */
void cq_bus_reopen(cq_bus_t *bus);

/* ---- bus_broker.c ---- */
void
cq_bus_broker_said(cq_bus_t *bus, const struct cq_envelope *e, cq_reader_t *body, size_t items);
void cq_bus_broker_tick(void *ctx); /* timer; ctx is the bus */

/* ---- bus_in.c ---- */
bool cq_bus_in_read(void *ctx); /* watch; ctx is the bus */
void cq_bus_in_register_metrics(void);
void cq_bus_note_garbage(cq_bus_t *bus, const char *src, const char *what);
/* Opens the next item of a body: rid and a reader at the fields. 0 or -CQ_E_BAD_FRAME (the rest is
 * unusable). */
int cq_bus_item_next(cq_reader_t *body, uint64_t *rid, cq_reader_t *fields, size_t *count)
    CQ_MUST_CHECK;

/* ---- bus_out.c ---- */
/* Where the next item for (dst, op) goes; append the packed item, then call done with the size the
 * body had before. A batch may move when the next one is begun. */
struct cq_bus_batch *cq_bus_out_begin(cq_bus_t *bus, const char *dst, uint8_t op);
/* False if the item was too big for any envelope: it was taken out again. */
bool cq_bus_out_done(cq_bus_t *bus, struct cq_bus_batch *batch, size_t size_before);
void cq_bus_out_raw(cq_bus_t *bus, const char *dst, uint8_t op, const void *item, size_t n);
void cq_bus_out_flush(void *ctx); /* flush hook; ctx is the bus */
void cq_bus_out_stop(cq_bus_t *bus);
/* Sends one item to the broker at once, registered or not. False: no connection. */
bool cq_bus_out_now(cq_bus_t *bus, uint8_t op, const struct cq_schema *s, const void *in);

/* ---- bus_request.c ---- */
void cq_bus_requests_start(cq_bus_t *bus);
void cq_bus_requests_stop(cq_bus_t *bus);
/* peer: who answered, NULL for the broker. */
void cq_bus_requests_answer(cq_bus_t *bus,
                            const struct cq_bus_peer *peer,
                            cq_reader_t *body,
                            size_t items);
void cq_bus_requests_bounced(cq_bus_t *bus, const struct cq_bounce *b);
void cq_bus_requests_up(cq_bus_t *bus, const struct cq_bus_peer *peer);
void cq_bus_requests_down(cq_bus_t *bus, const struct cq_bus_peer *peer);

/* ---- bus_peer.c ---- */
void cq_bus_peers_start(cq_bus_t *bus);
void cq_bus_peers_stop(cq_bus_t *bus);
const struct cq_bus_peer *cq_bus_peers_find(const cq_bus_t *bus, const char *name);
void cq_bus_peers_up(cq_bus_t *bus, const struct cq_actor *a);
void cq_bus_peers_down(cq_bus_t *bus, const struct cq_actor *a);
void cq_bus_peers_all_down(cq_bus_t *bus);
/* Is dst this peer's name or role? */
bool cq_bus_peer_is(const struct cq_bus_peer *peer, const char *dst);

#endif
