/* SPDX-License-Identifier: MPL-2.0
 * An edge: WebSocket sessions on one side, the bus on the other, one loop, one thread.
 *
 * Handlers only queue: bus items are sent by the bus's turn hook, sessions' output by the edge's,
 * one frame and one write per session and turn. Everything a client can make us keep is bounded:
 * its input (frame-max-bytes), its unanswered requests (session-requests-max), its output
 * (session-queue-max-bytes); at the bounds we stop reading from it.
 */
#ifndef EDGE_EDGE_H
#define EDGE_EDGE_H

#include "common/rt/bus.h"
#include "common/rt/loop.h"
#include "common/rt/token.h"

#include "edge/arrive.h"
#include "edge/config.h"
#include "edge/limiter.h"
#include "edge/metrics.h"
#include "edge/revoked.h"
#include "edge/session.h"

struct edge_ws;
struct edge_call;
struct edge_blob;
struct edge_monitor;
struct edge_scrape;

/* What the store told us; valid once known. */
struct edge_store_info {
    bool is_known;
    bool is_asking;
    bool takes_no_writes; /* it has said so */
    struct cq_token_keys keys;
    struct cq_id epoch;
};

/* The presence we talk to, and how far it has been told about our sessions. */
struct edge_presence {
    char name[CQ_ACTOR_NAME_MAX + 1]; /* empty: none */
    uint64_t incarnation;             /* none: of the last one */
    enum {
        EDGE_ANNOUNCE_DONE,
        EDGE_ANNOUNCE_SESSIONS,
        EDGE_ANNOUNCE_SYNC
    } phase;
    struct edge_cursor cursor;
    uint64_t announced_count;
    uint64_t sync_until; /* sessions of this number and older are told to sync */
    uint64_t delivery;   /* highest DELIVER number that is in its sessions' queues */
    bool begins_at_one;  /* else delivery 0 means: not known where its numbers are */
    uint64_t confirmed;
};

/* Closing down, see drain.c. */
struct edge_drain {
    enum {
        EDGE_DRAIN_NONE,
        EDGE_DRAIN_NOTICE,  /* not ready any more, but still serving everybody */
        EDGE_DRAIN_LEAVING, /* nobody new; sessions are sent elsewhere, a bounded number per step */
        EDGE_DRAIN_TOLD,    /* all have been; the last connections close */
    } phase;
    struct edge_cursor cursor;
    size_t sessions_per_step;
    uint64_t end_mono_ms; /* of the phase */
};

typedef struct edge {
    const struct edge_config *cfg;
    cq_loop_t *loop;
    cq_bus_t *bus;
    struct edge_ws *ws;
    struct edge_metrics *metrics;
    edge_limiter_t *limiter;
    edge_revoked_t *revoked;
    edge_sessions_t sessions;
    edge_session_t *dirty;
    struct edge_call *calls;
    struct edge_blob *blobs;         /* requests under way */
    uint64_t blob_far_until_mono_ms; /* blob files are on another machine, it seems */
    struct edge_monitor *monitor;    /* NULL: metrics-port is 0 */
    struct edge_scrape *scrape;
    bool had_blobd; /* one has been there */
    uint64_t
        gate_mono_us; /* the clock when a limit was last asked: now, for what passes the gate */
    struct edge_store_info store;
    struct edge_presence presence;
    cq_buf_t scratch; /* an operation that is being packed */
    cq_buf_t seen;    /* session numbers for the next SEEN */
    size_t seen_count;
    struct edge_cursor sweep;
    bool is_sweeping;
    uint64_t sweep_period_ms;
    cq_timer_t *sweep_timer, *work_timer, *deliver_timer, *init_timer, *drain_timer, *arrive_timer;
    struct edge_cursor epoch_cursor; /* who is still to be told the new epoch */
    bool is_telling_epoch;
    struct edge_drain drain;
    struct edge_arrivals arrivals;
} edge_t;

/* Gives an edge that listens and connects to the broker. NULL if it cannot listen (logged). cfg is
 * borrowed. */
edge_t *edge_new(cq_loop_t *loop, const struct edge_config *cfg);
void edge_destroy(edge_t **e);
/* Why the edge cannot serve logins right now, or NULL if it can. */
const char *edge_unready_reason(const edge_t *e);
/* What clients cannot have at the moment although they may log in, or NULL: nothing. */
const char *edge_degraded_reason(const edge_t *e);

/* ---- send.c: operations into a session's queue ---- */

/* Answers; rid 0 is swallowed. */
void edge_send_ok(edge_t *e,
                  edge_session_t *s,
                  uint64_t rid,
                  const struct cq_schema *schema,
                  const void *in);
/* raw: field_count values one after the other */
void edge_send_ok_raw(edge_t *e,
                      edge_session_t *s,
                      uint64_t rid,
                      size_t field_count,
                      struct cq_view raw);
/* An OK operation that was packed before. */
void edge_send_packed(edge_t *e, edge_session_t *s, struct cq_view op);
/* err: of ours or of the bus; what a client gets of it, and when it may try again, is decided here.
 * retry_after_ms 0: by the error. */
void edge_send_err(edge_t *e,
                   edge_session_t *s,
                   uint64_t rid,
                   int err,
                   uint64_t retry_after_ms,
                   uint64_t detail);
void edge_send_push(edge_t *e,
                    edge_session_t *s,
                    enum cq_op_code code,
                    const struct cq_schema *schema,
                    const void *in);
/* The last word before the session ends: waits like an answer, and is never dropped. */
void edge_send_last(edge_t *e,
                    edge_session_t *s,
                    enum cq_op_code code,
                    const struct cq_schema *schema,
                    const void *in);
/* A push that is packed already, with its policy. False: dropped. */
bool edge_send_event(edge_t *e, edge_session_t *s, enum cq_op_policy policy, struct cq_view op);
/* epoch NULL: unchanged */
void edge_send_sync_now(edge_t *e, edge_session_t *s, const struct cq_id *epoch);
/* How many bytes of output may wait for one client now. */
size_t edge_send_bytes_max(const edge_t *e);
/* The wire's error for one of ours (positive). */
int edge_send_wire_err(int err, uint64_t *retry_after_ms);

/* ---- session ends: edge.c ---- */

enum {
    EDGE_CLOSE_NORMAL = 1000,
    EDGE_CLOSE_GOING_AWAY = 1001,
    EDGE_CLOSE_PROTOCOL = 1002,
    EDGE_CLOSE_TEXT = 1003,
    EDGE_CLOSE_POLICY = 1008,
    EDGE_CLOSE_TOO_BIG = 1009,
    EDGE_CLOSE_REVOKED = 4001,
    EDGE_CLOSE_NO_LOGIN = 4002,
    EDGE_CLOSE_SILENT = 4003,
    EDGE_CLOSE_STUCK = 4004,
};

/* A step of the session's state machine that the caller knows to be in the table; if it is not, the
 * session is closed. */
void edge_step(edge_t *e, edge_session_t *s, enum edge_event ev);
/* Ends the session now and its connection when what is queued has gone out. Safe to repeat. */
void edge_close(edge_t *e, edge_session_t *s, uint16_t code);
/* The connection is gone: ends the session if it has not ended, frees it. */
void edge_gone(edge_t *e, edge_session_t *s);

/* ---- the parts behind the tables ---- */

/* store.c: EDGE_INIT and what follows from it */
void edge_store_ask(edge_t *e);
void edge_store_on_timer(void *ctx);
void
edge_store_on_revoked(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count);
void
edge_store_on_state(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count);
/* Tells a bounded number of sessions the new epoch. True: there are more. */
bool edge_store_tell_epoch(edge_t *e);

/* announce.c */
void edge_announce_up(edge_t *e, const char *name, uint64_t incarnation);
/* DELIVERs were lost on the way: every session is told to sync. */
void edge_announce_missed(edge_t *e);
void edge_announce_down(edge_t *e, const char *name);
/* A bounded part of the announcement. True: there is more. */
bool edge_announce_step(edge_t *e);
void edge_announce_session(edge_t *e, const edge_session_t *s);
void edge_announce_session_down(edge_t *e, uint64_t number, uint64_t seen_unix_ms);
/* Runs the paced work (announcement, epoch) from now on until it is done. */
void edge_work_start(edge_t *e);

/* deliver.c */
void edge_deliver_on_deliver(void *ctx,
                             const struct cq_bus_from *from,
                             cq_reader_t *fields,
                             size_t count);
void edge_deliver_on_timer(void *ctx);

/* sweep.c */
void edge_sweep_start(edge_t *e);
void edge_sweep_on_timer(void *ctx);

/* drain.c */
void edge_drain_start(void *ctx);
/* A leaving session has nothing unanswered any more: it is told where to go and closed. */
void edge_drain_goodbye(edge_t *e, edge_session_t *s);
/* Is it too late for new connections? */
static inline bool
edge_drain_is_closed(const edge_t *e)
{
    return e->drain.phase >= EDGE_DRAIN_LEAVING;
}
void edge_drain_on_timer(void *ctx);

#endif
