/* SPDX-License-Identifier: MPL-2.0
 * One timer for everything that time does to sessions: it visits a slice of them per tick and all
 * of them once per period. So a session needs no timer of its own.
 */
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "edge/edge.h"
#include "edge/ws.h"

enum {
    SLICES = 8,
    PERIOD_MIN_MS = 16,
    PERIOD_MAX_MS = 2000,
    SEEN_BATCH = 4096,
    CLOSE_WAIT_MS = 3000,
};

static void
flush_seen(edge_t *e)
{
    if (e->seen_count && e->presence.name[0]) {
        struct cq_seen m = {cq_now_unix_ms(), cq_list_of(&e->seen, e->seen_count)};
        cq_bus_event(e->bus, e->presence.name, CQ_BUS_SEEN, &cq_seen_schema, &m);
    }
    cq_buf_clear(&e->seen);
    e->seen_count = 0;
}

static void
report_seen(edge_t *e, edge_session_t *s, uint64_t now)
{
    if (now - s->reported_mono_ms < e->cfg->seen_interval_ms ||
        s->heard_mono_ms <= s->reported_mono_ms) {
        return;
    }
    s->reported_mono_ms = now;
    cq_pack_uint(&e->seen, s->number);
    if (++e->seen_count >= SEEN_BATCH) {
        flush_seen(e);
    }
}

static void
end_silent(edge_t *e, edge_session_t *s, uint64_t now)
{
    e->metrics->heartbeat_lost_total++;
    CQ_LOG(DEBUG, "EDGE-SESSION-SILENT", "session=%llu silent_ms=%llu",
           (unsigned long long)s->number, (unsigned long long)(now - s->heard_mono_ms));
    edge_close(e, s, EDGE_CLOSE_SILENT);
    edge_ws_kill(s); /* nobody is there to shake hands with */
}

static void
end_stuck(edge_t *e, edge_session_t *s)
{
    e->metrics->stuck_total++;
    CQ_LOG(INFO, "EDGE-SESSION-STUCK", "session=%llu queued_bytes=%zu",
           (unsigned long long)s->number, s->out.bytes);
    edge_close(e, s, EDGE_CLOSE_STUCK);
    edge_ws_kill(s);
}

static void
ping_if_due(edge_t *e, edge_session_t *s, uint64_t now)
{
    /* Due before the interval ends, as the next visit would be after it. Also when only we talk: to
     * hear something. */
    uint64_t due_ms = e->cfg->heartbeat_interval_ms - e->sweep_period_ms;
    bool is_due = now - s->sent_mono_ms >= due_ms || now - s->heard_mono_ms >= due_ms;
    if (is_due && now - s->ping_mono_ms >= due_ms) {
        s->ping_mono_ms = now;
        s->wants_ping = true;
        e->metrics->pings_total++;
        edge_session_dirty_add(&e->dirty, s);
    }
}

/* A note of presence was dropped: when there is room again presence tells it everything, as it does
 * whom it is told of by an event. Here and not when the queue has drained, so that a session that
 * drains and overflows all the time does not make presence do so each time. */
static void
fetch_note(edge_t *e, edge_session_t *s)
{
    bool has_room = edge_outq_is_empty(&s->out) && !edge_ws_is_waiting(s) &&
                    edge_send_bytes_max(e) == e->cfg->session_queue_max_bytes;
    if (has_room && e->presence.name[0]) {
        s->is_note_owed = false;
        edge_announce_session(e, s);
    }
}

static void
visit_closing(edge_session_t *s, uint64_t now)
{
    if (now - s->state_mono_ms >= CLOSE_WAIT_MS) {
        edge_ws_kill(s);
    }
}

static void
visit(edge_t *e, edge_session_t *s, uint64_t now)
{
    if (s->state == EDGE_STATE_CLOSING) {
        visit_closing(s, now);
        return;
    }
    if (s->state == EDGE_STATE_CONNECTED && !s->is_in_line &&
        now - s->state_mono_ms >= e->cfg->auth_timeout_ms) {
        e->metrics->auth_timeout_total++;
        edge_close(e, s, EDGE_CLOSE_NO_LOGIN);
        return;
    }
    if (edge_ws_is_waiting(s) && now - s->sent_mono_ms >= 2 * e->cfg->heartbeat_limit_ms) {
        end_stuck(e, s);
        return;
    }
    /* Only who gets pings is judged by what it answers: not a guest who waits for his password. */
    bool is_pinged = s->state == EDGE_STATE_READY && !s->is_paused;
    if (is_pinged && now - s->heard_mono_ms >= e->cfg->heartbeat_limit_ms) {
        end_silent(e, s, now);
        return;
    }
    if (s->state == EDGE_STATE_READY) {
        report_seen(e, s, now);
        ping_if_due(e, s, now);
        if (s->is_note_owed) {
            fetch_note(e, s);
        }
    }
}

void
edge_sweep_on_timer(void *ctx)
{
    edge_t *e = ctx;
    uint64_t now = cq_now_mono_ms();
    if (!e->is_sweeping) {
        edge_session_cursor_begin(&e->sessions, &e->sweep);
        e->is_sweeping = true;
    }
    for (size_t left = e->sessions.count / SLICES + 1; left; left--) {
        edge_session_t *s = edge_session_cursor_next(&e->sweep);
        if (!s) {
            edge_session_cursor_end(&e->sessions, &e->sweep);
            e->is_sweeping = false;
            break;
        }
        visit(e, s, now);
    }
    flush_seen(e);
    e->metrics->queued_bytes = e->sessions.memory.queued_bytes;
    e->metrics->input_bytes = e->sessions.memory.input_bytes;
    e->metrics->guest_input_bytes = e->sessions.memory.guest_input_bytes;
    e->metrics->ready = !edge_unready_reason(e);
    e->metrics->degraded = edge_degraded_reason(e) != NULL;
}

void
edge_sweep_start(edge_t *e)
{
    uint64_t shortest = e->cfg->heartbeat_interval_ms;
    shortest = e->cfg->auth_timeout_ms < shortest ? e->cfg->auth_timeout_ms : shortest;
    shortest = e->cfg->seen_interval_ms < shortest ? e->cfg->seen_interval_ms : shortest;
    uint64_t period = shortest / 5;
    period = period < PERIOD_MIN_MS ? PERIOD_MIN_MS : period;
    e->sweep_period_ms = period > PERIOD_MAX_MS ? PERIOD_MAX_MS : period;
    uint64_t tick_ms = e->sweep_period_ms / SLICES;
    cq_timer_start(e->sweep_timer, tick_ms, tick_ms);
}
