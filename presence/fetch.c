/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/fetch.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "presence/lookup.h"
#include "presence/note.h"

enum {
    SLOT_MAX = 1024,
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
    struct cq_id ids[CQ_LIST_MAX];
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

/* The ids of an answer into f->ids: their number, or negative. */
static int
read_ids(struct presence_fetch *f, cq_reader_t *fields, size_t count)
{
    struct cq_watched watched;
    int rc = cq_schema_read(&cq_watched_schema, fields, count, &watched);
    cq_reader_t r = cq_list_reader(&watched.users);
    for (size_t i = 0; rc == 0 && i < watched.users.count; i++) {
        f->ids[i] = cq_read_id(&r);
        rc = r.err;
    }
    return rc ? rc : (int)watched.users.count;
}

static void
on_watched(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    struct slot *slot = ctx;
    presence_core_t *core = slot->core;
    struct presence_fetch *f = core->fetch;
    struct cq_id user = slot->user;
    slot->next_free = f->free;
    f->free = slot;
    /* A user whom the store does not know sees nobody. */
    int n = err == -CQ_E_NOT_FOUND ? 0 : (err ? err : read_ids(f, fields, count));
    if (n < 0) {
        presence_stats.watchlists_failed_total++;
        presence_watch_fail(core->watch, &user);
        presence_lookup_give_up(core, &user);
    } else if (presence_watch_set(core->watch, &user, f->ids, (size_t)n)) {
        presence_note_due(core, &user);
        presence_lookup_go_on(core, &user);
    }
}

void
presence_fetch_pump(presence_core_t *core)
{
    struct presence_fetch *f = core->fetch;
    struct cq_watchlist ask;
    while (f->free && cq_bus_is_registered(core->bus) &&
           presence_watch_next(core->watch, &ask.user)) {
        struct slot *slot = f->free;
        const struct cq_bus_wait wait = {DEADLINE_MS, on_watched, slot};
        slot->user = ask.user;
        if (cq_bus_request(core->bus, "store", CQ_BUS_WATCHLIST, &cq_watchlist_schema, &ask,
                           &wait)) {
            presence_watch_fail(core->watch, &ask.user);
            return;
        }
        f->free = slot->next_free;
        presence_stats.watchlists_total++;
    }
}
