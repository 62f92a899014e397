/* SPDX-License-Identifier: MPL-2.0
 * Accounts, names, devices, owners and friend rows: each row against those it names, in one
 * snapshot. Where two rows contradict each other, the one that is reported is the one that nothing
 * else supports; so that a damaged row is one finding, not one for each row that names it.
 */
#include <assert.h>
#include <string.h>

#include <sodium.h>

#include "store/account.h"
#include "store/friend.h"
#include "store/fsck_impl.h"
#include "store/record.h"

static struct cq_id
first_id(struct cq_view key)
{
    struct cq_id id;
    memcpy(id.b, key.p + 2, CQ_ID_SIZE);
    return id;
}

/* ---- look-ups ---- */

enum found {
    ABSENT,
    DAMAGED, /* reported where its table is scanned */
    PRESENT
};

static enum found
find_account(struct store_fsck *f, const struct cq_id *user, char name[CQ_NAME_MAX + 1])
{
    struct store_key key = store_key_of(user);
    struct store_account account;
    struct cq_view row;
    if (!store_fsck_row(f, STORE_TABLE_ACCOUNT, &key, &row)) {
        return ABSENT;
    }
    int rc = store_account_read(row, &account);
    memcpy(name, account.name, CQ_NAME_MAX + 1);
    sodium_memzero(account.hash, sizeof account.hash);
    return rc ? DAMAGED : PRESENT;
}

static enum found
find_id(struct store_fsck *f, enum store_table t, const struct store_key *key, struct cq_id *id)
{
    struct cq_view row;
    if (!store_fsck_row(f, t, key, &row)) {
        return ABSENT;
    }
    if (row.n != CQ_ID_SIZE) {
        return DAMAGED;
    }
    memcpy(id->b, row.p, CQ_ID_SIZE);
    return PRESENT;
}

static bool
has_device(struct store_fsck *f, const struct cq_id *user, const struct cq_id *device)
{
    struct store_key key = store_key_pair(user, device);
    struct cq_view row;
    return store_fsck_row(f, STORE_TABLE_DEVICE, &key, &row);
}

static void
value_damaged(struct store_fsck *f, enum store_table t, struct cq_view key)
{
    store_fsck_find_row(f, STORE_FSCK_ROW_VALUE, t, key, "does not decode", "a row of this table");
}

/* ---- NAME and ACCOUNT ---- */

static bool
on_name(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_fsck *f = ctx;
    char name[CQ_NAME_MAX + 1] = {0};
    struct store_key right = {{0}, 0};
    if (key.n > 2 && key.n <= 2 + CQ_NAME_MAX) {
        right = store_key_name((const char *)key.p + 2, key.n - 2);
    }
    if (right.n != key.n || memcmp(right.b, key.p, key.n) != 0) {
        store_fsck_find_row(f, STORE_FSCK_ROW_KEY, STORE_TABLE_NAME, key, "another key",
                            "the partition of the name's hash, and the name");
        return true;
    }
    if (value.n != CQ_ID_SIZE) {
        value_damaged(f, STORE_TABLE_NAME, key);
        return true;
    }
    struct cq_id user;
    memcpy(user.b, value.p, CQ_ID_SIZE);
    enum found found = find_account(f, &user, name);
    bool is_same = strlen(name) == key.n - 2 && memcmp(name, key.p + 2, key.n - 2) == 0;
    if (found == ABSENT || (found == PRESENT && !is_same)) {
        store_fsck_find_row(
            f, STORE_FSCK_REFERENCE, STORE_TABLE_NAME, key, store_fsck_find_id("user", &user).s,
            found == ABSENT ? "a user with an account" : "the user whose account has this name");
    }
    return true;
}

static bool
on_account(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_fsck *f = ctx;
    struct store_account account;
    if (!store_fsck_find_key(f, STORE_TABLE_ACCOUNT, key, 1, 0)) {
        return true;
    }
    f->report->users++;
    if (store_account_read(value, &account)) {
        value_damaged(f, STORE_TABLE_ACCOUNT, key);
        return true;
    }
    sodium_memzero(account.hash, sizeof account.hash);
    struct cq_id user = first_id(key);
    struct cq_id named = {{0}};
    char name[CQ_NAME_MAX + 1] = {0};
    struct store_key name_key = store_key_name(account.name, strlen(account.name));
    enum found found = find_id(f, STORE_TABLE_NAME, &name_key, &named);
    if (found == ABSENT) {
        store_fsck_find_row(f, STORE_FSCK_ROW_MISSING, STORE_TABLE_NAME, store_key_view(&name_key),
                            "missing", store_fsck_find_id("user", &user).s);
    } else if (found == PRESENT && !cq_id_eq(&named, &user) &&
               find_account(f, &named, name) == PRESENT && strcmp(name, account.name) == 0) {
        store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_ACCOUNT, key,
                            store_fsck_find_id("has the name of user", &named).s,
                            "a name of its own");
    }
    return true;
}

/* ---- DEVICE and OWNER ---- */

static bool
on_device(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_fsck *f = ctx;
    struct store_device device;
    if (!store_fsck_find_key(f, STORE_TABLE_DEVICE, key, 2, 0)) {
        return true;
    }
    if (store_device_read(value, &device)) {
        value_damaged(f, STORE_TABLE_DEVICE, key);
        return true;
    }
    struct cq_id user = first_id(key);
    struct cq_id id = store_key_second(key);
    struct cq_id owner = {{0}};
    char name[CQ_NAME_MAX + 1];
    struct store_key owner_key = store_key_of(&id);
    enum found found = find_id(f, STORE_TABLE_OWNER, &owner_key, &owner);
    if (find_account(f, &user, name) == ABSENT) {
        store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_DEVICE, key,
                            "its user has no account", "a user with an account");
    } else if (found == ABSENT) {
        store_fsck_find_row(f, STORE_FSCK_ROW_MISSING, STORE_TABLE_OWNER,
                            store_key_view(&owner_key), "missing",
                            store_fsck_find_id("user", &user).s);
    } else if (found == PRESENT && !cq_id_eq(&owner, &user) && has_device(f, &owner, &id)) {
        store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_DEVICE, key,
                            store_fsck_find_id("owned by user", &owner).s,
                            store_fsck_find_id("user", &user).s);
    }
    return true;
}

static bool
on_owner(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_fsck *f = ctx;
    if (!store_fsck_find_key(f, STORE_TABLE_OWNER, key, 1, 0)) {
        return true;
    }
    if (value.n != CQ_ID_SIZE) {
        value_damaged(f, STORE_TABLE_OWNER, key);
        return true;
    }
    struct cq_id device = first_id(key);
    struct cq_id user;
    memcpy(user.b, value.p, CQ_ID_SIZE);
    if (!has_device(f, &user, &device)) {
        store_fsck_find_row(f, STORE_FSCK_REFERENCE, STORE_TABLE_OWNER, key,
                            store_fsck_find_id("user", &user).s, "the user who has this device");
    }
    return true;
}

/* ---- USER: friend rows ---- */

/* One side of a friendship. */
struct side {
    struct store_key key;
    struct store_friend row;
};

static void
side_wrong(struct store_fsck *f, const struct side *s, const char *is, const char *should)
{
    store_fsck_find_row(f, STORE_FSCK_ROW_WRONG, STORE_TABLE_USER, store_key_view(&s->key), is,
                        should);
}

/* One side against what its last record says of it. */
static void
check_side(struct store_fsck *f,
           const struct side *s,
           const struct cq_rec_friend *r,
           const struct cq_id *user)
{
    bool is_user = cq_id_eq(user, &r->user);
    const struct store_friend *row = &s->row;
    uint64_t relation = is_user ? r->user_relation : r->peer_relation;
    bool blocks = is_user ? r->user_blocks : r->peer_blocks;
    struct cq_view name = is_user ? r->peer_name : r->user_name;
    if ((uint64_t)row->relation != relation) {
        side_wrong(f, s, store_fsck_find_number("relation", (uint64_t)row->relation).s,
                   store_fsck_find_number("relation", relation).s);
    } else if (row->blocks != blocks) {
        side_wrong(f, s, store_fsck_find_number("blocks", row->blocks).s,
                   store_fsck_find_number("blocks", blocks).s);
    } else if (!cq_id_eq(&row->chat, &r->chat)) {
        side_wrong(f, s, store_fsck_find_id("chat", &row->chat).s,
                   store_fsck_find_id("chat", &r->chat).s);
    } else if (strlen(row->peer_name) != name.n || memcmp(row->peer_name, name.p, name.n) != 0) {
        side_wrong(f, s, "another peer_name", "the name in the record");
    } else if (row->key_version != r->key_version) {
        side_wrong(f, s, store_fsck_find_number("key_version", row->key_version).s,
                   store_fsck_find_number("key_version", r->key_version).s);
    }
}

static struct store_vault_key
key_of(const struct store_friend *row)
{
    struct store_vault_key k = {.chat = row->chat, .key_version = row->key_version};
    memcpy(k.wrapped, row->wrapped, sizeof k.wrapped);
    return k;
}

/* A version that is not the record's cannot unwrap; that is said by check_side. */
static bool
key_is_bad(struct store_fsck *f, const struct side *s, const struct cq_rec_friend *r)
{
    struct store_vault_key k = key_of(&s->row);
    if (s->row.key_version != r->key_version || !cq_id_eq(&s->row.chat, &r->chat) ||
        store_vault_unwraps(f->cfg->vault, &k)) {
        return false;
    }
    store_fsck_find_row(f, STORE_FSCK_KEY, STORE_TABLE_USER, store_key_view(&s->key),
                        "the chat key does not unwrap", "a key under this master key");
    return true;
}

static void
check_keys(struct store_fsck *f,
           const struct side *a,
           const struct side *b,
           const struct cq_rec_friend *r)
{
    struct store_vault_key first = key_of(&a->row);
    struct store_vault_key second = key_of(&b->row);
    bool is_bad = key_is_bad(f, a, r);
    if (memcmp(first.wrapped, second.wrapped, sizeof first.wrapped) == 0) {
        return; /* the same: one look is enough */
    }
    is_bad = key_is_bad(f, b, r) || is_bad;
    if (!is_bad && a->row.key_version == b->row.key_version &&
        !store_vault_is_same_key(f->cfg->vault, &first, &second)) {
        store_fsck_find_row(f, STORE_FSCK_FRIEND_SIDES, STORE_TABLE_USER, store_key_view(&b->key),
                            "another chat key than the peer's", "the same key");
    }
}

/* The record that changed a pair last, as its rows name it. */
static bool
read_friend_record(struct store_fsck *f,
                   uint64_t pos,
                   const struct side *a,
                   union store_record *record)
{
    struct cq_view bytes;
    enum cq_rec_kind kind = 0;
    struct cq_id user;
    memcpy(user.b, a->key.b + 2, CQ_ID_SIZE);
    struct cq_id peer = store_key_second(store_key_view(&a->key));
    int rc = store_snapshot_record(f->snapshot, pos, &bytes);
    if (rc && rc != -CQ_E_NOT_FOUND) {
        f->rc = rc;
    }
    bool is_friend = !rc && store_record_read(bytes, &kind, record) == 0 && kind == CQ_REC_FRIEND;
    const struct cq_rec_friend *r = &record->friendship;
    return is_friend && ((cq_id_eq(&r->user, &user) && cq_id_eq(&r->peer, &peer)) ||
                         (cq_id_eq(&r->user, &peer) && cq_id_eq(&r->peer, &user)));
}

static void
check_pair(struct store_fsck *f, const struct side *a, const struct side *b)
{
    union store_record record;
    struct cq_id user;
    struct cq_id peer = store_key_second(store_key_view(&a->key));
    memcpy(user.b, a->key.b + 2, CQ_ID_SIZE);
    if (a->row.last_pos != b->row.last_pos) {
        store_fsck_find_row(f, STORE_FSCK_FRIEND_SIDES, STORE_TABLE_USER, store_key_view(&a->key),
                            store_fsck_find_number("last_pos", a->row.last_pos).s,
                            store_fsck_find_number("peer's last_pos", b->row.last_pos).s);
        return;
    }
    if (!read_friend_record(f, a->row.last_pos, a, &record)) {
        side_wrong(f, a, store_fsck_find_number("last_pos", a->row.last_pos).s,
                   "a record of this pair");
        return;
    }
    check_side(f, a, &record.friendship, &user);
    check_side(f, b, &record.friendship, &peer);
    if (f->cfg->vault && !cq_id_is_none(&record.friendship.chat)) {
        check_keys(f, a, b, &record.friendship);
    }
}

/* ---- USER ---- */

enum {
    SUM_COUNT = 256
};

/* Each pair has two rows that lie far apart, and to look for the other side of every row would be
 * a good part of the whole check. So a pair's hash is added where its lower user's row is, if the
 * other one is there too, and subtracted at that one. Only pairs of a sum that is not 0 then are
 * looked at again: a row whose other side is missing, or friends made meanwhile. */
struct friends {
    struct store_fsck *f;
    struct cq_id user; /* whose account was looked for last */
    uint8_t hash_key[crypto_shorthash_KEYBYTES];
    uint64_t sums[SUM_COUNT];
};

static uint64_t
hash_of_pair(const struct friends *w, const struct cq_id *lower, const struct cq_id *upper)
{
    const struct cq_id pair[2] = {*lower, *upper};
    uint64_t hash;
    static_assert(sizeof hash == crypto_shorthash_BYTES, "one number");
    (void)crypto_shorthash((uint8_t *)&hash, (const uint8_t *)pair, sizeof pair, w->hash_key);
    return hash;
}

static void
check_has_account(struct friends *w, struct cq_view key, const struct cq_id *user)
{
    char name[CQ_NAME_MAX + 1];
    if (cq_id_eq(user, &w->user)) {
        return;
    }
    w->user = *user;
    if (find_account(w->f, user, name) == ABSENT) {
        store_fsck_find_row(w->f, STORE_FSCK_REFERENCE, STORE_TABLE_USER, key,
                            "the user has no account", "a user with an account");
    }
}

static void
mirror_missing(struct store_fsck *f, const struct store_key *mirror)
{
    store_fsck_find_row(f, STORE_FSCK_ROW_MISSING, STORE_TABLE_USER, store_key_view(mirror),
                        "missing", "the other side of a friendship");
}

/* The row of the lower user id stands for both. */
static bool
on_user(void *ctx, struct cq_view key, struct cq_view value)
{
    struct friends *w = ctx;
    struct side a = {.key = {{0}, 0}};
    struct side b;
    struct cq_view mirror;
    if (!store_fsck_find_key(w->f, STORE_TABLE_USER, key, 2, 0)) {
        return true;
    }
    store_key_add(&a.key, key.p, key.n);
    struct cq_id user = first_id(key);
    struct cq_id peer = store_key_second(key);
    b.key = store_key_pair(&peer, &user);
    bool is_readable = !store_friend_read(value, &a.row);
    if (!is_readable) {
        value_damaged(w->f, STORE_TABLE_USER, key);
    }
    check_has_account(w, key, &user);
    if (cq_id_cmp(&user, &peer) >= 0) {
        uint64_t hash = hash_of_pair(w, &peer, &user);
        w->sums[hash % SUM_COUNT] -= hash;
    } else if (!store_fsck_row(w->f, STORE_TABLE_USER, &b.key, &mirror)) {
        mirror_missing(w->f, &b.key);
    } else {
        uint64_t hash = hash_of_pair(w, &user, &peer);
        w->sums[hash % SUM_COUNT] += hash;
        if (is_readable && store_friend_read(mirror, &b.row) == 0) {
            check_pair(w->f, &a, &b);
        }
    }
    return true;
}

static bool
on_user_again(void *ctx, struct cq_view key, struct cq_view value)
{
    struct friends *w = ctx;
    struct cq_view mirror;
    (void)value;
    if (key.n != 2 + (size_t)2 * CQ_ID_SIZE) {
        return true; /* reported */
    }
    struct cq_id user = first_id(key);
    struct cq_id peer = store_key_second(key);
    struct store_key other = store_key_pair(&peer, &user);
    if (cq_id_cmp(&user, &peer) >= 0 && w->sums[hash_of_pair(w, &peer, &user) % SUM_COUNT] &&
        !store_fsck_row(w->f, STORE_TABLE_USER, &other, &mirror)) {
        mirror_missing(w->f, &other);
    }
    return true;
}

static int
check_friends(struct store_fsck *f)
{
    struct friends w = {.f = f};
    uint64_t differs = 0;
    crypto_shorthash_keygen(w.hash_key);
    int rc = store_fsck_walk(f, STORE_TABLE_USER, (struct cq_view){0}, on_user, &w);
    for (size_t i = 0; i < SUM_COUNT; i++) {
        differs |= w.sums[i];
    }
    if (!rc && differs) {
        uint64_t rows = f->report->rows;
        rc = store_fsck_walk(f, STORE_TABLE_USER, (struct cq_view){0}, on_user_again, &w);
        f->report->rows = rows;
    }
    return rc;
}

/* ---- the order ---- */

int
store_fsck_people_check(struct store_fsck *f)
{
    static const struct {
        enum store_table table;
        store_fsck_row_fn *fn;
    } tables[] = {
        {STORE_TABLE_NAME, on_name},
        {STORE_TABLE_ACCOUNT, on_account},
        {STORE_TABLE_DEVICE, on_device},
        {STORE_TABLE_OWNER, on_owner},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof tables / sizeof tables[0]; i++) {
        rc = store_fsck_walk(f, tables[i].table, (struct cq_view){0}, tables[i].fn, f);
    }
    return rc ? rc : check_friends(f);
}
