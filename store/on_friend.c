/* SPDX-License-Identifier: MPL-2.0
 * Friends: ADD … UNBLOCK, FRIENDS, WATCHLIST. The rules are in friend.c; here they meet the tables.
 *
 * The FRIEND record is the durable intent of a step that touches both users' partitions and the
 * chat's: rows and chat are written with it in one commit here, and an engine that cannot do that
 * repeats them from the record (each row says by which position it was last changed).
 */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"
#include "common/wire/name.h"
#include "common/wire/pack.h"

#include "store/core.h"

struct store_key
store_key_name(const char *name, size_t n)
{
    struct cq_id hash;
    crypto_generichash(hash.b, sizeof hash.b, (const unsigned char *)name, n, NULL, 0);
    struct store_key key = store_key_of(&hash);
    key.n = 2;
    store_key_add(&key, name, n);
    return key;
}

int
store_name_find(struct store_core *core, struct cq_view name, struct cq_id *user)
{
    if (!cq_name_ok((const char *)name.p, name.n)) {
        return -CQ_E_BAD_NAME;
    }
    struct store_key key = store_key_name((const char *)name.p, name.n);
    struct cq_view row;
    int rc = store_core_row(core, STORE_TABLE_NAME, &key, &row);
    if (!rc && row.n != CQ_ID_SIZE) {
        rc = -CQ_E_CORRUPT;
    }
    if (!rc) {
        memcpy(user->b, row.p, CQ_ID_SIZE);
    }
    return rc;
}

/* An absent row is a stranger's. */
int
store_friend_row(struct store_core *core,
                 const struct cq_id *user,
                 const struct cq_id *peer,
                 struct store_friend *out)
{
    struct store_key key = store_key_pair(user, peer);
    struct cq_view row;
    *out = (struct store_friend){0};
    int rc = store_core_row(core, STORE_TABLE_USER, &key, &row);
    if (rc == -CQ_E_NOT_FOUND) {
        return 0;
    }
    return rc ? rc : store_friend_read(row, out);
}

struct each {
    store_friend_fn *fn;
    void *ctx;
    int rc;
};

static bool
on_friend_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct each *e = ctx;
    struct store_friend row;
    struct cq_id peer = store_key_second(key);
    e->rc = store_friend_read(value, &row);
    return e->rc == 0 && e->fn(e->ctx, &peer, &row);
}

int
store_friend_each(struct store_core *core, const struct cq_id *user, store_friend_fn *fn, void *ctx)
{
    struct each e = {fn, ctx, 0};
    struct store_key prefix = store_key_of(user);
    int rc = store_core_scan(core, STORE_TABLE_USER, &prefix, on_friend_row, &e);
    return rc ? rc : e.rc;
}

static bool
chat_is_open(struct store_core *core, const struct cq_id *id)
{
    bool open = false;
    return !cq_id_is_none(id) && store_projection_is_open(core->projection, id, &open) == 0 && open;
}

/* ---- one operation ---- */

struct friend_op {
    struct store_core *core;
    struct store_call call;
    struct cq_bus_from from;
    struct cq_id peer;
    char name[CQ_NAME_MAX + 1]; /* of user */
    char peer_name[CQ_NAME_MAX + 1];
    bool has_key; /* a new chat's key was made */
    uint8_t wrapped[STORE_WRAPPED_SIZE];
};

static void
put_row(struct store_core *core,
        const struct cq_id *user,
        const struct cq_id *peer,
        const struct store_friend *row)
{
    struct store_key key = store_key_pair(user, peer);
    cq_buf_t b = {0};
    store_friend_write(&b, row);
    store_core_put(core, STORE_TABLE_USER, &key, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

static void
answer(struct store_core *core, const struct friend_op *op, const struct store_friend *row)
{
    struct cq_friend f = {
        .user = op->peer,
        .name = {(const uint8_t *)op->peer_name, strlen(op->peer_name)},
        .relation = row->relation,
        .blocked = row->blocks,
        .chat = row->chat,
        .open = chat_is_open(core, &row->chat),
    };
    store_core_reply(core, &op->from, &cq_friend_schema, &f);
}

/* The record, both rows and the chat. */
static int
store_step(struct store_core *core,
           const struct friend_op *op,
           const struct store_friend_step *step,
           struct store_friend *user,
           struct store_friend *peer)
{
    struct cq_id chat_id = cq_chat_id(&op->call.user, &op->peer);
    bool has_chat = !cq_id_is_none(&user->chat) || step->accepted;
    if (has_chat && cq_id_is_none(&user->chat)) {
        user->chat = peer->chat = chat_id;
        user->key_version = peer->key_version = 1;
        memcpy(user->wrapped, op->wrapped, STORE_WRAPPED_SIZE);
        memcpy(peer->wrapped, op->wrapped, STORE_WRAPPED_SIZE);
    }
    struct cq_rec_friend record = {
        .user = op->call.user,
        .peer = op->peer,
        .action = op->call.op,
        .user_relation = step->user_relation,
        .user_blocks = step->user_blocks,
        .peer_relation = step->peer_relation,
        .peer_blocks = step->peer_blocks,
        .chat = user->chat,
        .key_version = user->key_version,
        .wrapped = {user->wrapped, has_chat ? STORE_WRAPPED_SIZE : 0},
        .user_name = {(const uint8_t *)op->name, strlen(op->name)},
        .peer_name = {(const uint8_t *)op->peer_name, strlen(op->peer_name)},
        .time_unix_ms = cq_now_unix_ms(),
        .device = op->call.device,
    };
    struct store_chat *chat = NULL;
    int rc = has_chat ? store_projection_begin(core->projection, &chat_id, &chat) : 0;
    uint64_t pos = 0;
    if (!rc) {
        rc = store_core_append(core, chat, CQ_REC_FRIEND, &record, &pos);
    }
    if (rc) {
        return rc;
    }
    user->relation = step->user_relation;
    user->blocks = step->user_blocks;
    peer->relation = step->peer_relation;
    peer->blocks = step->peer_blocks;
    user->last_pos = peer->last_pos = pos;
    memcpy(user->peer_name, op->peer_name, sizeof user->peer_name);
    memcpy(peer->peer_name, op->name, sizeof peer->peer_name);
    put_row(core, &op->call.user, &op->peer, user);
    put_row(core, &op->peer, &op->call.user, peer);
    return 0;
}

static int carry_out(struct store_core *core, const struct friend_op *op);

static void
on_key_made(void *ctx, struct store_vault_job *job)
{
    struct friend_op *op = ctx;
    struct store_core *core = op->core;
    op->has_key = true;
    memcpy(op->wrapped, job->wrapped, sizeof op->wrapped);
    int rc = job->rc ? job->rc : carry_out(core, op);
    if (rc) {
        store_core_reply_err(core, &op->from, rc, 0);
    }
    free(op);
    store_vault_job_destroy(&job);
}

/* The first accept of two users: the vault makes and wraps the chat's key, then the operation is
 * tried again. */
static int
ask_for_key(struct store_core *core, const struct friend_op *op)
{
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_NEW_KEY);
    struct friend_op *kept = cq_alloc(sizeof *kept);
    *kept = *op;
    kept->call.from = NULL;
    job->chat = cq_chat_id(&op->call.user, &op->peer);
    job->key_version = 1;
    job->done = on_key_made;
    job->ctx = kept;
    int rc = store_vault_submit(core->vault, &job);
    if (rc) {
        store_vault_job_destroy(&job);
        free(kept);
    }
    return rc;
}

static int
carry_out(struct store_core *core, const struct friend_op *op)
{
    struct store_friend user;
    struct store_friend peer;
    struct store_friend_step step;
    int rc = store_friend_row(core, &op->call.user, &op->peer, &user);
    if (!rc) {
        rc = store_friend_row(core, &op->peer, &op->call.user, &peer);
    }
    if (!rc) {
        rc = store_friend_step(op->call.op, &user, &peer, &step);
    }
    if (!rc && step.changed) {
        rc = store_core_writable(core);
    }
    if (rc) {
        return rc;
    }
    if (step.changed && step.accepted && cq_id_is_none(&user.chat) && !op->has_key) {
        return ask_for_key(core, op);
    }
    if (step.changed) {
        rc = store_step(core, op, &step, &user, &peer);
    }
    if (!rc) {
        answer(core, op, &user);
    }
    return rc;
}

static int
user_name(struct store_core *core, const struct cq_id *user, char name[CQ_NAME_MAX + 1])
{
    struct store_key key = store_key_of(user);
    struct cq_view row;
    struct store_account account;
    int rc = store_core_row(core, STORE_TABLE_ACCOUNT, &key, &row);
    if (!rc) {
        rc = store_account_read(row, &account);
    }
    if (!rc) {
        memcpy(name, account.name, CQ_NAME_MAX + 1);
        sodium_memzero(&account, sizeof account);
    }
    return rc;
}

int
store_on_friend_op(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_friend_name *f = in;
    struct friend_op op = {.core = core, .call = *call, .from = *call->from};
    int rc = store_name_find(core, f->name, &op.peer);
    if (!rc && cq_id_eq(&op.peer, &call->user)) {
        rc = -CQ_E_BAD_ARG;
    }
    if (!rc) {
        memcpy(op.peer_name, f->name.p, f->name.n);
        rc = user_name(core, &call->user, op.name);
    }
    return rc ? rc : carry_out(core, &op);
}

/* ---- lists ---- */

struct listing {
    struct store_core *core;
    cq_buf_t rows;
    size_t count;
    cq_buf_t hidden; /* of them: who hides last-seen */
    size_t hidden_count;
    int rc;
};

static bool
list_friend(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct listing *l = ctx;
    if (row->relation == CQ_RELATION_NONE && !row->blocks) {
        return true;
    }
    struct cq_friend f = {
        .user = *peer,
        .name = {(const uint8_t *)row->peer_name, strlen(row->peer_name)},
        .relation = row->relation,
        .blocked = row->blocks,
        .chat = row->chat,
        .open = chat_is_open(l->core, &row->chat),
    };
    cq_schema_write_array(&cq_friend_schema, &l->rows, &f);
    return ++l->count < CQ_LIST_MAX;
}

int
store_on_friends(struct store_core *core, struct store_call *call, const void *in)
{
    struct listing l = {.core = core};
    (void)in;
    int rc = store_friend_each(core, &call->user, list_friend, &l);
    if (!rc) {
        struct cq_friends friends = {cq_list_of(&l.rows, l.count)};
        store_core_reply(core, call->from, &cq_friends_schema, &friends);
    }
    cq_buf_free(&l.rows);
    return rc;
}

/* Whom may the user see online? Those with whom a chat is open: friends, neither blocking the
 * other. */
static bool
list_watched(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct listing *l = ctx;
    bool hides = false;
    if (row->relation != CQ_RELATION_FRIENDS || !chat_is_open(l->core, &row->chat)) {
        return true;
    }
    int rc = store_privacy_hides(l->core, peer, &hides);
    if (rc) {
        l->rc = rc;
        return false;
    }
    cq_pack_bin(&l->rows, peer->b, CQ_ID_SIZE);
    l->count++;
    if (hides) {
        cq_pack_bin(&l->hidden, peer->b, CQ_ID_SIZE);
        l->hidden_count++;
    }
    return l->count < CQ_LIST_MAX;
}

void
store_on_watchlist(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct listing l = {.core = core};
    struct cq_watchlist in;
    struct cq_watched watched = {.hides = false};
    int rc = cq_schema_read(&cq_watchlist_schema, fields, count, &in);
    if (!rc) {
        rc = store_privacy_hides(core, &in.user, &watched.hides);
    }
    if (!rc) {
        rc = store_friend_each(core, &in.user, list_watched, &l);
    }
    rc = rc ? rc : l.rc;
    if (rc) {
        store_core_reply_err(core, from, rc, 0);
    } else {
        watched.users = cq_list_of(&l.rows, l.count);
        watched.hidden = cq_list_of(&l.hidden, l.hidden_count);
        store_core_reply(core, from, &cq_watched_schema, &watched);
    }
    cq_buf_free(&l.rows);
    cq_buf_free(&l.hidden);
}
