/* SPDX-License-Identifier: MPL-2.0
 * Closing down. First /readyz says no, so that load balancers look elsewhere; then nobody new is
 * accepted and the sessions are sent elsewhere, a bounded number per step, so that the other edges
 * get a stream and not a storm. A session that is sent away is not read from any more; what it has
 * asked before is answered, then GOAWAY tells where to go, then its connection closes with 1001. So
 * every request is either answered or not begun, and a client repeats the latter elsewhere. Uploads
 * and downloads that are under way go on, no new ones begin. The process ends when all are gone, or
 * at the limit.
 */
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "edge/edge.h"
#include "edge/ops.h"
#include "edge/origin.h"
#include "edge/ws.h"

enum {
    STEP_MS = 20,
    SESSIONS_PER_S = 2000, /* at least; more if the limit would be missed */
    CLOSE_MS = 1500,       /* for the last connections' closing handshakes */
    JITTER_MS = 500,
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
edge_drain_goodbye(edge_t *e, edge_session_t *s)
{
    cq_buf_t peers = {0};
    size_t count = pack_peers(e, &peers);
    struct cq_goaway m = {.edges = cq_list_of(&peers, count), .jitter_ms = JITTER_MS};
    edge_send_last(e, s, CQ_OP_GOAWAY, &cq_goaway_schema, &m);
    edge_close(e, s, EDGE_CLOSE_GOING_AWAY);
    cq_buf_free(&peers);
}

static void
send_away(edge_t *e, edge_session_t *s)
{
    edge_ops_stop(e, s);
    if (!s->cost) {
        edge_drain_goodbye(e, s);
    }
}

static void
begin_leaving(edge_t *e, uint64_t now)
{
    struct edge_drain *d = &e->drain;
    size_t steps = e->cfg->drain_limit_ms / STEP_MS * 3 / 4 + 1;
    size_t least = SESSIONS_PER_S * STEP_MS / 1000;
    d->sessions_per_step = e->sessions.count / steps + 1;
    d->sessions_per_step = d->sessions_per_step < least ? least : d->sessions_per_step;
    d->end_mono_ms = now + e->cfg->drain_limit_ms;
    d->phase = EDGE_DRAIN_LEAVING;
    edge_session_cursor_begin(&e->sessions, &d->cursor);
    CQ_LOG(INFO, "EDGE-DRAIN-LEAVING", "sessions=%zu per_s=%zu", e->sessions.count,
           d->sessions_per_step * 1000 / STEP_MS);
}

/* At the limit: whoever still waits for an answer is sent away without it, and transfers are cut.
 */
static void
end_leaving(edge_t *e, uint64_t now)
{
    struct edge_drain *d = &e->drain;
    size_t unanswered = 0;
    edge_session_cursor_end(&e->sessions, &d->cursor);
    edge_session_cursor_begin(&e->sessions, &d->cursor);
    for (edge_session_t *s; (s = edge_session_cursor_next(&d->cursor));) {
        if (s->state != EDGE_STATE_CLOSING) {
            unanswered += s->cost > 0;
            edge_drain_goodbye(e, s);
        }
    }
    edge_session_cursor_end(&e->sessions, &d->cursor);
    if (unanswered) {
        CQ_LOG(WARN, "EDGE-DRAIN-UNANSWERED", "sessions=%zu", unanswered);
    }
    if (e->blobs) {
        CQ_LOG(WARN, "EDGE-DRAIN-CUT", "transfers=%llu",
               (unsigned long long)e->metrics->blob_transfers);
    }
    d->phase = EDGE_DRAIN_TOLD;
    d->end_mono_ms = now + CLOSE_MS;
}

static void
step_leaving(edge_t *e, uint64_t now)
{
    struct edge_drain *d = &e->drain;
    for (size_t left = d->sessions_per_step; left; left--) {
        edge_session_t *s = edge_session_cursor_next(&d->cursor);
        if (!s) {
            break;
        }
        if (s->state != EDGE_STATE_CLOSING && !s->is_leaving) {
            send_away(e, s);
        }
    }
    if (now >= d->end_mono_ms || (!d->cursor.at && !e->calls && !e->blobs)) {
        end_leaving(e, now);
    }
}

void
edge_drain_start(void *ctx)
{
    edge_t *e = ctx;
    struct edge_drain *d = &e->drain;
    if (d->phase) {
        cq_loop_stop(e->loop); /* asked twice: at once */
        return;
    }
    uint64_t now = cq_now_mono_ms();
    d->phase = EDGE_DRAIN_NOTICE;
    d->end_mono_ms = now + e->cfg->drain_notice_ms;
    CQ_LOG(INFO, "EDGE-DRAIN-START", "sessions=%zu", e->sessions.count);
    if (!e->cfg->drain_notice_ms) {
        begin_leaving(e, now);
    }
    cq_timer_start(e->drain_timer, d->phase == EDGE_DRAIN_LEAVING ? 0 : STEP_MS, STEP_MS);
}

void
edge_drain_on_timer(void *ctx)
{
    edge_t *e = ctx;
    uint64_t now = cq_now_mono_ms();
    if (e->drain.phase == EDGE_DRAIN_NOTICE && now >= e->drain.end_mono_ms) {
        begin_leaving(e, now);
    }
    if (e->drain.phase == EDGE_DRAIN_LEAVING) {
        step_leaving(e, now);
    }
    if (e->drain.phase == EDGE_DRAIN_TOLD && (!e->sessions.count || now >= e->drain.end_mono_ms)) {
        CQ_LOG(INFO, "EDGE-DRAIN-END", "sessions=%zu", e->sessions.count);
        cq_timer_stop(e->drain_timer);
        cq_loop_stop(e->loop);
    }
}
