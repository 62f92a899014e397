/* SPDX-License-Identifier: MPL-2.0
 * What actors say to the broker itself: registration, pings, leaving, and the question for its
 * counters.
 */
#include <inttypes.h>
#include <string.h>

#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/wire/name.h"
#include "common/wire/pack.h"

#include "broker/broker_impl.h"

static void
copy_text(char out[CQ_ACTOR_NAME_MAX + 1], struct cq_view v)
{
    memcpy(out, v.p, v.n); /* the schema bounds it */
    out[v.n] = '\0';
}

/* The fields name the connection's own identity, and nothing that is the broker's. */
static bool
is_register_ok(const struct broker_envelope *e, const struct cq_actor *m, char name[], char role[])
{
    char own[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation = 0;
    copy_text(name, m->name);
    copy_text(role, m->role);
    return broker_identity_read(e->from, own, &incarnation) && strcmp(own, name) == 0 &&
           incarnation == m->incarnation && cq_actor_name_ok(role, m->role.n) &&
           strlen(role) == m->role.n && strcmp(name, "broker") != 0 && strcmp(role, "broker") != 0;
}

static int
on_register(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct cq_actor m;
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    if (cq_schema_read(&cq_actor_schema, fields, count, &m) != 0 ||
        !is_register_ok(e, &m, name, role)) {
        return -CQ_E_BAD_ARG;
    }
    struct broker_actor *a = broker_registry_find(b->registry, name);
    if (a && a->incarnation == m.incarnation) { /* repeated, the answer was lost or is under way */
        if (strcmp(a->role, role) != 0) {
            return -CQ_E_BAD_ARG;
        }
        broker_announce_registered(b, a);
        return 0;
    }
    if (a && broker_registry_was(b->registry, name, m.incarnation)) {
        /* It held the name before the present holder: two processes of one name would throw each
         * other out for ever. */
        broker_stats.refused++;
        broker_bounce(b->router, e, -CQ_E_DENIED);
        return 0;
    }
    if (a) {
        broker_announce_doom(b, a);
        broker_announce_reap(b);
    }
    if (broker_registry_add(b->registry, name, role, m.incarnation, &a) != 0) {
        broker_stats.refused++;
        broker_bounce(b->router, e, -CQ_E_BUSY);
        return 0;
    }
    a->heard_mono_ms = cq_now_mono_ms();
    broker_stats.registered++;
    broker_stats.actors++;
    CQ_LOG(INFO, "BROKER-ACTOR-UP", "name=%s role=%s incarnation=%016" PRIx64, name, role,
           m.incarnation);
    broker_announce_registered(b, a);
    broker_announce_all(b, a, CQ_BUS_UP);
    return 0;
}

struct broker_actor *
broker_control_sender(const broker_t *b, const struct broker_envelope *e)
{
    return broker_registry_by_identity(b->registry, e->from);
}

static int
on_ping(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct broker_actor *a = broker_control_sender(b, e);
    struct cq_bus_ping pong = {.incarnation = b->incarnation};
    (void)fields;
    (void)count;
    if (a) {
        broker_announce_tell(b, a, CQ_BUS_BUS_PONG, &cq_bus_ping_schema, &pong);
    }
    return 0;
}

static int
on_leave(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct broker_actor *a = broker_control_sender(b, e);
    (void)fields;
    (void)count;
    if (a) {
        broker_announce_doom(b, a);
    }
    return 0;
}

/* METRICS with one item; a reader of counters has no reason to ask more at once. */
static int
answer_metrics(broker_t *b, const struct broker_envelope *e, uint64_t rid)
{
    cq_buf_t text = {0};
    cq_metric_text(&text, "broker");
    cq_buf_clear(&b->items);
    cq_pack_array(&b->items, 3);
    cq_pack_uint(&b->items, rid);
    cq_pack_uint(&b->items, CQ_OK);
    cq_pack_str(&b->items, (const char *)text.data, text.size);
    int rc = broker_route_send(b->router, e->from, CQ_BUS_REPLY, &b->items, 1);
    (void)rc; /* the asker repeats */
    cq_buf_free(&text);
    return 0;
}

typedef int
control_handler(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count);

static control_handler *const controls[256] = {
    [CQ_BUS_REGISTER] = on_register,
    [CQ_BUS_BUS_PING] = on_ping,
    [CQ_BUS_LEAVE] = on_leave,
};

/* The first item of an envelope for the broker itself; one is all that its operations have. */
int
broker_control_take(broker_t *b, const struct broker_envelope *e)
{
    cq_reader_t body;
    int items = cq_envelope_open(e->content.p, e->content.n, &body);
    if (items < 1) {
        return -CQ_E_BAD_FRAME;
    }
    cq_reader_t fields = cq_reader_of(cq_read_any(&body));
    size_t count = cq_read_array(&fields, 1, UINT32_MAX);
    uint64_t rid = cq_read_uint(&fields, UINT64_MAX);
    if (fields.err) {
        return -CQ_E_BAD_FRAME;
    }
    if (e->head.op == CQ_BUS_METRICS) {
        return rid ? answer_metrics(b, e, rid) : 0;
    }
    control_handler *fn = controls[e->head.op];
    return fn ? fn(b, e, &fields, count - 1) : -CQ_E_UNKNOWN_OP;
}
