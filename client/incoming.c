/* SPDX-License-Identifier: MPL-2.0
 * What the server says unasked: messages, receipts, friends, presence, typing.
 */
#include <stdlib.h>

#include "client/inbox.h"
#include "client/keyring.h"
#include "client/session_parts.h"

enum {
    KEY_TRIES_MAX = 1
};

/* ---- messages ---- */

int
cq_session_store(cq_session_t *s, const struct cq_message *m)
{
    uint8_t key[CQ_KEY_SIZE];
    struct cq_opened opened = {0};
    cq_buf_t medium = {0};
    int rc = cq_db_key_get(s->db, &m->chat, m->key_version, key);
    if (rc == -CQ_E_NOT_FOUND && cq_session_run(s, &m->chat)->key_tries < KEY_TRIES_MAX) {
        return rc;
    }
    if (rc && rc != -CQ_E_NOT_FOUND) {
        return rc;
    }
    /* What cannot be read still has its place: without it the chat would never be complete. */
    bool is_read = rc == 0 && cq_keyring_decrypt(m, key, &opened) == 0;
    if (opened.medium) {
        cq_medium_write(&medium, opened.medium);
    }
    struct cq_stored row = {
        .chat = m->chat,
        .seq = m->seq,
        .user = m->user,
        .device = m->device,
        .dseq = m->dseq,
        .time_unix_ms = m->time_unix_ms,
        .unreadable = !is_read,
        .text = opened.text ? opened.text : "",
        .text_size = opened.text_size,
        .medium = medium.data,
        .medium_size = medium.size,
    };
    rc = cq_db_message_put(s->db, &row);
    free(opened.text);
    free(opened.medium);
    cq_buf_free(&medium);
    return rc < 0 ? rc : 0;
}

static int
take_message(cq_session_t *s, const struct cq_message *m)
{
    struct cq_chat chat;
    int rc = cq_db_chat_get(s->db, &m->chat, &chat);
    if (rc == -CQ_E_NOT_FOUND) {
        cq_session_sync(s); /* a chat that has just been opened */
        return 0;
    }
    if (rc) {
        return rc;
    }
    enum cq_inbox_verdict verdict = cq_inbox_judge(chat.held, m->seq);
    if (verdict == CQ_INBOX_BAD || verdict == CQ_INBOX_REPEAT) {
        return 0;
    }
    rc = cq_db_chat_head(s->db, &m->chat, m->seq);
    s->do_fetch = true; /* closes the gap, if this is one */
    if (rc || verdict == CQ_INBOX_GAP) {
        return rc;
    }
    rc = cq_session_store(s, m);
    if (rc == -CQ_E_NOT_FOUND) {
        cq_session_sync(s); /* brings the key; then HISTORY brings the message again */
        return 0;
    }
    s->do_ack = s->poke = true;
    return rc ? rc : cq_db_message_advance(s->db, &m->chat);
}

static int
on_message(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_message m;
    int rc = cq_schema_read(&cq_message_schema, fields, count, &m);
    return rc ? rc : take_message(s, &m);
}

/* ---- receipts ---- */

static void
receipt_event(cq_session_t *s, const struct cq_chat *chat, const struct cq_cursor *c)
{
    char from[CQ_ID_HEX_SIZE];
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_RECEIPT,
        .peer = chat->peer_name,
        .from = cq_session_name(s, &c->user, from),
        .seq = c->up_to,
        .time_unix_ms = c->time_unix_ms,
        .receipt = cq_id_is_none(&c->device) ? CQ_CLIENT_READ : CQ_CLIENT_DELIVERED,
        .own = cq_id_eq(&c->user, &s->id.user),
        .own_device = cq_id_eq(&c->device, &s->id.device),
    };
    cq_events_push(s->events, &e);
}

/* Has the application been told about this cursor? Also when another process of this home has
 * stored it first. grew: in the database; asked: SYNC brought it, which repeats what is known. */
static bool
is_told(cq_session_t *s, const struct cq_id *chat, const struct cq_cursor *c, bool grew, bool asked)
{
    for (int i = 0; i < s->told_count; i++) {
        struct cq_told *t = &s->told[i];
        if (cq_id_eq(&t->chat, chat) && cq_id_eq(&t->user, &c->user) &&
            cq_id_eq(&t->device, &c->device)) {
            bool is_new = c->up_to > t->up_to;
            t->up_to = is_new ? c->up_to : t->up_to;
            return !is_new;
        }
    }
    if (s->told_count == CQ_TOLD_MAX) {
        s->told_count = 0; /* some may be told twice */
    }
    s->told = cq_db_grow(s->told, s->told_count, sizeof *s->told);
    s->told[s->told_count++] = (struct cq_told){*chat, c->user, c->device, c->up_to};
    return asked && !grew;
}

void
cq_session_cursor(cq_session_t *s,
                  const struct cq_chat *chat,
                  const struct cq_cursor *c,
                  enum cq_cursor_source source)
{
    bool is_mine = cq_id_eq(&c->user, &s->id.user);
    int rc = cq_session_tx(s);
    rc = rc ? rc : cq_db_cursor_put(s->db, &chat->chat, c);
    bool grew = rc == 1;
    if (grew && is_mine && cq_id_is_none(&c->device)) {
        rc = cq_db_chat_acked(s->db, &chat->chat, 0, c->up_to);
    } else if (grew && is_mine && cq_id_eq(&c->device, &s->id.device)) {
        rc = cq_db_chat_acked(s->db, &chat->chat, c->up_to, 0);
    }
    if (rc < 0) {
        cq_session_tx_fail(s, rc);
    } else if (source != CQ_CURSOR_OLD && !cq_id_eq(&c->device, &s->id.device) &&
               !is_told(s, &chat->chat, c, grew, source == CQ_CURSOR_SYNCED)) {
        receipt_event(s, chat, c);
    }
}

static int
on_receipt(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_receipt r;
    struct cq_chat chat;
    int rc = cq_schema_read(&cq_receipt_schema, fields, count, &r);
    rc = rc ? rc : cq_db_chat_get(s->db, &r.chat, &chat);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc; /* the next sync brings chat and cursors */
    }
    struct cq_cursor cursor = {r.user, r.device, r.up_to, r.time_unix_ms};
    cq_session_cursor(s, &chat, &cursor, CQ_CURSOR_PUSHED);
    return 0;
}

/* ---- people ---- */

void
cq_session_friend_event(cq_session_t *s, const struct cq_friend *f, uint64_t request)
{
    char name[CQ_NAME_MAX + 1] = "";
    memcpy(name, f->name.p, f->name.n);
    int rc = cq_session_tx(s);
    rc = rc ? rc : cq_db_person_put(s->db, &f->user, name, f->name.n);
    if (rc) {
        cq_session_tx_fail(s, rc);
    }
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_FRIEND,
        .request = request,
        .peer = name,
        .relation = (enum cq_client_relation)f->relation,
        .blocked = f->blocked,
        .open = f->open,
    };
    cq_events_push(s->events, &e);
    struct cq_chat chat;
    if (!cq_id_is_none(&f->chat) &&
        (cq_db_chat_get(s->db, &f->chat, &chat) || chat.open != f->open)) {
        cq_session_sync(s);
    }
}

static int
on_friend(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_friend f;
    int rc = cq_schema_read(&cq_friend_schema, fields, count, &f);
    if (!rc) {
        cq_session_friend_event(s, &f, 0);
    }
    return rc;
}

void
cq_session_privacy_event(cq_session_t *s, const struct cq_privacy *privacy, uint64_t request)
{
    const cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_PRIVACY,
        .request = request,
        .hide_last_seen = privacy->hide_last_seen,
    };
    cq_events_push(s->events, &e);
}

void
cq_session_presence_event(cq_session_t *s,
                          const struct cq_presence_states *states,
                          uint64_t request)
{
    cq_reader_t r = cq_list_reader(&states->states);
    for (size_t i = 0; i < states->states.count; i++) {
        struct cq_presence_state state;
        char name[CQ_ID_HEX_SIZE];
        if (cq_schema_read_array(&cq_presence_state_schema, &r, &state)) {
            return;
        }
        cq_client_event_t e = {
            .type = CQ_CLIENT_EVENT_PRESENCE,
            .request = request,
            .peer = cq_session_name(s, &state.user, name),
            .online = state.online,
            .time_unix_ms = state.last_seen_unix_ms,
        };
        cq_events_push(s->events, &e);
    }
}

static int
on_presence(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_presence_states states;
    int rc = cq_schema_read(&cq_presence_states_schema, fields, count, &states);
    if (!rc) {
        cq_session_presence_event(s, &states, 0);
    }
    return rc;
}

static int
on_privacy(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_privacy privacy;
    int rc = cq_schema_read(&cq_privacy_schema, fields, count, &privacy);
    if (!rc) {
        cq_session_privacy_event(s, &privacy, 0);
    }
    return rc;
}

static int
on_typing(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_typing_note note;
    struct cq_chat chat;
    int rc = cq_schema_read(&cq_typing_note_schema, fields, count, &note);
    if (!rc && !cq_db_chat_get(s->db, &note.chat, &chat) && cq_id_eq(&note.user, &chat.peer)) {
        cq_client_event_t e = {
            .type = CQ_CLIENT_EVENT_TYPING, .peer = chat.peer_name, .online = note.on};
        cq_events_push(s->events, &e);
    }
    return rc;
}

/* ---- the connection ---- */

static int
on_sync_now(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_sync_now now;
    int rc = cq_schema_read(&cq_sync_now_schema, fields, count, &now);
    if (!rc) {
        cq_session_sync(s);
    }
    return rc;
}

static int
on_goaway(cq_session_t *s, cq_reader_t *fields, size_t count)
{
    struct cq_goaway g;
    int rc = cq_schema_read(&cq_goaway_schema, fields, count, &g);
    if (rc) {
        return rc;
    }
    cq_reader_t r = cq_list_reader(&g.edges);
    struct cq_view first = {NULL, 0};
    if (g.edges.count) {
        first = cq_read_str(&r, 0, CQ_URL_MAX);
    }
    uint32_t wait =
        cq_reconnect_wait((uint32_t)g.not_before_ms, (uint32_t)g.jitter_ms, cq_session_random());
    cq_session_fail(s, CQ_CLIENT_E_OFFLINE, "the server closes: going elsewhere");
    cq_reconnect_prefer(&s->reconnect, (const char *)first.p, first.n);
    cq_session_wait(s, wait);
    return 0;
}

static const struct push_row {
    uint8_t code;
    bool writes; /* needs the turn's transaction */
    int (*fn)(cq_session_t *s, cq_reader_t *fields, size_t count);
} push_rows[] = {
    {CQ_OP_MESSAGE, true, on_message},     {CQ_OP_RECEIPT, true, on_receipt},
    {CQ_OP_FRIEND, true, on_friend},       {CQ_OP_PRESENCE_NOTE, false, on_presence},
    {CQ_OP_TYPING_NOTE, false, on_typing}, {CQ_OP_SYNC_NOW, false, on_sync_now},
    {CQ_OP_GOAWAY, false, on_goaway},      {CQ_OP_PRIVACY_NOTE, false, on_privacy},
};

void
cq_session_push(cq_session_t *s, const struct cq_frame_op *op)
{
    for (size_t i = 0; i < sizeof push_rows / sizeof push_rows[0]; i++) {
        if (push_rows[i].code != op->code) {
            continue;
        }
        cq_reader_t fields = op->fields;
        int rc = push_rows[i].writes ? cq_session_tx(s) : 0;
        rc = rc ? rc : push_rows[i].fn(s, &fields, op->field_count);
        if (rc == -CQ_E_BAD_ARG || rc == -CQ_E_BAD_FRAME) {
            cq_session_fail(s, -rc, "the server sent fields that cannot be read");
        } else if (rc) {
            cq_session_tx_fail(s, rc);
        }
        return;
    }
    /* Unknown pushes of later versions are ignored. */
}
