/* SPDX-License-Identifier: MPL-2.0
 * A bus endpoint: one DEALER to the broker. Registers and keeps its lease, batches what a turn
 * produces per destination and operation into one envelope, matches replies, repeats requests until
 * their deadline. Loop thread only.
 *
 * Wire: docs/bus.md. Every body is an array of items; every item is [rid, fields…].
 */
#ifndef CQ_RT_BUS_H
#define CQ_RT_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rt/loop.h"
#include "common/wire/frame.h"

typedef struct cq_bus cq_bus_t;

/* Where a request came from; enough to answer it later. Copy it freely. */
struct cq_bus_from {
    char src[CQ_ACTOR_NAME_MAX + 1]; /* set by the broker: can be trusted */
    uint64_t rid;                    /* 0: event, no answer wanted */
};

/* One item that came in. fields: reader over the values after the rid, borrowed for the call;
 * count: how many. */
typedef void
cq_bus_handler(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count);

struct cq_bus_row {
    uint8_t op; /* CQ_BUS_… */
    cq_bus_handler *fn;
    const char *role; /* only from actors of this role ("store", "edge", …); NULL: anyone. Others
                         get DENIED, counted, logged. */
};

/* The answer to a request: err 0 and the fields, or a negative error (of the peer, or
 * -CQ_E_DEADLINE; detail from the peer). */
typedef void
cq_bus_reply_fn(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count);

/* An actor came (up) or died or left (down). For a replaced incarnation down comes before up. */
typedef void
cq_bus_peer_fn(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up);

struct cq_bus_cfg {
    const char *endpoint;          /* "ipc:///…/broker.sock", tcp only later */
    const char *name;              /* "edge.1" */
    const char *role;              /* "edge" */
    const struct cq_bus_row *rows; /* borrowed for the bus's life */
    size_t row_count;
    cq_bus_peer_fn *on_peer;
    /* Registered, at first or again after the broker restarted or had given us up: pushes may have
     * been missed. on_peer(up) for everyone alive is called before it; all peers of the former
     * registration went down before that. */
    cq_loop_fn *on_registered;
    cq_loop_fn *on_lost; /* the broker has not answered for a lease; peers are reported down before.
                            May be NULL. */
    void *ctx;
    uint32_t in_flight_max; /* requests without answer, 0: 65,536 */
};

/* Gives an endpoint that connects and registers by itself, again and again. NULL on a bad endpoint
 * (logged). */
cq_bus_t *cq_bus_new(cq_loop_t *loop, const struct cq_bus_cfg *cfg);
/* Not from within a handler. Sends what is queued and LEAVE, closes. Requests in flight are dropped
 * without a call of their functions. */
void cq_bus_destroy(cq_bus_t **bus);
/* When the envelope that is being handled, or was last, was read. */
uint64_t cq_bus_read_mono_us(const cq_bus_t *bus);
bool cq_bus_is_registered(const cq_bus_t *bus);
uint64_t cq_bus_incarnation(const cq_bus_t *bus);
/* Is a member of this role, or this actor, alive? */
bool cq_bus_has(const cq_bus_t *bus, const char *role_or_name);

/* Queue an event for this turn's envelope. dst: actor name or role. Dropped (counted) if the broker
 * is away: events that matter are confirmed by an event of the peer. */
void
cq_bus_event(cq_bus_t *bus, const char *dst, uint8_t op, const struct cq_schema *s, const void *in);

struct cq_bus_wait {
    uint64_t deadline_ms; /* from now */
    cq_bus_reply_fn *fn;
    void *ctx;
};

/* Queue a request. Repeated (after a bounce when the addressee comes up, after a second without
 * answer) until deadline_ms from now, then answered -CQ_E_DEADLINE, so it must be safe to repeat.
 * fn is called exactly once, never from within this call. Returns 0; -CQ_E_BUSY at in_flight_max,
 * -CQ_E_TOO_BIG if no envelope holds it (fn is not called then). */
int cq_bus_request(cq_bus_t *bus,
                   const char *dst,
                   uint8_t op,
                   const struct cq_schema *s,
                   const void *in,
                   const struct cq_bus_wait *wait) CQ_MUST_CHECK;

/* Answer a request: fields of schema s, or values packed already (raw), or an error with a detail
 * (0: none). */
void cq_bus_reply(cq_bus_t *bus,
                  const struct cq_bus_from *to,
                  const struct cq_schema *s,
                  const void *in);
void cq_bus_reply_raw(cq_bus_t *bus,
                      const struct cq_bus_from *to,
                      size_t field_count,
                      struct cq_view raw);
void cq_bus_reply_err(cq_bus_t *bus, const struct cq_bus_from *to, int err, uint64_t detail);

/* Stop and go on reading from the bus (backpressure). Replies and pings are read by the same
 * socket: pause briefly. */
void cq_bus_pause(cq_bus_t *bus, bool paused);

#endif
