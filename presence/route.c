/* SPDX-License-Identifier: MPL-2.0
 * Tracked positions are a ring; its entries are named by an ascending serial so that the edges'
 * queues can refer to them after the ring has moved on. An edge's queue has one entry for each
 * tracked delivery; it is bounded because the ring is.
 */
#include "presence/route.h"

#include <stdlib.h>

#include "common/rt/check.h"

struct tracked {
    uint64_t pos;
    uint64_t pending; /* deliveries not confirmed, plus one while the route is open */
};

struct owed {
    uint64_t delivery;
    uint64_t serial; /* of the tracked position */
};

struct edge_queue {
    struct owed *ring;
    size_t room; /* 0 or a power of two */
    size_t head, count;
    uint64_t last_delivery;
};

struct presence_route {
    bool has_stream;
    bool is_dropping;
    bool is_open; /* a tracked route is open: it is the ring's last */
    uint64_t stream;
    uint64_t last_pos;
    uint64_t confirmed, told;
    uint64_t head, tail; /* serials: head is the oldest tracked, tail the next */
    struct tracked *ring;
    struct edge_queue edges[PRESENCE_EDGE_MAX];
    cq_buf_t held;
    size_t held_at; /* bytes of held that were taken */
    size_t held_count;
};

presence_route_t *
presence_route_new(void)
{
    presence_route_t *r = cq_alloc(sizeof *r);
    r->ring = cq_alloc(PRESENCE_ROUTE_TRACKED_MAX * sizeof *r->ring);
    return r;
}

void
presence_route_destroy(presence_route_t **r)
{
    if (*r) {
        for (size_t i = 0; i < PRESENCE_EDGE_MAX; i++) {
            free((*r)->edges[i].ring);
        }
        cq_buf_free(&(*r)->held);
        free((*r)->ring);
        free(*r);
        *r = NULL;
    }
}

static struct tracked *
tracked_at(presence_route_t *r, uint64_t serial)
{
    return &r->ring[serial % PRESENCE_ROUTE_TRACKED_MAX];
}

static void
drop_held(presence_route_t *r)
{
    cq_buf_free(&r->held);
    r->held_at = 0;
    r->held_count = 0;
}

void
presence_route_forget(presence_route_t *r)
{
    for (size_t i = 0; i < PRESENCE_EDGE_MAX; i++) {
        r->edges[i].head = 0;
        r->edges[i].count = 0;
    }
    r->head = r->tail;
    r->has_stream = false;
    r->is_dropping = false;
    r->is_open = false;
    drop_held(r);
}

void
presence_route_begin(presence_route_t *r, uint64_t stream, uint64_t pos)
{
    presence_route_forget(r);
    r->has_stream = true;
    r->stream = stream;
    r->last_pos = r->confirmed = r->told = pos;
}

bool
presence_route_is_dropping(const presence_route_t *r)
{
    return r->is_dropping;
}

enum presence_route_verdict
presence_route_open(presence_route_t *r, uint64_t pos)
{
    CQ_ASSERT(!r->is_open);
    if (pos == 0 || !r->has_stream || pos <= r->last_pos) {
        return PRESENCE_ROUTE_PASS;
    }
    if (r->tail - r->head >= PRESENCE_ROUTE_TRACKED_MAX) {
        r->is_dropping = true;
        drop_held(r);
        return PRESENCE_ROUTE_DROP;
    }
    r->last_pos = pos;
    r->is_open = true;
    *tracked_at(r, r->tail++) = (struct tracked){pos, 1};
    return PRESENCE_ROUTE_TRACK;
}

static void
push_owed(struct edge_queue *q, struct owed owed)
{
    if (q->count == q->room) {
        size_t room = q->room ? q->room * 2 : 64;
        struct owed *ring = cq_alloc(room * sizeof *ring);
        for (size_t i = 0; i < q->count; i++) {
            ring[i] = q->ring[(q->head + i) & (q->room - 1)];
        }
        free(q->ring);
        q->ring = ring;
        q->room = room;
        q->head = 0;
    }
    q->ring[(q->head + q->count++) & (q->room - 1)] = owed;
}

uint64_t
presence_route_deliver(presence_route_t *r, uint16_t edge)
{
    struct edge_queue *q = &r->edges[edge];
    uint64_t delivery = ++q->last_delivery;
    if (r->is_open) {
        push_owed(q, (struct owed){delivery, r->tail - 1});
        tracked_at(r, r->tail - 1)->pending++;
    }
    return delivery;
}

/* Everything before the first position that is still owed is confirmed. */
static void
advance(presence_route_t *r)
{
    while (r->head != r->tail && tracked_at(r, r->head)->pending == 0) {
        r->confirmed = tracked_at(r, r->head++)->pos;
    }
}

void
presence_route_close(presence_route_t *r)
{
    if (r->is_open) {
        r->is_open = false;
        tracked_at(r, r->tail - 1)->pending--;
        advance(r);
    }
}

static void
pop_owed(presence_route_t *r, struct edge_queue *q, uint64_t delivery)
{
    while (q->count > 0 && q->ring[q->head].delivery <= delivery) {
        tracked_at(r, q->ring[q->head].serial)->pending--;
        q->head = (q->head + 1) & (q->room - 1);
        q->count--;
    }
    advance(r);
}

int
presence_route_delivered(presence_route_t *r, uint16_t edge, uint64_t delivery)
{
    if (delivery > r->edges[edge].last_delivery) {
        return -CQ_E_BAD_ARG;
    }
    pop_owed(r, &r->edges[edge], delivery);
    return 0;
}

void
presence_route_edge_up(presence_route_t *r, uint16_t edge, bool fresh)
{
    presence_route_edge_down(r, edge);
    if (fresh) {
        r->edges[edge].last_delivery = 0;
    }
}

void
presence_route_edge_down(presence_route_t *r, uint16_t edge)
{
    struct edge_queue *q = &r->edges[edge];
    pop_owed(r, q, UINT64_MAX);
    free(q->ring);
    q->ring = NULL;
    q->room = q->head = 0;
}

bool
presence_route_has_news(const presence_route_t *r)
{
    return r->has_stream && r->confirmed > r->told;
}

struct cq_routed
presence_route_take_news(presence_route_t *r)
{
    r->told = r->confirmed;
    return (struct cq_routed){r->stream, r->confirmed};
}

bool
presence_route_hold(presence_route_t *r, const struct cq_route *route)
{
    size_t bytes = route->users.items.n + route->event.n;
    if (r->held_count >= PRESENCE_ROUTE_HELD_MAX ||
        r->held.size - r->held_at + bytes > PRESENCE_ROUTE_HELD_BYTES) {
        r->is_dropping = true;
        return false;
    }
    if (r->held_at > r->held.size / 2) {
        r->held.size -= r->held_at;
        memmove(r->held.data, r->held.data + r->held_at, r->held.size);
        r->held_at = 0;
    }
    cq_schema_write_array(&cq_route_schema, &r->held, route);
    r->held_count++;
    return true;
}

size_t
presence_route_held(const presence_route_t *r)
{
    return r->held_count;
}

bool
presence_route_unhold(presence_route_t *r, struct cq_route *route)
{
    if (r->held_count == 0) {
        drop_held(r);
        return false;
    }
    cq_reader_t reader = cq_reader(r->held.data + r->held_at, r->held.size - r->held_at);
    int rc = cq_schema_read_array(&cq_route_schema, &reader, route);
    CQ_ASSERT(rc == 0); /* we wrote it */
    r->held_at = r->held.size - (size_t)(reader.end - reader.p);
    r->held_count--;
    return true;
}
