/* SPDX-License-Identifier: MPL-2.0
 * BLOB, BLOB_USE and BLOB_READER against the log and each other. These rows are written with the
 * commit that changes them: a row read in a snapshot has counted exactly the messages that this
 * snapshot's log has. So the rows of as many blobs as fit are read, each with the log's end as its
 * snapshot has it, and then the media parts of the log up to there are counted.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/random.h"

#include "store/account.h"
#include "store/blob.h"
#include "store/friend.h"
#include "store/fsck_impl.h"
#include "store/record.h"

enum {
    CHATS_CACHED = 4096,
    LOAD_PERCENT = 70,
    ROOM_FIRST = 1024,
};

/* A blob, or one of its readers. */
struct item {
    struct cq_id blob, user; /* user none: the blob itself */
    uint64_t pos;            /* of the log as the row's snapshot has it */
    uint64_t references;     /* as the row says */
    uint64_t messages;       /* that refer to it, up to pos; of a reader: that let them read */
    uint64_t state;
    bool is_used;
};

/* A chat's members, for those that send media. */
struct cached {
    struct cq_id chat, members[2];
};

struct blobs {
    struct store_fsck *f;
    struct item *items; /* open addressing; room is a power of two */
    size_t count, room, room_max;
    struct store_key from; /* where this pass begins */
    struct store_key next; /* … and where the next one does; n 0: nowhere */
    uint64_t scan_pos;     /* the log's end when this pass began */
    uint64_t references;   /* all of this pass's rows */
    uint64_t log_next;
    struct cached *chats;
};

/* ---- what is in hand ---- */

static struct item *
place_of(struct item *items, size_t room, const struct cq_id *blob, const struct cq_id *user)
{
    size_t i = (size_t)(cq_id_hash(blob) + 31 * cq_id_hash(user)) & (room - 1);
    while (items[i].is_used &&
           !(cq_id_eq(&items[i].blob, blob) && cq_id_eq(&items[i].user, user))) {
        i = (i + 1) & (room - 1);
    }
    return &items[i];
}

static void
grow(struct blobs *b)
{
    size_t room = b->room ? 2 * b->room : ROOM_FIRST;
    struct item *items = cq_alloc(room * sizeof *items);
    for (size_t i = 0; i < b->room; i++) {
        if (b->items[i].is_used) {
            *place_of(items, room, &b->items[i].blob, &b->items[i].user) = b->items[i];
        }
    }
    free(b->items);
    b->items = items;
    b->room = room;
}

static struct item *
add(struct blobs *b, const struct cq_id *blob, const struct cq_id *user)
{
    if (b->count * 100 >= b->room * LOAD_PERCENT) {
        grow(b);
    }
    struct item *item = place_of(b->items, b->room, blob, user);
    if (!item->is_used) {
        *item = (struct item){.blob = *blob, .user = *user, .is_used = true};
        b->count++;
    }
    return item;
}

static struct item *
find(struct blobs *b, const struct cq_id *blob, const struct cq_id *user)
{
    struct item *item = b->room ? place_of(b->items, b->room, blob, user) : NULL;
    return item && item->is_used ? item : NULL;
}

/* ---- rows of blobs ---- */

static const struct cq_id nobody;

static void
value_damaged(struct store_fsck *f, enum store_table t, struct cq_view key)
{
    store_fsck_find_row(f, STORE_FSCK_ROW_VALUE, t, key, "does not decode", "a row of this table");
}

static struct cq_id
first_id(struct cq_view key)
{
    struct cq_id id;
    memcpy(id.b, key.p + 2, CQ_ID_SIZE);
    return id;
}

/* What a row must be whatever the log says. */
static void
check_blob(struct store_fsck *f, struct cq_view key, const struct store_blob *blob)
{
    static const uint8_t zeros[CQ_BLOB_HASH_SIZE];
    struct store_key account = store_key_of(&blob->user);
    struct cq_view row;
    bool has_hash = memcmp(blob->hash, zeros, sizeof zeros) != 0;
    if (!store_fsck_row(f, STORE_TABLE_ACCOUNT, &account, &row)) {
        store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_BLOB, key,
                            store_fsck_find_id("user", &blob->user).s, "a user with an account");
    }
    if (blob->state != STORE_BLOB_UPLOADING && !has_hash) {
        store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_BLOB, key, "complete, no hash",
                            "the hash of its file");
    } else if (blob->state == STORE_BLOB_UPLOADING && has_hash) {
        store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_BLOB, key, "an upload with a hash",
                            "a complete blob");
    }
}

static bool
on_reader(void *ctx, struct cq_view key, struct cq_view value)
{
    struct blobs *b = ctx;
    (void)value;
    if (key.n == 2 + 2 * CQ_ID_SIZE) {
        struct cq_id blob = first_id(key);
        struct cq_id user = store_key_second(key);
        add(b, &blob, &user)->pos = b->f->last_pos;
    }
    return true;
}

static bool
on_blob(void *ctx, struct cq_view key, struct cq_view value)
{
    struct blobs *b = ctx;
    struct store_blob blob;
    if (b->room >= b->room_max && b->count * 100 >= b->room * (LOAD_PERCENT - 10)) {
        b->next.n = 0;
        store_key_add(&b->next, key.p, key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX);
        return false;
    }
    if (!store_fsck_find_key(b->f, STORE_TABLE_BLOB, key, 1, 0)) {
        return true;
    }
    struct cq_id id = first_id(key);
    struct item *item = add(b, &id, &nobody);
    item->pos = b->f->last_pos;
    if (store_blob_read(value, &blob)) {
        value_damaged(b->f, STORE_TABLE_BLOB, key);
        item->pos = 0; /* counts nothing */
        b->f->blobs_lost++;
        return true;
    }
    check_blob(b->f, key, &blob);
    item->references = blob.references;
    item->state = blob.state;
    b->references += blob.references;
    struct store_key readers = store_key_of(&id);
    int rc = store_snapshot_scan(b->f->snapshot, STORE_TABLE_BLOB_READER, store_key_view(&readers),
                                 (struct cq_view){0}, on_reader, b);
    b->f->rc = b->f->rc ? b->f->rc : rc;
    return true;
}

/* ---- media parts of the log ---- */

struct peer_search {
    struct cq_id user, chat, peer;
};

static bool
on_friend(void *ctx, struct cq_view key, struct cq_view value)
{
    struct peer_search *s = ctx;
    (void)value;
    if (key.n != 2 + 2 * CQ_ID_SIZE) {
        return true;
    }
    struct cq_id peer = store_key_second(key);
    struct cq_id chat = cq_chat_id(&s->user, &peer);
    if (!cq_id_eq(&chat, &s->chat)) {
        return true;
    }
    s->peer = peer;
    return false;
}

/* The chat's members; false if its sender has no such friend: that is found elsewhere. */
static bool
members_of(struct blobs *b, const struct cq_rec_message *m, struct cq_id members[2])
{
    struct cached *c = &b->chats[cq_id_hash(&m->chat) % CHATS_CACHED];
    if (!cq_id_eq(&c->chat, &m->chat) || cq_id_is_none(&c->members[0])) {
        struct peer_search s = {.user = m->user, .chat = m->chat};
        struct store_key key = store_key_of(&m->user);
        int rc = store_snapshot_scan(b->f->snapshot, STORE_TABLE_USER, store_key_view(&key),
                                     (struct cq_view){0}, on_friend, &s);
        b->f->rc = b->f->rc ? b->f->rc : rc;
        if (rc || cq_id_is_none(&s.peer)) {
            return false;
        }
        *c = (struct cached){m->chat, {m->user, s.peer}};
    }
    memcpy(members, c->members, sizeof c->members);
    return true;
}

static void
count_reader(struct blobs *b, const struct item *blob, const struct cq_id *user)
{
    struct cq_id id = blob->blob; /* the items may move */
    struct item *reader = find(b, &id, user);
    if (!reader) {
        struct store_key key = store_key_pair(&id, user);
        store_fsck_find_row(b->f, STORE_FSCK_ROW_MISSING, STORE_TABLE_BLOB_READER,
                            store_key_view(&key), "missing", "a reader: a message says so");
        reader = add(b, &id, user); /* said once */
    }
    reader->messages++;
}

static bool
is_in_pass(const struct blobs *b, const struct cq_id *id)
{
    struct store_key key = store_key_of(id);
    return (!b->from.n || memcmp(key.b, b->from.b, key.n) >= 0) &&
           (!b->next.n || memcmp(key.b, b->next.b, key.n) < 0);
}

static void
count_message(struct blobs *b, uint64_t pos, const struct cq_rec_message *m)
{
    struct cq_media media;
    struct cq_id members[2];
    if (cq_media_read(m->media, &media) <= 0) {
        return;
    }
    struct item *blob = find(b, &media.blob, &nobody);
    if (!blob) {
        struct store_key key = store_key_of(&media.blob);
        if (pos <= b->scan_pos && is_in_pass(b, &media.blob)) {
            store_fsck_find_row(b->f, STORE_FSCK_ROW_MISSING, STORE_TABLE_BLOB,
                                store_key_view(&key), "missing",
                                store_fsck_find_number("a message refers to it, pos", pos).s);
            add(b, &media.blob, &nobody); /* said once */
            b->f->blobs_lost++;
        }
        return;
    }
    if (pos > blob->pos) {
        return;
    }
    blob->messages++;
    if (members_of(b, m, members)) {
        struct item copy = *blob;
        count_reader(b, &copy, &members[0]);
        count_reader(b, &copy, &members[1]);
    }
}

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct blobs *b = ctx;
    enum cq_rec_kind kind = 0;
    union store_record fields;
    b->log_next = pos + 1;
    b->f->report->records++;
    if (store_record_read(record, &kind, &fields) == 0 && kind == CQ_REC_MESSAGE) {
        count_message(b, pos, &fields.message);
    }
    return b->f->rc == 0 && !store_fsck_is_due(b->f);
}

static int
read_log(struct blobs *b)
{
    uint64_t end = b->f->last_pos; /* rows are as of here at the latest */
    int rc = 0;
    b->log_next = 1;
    while (!rc && b->log_next <= end) {
        uint64_t before = b->log_next;
        rc = store_fsck_snapshot(b->f);
        rc = rc ? rc : store_snapshot_log(b->f->snapshot, before, on_record, b);
        rc = rc ? rc : b->f->rc;
        if (!rc && b->log_next == before) {
            break; /* nothing behind it: positions that are missing are found elsewhere */
        }
    }
    return rc;
}

/* ---- the comparison ---- */

static void
compare_blob(struct store_fsck *f, const struct item *i)
{
    struct store_key key = store_key_of(&i->blob);
    if (i->references != i->messages) {
        store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_BLOB, store_key_view(&key),
                            store_fsck_find_number("references", i->references).s,
                            store_fsck_find_number("messages", i->messages).s);
    } else if (i->messages && i->state != STORE_BLOB_WHOLE) {
        store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_BLOB, store_key_view(&key),
                            i->state == STORE_BLOB_DEAD ? "dead" : "an upload",
                            "complete: messages refer to it");
    }
}

static void
compare(struct blobs *b)
{
    for (size_t n = 0; n < b->room; n++) {
        const struct item *i = &b->items[n];
        if (!i->is_used || !i->pos) {
            continue;
        }
        if (cq_id_is_none(&i->user)) {
            compare_blob(b->f, i);
        } else if (!i->messages) {
            struct store_key key = store_key_pair(&i->blob, &i->user);
            store_fsck_find_row(b->f, STORE_FSCK_ROW_EXTRA, STORE_TABLE_BLOB_READER,
                                store_key_view(&key), "a reader", "no message lets them read it");
        }
    }
}

static int
check_some(struct blobs *b)
{
    b->count = 0;
    b->references = 0;
    if (b->room) {
        memset(b->items, 0, b->room * sizeof *b->items);
    }
    b->next.n = 0;
    int rc = store_fsck_fresh(b->f);
    if (rc) {
        return rc;
    }
    b->scan_pos = b->f->last_pos;
    rc = store_fsck_walk(b->f, STORE_TABLE_BLOB, store_key_view(&b->from), on_blob, b);
    bool is_log_needed = b->references || b->f->media_count;
    if (!rc && is_log_needed) {
        rc = read_log(b);
    }
    if (!rc) {
        compare(b);
    }
    return rc;
}

/* Readers of blobs that have no row; the others are looked at with their blob. */
static bool
on_any_reader(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_fsck *f = ctx;
    struct cq_view row;
    if (!store_fsck_find_key(f, STORE_TABLE_BLOB_READER, key, 2, 0)) {
        return true;
    }
    struct cq_id blob = first_id(key);
    struct store_key blob_key = store_key_of(&blob);
    if (value.n != 1 || value.p[0] != 0xc3) {
        value_damaged(f, STORE_TABLE_BLOB_READER, key);
    }
    if (!store_fsck_row(f, STORE_TABLE_BLOB, &blob_key, &row) && !f->blobs_lost) {
        store_fsck_find_row(f, STORE_FSCK_ROW_EXTRA, STORE_TABLE_BLOB_READER, key, "a reader",
                            "the blob has no row");
    }
    return true;
}

int
store_fsck_blobs_check(struct store_fsck *f)
{
    struct blobs b = {.f = f, .room_max = ROOM_FIRST};
    while (2 * b.room_max * sizeof *b.items <= f->cfg->state_bytes_max) {
        b.room_max *= 2;
    }
    b.chats = cq_alloc(CHATS_CACHED * sizeof *b.chats);
    int rc = 0;
    do {
        rc = check_some(&b);
        b.from = b.next;
    } while (!rc && b.next.n);
    free(b.items);
    free(b.chats);
    if (!rc) {
        rc = store_fsck_walk(f, STORE_TABLE_BLOB_READER, (struct cq_view){0}, on_any_reader, f);
    }
    return rc ? rc : store_fsck_blob_use_check(f);
}
