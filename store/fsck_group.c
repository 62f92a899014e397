/* SPDX-License-Identifier: MPL-2.0
 * The chats that fsck has in hand: a hash table with a bound on its memory.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/fsck_impl.h"

enum {
    BUCKETS_MIN = 1024,
    MALLOC_BYTES = 16, /* what malloc adds to a block, about */
    BLOCK_MESSAGES = 64,
    CACHE_LINE_BYTES = 64,
    ROWS_MAX = 16,
    ROW_HEADER_BYTES = 1 + 2 + CQ_ID_SIZE,
};

/* ---- the order of keys as a number ---- */

static uint64_t
ordinal_of(uint64_t partition, const uint8_t id[CQ_ID_SIZE])
{
    uint64_t n = (uint64_t)id[0] << 8 | id[1];
    uint64_t ordinal = partition << 54 | n / CQ_PARTITION_COUNT << 48;
    for (int i = 2; i < 8; i++) {
        ordinal |= (uint64_t)id[i] << 8 * (7 - i);
    }
    return ordinal;
}

uint64_t
store_fsck_group_ordinal(const struct cq_id *id)
{
    return ordinal_of(cq_id_partition(id), id->b);
}

/* Also of a key that is malformed: monotonic, so that a scan finds its end. */
uint64_t
store_fsck_group_key_ordinal(struct cq_view key)
{
    uint8_t b[2 + CQ_ID_SIZE] = {0};
    memcpy(b, key.p, key.n < sizeof b ? key.n : sizeof b);
    uint64_t partition = (uint64_t)b[0] << 8 | b[1];
    return partition < CQ_PARTITION_COUNT ? ordinal_of(partition, b + 2) : UINT64_MAX;
}

struct store_key
store_fsck_group_key(uint64_t ordinal)
{
    struct store_key k = {{0}, 10};
    uint64_t partition = ordinal >> 54;
    uint64_t n = (ordinal >> 48 & 63) * CQ_PARTITION_COUNT + partition;
    uint8_t bytes[10] = {(uint8_t)(partition >> 8), (uint8_t)partition, (uint8_t)(n >> 8),
                         (uint8_t)n};
    for (int i = 0; i < 6; i++) {
        bytes[4 + i] = (uint8_t)(ordinal >> (40 - 8 * i));
    }
    /* Keys that are malformed in the id's first bytes sort before: begin with the partition. */
    memcpy(k.b, bytes, sizeof bytes);
    if ((ordinal & (UINT64_MAX >> 10)) == 0) {
        k.n = ordinal ? 2 : 0;
    }
    return k;
}

/* ---- the table ---- */

void
store_fsck_group_init(struct store_fsck_group *g, uint64_t first, size_t bytes_max)
{
    *g = (struct store_fsck_group){
        .bucket_count = BUCKETS_MIN, .bytes_max = bytes_max, .first = first, .last = UINT64_MAX};
    g->buckets = cq_alloc(g->bucket_count * sizeof(struct store_fsck_entry *));
}

static void
free_entry(struct store_fsck_entry *e)
{
    store_chat_fini(&e->chat);
    free(e->rows);
    if (e->blocks != &e->first_block) {
        free(e->blocks);
    }
    free(e);
}

void
store_fsck_group_fini(struct store_fsck_group *g)
{
    for (size_t i = 0; g->buckets && i < g->bucket_count; i++) {
        for (struct store_fsck_entry *e = g->buckets[i], *next; e; e = next) {
            next = e->chained;
            free_entry(e);
        }
    }
    free(g->buckets);
    *g = (struct store_fsck_group){0};
}

bool
store_fsck_group_has(const struct store_fsck_group *g, const struct cq_id *id)
{
    uint64_t ordinal = store_fsck_group_ordinal(id);
    return ordinal >= g->first && ordinal <= g->last;
}

static struct store_fsck_entry **
bucket_of(const struct store_fsck_group *g, const struct cq_id *id)
{
    return &g->buckets[cq_id_hash(id) * 0x9e3779b97f4a7c15U >> 20 & (g->bucket_count - 1)];
}

struct store_fsck_entry *
store_fsck_group_find(struct store_fsck_group *g, const struct cq_id *id)
{
    struct store_fsck_entry *e = *bucket_of(g, id);
    while (e && !cq_id_eq(&e->chat.id, id)) {
        e = e->chained;
    }
    return e;
}

void
store_fsck_group_fetch_bucket(const struct store_fsck_group *g, const struct cq_id *id)
{
    __builtin_prefetch(bucket_of(g, id));
}

void
store_fsck_group_fetch_entry(const struct store_fsck_group *g, const struct cq_id *id)
{
    const struct store_fsck_entry *e = *bucket_of(g, id);
    if (e) {
        for (size_t i = 0; i < sizeof *e; i += CACHE_LINE_BYTES) {
            __builtin_prefetch((const char *)e + i);
        }
    }
}

void
store_fsck_group_fetch_parts(const struct store_fsck_entry *e)
{
    if (e) {
        const struct store_chat *c = &e->chat;
        for (size_t i = 0; i < c->device_count; i++) {
            __builtin_prefetch(&c->devices[i]);
        }
        __builtin_prefetch(c->tail + c->tail_count, 1);
        __builtin_prefetch(e->rows);
    }
}

static void
grow_buckets(struct store_fsck_group *g)
{
    struct store_fsck_group bigger = {.bucket_count = 2 * g->bucket_count};
    bigger.buckets = cq_alloc(bigger.bucket_count * sizeof(struct store_fsck_entry *));
    for (size_t i = 0; i < g->bucket_count; i++) {
        for (struct store_fsck_entry *e = g->buckets[i], *next; e; e = next) {
            next = e->chained;
            struct store_fsck_entry **bucket = bucket_of(&bigger, &e->chat.id);
            e->chained = *bucket;
            *bucket = e;
        }
    }
    free(g->buckets);
    g->buckets = bigger.buckets;
    g->bucket_count = bigger.bucket_count;
}

struct store_fsck_entry *
store_fsck_group_add(struct store_fsck_group *g, const struct cq_id *id)
{
    struct store_fsck_entry *e = store_fsck_group_find(g, id);
    if (e) {
        return e;
    }
    if (g->count == g->bucket_count) {
        grow_buckets(g);
    }
    e = cq_alloc(sizeof *e);
    store_chat_init(&e->chat, id);
    e->blocks = &e->first_block;
    e->block_room = 1;
    e->marker = store_complete_of(&g->complete, id);
    struct store_fsck_entry **bucket = bucket_of(g, id);
    e->chained = *bucket;
    *bucket = e;
    g->count++;
    store_fsck_group_account(g, e, 0);
    return e;
}

void
store_fsck_group_account(struct store_fsck_group *g, struct store_fsck_entry *e, size_t planned)
{
    size_t bytes = sizeof *e + MALLOC_BYTES + sizeof(void *);
    if (e->rows) {
        bytes += sizeof *e->rows + e->rows->size + MALLOC_BYTES;
    }
    if (e->chat.device_count) {
        bytes += e->chat.device_count * (STORE_CHAT_DEVICE_BYTES + MALLOC_BYTES) + MALLOC_BYTES;
    }
    if (e->chat.tail_room) {
        bytes += e->chat.tail_room * sizeof *e->chat.tail + MALLOC_BYTES;
    }
    if (e->blocks != &e->first_block) {
        bytes += e->block_room * sizeof *e->blocks + MALLOC_BYTES;
    }
    bytes = bytes > planned ? bytes : planned;
    if (bytes > e->bytes) {
        g->bytes += bytes - e->bytes;
        e->bytes = bytes;
    }
}

void
store_fsck_group_cut(struct store_fsck_group *g, uint64_t last)
{
    g->last = last;
    g->is_cut = true;
}

bool
store_fsck_group_is_full(const struct store_fsck_group *g)
{
    return g->bytes > g->bytes_max + g->bytes_max / 2 && g->count > 1;
}

/* Ids are hashes, so half of the range is about half of the chats. */
void
store_fsck_group_halve(struct store_fsck_group *g)
{
    uint64_t highest = g->first;
    for (size_t i = 0; i < g->bucket_count; i++) {
        for (struct store_fsck_entry *e = g->buckets[i]; e; e = e->chained) {
            uint64_t ordinal = store_fsck_group_ordinal(&e->chat.id);
            highest = ordinal > highest ? ordinal : highest;
        }
    }
    if (highest > g->first && g->count > 1) {
        store_fsck_group_cut(g, g->first + (highest - g->first) / 2);
    }
}

/* ---- an entry ---- */

bool
store_fsck_group_add_row(struct store_fsck_entry *e,
                         enum store_table t,
                         const struct cq_id *user,
                         struct cq_view value)
{
    size_t size = e->rows ? e->rows->size : 0;
    unsigned count = e->rows ? e->rows->count : 0;
    if (count == ROWS_MAX || value.n > UINT16_MAX) {
        return false;
    }
    struct store_fsck_rows *rows =
        realloc(e->rows, sizeof *rows + size + ROW_HEADER_BYTES + value.n);
    CQ_ASSERT(rows);
    uint8_t *p = rows->bytes + size;
    p[0] = (uint8_t)t;
    p[1] = (uint8_t)(value.n >> 8);
    p[2] = (uint8_t)value.n;
    memcpy(p + 3, user->b, CQ_ID_SIZE);
    if (value.n) {
        memcpy(p + ROW_HEADER_BYTES, value.p, value.n);
    }
    rows->size = size + ROW_HEADER_BYTES + value.n;
    rows->count = count + 1;
    e->rows = rows;
    return true;
}

void
store_fsck_group_push(struct store_fsck_entry *e, bool is_member_0)
{
    size_t i = (size_t)((e->chat.head - 1) / BLOCK_MESSAGES);
    unsigned bit = (unsigned)((e->chat.head - 1) % BLOCK_MESSAGES);
    if (i >= e->block_room) {
        size_t room = e->block_room * 2;
        struct store_fsck_block *blocks = cq_alloc(room * sizeof *blocks);
        memcpy(blocks, e->blocks, e->block_room * sizeof *blocks);
        if (e->blocks != &e->first_block) {
            free(e->blocks);
        }
        e->blocks = blocks;
        e->block_room = room;
    }
    struct store_fsck_block *b = &e->blocks[i];
    if (bit == 0) {
        *b = (struct store_fsck_block){0};
        if (i > 0) {
            b->before = b[-1].before + (uint64_t)__builtin_popcountll(b[-1].bits);
        }
    }
    b->bits |= (uint64_t)is_member_0 << bit;
}

uint64_t
store_fsck_group_rank(const struct store_fsck_entry *e, uint64_t seq)
{
    if (seq == 0) {
        return 0;
    }
    const struct store_fsck_block *b = &e->blocks[(seq - 1) / BLOCK_MESSAGES];
    unsigned above = (unsigned)(BLOCK_MESSAGES - 1 - (seq - 1) % BLOCK_MESSAGES);
    return b->before + (uint64_t)__builtin_popcountll(b->bits << above);
}

uint64_t
store_fsck_group_digest(uint64_t digest, const struct store_chat_index *i)
{
    uint64_t x = digest ^ (i->pos * 0x9e3779b97f4a7c15U + i->rank);
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

/* FNV-1a over the key; keys of receipts are a few dozen bytes. */
uint64_t
store_fsck_group_receipt(struct cq_view key, uint64_t pos)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < key.n; i++) {
        h = (h ^ key.p[i]) * 0x100000001b3U;
    }
    const struct store_chat_index mixed = {.pos = pos, .rank = 0};
    return store_fsck_group_digest(h, &mixed);
}

struct store_key
store_fsck_group_receipt_key(const struct cq_id *chat, const struct store_chat_receipt *r)
{
    return store_key_receipt(chat, r->is_read ? STORE_RECEIPT_READ : STORE_RECEIPT_DELIVERED,
                             &r->id, r->up_to);
}
