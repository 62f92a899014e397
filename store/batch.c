/* SPDX-License-Identifier: MPL-2.0 */
#include "store/batch.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

enum {
    COLD_SLOTS_MIN = 64
};

/* Room for one more element of an array that grows by doubling. */
static void *
grow(void *array, size_t count, size_t *room, size_t element_size)
{
    if (count < *room) {
        return array;
    }
    *room = *room ? 2 * *room : 64;
    array = realloc(array, *room * element_size);
    CQ_ASSERT(array);
    return array;
}

struct store_batch *
store_batch_new(uint64_t number, uint64_t first_pos)
{
    struct store_batch *b = cq_alloc(sizeof *b);
    b->number = number;
    b->first_pos = first_pos;
    return b;
}

void
store_batch_destroy(struct store_batch **batch)
{
    struct store_batch *b = *batch;
    if (!b) {
        return;
    }
    cq_buf_free(&b->bytes);
    cq_buf_free(&b->answers);
    free(b->records);
    free(b->rows);
    free(b->colds);
    free(b->cold_slots);
    free(b->replies);
    free(b->afters);
    free(b->flushes);
    free(b->sealed_records);
    free(b->commit.rows);
    free(b);
    *batch = NULL;
}

static struct cq_view
view_of(const struct store_batch *b, struct store_batch_span s)
{
    return (struct cq_view){b->bytes.data + s.offset, s.size};
}

static struct store_batch_span
keep(struct store_batch *b, struct cq_view v)
{
    struct store_batch_span s = {b->bytes.size, v.n};
    cq_buf_append(&b->bytes, v.p, v.n);
    return s;
}

size_t
store_batch_record_begin(struct store_batch *b)
{
    return b->bytes.size;
}

void
store_batch_record_end(struct store_batch *b, size_t begin)
{
    b->records = grow(b->records, b->record_count, &b->record_room, sizeof *b->records);
    b->records[b->record_count++] = (struct store_batch_span){begin, b->bytes.size - begin};
}

struct cq_view
store_batch_record(const struct store_batch *b, uint64_t pos)
{
    if (pos < b->first_pos || pos - b->first_pos >= b->record_count) {
        return (struct cq_view){0};
    }
    return view_of(b, b->records[pos - b->first_pos]);
}

/* ---- rows ---- */

/* The slot of this key's cold row, or the free one where it belongs. */
static uint32_t *
cold_slot(const struct store_batch *b, enum store_table t, struct cq_view key)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ t; /* FNV-1a */
    for (size_t i = 0; i < key.n; i++) {
        hash = (hash ^ key.p[i]) * UINT64_C(0x100000001b3);
    }
    for (size_t i = (size_t)(hash ^ hash >> 32);; i++) {
        uint32_t *slot = &b->cold_slots[i & (b->cold_slot_count - 1)];
        const struct store_batch_row *row = *slot ? &b->rows[*slot - 1] : NULL;
        if (!row || (row->table == t && row->key.size == key.n &&
                     memcmp(view_of(b, row->key).p, key.p, key.n) == 0)) {
            return slot;
        }
    }
}

static struct store_batch_row *
find_cold(const struct store_batch *b, enum store_table t, struct cq_view key)
{
    uint32_t number = b->cold_count ? *cold_slot(b, t, key) : 0;
    return number ? &b->rows[number - 1] : NULL;
}

/* At most half of the slots are in use. */
static void
grow_cold_slots(struct store_batch *b)
{
    free(b->cold_slots);
    b->cold_slot_count = b->cold_slot_count ? 2 * b->cold_slot_count : COLD_SLOTS_MIN;
    b->cold_slots = cq_alloc(b->cold_slot_count * sizeof *b->cold_slots);
    CQ_ASSERT(b->cold_count == 0 || (b->colds && b->rows));
    for (size_t i = 0; i < b->cold_count; i++) {
        const struct store_batch_row *row = &b->rows[b->colds[i]];
        *cold_slot(b, row->table, view_of(b, row->key)) = b->colds[i] + 1;
    }
}

static struct store_batch_row *
add_row(struct store_batch *b, enum store_table t, struct cq_view key)
{
    b->rows = grow(b->rows, b->row_count, &b->row_room, sizeof *b->rows);
    struct store_batch_row *row = &b->rows[b->row_count++];
    *row = (struct store_batch_row){.table = t};
    row->key = keep(b, key);
    b->table_rows[t]++;
    return row;
}

static struct store_batch_row *
add_cold_row(struct store_batch *b, enum store_table t, struct cq_view key)
{
    if (2 * (b->cold_count + 1) > b->cold_slot_count) {
        grow_cold_slots(b);
    }
    uint32_t *slot = cold_slot(b, t, key);
    struct store_batch_row *row = add_row(b, t, key);
    *slot = (uint32_t)b->row_count;
    b->colds = grow(b->colds, b->cold_count, &b->cold_room, sizeof *b->colds);
    b->colds[b->cold_count++] = *slot - 1;
    return row;
}

void
store_batch_put(struct store_batch *b,
                enum store_table t,
                struct cq_view key,
                struct cq_view value,
                bool is_cold)
{
    struct store_batch_row *row = is_cold ? find_cold(b, t, key) : NULL;
    if (!row) {
        row = is_cold ? add_cold_row(b, t, key) : add_row(b, t, key);
    }
    row->is_delete = value.p == NULL;
    row->value = keep(b, value);
}

cq_buf_t *
store_batch_row_begin(struct store_batch *b, enum store_table t, struct cq_view key)
{
    struct store_batch_row *row = add_row(b, t, key);
    row->value.offset = b->bytes.size;
    return &b->bytes;
}

void
store_batch_row_end(struct store_batch *b)
{
    struct store_batch_row *row = &b->rows[b->row_count - 1];
    row->value.size = b->bytes.size - row->value.offset;
}

bool
store_batch_find(const struct store_batch *b,
                 enum store_table t,
                 struct cq_view key,
                 struct cq_view *value)
{
    const struct store_batch_row *row = find_cold(b, t, key);
    if (!row) {
        return false;
    }
    *value = row->is_delete ? (struct cq_view){0} : view_of(b, row->value);
    return true;
}

static struct store_batch_reply *
add_reply(struct store_batch *b, const struct cq_bus_from *to)
{
    b->replies = grow(b->replies, b->reply_count, &b->reply_room, sizeof *b->replies);
    struct store_batch_reply *r = &b->replies[b->reply_count++];
    *r = (struct store_batch_reply){.to = *to};
    return r;
}

void
store_batch_reply(struct store_batch *b,
                  const struct cq_bus_from *to,
                  size_t field_count,
                  struct cq_view raw)
{
    struct store_batch_reply *r = add_reply(b, to);
    r->field_count = field_count;
    r->fields = (struct store_batch_span){b->answers.size, raw.n};
    cq_buf_append(&b->answers, raw.p, raw.n);
}

void
store_batch_reply_schema(struct store_batch *b,
                         const struct cq_bus_from *to,
                         const struct cq_schema *s,
                         const void *in)
{
    struct store_batch_reply *r = add_reply(b, to);
    r->field_count = s->field_count;
    r->fields.offset = b->answers.size;
    cq_schema_write(s, &b->answers, in);
    r->fields.size = b->answers.size - r->fields.offset;
}

void
store_batch_reply_err(struct store_batch *b, const struct cq_bus_from *to, int err, uint64_t detail)
{
    struct store_batch_reply *r = add_reply(b, to);
    r->err = err;
    r->detail = detail;
}

void
store_batch_after(struct store_batch *b, store_batch_fn *fn, void *arg)
{
    b->afters = grow(b->afters, b->after_count, &b->after_room, sizeof *b->afters);
    b->afters[b->after_count++] = (struct store_batch_after){fn, arg};
}

void
store_batch_flush(struct store_batch *b, void *entry, uint64_t seq, uint64_t pos)
{
    b->flushes = grow(b->flushes, b->flush_count, &b->flush_room, sizeof *b->flushes);
    b->flushes[b->flush_count++] = (struct store_batch_flush){entry, seq, pos};
}

static int
compare_keys(const void *left, const void *right)
{
    const struct store_row *a = left;
    const struct store_row *b = right;
    size_t n = a->key.n < b->key.n ? a->key.n : b->key.n;
    int order = memcmp(a->key.p, b->key.p, n);
    return order ? order : (a->key.n > b->key.n) - (a->key.n < b->key.n);
}

/* Rows of a write-behind slice come sorted, so most tables need no more than this look. */
static void
sort_table(struct store_row *rows, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (compare_keys(&rows[i - 1], &rows[i]) > 0) {
            qsort(rows, count, sizeof *rows, compare_keys);
            return;
        }
    }
}

/* By table, then by key. */
static void
seal_rows(struct store_batch *b, struct store_row *rows)
{
    size_t next[STORE_TABLE_COUNT];
    size_t first = 0;
    for (size_t t = 0; t < STORE_TABLE_COUNT; t++) {
        next[t] = first;
        first += b->table_rows[t];
    }
    for (size_t i = 0; i < b->row_count; i++) {
        const struct store_batch_row *row = &b->rows[i];
        rows[next[row->table]++] = (struct store_row){
            .table = row->table,
            .key = view_of(b, row->key),
            .value = row->is_delete ? (struct cq_view){0} : view_of(b, row->value),
        };
    }
    for (size_t t = 0; t < STORE_TABLE_COUNT; t++) {
        sort_table(rows + next[t] - b->table_rows[t], b->table_rows[t]);
    }
}

void
store_batch_seal(struct store_batch *b)
{
    struct cq_view *records = cq_alloc((b->record_count + 1) * sizeof *records);
    b->sealed_records = records;
    struct store_row *rows = cq_alloc((b->row_count + 1) * sizeof *rows);
    for (size_t i = 0; i < b->record_count; i++) {
        records[i] = view_of(b, b->records[i]);
    }
    seal_rows(b, rows);
    b->commit = (struct store_commit){
        .first_pos = b->first_pos,
        .records = records,
        .record_count = b->record_count,
        .rows = rows,
        .row_count = b->row_count,
    };
}
