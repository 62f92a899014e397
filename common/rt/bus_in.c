/* SPDX-License-Identifier: MPL-2.0
 * What comes in: envelopes, their items, whose they are and whether their sender may say that.
 * Garbage is dropped, counted and logged, at most once a second.
 */
#include <errno.h>
#include <inttypes.h>

#include "common/rt/bus_impl.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/wire/name.h"

int
cq_bus_item_next(cq_reader_t *body, uint64_t *rid, cq_reader_t *fields, size_t *count)
{
    *fields = cq_reader_of(cq_read_any(body));
    size_t n = cq_read_array(fields, 1, UINT32_MAX);
    *rid = cq_read_uint(fields, UINT64_MAX);
    *count = n ? n - 1 : 0;
    return body->err || fields->err ? -CQ_E_BAD_FRAME : 0;
}

void
cq_bus_note_garbage(cq_bus_t *bus, const char *src, const char *what)
{
    char text[2 * CQ_ACTOR_NAME_MAX];
    cq_bus_stats.garbage++;
    if (cq_bus_log_due(bus, CQ_BUS_LOG_GARBAGE)) {
        CQ_LOG(WARN, "BUS-INPUT-GARBAGE", "src=%s what=%s total=%" PRIu64,
               cq_log_text(src, strlen(src), text, sizeof text), what, cq_bus_stats.garbage);
    }
}

static void
answer_metrics(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    cq_bus_t *bus = ctx;
    cq_buf_t text = {0};
    (void)fields;
    (void)count;
    cq_metric_text(&text, bus->name);
    struct cq_metrics m = {.text = {text.data, text.size}};
    cq_bus_reply(bus, from, &cq_metrics_schema, &m);
    cq_buf_free(&text);
}

/* Every item that wants an answer gets this error. */
static void
refuse_items(cq_bus_t *bus, const char *src, cq_reader_t *body, size_t items, int err)
{
    struct cq_bus_from from = {.rid = 0};
    (void)snprintf(from.src, sizeof from.src, "%s", src);
    for (size_t i = 0; i < items; i++) {
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &from.rid, &fields, &count) != 0) {
            return;
        }
        cq_bus_reply_err(bus, &from, err, 0);
    }
}

static void
call_items(cq_bus_t *bus,
           cq_bus_handler *fn,
           void *ctx,
           const char *src,
           cq_reader_t *body,
           size_t items)
{
    struct cq_bus_from from = {.rid = 0};
    (void)snprintf(from.src, sizeof from.src, "%s", src);
    for (size_t i = 0; i < items; i++) {
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &from.rid, &fields, &count) != 0) {
            cq_bus_note_garbage(bus, src, "item");
            return;
        }
        fn(ctx, &from, &fields, count);
    }
}

static void
note_refusal(cq_bus_t *bus, enum cq_bus_log kind, const char *src, uint8_t op)
{
    if (cq_bus_log_due(bus, kind)) {
        CQ_LOG(WARN, "BUS-ITEM-REFUSED", "src=%s op=%u reason=%s", src, op,
               kind == CQ_BUS_LOG_OP ? "unknown-op" : "wrong-role");
    }
}

/* The row that serves this operation for this peer, or NULL and the reason. */
static const struct cq_bus_row *
find_row(cq_bus_t *bus, const char *src, uint8_t op, int *err)
{
    const struct cq_bus_row *row = bus->rows[op];
    if (!row) {
        cq_bus_stats.unknown_op++;
        note_refusal(bus, CQ_BUS_LOG_OP, src, op);
        *err = -CQ_E_UNKNOWN_OP;
        return NULL;
    }
    const struct cq_bus_peer *peer = cq_bus_peers_find(bus, src);
    if (row->role && (!peer || strcmp(peer->role, row->role) != 0)) {
        cq_bus_stats.denied++;
        note_refusal(bus, CQ_BUS_LOG_DENIED, src, op);
        *err = -CQ_E_DENIED;
        return NULL;
    }
    return row;
}

static void
dispatch_peer(cq_bus_t *bus, const char *src, uint8_t op, cq_reader_t *body, size_t items)
{
    if (op == CQ_BUS_REPLY) {
        const struct cq_bus_peer *peer = cq_bus_peers_find(bus, src);
        if (peer) {
            cq_bus_requests_answer(bus, peer, body, items);
        }
        return;
    }
    if (op == CQ_BUS_METRICS) {
        call_items(bus, answer_metrics, bus, src, body, items);
        return;
    }
    int err = 0;
    const struct cq_bus_row *row = find_row(bus, src, op, &err);
    if (row) {
        call_items(bus, row->fn, bus->cfg.ctx, src, body, items);
    } else {
        refuse_items(bus, src, body, items, err);
    }
}

/* ---- how long envelopes are under way ---- */

enum transit {
    TRANSIT_OTHER,
    TRANSIT_CALL,
    TRANSIT_REPLY,
    TRANSIT_ROUTE,
    TRANSIT_DELIVER,
    TRANSIT_COUNT
};

static const uint8_t transit_of[256] = {
    [CQ_BUS_CALL] = TRANSIT_CALL,
    [CQ_BUS_REPLY] = TRANSIT_REPLY,
    [CQ_BUS_ROUTE] = TRANSIT_ROUTE,
    [CQ_BUS_DELIVER] = TRANSIT_DELIVER,
};

static struct cq_histogram transits[TRANSIT_COUNT];

#define TRANSIT_DOC \
    "from an actor's sending an envelope to our reading it, by operation (on one machine)"
static const struct cq_histogram_row transit_rows[] = {
    {"chasqui_bus_transit_seconds{op=\"CALL\"}", TRANSIT_DOC, &transits[TRANSIT_CALL]},
    {"chasqui_bus_transit_seconds{op=\"REPLY\"}", TRANSIT_DOC, &transits[TRANSIT_REPLY]},
    {"chasqui_bus_transit_seconds{op=\"ROUTE\"}", TRANSIT_DOC, &transits[TRANSIT_ROUTE]},
    {"chasqui_bus_transit_seconds{op=\"DELIVER\"}", TRANSIT_DOC, &transits[TRANSIT_DELIVER]},
    {"chasqui_bus_transit_seconds{op=\"other\"}", TRANSIT_DOC, &transits[TRANSIT_OTHER]},
};

void
cq_bus_in_register_metrics(void)
{
    cq_metric_register_histograms(transit_rows, sizeof transit_rows / sizeof transit_rows[0]);
}

static void
note_transit(const struct cq_envelope *e, uint64_t now_mono_us)
{
    if (e->sent_mono_us) {
        cq_histogram_add_span(&transits[transit_of[e->op]], e->sent_mono_us, now_mono_us);
    }
}

enum {
    FRAMES = 3
};

static void
take_envelope(cq_bus_t *bus, zmq_msg_t frames[FRAMES])
{
    char src[CQ_ACTOR_NAME_MAX + 1];
    size_t n = zmq_msg_size(&frames[0]);
    struct cq_envelope e;
    cq_reader_t body;
    cq_bus_stats.envelopes_in++;
    if (!cq_actor_name_ok(zmq_msg_data(&frames[0]), n)) {
        cq_bus_note_garbage(bus, "?", "src");
        return;
    }
    memcpy(src, zmq_msg_data(&frames[0]), n);
    src[n] = '\0';
    int rc = cq_envelope_read(zmq_msg_data(&frames[1]), zmq_msg_size(&frames[1]), &e);
    int items =
        rc ? rc : cq_envelope_open(zmq_msg_data(&frames[2]), zmq_msg_size(&frames[2]), &body);
    if (items < 0) {
        cq_bus_note_garbage(bus, src, rc ? "header" : "body");
        return;
    }
    cq_bus_stats.items_in += (uint64_t)items;
    bus->read_mono_us = cq_now_mono_us();
    bus->heard_mono_ms = bus->read_mono_us / 1000;
    note_transit(&e, bus->read_mono_us);
    bus->asked_count = 0;
    if (strcmp(src, CQ_BUS_BROKER) == 0) {
        cq_bus_broker_said(bus, &e, &body, (size_t)items);
    } else if (bus->is_registered) {
        dispatch_peer(bus, src, e.op, &body, (size_t)items);
    }
}

/* Reads one message, whatever its number of frames. False: none there. */
static bool
receive(cq_bus_t *bus)
{
    zmq_msg_t frames[FRAMES];
    void *sock = zsock_resolve(bus->sock);
    size_t count = 0;
    bool has_more = true;
    while (has_more) {
        zmq_msg_t extra;
        zmq_msg_t *msg = count < FRAMES ? &frames[count] : &extra;
        (void)zmq_msg_init(msg);
        int rc = zmq_msg_recv(msg, sock, ZMQ_DONTWAIT);
        if (rc < 0 && errno == EINTR) {
            continue;
        }
        if (rc < 0) {
            break;
        }
        has_more = zmq_msg_more(msg);
        if (msg == &extra) {
            (void)zmq_msg_close(&extra);
        }
        count++;
    }
    if (count == FRAMES) {
        take_envelope(bus, frames);
    } else if (count) {
        cq_bus_note_garbage(bus, "?", "frames");
    }
    for (size_t i = 0; i < count && i < FRAMES; i++) {
        (void)zmq_msg_close(&frames[i]);
    }
    return count > 0;
}

bool
cq_bus_in_read(void *ctx)
{
    cq_bus_t *bus = ctx;
    uint64_t end = cq_bus_stats.items_in + CQ_BUS_ITEMS_PER_TURN;
    for (int i = 0; i < CQ_BUS_ENVELOPES_PER_TURN && cq_bus_stats.items_in < end; i++) {
        if (!receive(bus)) {
            return false;
        }
        if (bus->is_paused) {
            return true;
        }
    }
    return true;
}
