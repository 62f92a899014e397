/* SPDX-License-Identifier: MPL-2.0
 * INDEX and RECEIPT rows one by one: only of chats whose digests differ or whose rows have gaps.
 * One more pass over the log looks up what every message and receipt of these chats asks for; then
 * their rows are scanned for what nothing asks for.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/fsck_impl.h"
#include "store/record.h"

enum {
    CHATS_MAX = 4096, /* looked at; of others it is only said that rows differ */
    WRONG_MAX = 4096,
};

static void
say_unexplained(struct store_fsck *f, const struct cq_id *chat)
{
    struct store_key key = store_key_of(chat);
    store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_CHAT, store_key_view(&key),
                        "index or receipt rows differ", "what the log says");
}

void
store_fsck_detail_note(struct store_fsck *f, struct store_fsck_entry *e)
{
    if (f->bad_count == CHATS_MAX) {
        say_unexplained(f, &e->chat.id);
        return;
    }
    if (!f->bad) {
        f->bad = cq_alloc(CHATS_MAX * sizeof *f->bad);
        f->wrong = cq_alloc(WRONG_MAX * sizeof *f->wrong);
    }
    uint64_t pos = e->row_pos > e->receipt_pos ? e->row_pos : e->receipt_pos;
    f->bad[f->bad_count++] = (struct store_fsck_bad){e->chat.id, e->marker, e->row_head, pos};
}

static void
say(struct store_fsck *f,
    struct store_fsck_entry *e,
    enum store_fsck_kind kind,
    enum store_table t,
    const struct store_key *key,
    const struct store_fsck_text text[2])
{
    e->is_explained = true;
    store_fsck_find_row(f, kind, t, store_key_view(key), text[0].s, text[1].s);
}

/* ---- what should be there ---- */

/* The first message of a block that is not where it should be. */
static void
compare_block(struct store_fsck *f,
              struct store_fsck_entry *e,
              const struct store_key *key,
              struct cq_view value)
{
    struct store_chat_block block;
    struct store_fsck_text text[2] = {{"does not decode"}, {"a block of messages"}};
    if (store_chat_read_block(value, &block)) {
        say(f, e, STORE_FSCK_ROW_VALUE, STORE_TABLE_INDEX, key, text);
        return;
    }
    const struct store_chat_index *should = e->chat.tail + (e->chat.tail_count - STORE_CHAT_BLOCK);
    for (unsigned i = 0; i < STORE_CHAT_BLOCK; i++) {
        struct store_chat_index is = store_chat_block_entry(&block, i);
        bool is_pos = is.pos != should[i].pos;
        if (is_pos || is.rank != should[i].rank) {
            const char *what = is_pos ? "position" : "rank";
            text[0] = store_fsck_find_number(what, is_pos ? is.pos : is.rank);
            text[1] = store_fsck_find_number(what, is_pos ? should[i].pos : should[i].rank);
            say(f, e, STORE_FSCK_ROW_WRONG, STORE_TABLE_INDEX, key, text);
            return;
        }
    }
}

void
store_fsck_detail_block(struct store_fsck *f, struct store_fsck_entry *e, uint64_t pos)
{
    struct store_key key = store_key_index(&e->chat.id, store_chat_block_first(e->chat.head));
    struct cq_view value;
    if (store_fsck_row(f, STORE_TABLE_INDEX, &key, &value)) {
        compare_block(f, e, &key, value);
    } else if (e->chat.head <= e->row_head || pos <= e->marker) {
        static const struct store_fsck_text text[2] = {{"no row"}, {"a row"}};
        say(f, e, STORE_FSCK_ROW_MISSING, STORE_TABLE_INDEX, &key, text);
    }
}

void
store_fsck_detail_receipt(struct store_fsck *f,
                          struct store_fsck_entry *e,
                          const struct store_chat_receipt *should)
{
    struct store_key key = store_fsck_group_receipt_key(&e->chat.id, should);
    struct cq_view value;
    struct store_fsck_text text[2] = {{"no row"}, store_fsck_find_number("position", should->pos)};
    if (!store_fsck_row(f, STORE_TABLE_RECEIPT, &key, &value)) {
        if (should->pos <= e->receipt_pos || should->pos <= e->marker) {
            say(f, e, STORE_FSCK_ROW_MISSING, STORE_TABLE_RECEIPT, &key, text);
        }
        return;
    }
    cq_reader_t r = cq_reader_of(value);
    uint64_t pos = cq_read_uint(&r, UINT64_MAX);
    if (!r.err && pos == should->pos) {
        return;
    }
    text[0] = r.err ? (struct store_fsck_text){"does not decode"}
                    : store_fsck_find_number("position", pos);
    say(f, e, r.err ? STORE_FSCK_ROW_VALUE : STORE_FSCK_ROW_WRONG, STORE_TABLE_RECEIPT, &key, text);
    if (f->wrong_count < WRONG_MAX) {
        f->wrong[f->wrong_count++] = store_fsck_group_receipt(store_key_view(&key), 0);
    }
}

/* ---- what should not ---- */

struct beyond {
    struct store_fsck *f;
    struct store_fsck_entry *entry;
};

static bool
is_of(const struct store_fsck_entry *e, struct cq_view key)
{
    return key.n >= 2 + CQ_ID_SIZE && memcmp(key.p + 2, e->chat.id.b, CQ_ID_SIZE) == 0;
}

static void
say_extra(const struct beyond *b, enum store_table t, struct cq_view key)
{
    static const struct store_fsck_text text[2] = {{"a row"}, {"no row"}};
    struct store_key k = {{0}, 0};
    store_key_add(&k, key.p, key.n);
    say(b->f, b->entry, STORE_FSCK_ROW_EXTRA, t, &k, text);
}

static bool
is_key(const struct store_key *right, struct cq_view key)
{
    return right->n == key.n && memcmp(right->b, key.p, key.n) == 0;
}

/* A block that became full after the replay has a row as well. */
static bool
is_index_right(struct store_fsck *f, struct cq_view key, struct cq_view value)
{
    struct store_chat_block block;
    struct cq_view bytes;
    struct cq_rec_message m;
    if (store_chat_read_block(value, &block) ||
        store_snapshot_record(f->snapshot, block.pos[0], &bytes) ||
        store_record_message(bytes, &m)) {
        return false;
    }
    struct store_key right = store_key_index(&m.chat, m.seq);
    return m.seq % STORE_CHAT_BLOCK == 1 && is_key(&right, key);
}

/* Rows of full blocks were looked up: what else is there? */
static bool
on_index(void *ctx, struct cq_view key, struct cq_view value)
{
    struct beyond *b = ctx;
    if (!is_of(b->entry, key)) {
        return false;
    }
    if (key.n != 2 + CQ_ID_SIZE + sizeof(uint64_t)) {
        return true;
    }
    uint64_t seq = 0;
    for (size_t i = 2 + CQ_ID_SIZE; i < key.n; i++) {
        seq = seq << 8 | key.p[i];
    }
    uint64_t head = b->entry->chat.head;
    bool is_full = seq % STORE_CHAT_BLOCK == 1 && seq <= head && head - seq >= STORE_CHAT_BLOCK - 1;
    if (!is_full && !is_index_right(b->f, key, value)) {
        say_extra(b, STORE_TABLE_INDEX, key);
    }
    return true;
}

/* Does the record that a RECEIPT row names ask for it? */
static bool
is_receipt_right(struct store_fsck *f, struct cq_view key, struct cq_view value)
{
    struct cq_view bytes;
    union store_record record;
    enum cq_rec_kind kind;
    cq_reader_t reader = cq_reader_of(value);
    uint64_t pos = cq_read_uint(&reader, UINT64_MAX);
    if (reader.err || store_snapshot_record(f->snapshot, pos, &bytes) ||
        store_record_read(bytes, &kind, &record)) {
        return false;
    }
    const struct cq_rec_receipt *r = &record.receipt;
    const struct cq_rec_read *read = &record.read;
    struct store_key keys[2] = {{{0}, 0}, {{0}, 0}};
    if (kind == CQ_REC_READ) {
        keys[0] = store_key_receipt(&read->chat, STORE_RECEIPT_READ, &read->user, read->up_to);
        keys[1] =
            store_key_receipt(&read->chat, STORE_RECEIPT_DELIVERED, &read->device, read->up_to);
    } else if (kind == CQ_REC_RECEIPT) {
        keys[0] = cq_id_is_none(&r->device)
                      ? store_key_receipt(&r->chat, STORE_RECEIPT_READ, &r->user, r->up_to)
                      : store_key_receipt(&r->chat, STORE_RECEIPT_DELIVERED, &r->device, r->up_to);
    }
    return is_key(&keys[0], key) || is_key(&keys[1], key);
}

static bool
is_known_wrong(const struct store_fsck *f, struct cq_view key)
{
    uint64_t hash = store_fsck_group_receipt(key, 0);
    for (size_t i = 0; i < f->wrong_count; i++) {
        if (f->wrong[i] == hash) {
            return true;
        }
    }
    return false;
}

static bool
on_receipt(void *ctx, struct cq_view key, struct cq_view value)
{
    struct beyond *b = ctx;
    if (!is_of(b->entry, key)) {
        return false;
    }
    if (key.n == 2 + 2 * CQ_ID_SIZE + 1 + sizeof(uint64_t) && !is_receipt_right(b->f, key, value) &&
        !is_known_wrong(b->f, key)) {
        say_extra(b, STORE_TABLE_RECEIPT, key);
    }
    return true;
}

static int
check_beyond(struct store_fsck *f, struct store_fsck_entry *e)
{
    struct beyond b = {f, e};
    struct store_key chat = store_key_of(&e->chat.id);
    int rc = store_fsck_walk(f, STORE_TABLE_INDEX, store_key_view(&chat), on_index, &b);
    if (!rc) {
        rc = store_fsck_walk(f, STORE_TABLE_RECEIPT, store_key_view(&chat), on_receipt, &b);
    }
    if (!rc && !e->is_explained && !e->is_broken) {
        say_unexplained(f, &e->chat.id);
    }
    return rc;
}

int
store_fsck_detail_check(struct store_fsck *f)
{
    struct store_fsck_group g;
    if (f->bad_count == 0) {
        return 0;
    }
    store_fsck_group_init(&g, 0, f->cfg->state_bytes_max);
    g.is_closed = true;
    f->report->passes++;
    for (size_t i = 0; i < f->bad_count; i++) {
        struct store_fsck_entry *e = store_fsck_group_add(&g, &f->bad[i].chat);
        e->marker = f->bad[i].marker;
        e->row_head = f->bad[i].row_head;
        e->receipt_pos = f->bad[i].receipt_pos;
    }
    int rc = store_fsck_log_replay(f, &g);
    for (size_t i = 0; !rc && i < g.bucket_count; i++) {
        for (struct store_fsck_entry *e = g.buckets[i]; e && !rc; e = e->chained) {
            rc = check_beyond(f, e);
        }
    }
    store_fsck_group_fini(&g);
    return rc;
}
