/* SPDX-License-Identifier: MPL-2.0
 * Forwarding. The values go as they came and the answer's come back as they are: the edge need not
 * know what they mean.
 */
#include "edge/call.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    CALL_DEADLINE_MS = 10000,
    LOOKUP_DEADLINE_MS = 3000
};

struct edge_call *
edge_call_new(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    struct edge_call *c = cq_alloc(sizeof *c);
    *c = (struct edge_call){.edge = e,
                            .session = s->number,
                            .rid = rq->rid,
                            .begun_mono_us = e->gate_mono_us,
                            .op = rq->op,
                            .cost = rq->cost,
                            .next = e->calls};
    if (e->calls) {
        e->calls->prev = c;
    }
    e->calls = c;
    s->cost += rq->cost;
    e->metrics->calls_in_flight++;
    return c;
}

static void
free_call(struct edge_call *c)
{
    cq_buf_free(&c->packed);
    free(c);
}

edge_session_t *
edge_call_end(struct edge_call **call)
{
    struct edge_call *c = *call;
    edge_t *e = c->edge;
    *call = NULL;
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        e->calls = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    edge_session_t *s = edge_session_find(&e->sessions, c->session);
    if (s) {
        s->cost -= c->cost;
    }
    e->metrics->calls_in_flight--;
    free_call(c);
    return s;
}

void
edge_call_count(const struct edge_call *call)
{
    struct edge_stages *stages = edge_metrics_stages();
    cq_histogram_add_span(&stages->requests[edge_metrics_request_class(call->op)],
                          call->begun_mono_us, cq_now_mono_us());
}

void
edge_call_free_all(edge_t *e)
{
    while (e->calls) {
        struct edge_call *c = e->calls;
        e->calls = c->next;
        free_call(c);
    }
}

struct cq_view
edge_call_values(cq_reader_t *fields, size_t count)
{
    const uint8_t *start = fields->p;
    for (size_t i = 0; i < count; i++) {
        (void)cq_read_any(fields);
    }
    return fields->err ? (struct cq_view){0} : (struct cq_view){start, (size_t)(fields->p - start)};
}

/* The answer of store or presence, as it is. */
static void
on_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct edge_call *call = ctx;
    edge_t *e = call->edge;
    uint64_t rid = call->rid;
    if (!err) {
        edge_call_count(call);
    }
    edge_session_t *s = edge_call_end(&call);
    if (!s) {
        return;
    }
    if (!err) {
        struct cq_view values = edge_call_values(fields, count);
        err = fields->err ? -CQ_E_INTERNAL : 0;
        if (!err) {
            edge_send_ok_raw(e, s, rid, count, values);
        }
    }
    if (err) {
        edge_send_err(e, s, rid, err, 0, detail);
    }
    edge_ops_resume(e, s);
}

int
edge_call_on_store(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    struct cq_bus_call m = {.user = s->user, .device = s->device, .op = rq->op, .fields = rq->raw};
    struct edge_call *call = edge_call_new(e, s, rq);
    struct cq_bus_wait wait = {CALL_DEADLINE_MS, on_reply, call};
    int rc = cq_bus_request(e->bus, "store", CQ_BUS_CALL, &cq_bus_call_schema, &m, &wait);
    if (rc) {
        (void)edge_call_end(&call);
    }
    return rc;
}

int
edge_call_on_presence(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    const struct cq_presence *asked = rq->fields;
    cq_reader_t r = cq_list_reader(&asked->users);
    for (size_t i = 0; i < asked->users.count; i++) {
        (void)cq_read_id(&r);
    }
    if (r.err) {
        return -CQ_E_BAD_ARG;
    }
    if (!e->presence.name[0]) {
        return -CQ_E_UNAVAILABLE;
    }
    struct cq_lookup m = {.user = s->user, .users = asked->users};
    struct edge_call *call = edge_call_new(e, s, rq);
    struct cq_bus_wait wait = {LOOKUP_DEADLINE_MS, on_reply, call};
    int rc = cq_bus_request(e->bus, e->presence.name, CQ_BUS_LOOKUP, &cq_lookup_schema, &m, &wait);
    if (rc) {
        (void)edge_call_end(&call);
    }
    return rc;
}

int
edge_call_on_ping(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    edge_send_ok(e, s, rq->rid, &cq_empty_schema, NULL);
    return 0;
}
