/* SPDX-License-Identifier: MPL-2.0
 * The replay: every record is checked against what came before it, then applied with the rules of
 * chat.h; where a chat's rows say they stand, they are compared.
 */
#include <inttypes.h>
#include <string.h>

#include "common/rt/random.h"

#include "store/fsck_impl.h"
#include "store/record.h"

enum {
    QUEUE_MAX = 12,
    QUEUE_ENTRY = 8, /* so old, its entry is fetched */
    QUEUE_PARTS = 4, /* and what that points to, in the order in which they arrive */
};

/* A record whose chat is known. */
struct queued {
    uint64_t pos;
    enum cq_rec_kind kind;
    cq_reader_t fields;
    size_t count;
    struct cq_id chat;
    struct store_fsck_entry *entry; /* once it was found */
};

struct replay {
    struct store_fsck *f;
    struct store_fsck_group *g;
    uint64_t next_pos, end_pos;
    uint64_t commit_pos; /* that the last COMMIT record names */
    bool is_first;       /* pass: what belongs to no chat is checked */
    bool is_due;
    /* Records on their way. Chats lie all over the memory: each is fetched while those before it
     * are at work, which hides a good part of the waiting. */
    struct queued queue[QUEUE_MAX];
    size_t in, out;
};

static int
rank_of(void *ctx, const struct cq_id *chat, uint64_t seq, struct store_chat_index *out)
{
    (void)chat;
    *out = (struct store_chat_index){.rank = store_fsck_group_rank(ctx, seq)};
    return 0;
}

/* The log itself is wrong here: what follows in this chat proves nothing. */
static void
break_chat(struct replay *r,
           struct store_fsck_entry *e,
           enum store_fsck_kind kind,
           uint64_t pos,
           const char *is,
           const char *should)
{
    e->is_broken = true;
    if (!r->g->is_closed) {
        store_fsck_find_record(r->f, kind, pos, is, should);
    }
}

/* ---- messages ---- */

/* Not a number of the message is what it should be: says which. */
static void
say_message(struct replay *r,
            struct store_fsck_entry *e,
            uint64_t pos,
            const struct cq_rec_message *m)
{
    const struct store_chat_device *d = store_chat_device(&e->chat, &m->device);
    bool is_twice = m->seq <= e->chat.head;
    if (store_chat_member(&e->chat, &m->user) < 0) {
        break_chat(r, e, STORE_FSCK_LOG_MEMBER, pos, store_fsck_find_id("user", &m->user).s,
                   store_fsck_find_id("a member of chat", &m->chat).s);
    } else if (d && d->member != store_chat_member(&e->chat, &m->user)) {
        break_chat(r, e, STORE_FSCK_LOG_MEMBER, pos, store_fsck_find_id("device", &m->device).s,
                   store_fsck_find_id("a device of user", &m->user).s);
    } else if (m->seq != e->chat.head + 1) {
        break_chat(r, e, is_twice ? STORE_FSCK_LOG_SEQ_TWICE : STORE_FSCK_LOG_SEQ_GAP, pos,
                   store_fsck_find_number("seq", m->seq).s,
                   store_fsck_find_number("seq", e->chat.head + 1).s);
    } else {
        break_chat(r, e, STORE_FSCK_LOG_DSEQ, pos, store_fsck_find_number("dseq", m->dseq).s,
                   store_fsck_find_number("more than", d ? d->last_dseq : 0).s);
    }
}

static bool
check_message(struct replay *r,
              struct store_fsck_entry *e,
              uint64_t pos,
              const struct cq_rec_message *m)
{
    int from = store_chat_member(&e->chat, &m->user);
    const struct store_chat_device *d = store_chat_device(&e->chat, &m->device);
    bool is_good = from >= 0 && m->seq == e->chat.head + 1 &&
                   (d ? d->member == from && m->dseq > d->last_dseq : m->dseq > 0);
    if (!is_good) {
        say_message(r, e, pos, m);
    }
    struct cq_media media;
    int has_media = r->g->is_closed ? 0 : cq_media_read(m->media, &media);
    r->f->media_count += has_media > 0;
    if (has_media < 0) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_RECORD, pos, "a media part of another form",
                               "[blob, length, thumbnail] or nil");
    }
    return is_good;
}

/* The message is applied. With the last one of a block the block's INDEX row is due. */
static void
after_message(struct replay *r, struct store_fsck_entry *e, uint64_t pos, bool is_member_0)
{
    struct store_chat *c = &e->chat;
    store_fsck_group_push(e, is_member_0);
    if (c->head % STORE_CHAT_BLOCK || c->tail_count < STORE_CHAT_BLOCK) {
        return;
    }
    if (r->g->is_closed) {
        store_fsck_detail_block(r->f, e, pos);
    }
    for (size_t i = c->tail_count - STORE_CHAT_BLOCK; i < c->tail_count; i++) {
        e->digest = store_fsck_group_digest(e->digest, &c->tail[i]);
    }
    uint64_t blocks = c->head / STORE_CHAT_BLOCK;
    bool must_exist = c->head <= e->row_head || pos <= e->marker;
    if ((blocks == e->index_count && e->digest != e->index_digest) ||
        (blocks > e->index_count && must_exist)) {
        e->is_detail_due = true;
    }
    store_chat_trim(c, c->head);
}

/* ---- receipts ---- */

/* A receipt of either kind: RECEIPT moves one cursor, READ moves the user's and, if it is behind,
 * the device's. */
struct receipt {
    struct cq_id user, device;
    uint64_t up_to;
    bool is_read;
};

static struct receipt
receipt_of(enum cq_rec_kind kind, const union store_record *fields)
{
    const struct cq_rec_receipt *r = &fields->receipt;
    const struct cq_rec_read *read = &fields->read;
    return kind == CQ_REC_READ
               ? (struct receipt){read->user, read->device, read->up_to, true}
               : (struct receipt){r->user, r->device, r->up_to, cq_id_is_none(&r->device)};
}

static bool
check_receipt(struct replay *r, struct store_fsck_entry *e, uint64_t pos, const struct receipt *in)
{
    int member = store_chat_member(&e->chat, &in->user);
    const struct store_chat_device *d = store_chat_device(&e->chat, &in->device);
    if (member < 0 || (d && d->member != member)) {
        break_chat(
            r, e, STORE_FSCK_LOG_MEMBER, pos,
            store_fsck_find_id(member < 0 ? "user" : "device", member < 0 ? &in->user : &in->device)
                .s,
            store_fsck_find_id("of a member of chat", &e->chat.id).s);
        return false;
    }
    if (in->up_to > e->chat.head) {
        break_chat(r, e, STORE_FSCK_LOG_CURSOR_ABOVE, pos,
                   store_fsck_find_number("up to", in->up_to).s,
                   store_fsck_find_number("at most", e->chat.head).s);
        return false;
    }
    uint64_t before = in->is_read ? e->chat.members[member].read : d ? d->delivered : 0;
    if (in->up_to < before && !r->g->is_closed) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_CURSOR_BACK, pos,
                               store_fsck_find_number("up to", in->up_to).s,
                               store_fsck_find_number("at least", before).s);
    }
    return true;
}

/* The rows that the record asks for. */
static void
after_receipt(struct replay *r, struct store_fsck_entry *e, uint64_t pos)
{
    uint64_t due_pos = e->row_pos > e->receipt_pos ? e->row_pos : e->receipt_pos;
    for (size_t i = 0; i < e->chat.receipt_count; i++) {
        const struct store_chat_receipt *receipt = &e->chat.receipts[i];
        struct store_key key = store_fsck_group_receipt_key(&e->chat.id, receipt);
        if (r->g->is_closed) {
            store_fsck_detail_receipt(r->f, e, receipt);
        } else if (pos <= due_pos) {
            e->receipts_due_digest += store_fsck_group_receipt(store_key_view(&key), pos);
        } else if (pos <= e->marker) {
            e->is_detail_due = true;
        }
    }
    store_chat_trim_receipts(&e->chat, pos);
}

/* ---- any record of a chat ---- */

/* KNOWN and FORGET are about a member, FORGET about one of his devices that the chat knows. */
static bool
check_member(struct replay *r,
             struct store_fsck_entry *e,
             uint64_t pos,
             enum cq_rec_kind kind,
             const union store_record *fields)
{
    const struct cq_id *user = kind == CQ_REC_KNOWN ? &fields->known.user : &fields->forget.user;
    int member = store_chat_member(&e->chat, user);
    if (member < 0) {
        break_chat(r, e, STORE_FSCK_LOG_MEMBER, pos, store_fsck_find_id("user", user).s,
                   store_fsck_find_id("a member of chat", &e->chat.id).s);
        return false;
    }
    const struct store_chat_device *d =
        kind == CQ_REC_FORGET ? store_chat_device(&e->chat, &fields->forget.device) : NULL;
    if (kind == CQ_REC_FORGET && (!d || d->member != member)) {
        break_chat(r, e, STORE_FSCK_LOG_MEMBER, pos,
                   store_fsck_find_id("device", &fields->forget.device).s,
                   store_fsck_find_id("a device here of user", user).s);
        return false;
    }
    return true;
}

static bool
check_record(struct replay *r,
             struct store_fsck_entry *e,
             uint64_t pos,
             enum cq_rec_kind kind,
             const union store_record *fields)
{
    if (kind == CQ_REC_FRIEND) {
        return true; /* see note_friend */
    }
    if (!e->begin_pos) {
        break_chat(r, e, STORE_FSCK_LOG_CHAT, pos, store_fsck_find_id("chat", &e->chat.id).s,
                   "a chat that has begun");
        return false;
    }
    if (kind == CQ_REC_MESSAGE) {
        return check_message(r, e, pos, &fields->message);
    }
    if (kind == CQ_REC_KNOWN || kind == CQ_REC_FORGET) {
        return check_member(r, e, pos, kind, fields);
    }
    struct receipt in = receipt_of(kind, fields);
    return check_receipt(r, e, pos, &in);
}

static void
apply(struct replay *r,
      struct store_fsck_entry *e,
      uint64_t pos,
      enum cq_rec_kind kind,
      const union store_record *fields)
{
    const struct store_chat_lookup lookup = {rank_of, e};
    int rc = store_chat_apply(&e->chat, pos, kind, fields, &lookup);
    if (rc) {
        break_chat(r, e, STORE_FSCK_LOG_RECORD, pos, "cannot follow what came before",
                   "a record that a store would write");
        return;
    }
    if (kind == CQ_REC_MESSAGE) {
        after_message(r, e, pos, cq_id_eq(&fields->message.user, &e->chat.members[0].user));
    } else if (kind == CQ_REC_FRIEND && !e->begin_pos) {
        e->begin_pos = pos;
    }
    after_receipt(r, e, pos);
    if (!r->g->is_closed) {
        store_fsck_compare_rows(r->f, e);
    }
}

/* A pair of users and their chat, which may not have begun. */
static bool
note_friend(struct replay *r,
            struct store_fsck_entry *e,
            uint64_t pos,
            const struct cq_rec_friend *record)
{
    struct cq_id right = cq_chat_id(&record->user, &record->peer);
    bool has_chat = !cq_id_is_none(&record->chat);
    if (cq_id_eq(&record->user, &record->peer) || !cq_id_eq(&e->chat.id, &right) ||
        (e->begin_pos && !has_chat)) {
        break_chat(r, e, STORE_FSCK_LOG_FRIEND, pos, store_fsck_find_id("chat", &record->chat).s,
                   store_fsck_find_id("chat", &right).s);
        return false;
    }
    int order = cq_id_cmp(&record->user, &record->peer) < 0 ? 0 : 1;
    e->chat.members[order].user = record->user;
    e->chat.members[1 - order].user = record->peer;
    e->friend_pos = pos;
    return has_chat;
}

static void
take(struct replay *r,
     struct store_fsck_entry *e,
     uint64_t pos,
     enum cq_rec_kind kind,
     const union store_record *fields)
{
    const struct store_chat *c = &e->chat;
    size_t devices = c->device_count;
    size_t tail = c->tail_room;
    size_t blocks = e->block_room;
    bool is_pair_only = kind == CQ_REC_FRIEND && !note_friend(r, e, pos, &fields->friendship);
    if (!e->is_broken && !is_pair_only && check_record(r, e, pos, kind, fields)) {
        apply(r, e, pos, kind, fields);
    }
    if (devices == c->device_count && tail >= c->tail_room && blocks == e->block_room) {
        return;
    }
    store_fsck_group_account(r->g, e, 0);
    if (store_fsck_group_is_full(r->g) && !r->g->is_closed) {
        store_fsck_group_halve(r->g);
    }
}

/* ---- the log ---- */

/* The chat (or user: ids of both are random) that a record is about, without decoding all of it.
 * False: it does not decode so far. */
static bool
chat_of(enum cq_rec_kind kind,
        cq_reader_t fields,
        size_t count,
        union store_record *record,
        struct cq_id *chat)
{
    if (kind != CQ_REC_FRIEND && kind != CQ_REC_COMMIT && kind != CQ_REC_PRIVACY) {
        *chat = cq_read_id(&fields);
        return !fields.err;
    }
    if (cq_rec_read(kind, &fields, count, record)) {
        return false;
    }
    if (kind == CQ_REC_FRIEND) {
        const struct cq_rec_friend *f = &record->friendship;
        *chat = cq_id_is_none(&f->chat) ? cq_chat_id(&f->user, &f->peer) : f->chat;
    } else {
        *chat = kind == CQ_REC_PRIVACY ? record->privacy.user : (struct cq_id){{0}};
    }
    return true;
}

static void
check_commit(struct replay *r, uint64_t pos, const struct cq_rec_commit *c)
{
    if (c->last_pos >= pos || c->last_pos <= r->commit_pos) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_COMMIT, pos,
                               store_fsck_find_number("last_pos", c->last_pos).s,
                               store_fsck_find_number("more than", r->commit_pos).s);
    } else if (c->first_pos && (c->first_pos > c->last_pos || c->first_pos <= r->commit_pos)) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_COMMIT, pos,
                               store_fsck_find_number("first_pos", c->first_pos).s,
                               store_fsck_find_number("more than", r->commit_pos).s);
    } else {
        r->commit_pos = c->last_pos;
    }
}

static void
bad_record(struct replay *r, uint64_t pos)
{
    if (!r->g->is_closed) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_RECORD, pos, "does not decode", "a record");
    }
}

static struct store_fsck_entry *
entry_of(struct replay *r, const struct cq_id *chat)
{
    struct store_fsck_entry *e = store_fsck_group_find(r->g, chat);
    if (!e && !r->g->is_closed) {
        e = store_fsck_group_add(r->g, chat); /* a chat without rows yet */
        if (store_fsck_group_is_full(r->g)) {
            store_fsck_group_halve(r->g);
        }
    }
    return e;
}

static void
take_oldest(struct replay *r)
{
    union store_record record;
    struct queued *q = &r->queue[r->out++ % QUEUE_MAX];
    struct store_fsck_entry *e = q->entry;
    if (r->g->is_cut) {
        e = NULL;
    } else if (!e) {
        e = entry_of(r, &q->chat);
    }
    if (!e || e->is_broken) {
        return;
    }
    if (cq_rec_read(q->kind, &q->fields, q->count, &record)) {
        e->is_broken = true;
        bad_record(r, q->pos);
    } else if (q->kind == CQ_REC_PRIVACY) {
        e->privacy_pos = q->pos;
        e->hides_last_seen = record.privacy.hide_last_seen;
    } else {
        take(r, e, q->pos, q->kind, &record);
    }
}

/* The record that so many others come before. */
static struct queued *
behind(struct replay *r, size_t others)
{
    return &r->queue[(r->out + others) % QUEUE_MAX];
}

static void
put_in_queue(struct replay *r, const struct queued *q)
{
    r->queue[r->in++ % QUEUE_MAX] = *q;
    store_fsck_group_fetch_bucket(r->g, &q->chat);
    if (r->in - r->out > QUEUE_ENTRY) {
        struct queued *soon = behind(r, QUEUE_PARTS);
        store_fsck_group_fetch_entry(r->g, &behind(r, QUEUE_ENTRY)->chat);
        soon->entry = store_fsck_group_find(r->g, &soon->chat);
        store_fsck_group_fetch_parts(soon->entry);
    }
    if (r->in - r->out == QUEUE_MAX) {
        take_oldest(r);
    }
}

/* Before views into the snapshot become void. */
static void
empty_queue(struct replay *r)
{
    while (r->out < r->in) {
        take_oldest(r);
    }
}

static void
take_record(struct replay *r, uint64_t pos, struct cq_view bytes)
{
    union store_record record;
    struct queued q = {.pos = pos};
    int rc = cq_rec_open(bytes.p, bytes.n, &q.kind, &q.fields, &q.count);
    if (rc || !chat_of(q.kind, q.fields, q.count, &record, &q.chat)) {
        if (r->is_first) {
            bad_record(r, pos);
        }
    } else if (q.kind == CQ_REC_COMMIT) {
        if (r->is_first) {
            check_commit(r, pos, &record.commit);
        }
    } else if (store_fsck_group_has(r->g, &q.chat)) {
        put_in_queue(r, &q);
    }
}

static bool
on_record(void *ctx, uint64_t pos, struct cq_view bytes)
{
    struct replay *r = ctx;
    if (pos > r->end_pos) {
        return false;
    }
    if (store_fsck_is_due(r->f)) {
        r->is_due = true;
        return false;
    }
    if (pos != r->next_pos && r->is_first) {
        store_fsck_find_record(r->f, STORE_FSCK_LOG_POSITION, pos,
                               store_fsck_find_number("position", pos).s,
                               store_fsck_find_number("position", r->next_pos).s);
    }
    r->next_pos = pos + 1;
    r->f->report->records += r->is_first;
    take_record(r, pos, bytes);
    return !r->f->rc && !r->g->is_cut;
}

/* What is known of each chat when the log is through. */
static int
finish(struct store_fsck *f, struct store_fsck_group *g)
{
    int rc = store_fsck_snapshot(f);
    for (size_t i = 0; !rc && i < g->bucket_count; i++) {
        for (struct store_fsck_entry *e = g->buckets[i]; e && !rc; e = e->chained) {
            store_fsck_compare_rest(f, e);
            rc = f->rc;
            if (!rc && store_fsck_is_due(f)) {
                rc = store_fsck_snapshot(f);
            }
        }
    }
    return rc;
}

int
store_fsck_log_replay(struct store_fsck *f, struct store_fsck_group *g)
{
    struct replay r = {.f = f, .g = g, .next_pos = 1, .is_first = g->first == 0 && !g->is_closed};
    /* Not before the rows were read: they must not be ahead of what is replayed. */
    int rc = store_fsck_fresh(f);
    r.end_pos = f->end_pos = f->last_pos;
    f->group_width = g->last - g->first;
    do {
        r.is_due = false;
        f->replay_pos = r.next_pos;
        if (!rc) {
            rc = store_snapshot_log(f->snapshot, r.next_pos, on_record, &r);
            empty_queue(&r);
        }
        rc = rc ? rc : f->rc;
        if (!rc && r.is_due) {
            rc = store_fsck_fresh(f);
        }
    } while (!rc && r.is_due);
    return rc || g->is_closed || g->is_cut ? rc : finish(f, g);
}
