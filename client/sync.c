/* SPDX-License-Identifier: MPL-2.0
 * After every login and whenever pushes may be missing: the keys, then what changed, then the
 * messages that are not here.
 */
#include <stdlib.h>

#include "client/inbox.h"
#include "client/keyring.h"
#include "client/session_parts.h"

enum {
    KEY_ROUNDS_MAX = 64,
    KEY_HAVE_MAX = 2500, /* fits a frame */
    SYNC_PAUSE_MS = 500,
    ACK_PAUSE_MS = 1000,
};

static void ask_keys(cq_session_t *s);
static void ask_sync(cq_session_t *s);

/* A step was not answered as it should: all of it again, later. */
static void
sync_failed(cq_session_t *s, const struct cq_answer *a)
{
    s->is_syncing = false;
    if (cq_session_is_passing(a->err)) {
        s->sync_due = true;
        cq_session_soon(s, a->retry_after_ms > SYNC_PAUSE_MS ? a->retry_after_ms : SYNC_PAUSE_MS);
        return;
    }
    if (a->err == CQ_E_REVOKED) {
        /* an edge took the token, but the store does not know the device: it was restored from a
         * backup that is older than the device */
        cq_session_token_refused(s, a->err);
        return;
    }
    cq_session_fail(s, a->err ? a->err : CQ_E_BAD_FRAME,
                    cq_client_error_text(a->err ? a->err : CQ_E_BAD_FRAME));
}

/* ---- keys ---- */

static int
on_key(void *ctx, const struct cq_id *chat, uint64_t version, const uint8_t key[CQ_KEY_SIZE])
{
    cq_session_t *s = ctx;
    return cq_db_key_put(s->db, chat, version, key);
}

static void
on_keys(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    (void)p;
    struct cq_key_bundle bundle = {0};
    int rc =
        a->err ? -a->err : cq_schema_read(&cq_key_bundle_schema, &a->fields, a->count, &bundle);
    if (rc) {
        sync_failed(s, a);
        return;
    }
    struct cq_keyring_owner owner = {s->id.user, s->id.device, s->id.public_key, s->id.secret_key,
                                     s->id.store_key};
    rc = cq_session_tx(s);
    rc = rc ? rc : cq_keyring_open(&bundle, &owner, on_key, s);
    if (rc == -CQ_E_CRYPTO) {
        cq_session_give_up(
            s, CQ_CLIENT_E_STORE_KEY,
            "the chat keys that came are not signed by the server this device knows");
        return;
    }
    if (rc) {
        cq_session_tx_fail(s, rc);
        return;
    }
    if (bundle.more && bundle.keys.count && ++s->key_rounds < KEY_ROUNDS_MAX) {
        ask_keys(s);
    } else {
        ask_sync(s);
    }
}

static void
ask_keys(cq_session_t *s)
{
    struct cq_key_have *have = NULL;
    int count = cq_db_key_have(s->db, &have);
    if (count < 0) {
        cq_session_tx_fail(s, count);
        return;
    }
    count = count < KEY_HAVE_MAX ? count : KEY_HAVE_MAX;
    cq_buf_t rows = {0};
    for (int i = 0; i < count; i++) {
        cq_schema_write_array(&cq_key_have_schema, &rows, &have[i]);
    }
    struct cq_keys keys = {cq_list_of(&rows, (size_t)count)};
    struct cq_pending p = {.op = CQ_OP_KEYS, .fn = on_keys};
    cq_session_ask(s, &p, &cq_keys_schema, &keys);
    cq_buf_free(&rows);
    free(have);
}

/* ---- what changed ---- */

static int
take_cursors(cq_session_t *s, const struct cq_sync_chat *row)
{
    struct cq_chat chat;
    int rc = cq_db_chat_get(s->db, &row->chat, &chat);
    cq_reader_t r = cq_list_reader(&row->cursors);
    for (size_t i = 0; !rc && i < row->cursors.count; i++) {
        struct cq_cursor cursor;
        rc = cq_schema_read_array(&cq_cursor_schema, &r, &cursor);
        if (!rc) {
            cq_session_cursor(s, &chat, &cursor,
                              s->is_first_sync ? CQ_CURSOR_OLD : CQ_CURSOR_SYNCED);
        }
    }
    return rc;
}

/* A copy of this device has sent with its counters: our next dseq would be another message under
 * the same number. */
static int
check_clone(cq_session_t *s, const struct cq_sync_chat *row)
{
    struct cq_chat chat;
    int rc = cq_db_chat_get(s->db, &row->chat, &chat);
    if (!rc && row->last_dseq > chat.dseq_top && !s->id.cloned) {
        s->id.cloned = true;
        rc = cq_db_identity_save(s->db, &s->id);
        cq_session_warn(s, CQ_CLIENT_E_CLONED, cq_client_error_text(CQ_CLIENT_E_CLONED));
    }
    return rc;
}

static int
take_chats(cq_session_t *s, const struct cq_synced *synced)
{
    cq_reader_t r = cq_list_reader(&synced->chats);
    for (size_t i = 0; i < synced->chats.count; i++) {
        struct cq_sync_chat row;
        int rc = cq_schema_read_array(&cq_sync_chat_schema, &r, &row);
        rc = rc ? rc : cq_db_chat_sync(s->db, &row);
        rc = rc ? rc : check_clone(s, &row);
        rc = rc ? rc : take_cursors(s, &row);
        if (rc) {
            return rc;
        }
    }
    return cq_db_version_set(s->db, &synced->epoch, synced->version);
}

static void
sync_done(cq_session_t *s)
{
    s->is_syncing = false;
    s->is_synced = true;
    s->is_first_sync = false;
    cq_reconnect_succeeded(&s->reconnect);
    for (int i = 0; i < s->run_count; i++) {
        s->runs[i].stuck_until_ms = 0;
    }
    s->do_fetch = s->do_ack = s->do_send = true;
    s->poke = true;
    if (s->sync_again) {
        s->sync_again = false;
        cq_session_sync(s);
    }
}

static void
on_synced(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    (void)p;
    struct cq_synced synced = {0};
    int rc = a->err ? -a->err : cq_schema_read(&cq_synced_schema, &a->fields, a->count, &synced);
    if (rc) {
        sync_failed(s, a);
        return;
    }
    rc = cq_session_tx(s);
    if (!rc && synced.reset && !cq_id_is_none(&s->id.epoch)) {
        rc = cq_db_chat_reset(s->db);
        s->is_first_sync = true;
        cq_session_warn(
            s, 0, "the server was restored from a backup: checking which messages it still has");
    }
    rc = rc ? rc : take_chats(s, &synced);
    if (rc) {
        cq_session_tx_fail(s, rc);
        return;
    }
    bool progressed = synced.version > s->id.version || synced.reset;
    s->id.epoch = synced.epoch;
    s->id.version = synced.version;
    if (synced.more && progressed) {
        ask_sync(s);
    } else {
        sync_done(s);
    }
}

static void
ask_sync(cq_session_t *s)
{
    struct cq_sync sync = {s->id.epoch, s->id.version};
    struct cq_pending p = {.op = CQ_OP_SYNC, .fn = on_synced};
    cq_session_ask(s, &p, &cq_sync_schema, &sync);
}

void
cq_session_sync(cq_session_t *s)
{
    if (s->phase != CQ_PHASE_ONLINE) {
        return;
    }
    if (s->is_syncing) {
        s->sync_again = true;
        return;
    }
    /* another process of this home may have synced further */
    struct cq_identity now;
    if (!cq_db_identity_load(s->db, &now)) {
        s->id.epoch = now.epoch;
        s->id.version = now.version;
    }
    s->is_syncing = true;
    s->was_caught_up = false;
    s->key_rounds = 0;
    for (struct cq_command *c = s->commands; c; c = c->next) {
        c->is_sent = c->is_sent || c->op == CQ_COMMAND_SYNC;
    }
    ask_keys(s);
}

/* ---- the messages that are not here ---- */

static int
store_all(cq_session_t *s, const struct cq_history_part *part, bool *key_missing)
{
    cq_reader_t r = cq_list_reader(&part->messages);
    for (size_t i = 0; i < part->messages.count; i++) {
        struct cq_message m;
        int rc = cq_schema_read_array(&cq_message_schema, &r, &m);
        rc = rc ? rc : cq_session_store(s, &m);
        if (rc == -CQ_E_NOT_FOUND) {
            *key_missing = true;
            return 0;
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static void
on_history(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    struct cq_history_part part = {0};
    struct cq_chat_run *run = cq_session_run(s, &p->chat);
    int rc =
        a->err ? -a->err : cq_schema_read(&cq_history_part_schema, &a->fields, a->count, &part);
    s->do_fetch = true;
    if (rc) {
        uint64_t pause = a->retry_after_ms > SYNC_PAUSE_MS ? a->retry_after_ms : SYNC_PAUSE_MS;
        run->stuck_until_ms = cq_session_is_passing(-rc) ? cq_session_now(s) + pause : UINT64_MAX;
        cq_session_soon(s, pause);
        return;
    }
    bool key_missing = false;
    rc = cq_session_tx(s);
    rc = rc ? rc : store_all(s, &part, &key_missing);
    rc = rc ? rc : cq_db_message_advance(s->db, &p->chat);
    struct cq_chat chat;
    rc = rc ? rc : cq_db_chat_get(s->db, &p->chat, &chat);
    if (rc) {
        cq_session_tx_fail(s, rc);
        return;
    }
    s->do_ack = s->poke = true;
    struct cq_inbox_ask ask = {p->a, p->b};
    if (key_missing) {
        run->stuck_until_ms = UINT64_MAX;
        run->key_tries++;
        cq_session_sync(s);
    } else if (!cq_inbox_progressed(&ask, chat.held)) {
        run->stuck_until_ms = UINT64_MAX;
        cq_session_warn(s, CQ_E_NOT_FOUND, "the server did not give messages that it says it has");
    }
}

void
cq_session_fetch(cq_session_t *s)
{
    struct cq_chat *chats = NULL;
    int count = cq_db_chat_behind(s->db, &chats);
    unsigned asked = cq_session_pending(s, CQ_OP_HISTORY, NULL);
    bool complete = count >= 0 && asked == 0;
    for (int i = 0; i < count; i++) {
        if (cq_session_run(s, &chats[i].chat)->stuck_until_ms > cq_session_now(s)) {
            continue;
        }
        complete = false;
        bool is_asked = cq_session_pending(s, CQ_OP_HISTORY, &chats[i].chat) > 0;
        if (is_asked || asked >= CQ_FETCHES_MAX || !cq_session_can_ask(s)) {
            continue;
        }
        struct cq_inbox_ask ask =
            cq_inbox_missing(chats[i].held, chats[i].head, CQ_HISTORY_MAX_COUNT);
        struct cq_history history = {chats[i].chat, ask.from, ask.to};
        struct cq_pending p = {.op = CQ_OP_HISTORY,
                               .fn = on_history,
                               .chat = chats[i].chat,
                               .a = ask.from,
                               .b = ask.to};
        cq_session_ask(s, &p, &cq_history_schema, &history);
        asked++;
    }
    free(chats);
    if (complete) {
        cq_session_caught_up(s);
    } else {
        s->was_caught_up = false;
    }
}

/* ---- cursors out: one ACK a turn, one unanswered ---- */

/* The server has this device's cursors: it does not push them to it. */
static int
take_acked(cq_session_t *s, const struct cq_ack_cursor *acked)
{
    struct cq_cursor read = {.user = s->id.user, .up_to = acked->read};
    int rc = cq_db_chat_acked(s->db, &acked->chat, acked->delivered, acked->read);
    if (!rc && acked->read) {
        rc = cq_db_cursor_put(s->db, &acked->chat, &read);
    }
    return rc < 0 ? rc : 0;
}

static void
on_acked(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    (void)p;
    s->ack_pending = false;
    if (a->err == CQ_E_ABOVE_HEAD || a->err == CQ_E_NOT_FOUND) {
        cq_session_sync(s);
        return;
    }
    if (a->err) {
        cq_session_soon(s, a->retry_after_ms > ACK_PAUSE_MS ? a->retry_after_ms : ACK_PAUSE_MS);
        return;
    }
    int rc = cq_session_tx(s);
    for (size_t i = 0; !rc && i < s->acked_count; i++) {
        rc = take_acked(s, &s->acked[i]);
    }
    if (rc) {
        cq_session_tx_fail(s, rc);
    }
    s->do_ack = true;
}

void
cq_session_ack(cq_session_t *s)
{
    struct cq_chat *chats = NULL;
    if (s->ack_pending) {
        return; /* its answer sets do_ack */
    }
    s->do_ack = false;
    int count = cq_db_chat_unacked(s->db, &s->id.device, &chats);
    cq_buf_t rows = {0};
    s->acked_count = 0;
    for (int i = 0; i < count && s->acked_count < CQ_ACK_MAX; i++) {
        const struct cq_chat *c = &chats[i];
        /* never above what the server has: after a restore it may have less than the user has read
         */
        struct cq_ack_cursor cursor = {c->chat, c->held,
                                       c->my_read < c->head ? c->my_read : c->head};
        if (cursor.delivered > c->acked_delivered || cursor.read > c->acked_read) {
            cq_schema_write_array(&cq_ack_cursor_schema, &rows, &cursor);
            s->acked[s->acked_count++] = cursor;
        }
    }
    if (s->acked_count) {
        struct cq_ack ack = {cq_list_of(&rows, s->acked_count)};
        struct cq_pending p = {.op = CQ_OP_ACK, .fn = on_acked};
        s->ack_pending = true;
        cq_session_ask(s, &p, &cq_ack_schema, &ack);
    }
    cq_buf_free(&rows);
    free(chats);
}
