/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/auth.h"

#include "common/rt/log.h"

#include "edge/call.h"
#include "edge/ws.h"

enum {
    AUTH_DEADLINE_MS = 10000,
    SESSION_UP_DEADLINE_MS = 3000,
    LOGOUT_DEADLINE_MS = 10000,
    FULL_RETRY_MS = 10000 /* sessions must end first */
};

/* What a login yields, whichever way. */
struct identity {
    struct cq_id user, device;
    struct cq_view name;
    struct cq_view token; /* as the client gets it */
    uint64_t token_expires_unix_ms;
    uint64_t generation;
    struct cq_id epoch;
};

static void
finish(edge_t *e, edge_session_t *s, struct cq_view welcome, bool is_registered)
{
    edge_step(e, s, EDGE_EVENT_ANNOUNCED);
    if (s->state != EDGE_STATE_READY) {
        return;
    }
    e->metrics->sessions_ready++;
    edge_ws_settle(s);
    if (welcome.n) {
        edge_send_packed(e, s, welcome);
    }
    if (!is_registered && e->presence.name[0]) {
        /* Presence is there and did not answer in time: tell it again without waiting, and let the
         * client look after. */
        edge_announce_session(e, s);
        edge_send_sync_now(e, s, NULL);
    }
    CQ_LOG(DEBUG, "EDGE-SESSION-READY", "session=%llu", (unsigned long long)s->number);
    edge_ops_resume(e, s);
}

/* Presence has no room for it, so it would be there and never hear of anything. */
static void
turn_away(edge_t *e, edge_session_t *s, uint64_t rid)
{
    e->metrics->refused_sessions_total++;
    CQ_LOG(INFO, "EDGE-SESSION-NO-ROOM", "session=%llu", (unsigned long long)s->number);
    edge_send_err(e, s, rid, CQ_E_BUSY, FULL_RETRY_MS, 0);
    edge_close(e, s, EDGE_CLOSE_POLICY);
}

static void
on_session_up(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail, (void)fields, (void)count;
    struct edge_call *call = ctx;
    edge_t *e = call->edge;
    uint64_t number = call->session;
    uint64_t rid = call->rid;
    cq_buf_t welcome = call->packed;
    call->packed = (cq_buf_t){0};
    edge_session_t *s = edge_call_end(&call);
    if (s && err == -CQ_E_BUSY) {
        turn_away(e, s, rid);
    } else if (s) {
        finish(e, s, (struct cq_view){welcome.data, welcome.size}, err == 0);
    } else {
        /* Gone meanwhile. Whatever came of the request, a repetition of it may have been read after
         * the first word of the end, or still be waiting at presence: this one is behind them all.
         */
        edge_announce_session_down(e, number, cq_now_unix_ms());
    }
    cq_buf_free(&welcome);
}

static void
pack_welcome(edge_t *e, uint64_t rid, const struct identity *id, cq_buf_t *out)
{
    if (!rid) {
        return;
    }
    struct cq_welcome w = {
        .user = id->user,
        .name = id->name,
        .device = id->device,
        .token = id->token,
        .token_expires_unix_ms = id->token_expires_unix_ms,
        .epoch = id->epoch,
        .store_key = {e->store.keys.sign, sizeof e->store.keys.sign},
        .now_unix_ms = cq_now_unix_ms(),
        .heartbeat_interval_ms = e->cfg->heartbeat_interval_ms,
        .heartbeat_limit_ms = e->cfg->heartbeat_limit_ms,
        .window = CQ_WINDOW,
        .edge = {(const uint8_t *)e->cfg->name, strlen(e->cfg->name)},
    };
    cq_frame_ok(out, rid, &cq_welcome_schema, &w);
}

/* The session is somebody now. Its rid is answered once presence knows it. */
static void
admit(edge_t *e, edge_session_t *s, const struct edge_request *rq, const struct identity *id)
{
    s->user = id->user;
    s->device = id->device;
    s->generation = id->generation;
    s->since_unix_ms = cq_now_unix_ms();
    s->reported_mono_ms = cq_now_mono_ms();
    cq_buf_t welcome = {0};
    pack_welcome(e, rq->rid, id, &welcome);
    struct cq_session_up up = {s->number, s->user, s->device, s->since_unix_ms};
    if (e->presence.name[0]) {
        struct edge_call *call = edge_call_new(e, s, rq);
        struct cq_bus_wait wait = {SESSION_UP_DEADLINE_MS, on_session_up, call};
        int rc = cq_bus_request(e->bus, e->presence.name, CQ_BUS_SESSION_UP, &cq_session_up_schema,
                                &up, &wait);
        if (!rc) {
            call->packed = welcome;
            return;
        }
        (void)edge_call_end(&call);
    }
    finish(e, s, (struct cq_view){welcome.data, welcome.size}, false);
    cq_buf_free(&welcome);
}

static void
fail(edge_t *e, edge_session_t *s, uint64_t rid, int err, uint64_t detail)
{
    e->metrics->auth_failed_total++;
    edge_step(e, s, EDGE_EVENT_AUTH_FAILED);
    edge_send_err(e, s, rid, err, 0, detail);
    edge_ops_resume(e, s);
}

static void
on_auth_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct edge_call *call = ctx;
    edge_t *e = call->edge;
    struct edge_request rq = {.op = call->op, .cost = call->cost, .rid = call->rid};
    if (!err) {
        edge_call_count(call);
    }
    edge_session_t *s = edge_call_end(&call);
    if (!s) {
        return;
    }
    struct cq_bus_welcome w;
    if (!err && cq_schema_read(&cq_bus_welcome_schema, fields, count, &w)) {
        CQ_LOG(ERROR, "EDGE-AUTH-ANSWER", "session=%llu", (unsigned long long)s->number);
        err = -CQ_E_INTERNAL;
    }
    if (!err && edge_revoked_has(e->revoked, &w.user, &w.device, w.generation)) {
        err = -CQ_E_REVOKED;
    }
    if (err) {
        fail(e, s, rq.rid, err, detail);
        return;
    }
    edge_step(e, s, EDGE_EVENT_AUTH_OK);
    if (s->state != EDGE_STATE_ANNOUNCING) {
        return;
    }
    e->metrics->logins_total++;
    cq_buf_t sealed = {0};
    cq_token_seal(&sealed, w.token, &e->store.keys);
    struct identity id = {
        .user = w.user,
        .device = w.device,
        .name = w.name,
        .token = {sealed.data, sealed.size},
        .token_expires_unix_ms = w.token_expires_unix_ms,
        .generation = w.generation,
        .epoch = w.epoch,
    };
    admit(e, s, &rq, &id);
    cq_buf_free(&sealed);
}

int
edge_auth_on_password(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    if (!e->store.is_known || !cq_bus_has(e->bus, "store")) {
        return -CQ_E_UNAVAILABLE;
    }
    struct cq_bus_auth auth = {.op = rq->op, .fields = rq->raw};
    struct edge_call *call = edge_call_new(e, s, rq);
    struct cq_bus_wait wait = {AUTH_DEADLINE_MS, on_auth_reply, call};
    int rc = cq_bus_request(e->bus, "store", CQ_BUS_AUTH, &cq_bus_auth_schema, &auth, &wait);
    if (rc) {
        (void)edge_call_end(&call);
        return rc;
    }
    edge_step(e, s, EDGE_EVENT_AUTH);
    return 0;
}

int
edge_auth_token(edge_t *e, struct cq_view token, struct cq_token *t)
{
    int proof = cq_token_verify(token, &e->store.keys, cq_now_unix_ms(), t);
    if (proof >= 0 && edge_revoked_has(e->revoked, &t->user, &t->device, t->generation)) {
        proof = -CQ_E_REVOKED;
    }
    e->metrics->auth_failed_total += proof < 0;
    e->metrics->token_signatures_total += proof == CQ_TOKEN_BY_SIGNATURE;
    return proof;
}

int
edge_auth_on_resume(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    if (!e->store.is_known) {
        return -CQ_E_UNAVAILABLE;
    }
    const struct cq_resume *m = rq->fields;
    struct cq_token t;
    int proof = edge_auth_token(e, m->token, &t);
    if (proof < 0) {
        return proof;
    }
    edge_step(e, s, EDGE_EVENT_TOKEN_OK);
    if (s->state != EDGE_STATE_ANNOUNCING) {
        return 0;
    }
    e->metrics->resumes_total++;
    edge_arrive_begin(&e->arrivals, s, cq_now_mono_ms());
    cq_buf_t sealed = {0};
    if (proof != CQ_TOKEN_BY_SEAL) {
        cq_token_seal(&sealed, m->token, &e->store.keys);
    }
    struct identity id = {
        .user = t.user,
        .device = t.device,
        .name = {(const uint8_t *)t.name, strlen(t.name)},
        .token = sealed.size ? (struct cq_view){sealed.data, sealed.size} : m->token,
        .token_expires_unix_ms = t.expires_unix_ms,
        .generation = t.generation,
        .epoch = e->store.epoch,
    };
    admit(e, s, rq, &id);
    cq_buf_free(&sealed);
    return 0;
}

static void
on_logout_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)fields, (void)count;
    struct edge_call *call = ctx;
    edge_t *e = call->edge;
    uint64_t rid = call->rid;
    edge_session_t *s = edge_call_end(&call);
    if (!s) {
        return;
    }
    s->is_logging_out = false;
    if (!err) {
        edge_send_ok(e, s, rid, &cq_empty_schema, NULL);
        edge_close(e, s, EDGE_CLOSE_NORMAL);
        return;
    }
    edge_send_err(e, s, rid, err, 0, detail);
    if (edge_revoked_has(e->revoked, &s->user, &s->device, s->generation)) {
        edge_close(e, s, EDGE_CLOSE_REVOKED);
        return;
    }
    edge_ops_resume(e, s);
}

int
edge_auth_on_logout(edge_t *e, edge_session_t *s, const struct edge_request *rq)
{
    struct cq_bus_call m = {.user = s->user, .device = s->device, .op = rq->op, .fields = rq->raw};
    struct edge_call *call = edge_call_new(e, s, rq);
    struct cq_bus_wait wait = {LOGOUT_DEADLINE_MS, on_logout_reply, call};
    int rc = cq_bus_request(e->bus, "store", CQ_BUS_CALL, &cq_bus_call_schema, &m, &wait);
    if (rc) {
        (void)edge_call_end(&call);
        return rc;
    }
    s->is_logging_out = true;
    return 0;
}
