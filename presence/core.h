/* SPDX-License-Identifier: MPL-2.0
 * What the files of presence that talk to the bus share. All of it belongs to the loop thread.
 */
#ifndef PRESENCE_CORE_H
#define PRESENCE_CORE_H

#include "common/rt/bus.h"
#include "common/rt/loop.h"

#include "presence/delta.h"
#include "presence/lease.h"
#include "presence/presence.h"
#include "presence/redis_sync.h"
#include "presence/route.h"
#include "presence/session_map.h"
#include "presence/stats.h"
#include "presence/watch.h"

struct presence_fetch;
struct presence_lookup;
struct presence_deliver;

struct presence_core {
    const struct presence_cfg *cfg;
    cq_loop_t *loop;
    cq_bus_t *bus;
    presence_lease_t lease;
    presence_session_map_t *sessions;
    presence_route_t *route;
    presence_watch_t *watch;
    presence_delta_t *delta;
    presence_redis_sync_t *redis;
    struct presence_deliver *deliver;
    struct presence_fetch *fetch;
    struct presence_lookup *lookup;
    struct presence_link noted; /* users with sessions to be told about their friends, now */
    struct presence_link
        noted_at[PRESENCE_DELTA_SLICES]; /* … of changes, in this slice of a tick */
    unsigned slice;
    double note_tokens; /* sessions that may be told now */
    uint64_t note_tokens_mono_ms;
    char store[CQ_ACTOR_NAME_MAX + 1]; /* who sends the stream of ROUTE, "": nobody */
    bool is_routed_armed;
    bool is_step_slow; /* delta has nothing to do: steps come once in a tick */
    uint64_t tidied_mono_ms;
    cq_timer_t *routed; /* tells the store what is confirmed */
    cq_timer_t *step;   /* delta's */
    cq_timer_t *again;  /* another turn: work was left */
};

typedef struct presence_core presence_core_t;

static inline bool
presence_core_is_visible(const presence_core_t *core, const struct cq_id *user)
{
    uint64_t since_unix_ms;
    return presence_delta_is_visible(core->delta, user, &since_unix_ms);
}

/* Do friends see the user online? *time_unix_ms: since when (untouched if not); 0 if he hides it.
 */
static inline bool
presence_core_state(const presence_core_t *core, const struct cq_id *user, uint64_t *time_unix_ms)
{
    bool is_visible = presence_delta_is_visible(core->delta, user, time_unix_ms);
    if (presence_watch_hides(core->watch, user)) {
        *time_unix_ms = 0;
    }
    return is_visible;
}

/* Handlers of the bus, by file. */
cq_bus_handler presence_on_session_up;
cq_bus_handler presence_on_session_down;
cq_bus_handler presence_on_announced;
cq_bus_handler presence_on_seen;
cq_bus_handler presence_on_route;
cq_bus_handler presence_on_route_begin;
cq_bus_handler presence_on_delivered;
cq_bus_handler presence_on_lookup;

/* on_session.c: an edge's sessions end, at once for whoever sends to them; then, bounded each turn,
 * for the rest. True if some are left. */
void presence_on_session_edge_down(presence_core_t *core, uint16_t edge);
bool presence_on_session_reap(presence_core_t *core);
/* on_route.c: delivers held routes, bounded. True if some are left. */
bool presence_on_route_drain(presence_core_t *core);
/* on_route.c: asks for ROUTED to be sent soon if there is something to tell. */
void presence_on_route_news(presence_core_t *core);
/* presence.c: delta has something to do. */
void presence_presence_wake(presence_core_t *core);
/* presence.c: presence may have become ready. */
void presence_presence_settle(presence_core_t *core);

#endif
