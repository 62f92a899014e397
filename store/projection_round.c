/* SPDX-License-Identifier: MPL-2.0
 * Write-behind: a round goes through the partitions in order and writes the rows of their dirty
 * chats, sorted. Only one partition's worth is sorted at a time, so neither beginning a round nor
 * going on with it ever takes long. What gets dirty ahead of the round is written with it, what
 * gets dirty behind it waits for the next one; both are fine for the marker, which promises only
 * what was dirty when the round began.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/pack.h"

#include "store/projection_inside.h"

enum {
    LOOK_AHEAD = 8, /* chats */
    CACHE_LINE = 64
};

bool
store_projection_in_round(const store_projection_t *p)
{
    return p->in_round;
}

size_t
store_projection_round_size(const store_projection_t *p)
{
    return p->round_size;
}

size_t
store_projection_round_left(const store_projection_t *p)
{
    return p->round_left;
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

/* Takes what is dirty in the partition at hand. */
static void
visit(store_projection_t *p)
{
    struct store_dirty_list empty = p->visit;
    empty.count = 0;
    p->visit = p->dirty[p->partition];
    p->dirty[p->partition] = empty;
    p->visit_next = 0;
    if (p->visit.count) {
        qsort(p->visit.list, p->visit.count, sizeof *p->visit.list, compare_dirty);
    }
}

void
store_projection_round(store_projection_t *p, uint64_t head_pos)
{
    if (p->in_round || p->dirty_count == 0) {
        return;
    }
    p->in_round = true;
    p->round_pos = head_pos;
    p->round_size = p->round_left = p->dirty_count;
    p->partition = 0;
    visit(p);
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
    p->round_left -= p->round_left > 0;
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

void
store_projection_slice(store_projection_t *p, struct store_batch *batch, size_t max)
{
    size_t done = 0;
    while (p->in_round && done < max) {
        if (p->visit_next < p->visit.count) {
            struct store_entry *e = p->visit.list[p->visit_next].entry;
            if (weight_of(e) > 2 * max) {
                flush_part(e, batch, max);
                return;
            }
            look_ahead(p);
            p->visit_next++;
            done += weight_of(e);
            flush_entry(p, e, batch);
        } else if (++p->partition < CQ_PARTITION_COUNT) {
            visit(p);
        } else {
            batch->marker = p->round_pos;
            p->in_round = false;
            p->visit.count = p->visit_next = 0;
        }
    }
}
