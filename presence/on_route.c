/* SPDX-License-Identifier: MPL-2.0
 * The store's stream of ROUTE to the edges, and what they confirm back.
 */
#include <stdio.h>

#include "common/rt/log.h"

#include "presence/core.h"
#include "presence/deliver.h"
#include "presence/lookup.h"
#include "presence/note.h"

enum {
    ROUTED_MS = 50, /* confirmations wait this long for company */
    TURN_MAX = 512, /* held routes delivered in one turn */
};

static void
add_user(presence_core_t *core, const struct cq_id *id, const struct cq_id *except)
{
    const struct presence_user *user = presence_session_map_user(core->sessions, id);
    if (!user) {
        return;
    }
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        const struct presence_session *s = PRESENCE_LIST_OF(l, struct presence_session, of_user);
        if (cq_id_is_none(except) || !cq_id_eq(&s->device, except)) {
            presence_deliver_add(core, s);
        }
    }
}

/* An array, and not larger than an edge may push. */
static bool
is_operation(struct cq_view event)
{
    enum {
        FIXARRAY = 0x90,
        FIXARRAY_MASK = 0xf0,
        ARRAY16 = 0xdc,
        ARRAY32 = 0xdd
    };
    return event.n > 0 && event.n <= CQ_PUSH_FRAME_MAX &&
           ((event.p[0] & FIXARRAY_MASK) == FIXARRAY || event.p[0] == ARRAY16 ||
            event.p[0] == ARRAY32);
}

static void
deliver_route(presence_core_t *core, const struct cq_route *route)
{
    if (!is_operation(route->event)) {
        presence_stats.bad_events_total++;
        return;
    }
    presence_deliver_begin(core, route->event);
    cq_reader_t r = cq_list_reader(&route->users);
    for (size_t i = 0; i < route->users.count; i++) {
        struct cq_id user = cq_read_id(&r);
        if (r.err) {
            presence_stats.bad_items_total++;
            break;
        }
        add_user(core, &user, &route->except);
    }
    (void)presence_deliver_end(core);
}

static void
take_route(presence_core_t *core, const struct cq_route *route)
{
    enum presence_route_verdict verdict = presence_route_open(core->route, route->pos);
    if (verdict == PRESENCE_ROUTE_DROP) {
        presence_stats.routes_dropped_total++;
        CQ_LOG(WARN, "PRESENCE-ROUTE-FULL", "pos=%llu", (unsigned long long)route->pos);
        return;
    }
    presence_stats.routes_untracked_total += verdict == PRESENCE_ROUTE_PASS && route->pos != 0;
    deliver_route(core, route);
    presence_route_close(core->route);
    presence_on_route_news(core);
}

static bool
is_privacy(struct cq_view event)
{
    cq_reader_t r = cq_reader_of(event);
    (void)cq_read_array(&r, 1, CQ_LIST_MAX);
    return cq_read_uint(&r, UINT64_MAX) == CQ_OP_PRIVACY_NOTE && !r.err;
}

/* From this moment on they see nobody, until their new lists are here. */
static void
renew_lists(presence_core_t *core, const struct cq_route *route)
{
    cq_reader_t r = cq_list_reader(&route->users);
    for (size_t i = 0; i < route->users.count; i++) {
        struct cq_id user = cq_read_id(&r);
        if (r.err) {
            return;
        }
        bool is_setting = is_privacy(route->event);
        if (is_setting && !presence_core_is_visible(core, &user)) {
            /* Gone already: what Redis has of him must go, too. */
            (void)presence_watch_want(core->watch, &user);
            presence_lookup_return(core, &user);
        }
        if (is_setting) {
            presence_watch_doubt(core->watch, &user);
        }
        presence_note_renew(core, &user);
    }
}

void
presence_on_route(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    (void)from;
    presence_core_t *core = ctx;
    struct cq_route route;
    if (cq_schema_read(&cq_route_schema, fields, count, &route)) {
        presence_stats.bad_items_total++;
        return;
    }
    presence_stats.routes_total++;
    if (route.rewatch) {
        renew_lists(core, &route);
    }
    if (route.pos == 0) {
        if (core->lease.ready) {
            take_route(core, &route);
        }
        return;
    }
    if (presence_route_is_dropping(core->route)) {
        presence_stats.routes_dropped_total++;
    } else if (core->lease.ready && presence_route_held(core->route) == 0) {
        take_route(core, &route);
    } else if (presence_route_hold(core->route, &route)) {
        presence_stats.routes_held_total++;
    } else {
        presence_stats.routes_dropped_total++;
        CQ_LOG(WARN, "PRESENCE-HELD-FULL", "pos=%llu", (unsigned long long)route.pos);
    }
}

bool
presence_on_route_drain(presence_core_t *core)
{
    struct cq_route route;
    for (int n = 0; core->lease.ready && n < TURN_MAX; n++) {
        if (!presence_route_unhold(core->route, &route)) {
            return false;
        }
        take_route(core, &route);
    }
    return core->lease.ready && presence_route_held(core->route) > 0;
}

void
presence_on_route_begin(void *ctx,
                        const struct cq_bus_from *from,
                        cq_reader_t *fields,
                        size_t count)
{
    presence_core_t *core = ctx;
    struct cq_route_begin in;
    if (cq_schema_read(&cq_route_begin_schema, fields, count, &in)) {
        presence_stats.bad_items_total++;
        return;
    }
    (void)snprintf(core->store, sizeof core->store, "%s", from->src);
    presence_route_begin(core->route, in.stream, in.pos);
    CQ_LOG(INFO, "PRESENCE-ROUTE-BEGIN", "store=%s pos=%llu", from->src,
           (unsigned long long)in.pos);
}

void
presence_on_delivered(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    presence_core_t *core = ctx;
    struct cq_delivered in;
    int edge = presence_lease_find(&core->lease, from->src);
    if (cq_schema_read(&cq_delivered_schema, fields, count, &in)) {
        presence_stats.bad_items_total++;
        return;
    }
    if (edge < 0 || presence_route_delivered(core->route, (uint16_t)edge, in.delivery)) {
        presence_stats.delivered_bad_total++;
        return;
    }
    presence_on_route_news(core);
}

void
presence_on_route_news(presence_core_t *core)
{
    if (!core->is_routed_armed && presence_route_has_news(core->route)) {
        core->is_routed_armed = true;
        cq_timer_start(core->routed, ROUTED_MS, 0);
    }
}
