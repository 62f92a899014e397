/* SPDX-License-Identifier: MPL-2.0 */
#include "client/session.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "common/rt/check.h"

#include "client/session_parts.h"

enum {
    OPEN_LIMIT_MS = 15000, /* connecting and logging in */
    STOP_STEP_MS = 10,
    STOP_STEPS = 50,
};

uint64_t
cq_session_now(const cq_session_t *s)
{
    return uv_now(&s->loop);
}

uint64_t
cq_session_random(void)
{
    uint64_t v;
    randombytes_buf(&v, sizeof v);
    return v;
}

/* ---- what the application is told ---- */

void
cq_session_state(cq_session_t *s, enum cq_client_state state, int error, const char *text)
{
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_STATE, .state = state, .error = error, .text = text ? text : ""};
    cq_events_push(s->events, &e);
}

void
cq_session_warn(cq_session_t *s, int error, const char *text)
{
    cq_client_event_t e = {.type = CQ_CLIENT_EVENT_WARNING, .error = error, .text = text};
    cq_events_push(s->events, &e);
}

void
cq_session_answer(cq_session_t *s, struct cq_command *cmd, int error, const char *text)
{
    if (cmd->request) {
        cq_client_event_t e = {.type = CQ_CLIENT_EVENT_ANSWER,
                               .request = cmd->request,
                               .error = error,
                               .text = text ? text : cq_client_error_text(error)};
        cq_events_push(s->events, &e);
    }
    cq_command_destroy(&cmd);
    pthread_mutex_lock(&s->lock);
    s->unanswered--;
    pthread_mutex_unlock(&s->lock);
}

const char *
cq_session_name(cq_session_t *s, const struct cq_id *user, char out[CQ_ID_HEX_SIZE])
{
    char name[CQ_NAME_MAX + 1];
    if (cq_id_eq(user, &s->id.user)) {
        (void)snprintf(out, CQ_ID_HEX_SIZE, "%.*s", CQ_NAME_MAX, s->id.name);
    } else if (!cq_db_person_name(s->db, user, name)) {
        memcpy(out, name, sizeof name < CQ_ID_HEX_SIZE ? sizeof name : CQ_ID_HEX_SIZE);
        out[CQ_NAME_MAX] = '\0';
    } else {
        cq_id_hex(user, out);
    }
    return out;
}

void
cq_session_caught_up(cq_session_t *s)
{
    if (!s->was_caught_up) {
        s->was_caught_up = true;
        cq_session_state(s, CQ_CLIENT_CAUGHT_UP, 0, s->url);
    }
    struct cq_command **at = &s->commands;
    while (*at) {
        struct cq_command *c = *at;
        if (c->op == CQ_COMMAND_SYNC && c->is_sent) {
            *at = c->next;
            cq_session_answer(s, c, 0, NULL);
        } else {
            at = &c->next;
        }
    }
}

/* ---- one transaction for all that a turn changes ---- */

int
cq_session_tx(cq_session_t *s)
{
    if (s->in_tx) {
        return s->tx_error;
    }
    s->tx_error = cq_db_begin(s->db);
    s->in_tx = s->tx_error == 0;
    return s->tx_error;
}

void
cq_session_tx_fail(cq_session_t *s, int rc)
{
    s->tx_error = rc;
}

int
cq_session_tx_end(cq_session_t *s)
{
    int rc = s->tx_error;
    s->tx_error = 0;
    if (s->in_tx) {
        s->in_tx = false;
        rc = cq_db_end(s->db, rc);
    }
    if (s->poke) {
        s->poke = false;
        cq_events_poke(s->events);
    }
    return rc;
}

struct cq_chat_run *
cq_session_run(cq_session_t *s, const struct cq_id *chat)
{
    for (int i = 0; i < s->run_count; i++) {
        if (cq_id_eq(&s->runs[i].chat, chat)) {
            return &s->runs[i];
        }
    }
    if (s->run_count == CQ_CHAT_RUNS_MAX) {
        s->run_count = 0; /* only hints: losing them costs a round trip */
    }
    s->runs = realloc(s->runs, (size_t)(s->run_count + 1) * sizeof *s->runs);
    CQ_ASSERT(s->runs);
    s->runs[s->run_count] = (struct cq_chat_run){.chat = *chat};
    return &s->runs[s->run_count++];
}

/* ---- connecting ---- */

static void
on_soon(uv_timer_t *t)
{
    cq_session_t *s = t->data;
    s->do_send = s->do_fetch = s->do_ack = true;
    if (s->sync_due) {
        s->sync_due = false;
        cq_session_sync(s);
    }
}

void
cq_session_soon(cq_session_t *s, uint64_t delay_ms)
{
    if (!uv_is_active((uv_handle_t *)&s->soon) || uv_timer_get_due_in(&s->soon) > delay_ms) {
        uv_timer_start(&s->soon, on_soon, delay_ms, 0);
    }
}

static void
set_offline(cq_session_t *s, enum cq_phase phase)
{
    cq_link_drop(s->link);
    cq_session_forget(s);
    s->phase = phase;
    s->is_syncing = s->sync_again = s->sync_due = s->is_synced = s->was_caught_up = s->ack_pending =
        false;
    s->run_count = 0;
    for (struct cq_command *c = s->commands; c; c = c->next) {
        c->is_sent = false;
    }
}

static void
on_retry(uv_timer_t *t)
{
    cq_session_t *s = t->data;
    struct cq_url url;
    if (!cq_url_parse(s->url, strlen(s->url), &url)) {
        s->phase = CQ_PHASE_CONNECT;
        s->heard_ms = cq_session_now(s);
        cq_link_connect(s->link, &url);
    }
}

void
cq_session_wait(cq_session_t *s, uint32_t delay_ms)
{
    struct cq_attempt a = cq_reconnect_next(&s->reconnect, cq_session_random());
    memcpy(s->url, a.url->text, sizeof s->url);
    s->phase = CQ_PHASE_WAIT;
    uv_timer_start(&s->retry, on_retry, a.delay_ms > delay_ms ? a.delay_ms : delay_ms, 0);
}

void
cq_session_wait_longer(cq_session_t *s, uint64_t delay_ms)
{
    if (s->phase == CQ_PHASE_WAIT && delay_ms > uv_timer_get_due_in(&s->retry)) {
        uv_timer_start(&s->retry, on_retry, delay_ms, 0);
    }
}

void
cq_session_fail(cq_session_t *s, int error, const char *why)
{
    char text[CQ_EVENT_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s: %s", s->url, why);
    set_offline(s, CQ_PHASE_WAIT);
    cq_session_state(s, CQ_CLIENT_CONNECTING, error, text);
    cq_session_wait(s, 0);
}

void
cq_session_give_up(cq_session_t *s, int error, const char *why)
{
    set_offline(s, CQ_PHASE_IDLE);
    uv_timer_stop(&s->retry);
    s->is_wanted = false;
    if (s->auth) {
        struct cq_command *cmd = s->auth;
        s->auth = NULL;
        cq_session_answer(s, cmd, error, why);
    }
    while (s->commands) {
        struct cq_command *cmd = s->commands;
        s->commands = cmd->next;
        cq_session_answer(s, cmd, error ? error : CQ_CLIENT_E_NOT_LOGGED_IN, NULL);
    }
    cq_session_state(s, CQ_CLIENT_IDLE, error, why);
}

static void
on_closed(void *ctx, int error, const char *why)
{
    cq_session_fail(ctx, error, why);
}

static void
on_heard(void *ctx)
{
    cq_session_t *s = ctx;
    s->heard_ms = cq_session_now(s);
}

/* ---- commands ---- */

static void
start_connecting(cq_session_t *s)
{
    int rc = cq_db_identity_load(s->db, &s->id);
    if (!rc && s->auth && s->id.cloned) {
        rc = cq_session_new_device(s);
    }
    if (rc) {
        cq_session_give_up(s, -rc, "the database of this device cannot be used");
        return;
    }
    if (!s->auth && !s->id.token_size) {
        cq_session_give_up(s, CQ_CLIENT_E_NOT_LOGGED_IN,
                           cq_client_error_text(CQ_CLIENT_E_NOT_LOGGED_IN));
        return;
    }
    s->is_wanted = true;
    cq_session_state(s, CQ_CLIENT_CONNECTING, 0, "");
    cq_session_wait(s, 0);
}

static void
take_command(cq_session_t *s, struct cq_command *cmd)
{
    cmd->next = NULL;
    cmd->since_ms = cq_session_now(s);
    switch (cmd->op) {
    case CQ_COMMAND_CONNECT:
        cq_session_answer(s, cmd, 0, NULL);
        if (!s->is_wanted) {
            start_connecting(s);
        }
        return;
    case CQ_OP_SIGNUP:
    case CQ_OP_LOGIN:
        if (s->auth) {
            cq_session_answer(s, s->auth, CQ_E_BUSY, "another login was started");
        }
        s->auth = cmd;
        s->is_device_renewed = false;
        set_offline(s, CQ_PHASE_IDLE);
        start_connecting(s);
        return;
    case CQ_COMMAND_FLUSH:
        if (cmd->message) {
            struct cq_watch watch = {cmd->message, cmd->id, cmd->dseq};
            cq_session_watch(s, &watch);
        }
        s->do_send = s->do_ack = true;
        cq_session_answer(s, cmd, 0, NULL);
        return;
    case CQ_OP_TYPING: {
        struct cq_typing typing = {cmd->id, cmd->on};
        if (s->phase == CQ_PHASE_ONLINE && s->is_synced) {
            cq_session_tell(s, CQ_OP_TYPING, &cq_typing_schema, &typing);
        }
        cq_session_answer(s, cmd, 0, NULL);
        return;
    }
    default: {
        struct cq_command **at = &s->commands;
        while (*at) {
            at = &(*at)->next;
        }
        *at = cmd;
        if (!s->is_wanted) {
            start_connecting(s);
        }
        return;
    }
    }
}

/* ---- the thread ---- */

static void
shut_down(cq_session_t *s)
{
    while (s->auth || s->commands) {
        struct cq_command *cmd = s->auth ? s->auth : s->commands;
        if (s->auth) {
            s->auth = NULL;
        } else {
            s->commands = cmd->next;
        }
        cq_command_destroy(&cmd);
    }
    cq_link_stop(s->link);
    uv_close((uv_handle_t *)&s->wake, NULL);
    uv_close((uv_handle_t *)&s->retry, NULL);
    uv_close((uv_handle_t *)&s->soon, NULL);
    uv_close((uv_handle_t *)&s->tick, NULL);
    uv_close((uv_handle_t *)&s->turn, NULL);
}

/* What was to be told (an ACK, a LOGOUT) should leave before the connection closes, but not at any
 * price. */
static void
on_stopping(uv_timer_t *t)
{
    cq_session_t *s = t->data;
    static const unsigned last_step = STOP_STEPS;
    bool is_done = s->phase != CQ_PHASE_ONLINE ||
                   (cq_link_is_flushed(s->link) && !s->ack_pending && !s->do_ack);
    if (is_done || ++s->key_rounds >= last_step) {
        shut_down(s);
    }
}

static void
on_wake(uv_async_t *w)
{
    cq_session_t *s = w->data;
    pthread_mutex_lock(&s->lock);
    struct cq_command *cmd = s->inbox;
    s->inbox = NULL;
    s->inbox_last = &s->inbox;
    bool stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    while (cmd) {
        struct cq_command *next = cmd->next;
        take_command(s, cmd);
        cmd = next;
    }
    if (stop) {
        s->key_rounds = 0;
        uv_timer_start(&s->tick, on_stopping, 0, STOP_STEP_MS);
    }
}

static void
on_tick(uv_timer_t *t)
{
    cq_session_t *s = t->data;
    uint64_t now = cq_session_now(s);
    uint64_t silence = now - s->heard_ms;
    if ((s->phase == CQ_PHASE_CONNECT || s->phase == CQ_PHASE_AUTH) && silence > OPEN_LIMIT_MS) {
        cq_session_fail(s, CQ_CLIENT_E_OFFLINE, "no answer");
        return;
    }
    if (s->phase != CQ_PHASE_ONLINE) {
        return;
    }
    if (silence > s->heartbeat_limit_ms) {
        cq_session_fail(s, CQ_CLIENT_E_OFFLINE, "the server has fallen silent");
        return;
    }
    for (int i = 0; i < CQ_PENDING_MAX; i++) {
        if (s->pending[i].rid && now - s->pending[i].since_ms > CQ_ANSWER_LIMIT_MS) {
            cq_session_fail(s, CQ_CLIENT_E_OFFLINE, "the server does not answer");
            return;
        }
    }
    if (now - s->sent_ms >= s->heartbeat_interval_ms) {
        struct cq_empty empty = {0};
        cq_session_tell(s, CQ_OP_PING, &cq_empty_schema, &empty);
    }
    if (cq_db_changed(s->db)) {
        s->do_send = s->do_ack = s->do_fetch = true;
        cq_events_poke(s->events);
    }
}

static void
on_turn(uv_prepare_t *t)
{
    cq_session_t *s = t->data;
    if (s->phase != CQ_PHASE_ONLINE) {
        return;
    }
    cq_session_commands(s);
    if (s->is_synced && !s->is_syncing) {
        bool fetch = s->do_fetch;
        bool send = s->do_send;
        s->do_fetch = s->do_send = false;
        if (send) {
            cq_session_flush(s);
        }
        if (fetch && s->phase == CQ_PHASE_ONLINE) {
            cq_session_fetch(s);
        }
        if (s->do_ack && s->phase == CQ_PHASE_ONLINE) {
            cq_session_ack(s);
        }
    }
    if (cq_session_tx_end(s)) {
        cq_session_fail(s, CQ_E_IO, "the database of this device cannot be written");
        return;
    }
    cq_session_write(s);
}

static void *
run(void *arg)
{
    cq_session_t *s = arg;
    uv_run(&s->loop, UV_RUN_DEFAULT);
    cq_link_finish(&s->link);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void
free_session(cq_session_t *s)
{
    cq_db_close(&s->db);
    cq_buf_free(&s->out);
    free(s->runs);
    free(s->told);
    pthread_mutex_destroy(&s->lock);
    sodium_memzero(&s->id, sizeof s->id);
    free(s);
}

static int
init_loop(cq_session_t *s, const struct cq_session_cfg *cfg)
{
    struct cq_link_calls calls = {cq_session_log_in, cq_session_on_frame, on_closed, on_heard, s};
    struct cq_link_tls tls = {.ca_file = cfg->ca_file, .accepts_any = cfg->accepts_any_certificate};
    for (size_t i = 0; i < s->reconnect.count; i++) {
        tls.is_used = tls.is_used || s->reconnect.urls[i].is_tls;
    }
    if (uv_loop_init(&s->loop)) {
        return -CQ_E_IO;
    }
    s->link = cq_link_new(&s->loop, &calls, &tls);
    if (!s->link) {
        uv_loop_close(&s->loop);
        return -CQ_E_IO;
    }
    uv_async_init(&s->loop, &s->wake, on_wake);
    uv_timer_init(&s->loop, &s->retry);
    uv_timer_init(&s->loop, &s->soon);
    uv_timer_init(&s->loop, &s->tick);
    uv_prepare_init(&s->loop, &s->turn);
    s->wake.data = s->retry.data = s->soon.data = s->tick.data = s->turn.data = s;
    uv_timer_start(&s->tick, on_tick, CQ_TICK_MS, CQ_TICK_MS);
    uv_prepare_start(&s->turn, on_turn);
    return 0;
}

int
cq_session_new(const struct cq_session_cfg *cfg, cq_session_t **out)
{
    *out = NULL;
    cq_session_t *s = cq_alloc(sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->inbox_last = &s->inbox;
    s->events = cfg->events;
    (void)snprintf(s->servers, sizeof s->servers, "%s", cfg->servers);
    (void)snprintf(s->label, sizeof s->label, "%s", cfg->label);
    int rc = cq_reconnect_init(&s->reconnect, cfg->servers, cq_session_random());
    rc = rc ? rc : cq_db_open(cfg->home, &s->db);
    rc = rc ? rc : init_loop(s, cfg);
    if (rc) {
        free_session(s);
        return rc;
    }
    /* Signals are for the application's threads. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        shut_down(s);
        (void)run(s);
        uv_loop_close(&s->loop);
        free_session(s);
        return -CQ_E_IO;
    }
    *out = s;
    return 0;
}

int
cq_session_submit(cq_session_t *s, struct cq_command **p)
{
    struct cq_command *cmd = *p;
    *p = NULL;
    pthread_mutex_lock(&s->lock);
    bool full = s->unanswered >= CQ_COMMANDS_MAX;
    if (!full) {
        s->unanswered++;
        *s->inbox_last = cmd;
        s->inbox_last = &cmd->next;
    }
    pthread_mutex_unlock(&s->lock);
    if (full) {
        cq_command_destroy(&cmd);
        return -CQ_E_BUSY;
    }
    uv_async_send(&s->wake);
    return 0;
}

void
cq_command_destroy(struct cq_command **cmd)
{
    if (*cmd) {
        sodium_memzero(*cmd, sizeof **cmd);
        free(*cmd);
        *cmd = NULL;
    }
}

void
cq_session_destroy(cq_session_t **p)
{
    cq_session_t *s = *p;
    *p = NULL;
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    uv_async_send(&s->wake);
    pthread_join(s->thread, NULL);
    uv_loop_close(&s->loop);
    free_session(s);
}
