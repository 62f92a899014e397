/* SPDX-License-Identifier: MPL-2.0
 * Requests in flight. Each keeps its packed item until it is answered, so that it can go out again:
 * when its addressee comes up, after a bounce, or after a second without an answer (then two, then
 * four). One timer sweeps all of them ten times a second while there are any; deadlines are that
 * exact.
 */
#include "common/rt/bus_impl.h"
#include "common/rt/check.h"
#include "common/rt/log.h"

enum {
    SWEEP_MS = 100,
    RETRY_FIRST_MS = 1000,
    RETRY_MAX_MS = 4000,
    BOUNCE_RETRY_MS = 200,
    IN_FLIGHT_DEFAULT = 65536,
    /* The random start leaves room to count up, and no answer to a former incarnation fits. */
    RID_START_SHIFT = 2,
};

static struct cq_bus_request **
bucket_of(struct cq_bus_requests *rs, uint64_t rid)
{
    return &rs->buckets[rid % CQ_BUS_BUCKETS];
}

static struct cq_bus_request *
find(struct cq_bus_requests *rs, uint64_t rid)
{
    struct cq_bus_request *r = *bucket_of(rs, rid);
    while (r && r->rid != rid) {
        r = r->chain;
    }
    return r;
}

static void
insert(struct cq_bus_requests *rs, struct cq_bus_request *r)
{
    struct cq_bus_request **bucket = bucket_of(rs, r->rid);
    r->chain = *bucket;
    *bucket = r;
    r->prev = rs->last;
    if (rs->last) {
        rs->last->next = r;
    } else {
        rs->first = r;
    }
    rs->last = r;
    rs->count++;
    cq_bus_stats.in_flight++;
}

static void
take_out(struct cq_bus_requests *rs, struct cq_bus_request *r)
{
    struct cq_bus_request **place = bucket_of(rs, r->rid);
    while (*place != r) {
        place = &(*place)->chain;
    }
    *place = r->chain;
    *(r->prev ? &r->prev->next : &rs->first) = r->next;
    *(r->next ? &r->next->prev : &rs->last) = r->prev;
    rs->count--;
    cq_bus_stats.in_flight--;
}

/* Can it be sent now? The broker itself is there when we are registered. */
static bool
is_reachable(const cq_bus_t *bus, const char *dst)
{
    return bus->is_registered && (cq_bus_has(bus, dst) || strcmp(dst, CQ_BUS_BROKER) == 0);
}

static void
send_again(cq_bus_t *bus, struct cq_bus_request *r)
{
    cq_bus_stats.retries++;
    r->is_parked = false;
    r->retry_mono_ms = cq_now_mono_ms() + r->retry_after_ms;
    r->retry_after_ms = r->retry_after_ms * 2 < RETRY_MAX_MS ? r->retry_after_ms * 2 : RETRY_MAX_MS;
    cq_bus_out_raw(bus, r->dst, r->op, r->item, r->item_size);
}

static void
expire(cq_bus_t *bus, struct cq_bus_request *r)
{
    cq_reader_t none = cq_reader(NULL, 0);
    take_out(&bus->requests, r);
    cq_bus_stats.deadlines++;
    r->fn(r->ctx, -CQ_E_DEADLINE, 0, &none, 0);
    free(r);
}

static void
on_sweep(void *ctx)
{
    cq_bus_t *bus = ctx;
    struct cq_bus_requests *rs = &bus->requests;
    uint64_t now = cq_now_mono_ms();
    struct cq_bus_request *next;
    for (struct cq_bus_request *r = rs->first; r; r = next) {
        next = r->next;
        if (now >= r->deadline_mono_ms) {
            expire(bus, r);
        } else if (now >= r->retry_mono_ms && bus->is_registered) {
            send_again(bus, r);
        }
    }
    if (!rs->first) {
        rs->is_sweeping = false;
        cq_timer_stop(rs->sweep);
    }
}

void
cq_bus_requests_start(cq_bus_t *bus)
{
    struct cq_bus_requests *rs = &bus->requests;
    rs->max = bus->cfg.in_flight_max ? bus->cfg.in_flight_max : IN_FLIGHT_DEFAULT;
    rs->last_rid = bus->incarnation >> RID_START_SHIFT;
    rs->sweep = cq_timer_new(bus->loop, on_sweep, bus);
}

void
cq_bus_requests_stop(cq_bus_t *bus)
{
    struct cq_bus_requests *rs = &bus->requests;
    cq_timer_destroy(&rs->sweep);
    while (rs->first) {
        struct cq_bus_request *r = rs->first;
        take_out(rs, r);
        free(r);
    }
    cq_buf_free(&rs->scratch);
}

int
cq_bus_request(cq_bus_t *bus,
               const char *dst,
               uint8_t op,
               const struct cq_schema *s,
               const void *in,
               const struct cq_bus_wait *wait)
{
    struct cq_bus_requests *rs = &bus->requests;
    if (rs->count >= rs->max) {
        return -CQ_E_BUSY;
    }
    uint64_t rid = ++rs->last_rid;
    cq_buf_t *item = &rs->scratch;
    cq_buf_clear(item);
    cq_pack_array(item, 1 + s->field_count);
    cq_pack_uint(item, rid);
    cq_schema_write(s, item, in);
    if (item->size + CQ_BUS_BODY_HEADER > CQ_ENVELOPE_MAX) {
        return -CQ_E_TOO_BIG;
    }
    struct cq_bus_request *r = cq_alloc(sizeof *r + item->size);
    uint64_t now = cq_now_mono_ms();
    r->rid = rid;
    r->deadline_mono_ms = now + wait->deadline_ms;
    r->retry_mono_ms = now + RETRY_FIRST_MS;
    r->retry_after_ms = 2 * RETRY_FIRST_MS;
    r->op = op;
    (void)snprintf(r->dst, sizeof r->dst, "%s", dst);
    r->fn = wait->fn;
    r->ctx = wait->ctx;
    r->item_size = item->size;
    memcpy(r->item, item->data, item->size);
    insert(rs, r);
    cq_bus_stats.requests++;
    r->is_parked = !is_reachable(bus, dst);
    if (!r->is_parked) {
        cq_bus_out_raw(bus, dst, op, r->item, r->item_size);
    }
    if (!rs->is_sweeping) {
        rs->is_sweeping = true;
        cq_timer_start(rs->sweep, SWEEP_MS, SWEEP_MS);
    }
    return 0;
}

/* ---- what happens to them ---- */

/* An answer [rid, err, fields…]. Only who was asked may give it. */
static void
take_answer(cq_bus_t *bus,
            const struct cq_bus_peer *peer,
            uint64_t rid,
            cq_reader_t *fields,
            size_t count)
{
    struct cq_bus_request *r = find(&bus->requests, rid);
    int err = (int)cq_read_uint(fields, UINT16_MAX);
    if (fields->err || count == 0) {
        cq_bus_stats.garbage++;
        return;
    }
    bool is_asked = r && (peer ? cq_bus_peer_is(peer, r->dst) : strcmp(r->dst, CQ_BUS_BROKER) == 0);
    if (!is_asked) {
        return; /* answered before: this is the answer to a repetition */
    }
    count--;
    uint64_t detail = 0;
    if (err && count) {
        detail = cq_read_uint(fields, UINT64_MAX);
        count = fields->err ? 0 : count - 1;
    }
    take_out(&bus->requests, r);
    r->fn(r->ctx, -err, detail, fields, count);
    free(r);
}

void
cq_bus_requests_answer(cq_bus_t *bus,
                       const struct cq_bus_peer *peer,
                       cq_reader_t *body,
                       size_t items)
{
    for (size_t i = 0; i < items; i++) {
        uint64_t rid = 0;
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &rid, &fields, &count) != 0) {
            cq_bus_stats.garbage++;
            return;
        }
        take_answer(bus, peer, rid, &fields, count);
    }
}

void
cq_bus_requests_bounced(cq_bus_t *bus, const struct cq_bounce *b)
{
    cq_reader_t body;
    int items = cq_envelope_open(b->body.p, b->body.n, &body);
    uint64_t soon = cq_now_mono_ms() + BOUNCE_RETRY_MS;
    for (int i = 0; i < items; i++) {
        uint64_t rid = 0;
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(&body, &rid, &fields, &count) != 0) {
            return;
        }
        cq_bus_stats.bounced_items++;
        struct cq_bus_request *r = find(&bus->requests, rid);
        if (r && r->op == b->op) {
            r->is_parked = b->err == CQ_E_UNROUTABLE;
            r->retry_mono_ms = soon;
        }
    }
}

/* Whoever came up gets what waits for it; with it comes what was sent to one that has died without
 * us knowing. */
void
cq_bus_requests_up(cq_bus_t *bus, const struct cq_bus_peer *peer)
{
    for (struct cq_bus_request *r = bus->requests.first; r && bus->is_registered; r = r->next) {
        if (r->is_parked && cq_bus_peer_is(peer, r->dst)) {
            send_again(bus, r);
        }
    }
}

void
cq_bus_requests_down(cq_bus_t *bus, const struct cq_bus_peer *peer)
{
    for (struct cq_bus_request *r = bus->requests.first; r; r = r->next) {
        if (!r->is_parked && cq_bus_peer_is(peer, r->dst) && !cq_bus_has(bus, r->dst)) {
            r->is_parked = true;
        }
    }
}
