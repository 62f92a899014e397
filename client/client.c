/* SPDX-License-Identifier: MPL-2.0
 * The public functions: checks, what the disk answers, and the way to the session and back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/wire/name.h"

#include "client/client_parts.h"
#include "client/reconnect.h"
#include "client/seal.h"

enum {
    GIVE_AT_ONCE = 200,
    EVENTS_A_TURN = 512
};

/* ---- opening ---- */

static void
take_identity(cq_client_t *c, struct cq_identity *id)
{
    c->user_id = id->user;
    c->device_id = id->device;
    memcpy(c->user, id->name, sizeof c->user);
    cq_id_hex(&id->device, c->device);
    sodium_memzero(id, sizeof *id);
}

static int
open_home(cq_client_t *c, const cq_client_config_t *config)
{
    struct cq_identity id;
    int rc = cq_db_open(config->home, &c->db);
    rc = rc ? rc : cq_db_identity_load(c->db, &id);
    if (rc) {
        return rc;
    }
    const char *servers = config->servers ? config->servers
                          : id.servers[0] ? id.servers
                                          : CQ_CLIENT_DEFAULT_SERVERS;
    struct cq_reconnect urls;
    if (strlen(servers) >= sizeof c->servers || cq_reconnect_init(&urls, servers, 0)) {
        return -CQ_CLIENT_E_BAD_URL;
    }
    (void)snprintf(c->servers, sizeof c->servers, "%s", servers);
    take_identity(c, &id);
    return 0;
}

int
cq_client_open(const cq_client_config_t *config, cq_client_t **client)
{
    *client = NULL;
    cq_client_t *c = cq_alloc(sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->events = cq_events_new();
    c->home = strdup(config->home);
    c->ca_file = config->ca_file ? strdup(config->ca_file) : NULL;
    c->accepts_any_certificate = config->accept_any_certificate;
    c->messages = config->messages;
    c->on_event = config->on_event;
    c->ctx = config->ctx;
    char host[CQ_LABEL_MAX + 1] = "";
    if (!config->label &&
        (gethostname(host, sizeof host) || !cq_utf8_ok(host, strnlen(host, sizeof host)))) {
        host[0] = '\0';
    }
    (void)snprintf(c->label, sizeof c->label, "%.*s", CQ_LABEL_MAX,
                   config->label ? config->label : host);
    int rc = c->events && c->home ? open_home(c, config) : -CQ_E_IO;
    if (rc) {
        cq_client_close(&c);
        return rc;
    }
    cq_events_poke(c->events);
    *client = c;
    return 0;
}

void
cq_client_close(cq_client_t **p)
{
    cq_client_t *c = *p;
    *p = NULL;
    if (!c) {
        return;
    }
    cq_transfer_destroy(&c->transfer); /* it uses the session */
    cq_session_destroy(&c->session);
    cq_events_destroy(&c->events);
    cq_db_close(&c->db);
    pthread_mutex_destroy(&c->lock);
    free(c->shown);
    free(c->home);
    free(c->ca_file);
    free(c);
}

int
cq_client_fd(const cq_client_t *c)
{
    return cq_events_fd(c->events);
}

const char *
cq_client_user(const cq_client_t *c)
{
    return c->user;
}

const char *
cq_client_servers(const cq_client_t *c)
{
    return c->servers;
}

const char *
cq_client_device(const cq_client_t *c)
{
    return c->device;
}

/* ---- events ---- */

static struct shown *
shown_of(cq_client_t *c, const struct cq_chat *chat)
{
    for (int i = 0; i < c->shown_count; i++) {
        if (cq_id_eq(&c->shown[i].chat, &chat->chat)) {
            /* lowered: the server was restored and the seqs after it have new messages */
            if (chat->shown < c->shown[i].seen_in_db && chat->shown < c->shown[i].shown) {
                c->shown[i].shown = chat->shown;
            }
            c->shown[i].seen_in_db = chat->shown;
            return &c->shown[i];
        }
    }
    c->shown = realloc(c->shown, (size_t)(c->shown_count + 1) * sizeof *c->shown);
    CQ_ASSERT(c->shown);
    c->shown[c->shown_count] = (struct shown){chat->chat, chat->shown, chat->shown};
    return &c->shown[c->shown_count++];
}

static void
give_message(cq_client_t *c, const struct cq_chat *chat, const struct cq_stored *m)
{
    bool own = cq_id_eq(&m->user, &c->user_id);
    struct cq_shown_medium medium;
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_MESSAGE,
        .peer = chat->peer_name,
        .from = own ? c->user : chat->peer_name,
        .text = m->text,
        .text_size = m->text_size,
        .seq = m->seq,
        .time_unix_ms = m->time_unix_ms,
        .own = own,
        .own_device = own && cq_id_eq(&m->device, &c->device_id),
        .unreadable = m->unreadable,
        .media = cq_client_show_medium(&medium, m->medium, m->medium_size),
    };
    c->on_event(c->ctx, &e);
}

static int
give_chat(cq_client_t *c, const struct cq_chat *chat)
{
    struct shown *at = shown_of(c, chat);
    int given = 0;
    while (at->shown < chat->held) {
        struct cq_range range = {.from = at->shown + 1, .to = chat->held, .limit = GIVE_AT_ONCE};
        struct cq_stored *rows = NULL;
        pthread_mutex_lock(&c->lock);
        int count = cq_db_message_range(c->db, &chat->chat, &range, &rows);
        pthread_mutex_unlock(&c->lock);
        if (count < 0) {
            return count;
        }
        for (int i = 0; i < count; i++) {
            give_message(c, chat, &rows[i]);
            at->shown = rows[i].seq;
        }
        cq_db_message_free(rows, count);
        given += count;
        if (!count) {
            at->shown = chat->held;
        }
    }
    if (given) {
        pthread_mutex_lock(&c->lock);
        int rc = cq_db_chat_shown(c->db, &chat->chat, at->shown);
        pthread_mutex_unlock(&c->lock);
        given = rc ? rc : given;
        at->seen_in_db = at->shown;
    }
    return given;
}

static int
give_messages(cq_client_t *c)
{
    struct cq_chat *chats = NULL;
    pthread_mutex_lock(&c->lock);
    int count = cq_db_chat_all(c->db, &chats);
    pthread_mutex_unlock(&c->lock);
    int given = count < 0 ? count : 0;
    for (int i = 0; i < count && given >= 0; i++) {
        int rc = give_chat(c, &chats[i]);
        given = rc < 0 ? rc : given + rc;
    }
    free(chats);
    return given;
}

static void
refresh_identity(cq_client_t *c)
{
    struct cq_identity id;
    pthread_mutex_lock(&c->lock);
    if (!cq_db_identity_load(c->db, &id)) {
        take_identity(c, &id);
    }
    pthread_mutex_unlock(&c->lock);
}

int
cq_client_dispatch(cq_client_t *c)
{
    int given = 0;
    bool poked = cq_events_take_poke(c->events);
    if (poked && c->messages && c->on_event) {
        given = give_messages(c);
        if (given < 0) {
            return given;
        }
    }
    int events = 0;
    for (struct cq_event_node *n; events < EVENTS_A_TURN && (n = cq_events_pop(c->events));
         events++) {
        if (n->event.type == CQ_CLIENT_EVENT_STATE) {
            refresh_identity(c);
        }
        if (c->on_event) {
            c->on_event(c->ctx, &n->event);
        }
        free(n);
    }
    if (events == EVENTS_A_TURN) {
        cq_events_poke(c->events);
    }
    return given + events;
}

/* ---- requests ---- */

int64_t
cq_client_submit(cq_client_t *c, struct cq_command *cmd, bool answered)
{
    pthread_mutex_lock(&c->lock);
    int rc = 0;
    if (!c->session) {
        struct cq_session_cfg cfg = {.home = c->home,
                                     .servers = c->servers,
                                     .label = c->label,
                                     .ca_file = c->ca_file,
                                     .accepts_any_certificate = c->accepts_any_certificate,
                                     .events = c->events};
        rc = cq_session_new(&cfg, &c->session);
    }
    uint64_t request = ++c->next_request;
    cmd->request = answered ? request : 0;
    if (!rc) {
        rc = cq_session_submit(c->session, &cmd);
    } else {
        cq_command_destroy(&cmd);
    }
    pthread_mutex_unlock(&c->lock);
    return rc ? rc : (int64_t)request;
}

static int64_t
simple_request(cq_client_t *c, unsigned op)
{
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = op;
    return cq_client_submit(c, cmd, true);
}

static bool
copy_name(struct cq_command *cmd, const char *name)
{
    size_t n = strlen(name);
    if (!cq_name_ok(name, n)) {
        return false;
    }
    memcpy(cmd->name, name, n + 1);
    return true;
}

static int64_t
authenticate(cq_client_t *c, unsigned op, const char *name, const char *password)
{
    size_t n = strlen(password);
    if (n < CQ_PASSWORD_MIN || n > CQ_PASSWORD_MAX || !cq_utf8_ok(password, n)) {
        return -CQ_E_BAD_PASSWORD;
    }
    if (c->user[0] && strcmp(c->user, name) != 0) {
        return cq_name_ok(name, strlen(name)) ? -CQ_CLIENT_E_OTHER_USER : -CQ_E_BAD_NAME;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = op;
    if (!copy_name(cmd, name)) {
        cq_command_destroy(&cmd);
        return -CQ_E_BAD_NAME;
    }
    memcpy(cmd->password, password, n + 1);
    return cq_client_submit(c, cmd, true);
}

int64_t
cq_client_signup(cq_client_t *c, const char *name, const char *password)
{
    return authenticate(c, CQ_OP_SIGNUP, name, password);
}

int64_t
cq_client_login(cq_client_t *c, const char *name, const char *password)
{
    return authenticate(c, CQ_OP_LOGIN, name, password);
}

/* 0 or -CQ_CLIENT_E_NOT_LOGGED_IN, or an error of the database */
static int
need_login(cq_client_t *c)
{
    struct cq_identity id;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_identity_load(c->db, &id);
    pthread_mutex_unlock(&c->lock);
    rc = rc ? rc : id.token_size ? 0 : -CQ_CLIENT_E_NOT_LOGGED_IN;
    sodium_memzero(&id, sizeof id);
    return rc;
}

int
cq_client_connect(cq_client_t *c)
{
    int rc = need_login(c);
    if (rc) {
        return rc;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = CQ_COMMAND_CONNECT;
    int64_t request = cq_client_submit(c, cmd, false);
    return request < 0 ? (int)request : cq_client_resume_uploads(c);
}

int64_t
cq_client_friend(cq_client_t *c, enum cq_client_action action, const char *name)
{
    static const uint8_t ops[] = {
        [CQ_CLIENT_ADD] = CQ_OP_ADD,         [CQ_CLIENT_ACCEPT] = CQ_OP_ACCEPT,
        [CQ_CLIENT_DECLINE] = CQ_OP_DECLINE, [CQ_CLIENT_CANCEL] = CQ_OP_CANCEL,
        [CQ_CLIENT_REMOVE] = CQ_OP_REMOVE,   [CQ_CLIENT_BLOCK] = CQ_OP_BLOCK,
        [CQ_CLIENT_UNBLOCK] = CQ_OP_UNBLOCK,
    };
    if ((unsigned)action >= sizeof ops) {
        return -CQ_E_BAD_ARG;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = ops[action];
    if (!copy_name(cmd, name)) {
        cq_command_destroy(&cmd);
        return -CQ_E_BAD_NAME;
    }
    return cq_client_submit(c, cmd, true);
}

int64_t
cq_client_friends(cq_client_t *c)
{
    return simple_request(c, CQ_OP_FRIENDS);
}

int64_t
cq_client_presence(cq_client_t *c)
{
    return simple_request(c, CQ_OP_PRESENCE);
}

int64_t
cq_client_devices(cq_client_t *c)
{
    return simple_request(c, CQ_OP_DEVICES);
}

int64_t
cq_client_revoke(cq_client_t *c, const char *device_id)
{
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    size_t n = 0;
    cmd->op = CQ_OP_REVOKE;
    bool ok =
        strlen(device_id) == (size_t)2 * CQ_ID_SIZE &&
        !sodium_hex2bin(cmd->id.b, CQ_ID_SIZE, device_id, (size_t)2 * CQ_ID_SIZE, NULL, &n, NULL) &&
        n == CQ_ID_SIZE && !cq_id_is_none(&cmd->id);
    if (!ok) {
        cq_command_destroy(&cmd);
        return -CQ_E_BAD_ARG;
    }
    return cq_client_submit(c, cmd, true);
}

int64_t
cq_client_privacy(cq_client_t *c, enum cq_client_last_seen last_seen)
{
    if ((unsigned)last_seen > CQ_CLIENT_LAST_SEEN_HIDE) {
        return -CQ_E_BAD_ARG;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = CQ_OP_PRIVACY;
    cmd->on = last_seen != CQ_CLIENT_LAST_SEEN_ASK;
    cmd->hide = last_seen == CQ_CLIENT_LAST_SEEN_HIDE;
    return cq_client_submit(c, cmd, true);
}

int64_t
cq_client_logout(cq_client_t *c)
{
    return simple_request(c, CQ_OP_LOGOUT);
}

int64_t
cq_client_sync(cq_client_t *c)
{
    return simple_request(c, CQ_COMMAND_SYNC);
}

/* ---- messages ---- */

int64_t
cq_client_proof(cq_client_t *c, const char *peer, uint64_t seq)
{
    struct cq_chat chat;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_chat_by_name(c->db, peer, &chat);
    pthread_mutex_unlock(&c->lock);
    if (rc) {
        return rc;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = CQ_OP_LEDGER;
    cmd->id = chat.chat;
    cmd->seq = seq;
    memcpy(cmd->name, chat.peer_name, sizeof cmd->name);
    return cq_client_submit(c, cmd, true);
}

void
cq_client_flush(cq_client_t *c, const struct cq_out *added)
{
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = CQ_COMMAND_FLUSH;
    if (added) {
        cmd->message = added->id;
        cmd->id = added->chat;
        cmd->dseq = added->dseq;
    }
    /* Without a session (no thread left) or with too many commands it is still on disk: the next
     * look finds it. */
    (void)cq_client_submit(c, cmd, false);
}

int
cq_client_may_send(cq_client_t *c, const char *peer, struct cq_chat *chat)
{
    struct cq_identity id;
    int rc = cq_db_identity_load(c->db, &id);
    if (rc || !id.token_size || id.cloned) {
        bool cloned = !rc && id.cloned;
        sodium_memzero(&id, sizeof id);
        return rc ? rc : cloned ? -CQ_CLIENT_E_CLONED : -CQ_CLIENT_E_NOT_LOGGED_IN;
    }
    take_identity(c, &id);
    rc = cq_db_chat_by_name(c->db, peer, chat);
    return rc || chat->open ? rc : -CQ_E_CHAT_CLOSED;
}

static int
seal_and_put(cq_client_t *c, const struct cq_chat *chat, struct cq_out *o)
{
    int rc = cq_db_out_next(c->db, &chat->chat, &o->dseq, &o->prev);
    rc = rc ? rc : cq_seal_out(c->db, &c->user_id, &c->device_id, chat->key_version, o);
    if (rc == -CQ_E_BAD_ARG) {
        return -CQ_CLIENT_E_TEXT;
    }
    rc = rc ? rc : cq_db_out_put(c->db, o);
    free(o->ciphertext);
    o->ciphertext = NULL;
    return rc;
}

static int
queue(cq_client_t *c, const char *peer, struct cq_out *o)
{
    struct cq_chat chat;
    int rc = cq_client_may_send(c, peer, &chat);
    if (rc) {
        return rc;
    }
    o->chat = chat.chat;
    o->key_version = chat.key_version;
    return seal_and_put(c, &chat, o);
}

int
cq_client_send(cq_client_t *c,
               const char *peer,
               const char *text,
               size_t text_size,
               uint64_t *message)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *message = 0;
    char *copy = text_size && text_size <= CQ_TEXT_MAX ? malloc(text_size + 1) : NULL;
    if (!copy) {
        return -CQ_CLIENT_E_TEXT;
    }
    memcpy(copy, text, text_size);
    copy[text_size] = '\0';
    struct cq_out o = {
        .text = copy,
        .text_size = text_size,
        .created_unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000,
    };
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_begin(c->db);
    if (!rc) {
        rc = cq_db_end(c->db, queue(c, peer, &o));
    }
    pthread_mutex_unlock(&c->lock);
    free(copy);
    if (!rc) {
        *message = o.id;
        cq_client_flush(c, &o);
    }
    return rc;
}

static int
chat_named(cq_client_t *c, const char *peer, struct cq_chat *chat)
{
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_chat_by_name(c->db, peer, chat);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

int
cq_client_typing(cq_client_t *c, const char *peer, bool on)
{
    struct cq_chat chat;
    int rc = chat_named(c, peer, &chat);
    if (rc) {
        return rc;
    }
    struct cq_command *cmd = cq_alloc(sizeof *cmd);
    cmd->op = CQ_OP_TYPING;
    cmd->id = chat.chat;
    cmd->on = on;
    int64_t request = cq_client_submit(c, cmd, false);
    return request < 0 ? (int)request : 0;
}

int
cq_client_read(cq_client_t *c, const char *peer, uint64_t seq)
{
    struct cq_chat chat;
    int rc = chat_named(c, peer, &chat);
    uint64_t up_to = !seq || seq > chat.held ? chat.held : seq;
    if (rc || up_to <= chat.my_read) {
        return rc;
    }
    pthread_mutex_lock(&c->lock);
    rc = cq_db_chat_read(c->db, &chat.chat, up_to);
    pthread_mutex_unlock(&c->lock);
    if (!rc) {
        cq_client_flush(c, NULL);
    }
    return rc;
}
