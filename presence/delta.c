/* SPDX-License-Identifier: MPL-2.0
 * Two queues, both first in first out because their delays are constant: users within grace, and
 * changes to be told.
 */
#include "presence/delta.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "presence/list.h"
#include "presence/map.h"

/* An edge with 100,000 users dies: they leave in portions, so that neither Redis nor a turn is
 * overrun. */
enum {
    LEFT_MAX = 64
};

struct entry {
    struct cq_id id;
    bool online; /* has sessions */
    bool told;   /* friends believe: online */
    bool stale;  /* told, but with times that are not right any more */
    uint64_t since_unix_ms;
    uint64_t seen_unix_ms;
    uint64_t grace_end_ms;
    uint64_t due_ms;
    struct presence_link leaving; /* in the list: within grace */
    struct presence_link change;  /* in the list: to be told */
};

struct presence_delta {
    struct presence_delta_cfg cfg;
    presence_map_t entries;
    struct presence_link leaving;
    struct presence_link changes;
    uint64_t extended_ms; /* nobody's grace ends before */
    size_t visible_count;
    size_t change_count;
};

presence_delta_t *
presence_delta_new(const struct presence_delta_cfg *cfg)
{
    presence_delta_t *d = cq_alloc(sizeof *d);
    d->cfg = *cfg;
    presence_list_init(&d->leaving);
    presence_list_init(&d->changes);
    return d;
}

void
presence_delta_destroy(presence_delta_t **d)
{
    if (*d) {
        presence_map_clear(&(*d)->entries, free);
        free(*d);
        *d = NULL;
    }
}

static bool
is_visible(const struct entry *e)
{
    return e->online || presence_list_has(&e->leaving);
}

static struct entry *
entry_for(presence_delta_t *d, const struct cq_id *id)
{
    struct entry *e = presence_map_find(&d->entries, id);
    if (!e) {
        e = cq_alloc(sizeof *e);
        e->id = *id;
        presence_map_put(&d->entries, id, e);
    }
    return e;
}

static void
drop_change(presence_delta_t *d, struct entry *e)
{
    if (presence_list_has(&e->change)) {
        presence_list_remove(&e->change);
        d->change_count--;
    }
}

/* Visibility changed: what friends were told decides whether that is news. */
static void
queue_change(presence_delta_t *d, struct entry *e, uint64_t now_ms)
{
    if (e->told != is_visible(e) || e->stale) {
        if (!presence_list_has(&e->change)) {
            e->due_ms = (now_ms / d->cfg.tick_ms + 1) * d->cfg.tick_ms;
            presence_list_append(&d->changes, &e->change);
            d->change_count++;
        }
        return;
    }
    drop_change(d, e);
    if (!is_visible(e)) {
        (void)presence_map_take(&d->entries, &e->id);
        free(e);
    }
}

void
presence_delta_up(presence_delta_t *d, const struct cq_id *user, const struct presence_delta_up *up)
{
    struct entry *e = entry_for(d, user);
    if (!is_visible(e)) {
        d->visible_count++;
        e->since_unix_ms = up->since_unix_ms;
    }
    if (up->since_unix_ms < e->since_unix_ms) {
        e->since_unix_ms = up->since_unix_ms;
    }
    e->online = true;
    presence_list_remove(&e->leaving);
    e->told |= up->quiet;
    queue_change(d, e, up->now_ms);
}

void
presence_delta_down(presence_delta_t *d,
                    const struct cq_id *user,
                    uint64_t seen_unix_ms,
                    uint64_t now_ms)
{
    struct entry *e = presence_map_find(&d->entries, user);
    if (e && e->online) {
        e->online = false;
        e->seen_unix_ms = seen_unix_ms;
        e->grace_end_ms = now_ms + d->cfg.grace_ms;
        presence_list_append(&d->leaving, &e->leaving);
    }
}

void
presence_delta_absent(presence_delta_t *d,
                      const struct cq_id *user,
                      uint64_t seen_unix_ms,
                      uint64_t now_ms)
{
    if (!presence_map_find(&d->entries, user)) {
        struct entry *e = entry_for(d, user);
        e->told = true;
        e->seen_unix_ms = seen_unix_ms;
        queue_change(d, e, now_ms);
    }
}

void
presence_delta_retell(presence_delta_t *d, const struct cq_id *user, uint64_t now_ms)
{
    struct entry *e = entry_for(d, user);
    e->stale = true;
    queue_change(d, e, now_ms);
}

void
presence_delta_extend(presence_delta_t *d, uint64_t now_ms)
{
    d->extended_ms = now_ms + d->cfg.grace_ms;
}

bool
presence_delta_is_visible(const presence_delta_t *d,
                          const struct cq_id *user,
                          uint64_t *since_unix_ms)
{
    const struct entry *e = presence_map_find(&d->entries, user);
    if (!e || !is_visible(e)) {
        return false;
    }
    *since_unix_ms = e->since_unix_ms;
    return true;
}

bool
presence_delta_leave(presence_delta_t *d, uint64_t now_ms)
{
    if (now_ms < d->extended_ms) {
        return false;
    }
    for (int n = 0; !presence_list_is_empty(&d->leaving); n++) {
        struct entry *e = PRESENCE_LIST_OF(d->leaving.next, struct entry, leaving);
        if (e->grace_end_ms > now_ms) {
            return false;
        }
        if (n == LEFT_MAX) {
            return true;
        }
        presence_list_remove(&e->leaving);
        d->visible_count--;
        struct cq_id id = e->id;
        uint64_t seen_unix_ms = e->seen_unix_ms;
        queue_change(d, e, now_ms); /* may free e */
        d->cfg.on_left(d->cfg.ctx, &id, seen_unix_ms);
    }
    return false;
}

static void
tell_changes(presence_delta_t *d, uint64_t now_ms)
{
    size_t ceiling = d->cfg.cost_max / PRESENCE_DELTA_SLICES + 1;
    size_t cost = 0;
    while (cost < ceiling && !presence_list_is_empty(&d->changes)) {
        struct entry *e = PRESENCE_LIST_OF(d->changes.next, struct entry, change);
        if (e->due_ms > now_ms) {
            return;
        }
        bool online = is_visible(e);
        uint64_t time_unix_ms = online ? e->since_unix_ms : e->seen_unix_ms;
        e->told = online;
        e->stale = false;
        struct cq_id id = e->id;
        queue_change(d, e, now_ms); /* told now: leaves the queue, may free e */
        /* One for the look-up itself: a change that nobody watches is not free. */
        cost += 1 + d->cfg.on_change(d->cfg.ctx, &id, online, time_unix_ms);
    }
}

void
presence_delta_step(presence_delta_t *d, uint64_t now_ms)
{
    (void)presence_delta_leave(d, now_ms);
    tell_changes(d, now_ms);
}

bool
presence_delta_is_busy(const presence_delta_t *d)
{
    return d->change_count > 0 || !presence_list_is_empty(&d->leaving);
}

size_t
presence_delta_visible_count(const presence_delta_t *d)
{
    return d->visible_count;
}

size_t
presence_delta_pending(const presence_delta_t *d)
{
    return d->change_count;
}
