/* SPDX-License-Identifier: MPL-2.0
 * Logging in: SIGNUP, LOGIN or RESUME, and what WELCOME says.
 */
#include <sodium.h>

#include "client/session_parts.h"

static bool
is_final(int err)
{
    static const int final[] = {CQ_E_TOO_BIG,           CQ_E_UNKNOWN_OP,      CQ_E_BAD_ARG,
                                CQ_E_BAD_STATE,         CQ_E_BAD_CREDENTIALS, CQ_E_BAD_TOKEN,
                                CQ_E_REVOKED,           CQ_E_NAME_TAKEN,      CQ_E_BAD_NAME,
                                CQ_E_BAD_PASSWORD,      CQ_E_BAD_DEVICE,      CQ_E_DENIED,
                                CQ_CLIENT_E_OTHER_USER, CQ_CLIENT_E_STORE_KEY};
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        if (final[i] == err) {
            return true;
        }
    }
    return false;
}

void
cq_session_token_refused(cq_session_t *s, int err)
{
    struct cq_identity now;
    bool changed = !cq_db_identity_load(s->db, &now) && now.token_size &&
                   (now.token_size != s->id.token_size ||
                    sodium_memcmp(now.token, s->id.token, now.token_size) != 0);
    if (changed) {
        /* another process of this home has logged in again meanwhile */
        sodium_memzero(&now, sizeof now);
        cq_session_fail(s, err, "the token was renewed");
        return;
    }
    s->id.token_size = 0;
    if (cq_session_tx(s) || cq_db_identity_save(s->db, &s->id)) {
        cq_session_tx_fail(s, -CQ_E_IO);
    }
    (void)!cq_session_tx_end(s);
    sodium_memzero(&now, sizeof now);
    cq_session_give_up(s, err, cq_client_error_text(err));
}

static void
refused(cq_session_t *s, int err, uint64_t retry_after_ms)
{
    if (!is_final(err)) {
        cq_session_fail(s, err, cq_client_error_text(err));
        uint64_t jitter = cq_session_random() % (retry_after_ms / 4 + 1);
        cq_session_wait_longer(s, retry_after_ms + jitter);
        return;
    }
    if (!s->auth && (err == CQ_E_BAD_TOKEN || err == CQ_E_REVOKED)) {
        cq_session_token_refused(s, err);
        return;
    }
    cq_session_give_up(s, err, cq_client_error_text(err));
}

/* 0, or the positive error why this server or account must not be used. */
static int
check_welcome(const cq_session_t *s, const struct cq_welcome *w)
{
    if (s->id.has_store_key && sodium_memcmp(s->id.store_key, w->store_key.p, CQ_KEY_SIZE) != 0) {
        return CQ_CLIENT_E_STORE_KEY;
    }
    if (!cq_id_is_none(&s->id.user) && !cq_id_eq(&s->id.user, &w->user)) {
        return CQ_CLIENT_E_OTHER_USER;
    }
    return cq_id_eq(&w->device, &s->id.device) ? 0 : CQ_E_BAD_DEVICE;
}

static void
take_welcome(cq_session_t *s, const struct cq_welcome *w)
{
    s->id.user = w->user;
    memset(s->id.name, 0, sizeof s->id.name);
    memcpy(s->id.name, w->name.p, w->name.n);
    memcpy(s->id.token, w->token.p, w->token.n);
    s->id.token_size = w->token.n;
    memcpy(s->id.store_key, w->store_key.p, CQ_KEY_SIZE);
    s->id.has_store_key = true;
    memcpy(s->id.servers, s->servers, sizeof s->id.servers);
    int rc = cq_session_tx(s);
    rc = rc ? rc : cq_db_identity_save(s->db, &s->id);
    if (rc) {
        cq_session_tx_fail(s, rc);
        return;
    }
    s->heartbeat_interval_ms =
        w->heartbeat_interval_ms ? w->heartbeat_interval_ms : CQ_HEARTBEAT_INTERVAL_MS;
    s->heartbeat_limit_ms = w->heartbeat_limit_ms ? w->heartbeat_limit_ms : CQ_HEARTBEAT_LIMIT_MS;
    s->window = w->window && w->window < CQ_WINDOW ? w->window : CQ_WINDOW;
    s->is_first_sync = s->id.version == 0;
    s->phase = CQ_PHASE_ONLINE;
    if (s->auth) {
        struct cq_command *cmd = s->auth;
        s->auth = NULL;
        cq_session_answer(s, cmd, 0, NULL);
    }
    cq_session_state(s, CQ_CLIENT_ONLINE, 0, s->url);
    cq_session_sync(s);
}

/* The server has given this device up: it was logged out, and forgotten to make room for others.
 * The person has proved who they are, so it goes on as a new one. */
static void
renew_device(cq_session_t *s)
{
    s->is_device_renewed = true;
    int rc = cq_session_new_device(s);
    if (rc) {
        cq_session_give_up(s, -rc, "the database of this device cannot be used");
        return;
    }
    cq_session_log_in(s);
}

static void
on_auth(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a)
{
    (void)p;
    struct cq_welcome w;
    if (a->err == CQ_E_BAD_DEVICE && s->auth && s->auth->op == CQ_OP_LOGIN &&
        !s->is_device_renewed) {
        renew_device(s);
        return;
    }
    if (a->err) {
        refused(s, a->err, a->retry_after_ms);
        return;
    }
    if (cq_schema_read(&cq_welcome_schema, &a->fields, a->count, &w)) {
        cq_session_fail(s, CQ_E_BAD_FRAME, "the server's welcome cannot be read");
        return;
    }
    int err = check_welcome(s, &w);
    if (err) {
        refused(s, err, 0);
        return;
    }
    take_welcome(s, &w);
}

void
cq_session_log_in(void *ctx)
{
    cq_session_t *s = ctx;
    s->phase = CQ_PHASE_AUTH;
    s->heard_ms = cq_session_now(s);
    struct cq_pending p = {.fn = on_auth};
    if (!s->auth) {
        struct cq_resume resume = {{s->id.token, s->id.token_size}};
        p.op = CQ_OP_RESUME;
        cq_session_ask(s, &p, &cq_resume_schema, &resume);
        cq_session_write(s);
        return;
    }
    struct cq_auth auth = {
        .name = {(const uint8_t *)s->auth->name, strlen(s->auth->name)},
        .password = {(const uint8_t *)s->auth->password, strlen(s->auth->password)},
        .device = s->id.device,
        .device_key = {s->id.public_key, CQ_KEY_SIZE},
        .label = {(const uint8_t *)s->label, strlen(s->label)},
    };
    p.op = (uint8_t)s->auth->op;
    cq_session_ask(s, &p, &cq_auth_schema, &auth);
    cq_session_write(s);
}
