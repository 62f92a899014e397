/* SPDX-License-Identifier: MPL-2.0 */
#include <stdlib.h>

#include "common/wire/pack.h"

#include "client/session_parts.h"

enum {
    ARRAY_HEADER = 5,
    KEEP_FREE = 32, /* pending slots that SEND and HISTORY leave to commands, ACK and SYNC */
    COMMAND_PAUSE_MS = 250,
};

/* ---- frames out ---- */

void
cq_session_write(cq_session_t *s)
{
    if (!s->out_count) {
        return;
    }
    cq_pack_array_end(&s->out, s->out_place, s->out_count);
    cq_link_send(s->link, s->out.data, s->out.size);
    cq_buf_clear(&s->out);
    s->out_count = 0;
    s->sent_ms = cq_session_now(s);
}

static void
add_op(cq_session_t *s, uint8_t op, uint64_t rid, const struct cq_schema *schema, const void *in)
{
    cq_buf_t one = {0};
    cq_frame_request(&one, (enum cq_op_code)op, rid, schema, in);
    if (s->out.size + one.size + ARRAY_HEADER > CQ_FRAME_MAX || s->out_count == CQ_FRAME_OPS_MAX) {
        cq_session_write(s);
    }
    if (!s->out_count) {
        s->out_place = cq_pack_array_begin(&s->out);
    }
    cq_buf_append(&s->out, one.data, one.size);
    s->out_count++;
    cq_buf_free(&one);
}

bool
cq_session_can_ask(const cq_session_t *s)
{
    return s->phase == CQ_PHASE_ONLINE && s->pending_count + KEEP_FREE < CQ_PENDING_MAX;
}

void
cq_session_ask(cq_session_t *s,
               struct cq_pending *p,
               const struct cq_schema *schema,
               const void *in)
{
    for (int i = 0; i < CQ_PENDING_MAX; i++) {
        if (!s->pending[i].rid) {
            p->rid = ++s->next_rid;
            p->since_ms = cq_session_now(s);
            s->pending[i] = *p;
            s->pending_count++;
            add_op(s, p->op, p->rid, schema, in);
            return;
        }
    }
    cq_session_fail(s, CQ_E_BUSY, "the server leaves too many requests unanswered");
}

void
cq_session_tell(cq_session_t *s, uint8_t op, const struct cq_schema *schema, const void *in)
{
    add_op(s, op, 0, schema, in);
}

unsigned
cq_session_pending(const cq_session_t *s, uint8_t op, const struct cq_id *chat)
{
    unsigned count = 0;
    for (int i = 0; i < CQ_PENDING_MAX; i++) {
        const struct cq_pending *p = &s->pending[i];
        count += p->rid && p->op == op && (!chat || cq_id_eq(&p->chat, chat));
    }
    return count;
}

void
cq_session_forget(cq_session_t *s)
{
    for (int i = 0; i < CQ_PENDING_MAX; i++) {
        if (s->pending[i].rid && s->pending[i].cmd) {
            s->pending[i].cmd->is_sent = false;
        }
        s->pending[i] = (struct cq_pending){0};
    }
    s->pending_count = 0;
    cq_buf_clear(&s->out);
    s->out_count = 0;
}

/* ---- frames in ---- */

static void
take_answer(cq_session_t *s, const struct cq_frame_op *op)
{
    struct cq_pending p = {0};
    for (int i = 0; op->rid && i < CQ_PENDING_MAX; i++) {
        if (s->pending[i].rid == op->rid) {
            p = s->pending[i];
            s->pending[i] = (struct cq_pending){0};
            s->pending_count--;
            break;
        }
    }
    if (!p.rid) {
        return; /* an answer to nothing: e.g. of the connection before */
    }
    struct cq_answer a = {.fields = op->fields, .count = op->field_count};
    if (op->code == CQ_OP_ERR) {
        struct cq_failure f;
        cq_reader_t r = op->fields;
        if (cq_schema_read(&cq_failure_schema, &r, op->field_count, &f) || !f.err) {
            f = (struct cq_failure){.err = CQ_E_INTERNAL};
        }
        a.err = (int)f.err;
        a.retry_after_ms = f.retry_after_ms;
        a.detail = f.detail;
    }
    p.fn(s, &p, &a);
}

void
cq_session_on_frame(void *ctx, const void *data, size_t n)
{
    cq_session_t *s = ctx;
    cq_reader_t r;
    int count = cq_frame_open(data, n, CQ_LIST_MAX, &r);
    if (count < 0) {
        cq_session_fail(s, -count, "the server sent what is not a frame");
        return;
    }
    for (int i = 0; i < count && s->phase >= CQ_PHASE_AUTH; i++) {
        struct cq_frame_op op;
        if (cq_frame_next(&r, &op)) {
            cq_session_fail(s, CQ_E_BAD_FRAME, "the server sent what is not an operation");
            break;
        }
        if (op.code == CQ_OP_OK || op.code == CQ_OP_ERR) {
            take_answer(s, &op);
        } else if (s->phase == CQ_PHASE_ONLINE) {
            cq_session_push(s, &op);
        }
    }
    if (cq_session_tx_end(s)) {
        cq_session_fail(s, CQ_E_IO, "the database of this device cannot be written");
    }
}

/* ---- commands of the application ---- */

static int
read_friend(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_friend f;
    int rc = cq_schema_read(&cq_friend_schema, &a->fields, a->count, &f);
    if (!rc) {
        cq_session_friend_event(s, &f, cmd->request);
    }
    return rc;
}

static int
read_friends(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_friends list = {0};
    int rc = cq_schema_read(&cq_friends_schema, &a->fields, a->count, &list);
    cq_reader_t r = cq_list_reader(&list.friends);
    for (size_t i = 0; !rc && i < list.friends.count; i++) {
        struct cq_friend f;
        rc = cq_schema_read_array(&cq_friend_schema, &r, &f);
        if (!rc) {
            cq_session_friend_event(s, &f, cmd->request);
        }
    }
    return rc;
}

static int
read_presence(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_presence_states states;
    int rc = cq_schema_read(&cq_presence_states_schema, &a->fields, a->count, &states);
    if (!rc) {
        cq_session_presence_event(s, &states, cmd->request);
    }
    return rc;
}

static int
read_privacy(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_privacy privacy;
    int rc = cq_schema_read(&cq_privacy_schema, &a->fields, a->count, &privacy);
    if (!rc) {
        cq_session_privacy_event(s, &privacy, cmd->request);
    }
    return rc;
}

static int
read_devices(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_devices list = {0};
    int rc = cq_schema_read(&cq_devices_schema, &a->fields, a->count, &list);
    cq_reader_t r = cq_list_reader(&list.devices);
    for (size_t i = 0; !rc && i < list.devices.count; i++) {
        struct cq_device_row row;
        rc = cq_schema_read_array(&cq_device_row_schema, &r, &row);
        if (rc) {
            break;
        }
        char id[CQ_ID_HEX_SIZE];
        char label[CQ_LABEL_MAX + 1] = "";
        if (row.label.n) {
            memcpy(label, row.label.p, row.label.n);
        }
        cq_client_event_t e = {
            .type = CQ_CLIENT_EVENT_DEVICE,
            .request = cmd->request,
            .id = cq_id_hex(&row.device, id),
            .text = label,
            .time_unix_ms = row.created_unix_ms,
            .revoked = row.revoked,
            .own_device = cq_id_eq(&row.device, &s->id.device),
        };
        cq_events_push(s->events, &e);
    }
    return rc;
}

/* One step of a message's life to the application. */
static void
tell_proof(cq_session_t *s, const struct cq_command *cmd, cq_client_event_t *e)
{
    e->type = CQ_CLIENT_EVENT_PROOF;
    e->request = cmd->request;
    e->peer = cmd->name;
    e->seq = cmd->seq;
    cq_events_push(s->events, e);
}

/* Whose step it is: name of the user, hex of the device (none: no device). */
static void
name_step(cq_session_t *s,
          cq_client_event_t *e,
          const struct cq_id *user,
          const struct cq_id *device,
          char hex[2][CQ_ID_HEX_SIZE])
{
    e->from = cq_session_name(s, user, hex[0]);
    e->own = cq_id_eq(user, &s->id.user);
    if (device) {
        e->id = cq_id_hex(device, hex[1]);
        e->own_device = e->own && cq_id_eq(device, &s->id.device);
    }
}

static int
read_deliveries(cq_session_t *s, const struct cq_command *cmd, const struct cq_life *life)
{
    cq_reader_t r = cq_list_reader(&life->devices);
    int rc = 0;
    for (size_t i = 0; !rc && i < life->devices.count; i++) {
        struct cq_life_device d;
        char hex[2][CQ_ID_HEX_SIZE];
        char label[CQ_LABEL_MAX + 1] = "";
        rc = cq_schema_read_array(&cq_life_device_schema, &r, &d);
        if (rc) {
            break;
        }
        memcpy(label, d.label.p ? (const char *)d.label.p : "", d.label.n);
        cq_client_event_t e = {.proof = CQ_CLIENT_PROOF_DELIVERED,
                               .text = label,
                               .text_size = d.label.n,
                               .time_unix_ms = d.delivered_unix_ms,
                               .revoked = d.revoked};
        name_step(s, &e, &d.user, &d.device, hex);
        tell_proof(s, cmd, &e);
    }
    return rc;
}

static int
read_reads(cq_session_t *s, const struct cq_command *cmd, const struct cq_life *life)
{
    cq_reader_t r = cq_list_reader(&life->members);
    int rc = 0;
    for (size_t i = 0; !rc && i < life->members.count; i++) {
        struct cq_life_member m;
        char hex[2][CQ_ID_HEX_SIZE];
        rc = cq_schema_read_array(&cq_life_member_schema, &r, &m);
        if (!rc && !cq_id_eq(&m.user, &life->user)) {
            cq_client_event_t e = {.proof = CQ_CLIENT_PROOF_READ, .time_unix_ms = m.read_unix_ms};
            name_step(s, &e, &m.user, NULL, hex);
            tell_proof(s, cmd, &e);
        }
    }
    return rc;
}

static int
read_life(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    struct cq_life life;
    char hex[2][CQ_ID_HEX_SIZE];
    int rc = cq_schema_read(&cq_life_schema, &a->fields, a->count, &life);
    if (rc) {
        return rc;
    }
    cq_client_event_t accepted = {
        .proof = CQ_CLIENT_PROOF_ACCEPTED, .time_unix_ms = life.time_unix_ms, .position = life.pos};
    name_step(s, &accepted, &life.user, &life.device, hex);
    tell_proof(s, cmd, &accepted);
    cq_client_event_t durable = {.proof = CQ_CLIENT_PROOF_DURABLE,
                                 .time_unix_ms = life.durable_unix_ms};
    tell_proof(s, cmd, &durable);
    rc = read_deliveries(s, cmd, &life);
    return rc ? rc : read_reads(s, cmd, &life);
}

static int
read_nothing(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    (void)s;
    (void)cmd;
    (void)a;
    return 0;
}

static int
read_logout(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a)
{
    (void)cmd;
    (void)a;
    s->id.token_size = 0;
    s->is_wanted = false;
    int rc = cq_session_tx(s);
    return rc ? rc : cq_db_identity_save(s->db, &s->id);
}

struct command_row {
    uint8_t op;
    int (*read)(cq_session_t *s, const struct cq_command *cmd, struct cq_answer *a);
};

static const struct command_row command_rows[] = {
    {CQ_OP_ADD, read_friend},      {CQ_OP_ACCEPT, read_friend},   {CQ_OP_DECLINE, read_friend},
    {CQ_OP_CANCEL, read_friend},   {CQ_OP_REMOVE, read_friend},   {CQ_OP_BLOCK, read_friend},
    {CQ_OP_UNBLOCK, read_friend},  {CQ_OP_FRIENDS, read_friends}, {CQ_OP_PRESENCE, read_presence},
    {CQ_OP_DEVICES, read_devices}, {CQ_OP_REVOKE, read_nothing},  {CQ_OP_LOGOUT, read_logout},
    {CQ_OP_PRIVACY, read_privacy}, {CQ_OP_LEDGER, read_life},
};

static void
unlink_command(cq_session_t *s, const struct cq_command *cmd)
{
    struct cq_command **at = &s->commands;
    while (*at && *at != cmd) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = cmd->next;
    }
}

bool
cq_session_is_passing(int err)
{
    static const int passing[] = {CQ_E_BUSY, CQ_E_UNAVAILABLE, CQ_E_DEADLINE, CQ_E_RATE_LIMITED,
                                  CQ_E_UNKNOWN_OUTCOME};
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        if (passing[i] == err) {
            return true;
        }
    }
    return false;
}

static void
on_command(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    struct cq_command *cmd = p->cmd;
    uint64_t now = cq_session_now(s);
    uint64_t pause = a->retry_after_ms > COMMAND_PAUSE_MS ? a->retry_after_ms : COMMAND_PAUSE_MS;
    if (cq_session_is_passing(a->err) && now + pause < cmd->since_ms + CQ_COMMAND_RETRY_MS) {
        cmd->is_sent = false;
        cmd->not_before_ms = now + pause;
        cq_session_soon(s, pause);
        return;
    }
    int err = a->err;
    for (size_t i = 0; !err && i < sizeof command_rows / sizeof command_rows[0]; i++) {
        if (command_rows[i].op == p->op) {
            err = -command_rows[i].read(s, cmd, a);
        }
    }
    unlink_command(s, cmd);
    bool was_logout = p->op == CQ_OP_LOGOUT && !err;
    if (was_logout && cq_session_tx_end(s)) {
        err = CQ_E_IO;
    }
    cq_session_answer(s, cmd, err, NULL);
    if (was_logout) {
        cq_session_give_up(s, 0, "logged out");
    }
}

static void
send_command(cq_session_t *s, struct cq_command *cmd)
{
    struct cq_pending p = {.op = (uint8_t)cmd->op, .fn = on_command, .cmd = cmd};
    const struct cq_op *op = cq_op_find(cmd->op);
    struct cq_friend_name name = {{(const uint8_t *)cmd->name, strlen(cmd->name)}};
    struct cq_revoke revoke = {cmd->id};
    struct cq_presence presence = {{{NULL, 0}, 0}};
    struct cq_privacy_change privacy = {cmd->on, cmd->hide};
    struct cq_ledger ledger = {cmd->id, cmd->seq};
    struct cq_empty empty = {0};
    const void *in = op->fields == &cq_friend_name_schema      ? (const void *)&name
                     : op->fields == &cq_revoke_schema         ? (const void *)&revoke
                     : op->fields == &cq_presence_schema       ? (const void *)&presence
                     : op->fields == &cq_ledger_schema         ? (const void *)&ledger
                     : op->fields == &cq_privacy_change_schema ? (const void *)&privacy
                                                               : (const void *)&empty;
    cmd->is_sent = true;
    cq_session_ask(s, &p, op->fields, in);
}

void
cq_session_commands(cq_session_t *s)
{
    uint64_t now = cq_session_now(s);
    bool sync = false;
    for (struct cq_command *c = s->commands; c && s->phase == CQ_PHASE_ONLINE; c = c->next) {
        /* presence names people by id: the sync before it says who they are */
        bool is_early = c->op == CQ_OP_PRESENCE && !s->is_synced;
        if (c->is_sent || c->not_before_ms > now || is_early) {
            continue;
        }
        if (c->op == CQ_COMMAND_SYNC) {
            sync = true;
        } else if (s->pending_count + 1 < CQ_PENDING_MAX) {
            send_command(s, c);
        }
    }
    if (sync && !s->is_syncing) {
        cq_session_sync(s);
    }
}
