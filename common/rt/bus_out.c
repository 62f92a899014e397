/* SPDX-License-Identifier: MPL-2.0
 * What a turn produces waits here, one batch for each (destination, operation), and leaves in the
 * flush hook. A destination gets its items in the order they were queued: an item of another
 * operation closes the batches before it. Answers are matched by number, so they always join their
 * batch.
 *
 * A batch's buffer starts with room for an array header of fixed width; it is handed to ZeroMQ
 * without a copy.
 */
#include <errno.h>

#include "common/rt/bus_impl.h"
#include "common/rt/check.h"
#include "common/rt/log.h"

enum {
    BODY_START = 512
};

static void
close_older(struct cq_bus_out *out, const char *dst, uint8_t op)
{
    for (size_t i = 0; i < out->count && op != CQ_BUS_REPLY; i++) {
        struct cq_bus_batch *b = &out->batches[i];
        if (b->op != op && b->op != CQ_BUS_REPLY && strcmp(b->dst, dst) == 0) {
            b->is_closed = true;
        }
    }
}

static struct cq_bus_batch *
add_batch(struct cq_bus_out *out, const char *dst, uint8_t op)
{
    close_older(out, dst, op);
    if (out->count == out->room) {
        out->room = out->room ? 2 * out->room : 16;
        out->batches = realloc(out->batches, out->room * sizeof *out->batches);
        CQ_ASSERT(out->batches);
    }
    struct cq_bus_batch *b = &out->batches[out->count];
    *b = (struct cq_bus_batch){.op = op};
    (void)snprintf(b->dst, sizeof b->dst, "%s", dst);
    (void)cq_buf_reserve(&b->body, BODY_START);
    (void)cq_pack_array_begin(&b->body);
    out->last = out->count++;
    return b;
}

static bool
fits(const struct cq_bus_batch *b, const char *dst, uint8_t op)
{
    return b->op == op && !b->is_closed && strcmp(b->dst, dst) == 0;
}

struct cq_bus_batch *
cq_bus_out_begin(cq_bus_t *bus, const char *dst, uint8_t op)
{
    struct cq_bus_out *out = &bus->out;
    if (out->last < out->count && fits(&out->batches[out->last], dst, op)) {
        return &out->batches[out->last];
    }
    for (size_t i = out->count; i > 0; i--) {
        if (fits(&out->batches[i - 1], dst, op)) {
            out->last = i - 1;
            return &out->batches[i - 1];
        }
    }
    return add_batch(out, dst, op);
}

/* The last item of a batch moves into a new envelope of its own. */
static struct cq_bus_batch *
move_item(struct cq_bus_out *out, struct cq_bus_batch *batch, size_t size_before)
{
    char dst[sizeof batch->dst];
    memcpy(dst, batch->dst, sizeof dst);
    size_t at = (size_t)(batch - out->batches);
    batch->is_closed = true;
    struct cq_bus_batch *fresh = add_batch(out, dst, batch->op);
    batch = &out->batches[at]; /* it may have moved */
    cq_buf_append(&fresh->body, batch->body.data + size_before, batch->body.size - size_before);
    batch->body.size = size_before;
    return fresh;
}

static bool
refuse_item(cq_bus_t *bus, struct cq_bus_batch *batch, size_t size_before)
{
    size_t item = batch->body.size - size_before;
    batch->body.size = size_before;
    if (cq_bus_log_due(bus, CQ_BUS_LOG_BIG)) {
        CQ_LOG(ERROR, "BUS-ITEM-TOO-BIG", "dst=%s op=%u bytes=%zu", batch->dst, batch->op, item);
    }
    return false;
}

bool
cq_bus_out_done(cq_bus_t *bus, struct cq_bus_batch *batch, size_t size_before)
{
    if (batch->body.size - size_before + CQ_BUS_BODY_HEADER > CQ_ENVELOPE_MAX) {
        return refuse_item(bus, batch, size_before);
    }
    if (batch->body.size > CQ_ENVELOPE_MAX) {
        batch = move_item(&bus->out, batch, size_before);
    }
    batch->count++;
    batch->is_closed =
        batch->count >= CQ_ENVELOPE_ITEMS_MAX || batch->body.size >= CQ_BUS_BATCH_BYTES;
    return true;
}

void
cq_bus_out_raw(cq_bus_t *bus, const char *dst, uint8_t op, const void *item, size_t n)
{
    struct cq_bus_batch *b = cq_bus_out_begin(bus, dst, op);
    size_t before = b->body.size;
    cq_buf_append(&b->body, item, n);
    (void)cq_bus_out_done(bus, b, before);
}

static void
on_sent(void *data, void *hint)
{
    (void)hint;
    free(data);
}

static bool
send_copy(void *sock, const void *data, size_t n)
{
    int rc;
    do {
        rc = zmq_send(sock, data, n, ZMQ_DONTWAIT | ZMQ_SNDMORE);
    } while (rc < 0 && errno == EINTR);
    return rc >= 0;
}

/* Takes the body, whether it is sent or not. */
static bool
send_envelope(cq_bus_t *bus, const char *dst, uint8_t op, cq_buf_t *body)
{
    struct cq_envelope e = {.op = op, .corr = ++bus->out.corr, .sent_mono_us = cq_now_mono_us()};
    cq_buf_t *header = &bus->out.header;
    cq_buf_clear(header);
    cq_envelope_write(header, &e);
    void *sock = zsock_resolve(bus->sock);
    size_t n = 0;
    uint8_t *data = cq_buf_take(body, &n);
    zmq_msg_t msg;
    (void)zmq_msg_init_data(&msg, data, n, on_sent, NULL);
    /* Once the first frame is taken the others are too. */
    bool ok = send_copy(sock, dst, strlen(dst)) && send_copy(sock, header->data, header->size);
    if (ok) {
        int rc;
        do {
            rc = zmq_msg_send(&msg, sock, ZMQ_DONTWAIT);
        } while (rc < 0 && errno == EINTR);
        ok = rc >= 0;
    }
    if (!ok) {
        (void)zmq_msg_close(&msg);
    }
    cq_zwatch_sent(bus->watch);
    return ok;
}

void
cq_bus_out_flush(void *ctx)
{
    cq_bus_t *bus = ctx;
    struct cq_bus_out *out = &bus->out;
    for (size_t i = 0; i < out->count; i++) {
        struct cq_bus_batch *b = &out->batches[i];
        if (b->count == 0) {
            cq_buf_free(&b->body);
            continue;
        }
        cq_pack_array_end(&b->body, 0, b->count);
        if (bus->is_registered && send_envelope(bus, b->dst, b->op, &b->body)) {
            cq_bus_stats.envelopes_out++;
            cq_bus_stats.items_out += b->count;
        } else {
            cq_bus_stats.dropped_items += b->count;
        }
        cq_buf_free(&b->body);
    }
    out->count = 0;
}

void
cq_bus_out_stop(cq_bus_t *bus)
{
    for (size_t i = 0; i < bus->out.count; i++) {
        cq_buf_free(&bus->out.batches[i].body);
    }
    free(bus->out.batches);
    cq_buf_free(&bus->out.header);
    bus->out = (struct cq_bus_out){0};
}

bool
cq_bus_out_now(cq_bus_t *bus, uint8_t op, const struct cq_schema *s, const void *in)
{
    cq_buf_t body = {0};
    cq_pack_array(&body, 1);
    cq_pack_array(&body, 1 + s->field_count);
    cq_pack_uint(&body, 0);
    cq_schema_write(s, &body, in);
    return send_envelope(bus, CQ_BUS_BROKER, op, &body);
}

/* ---- what parts queue ---- */

void
cq_bus_event(cq_bus_t *bus, const char *dst, uint8_t op, const struct cq_schema *s, const void *in)
{
    if (!bus->is_registered) {
        cq_bus_stats.dropped_items++;
        return;
    }
    struct cq_bus_batch *b = cq_bus_out_begin(bus, dst, op);
    size_t before = b->body.size;
    cq_pack_array(&b->body, 1 + s->field_count);
    cq_pack_uint(&b->body, 0);
    cq_schema_write(s, &b->body, in);
    if (!cq_bus_out_done(bus, b, before)) {
        cq_bus_stats.dropped_items++;
    }
}

static struct cq_bus_batch *
begin_reply(cq_bus_t *bus,
            const struct cq_bus_from *to,
            int err,
            size_t field_count,
            size_t *before)
{
    struct cq_bus_batch *b = cq_bus_out_begin(bus, to->src, CQ_BUS_REPLY);
    *before = b->body.size;
    cq_pack_array(&b->body, 2 + field_count);
    cq_pack_uint(&b->body, to->rid);
    cq_pack_uint(&b->body, (uint64_t)(err < 0 ? -err : err));
    return b;
}

void
cq_bus_reply_err(cq_bus_t *bus, const struct cq_bus_from *to, int err, uint64_t detail)
{
    size_t before = 0;
    if (to->rid == 0) {
        return;
    }
    struct cq_bus_batch *b = begin_reply(bus, to, err, 1, &before);
    cq_pack_uint(&b->body, detail);
    (void)cq_bus_out_done(bus, b, before);
}

void
cq_bus_reply(cq_bus_t *bus, const struct cq_bus_from *to, const struct cq_schema *s, const void *in)
{
    size_t before = 0;
    if (to->rid == 0) {
        return;
    }
    struct cq_bus_batch *b = begin_reply(bus, to, 0, s->field_count, &before);
    cq_schema_write(s, &b->body, in);
    if (!cq_bus_out_done(bus, b, before)) {
        cq_bus_reply_err(bus, to, -CQ_E_TOO_BIG, 0);
    }
}

void
cq_bus_reply_raw(cq_bus_t *bus,
                 const struct cq_bus_from *to,
                 size_t field_count,
                 struct cq_view raw)
{
    size_t before = 0;
    if (to->rid == 0) {
        return;
    }
    struct cq_bus_batch *b = begin_reply(bus, to, 0, field_count, &before);
    cq_buf_append(&b->body, raw.p, raw.n);
    if (!cq_bus_out_done(bus, b, before)) {
        cq_bus_reply_err(bus, to, -CQ_E_TOO_BIG, 0);
    }
}
