/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/fetch.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "presence/lookup.h"
#include "presence/note.h"

/* Lists of many who come at once may be late by seconds, messages may not. So they are asked for in
 * rounds, each small enough for a turn of the store, and between two of them the store, and we,
 * have as long for others as the last one took: the busier they are, the slower lists come. */
enum {
    SLOT_MAX = 16,
    SLOT_MIN = 8,
    IDS_MAX = 50000,   /* about so many ids may be in the answers that come in one turn */
    REST_MAX_MS = 100, /* a store that has hung is forgiven */
    DEADLINE_MS = 5000
};

/* One question on its way. Slots and not allocations: the bus may forget questions at its end. */
struct slot {
    presence_core_t *core;
    struct cq_id user;
    struct slot *next_free;
};

struct presence_fetch {
    struct slot slots[SLOT_MAX];
    struct slot *free;
    size_t asked_count;
    uint64_t round_mono_ms;      /* when the last round began … */
    uint64_t rest_until_mono_ms; /* … and until when there is none after it */
    size_t usual;                /* length of a list, lately */
    struct cq_id ids[CQ_LIST_MAX];
    struct cq_id hidden[CQ_LIST_MAX];
};

struct presence_fetch *
presence_fetch_new(presence_core_t *core)
{
    struct presence_fetch *f = cq_alloc(sizeof *f);
    for (size_t i = 0; i < SLOT_MAX; i++) {
        f->slots[i].core = core;
        f->slots[i].next_free = f->free;
        f->free = &f->slots[i];
    }
    return f;
}

void
presence_fetch_destroy(struct presence_fetch **f)
{
    free(*f);
    *f = NULL;
}

static int
read_ids(struct cq_id *ids, const struct cq_list *list)
{
    cq_reader_t r = cq_list_reader(list);
    for (size_t i = 0; i < list->count; i++) {
        ids[i] = cq_read_id(&r);
    }
    return r.err;
}

static int
read_list(struct presence_fetch *f,
          cq_reader_t *fields,
          size_t count,
          struct presence_watch_list *list)
{
    struct cq_watched watched;
    int rc = cq_schema_read(&cq_watched_schema, fields, count, &watched);
    rc = rc ? rc : read_ids(f->ids, &watched.users);
    rc = rc ? rc : read_ids(f->hidden, &watched.hidden);
    if (rc == 0) {
        *list = (struct presence_watch_list){
            f->ids, watched.users.count, watched.hides, f->hidden, watched.hidden.count,
        };
    }
    return rc;
}

/* What the user's settings mean for what Redis and friends have heard. */
static void
settle_seen(presence_core_t *core,
            const struct cq_id *user,
            enum presence_watch_seen was,
            bool hides)
{
    struct presence_user *online = presence_session_map_user(core->sessions, user);
    bool was_hidden = was == PRESENCE_WATCH_HIDES;
    if (hides && !was_hidden) {
        presence_redis_sync_forget(core->redis, user);
    }
    if (online && (was == PRESENCE_WATCH_UNKNOWN || was_hidden != hides)) {
        presence_redis_sync_dirty(core->redis, online);
    }
    if ((was != PRESENCE_WATCH_UNKNOWN || !online) && was_hidden != hides) {
        presence_delta_retell(core->delta, user, cq_now_mono_ms());
        presence_presence_wake(core);
    }
}

static void
on_failed(presence_core_t *core, const struct cq_id *user)
{
    struct presence_user *online = presence_session_map_user(core->sessions, user);
    presence_stats.watchlists_failed_total++;
    presence_watch_fail(core->watch, user);
    presence_lookup_give_up(core, user);
    if (online && online->written_mono_ms == 0) {
        presence_redis_sync_dirty(core->redis, online); /* without times */
    }
}

static void
give_back(struct presence_fetch *f, struct slot *slot)
{
    slot->next_free = f->free;
    f->free = slot;
    if (--f->asked_count == 0) {
        uint64_t now_ms = cq_now_mono_ms();
        uint64_t took_ms = now_ms - f->round_mono_ms;
        f->rest_until_mono_ms = now_ms + (took_ms < REST_MAX_MS ? took_ms : REST_MAX_MS);
    }
}

static void
on_watched(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    struct slot *slot = ctx;
    presence_core_t *core = slot->core;
    struct presence_fetch *f = core->fetch;
    struct cq_id user = slot->user;
    give_back(f, slot);
    /* A user whom the store does not know sees nobody, and has nothing to show. */
    struct presence_watch_list list = {.ids = f->ids, .hidden = f->hidden, .hides = true};
    int rc = err == -CQ_E_NOT_FOUND ? 0 : (err ? err : read_list(f, fields, count, &list));
    if (rc) {
        on_failed(core, &user);
        return;
    }
    f->usual = (f->usual * 15 + list.count) / 16 + (list.count > f->usual);
    enum presence_watch_seen was = presence_watch_own_seen(core->watch, &user);
    bool is_known = presence_watch_set(core->watch, &user, &list);
    settle_seen(core, &user, was, list.hides);
    if (is_known) {
        presence_note_due(core, &user);
        presence_lookup_go_on(core, &user);
    }
}

static void
ask_round(presence_core_t *core)
{
    struct presence_fetch *f = core->fetch;
    struct cq_watchlist ask;
    size_t max = IDS_MAX / (f->usual + 1);
    max = max > SLOT_MIN ? max : SLOT_MIN;
    f->round_mono_ms = cq_now_mono_ms();
    while (f->free && f->asked_count < max && presence_watch_next(core->watch, &ask.user)) {
        struct slot *slot = f->free;
        const struct cq_bus_wait wait = {DEADLINE_MS, on_watched, slot};
        slot->user = ask.user;
        if (cq_bus_request(core->bus, "store", CQ_BUS_WATCHLIST, &cq_watchlist_schema, &ask,
                           &wait)) {
            presence_watch_fail(core->watch, &ask.user);
            return;
        }
        f->free = slot->next_free;
        f->asked_count++;
        presence_stats.watchlists_total++;
    }
}

bool
presence_fetch_pump(presence_core_t *core)
{
    const struct presence_fetch *f = core->fetch;
    if (f->asked_count > 0 || !cq_bus_is_registered(core->bus) ||
        !presence_watch_is_waiting(core->watch)) {
        return false;
    }
    if (cq_now_mono_ms() < f->rest_until_mono_ms) {
        return true;
    }
    ask_round(core);
    return false;
}
