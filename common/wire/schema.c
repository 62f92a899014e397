/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/schema.h"

#include "common/wire/pack.h"

static struct cq_list
read_list(cq_reader_t *r, size_t max)
{
    size_t count = cq_read_array(r, 0, max);
    const uint8_t *start = r->p;
    for (size_t i = 0; i < count && !r->err; i++) {
        (void)cq_read_any(r);
    }
    return r->err ? (struct cq_list){0} : (struct cq_list){{start, (size_t)(r->p - start)}, count};
}

static void
read_field(const struct cq_field *f, cq_reader_t *r, void *place)
{
    switch (f->type) {
    case CQ_FIELD_UINT:
        *(uint64_t *)place = cq_read_uint(r, f->max);
        break;
    case CQ_FIELD_ID:
        *(struct cq_id *)place = cq_read_id(r);
        break;
    case CQ_FIELD_ID_OR_NIL:
        *(struct cq_id *)place = cq_read_id_or_nil(r);
        break;
    case CQ_FIELD_BIN:
        *(struct cq_view *)place = cq_read_bin(r, f->min, f->max);
        break;
    case CQ_FIELD_STR:
        *(struct cq_view *)place = cq_read_str(r, f->min, f->max);
        break;
    case CQ_FIELD_BOOL:
        *(bool *)place = cq_read_bool(r);
        break;
    case CQ_FIELD_LIST:
        *(struct cq_list *)place = read_list(r, f->max);
        break;
    case CQ_FIELD_ANY:
        *(struct cq_view *)place = cq_read_any(r);
        break;
    }
}

static size_t
required(const struct cq_schema *s)
{
    size_t n = s->field_count;
    while (n && s->fields[n - 1].is_later) {
        n--;
    }
    return n;
}

int
cq_schema_read(const struct cq_schema *s, cq_reader_t *r, size_t available, void *out)
{
    memset(out, 0, s->struct_size);
    if (available < s->field_count && available < required(s)) {
        return -CQ_E_BAD_ARG;
    }
    for (size_t i = 0; i < s->field_count && i < available; i++) {
        read_field(&s->fields[i], r, (char *)out + s->fields[i].offset);
    }
    for (size_t i = s->field_count; i < available && !r->err; i++) {
        (void)cq_read_any(r);
    }
    return r->err;
}

int
cq_schema_read_array(const struct cq_schema *s, cq_reader_t *r, void *out)
{
    size_t n = cq_read_array(r, 0, CQ_LIST_MAX);
    return r->err ? r->err : cq_schema_read(s, r, n, out);
}

static void
write_field(const struct cq_field *f, cq_buf_t *b, const void *place)
{
    const struct cq_view *v = place;
    const struct cq_list *l = place;
    switch (f->type) {
    case CQ_FIELD_UINT:
        cq_pack_uint(b, *(const uint64_t *)place);
        break;
    case CQ_FIELD_ID:
        cq_pack_bin(b, place, CQ_ID_SIZE);
        break;
    case CQ_FIELD_ID_OR_NIL:
        cq_pack_id(b, place);
        break;
    case CQ_FIELD_BIN:
        cq_pack_bin(b, v->p, v->n);
        break;
    case CQ_FIELD_STR:
        cq_pack_str(b, (const char *)v->p, v->n);
        break;
    case CQ_FIELD_BOOL:
        cq_pack_bool(b, *(const bool *)place);
        break;
    case CQ_FIELD_LIST:
        cq_pack_array(b, l->count);
        cq_buf_append(b, l->items.p, l->items.n);
        break;
    case CQ_FIELD_ANY:
        if (v->n) {
            cq_buf_append(b, v->p, v->n);
        } else {
            cq_pack_nil(b);
        }
        break;
    }
}

void
cq_schema_write(const struct cq_schema *s, cq_buf_t *b, const void *in)
{
    for (size_t i = 0; i < s->field_count; i++) {
        write_field(&s->fields[i], b, (const char *)in + s->fields[i].offset);
    }
}

void
cq_schema_write_array(const struct cq_schema *s, cq_buf_t *b, const void *in)
{
    cq_pack_array(b, s->field_count);
    cq_schema_write(s, b, in);
}
