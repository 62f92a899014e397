/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/frame.h"

#include "common/wire/pack.h"

#define CQ_MESSAGE(tag, fields) CQ_DEFINE_MESSAGE(tag, fields)
#include "common/wire/messages.def"
#undef CQ_MESSAGE

const struct cq_schema cq_empty_schema = {"empty", NULL, 0, sizeof(struct cq_empty)};

static const struct cq_schema *const schemas[] = {
#define CQ_MESSAGE(tag, fields) &cq_##tag##_schema,
#include "common/wire/messages.def"
#undef CQ_MESSAGE
};

static const struct cq_op ops[] = {
#define CQ_REQUEST(name, code, served, state, fields, answer, doc) \
    {#name,                                                        \
     code,                                                         \
     false,                                                        \
     CQ_SERVED_##served,                                           \
     CQ_STATE_##state,                                             \
     CQ_POLICY_DURABLE,                                            \
     &cq_##fields##_schema,                                        \
     &cq_##answer##_schema,                                        \
     doc},
#define CQ_PUSH(name, code, policy, fields, doc)                                                  \
    {#name, code, true, CQ_SERVED_NONE, CQ_STATE_USER, CQ_POLICY_##policy, &cq_##fields##_schema, \
     NULL,  doc},
#include "common/wire/ops.def"
#undef CQ_REQUEST
#undef CQ_PUSH
};

static const struct cq_bus_op bus_ops[] = {
#define CQ_BUS_OP(name, code, from, to, fields, answer, doc) \
    {#name, code, from, to, &cq_##fields##_schema, ANSWER_##answer, doc},
#define ANSWER_life            &cq_life_schema
#define ANSWER_none            NULL
#define ANSWER_empty           &cq_empty_schema
#define ANSWER_metrics         &cq_metrics_schema
#define ANSWER_job_state       &cq_job_state_schema
#define ANSWER_edge_init       &cq_edge_init_schema
#define ANSWER_bus_welcome     &cq_bus_welcome_schema
#define ANSWER_watched         &cq_watched_schema
#define ANSWER_blob_state      &cq_blob_state_schema
#define ANSWER_blob_offset     &cq_blob_offset_schema
#define ANSWER_blob_bytes      &cq_blob_bytes_schema
#define ANSWER_blob_meta       &cq_blob_meta_schema
#define ANSWER_blob_unknown    &cq_blob_unknown_schema
#define ANSWER_blob_saved      &cq_blob_saved_schema
#define ANSWER_blob_placed     &cq_blob_placed_schema
#define ANSWER_blob_ids        &cq_blob_ids_schema
#define ANSWER_presence_states &cq_presence_states_schema
#include "common/wire/bus_ops.def"
#undef CQ_BUS_OP
};

enum {
    OP_COUNT = sizeof ops / sizeof ops[0],
    BUS_OP_COUNT = sizeof bus_ops / sizeof bus_ops[0],
    SCHEMA_COUNT = sizeof schemas / sizeof schemas[0],
};

/* Codes are one byte: the first look-up of a code walks the table, all others read this index (row
 * + 1). Filled before main, so threads only read it. */
static uint8_t op_index[256];
static uint8_t bus_op_index[256];

__attribute__((constructor)) static void
fill_indexes(void)
{
    for (size_t i = 0; i < OP_COUNT; i++) {
        op_index[ops[i].code] = (uint8_t)(i + 1);
    }
    for (size_t i = 0; i < BUS_OP_COUNT; i++) {
        bus_op_index[bus_ops[i].code] = (uint8_t)(i + 1);
    }
}

const struct cq_op *
cq_op_find(uint64_t code)
{
    size_t row = code < 256 ? op_index[code] : 0;
    return row ? &ops[row - 1] : NULL;
}

const struct cq_op *
cq_op_all(size_t *count)
{
    *count = OP_COUNT;
    return ops;
}

const struct cq_schema *const *
cq_schema_all(size_t *count)
{
    *count = SCHEMA_COUNT;
    return schemas;
}

const struct cq_bus_op *
cq_bus_op_find(uint64_t code)
{
    size_t row = code < 256 ? bus_op_index[code] : 0;
    return row ? &bus_ops[row - 1] : NULL;
}

const struct cq_bus_op *
cq_bus_op_all(size_t *count)
{
    *count = BUS_OP_COUNT;
    return bus_ops;
}

int
cq_frame_open(const void *data, size_t n, size_t ops_max, cq_reader_t *r)
{
    *r = cq_reader(data, n);
    size_t count = cq_read_array(r, 1, UINT32_MAX);
    if (r->err) {
        return -CQ_E_BAD_FRAME;
    }
    return count > ops_max ? -CQ_E_TOO_BIG : (int)count;
}

static bool
has_rid(uint8_t code)
{
    const struct cq_op *row = cq_op_find(code);
    return !row || !row->is_push || code == CQ_OP_OK || code == CQ_OP_ERR;
}

int
cq_frame_next(cq_reader_t *r, struct cq_frame_op *op)
{
    *op = (struct cq_frame_op){0};
    op->raw = cq_read_any(r);
    cq_reader_t in = cq_reader_of(op->raw);
    size_t n = cq_read_array(&in, 1, UINT32_MAX);
    uint64_t code = cq_read_uint(&in, UINT64_MAX);
    op->code =
        code <= UINT8_MAX ? (uint8_t)code : 0; /* no code is larger, and 0 is none: unknown */
    if (r->err || in.err) {
        return -CQ_E_BAD_FRAME;
    }
    op->field_count = n - 1;
    op->fields = in;
    if (!has_rid(op->code)) {
        return 0;
    }
    op->rid = cq_read_uint(&in, UINT64_MAX);
    if (in.err) {
        op->rid = 0;
        return cq_op_find(op->code) ? -CQ_E_BAD_FRAME : 0;
    }
    op->field_count--;
    op->fields = in;
    return 0;
}

void
cq_frame_request(cq_buf_t *b,
                 enum cq_op_code code,
                 uint64_t rid,
                 const struct cq_schema *s,
                 const void *in)
{
    cq_pack_array(b, 2 + s->field_count);
    cq_pack_uint(b, code);
    cq_pack_uint(b, rid);
    cq_schema_write(s, b, in);
}

void
cq_frame_ok(cq_buf_t *b, uint64_t rid, const struct cq_schema *s, const void *in)
{
    cq_frame_request(b, CQ_OP_OK, rid, s, in);
}

void
cq_frame_ok_raw(cq_buf_t *b, uint64_t rid, size_t field_count, struct cq_view raw)
{
    cq_pack_array(b, 2 + field_count);
    cq_pack_uint(b, CQ_OP_OK);
    cq_pack_uint(b, rid);
    cq_buf_append(b, raw.p, raw.n);
}

void
cq_frame_err(cq_buf_t *b, uint64_t rid, int err, uint64_t retry_after_ms, uint64_t detail)
{
    const char *text = cq_err_text(err);
    struct cq_failure f = {
        .err = (uint64_t)(err < 0 ? -err : err),
        .text = {(const uint8_t *)text, strlen(text)},
        .retry_after_ms = retry_after_ms,
        .detail = detail,
    };
    cq_frame_request(b, CQ_OP_ERR, rid, &cq_failure_schema, &f);
}

void
cq_frame_push(cq_buf_t *b, enum cq_op_code code, const struct cq_schema *s, const void *in)
{
    cq_pack_array(b, 1 + s->field_count);
    cq_pack_uint(b, code);
    cq_schema_write(s, b, in);
}

enum {
    ENVELOPE_FIELDS = 5
};

void
cq_envelope_write(cq_buf_t *b, const struct cq_envelope *e)
{
    cq_pack_array(b, e->sent_mono_us ? ENVELOPE_FIELDS + 1 : ENVELOPE_FIELDS);
    cq_pack_uint(b, CQ_ENVELOPE_VERSION);
    cq_pack_uint(b, e->op);
    cq_pack_uint(b, e->corr);
    cq_pack_uint(b, e->deadline_ms);
    cq_pack_uint(b, e->flags);
    if (e->sent_mono_us) {
        cq_pack_uint(b, e->sent_mono_us);
    }
}

int
cq_envelope_read(const void *data, size_t n, struct cq_envelope *e)
{
    *e = (struct cq_envelope){0};
    if (n > CQ_ENVELOPE_HEADER_MAX) {
        return -CQ_E_TOO_BIG;
    }
    cq_reader_t r = cq_reader(data, n);
    size_t count = cq_read_array(&r, ENVELOPE_FIELDS, 15);
    uint64_t version = cq_read_uint(&r, CQ_ENVELOPE_VERSION);
    e->op = (uint8_t)cq_read_uint(&r, UINT8_MAX);
    e->corr = cq_read_uint(&r, UINT64_MAX);
    e->deadline_ms = cq_read_uint(&r, UINT64_MAX);
    e->flags = cq_read_uint(&r, UINT64_MAX);
    e->sent_mono_us = count > ENVELOPE_FIELDS ? cq_read_uint(&r, UINT64_MAX) : 0;
    return r.err || version != CQ_ENVELOPE_VERSION ? -CQ_E_BAD_FRAME : 0;
}

int
cq_envelope_open(const void *data, size_t n, cq_reader_t *r)
{
    *r = cq_reader(data, n);
    if (n > CQ_ENVELOPE_MAX) {
        return -CQ_E_TOO_BIG;
    }
    size_t count = cq_read_array(r, 0, CQ_ENVELOPE_ITEMS_MAX);
    return r->err ? -CQ_E_BAD_FRAME : (int)count;
}

int
cq_media_read(struct cq_view value, struct cq_media *out)
{
    static const uint8_t nil = 0xc0;
    *out = (struct cq_media){0};
    if (value.n == 0 || (value.n == 1 && value.p[0] == nil)) {
        return 0;
    }
    cq_reader_t r = cq_reader_of(value);
    int rc = cq_schema_read_array(&cq_media_schema, &r, out);
    return rc ? rc : cq_reader_at_end(&r) ? 1 : -CQ_E_BAD_FRAME;
}

const struct cq_schema *
cq_rec_schema(enum cq_rec_kind kind)
{
    switch (kind) {
    case CQ_REC_MESSAGE:
        return &cq_rec_message_schema;
    case CQ_REC_RECEIPT:
        return &cq_rec_receipt_schema;
    case CQ_REC_FRIEND:
        return &cq_rec_friend_schema;
    case CQ_REC_COMMIT:
        return &cq_rec_commit_schema;
    case CQ_REC_READ:
        return &cq_rec_read_schema;
    case CQ_REC_PRIVACY:
        return &cq_rec_privacy_schema;
    case CQ_REC_KNOWN:
        return &cq_rec_known_schema;
    case CQ_REC_FORGET:
        return &cq_rec_forget_schema;
    }
    return NULL;
}

void
cq_rec_write(cq_buf_t *b, enum cq_rec_kind kind, const void *in)
{
    const struct cq_schema *s = cq_rec_schema(kind);
    cq_pack_array(b, 1 + s->field_count);
    cq_pack_uint(b, kind);
    cq_schema_write(s, b, in);
}

int
cq_rec_open(const void *data, size_t n, enum cq_rec_kind *kind, cq_reader_t *fields, size_t *count)
{
    *fields = cq_reader(data, n);
    size_t total = cq_read_array(fields, 1, CQ_LIST_MAX);
    *kind = (enum cq_rec_kind)cq_read_uint(fields, UINT8_MAX);
    *count = total ? total - 1 : 0;
    if (fields->err || !cq_rec_schema(*kind)) {
        return -CQ_E_CORRUPT;
    }
    return 0;
}

int
cq_rec_read(enum cq_rec_kind kind, cq_reader_t *fields, size_t count, void *out)
{
    return cq_schema_read(cq_rec_schema(kind), fields, count, out);
}
