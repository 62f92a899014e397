/* SPDX-License-Identifier: MPL-2.0
 * DELIVER from presence: one event, many sessions. Confirmed lazily: what matters is that it is in
 * the sessions' queues, or that they are told to sync, or gone.
 */
#include "common/rt/log.h"

#include "edge/edge.h"

enum {
    CONFIRM_MS = 20
};

/* The push's row, or NULL if the event is none. */
static const struct cq_op *
push_of(struct cq_view event)
{
    cq_reader_t r = cq_reader_of(event);
    (void)cq_read_array(&r, 1, CQ_LIST_MAX);
    uint64_t code = cq_read_uint(&r, UINT8_MAX);
    const struct cq_op *row = r.err ? NULL : cq_op_find(code);
    return row && row->is_push && code != CQ_OP_OK && code != CQ_OP_ERR ? row : NULL;
}

/* How long ago did the store accept this message? Of a clock that has jumped: 0. */
static void
note_age(struct cq_view event)
{
    enum {
        FIELDS_BEFORE_TIME = 6, /* the code, chat, seq, user, device, dseq */
        US_PER_MS = 1000
    };
    cq_reader_t r = cq_reader_of(event);
    (void)cq_read_array(&r, FIELDS_BEFORE_TIME + 1, CQ_LIST_MAX);
    for (int i = 0; i < FIELDS_BEFORE_TIME; i++) {
        (void)cq_read_any(&r);
    }
    uint64_t accepted_unix_ms = cq_read_uint(&r, UINT64_MAX / US_PER_MS);
    if (!r.err) {
        cq_histogram_add_span(&edge_metrics_stages()->age, accepted_unix_ms * US_PER_MS,
                              cq_now_unix_ms() * US_PER_MS);
    }
}

static void
note_delivery(edge_t *e, uint64_t delivery)
{
    struct edge_presence *p = &e->presence;
    /* Confirming this one confirms those before it. One that the broker could not deliver is made
     * up for by a sync. */
    bool is_next_known = p->delivery || p->begins_at_one;
    if (is_next_known && delivery > p->delivery + 1) {
        CQ_LOG(WARN, "EDGE-DELIVER-GAP", "have=%llu got=%llu", (unsigned long long)p->delivery,
               (unsigned long long)delivery);
        edge_announce_missed(e);
    }
    if (p->delivery == p->confirmed) {
        cq_timer_start(e->deliver_timer, CONFIRM_MS, 0);
    }
    p->delivery = delivery > p->delivery ? delivery : p->delivery;
}

/* Presence tells a change once, so one that is lost here is remembered (sweep.c). A note that no
 * queue has room for is not: it would come again and again. */
static void
owe_note(const edge_t *e, edge_session_t *s, const struct cq_deliver *m, const struct cq_op *row)
{
    if (row->code == CQ_OP_PRESENCE_NOTE && m->event.n <= e->cfg->session_queue_max_bytes) {
        s->is_note_owed = true;
    }
}

/* True: queued, or dropped by the policy. Before WELCOME nothing is pushed: the client's first
 * sync, after it, brings what is stored. */
static bool
deliver(edge_t *e, edge_session_t *s, const struct cq_deliver *m, const struct cq_op *row)
{
    if (s->state != EDGE_STATE_READY || s->is_logging_out) {
        owe_note(e, s, m, row);
        return false;
    }
    s->push_mono_us = s->push_mono_us ? s->push_mono_us : cq_bus_read_mono_us(e->bus);
    if (!edge_send_event(e, s, row->policy, m->event)) {
        owe_note(e, s, m, row);
    }
    return true;
}

void
edge_deliver_on_deliver(void *ctx,
                        const struct cq_bus_from *from,
                        cq_reader_t *fields,
                        size_t count)
{
    edge_t *e = ctx;
    struct cq_deliver m;
    if (cq_schema_read(&cq_deliver_schema, fields, count, &m) ||
        strcmp(from->src, e->presence.name) != 0) {
        CQ_LOG(WARN, "EDGE-DELIVER-BAD", "src=%s", from->src);
        return;
    }
    e->metrics->delivers_total++;
    const struct cq_op *row = push_of(m.event);
    if (!row) {
        CQ_LOG(WARN, "EDGE-DELIVER-EVENT", "src=%s delivery=%llu", from->src,
               (unsigned long long)m.delivery);
    }
    bool is_pushed = false;
    cq_reader_t r = cq_list_reader(&m.sessions);
    for (size_t i = 0; row && i < m.sessions.count && !r.err; i++) {
        edge_session_t *s = edge_session_find(&e->sessions, cq_read_uint(&r, UINT64_MAX));
        is_pushed |= s && deliver(e, s, &m, row);
    }
    if (is_pushed && row->code == CQ_OP_MESSAGE) {
        note_age(m.event);
    }
    if (m.delivery) {
        note_delivery(e, m.delivery);
    }
}

void
edge_deliver_on_timer(void *ctx)
{
    edge_t *e = ctx;
    struct edge_presence *p = &e->presence;
    if (p->name[0] && p->delivery != p->confirmed) {
        struct cq_delivered m = {p->delivery};
        cq_bus_event(e->bus, p->name, CQ_BUS_DELIVERED, &cq_delivered_schema, &m);
        p->confirmed = p->delivery;
    }
}
