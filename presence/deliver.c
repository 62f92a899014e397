/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/deliver.h"

#include <stdlib.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

/* An item must fit an envelope: at most 9 bytes for a number, and an event of at most
 * CQ_PUSH_FRAME_MAX. */
enum {
    ITEM_SESSIONS_MAX = 131072
};

struct target {
    cq_buf_t numbers; /* packed */
    size_t count;
};

struct presence_deliver {
    struct cq_view event;
    struct target targets[PRESENCE_EDGE_MAX];
    uint16_t touched[PRESENCE_EDGE_MAX]; /* edges with a count */
    size_t touched_count;
    size_t session_count;
};

struct presence_deliver *
presence_deliver_new(void)
{
    return cq_alloc(sizeof(struct presence_deliver));
}

void
presence_deliver_destroy(struct presence_deliver **d)
{
    if (*d) {
        for (size_t i = 0; i < PRESENCE_EDGE_MAX; i++) {
            cq_buf_free(&(*d)->targets[i].numbers);
        }
        free(*d);
        *d = NULL;
    }
}

void
presence_deliver_begin(presence_core_t *core, struct cq_view event)
{
    core->deliver->event = event;
    core->deliver->session_count = 0;
}

static void
flush(presence_core_t *core, uint16_t edge)
{
    struct target *t = &core->deliver->targets[edge];
    const struct cq_deliver item = {
        .delivery = presence_route_deliver(core->route, edge),
        .sessions = cq_list_of(&t->numbers, t->count),
        .event = core->deliver->event,
    };
    cq_bus_event(core->bus, core->lease.edges[edge].name, CQ_BUS_DELIVER, &cq_deliver_schema,
                 &item);
    cq_buf_clear(&t->numbers);
    t->count = 0;
    presence_stats.delivers_total++;
}

void
presence_deliver_add(presence_core_t *core, const struct presence_session *session)
{
    struct presence_deliver *d = core->deliver;
    if (!presence_session_map_is_live(core->sessions, session)) {
        return;
    }
    struct target *t = &d->targets[session->edge];
    if (t->count == ITEM_SESSIONS_MAX) {
        flush(core, session->edge);
    } else if (t->count == 0) {
        d->touched[d->touched_count++] = session->edge;
    }
    cq_pack_uint(&t->numbers, session->number);
    t->count++;
    d->session_count++;
}

size_t
presence_deliver_end(presence_core_t *core)
{
    struct presence_deliver *d = core->deliver;
    for (size_t i = 0; i < d->touched_count; i++) {
        flush(core, d->touched[i]);
    }
    d->touched_count = 0;
    return d->session_count;
}
