/* SPDX-License-Identifier: MPL-2.0
 * Reads the rows of chats into a group, in key order, until its memory is used up. All rows of a
 * chat are read in one snapshot, but for INDEX rows: these never change.
 */
#include <string.h>

#include "store/fsck_impl.h"

enum {
    CHUNK_CHATS = 2048, /* in one snapshot */
    BLOCK_MESSAGES = 64,
    PLAN_BYTES = 128, /* of malloc, hash table, a receipt */
};

struct scan {
    struct store_fsck *f;
    struct store_fsck_group *g;
    uint64_t from, to;              /* ordinals of the chunk */
    struct store_complete complete; /* when its CHAT rows were read: INDEX and RECEIPT rows may be
                                       newer */
    uint64_t to_chat;               /* of the last CHAT row read */
    size_t count;                   /* CHAT rows */
    bool is_full;                   /* the chunk: `to` is its end */
    enum store_table table;
    struct store_fsck_entry *entry; /* of the last INDEX or RECEIPT row */
    struct store_key next;          /* RECEIPT: where the next snapshot goes on */
    bool is_due, is_stopped_early;
};

/* What the replay is going to need for a chat that its row tells of. */
static size_t
plan(const struct store_fsck_entry *e, size_t device_count)
{
    size_t tail = 4;
    while (tail < e->row_head && tail < STORE_CHAT_BLOCK) {
        tail *= 2;
    }
    size_t bytes = sizeof *e + device_count * STORE_CHAT_DEVICE_BYTES +
                   tail * sizeof *e->chat.tail + PLAN_BYTES;
    if (e->row_head > BLOCK_MESSAGES) {
        bytes += (size_t)(e->row_head / BLOCK_MESSAGES) * 2 * sizeof *e->blocks;
    }
    return bytes + (e->rows ? e->rows->size : 0);
}

/* Is the key within the chunk? Rows beyond a bound of memory are left to the next group. */
static bool
is_inside(const struct scan *s, uint64_t ordinal)
{
    return ordinal <= s->g->last && ordinal <= s->to;
}

/* NULL where the group ends because there are more chats in this chunk than memory allows: rows of
 * chats without a CHAT row do not count for its size. */
static struct store_fsck_entry *
add_entry(struct scan *s, struct cq_view key)
{
    struct cq_id id;
    memcpy(id.b, key.p + 2, CQ_ID_SIZE);
    struct store_fsck_entry *e = store_fsck_group_find(s->g, &id);
    uint64_t ordinal = store_fsck_group_ordinal(&id);
    if (!e && store_fsck_group_is_full(s->g) && ordinal > s->g->first) {
        store_fsck_group_cut(s->g, ordinal - 1);
        return NULL;
    }
    if (!e) {
        e = store_fsck_group_add(s->g, &id);
        e->marker = store_complete_of(&s->complete, &id);
    }
    return e;
}

static bool
on_chat(void *ctx, struct cq_view key, struct cq_view value)
{
    struct scan *s = ctx;
    struct store_fsck *f = s->f;
    uint64_t ordinal = store_fsck_group_key_ordinal(key);
    if (!is_inside(s, ordinal)) {
        return false;
    }
    if ((s->count >= CHUNK_CHATS || s->g->bytes > s->g->bytes_max) && ordinal > s->to_chat) {
        s->to = s->to_chat;
        s->is_full = true;
        return false;
    }
    s->to_chat = ordinal;
    f->report->rows++;
    if (!store_fsck_find_key(f, STORE_TABLE_CHAT, key, 1, 0)) {
        return true;
    }
    s->count++;
    struct store_chat row;
    struct store_fsck_entry *e = add_entry(s, key);
    if (!e) {
        return false;
    }
    store_chat_init(&row, &e->chat.id);
    if (store_chat_read(value, &row) ||
        !store_fsck_group_add_row(e, STORE_TABLE_CHAT, &row.id, value)) {
        e->is_row_bad = true;
        store_fsck_find_row(f, STORE_FSCK_ROW_VALUE, STORE_TABLE_CHAT, key, "does not decode",
                            "a row of this table");
    } else {
        e->has_row = true;
        e->row_pos = row.last_pos;
        e->row_head = row.head;
        store_fsck_group_account(s->g, e, plan(e, row.device_count));
    }
    store_chat_fini(&row);
    return true;
}

static bool
on_audit(void *ctx, struct cq_view key, struct cq_view value)
{
    struct scan *s = ctx;
    if (!is_inside(s, store_fsck_group_key_ordinal(key))) {
        return false;
    }
    s->f->report->rows++;
    if (store_fsck_find_key(s->f, s->table, key, 2, 0)) {
        struct cq_id user = store_key_second(key);
        struct store_fsck_entry *e = add_entry(s, key);
        if (!e) {
            return false;
        }
        if (!store_fsck_group_add_row(e, s->table, &user, value)) {
            store_fsck_find_row(s->f, STORE_FSCK_ROW_EXTRA, s->table, key, "a row", "no row");
        }
        store_fsck_group_account(s->g, e, 0);
    }
    return true;
}

static bool
on_index(void *ctx, struct cq_view key, struct cq_view value)
{
    struct scan *s = ctx;
    struct store_chat_block block;
    if (!is_inside(s, store_fsck_group_key_ordinal(key))) {
        return false;
    }
    if (!store_fsck_find_key(s->f, STORE_TABLE_INDEX, key, 1, sizeof(uint64_t))) {
        return true;
    }
    struct store_fsck_entry *e = s->entry;
    if (!e || memcmp(e->chat.id.b, key.p + 2, CQ_ID_SIZE) != 0) {
        e = s->entry = add_entry(s, key);
    }
    if (!e) {
        return false;
    }
    uint64_t seq = 0;
    for (size_t i = 0; i < sizeof seq; i++) {
        seq = seq << 8 | key.p[2 + CQ_ID_SIZE + i];
    }
    if (seq != e->index_count * STORE_CHAT_BLOCK + 1 || store_chat_read_block(value, &block)) {
        e->is_detail_due = true;
        return true;
    }
    e->index_count++;
    for (unsigned i = 0; i < STORE_CHAT_BLOCK; i++) {
        struct store_chat_index index = store_chat_block_entry(&block, i);
        e->index_digest = store_fsck_group_digest(e->index_digest, &index);
    }
    return true;
}

/* RECEIPT rows come in the order of ids, not of time: all of a chat are to be read in one snapshot.
 */
static bool
on_receipt(void *ctx, struct cq_view key, struct cq_view value)
{
    struct scan *s = ctx;
    if (!is_inside(s, store_fsck_group_key_ordinal(key))) {
        return false;
    }
    s->is_due = s->is_due || store_fsck_is_due(s->f);
    struct store_fsck_entry *e = s->entry;
    if (key.n < 2 + CQ_ID_SIZE || !e || memcmp(e->chat.id.b, key.p + 2, CQ_ID_SIZE) != 0) {
        if (s->is_due) {
            s->is_stopped_early = true;
            s->next.n = 0;
            store_key_add(&s->next, key.p, key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX);
            return false;
        }
    }
    s->f->report->rows++;
    if (!store_fsck_find_key(s->f, STORE_TABLE_RECEIPT, key, 2, 1 + sizeof(uint64_t))) {
        return true;
    }
    if (!e || memcmp(e->chat.id.b, key.p + 2, CQ_ID_SIZE) != 0) {
        e = s->entry = add_entry(s, key);
    }
    if (!e) {
        return false;
    }
    cq_reader_t r = cq_reader_of(value);
    uint64_t pos = cq_read_uint(&r, UINT64_MAX);
    if (r.err) {
        e->is_detail_due = true;
    }
    e->receipt_pos = pos > e->receipt_pos ? pos : e->receipt_pos;
    e->receipt_digest += store_fsck_group_receipt(key, pos);
    return true;
}

static int
scan_receipts(struct scan *s)
{
    int rc = 0;
    s->next = store_fsck_group_key(s->from);
    s->entry = NULL;
    do {
        s->is_stopped_early = s->is_due = false;
        rc = store_fsck_snapshot(s->f);
        if (!rc) {
            rc = store_snapshot_scan(s->f->snapshot, STORE_TABLE_RECEIPT, (struct cq_view){0},
                                     store_key_view(&s->next), on_receipt, s);
        }
    } while (!rc && s->is_stopped_early);
    return rc;
}

static int
scan_table(struct scan *s, enum store_table t, store_row_fn *fn)
{
    struct store_key from = store_fsck_group_key(s->from);
    s->table = t;
    return store_snapshot_scan(s->f->snapshot, t, (struct cq_view){0}, store_key_view(&from), fn,
                               s);
}

static int
scan_chunk(struct scan *s)
{
    struct store_key from = store_fsck_group_key(s->from);
    int rc = store_fsck_snapshot(s->f);
    s->to = UINT64_MAX;
    s->to_chat = s->from;
    s->count = 0;
    s->is_full = false;
    s->entry = NULL;
    if (!rc) {
        s->complete = s->f->complete;
        s->g->complete = s->from == s->g->first ? s->f->complete : s->g->complete;
        rc = scan_table(s, STORE_TABLE_CHAT, on_chat);
    }
    if (!rc) {
        rc = scan_table(s, STORE_TABLE_UNREAD, on_audit);
    }
    if (!rc) {
        rc = scan_table(s, STORE_TABLE_READ, on_audit);
    }
    if (!rc) {
        rc = store_fsck_walk(s->f, STORE_TABLE_INDEX, store_key_view(&from), on_index, s);
    }
    if (!rc) {
        rc = scan_receipts(s);
    }
    return rc ? rc : s->f->rc;
}

int
store_fsck_scan_rows(struct store_fsck *f, struct store_fsck_group *g)
{
    struct scan s = {.f = f, .g = g, .from = g->first};
    for (;;) {
        int rc = scan_chunk(&s);
        if (rc) {
            return rc;
        }
        if (!s.is_full || g->last <= s.to) {
            return 0;
        }
        if (g->bytes > g->bytes_max) {
            g->last = s.to;
            return 0;
        }
        s.from = s.to + 1;
    }
}
