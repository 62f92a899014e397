/* SPDX-License-Identifier: MPL-2.0
 * What edges say about their sessions. Times they give are believed only up to now.
 */
#include "common/rt/log.h"

#include "presence/core.h"
#include "presence/lookup.h"
#include "presence/note.h"

enum {
    REAP_MAX = 500 /* sessions of dead edges removed in one turn */
};

static uint64_t
not_after_now(uint64_t unix_ms)
{
    return presence_not_after(unix_ms, cq_now_unix_ms());
}

/* What is known of the user may be from the future that a wrong clock saw. */
static void
hear(struct presence_user *user, uint64_t seen_unix_ms)
{
    uint64_t known_unix_ms = not_after_now(user->seen_unix_ms);
    user->seen_unix_ms = seen_unix_ms > known_unix_ms ? seen_unix_ms : known_unix_ms;
}

static void
on_gone(void *ctx, const struct presence_gone *gone)
{
    presence_core_t *core = ctx;
    presence_delta_down(core->delta, &gone->user, not_after_now(gone->seen_unix_ms),
                        cq_now_mono_ms());
    presence_presence_wake(core);
}

static int
take_session(presence_core_t *core, const struct presence_session_info *info, bool is_new_login)
{
    struct presence_gone gone;
    struct presence_session *s =
        presence_session_map_find(core->sessions, info->edge, info->number);
    bool is_known = s && cq_id_eq(&s->user->id, &info->user);
    int rc = presence_session_map_add(core->sessions, info, &s, &gone);
    if (rc) {
        return rc;
    }
    if (!cq_id_is_none(&gone.user)) {
        on_gone(core, &gone);
    }
    const struct presence_delta_up up = {
        .since_unix_ms = info->since_unix_ms,
        .now_ms = cq_now_mono_ms(),
        .quiet = !core->lease.ready, /* everybody is told everything when ready */
    };
    s->user->seen_unix_ms = cq_now_unix_ms();
    presence_delta_up(core->delta, &info->user, &up);
    presence_presence_wake(core);
    bool is_list_known = presence_watch_want(core->watch, &info->user);
    if (!is_new_login) {
        s->note = PRESENCE_NOTE_ALL;
    } else if (!is_known) {
        s->note = PRESENCE_NOTE_ONLINE;
    }
    presence_note_due(core, &info->user);
    /* The first time with the list, which says what may stand there. */
    if (is_list_known || s->user->written_mono_ms) {
        presence_redis_sync_dirty(core->redis, s->user);
    }
    return 0;
}

void
presence_on_session_up(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    presence_core_t *core = ctx;
    struct cq_session_up in;
    int edge = presence_lease_find(&core->lease, from->src);
    int rc = cq_schema_read(&cq_session_up_schema, fields, count, &in);
    presence_stats.bad_items_total += rc != 0;
    if (rc == 0) {
        const struct presence_session_info info = {
            .edge = (uint16_t)edge,
            .number = in.session,
            .user = in.user,
            .device = in.device,
            .since_unix_ms = not_after_now(in.since_unix_ms),
        };
        rc = edge < 0 ? -CQ_E_UNAVAILABLE : take_session(core, &info, from->rid != 0);
        presence_stats.session_refused_total += rc != 0;
    }
    presence_stats.session_ups_total += rc == 0;
    if (from->rid && rc) {
        cq_bus_reply_err(core->bus, from, rc, 0);
    } else if (from->rid) {
        const struct cq_empty empty = {0};
        cq_bus_reply(core->bus, from, &cq_empty_schema, &empty);
    }
}

void
presence_on_session_down(void *ctx,
                         const struct cq_bus_from *from,
                         cq_reader_t *fields,
                         size_t count)
{
    presence_core_t *core = ctx;
    struct cq_session_down in;
    if (cq_schema_read(&cq_session_down_schema, fields, count, &in)) {
        presence_stats.bad_items_total++;
        return;
    }
    int edge = presence_lease_find(&core->lease, from->src);
    struct presence_session *s =
        edge < 0 ? NULL : presence_session_map_find(core->sessions, (uint16_t)edge, in.session);
    if (!s) {
        return;
    }
    presence_stats.session_downs_total++;
    struct presence_user *user = s->user;
    hear(user, not_after_now(in.seen_unix_ms));
    struct presence_gone gone;
    if (presence_session_map_remove(core->sessions, s, &gone)) {
        on_gone(core, &gone);
    } else {
        presence_redis_sync_dirty(core->redis, user);
    }
}

void
presence_on_session_edge_down(presence_core_t *core, uint16_t edge)
{
    CQ_LOG(INFO, "PRESENCE-EDGE-DOWN", "edge=%s sessions=%zu", core->lease.edges[edge].name,
           core->sessions->edge_counts[edge]);
    presence_stats.edge_downs_total++;
    presence_session_map_edge_down(core->sessions, edge);
}

static void
on_reaped(void *ctx, struct presence_user *user, const struct presence_gone *gone)
{
    presence_core_t *core = ctx;
    if (gone) {
        on_gone(core, gone);
    } else {
        presence_redis_sync_dirty(core->redis, user);
    }
}

bool
presence_on_session_reap(presence_core_t *core)
{
    return presence_session_map_reap(core->sessions, REAP_MAX, on_reaped, core);
}

void
presence_on_seen(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    presence_core_t *core = ctx;
    struct cq_seen in;
    int edge = presence_lease_find(&core->lease, from->src);
    if (cq_schema_read(&cq_seen_schema, fields, count, &in)) {
        presence_stats.bad_items_total++;
        return;
    }
    uint64_t seen_unix_ms = not_after_now(in.time_unix_ms);
    cq_reader_t r = cq_list_reader(&in.sessions);
    for (size_t i = 0; edge >= 0 && i < in.sessions.count; i++) {
        uint64_t number = cq_read_uint(&r, UINT64_MAX);
        if (r.err) {
            presence_stats.bad_items_total++;
            return;
        }
        struct presence_session *s =
            presence_session_map_find(core->sessions, (uint16_t)edge, number);
        if (s) {
            hear(s->user, seen_unix_ms);
            presence_redis_sync_seen(core->redis, s->user);
        }
    }
}

void
presence_on_announced(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    presence_core_t *core = ctx;
    struct cq_announced in;
    int edge = presence_lease_find(&core->lease, from->src);
    if (cq_schema_read(&cq_announced_schema, fields, count, &in)) {
        presence_stats.bad_items_total++;
        return;
    }
    if (edge < 0 || in.presence_incarnation != cq_bus_incarnation(core->bus)) {
        return; /* meant for another one of this name */
    }
    size_t known = core->sessions->edge_counts[edge];
    CQ_LOG(INFO, "PRESENCE-EDGE-ANNOUNCED", "edge=%s announced=%llu known=%zu", from->src,
           (unsigned long long)in.count, known);
    core->lease.edges[edge].announced = true;
    presence_presence_settle(core);
}
