/* SPDX-License-Identifier: MPL-2.0
 * Closing down: every client is told where else to go, then its connection closes with 1001. No new
 * ones are accepted. The process ends when all are gone, or at the deadline.
 */
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "edge/edge.h"
#include "edge/origin.h"
#include "edge/ws.h"

enum {
    DRAIN_MS = 1500,
    DRAIN_STEP_MS = 20,
    JITTER_MS = 1000,
    PEERS_MAX = 64
};

static size_t
pack_peers(const edge_t *e, cq_buf_t *out)
{
    const char *at = e->cfg->peers;
    const char *entry;
    size_t n;
    size_t count = 0;
    while (count < PEERS_MAX && edge_origin_list_next(&at, &entry, &n)) {
        cq_pack_str(out, entry, n);
        count++;
    }
    return count;
}

void
edge_drain_start(void *ctx)
{
    edge_t *e = ctx;
    if (e->is_draining) {
        cq_loop_stop(e->loop); /* asked twice: at once */
        return;
    }
    e->is_draining = true;
    e->drain_end_mono_ms = cq_now_mono_ms() + DRAIN_MS;
    CQ_LOG(INFO, "EDGE-DRAIN-START", "sessions=%zu", e->sessions.count);
    cq_buf_t peers = {0};
    size_t count = pack_peers(e, &peers);
    struct cq_goaway m = {.edges = cq_list_of(&peers, count), .jitter_ms = JITTER_MS};
    struct edge_cursor c;
    edge_session_cursor_begin(&e->sessions, &c);
    for (edge_session_t *s; (s = edge_session_cursor_next(&c));) {
        if (s->state != EDGE_STATE_CLOSING) {
            edge_send_push(e, s, CQ_OP_GOAWAY, &cq_goaway_schema, &m);
            edge_close(e, s, EDGE_CLOSE_GOING_AWAY);
        }
    }
    edge_session_cursor_end(&e->sessions, &c);
    cq_buf_free(&peers);
    cq_timer_start(e->drain_timer, DRAIN_STEP_MS, DRAIN_STEP_MS);
}

void
edge_drain_on_timer(void *ctx)
{
    edge_t *e = ctx;
    if (!e->sessions.count || cq_now_mono_ms() >= e->drain_end_mono_ms) {
        CQ_LOG(INFO, "EDGE-DRAIN-END", "sessions=%zu", e->sessions.count);
        cq_timer_stop(e->drain_timer);
        cq_loop_stop(e->loop);
    }
}
