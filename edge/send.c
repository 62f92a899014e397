/* SPDX-License-Identifier: MPL-2.0
 * Operations on their way to clients, and the one place where errors become the wire's.
 */
#include <string.h>

#include "common/rt/log.h"

#include "edge/edge.h"

enum {
    RETRY_SOON_MS = 1000,
    RETRY_SPACE_MS = 10000,
    OP_MAX = CQ_PUSH_FRAME_MAX - 8,
    TIGHT_QUEUE_BYTES = 4096
};

/* Errors that are not said as they are, and those that come with a time to wait. */
static const struct {
    uint8_t err, wire;
    uint16_t retry_after_ms;
} wire_errors[] = {
    {CQ_E_BUSY, CQ_E_BUSY, RETRY_SOON_MS},
    {CQ_E_UNAVAILABLE, CQ_E_UNAVAILABLE, RETRY_SOON_MS},
    {CQ_E_UNROUTABLE, CQ_E_UNAVAILABLE, RETRY_SOON_MS},
    {CQ_E_UNKNOWN_OUTCOME, CQ_E_UNAVAILABLE, RETRY_SOON_MS},
    {CQ_E_DEADLINE, CQ_E_DEADLINE, RETRY_SOON_MS},
    {CQ_E_NO_SPACE, CQ_E_NO_SPACE, RETRY_SPACE_MS},
    {CQ_E_RATE_LIMITED, CQ_E_RATE_LIMITED, RETRY_SOON_MS},
    {CQ_E_IO, CQ_E_INTERNAL, 0},
    {CQ_E_NEWER_SCHEMA, CQ_E_INTERNAL, 0},
    {CQ_E_CORRUPT, CQ_E_INTERNAL, 0},
    {CQ_E_CONFIG, CQ_E_INTERNAL, 0},
    {CQ_E_CRYPTO, CQ_E_INTERNAL, 0},
    {CQ_E_DENIED, CQ_E_INTERNAL, 0},
    {CQ_E_LOCKED, CQ_E_INTERNAL, 0},
};

int
edge_send_wire_err(int err, uint64_t *retry_after_ms)
{
    int number = err < 0 ? -err : err;
    *retry_after_ms = 0;
    for (size_t i = 0; i < sizeof wire_errors / sizeof wire_errors[0]; i++) {
        if (wire_errors[i].err == number) {
            *retry_after_ms = wire_errors[i].retry_after_ms;
            return wire_errors[i].wire;
        }
    }
    return number;
}

size_t
edge_send_bytes_max(const edge_t *e)
{
    bool is_tight = e->sessions.memory.queued_bytes >= e->cfg->queue_total_max_bytes;
    return is_tight ? TIGHT_QUEUE_BYTES : e->cfg->session_queue_max_bytes;
}

static struct cq_view
scratch_view(const edge_t *e)
{
    return (struct cq_view){e->scratch.data, e->scratch.size};
}

static void
put_answer(edge_t *e, edge_session_t *s, struct cq_view op)
{
    (void)edge_outq_put(&s->out, EDGE_OUTQ_ANSWER, op, edge_send_bytes_max(e));
    edge_session_dirty_add(&e->dirty, s);
}

void
edge_send_packed(edge_t *e, edge_session_t *s, struct cq_view op)
{
    e->metrics->answers_ok_total++;
    put_answer(e, s, op);
}

void
edge_send_ok(edge_t *e,
             edge_session_t *s,
             uint64_t rid,
             const struct cq_schema *schema,
             const void *in)
{
    if (!rid) {
        e->metrics->answers_ok_total++;
        return;
    }
    cq_buf_clear(&e->scratch);
    cq_frame_ok(&e->scratch, rid, schema, in);
    edge_send_packed(e, s, scratch_view(e));
}

void
edge_send_ok_raw(edge_t *e, edge_session_t *s, uint64_t rid, size_t field_count, struct cq_view raw)
{
    if (!rid) {
        e->metrics->answers_ok_total++;
        return;
    }
    if (raw.n > OP_MAX - 32) {
        CQ_LOG(ERROR, "EDGE-ANSWER-TOO-BIG", "session=%llu bytes=%zu",
               (unsigned long long)s->number, raw.n);
        edge_send_err(e, s, rid, CQ_E_INTERNAL, 0, 0);
        return;
    }
    cq_buf_clear(&e->scratch);
    cq_frame_ok_raw(&e->scratch, rid, field_count, raw);
    edge_send_packed(e, s, scratch_view(e));
}

void
edge_send_err(edge_t *e,
              edge_session_t *s,
              uint64_t rid,
              int err,
              uint64_t retry_after_ms,
              uint64_t detail)
{
    e->metrics->answers_err_total++;
    uint64_t retry_ms;
    int wire = edge_send_wire_err(err, &retry_ms);
    /* An error without a request is said only when the connection ends because of it. */
    if (!rid && wire != CQ_E_REVOKED) {
        return;
    }
    cq_buf_clear(&e->scratch);
    cq_frame_err(&e->scratch, rid, wire, retry_after_ms ? retry_after_ms : retry_ms, detail);
    put_answer(e, s, scratch_view(e));
}

bool
edge_send_event(edge_t *e, edge_session_t *s, enum cq_op_policy policy, struct cq_view op)
{
    enum edge_outq_kind kind =
        policy == CQ_POLICY_DURABLE ? EDGE_OUTQ_DURABLE : EDGE_OUTQ_EPHEMERAL;
    bool was_lagging = s->out.is_lagging;
    bool is_put = op.n <= OP_MAX && edge_outq_put(&s->out, kind, op, edge_send_bytes_max(e));
    if (is_put) {
        e->metrics->pushes_total++;
    } else if (kind == EDGE_OUTQ_DURABLE) {
        e->metrics->pushes_dropped_total++;
    } else {
        e->metrics->ephemeral_dropped_total++;
    }
    if (s->out.is_lagging && !was_lagging) {
        e->metrics->sessions_lagging++;
        CQ_LOG(INFO, "EDGE-SESSION-LAGGING", "session=%llu queued_bytes=%zu",
               (unsigned long long)s->number, s->out.bytes);
    }
    edge_session_dirty_add(&e->dirty, s);
    return is_put;
}

static struct cq_view
pack_push(edge_t *e, enum cq_op_code code, const struct cq_schema *schema, const void *in)
{
    cq_buf_clear(&e->scratch);
    cq_frame_push(&e->scratch, code, schema, in);
    return scratch_view(e);
}

void
edge_send_push(edge_t *e,
               edge_session_t *s,
               enum cq_op_code code,
               const struct cq_schema *schema,
               const void *in)
{
    struct cq_view op = pack_push(e, code, schema, in);
    (void)edge_send_event(e, s, cq_op_find(code)->policy, op);
}

void
edge_send_last(edge_t *e,
               edge_session_t *s,
               enum cq_op_code code,
               const struct cq_schema *schema,
               const void *in)
{
    e->metrics->pushes_total++;
    put_answer(e, s, pack_push(e, code, schema, in));
}

void
edge_send_sync_now(edge_t *e, edge_session_t *s, const struct cq_id *epoch)
{
    struct cq_sync_now m = {0};
    if (epoch) {
        m.epoch = *epoch;
    }
    e->metrics->sync_now_total++;
    edge_send_push(e, s, CQ_OP_SYNC_NOW, &cq_sync_now_schema, &m);
}
