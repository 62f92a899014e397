/* SPDX-License-Identifier: MPL-2.0
 * Whoever cannot take an announcement (its queue is full, or its connection gone) would know less
 * than the others. So it is doomed: announced down, and it registers anew when it speaks again.
 * Announcing may doom others; reaping goes on until nobody is left.
 */
#include <inttypes.h>

#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "broker/broker_impl.h"

void
broker_announce_doom(broker_t *b, struct broker_actor *a)
{
    a->is_doomed = true;
    b->has_doomed = true;
}

void
broker_announce_tell(broker_t *b,
                     struct broker_actor *to,
                     uint8_t op,
                     const struct cq_schema *s,
                     const void *in)
{
    cq_buf_clear(&b->items);
    cq_pack_array(&b->items, 1 + s->field_count);
    cq_pack_uint(&b->items, 0);
    cq_schema_write(s, &b->items, in);
    struct cq_view identity = {(const uint8_t *)to->identity, to->identity_size};
    cq_zwatch_sent(b->watch); /* a timer may have brought us here */
    if (broker_route_send(b->router, identity, op, &b->items, 1) != 0) {
        broker_announce_doom(b, to);
    }
}

static struct cq_actor
actor_fields(const struct broker_actor *a)
{
    return (struct cq_actor){
        .name = {(const uint8_t *)a->name, strlen(a->name)},
        .role = {(const uint8_t *)a->role, strlen(a->role)},
        .incarnation = a->incarnation,
    };
}

void
broker_announce_all(broker_t *b, const struct broker_actor *about, uint8_t op)
{
    struct cq_actor m = actor_fields(about);
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *to = broker_registry_at(b->registry, i);
        if (to != about && !to->is_doomed) {
            broker_announce_tell(b, to, op, &cq_actor_schema, &m);
        }
    }
}

static struct broker_actor *
find_doomed(const broker_t *b)
{
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *a = broker_registry_at(b->registry, i);
        if (a->is_doomed) {
            return a;
        }
    }
    return NULL;
}

void
broker_announce_reap(broker_t *b)
{
    while (b->has_doomed) {
        struct broker_actor *a = find_doomed(b);
        if (!a) {
            b->has_doomed = false;
            return;
        }
        CQ_LOG(INFO, "BROKER-ACTOR-DOWN", "name=%s role=%s incarnation=%016" PRIx64, a->name,
               a->role, a->incarnation);
        broker_announce_all(b, a, CQ_BUS_DOWN);
        broker_registry_remove(b->registry, a);
        broker_stats.downs++;
        broker_stats.actors--;
    }
}

void
broker_announce_registered(broker_t *b, struct broker_actor *a)
{
    cq_buf_t list = {0};
    size_t count = 0;
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *other = broker_registry_at(b->registry, i);
        if (other != a && !other->is_doomed) {
            struct cq_actor m = actor_fields(other);
            cq_schema_write_array(&cq_actor_schema, &list, &m);
            count++;
        }
    }
    struct cq_registered m = {
        .broker_incarnation = b->incarnation,
        .lease_ms = b->lease_ms,
        .actors = cq_list_of(&list, count),
    };
    broker_announce_tell(b, a, CQ_BUS_REGISTERED, &cq_registered_schema, &m);
    cq_buf_free(&list);
}
