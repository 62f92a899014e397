/* SPDX-License-Identifier: MPL-2.0
 * Write-behind: a sweep goes round the partitions for ever and writes the rows of what is dirty,
 * sorted. Only one partition's worth is sorted at a time, so going on with it never takes long. The
 * marker follows it: every partition knows its oldest change that is not in the tables, and the
 * least of them is the partition's that the sweep comes to next.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/pack.h"

#include "store/projection_inside.h"

enum {
    LOOK_AHEAD = 8,  /* chats */
    CREDIT_MAX = 64, /* partitions: so far the sweep hurries after a heavy one */
    CACHE_LINE = 64
};

bool
store_projection_in_round(const store_projection_t *p)
{
    return p->round_left > 0;
}

void
store_projection_round(store_projection_t *p)
{
    if (!p->round_left && p->dirty_count) {
        p->round_left = CQ_PARTITION_COUNT + 1; /* the one at hand may be half through: twice */
    }
}

/* Beginning at partition `first`, how old will the oldest change be when the sweep comes to it? In
 * records, if it goes on by one partition every `step` of them; less any constant. */
static int64_t
oldest_from(const store_projection_t *p, size_t first, uint64_t step)
{
    int64_t most = INT64_MIN;
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        uint64_t oldest = p->oldest[(first + i) % CQ_PARTITION_COUNT];
        int64_t age = (int64_t)(i * step) - (int64_t)oldest;
        most = oldest && age > most ? age : most;
    }
    return most;
}

void
store_projection_resume(store_projection_t *p)
{
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        least = p->oldest[i] && p->oldest[i] < least ? p->oldest[i] : least;
        most = p->oldest[i] > most ? p->oldest[i] : most;
    }
    /* A sweep has left them spread over the records that came during it. */
    uint64_t step = most > least ? (most - least) / CQ_PARTITION_COUNT + 1 : 1;
    size_t best = 0;
    int64_t best_age = INT64_MAX;
    for (size_t first = 0; first < CQ_PARTITION_COUNT; first++) {
        int64_t age = oldest_from(p, first, step);
        if (age < best_age) {
            best = first;
            best_age = age;
        }
    }
    p->partition = (best + CQ_PARTITION_COUNT - 1) % CQ_PARTITION_COUNT;
}

static int
compare_dirty(const void *left, const void *right)
{
    const struct store_dirty *a = left;
    const struct store_dirty *b = right;
    if (a->order != b->order) {
        return a->order < b->order ? -1 : 1;
    }
    return cq_id_cmp(&a->entry->chat.id, &b->entry->chat.id);
}

/* Comes to the next partition and takes what is dirty there. */
static void
visit(store_projection_t *p)
{
    struct store_dirty_list empty = p->visit;
    empty.count = 0;
    p->partition = (p->partition + 1) % CQ_PARTITION_COUNT;
    p->visit = p->dirty[p->partition];
    p->dirty[p->partition] = empty;
    p->visit_next = 0;
    p->visit_oldest = p->oldest[p->partition];
    p->oldest[p->partition] = 0;
    p->step = STORE_SLICE_PARTITION;
    if (p->visit.count) {
        p->step = STORE_SLICE_PARTITION / (int64_t)p->visit.count + 1;
        qsort(p->visit.list, p->visit.count, sizeof *p->visit.list, compare_dirty);
    }
}

/* The tables and this batch are complete up to here; head: the last position applied. */
static uint64_t
marker_of(const store_projection_t *p, uint64_t head)
{
    uint64_t least = p->visit_next < p->visit.count && p->visit_oldest ? p->visit_oldest : head + 1;
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        least = p->oldest[i] && p->oldest[i] < least ? p->oldest[i] : least;
    }
    return least - 1;
}

void
store_projection_complete(const store_projection_t *p, uint64_t head, struct store_complete *out)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        out->pos[i] = p->oldest[i] ? p->oldest[i] - 1 : head;
    }
    uint64_t *at = &out->pos[p->partition];
    if (p->visit_next < p->visit.count && p->visit_oldest && p->visit_oldest <= *at) {
        *at = p->visit_oldest - 1;
    }
}

size_t
store_projection_partition(const store_projection_t *p)
{
    return p->partition;
}

/* Writes an audit row while it says something and deletes it once when it does not any more. */
static void
put_audit(struct store_batch *batch,
          enum store_table table,
          const struct store_chat *c,
          int member,
          bool exists,
          bool *on_disk)
{
    struct store_key key = store_key_pair(&c->id, &c->members[member].user);
    if (exists) {
        cq_buf_t *value = store_batch_row_begin(batch, table, store_key_view(&key));
        if (table == STORE_TABLE_UNREAD) {
            store_chat_write_unread(value, c, member);
        } else {
            store_chat_write_read(value, c, member);
        }
        store_batch_row_end(batch);
    } else if (*on_disk) {
        store_batch_put(batch, table, store_key_view(&key), (struct cq_view){0}, false);
    }
    *on_disk = exists;
}

/* The first `max` full blocks of the index tail. They may go ahead of the chat row: a replay writes
 * them again, the same. Returns their number. */
static size_t
put_blocks(struct store_batch *batch, const struct store_entry *e, size_t max)
{
    const struct store_chat *c = &e->chat;
    uint64_t first = c->tail_first;
    size_t count = c->tail_count / STORE_CHAT_BLOCK;
    count = count < max ? count : max;
    for (size_t i = 0; i < count; i++, first += STORE_CHAT_BLOCK) {
        struct store_key key = store_key_index(&c->id, first);
        cq_buf_t *value = store_batch_row_begin(batch, STORE_TABLE_INDEX, store_key_view(&key));
        store_chat_write_block(value, c, first);
        store_batch_row_end(batch);
    }
    return count;
}

/* The first `max` receipt rows. They may go ahead of the chat row as well. */
static size_t
put_receipts(struct store_batch *batch, const struct store_entry *e, size_t max)
{
    const struct store_chat *c = &e->chat;
    size_t count = c->receipt_count < max ? c->receipt_count : max;
    for (size_t i = 0; i < count; i++) {
        const struct store_chat_receipt *r = &c->receipts[i];
        struct store_key key = store_key_receipt(
            &c->id, r->is_read ? STORE_RECEIPT_READ : STORE_RECEIPT_DELIVERED, &r->id, r->up_to);
        cq_pack_uint(store_batch_row_begin(batch, STORE_TABLE_RECEIPT, store_key_view(&key)),
                     r->pos);
        store_batch_row_end(batch);
    }
    return count;
}

/* Chats with many rows count as many. */
static size_t
weight_of(const struct store_entry *e)
{
    return 1 + (e->chat.tail_count + e->chat.receipt_count) / STORE_CHAT_BLOCK;
}

static void
flush_entry(store_projection_t *p, struct store_entry *e, struct store_batch *batch)
{
    struct store_chat *c = &e->chat;
    struct store_key key = store_key_of(&c->id);
    cq_buf_t *value = store_batch_row_begin(batch, STORE_TABLE_CHAT, store_key_view(&key));
    store_chat_write(value, c);
    store_batch_row_end(batch);
    size_t rows = put_blocks(batch, e, SIZE_MAX) + put_receipts(batch, e, SIZE_MAX);
    for (int m = 0; m < STORE_CHAT_MEMBERS; m++) {
        const struct store_chat_member *member = &c->members[m];
        put_audit(batch, STORE_TABLE_UNREAD, c, m, member->unread_count > 0, &e->unread_on_disk[m]);
        put_audit(batch, STORE_TABLE_READ, c, m, member->read_audit, &e->read_on_disk[m]);
    }
    if (rows) {
        store_batch_flush(batch, e, c->head, c->last_pos);
    }
    e->dirty = false;
    e->batch = batch->number;
    p->dirty_count--;
}

/* A chat with more index and receipt rows than a slice takes: write a part, come back to it with
 * the next commit. */
static void
flush_part(struct store_entry *e, struct store_batch *batch, size_t max)
{
    const struct store_chat *c = &e->chat;
    size_t blocks = put_blocks(batch, e, max);
    size_t receipts = (max - blocks) * STORE_CHAT_BLOCK;
    receipts = receipts < c->receipt_count ? receipts : c->receipt_count;
    while (receipts && receipts < c->receipt_count &&
           c->receipts[receipts].pos == c->receipts[receipts - 1].pos) {
        receipts++; /* trimming goes by position: not between the two rows of one record */
    }
    (void)put_receipts(batch, e, receipts);
    store_batch_flush(batch, e, blocks ? c->tail_first + blocks * STORE_CHAT_BLOCK - 1 : 0,
                      receipts ? c->receipts[receipts - 1].pos : 0);
    e->batch = batch->number;
}

/* The chats of a slice lie anywhere in memory and nobody has touched them for a while: ask for them
 * before they are needed, first the entry, then what it points to. */
static void
look_ahead(const store_projection_t *p)
{
    size_t far = p->visit_next + LOOK_AHEAD;
    size_t near = p->visit_next + LOOK_AHEAD / 2;
    if (far < p->visit.count) {
        const char *e = (const char *)p->visit.list[far].entry;
        for (size_t at = 0; at < sizeof(struct store_entry); at += CACHE_LINE) {
            __builtin_prefetch(e + at);
        }
    }
    if (near < p->visit.count) {
        const struct store_chat *c = &p->visit.list[near].entry->chat;
        const char *devices = (const char *)c->devices;
        for (size_t at = 0; at < c->device_count * sizeof *c->devices; at += CACHE_LINE) {
            __builtin_prefetch(devices + at);
        }
        for (size_t at = 0; at < c->tail_count; at += CACHE_LINE / sizeof *c->tail) {
            __builtin_prefetch(c->tail + at);
        }
    }
}

/* The next chat of the partition at hand; returns its weight. */
static size_t
write_next(store_projection_t *p, struct store_batch *batch, size_t weight_max)
{
    struct store_entry *e = p->visit.list[p->visit_next].entry;
    size_t weight = weight_of(e);
    if (weight > 2 * weight_max) {
        flush_part(e, batch, weight_max);
        return weight_max;
    }
    look_ahead(p);
    p->visit_next++;
    p->credit -= p->step;
    flush_entry(p, e, batch);
    return weight;
}

/* The partition at hand is through: comes to the next one, unless that ends the round. False: it
 * has chats that are not loaded yet (a load counts like a chat's row), or cannot be. */
static bool
go_on(store_projection_t *p, size_t *weight, size_t weight_max)
{
    size_t next = (p->partition + 1) % CQ_PARTITION_COUNT;
    size_t room = weight_max - *weight;
    int rc = store_projection_settle_partition(p, next, &room);
    *weight = weight_max - room;
    if (rc) {
        return false;
    }
    if (p->round_left && --p->round_left == 0) {
        p->credit = 0;
        return true;
    }
    visit(p);
    p->credit -= p->visit.count ? 0 : p->step;
    return true;
}

bool
store_projection_slice(store_projection_t *p,
                       struct store_batch *batch,
                       const struct store_slice *slice)
{
    const int64_t most = (int64_t)CREDIT_MAX * STORE_SLICE_PARTITION;
    size_t weight = 0;
    size_t came_to = 0;
    bool passed_last = false;
    p->credit += slice->parts;
    while ((p->round_left || p->credit > 0) && weight < slice->weight_max &&
           came_to <= CQ_PARTITION_COUNT) {
        if (p->visit_next < p->visit.count) {
            weight += write_next(p, batch, slice->weight_max);
        } else if (!go_on(p, &weight, slice->weight_max)) {
            break;
        } else {
            came_to++;
            passed_last = passed_last || p->partition == CQ_PARTITION_COUNT - 1;
        }
    }
    p->credit = p->credit < most ? p->credit : most;
    if (came_to) {
        batch->marker = marker_of(p, batch->first_pos + batch->record_count - 1);
    }
    return passed_last;
}
