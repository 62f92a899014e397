/* SPDX-License-Identifier: MPL-2.0
 * Wiring: peers, timers, turns. Handlers are in on_session.c, on_route.c and lookup.c.
 */
#include "presence/presence.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "presence/core.h"
#include "presence/deliver.h"
#include "presence/fetch.h"
#include "presence/lookup.h"
#include "presence/note.h"

enum {
    CHANGE_COST_MAX = 100000, /* watchers marked in one tick */
    AGAIN_MS = 4
};

void
presence_presence_settle(presence_core_t *core)
{
    presence_stats.edges_unannounced = presence_lease_missing(&core->lease);
    if (!presence_lease_settle(&core->lease)) {
        return;
    }
    CQ_LOG(INFO, "PRESENCE-READY", "sessions=%zu users=%zu held=%zu",
           core->sessions->sessions.count, core->sessions->users.count,
           presence_route_held(core->route));
    presence_delta_extend(core->delta, cq_now_mono_ms());
    presence_redis_sync_ready(core->redis);
    presence_lookup_ready(core);
}

/* ---- peers ---- */

static void
on_edge_down(presence_core_t *core, const char *name)
{
    int edge = presence_lease_find(&core->lease, name);
    if (edge < 0) {
        return;
    }
    presence_on_session_edge_down(core, (uint16_t)edge);
    presence_lookup_forget(core, edge);
    presence_route_edge_down(core->route, (uint16_t)edge);
    presence_on_route_news(core);
    (void)presence_lease_down(&core->lease, name);
    presence_presence_settle(core);
}

static void
on_edge_up(presence_core_t *core, const char *name, uint64_t incarnation)
{
    on_edge_down(core, name);
    bool fresh = false;
    int edge = presence_lease_up(&core->lease, name, incarnation, &fresh);
    if (edge < 0) {
        CQ_LOG(ERROR, "PRESENCE-EDGE-REFUSED", "edge=%s max=%d", name, PRESENCE_EDGE_MAX);
        return;
    }
    presence_route_edge_up(core->route, (uint16_t)edge, fresh);
    presence_presence_settle(core);
}

static void
forget_stream(presence_core_t *core)
{
    presence_route_forget(core->route);
    core->store[0] = '\0';
}

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    presence_core_t *core = ctx;
    if (strcmp(role, "edge") == 0) {
        if (up) {
            on_edge_up(core, name, incarnation);
        } else {
            on_edge_down(core, name);
        }
    } else if (!up && strcmp(name, core->store) == 0) {
        forget_stream(core);
    }
}

static void
on_lost(void *ctx)
{
    presence_core_t *core = ctx;
    presence_lease_lost(&core->lease);
    forget_stream(core);
    presence_lookup_forget(core, -1);
    CQ_LOG(WARN, "PRESENCE-BUS-LOST", "users=%zu", core->sessions->users.count);
}

static void
on_registered(void *ctx)
{
    presence_core_t *core = ctx;
    /* Whatever was said while we were not known has not reached us. */
    presence_lease_lost(&core->lease);
    forget_stream(core);
    core->lease.registered = true;
    presence_presence_settle(core);
}

/* ---- time ---- */

static void
on_routed(void *ctx)
{
    presence_core_t *core = ctx;
    core->is_routed_armed = false;
    if (presence_route_has_news(core->route)) {
        const struct cq_routed routed = presence_route_take_news(core->route);
        cq_bus_event(core->bus, core->store, CQ_BUS_ROUTED, &cq_routed_schema, &routed);
        presence_stats.routed_total++;
    }
}

static void
on_left(void *ctx, const struct cq_id *user, uint64_t seen_unix_ms)
{
    presence_core_t *core = ctx;
    presence_redis_sync_left(core->redis, user, presence_not_after(seen_unix_ms, cq_now_unix_ms()),
                             presence_watch_sure_seen(core->watch, user));
    presence_lookup_return(core, user);
}

/* An idle presence wakes up once in a tick, not for every slice of one. */
static uint64_t
slice_ms(const presence_core_t *core)
{
    uint64_t ms = core->cfg->tick_ms / PRESENCE_DELTA_SLICES;
    return ms ? ms : 1;
}

static void
next_step(presence_core_t *core)
{
    core->is_step_slow = !presence_delta_is_busy(core->delta) && !presence_note_is_waiting(core);
    cq_timer_start(core->step, core->is_step_slow ? core->cfg->tick_ms : slice_ms(core), 0);
}

void
presence_presence_wake(presence_core_t *core)
{
    if (core->is_step_slow) {
        next_step(core);
    }
}

static void
on_step(void *ctx)
{
    presence_core_t *core = ctx;
    uint64_t now_ms = cq_now_mono_ms();
    if (core->lease.ready) {
        presence_delta_step(core->delta, now_ms);
        presence_note_slice(core);
    }
    if (now_ms - core->tidied_mono_ms >= core->cfg->tick_ms) {
        core->tidied_mono_ms = now_ms;
        presence_watch_retry(core->watch);
        presence_lookup_tidy(core);
    }
    presence_stats.sessions = core->sessions->sessions.count - core->sessions->dead_count;
    presence_stats.sessions_dead = core->sessions->dead_count;
    presence_stats.users = core->sessions->users.count;
    presence_stats.visible_users = presence_delta_visible_count(core->delta);
    presence_stats.changes_pending = presence_delta_pending(core->delta);
    presence_stats.watch_links = presence_watch_links(core->watch);
    presence_stats.ready = core->lease.ready;
    presence_stats.edges_unannounced = presence_lease_missing(&core->lease);
    presence_stats.routes_held = presence_route_held(core->route);
    next_step(core);
}

static void
on_again(void *ctx)
{
    (void)ctx; /* the turn's end does the work */
}

/* Runs before the bus' own hook, so what is queued here leaves with this turn. */
static void
on_turn(void *ctx)
{
    presence_core_t *core = ctx;
    bool more = presence_on_route_drain(core);
    more |= presence_on_session_reap(core);
    more |= presence_lookup_resume(core);
    more |= presence_note_pump(core);
    more |= core->lease.ready && presence_delta_leave(core->delta, cq_now_mono_ms());
    more |= presence_fetch_pump(core);
    presence_redis_sync_pump(core->redis);
    if (more) {
        cq_timer_start(core->again, AGAIN_MS, 0);
    }
}

/* ---- Redis ---- */

static bool
on_is_visible(void *ctx, const struct cq_id *user)
{
    return presence_core_is_visible(ctx, user);
}

static bool
on_may_show(void *ctx, const struct cq_id *user)
{
    presence_core_t *core = ctx;
    return presence_watch_sure_seen(core->watch, user) == PRESENCE_WATCH_SHOWS;
}

static void
on_absent(void *ctx, const struct cq_id *user, uint64_t seen_unix_ms)
{
    presence_core_t *core = ctx;
    presence_delta_absent(core->delta, user, seen_unix_ms, cq_now_mono_ms());
    presence_presence_wake(core);
}

/* ---- life ---- */

static const struct cq_bus_row rows[] = {
    {CQ_BUS_ROUTE, presence_on_route, "store"},
    {CQ_BUS_ROUTE_BEGIN, presence_on_route_begin, "store"},
    {CQ_BUS_DELIVERED, presence_on_delivered, "edge"},
    {CQ_BUS_SESSION_UP, presence_on_session_up, "edge"},
    {CQ_BUS_SESSION_DOWN, presence_on_session_down, "edge"},
    {CQ_BUS_ANNOUNCED, presence_on_announced, "edge"},
    {CQ_BUS_SEEN, presence_on_seen, "edge"},
    {CQ_BUS_LOOKUP, presence_on_lookup, "edge"},
};

static void
make_parts(presence_core_t *core)
{
    const struct presence_delta_cfg delta = {
        .grace_ms = core->cfg->grace_ms,
        .tick_ms = slice_ms(core), /* watchers gather for a tick, see note.c */
        .cost_max = CHANGE_COST_MAX,
        .on_left = on_left,
        .on_change = presence_note_change,
        .ctx = core,
    };
    core->sessions = presence_session_map_new();
    core->route = presence_route_new();
    core->watch = presence_watch_new();
    core->delta = presence_delta_new(&delta);
    core->deliver = presence_deliver_new();
    core->fetch = presence_fetch_new(core);
    core->lookup = presence_lookup_new();
    core->routed = cq_timer_new(core->loop, on_routed, core);
    core->step = cq_timer_new(core->loop, on_step, core);
    core->again = cq_timer_new(core->loop, on_again, core);
}

static int
connect_parts(presence_core_t *core)
{
    const struct cq_bus_cfg bus = {
        .endpoint = core->cfg->broker,
        .name = core->cfg->name,
        .role = "presence",
        .rows = rows,
        .row_count = sizeof rows / sizeof rows[0],
        .on_peer = on_peer,
        .on_registered = on_registered,
        .on_lost = on_lost,
        .ctx = core,
    };
    cq_loop_on_turn(core->loop, on_turn, core);
    core->bus = cq_bus_new(core->loop, &bus);
    if (!core->bus) {
        return -CQ_E_CONFIG;
    }
    const struct presence_redis_sync_cfg redis = {
        .path = core->cfg->redis_socket,
        .password_file = core->cfg->redis_password_file,
        .online_ttl_s = core->cfg->online_ttl_s,
        .incarnation = cq_bus_incarnation(core->bus),
        .sessions = core->sessions,
        .lease = &core->lease,
        .is_visible = on_is_visible,
        .may_show = on_may_show,
        .on_absent = on_absent,
        .ctx = core,
    };
    core->redis = presence_redis_sync_new(core->loop, &redis);
    next_step(core);
    return 0;
}

presence_t *
presence_presence_new(cq_loop_t *loop, const struct presence_cfg *cfg)
{
    presence_core_t *core = cq_alloc(sizeof *core);
    core->cfg = cfg;
    core->loop = loop;
    presence_list_init(&core->noted);
    for (size_t i = 0; i < PRESENCE_DELTA_SLICES; i++) {
        presence_list_init(&core->noted_at[i]);
    }
    make_parts(core);
    if (connect_parts(core) != 0) {
        presence_presence_destroy(&core);
    }
    return core;
}

void
presence_presence_destroy(presence_t **p)
{
    presence_core_t *core = *p;
    if (!core) {
        return;
    }
    cq_timer_destroy(&core->routed);
    cq_timer_destroy(&core->step);
    cq_timer_destroy(&core->again);
    presence_redis_sync_destroy(&core->redis);
    presence_lookup_destroy(&core->lookup);
    cq_bus_destroy(&core->bus);
    presence_fetch_destroy(&core->fetch);
    presence_deliver_destroy(&core->deliver);
    presence_delta_destroy(&core->delta);
    presence_watch_destroy(&core->watch);
    presence_route_destroy(&core->route);
    presence_session_map_destroy(&core->sessions);
    free(core);
    *p = NULL;
}
