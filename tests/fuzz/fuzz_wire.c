/* SPDX-License-Identifier: MPL-2.0
 * Every decoder of the wire layer. What is accepted is written and read again: it must come out the
 * same.
 */
#include "tests/fuzz/fuzz_wire.h"

#include <stdlib.h>
#include <string.h>

#include "common/wire/frame.h"
#include "common/wire/name.h"

enum {
    STRUCT_MAX = 1024
};

union message {
    max_align_t align;
    uint8_t bytes[STRUCT_MAX];
};

static void
must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Read, write, read, write: the second text equals the first. */
static void
try_schema(const struct cq_schema *s, const uint8_t *data, size_t n)
{
    union message m;
    cq_buf_t first = {0};
    cq_buf_t second = {0};
    cq_reader_t r = cq_reader(data, n);
    must(s->struct_size <= STRUCT_MAX);
    if (cq_schema_read_array(s, &r, m.bytes) != 0) {
        must(r.err == 0 || r.p == r.end);
        return;
    }
    must(r.p <= data + n);
    cq_schema_write_array(s, &first, m.bytes);
    r = cq_reader(first.data, first.size);
    must(cq_schema_read_array(s, &r, m.bytes) == 0 && cq_reader_at_end(&r));
    cq_schema_write_array(s, &second, m.bytes);
    must(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    cq_buf_free(&first);
    cq_buf_free(&second);
}

static void
try_fields(const struct cq_schema *s, cq_reader_t fields, size_t count)
{
    union message m;
    if (s) {
        (void)!cq_schema_read(s, &fields, count, m.bytes);
    }
}

/* What is accepted is written and read again as the same. */
static void
try_media(struct cq_view value)
{
    struct cq_media m;
    struct cq_media again;
    cq_buf_t b = {0};
    if (cq_media_read(value, &m) == 1) {
        must(m.thumbnail.n <= CQ_THUMBNAIL_MAX);
        cq_schema_write_array(&cq_media_schema, &b, &m);
        must(cq_media_read((struct cq_view){b.data, b.size}, &again) == 1);
        must(cq_id_eq(&m.blob, &again.blob) && m.length == again.length &&
             m.thumbnail.n == again.thumbnail.n);
        cq_buf_free(&b);
    }
}

static void
try_frame(const uint8_t *data, size_t n)
{
    cq_reader_t r;
    struct cq_frame_op op;
    int count = cq_frame_open(data, n, CQ_FRAME_OPS_MAX, &r);
    for (int i = 0; i < count && cq_frame_next(&r, &op) == 0; i++) {
        const struct cq_op *row = cq_op_find(op.code);
        must(op.raw.p >= data && op.raw.p + op.raw.n <= data + n);
        try_fields(row ? row->fields : NULL, op.fields, op.field_count);
        try_fields(row ? row->answer : NULL, op.fields, op.field_count);
    }
}

static void
try_envelope(const uint8_t *data, size_t n)
{
    struct cq_envelope e;
    struct cq_envelope again;
    cq_buf_t b = {0};
    if (cq_envelope_read(data, n, &e) == 0) {
        cq_envelope_write(&b, &e);
        must(cq_envelope_read(b.data, b.size, &again) == 0 && again.corr == e.corr &&
             again.op == e.op);
        cq_buf_free(&b);
    }
}

static void
try_body(const uint8_t *data, size_t n)
{
    cq_reader_t r;
    int items = cq_envelope_open(data, n, &r);
    must(items <= CQ_ENVELOPE_ITEMS_MAX);
    for (int i = 0; i < items && !r.err; i++) {
        cq_reader_t item = cq_reader_of(cq_read_any(&r));
        size_t count = cq_read_array(&item, 1, UINT32_MAX);
        (void)cq_read_uint(&item, UINT64_MAX);
        try_fields(&cq_bounce_schema, item, count ? count - 1 : 0);
    }
}

static void
try_record(const uint8_t *data, size_t n)
{
    enum cq_rec_kind kind;
    cq_reader_t fields;
    size_t count = 0;
    if (cq_rec_open(data, n, &kind, &fields, &count) == 0) {
        union {
            uint64_t align;
            uint8_t bytes[512];
        } out;
        cq_reader_t again = fields;
        try_fields(cq_rec_schema(kind), fields, count);
        (void)!cq_rec_read(kind, &again, count, &out);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t schemas = 0;
    const struct cq_schema *const *all = cq_schema_all(&schemas);
    if (n == 0) {
        return 0;
    }
    uint8_t which = data[0];
    data++;
    n--;
    cq_reader_t r = cq_reader(data, n);
    if (which < schemas) {
        try_schema(all[which], data, n);
    } else if (which == FUZZ_FRAME) {
        try_frame(data, n);
    } else if (which == FUZZ_ENVELOPE) {
        try_envelope(data, n);
    } else if (which == FUZZ_BODY) {
        try_body(data, n);
    } else if (which == FUZZ_RECORD) {
        try_record(data, n);
    } else if (which == FUZZ_ANY) {
        must(cq_read_any(&r).n <= n);
    } else if (which == FUZZ_MEDIA) {
        try_media((struct cq_view){data, n});
    } else if (which == FUZZ_UTF8) {
        (void)(cq_utf8_ok(data, n) && cq_name_ok((const char *)data, n));
    }
    return 0;
}
