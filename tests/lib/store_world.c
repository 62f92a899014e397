/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/lib/store_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "store/blob.h"
#include "store/checkpoint.h"

enum {
    SLICE_CHATS = 4096
};

static void
check(int rc, const char *what)
{
    if (rc) {
        (void)fprintf(stderr, "store_world: %s: %s\n", what, cq_err_name(rc));
        abort();
    }
}

/* ---- names ---- */

static struct cq_id
id_of(const char *kind, uint64_t n)
{
    struct cq_id id;
    uint8_t text[16] = {0};
    for (size_t i = 0; kind[i] && i < 8; i++) {
        text[i] = (uint8_t)kind[i];
    }
    memcpy(text + 8, &n, sizeof n);
    crypto_generichash(id.b, sizeof id.b, text, sizeof text, NULL, 0);
    return id;
}

struct cq_id
store_world_user_id(uint64_t user)
{
    return id_of("user", user);
}

struct cq_id
store_world_device_id(uint64_t user)
{
    return id_of("device", user);
}

struct cq_id
store_world_chat_id(uint64_t user, uint64_t peer)
{
    struct cq_id a = store_world_user_id(user);
    struct cq_id b = store_world_user_id(peer);
    return cq_chat_id(&a, &b);
}

static void
name_of(uint64_t user, char name[CQ_NAME_MAX + 1])
{
    (void)snprintf(name, CQ_NAME_MAX + 1, "user%llu", (unsigned long long)user);
}

/* ---- open, close, commit ---- */

static void
open_vault(struct store_world *w)
{
    struct store_core *core = &w->core;
    struct store_key key = store_key_text("vault");
    uint8_t row[STORE_VAULT_ROW_MAX];
    size_t row_size = 0;
    struct cq_view stored = {0};
    int rc = store_core_row(core, STORE_TABLE_META, &key, &stored);
    struct store_vault_cfg cfg = {
        .master_key_path = w->key_path,
        .data_dir = w->cfg.data,
        .is_new = rc == -CQ_E_NOT_FOUND,
        .row = stored,
        .hash_opslimit = crypto_pwhash_OPSLIMIT_MIN,
        .hash_memlimit = crypto_pwhash_MEMLIMIT_MIN,
    };
    check(store_vault_open(core->loop, &cfg, row, &row_size, &core->vault), "the vault");
    if (cfg.is_new) {
        struct store_key epoch = store_key_text("epoch");
        core->epoch = cq_random_id();
        store_core_put(core, STORE_TABLE_META, &key, (struct cq_view){row, row_size});
        store_core_put(core, STORE_TABLE_META, &epoch, (struct cq_view){core->epoch.b, CQ_ID_SIZE});
    }
    store_core_drop_snapshot(core);
}

void
store_world_open(struct store_world *w, const char *dir, const char *key_path)
{
    memset(w, 0, sizeof *w);
    cq_secure_start();
    w->cfg.data = strdup(dir);
    w->cfg.chat_cache = 100000;
    w->slice_max = SLICE_CHATS;
    (void)snprintf(w->key_path, sizeof w->key_path, "%s", key_path);
    struct store_core *core = &w->core;
    const struct store_engine_cfg engine = {
        .dir = dir, .map_bytes = UINT64_C(1) << 38, .reserve_bytes = 0};
    const struct store_projection_cfg projection = {
        store_core_row_on_disk, store_core_record_on_disk, core, w->cfg.chat_cache};
    core->cfg = &w->cfg;
    core->loop = cq_loop_new();
    check(store_engine_open(&engine, &core->engine), "open");
    core->projection = store_projection_new(&projection);
    core->last_pos = core->durable_pos = store_engine_last_pos(core->engine);
    core->building = store_core_next_batch(core);
    open_vault(w);
    check(store_replay_run(core), "replay");
    check(store_replay_settle(core, UINT64_MAX), "settle");
    check(store_device_load(core), "devices");
    store_world_commit(w);
}

void
store_world_close(struct store_world *w)
{
    struct store_core *core = &w->core;
    store_core_drop_snapshot(core);
    store_device_free(core);
    store_batch_destroy(&core->building);
    store_projection_destroy(&core->projection);
    store_vault_close(&core->vault);
    store_engine_close(&core->engine);
    cq_loop_destroy(&core->loop);
    free(w->cfg.data);
}

void
store_world_round(struct store_world *w)
{
    store_projection_round(w->core.projection);
}

static void
add_slice(struct store_world *w, struct store_batch *b)
{
    store_projection_t *p = w->core.projection;
    check(store_replay_settle(&w->core, UINT64_MAX), "settle");
    if (w->interval_records) {
        const struct store_checkpoint_now now = {.interval_records = w->interval_records,
                                                 .lag_records = w->core.last_pos - w->core.marker};
        (void)store_checkpoint_add(p, b, &now);
        return;
    }
    if (store_projection_in_round(p)) {
        const struct store_slice slice = {.weight_max = w->slice_max};
        (void)store_projection_slice(p, b, &slice);
    }
    if (b->marker) {
        struct store_key key = store_key_text("marker");
        cq_buf_t value = {0};
        cq_pack_uint(&value, b->marker);
        store_batch_put(b, STORE_TABLE_META, store_key_view(&key),
                        (struct cq_view){value.data, value.size}, false);
        cq_buf_free(&value);
    }
}

struct store_batch *
store_world_commit_begin(struct store_world *w)
{
    struct store_core *core = &w->core;
    store_core_drop_snapshot(core);
    struct store_batch *b = core->building;
    add_slice(w, b);
    if (store_batch_is_empty(b)) {
        return NULL;
    }
    store_batch_seal(b);
    core->building = store_core_next_batch(core);
    core->committing = b;
    return b;
}

void
store_world_commit_end(struct store_world *w, struct store_batch *b)
{
    struct store_core *core = &w->core;
    check(b->rc, "commit");
    store_core_drop_snapshot(core);
    core->committing = NULL;
    core->durable_pos = b->first_pos + b->record_count - 1;
    core->marker = b->marker ? b->marker : core->marker;
    if (b->record_count) {
        core->commit_time_first = core->commit_time_last ? core->commit_time_first : b->first_pos;
        core->commit_time_last = core->durable_pos;
        core->commit_time_unix_ms = cq_now_unix_ms();
    }
    store_projection_committed(core->projection, b);
    store_batch_destroy(&b);
}

void
store_world_commit(struct store_world *w)
{
    struct store_batch *b = store_world_commit_begin(w);
    if (b) {
        store_core_run_commit(&w->core, b);
        store_world_commit_end(w, b);
    }
}

void
store_world_flush(struct store_world *w)
{
    uint64_t interval_records = w->interval_records;
    w->interval_records = 0;
    store_world_commit(w);
    while (store_projection_in_round(w->core.projection)) {
        store_world_commit(w);
    }
    store_world_round(w);
    while (store_projection_in_round(w->core.projection)) {
        store_world_commit(w);
    }
    w->interval_records = interval_records;
}

/* ---- people ---- */

void
store_world_add_user(struct store_world *w, uint64_t user)
{
    struct store_core *core = &w->core;
    struct cq_id id = store_world_user_id(user);
    struct cq_id device_id = store_world_device_id(user);
    struct store_account account = {.hash = "no password", .created_unix_ms = 1};
    struct store_device device = {.label = "device", .created_unix_ms = 1, .generation = 1};
    cq_buf_t b = {0};
    name_of(user, account.name);
    struct store_key name_key = store_key_name(account.name, strlen(account.name));
    struct store_key user_key = store_key_of(&id);
    struct store_key device_key = store_key_pair(&id, &device_id);
    struct store_key owner_key = store_key_of(&device_id);
    store_account_write(&b, &account);
    store_core_put(core, STORE_TABLE_NAME, &name_key, (struct cq_view){id.b, CQ_ID_SIZE});
    store_core_put(core, STORE_TABLE_ACCOUNT, &user_key, (struct cq_view){b.data, b.size});
    cq_buf_clear(&b);
    store_device_write(&b, &device);
    store_core_put(core, STORE_TABLE_DEVICE, &device_key, (struct cq_view){b.data, b.size});
    store_core_put(core, STORE_TABLE_OWNER, &owner_key, (struct cq_view){id.b, CQ_ID_SIZE});
    cq_buf_free(&b);
}

void
store_world_hide(struct store_world *w, uint64_t user, bool hides)
{
    struct cq_id id = store_world_user_id(user);
    struct store_key key = store_key_of(&id);
    struct store_account account;
    struct cq_view row;
    struct cq_rec_privacy record = {id, hides, 1};
    uint64_t pos = 0;
    cq_buf_t b = {0};
    check(store_core_row(&w->core, STORE_TABLE_ACCOUNT, &key, &row), "an account");
    check(store_account_read(row, &account), "an account");
    account.hide_last_seen = hides;
    check(store_core_append(&w->core, NULL, CQ_REC_PRIVACY, &record, &pos), "a privacy record");
    store_account_write(&b, &account);
    store_core_put(&w->core, STORE_TABLE_ACCOUNT, &key, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

/* The record of a step and what it makes of both rows. The chat begins with the first acceptance.
 */
static void
step(struct store_world *w, uint64_t user, uint64_t peer, uint8_t action)
{
    struct cq_id ids[2] = {store_world_user_id(user), store_world_user_id(peer)};
    char names[2][CQ_NAME_MAX + 1];
    struct store_friend rows[2] = {{0}, {0}};
    struct store_chat *chat = NULL;
    struct store_vault_key key = {.chat = cq_chat_id(&ids[0], &ids[1]), .key_version = 1};
    bool is_accept = action == CQ_OP_ACCEPT;
    uint64_t pos = 0;
    name_of(user, names[0]);
    name_of(peer, names[1]);
    rows[0].relation = is_accept ? CQ_RELATION_FRIENDS : CQ_RELATION_ASKED;
    rows[1].relation = is_accept ? CQ_RELATION_FRIENDS : CQ_RELATION_REQUESTED;
    if (is_accept) {
        store_vault_make_key(w->core.vault, &key);
        check(store_projection_begin(w->core.projection, &key.chat, &chat), "a new chat");
    }
    struct cq_rec_friend r = {
        .user = ids[0],
        .peer = ids[1],
        .action = action,
        .user_relation = rows[0].relation,
        .peer_relation = rows[1].relation,
        .chat = is_accept ? key.chat : (struct cq_id){{0}},
        .key_version = is_accept ? 1 : 0,
        .wrapped = {key.wrapped, is_accept ? STORE_WRAPPED_SIZE : 0},
        .user_name = {(const uint8_t *)names[0], strlen(names[0])},
        .peer_name = {(const uint8_t *)names[1], strlen(names[1])},
        .time_unix_ms = 1,
        .device = store_world_device_id(user),
    };
    check(store_core_append(&w->core, chat, CQ_REC_FRIEND, &r, &pos), "a friend record");
    for (int i = 0; i < 2; i++) {
        struct store_key row_key = store_key_pair(&ids[i], &ids[1 - i]);
        cq_buf_t b = {0};
        rows[i].last_pos = pos;
        rows[i].chat = r.chat;
        rows[i].key_version = r.key_version;
        memcpy(rows[i].wrapped, key.wrapped, sizeof key.wrapped);
        memcpy(rows[i].peer_name, names[1 - i], sizeof rows[i].peer_name);
        store_friend_write(&b, &rows[i]);
        store_core_put(&w->core, STORE_TABLE_USER, &row_key, (struct cq_view){b.data, b.size});
        cq_buf_free(&b);
    }
}

void
store_world_ask(struct store_world *w, uint64_t user, uint64_t peer)
{
    step(w, user, peer, CQ_OP_ADD);
}

void
store_world_befriend(struct store_world *w, uint64_t user, uint64_t peer)
{
    step(w, user, peer, CQ_OP_ADD);
    step(w, peer, user, CQ_OP_ACCEPT);
}

/* ---- chats ---- */

struct store_chat *
store_world_chat(struct store_world *w, uint64_t user, uint64_t peer)
{
    struct store_chat *c = NULL;
    struct cq_id id = store_world_chat_id(user, peer);
    check(store_projection_chat(w->core.projection, &id, &c), "a chat");
    return c;
}

static void
append_message(struct store_world *w,
               uint64_t user,
               uint64_t peer,
               struct cq_view text,
               struct cq_view media)
{
    static const uint8_t nonce[CQ_NONCE_SIZE];
    struct store_chat *c = store_world_chat(w, user, peer);
    struct cq_id device = store_world_device_id(user);
    const struct store_chat_device *d = store_chat_device(c, &device);
    struct cq_rec_message m = {
        .chat = c->id,
        .seq = c->head + 1,
        .user = store_world_user_id(user),
        .device = device,
        .dseq = d ? d->last_dseq + 1 : 1,
        .time_unix_ms = cq_now_unix_ms(),
        .key_version = 1,
        .nonce = {nonce, sizeof nonce},
        .ciphertext = text,
        .media = media,
    };
    uint64_t pos = 0;
    check(store_core_append(&w->core, c, CQ_REC_MESSAGE, &m, &pos), "a message");
}

void
store_world_say(struct store_world *w, uint64_t user, uint64_t peer, struct cq_view text)
{
    append_message(w, user, peer, text, (struct cq_view){0});
}

struct cq_id
store_world_blob_id(uint64_t n)
{
    struct cq_id id = store_world_user_id(n);
    id.b[0] ^= 0xb1;
    id.b[1] ^= 0x0b;
    return id;
}

void
store_world_add_blob(struct store_world *w, uint64_t user, uint64_t n, uint64_t length)
{
    struct store_blob_use use = {0};
    struct store_blob blob = {.state = STORE_BLOB_WHOLE,
                              .user = store_world_user_id(user),
                              .length = length,
                              .since_unix_ms = cq_now_unix_ms(),
                              .hash = {1, 2, 3}};
    struct cq_id id = store_world_blob_id(n);
    struct store_key key = store_key_of(&id), use_key = store_key_of(&blob.user);
    struct cq_view row;
    cq_buf_t b = {0};
    if (store_core_row(&w->core, STORE_TABLE_BLOB_USE, &use_key, &row) == 0) {
        check(store_blob_read_use(row, &use), "a row of use");
    }
    use.bytes += length;
    use.count++;
    store_blob_write(&b, &blob);
    store_core_put(&w->core, STORE_TABLE_BLOB, &key, (struct cq_view){b.data, b.size});
    cq_buf_clear(&b);
    store_blob_write_use(&b, &use);
    store_core_put(&w->core, STORE_TABLE_BLOB_USE, &use_key, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

void
store_world_show(struct store_world *w,
                 uint64_t user,
                 uint64_t peer,
                 struct cq_view text,
                 uint64_t n)
{
    static const uint8_t thumbnail[100];
    struct cq_media media = {store_world_blob_id(n), 1000, {thumbnail, sizeof thumbnail}};
    cq_buf_t b = {0};
    check(store_blob_refer(&w->core, store_world_chat(w, user, peer), &media.blob), "a reference");
    cq_schema_write_array(&cq_media_schema, &b, &media);
    append_message(w, user, peer, text, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

void
store_world_receive(struct store_world *w, uint64_t user, uint64_t peer, uint64_t behind)
{
    struct store_chat *c = store_world_chat(w, user, peer);
    struct cq_rec_receipt r = {c->id, store_world_user_id(user), store_world_device_id(user),
                               c->head - behind, cq_now_unix_ms()};
    uint64_t pos = 0;
    check(store_core_append(&w->core, c, CQ_REC_RECEIPT, &r, &pos), "a receipt");
}

void
store_world_read(struct store_world *w, uint64_t user, uint64_t peer, uint64_t behind)
{
    struct store_chat *c = store_world_chat(w, user, peer);
    struct cq_rec_read r = {c->id, store_world_user_id(user), store_world_device_id(user),
                            c->head - behind, cq_now_unix_ms()};
    uint64_t pos = 0;
    check(store_core_append(&w->core, c, CQ_REC_READ, &r, &pos), "a receipt");
}

void
store_world_settle(struct store_world *w, uint64_t user, uint64_t peer)
{
    struct store_chat *c = store_world_chat(w, user, peer);
    struct cq_id id = store_world_user_id(user);
    struct cq_rec_known known = {c->id, id, w->core.last_pos};
    uint64_t pos = 0;
    check(store_core_append(&w->core, c, CQ_REC_KNOWN, &known, &pos), "a record of what is known");
}
