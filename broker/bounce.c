/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/pack.h"

#include "broker/broker_impl.h"

enum {
    OVERHEAD = 256
}; /* what a bounce adds to the body, rounded up */

void
broker_bounce(void *router, const struct broker_envelope *e, int err)
{
    struct cq_bounce m = {
        .err = (uint64_t)-err,
        .dst = {(const uint8_t *)e->to, strlen(e->to)},
        .op = e->head.op,
        .corr = e->head.corr,
        .body = e->content.n + OVERHEAD <= CQ_ENVELOPE_MAX ? e->content : (struct cq_view){0},
    };
    cq_buf_t item = {0};
    cq_pack_array(&item, 1 + cq_bounce_schema.field_count);
    cq_pack_uint(&item, 0);
    cq_schema_write(&cq_bounce_schema, &item, &m);
    *(err == -CQ_E_BUSY ? &broker_stats.bounced_busy : &broker_stats.bounced_unroutable) += 1;
    /* If the sender cannot be reached either, its own repetition or its death settles it. */
    int rc = broker_route_send(router, e->from, CQ_BUS_BOUNCE, &item, 1);
    (void)rc;
    cq_buf_free(&item);
}
