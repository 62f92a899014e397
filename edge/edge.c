/* SPDX-License-Identifier: MPL-2.0
 * Putting the parts together, and the one place where sessions end.
 */
#include "edge/edge.h"

#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "edge/blob.h"
#include "edge/call.h"
#include "edge/monitor.h"
#include "edge/scrape.h"
#include "edge/ws.h"

enum {
    LIMITER_ENTRIES_MAX = 262144
};

static const struct cq_bus_row bus_rows[] = {
    {CQ_BUS_DELIVER, edge_deliver_on_deliver, "presence"},
    {CQ_BUS_REVOKED, edge_store_on_revoked, "store"},
    {CQ_BUS_STORE_STATE, edge_store_on_state, "store"},
};

void
edge_step(edge_t *e, edge_session_t *s, enum edge_event ev)
{
    const char *from = edge_session_state_name(s->state);
    if (!edge_session_event(s, ev, cq_now_mono_ms())) {
        CQ_LOG(ERROR, "EDGE-SESSION-STEP", "session=%llu state=%s event=%s",
               (unsigned long long)s->number, from, edge_session_event_name((uint8_t)ev));
        edge_close(e, s, EDGE_CLOSE_PROTOCOL);
    }
}

/* Wall-clock time of the last sign of life. */
static uint64_t
seen_unix_ms(const edge_session_t *s)
{
    return cq_now_unix_ms() - (cq_now_mono_ms() - s->heard_mono_ms);
}

static void
end_session(edge_t *e, edge_session_t *s)
{
    if (edge_session_is_user(s)) {
        edge_announce_session_down(e, s->number, seen_unix_ms(s));
    }
    e->metrics->sessions_ready -= s->state == EDGE_STATE_READY;
    e->metrics->sessions_paused -= s->is_paused;
    e->metrics->sessions_lagging -= s->out.is_lagging;
    s->out.is_lagging = false;
    edge_session_input_drop(s);
    bool is_closing = edge_session_event(s, EDGE_EVENT_CLOSE, cq_now_mono_ms());
    CQ_ASSERT(is_closing); /* every state but CLOSING has the step */
}

void
edge_close(edge_t *e, edge_session_t *s, uint16_t code)
{
    if (s->state == EDGE_STATE_CLOSING) {
        return;
    }
    CQ_LOG(DEBUG, "EDGE-SESSION-CLOSE", "session=%llu code=%u", (unsigned long long)s->number,
           code);
    bool was_paused = s->is_paused;
    end_session(e, s);
    s->close_code = code;
    if (was_paused) {
        s->is_paused = false;
        edge_ws_pause(s, false);
    }
    edge_session_dirty_add(&e->dirty, s);
}

void
edge_gone(edge_t *e, edge_session_t *s)
{
    if (s->state != EDGE_STATE_CLOSING) {
        end_session(e, s);
    }
    e->metrics->sessions--;
    edge_session_free(&e->sessions, s);
}

const char *
edge_unready_reason(const edge_t *e)
{
    if (e->drain.phase) {
        return "closing down";
    }
    if (!cq_bus_is_registered(e->bus)) {
        return "not registered with the broker";
    }
    if (!cq_bus_has(e->bus, "store")) {
        return "no store";
    }
    if (!e->store.is_known) {
        return "the store has not answered yet";
    }
    if (!e->presence.name[0]) {
        return "no presence";
    }
    if (!edge_ws_descriptors_free(e)) {
        return "no file descriptors left";
    }
    return e->sessions.count < e->cfg->session_max ? NULL : "full";
}

/* Not "not ready": reading, and waiting for what comes, is more than a closed door. */
const char *
edge_degraded_reason(const edge_t *e)
{
    if (e->store.takes_no_writes) {
        return "the store takes no writes";
    }
    return e->had_blobd && !cq_bus_has(e->bus, "blobd") ? "no blobd" : NULL;
}

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    edge_t *e = ctx;
    edge_scrape_peer(e->scrape, name, role, up);
    e->had_blobd |= strcmp(role, "blobd") == 0;
    if (strcmp(role, "store") == 0 && up) {
        e->store.takes_no_writes = false; /* it says otherwise, if so */
        edge_store_ask(e);
    } else if (strcmp(role, "presence") == 0 && up) {
        edge_announce_up(e, name, incarnation);
    } else if (strcmp(role, "presence") == 0) {
        edge_announce_down(e, name);
    }
}

/* on_peer(up) has come for everybody alive, so presence is being announced to already and the store
 * asked. */
static void
on_registered(void *ctx)
{
    edge_t *e = ctx;
    CQ_LOG(INFO, "EDGE-BUS-REGISTERED", "sessions=%zu", e->sessions.count);
    edge_store_ask(e);
}

static void
on_lost(void *ctx)
{
    edge_t *e = ctx;
    CQ_LOG(WARN, "EDGE-BUS-LOST", "sessions=%zu", e->sessions.count);
}

static void
on_work(void *ctx)
{
    edge_t *e = ctx;
    bool more = edge_announce_step(e);
    more = edge_store_tell_epoch(e) || more;
    if (!more) {
        cq_timer_stop(e->work_timer);
    }
}

static void
on_arrive_timer(void *ctx)
{
    (void)ctx; /* the turn's end does the work */
}

/* Those in line come in as far as there are places. */
static void
call_in(edge_t *e)
{
    struct edge_arrivals *a = &e->arrivals;
    edge_session_t *s = NULL;
    if (!a->count && !a->line_count) {
        return;
    }
    edge_arrive_look(a, &e->sessions, cq_now_mono_ms());
    while (edge_ws_has_time(e) && (s = edge_arrive_next(a, &e->sessions))) {
        uint64_t since_us = cq_now_mono_us();
        edge_ops_resume(e, s);
        edge_ws_spent(e, since_us);
    }
    if (a->line_count) { /* should nothing else wake us */
        cq_timer_start(e->arrive_timer, a->places || !a->count ? 1 : EDGE_ARRIVE_MS, 0);
    }
}

/* End of a turn: what it produced for each session leaves as one frame. */
static void
on_turn(void *ctx)
{
    edge_t *e = ctx;
    call_in(e);
    while (e->dirty) {
        edge_session_t *s = e->dirty;
        edge_session_dirty_remove(s);
        edge_ws_flush(e, s);
    }
}

static cq_bus_t *
new_bus(edge_t *e)
{
    struct cq_bus_cfg cfg = {
        .endpoint = e->cfg->broker,
        .name = e->cfg->name,
        .role = "edge",
        .rows = bus_rows,
        .row_count = sizeof bus_rows / sizeof bus_rows[0],
        .on_peer = on_peer,
        .on_registered = on_registered,
        .on_lost = on_lost,
        .ctx = e,
    };
    return cq_bus_new(e->loop, &cfg);
}

edge_t *
edge_new(cq_loop_t *loop, const struct edge_config *cfg)
{
    edge_t *e = cq_alloc(sizeof *e);
    e->cfg = cfg;
    e->loop = loop;
    e->metrics = edge_metrics_get();
    e->limiter = edge_limiter_new(cfg->limits, LIMITER_ENTRIES_MAX);
    e->revoked = edge_revoked_new();
    edge_session_table_init(&e->sessions, cq_random_u64());
    e->sweep_timer = cq_timer_new(loop, edge_sweep_on_timer, e);
    e->work_timer = cq_timer_new(loop, on_work, e);
    e->deliver_timer = cq_timer_new(loop, edge_deliver_on_timer, e);
    e->init_timer = cq_timer_new(loop, edge_store_on_timer, e);
    e->drain_timer = cq_timer_new(loop, edge_drain_on_timer, e);
    e->arrive_timer = cq_timer_new(loop, on_arrive_timer, e);
    /* Before the bus's hook, so that events of our hook leave in the same turn. */
    cq_loop_on_turn(loop, on_turn, e);
    e->scrape = edge_scrape_new(e);
    e->bus = new_bus(e);
    if (e->bus && cfg->metrics_port) {
        e->monitor = edge_monitor_new(e);
    }
    bool is_fine = e->bus && (e->monitor || !cfg->metrics_port);
    e->ws = is_fine ? edge_ws_new(e) : NULL;
    if (!e->ws) {
        edge_destroy(&e);
        return NULL;
    }
    edge_sweep_start(e);
    return e;
}

void
edge_destroy(edge_t **edge)
{
    edge_t *e = *edge;
    *edge = NULL;
    if (!e) {
        return;
    }
    edge_ws_destroy(&e->ws);
    edge_monitor_destroy(&e->monitor);
    cq_loop_off_turn(e->loop, on_turn, e);
    cq_bus_destroy(&e->bus);
    edge_scrape_destroy(&e->scrape);
    edge_call_free_all(e);
    edge_blob_free_all(e);
    edge_session_table_free(&e->sessions);
    cq_timer_destroy(&e->sweep_timer);
    cq_timer_destroy(&e->work_timer);
    cq_timer_destroy(&e->deliver_timer);
    cq_timer_destroy(&e->init_timer);
    cq_timer_destroy(&e->drain_timer);
    cq_timer_destroy(&e->arrive_timer);
    edge_arrive_free(&e->arrivals);
    edge_limiter_destroy(&e->limiter);
    edge_revoked_destroy(&e->revoked);
    cq_buf_free(&e->scratch);
    cq_buf_free(&e->seen);
    free(e);
}
