/* SPDX-License-Identifier: MPL-2.0
 * Carries out what outbox.c decides: everything in the outbox goes out once, in order, over any
 * number of connections.
 */
#include <stdlib.h>

#include <sodium.h>

#include "client/outbox.h"
#include "client/seal.h"
#include "client/session_parts.h"

enum {
    RETRY_FIRST_MS = 200,
    RETRY_MAX_MS = 10000,
    REORDER_FREE = 3,  /* refusals in a row that are answered at once; after that with back-off */
    KEY_TRIES_MAX = 2, /* syncs for a newer key before KEY_VERSION is taken as final */
};

static void on_sent(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a);

/* ---- one step ---- */

static int
seal_row(cq_session_t *s, struct cq_out *o, uint64_t key_version)
{
    return cq_seal_out(s->db, &s->id.user, &s->id.device, key_version, o);
}

/* A message that is known not to be accepted may still be encrypted with a newer key. */
static int
renew_keys(cq_session_t *s, const struct cq_chat *chat, struct cq_out *rows, int count)
{
    for (int i = 0; i < count; i++) {
        bool may_change = rows[i].state == CQ_OUT_QUEUED || rows[i].state == CQ_OUT_REFUSED;
        if (!may_change || rows[i].key_version >= chat->key_version) {
            continue;
        }
        int rc = seal_row(s, &rows[i], chat->key_version);
        if (rc == -CQ_E_NOT_FOUND) {
            return 0; /* the key comes with a sync */
        }
        rc = rc ? rc : cq_db_out_rebuild(s->db, &rows[i]);
        if (rc) {
            return rc;
        }
        rows[i].state = CQ_OUT_QUEUED;
    }
    return 0;
}

/* Before the first byte leaves, the disk must know that this row may be accepted. */
static int
mark_sent(cq_session_t *s, struct cq_out *row, const struct cq_outbox_plan *plan)
{
    int rc = 0;
    if (plan->step == CQ_OUTBOX_RECHAIN) {
        row->prev = plan->prev;
        rc = cq_db_out_rebuild(s->db, row);
    }
    if (!rc && (row->state != CQ_OUT_UNKNOWN || plan->step == CQ_OUTBOX_RECHAIN)) {
        rc = cq_db_out_state(s->db, row->id, CQ_OUT_UNKNOWN, 0);
        row->state = CQ_OUT_UNKNOWN;
    }
    return rc;
}

static void
ask_send(cq_session_t *s, const struct cq_out *row)
{
    struct cq_send send = {
        .chat = row->chat,
        .dseq = row->dseq,
        .prev = row->prev,
        .key_version = row->key_version,
        .nonce = {row->nonce, sizeof row->nonce},
        .ciphertext = {row->ciphertext, row->ciphertext_size},
        .media = {row->media, row->media_size},
    };
    struct cq_pending p = {
        .op = CQ_OP_SEND, .fn = on_sent, .chat = row->chat, .a = row->id, .b = row->dseq};
    cq_session_ask(s, &p, &cq_send_schema, &send);
}

static bool
is_in_flight(const cq_session_t *s, const struct cq_out *row)
{
    for (int i = 0; i < CQ_PENDING_MAX; i++) {
        const struct cq_pending *p = &s->pending[i];
        if (p->rid && p->op == CQ_OP_SEND && p->a == row->id) {
            return true;
        }
    }
    return false;
}

/* ---- a chat's turn ---- */

/* Rows that go out now are marked in `go`. */
static int
choose(cq_session_t *s, const struct cq_chat *chat, struct cq_out *rows, int count, bool *go)
{
    bool in_flight[64] = {false}; /* cq_db_out_list gives at most 64 rows of a chat */
    for (int i = 0; i < count; i++) {
        in_flight[i] = is_in_flight(s, &rows[i]);
    }
    unsigned flying = cq_session_pending(s, CQ_OP_SEND, NULL);
    while (flying < CQ_SENDS_MAX) {
        struct cq_outbox_plan plan =
            cq_outbox_next(rows, in_flight, (size_t)count, chat->dseq_done, s->window);
        if (plan.step == CQ_OUTBOX_NOTHING) {
            break;
        }
        int rc = mark_sent(s, &rows[plan.row], &plan);
        if (rc) {
            return rc;
        }
        in_flight[plan.row] = go[plan.row] = true;
        flying++;
    }
    return 0;
}

static int
flush_chat(cq_session_t *s, const struct cq_id *id)
{
    struct cq_chat_run *run = cq_session_run(s, id);
    if (run->hold) {
        if (cq_session_pending(s, CQ_OP_SEND, id)) {
            return 0; /* the last answer starts us again */
        }
        uint64_t now = cq_session_now(s);
        if (run->retry_at_ms > now) {
            cq_session_soon(s, run->retry_at_ms - now);
            return 0;
        }
        run->hold = false;
    }
    bool go[64] = {false};
    struct cq_out *rows = NULL;
    struct cq_chat chat = {0};
    int rc = cq_session_tx(s);
    rc = rc ? rc : cq_db_chat_get(s->db, id, &chat);
    int count = rc ? rc : cq_db_out_list(s->db, id, &rows);
    rc = count < 0 ? count : 0;
    if (rows) {
        rc = renew_keys(s, &chat, rows, count);
        rc = rc ? rc : choose(s, &chat, rows, count, go);
    }
    if (rc) {
        cq_session_tx_fail(s, rc);
    }
    /* Committed before anything is put into a frame: a frame that gets full is written at once. */
    rc = cq_session_tx_end(s);
    for (int i = 0; rows && !rc && i < count && s->phase == CQ_PHASE_ONLINE; i++) {
        if (go[i]) {
            ask_send(s, &rows[i]);
        }
    }
    cq_db_out_free(rows, count > 0 ? count : 0);
    return rc;
}

/* ---- what the application waits for ---- */

void
cq_session_watch(cq_session_t *s, const struct cq_watch *watch)
{
    for (unsigned i = 0; i < s->watch_count; i++) {
        if (s->watches[i].id == watch->id) {
            s->watches[i] = *watch;
            return;
        }
    }
    if (s->watch_count < CQ_WATCHES_MAX) {
        s->watches[s->watch_count++] = *watch;
    }
}

static void
unwatch(cq_session_t *s, uint64_t id)
{
    for (unsigned i = 0; i < s->watch_count; i++) {
        if (s->watches[i].id == id) {
            s->watches[i] = s->watches[--s->watch_count];
            return;
        }
    }
}

static void
tell(cq_session_t *s, const struct cq_watch *w, const struct cq_sent *sent, int error)
{
    struct cq_chat chat;
    cq_client_event_t e = {
        .type = error ? CQ_CLIENT_EVENT_FAILED : CQ_CLIENT_EVENT_SENT,
        .peer = cq_db_chat_get(s->db, &w->chat, &chat) ? "" : chat.peer_name,
        .message = w->id,
        .error = error,
        .seq = sent ? sent->seq : 0,
        .time_unix_ms = sent ? sent->time_unix_ms : 0,
        .text = error ? cq_client_error_text(error) : NULL,
    };
    cq_events_push(s->events, &e);
    unwatch(s, w->id);
}

/* Rows that another process of this home has sent, or had refused. */
static void
check_watches(cq_session_t *s)
{
    for (unsigned i = s->watch_count; i-- > 0;) {
        struct cq_watch w = s->watches[i];
        struct cq_out row;
        struct cq_sent sent;
        int rc = cq_db_out_get(s->db, w.id, &row);
        if (!rc) {
            bool failed = row.state == CQ_OUT_FAILED;
            int error = row.error;
            s->watches[i].dseq = row.dseq; /* an upload gets its own when it is complete */
            cq_db_out_clear(&row);
            if (failed) {
                tell(s, &w, NULL, error);
            }
        } else if (rc == -CQ_E_NOT_FOUND &&
                   !cq_db_message_sent(s->db, &w.chat, &s->id.device, w.dseq, &sent)) {
            tell(s, &w, &sent, 0);
        }
    }
}

void
cq_session_flush(cq_session_t *s)
{
    struct cq_id *chats = NULL;
    check_watches(s);
    if (s->id.cloned) {
        return;
    }
    int count = cq_db_out_chats(s->db, &chats);
    int rc = count < 0 ? count : 0;
    for (int i = 0; !rc && i < count && cq_session_can_ask(s); i++) {
        rc = flush_chat(s, &chats[i]);
    }
    free(chats);
    if (rc) {
        cq_session_fail(s, CQ_E_IO, "the outbox of this device cannot be written");
    }
}

/* ---- answers ---- */

static void
tell_answer(cq_session_t *s, const struct cq_pending *p, const struct cq_sent *sent, int error)
{
    struct cq_watch w = {p->a, p->chat, p->b};
    tell(s, &w, sent, error);
}

/* It is on the server: from the outbox to the messages, in one transaction. */
static int
keep_sent(cq_session_t *s, const struct cq_pending *p, const struct cq_sent *sent)
{
    struct cq_out row;
    int rc = cq_db_chat_done(s->db, &p->chat, p->b);
    rc = rc ? rc : cq_db_out_get(s->db, p->a, &row);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc; /* another process of this home was faster */
    }
    struct cq_stored m = {
        .chat = p->chat,
        .seq = sent->seq,
        .user = s->id.user,
        .device = s->id.device,
        .dseq = p->b,
        .time_unix_ms = sent->time_unix_ms,
        .text = row.text,
        .text_size = row.text_size,
        .medium = row.descriptor,
        .medium_size = row.descriptor_size,
    };
    rc = cq_db_message_put(s->db, &m);
    rc = rc < 0 ? rc : cq_db_chat_head(s->db, &p->chat, sent->seq);
    rc = rc ? rc : cq_db_message_advance(s->db, &p->chat);
    rc = rc ? rc : cq_db_out_delete(s->db, p->a);
    cq_db_out_clear(&row);
    return rc;
}

static void
hold(cq_session_t *s, const struct cq_pending *p, uint64_t retry_after_ms, bool at_once)
{
    struct cq_chat_run *run = cq_session_run(s, &p->chat);
    unsigned shift = run->tries < 6 ? run->tries : 6;
    uint64_t pause = (uint64_t)RETRY_FIRST_MS << shift;
    pause = pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS;
    pause = pause > retry_after_ms ? pause : retry_after_ms;
    if (at_once && run->tries < REORDER_FREE) {
        pause = 0;
    }
    /* answers to the same burst count once */
    run->tries += !run->hold;
    run->hold = true;
    run->retry_at_ms = cq_session_now(s) + pause;
}

/* The message that was asked for is still waiting, under this number. If not, another process of
 * this home has sent a copy of it, has its OK, and has gone on for a window: ours came late. */
static int
conflict(cq_session_t *s, const struct cq_pending *p)
{
    struct cq_out row;
    int rc = cq_db_out_get(s->db, p->a, &row);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    bool is_ours = row.dseq == p->b && row.state != CQ_OUT_FAILED;
    cq_db_out_clear(&row);
    if (s->id.cloned || !is_ours) {
        return 0;
    }
    s->id.cloned = true;
    cq_session_warn(s, CQ_CLIENT_E_CLONED, cq_client_error_text(CQ_CLIENT_E_CLONED));
    return cq_db_identity_save(s->db, &s->id);
}

static int
refuse(cq_session_t *s, const struct cq_pending *p, int err)
{
    hold(s, p, 0, true);
    tell_answer(s, p, NULL, err);
    return cq_db_out_state(s->db, p->a, CQ_OUT_FAILED, err);
}

static int
rekey(cq_session_t *s, const struct cq_pending *p, int err)
{
    struct cq_chat_run *run = cq_session_run(s, &p->chat);
    if (++run->key_tries > KEY_TRIES_MAX) {
        return refuse(s, p, err);
    }
    hold(s, p, 0, true);
    cq_session_sync(s);
    return cq_db_out_state(s->db, p->a, CQ_OUT_REFUSED, err);
}

static int
take_answer(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    struct cq_sent sent;
    switch (cq_outbox_judge(a->err)) {
    case CQ_OUTBOX_SENT: {
        int rc = cq_schema_read(&cq_sent_schema, &a->fields, a->count, &sent);
        if (rc) {
            return rc;
        }
        struct cq_chat_run *run = cq_session_run(s, &p->chat);
        run->tries = run->key_tries = 0;
        s->do_fetch = s->do_ack = s->poke = true;
        rc = keep_sent(s, p, &sent);
        if (!rc) {
            tell_answer(s, p, &sent, 0);
        }
        return rc;
    }
    case CQ_OUTBOX_RETRY:
        hold(s, p, a->retry_after_ms, false);
        return 0;
    case CQ_OUTBOX_REORDER:
        if (a->detail >= p->b) {
            return conflict(s, p); /* it has accepted this number, yet not this message */
        }
        hold(s, p, 0, true);
        return cq_db_chat_done(s->db, &p->chat, a->detail)
                   ? -CQ_E_IO
                   : cq_db_out_state(s->db, p->a, CQ_OUT_REFUSED, a->err);
    case CQ_OUTBOX_REKEY:
        return rekey(s, p, a->err);
    case CQ_OUTBOX_REFUSED:
        return refuse(s, p, a->err);
    case CQ_OUTBOX_CONFLICT:
        return conflict(s, p);
    }
    return 0;
}

static void
on_sent(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    int rc = cq_session_tx(s);
    rc = rc ? rc : take_answer(s, p, a);
    s->do_send = true;
    if (rc) {
        cq_session_tx_fail(s, rc);
    }
}

/* ---- a device of its own, after a conflict ---- */

static int
requeue(cq_session_t *s)
{
    struct cq_out *rows = NULL;
    int count = cq_db_out_list(s->db, NULL, &rows);
    int rc = count < 0 ? count : 0;
    for (int i = 0; !rc && i < count; i++) {
        if (rows[i].state == CQ_OUT_FAILED || rows[i].state == CQ_OUT_UPLOADING) {
            continue;
        }
        rc = cq_db_out_next(s->db, &rows[i].chat, &rows[i].dseq, &rows[i].prev);
        rc = rc ? rc : seal_row(s, &rows[i], rows[i].key_version);
        rc = rc ? rc : cq_db_out_rebuild(s->db, &rows[i]);
    }
    cq_db_out_free(rows, count > 0 ? count : 0);
    return rc;
}

int
cq_session_new_device(cq_session_t *s)
{
    randombytes_buf(s->id.device.b, sizeof s->id.device.b);
    crypto_box_keypair(s->id.public_key, s->id.secret_key);
    s->id.cloned = false;
    s->id.token_size = 0;
    s->id.version = 0;
    int rc = cq_session_tx(s);
    rc = rc ? rc : cq_db_identity_save(s->db, &s->id);
    rc = rc ? rc : cq_db_chat_new_device(s->db);
    rc = rc ? rc : cq_db_out_new_device(s->db, CQ_E_UNKNOWN_OUTCOME);
    rc = rc ? rc : requeue(s);
    if (rc) {
        cq_session_tx_fail(s, rc);
    }
    return cq_session_tx_end(s);
}
