/* SPDX-License-Identifier: MPL-2.0
 * A chat's rows against what the log says, at the position that the CHAT row names. At most one
 * finding a row: the first field that differs.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "store/account.h"
#include "store/friend.h"
#include "store/fsck_impl.h"
#include "store/record.h"

enum {
    AUDIT_FIELDS_MAX = 4,
    ROW_HEADER_BYTES = 1 + 2 + CQ_ID_SIZE,
};

/* ---- the rows that were read ---- */

struct found_row {
    enum store_table table;
    struct cq_id user;
    struct cq_view value;
};

static bool
next_row(const struct store_fsck_rows *rows, size_t *offset, struct found_row *row)
{
    if (!rows || *offset == rows->size) {
        return false;
    }
    const uint8_t *p = rows->bytes + *offset;
    size_t n = (size_t)p[1] << 8 | p[2];
    row->table = (enum store_table)p[0];
    memcpy(row->user.b, p + 3, CQ_ID_SIZE);
    row->value = (struct cq_view){p + ROW_HEADER_BYTES, n};
    *offset += ROW_HEADER_BYTES + n;
    return true;
}

static bool
find_row(const struct store_fsck_entry *e,
         enum store_table t,
         const struct cq_id *user,
         struct cq_view *value)
{
    struct found_row row;
    size_t offset = 0;
    while (next_row(e->rows, &offset, &row)) {
        if (row.table == t && (!user || cq_id_eq(&row.user, user))) {
            *value = row.value;
            return true;
        }
    }
    return false;
}

static void
forget_rows(struct store_fsck_entry *e)
{
    free(e->rows);
    e->rows = NULL;
}

/* ---- CHAT ---- */

static void
chat_wrong(struct store_fsck *f,
           const struct store_fsck_entry *e,
           const char *is,
           const char *should)
{
    struct store_key key = store_key_of(&e->chat.id);
    store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_CHAT, store_key_view(&key), is,
                        should);
}

struct field {
    const char *name;
    size_t offset;
};

#define FIELD(type, name)                  \
    {                                      \
#        name, offsetof(struct type, name) \
    }
static const struct field chat_fields[] = {
    FIELD(store_chat, changed_pos),
    FIELD(store_chat, head),
    FIELD(store_chat, key_version),
};
static const struct field member_fields[] = {
    FIELD(store_chat_member, sent),
    FIELD(store_chat_member, read),
    FIELD(store_chat_member, read_time_unix_ms),
    FIELD(store_chat_member, others_read),
    FIELD(store_chat_member, first_unread),
    FIELD(store_chat_member, unread_count),
    FIELD(store_chat_member, unread_time_unix_ms),
    FIELD(store_chat_member, read_audit_pos),
};
static const struct field device_fields[] = {
    FIELD(store_chat_device, delivered),
    FIELD(store_chat_device, delivered_time_unix_ms),
    FIELD(store_chat_device, last_dseq),
};
#undef FIELD

enum {
    CHAT_FIELD_COUNT = sizeof chat_fields / sizeof chat_fields[0],
    MEMBER_FIELD_COUNT = sizeof member_fields / sizeof member_fields[0],
    DEVICE_FIELD_COUNT = sizeof device_fields / sizeof device_fields[0],
};

/* A difference, in words. */
struct difference {
    struct store_fsck_text is, should;
};

static bool
differ(const struct field *fields,
       size_t count,
       const void *is,
       const void *should,
       struct difference *d)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t a;
        uint64_t b;
        memcpy(&a, (const char *)is + fields[i].offset, sizeof a);
        memcpy(&b, (const char *)should + fields[i].offset, sizeof b);
        if (a != b) {
            d->is = store_fsck_find_number(fields[i].name, a);
            d->should = store_fsck_find_number(fields[i].name, b);
            return true;
        }
    }
    return false;
}

static bool
members_differ(const struct store_chat *is, const struct store_chat *should, struct difference *d)
{
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        const struct store_chat_member *a = &is->members[i];
        const struct store_chat_member *b = &should->members[i];
        if (!cq_id_eq(&a->user, &b->user)) {
            d->is = store_fsck_find_id("member", &a->user);
            d->should = store_fsck_find_id("member", &b->user);
            return true;
        }
        if (differ(member_fields, MEMBER_FIELD_COUNT, a, b, d)) {
            return true;
        }
        if (a->read_audit != b->read_audit) {
            d->is = store_fsck_find_number("read_audit", a->read_audit);
            d->should = store_fsck_find_number("read_audit", b->read_audit);
            return true;
        }
    }
    return false;
}

static bool
answers_differ(const struct store_chat_device *a,
               const struct store_chat_device *b,
               struct difference *d)
{
    if (a->member != b->member) {
        d->is = store_fsck_find_number("a device's member", a->member);
        d->should = store_fsck_find_number("member", b->member);
        return true;
    }
    if (a->answer_count != b->answer_count) {
        d->is = store_fsck_find_number("answers of a device", a->answer_count);
        d->should = store_fsck_find_number("answers", b->answer_count);
        return true;
    }
    for (size_t i = 0; i < a->answer_count; i++) {
        const struct store_chat_answer *x = store_chat_answer(a, i);
        const struct store_chat_answer *y = store_chat_answer(b, i);
        if (x->dseq != y->dseq || x->seq != y->seq) {
            d->is = store_fsck_find_number("answer with seq", x->seq);
            d->should = store_fsck_find_number("seq", y->seq);
            return true;
        }
    }
    return false;
}

static bool
devices_differ(const struct store_chat *is, const struct store_chat *should, struct difference *d)
{
    if (is->device_count != should->device_count) {
        d->is = store_fsck_find_number("devices", is->device_count);
        d->should = store_fsck_find_number("devices", should->device_count);
        return true;
    }
    for (size_t i = 0; i < is->device_count; i++) {
        const struct store_chat_device *a = &is->devices[i];
        const struct store_chat_device *b = &should->devices[i];
        if (!cq_id_eq(&a->device, &b->device)) {
            d->is = store_fsck_find_id("device", &a->device);
            d->should = store_fsck_find_id("device", &b->device);
            return true;
        }
        if (differ(device_fields, DEVICE_FIELD_COUNT, a, b, d) || answers_differ(a, b, d)) {
            return true;
        }
    }
    return false;
}

/* The index of the block that is filling up. */
static bool
tails_differ(const struct store_chat *is, const struct store_chat *should, struct difference *d)
{
    for (size_t i = 0; i < is->tail_count && i < should->tail_count; i++) {
        const struct store_chat_index *a = &is->tail[i];
        const struct store_chat_index *b = &should->tail[i];
        if (a->pos != b->pos || a->rank != b->rank) {
            bool is_pos = a->pos != b->pos;
            const char *what = is_pos ? "index position" : "index rank";
            d->is = store_fsck_find_number(what, is_pos ? a->pos : a->rank);
            d->should = store_fsck_find_number(what, is_pos ? b->pos : b->rank);
            return true;
        }
    }
    d->is = store_fsck_find_number("index entries", is->tail_count);
    d->should = store_fsck_find_number("index entries", should->tail_count);
    return is->tail_count != should->tail_count;
}

static void
compare_chat(struct store_fsck *f, struct store_fsck_entry *e, const struct store_chat *row)
{
    struct difference d;
    const struct store_chat *c = &e->chat;
    if (row->open != c->open) {
        d.is = store_fsck_find_number("open", row->open);
        d.should = store_fsck_find_number("open", c->open);
    } else if (!differ(chat_fields, CHAT_FIELD_COUNT, row, c, &d) && !members_differ(row, c, &d) &&
               !devices_differ(row, c, &d) && !tails_differ(row, c, &d)) {
        return;
    }
    chat_wrong(f, e, d.is.s, d.should.s);
}

/* A device that acts in a chat belongs to the member it acts for. One of two rows says so: if only
 * one is damaged, that is found where these tables are checked. */
static void
check_devices(struct store_fsck *f, const struct store_fsck_entry *e)
{
    for (size_t i = 0; i < e->chat.device_count; i++) {
        const struct store_chat_device *d = &e->chat.devices[i];
        const struct cq_id *user = &e->chat.members[d->member].user;
        struct store_key owner = store_key_of(&d->device);
        struct store_key device = store_key_pair(user, &d->device);
        struct cq_view value;
        bool is_owner = store_fsck_row(f, STORE_TABLE_OWNER, &owner, &value) &&
                        value.n == CQ_ID_SIZE && memcmp(value.p, user->b, CQ_ID_SIZE) == 0;
        if (!is_owner && !store_fsck_row(f, STORE_TABLE_DEVICE, &device, &value)) {
            struct store_key key = store_key_of(&e->chat.id);
            store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_CHAT, store_key_view(&key),
                                store_fsck_find_id("device", &d->device).s,
                                store_fsck_find_id("a device of user", user).s);
            return;
        }
    }
}

/* ---- UNREAD and READ ---- */

static bool
read_audit_row(struct cq_view value, size_t count, uint64_t fields[AUDIT_FIELDS_MAX])
{
    cq_reader_t r = cq_reader_of(value);
    (void)cq_read_array(&r, count, count);
    for (size_t i = 0; i < count; i++) {
        fields[i] = cq_read_uint(&r, UINT64_MAX);
    }
    return !r.err && cq_reader_at_end(&r);
}

/* An audit row that exists against the one there should be. */
static void
compare_audit(struct store_fsck *f,
              enum store_table t,
              const struct store_key *key,
              struct cq_view value,
              const uint64_t should[AUDIT_FIELDS_MAX])
{
    static const char *const names[2][AUDIT_FIELDS_MAX] = {
        {"last_pos", "first_unread", "count", "last_time"},
        {"last_pos", "read_up_to", "time", NULL},
    };
    bool is_unread = t == STORE_TABLE_UNREAD;
    size_t count = is_unread ? 4 : 3;
    uint64_t is[AUDIT_FIELDS_MAX];
    if (!read_audit_row(value, count, is)) {
        store_fsck_find_row(f, STORE_FSCK_ROW_VALUE, t, store_key_view(key), "does not decode",
                            "a row of this table");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (is[i] != should[i]) {
            const char *name = names[!is_unread][i];
            store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, t, store_key_view(key),
                                store_fsck_find_number(name, is[i]).s,
                                store_fsck_find_number(name, should[i]).s);
            return;
        }
    }
}

struct audit {
    enum store_table table;
    int member;
    bool should_exist;
    uint64_t should[AUDIT_FIELDS_MAX];
};

static void
check_audit(struct store_fsck *f, const struct store_fsck_entry *e, const struct audit *a)
{
    struct cq_view value;
    struct store_key key = store_key_pair(&e->chat.id, &e->chat.members[a->member].user);
    bool exists = find_row(e, a->table, &e->chat.members[a->member].user, &value);
    if (exists && a->should_exist) {
        compare_audit(f, a->table, &key, value, a->should);
    } else if (exists || a->should_exist) {
        store_fsck_find_row(f, exists ? STORE_FSCK_ROW_EXTRA : STORE_FSCK_ROW_MISSING, a->table,
                            store_key_view(&key), exists ? "a row" : "no row",
                            exists ? "no row" : "a row");
    }
}

static void
check_audits(struct store_fsck *f, const struct store_fsck_entry *e)
{
    const struct store_chat *c = &e->chat;
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        const struct store_chat_member *m = &c->members[i];
        const struct store_chat_member *peer = &c->members[1 - i];
        struct audit unread = {
            STORE_TABLE_UNREAD,
            i,
            m->unread_count > 0,
            {c->last_pos, m->first_unread, m->unread_count, m->unread_time_unix_ms}};
        struct audit read = {STORE_TABLE_READ,
                             i,
                             m->read_audit,
                             {m->read_audit_pos, peer->read, peer->read_time_unix_ms}};
        check_audit(f, e, &unread);
        check_audit(f, e, &read);
    }
}

/* Audit rows of a chat: all of them, or those of users who are not its members. */
static void
find_strays(struct store_fsck *f, const struct store_fsck_entry *e, bool are_all)
{
    struct found_row row;
    size_t offset = 0;
    while (next_row(e->rows, &offset, &row)) {
        if (row.table != STORE_TABLE_CHAT &&
            (are_all || store_chat_member(&e->chat, &row.user) < 0)) {
            struct store_key key = store_key_pair(&e->chat.id, &row.user);
            store_fsck_find_row(f, STORE_FSCK_ROW_EXTRA, row.table, store_key_view(&key), "a row",
                                are_all ? "no row: the chat has none" : "no row: not a member");
        }
    }
}

/* ---- the moments of comparing ---- */

static void
compare_at(struct store_fsck *f, struct store_fsck_entry *e)
{
    struct store_chat row;
    struct cq_view value = {0};
    (void)find_row(e, STORE_TABLE_CHAT, NULL, &value);
    store_chat_init(&row, &e->chat.id);
    if (store_chat_read(value, &row) == 0) { /* it did when it was read */
        compare_chat(f, e, &row);
        check_audits(f, e);
    }
    store_chat_fini(&row);
    find_strays(f, e, false);
    check_devices(f, e);
    forget_rows(e);
}

void
store_fsck_compare_rows(struct store_fsck *f, struct store_fsck_entry *e)
{
    uint64_t pos = e->chat.last_pos;
    if (!e->has_row || pos < e->row_pos) {
        return;
    }
    if (!e->is_compared && pos == e->row_pos) {
        compare_at(f, e);
    } else if (!e->is_compared) {
        chat_wrong(f, e, store_fsck_find_number("last_pos", e->row_pos).s,
                   "a position of this chat");
        forget_rows(e);
    } else if (pos <= e->marker && !e->is_behind) {
        struct store_key key = store_key_of(&e->chat.id);
        e->is_behind = true;
        store_fsck_find_row(f, STORE_FSCK_ROW_BEHIND, STORE_TABLE_CHAT, store_key_view(&key),
                            store_fsck_find_number("last_pos", e->row_pos).s,
                            store_fsck_find_number("at least", pos).s);
    }
    e->is_compared = true;
}

/* The pair's last record against its friend rows. Where only one side is at fault, the rows
 * contradict each other, which is found where they are checked. */
static void
check_friend_rows(struct store_fsck *f, const struct store_fsck_entry *e)
{
    struct store_friend side;
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        struct cq_view value;
        struct store_key key =
            store_key_pair(&e->chat.members[i].user, &e->chat.members[1 - i].user);
        bool exists = store_fsck_row(f, STORE_TABLE_USER, &key, &value);
        if (exists && (store_friend_read(value, &side) || side.last_pos >= e->friend_pos)) {
            return;
        }
        if (i == STORE_CHAT_MEMBERS - 1) {
            store_fsck_find_row(f, exists ? STORE_FSCK_ROW_BEHIND : STORE_FSCK_ROW_MISSING,
                                STORE_TABLE_USER, store_key_view(&key),
                                exists ? store_fsck_find_number("last_pos", side.last_pos).s
                                       : "missing",
                                store_fsck_find_number("last_pos", e->friend_pos).s);
        }
    }
}

/* The settings that a user has now: as the replay has them, or from a record behind it. */
struct settings {
    struct cq_id user;
    bool hides_last_seen;
};

static bool
on_newer_record(void *ctx, uint64_t pos, struct cq_view bytes)
{
    struct settings *s = ctx;
    union store_record record;
    enum cq_rec_kind kind;
    (void)pos;
    if (store_record_read(bytes, &kind, &record) == 0 && kind == CQ_REC_PRIVACY &&
        cq_id_eq(&record.privacy.user, &s->user)) {
        s->hides_last_seen = record.privacy.hide_last_seen;
    }
    return true;
}

static void
check_privacy(struct store_fsck *f, const struct store_fsck_entry *e)
{
    struct store_key key = store_key_of(&e->chat.id);
    struct store_account account;
    struct cq_view row;
    struct settings s = {e->chat.id, e->hides_last_seen};
    if (!store_fsck_row(f, STORE_TABLE_ACCOUNT, &key, &row)) {
        store_fsck_find_record(f, STORE_FSCK_LOG_MEMBER, e->privacy_pos,
                               store_fsck_find_id("user", &e->chat.id).s, "a user with an account");
        return;
    }
    if (store_account_read(row, &account)) {
        return; /* found where accounts are checked */
    }
    sodium_memzero(account.hash, sizeof account.hash);
    if (account.hide_last_seen != s.hides_last_seen) {
        f->rc = store_snapshot_log(f->snapshot, f->end_pos + 1, on_newer_record, &s);
    }
    if (account.hide_last_seen != s.hides_last_seen) {
        store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_ACCOUNT, store_key_view(&key),
                            store_fsck_find_number("hide_last_seen", account.hide_last_seen).s,
                            store_fsck_find_number("hide_last_seen", s.hides_last_seen).s);
    }
}

/* The log has nothing about this chat, the tables have. */
static void
check_stray(struct store_fsck *f, struct store_fsck_entry *e)
{
    if (e->has_row) {
        struct store_key key = store_key_of(&e->chat.id);
        store_fsck_find_row(f, STORE_FSCK_ROW_EXTRA, STORE_TABLE_CHAT, store_key_view(&key),
                            "a row", "no row: the log has no such chat");
    }
    find_strays(f, e, true);
    e->is_detail_due = e->is_detail_due || e->index_count || e->receipt_pos;
}

void
store_fsck_compare_rest(struct store_fsck *f, struct store_fsck_entry *e)
{
    f->report->chats += e->begin_pos != 0;
    f->report->messages += e->chat.head;
    if (e->is_broken) {
        return;
    }
    if (e->friend_pos) {
        check_friend_rows(f, e);
    }
    if (e->privacy_pos) {
        check_privacy(f, e);
    }
    if (!e->begin_pos) {
        check_stray(f, e);
    } else if (!e->has_row && !e->is_row_bad && e->begin_pos <= e->marker) {
        struct store_key key = store_key_of(&e->chat.id);
        store_fsck_find_row(f, STORE_FSCK_ROW_MISSING, STORE_TABLE_CHAT, store_key_view(&key),
                            "no row", "a row");
    } else if (!e->has_row && !e->is_row_bad) {
        find_strays(f, e, true); /* audit rows come with the CHAT row */
    } else if (e->has_row && !e->is_compared) {
        chat_wrong(f, e, store_fsck_find_number("last_pos", e->row_pos).s,
                   store_fsck_find_number("at most", e->chat.last_pos).s);
    }
    if (e->is_detail_due || e->index_count > e->chat.head / STORE_CHAT_BLOCK ||
        e->receipt_digest != e->receipts_due_digest) {
        store_fsck_detail_note(f, e);
    }
}
