/* SPDX-License-Identifier: MPL-2.0
 * A session has a connection as long as the connection can be written to. What a turn produced for
 * a session leaves as one frame and one write; if the socket does not take it all, the rest of the
 * queue waits in outq.c, by its policies, until it has.
 */
#include "edge/ws.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "edge/ops.h"
#include "edge/origin.h"

#define SUBPROTOCOL "chasqui.v1"

enum {
    CONNECTIONS_BESIDES = 1024, /* that are no sessions: handshakes, HTTP, those that end */
    HEADER_TEXT_MAX = 1024,     /* longest header field we look at */
    BAD_REQUEST = 400,
    FORBIDDEN = 403,
    NOT_FOUND = 404,
    UNAVAILABLE = 503,
};

static_assert(EDGE_OUTQ_HEADROOM >= EDGE_FRAME_OUT_HEADER_MAX + 5, "room for the frame's header");

struct edge_ws {
    edge_t *edge;
    edge_tls_t *tls;
    edge_net_t *net;
    cq_timer_t *tls_timer; /* looks whether the certificate's files have changed */
};

/* ---- who may connect ---- */

static bool
on_accept(void *ctx, const struct edge_ip *ip)
{
    edge_t *e = ctx;
    return !edge_drain_is_closed(e) &&
           !edge_ops_take_for(e, EDGE_RATE_ACCEPT, NULL, edge_ip_key(ip));
}

static bool
offers_protocol(const struct edge_head *h)
{
    for (size_t i = 0; i < h->field_count; i++) {
        char list[HEADER_TEXT_MAX];
        if (edge_head_is_caseless(h->fields[i].name, "sec-websocket-protocol") &&
            edge_head_copy(h->fields[i].value, list, sizeof list) &&
            edge_origin_list_has(list, SUBPROTOCOL)) {
            return true;
        }
    }
    return false;
}

static unsigned
on_upgrade(void *ctx, edge_conn_t *c, const struct edge_head *h, struct edge_net_upgrade *answer)
{
    (void)c;
    edge_t *e = ctx;
    char origin[HEADER_TEXT_MAX], host[HEADER_TEXT_MAX];
    answer->why = "WebSocket is at /ws";
    if (!edge_head_is(h->path, "/ws")) {
        return NOT_FOUND;
    }
    answer->why = "the subprotocol is " SUBPROTOCOL;
    if (!offers_protocol(h)) {
        return BAD_REQUEST;
    }
    answer->why = "this origin is not allowed";
    if (!edge_head_copy(edge_head_field(h, "origin"), origin, sizeof origin) ||
        !edge_head_copy(edge_head_field(h, "host"), host, sizeof host) ||
        !edge_origin_ok(e->cfg->origins, origin, host)) {
        return FORBIDDEN;
    }
    answer->why = "this edge is full or closing";
    if (edge_drain_is_closed(e) || e->sessions.count >= e->cfg->session_max) {
        e->metrics->refused_sessions_total++;
        return UNAVAILABLE;
    }
    answer->protocol = SUBPROTOCOL;
    return 0;
}

static void
on_open(void *ctx, edge_conn_t *c)
{
    edge_t *e = ctx;
    edge_session_t *s = edge_session_new(&e->sessions, cq_now_mono_ms());
    s->conn = c;
    s->address = edge_ip_key(edge_net_ip(c));
    edge_net_set_user(c, s);
    e->metrics->sessions++;
    char ip[EDGE_IP_TEXT_MAX];
    CQ_LOG(DEBUG, "EDGE-SESSION-OPEN", "session=%llu from=%s", (unsigned long long)s->number,
           edge_ip_text(edge_net_ip(c), ip));
}

static void
on_gone(void *ctx, edge_conn_t *c)
{
    edge_session_t *s = edge_net_user(c);
    s->conn = NULL;
    edge_gone(ctx, s);
}

/* ---- what comes in ---- */

static void
on_heard(void *ctx, edge_conn_t *c, size_t n)
{
    (void)n, (void)ctx;
    edge_session_t *s = edge_net_user(c);
    s->heard_mono_ms = cq_now_mono_ms();
}

static bool
on_ping(void *ctx, edge_conn_t *c)
{
    return !edge_ops_take(ctx, edge_net_user(c), EDGE_RATE_CONTROL);
}

static void
on_message(void *ctx, edge_conn_t *c, struct cq_view data, bool is_text)
{
    (void)is_text; /* text is refused below us */
    edge_t *e = ctx;
    edge_session_t *s = edge_net_user(c);
    if (s->state == EDGE_STATE_CLOSING) {
        return;
    }
    e->metrics->frames_in_total++;
    e->metrics->bytes_in_total += data.n;
    edge_ops_message(e, s, data);
}

static void
on_broken(void *ctx, edge_conn_t *c, uint16_t code)
{
    edge_t *e = ctx;
    edge_session_t *s = edge_net_user(c);
    CQ_LOG(DEBUG, "EDGE-FRAME-REFUSED", "session=%llu code=%u", (unsigned long long)s->number,
           code);
    edge_close(e, s, code);
    edge_session_dirty_add(&e->dirty, s);
}

/* Nobody reads what is still queued. */
static void
on_peer_close(void *ctx, edge_conn_t *c, uint16_t code)
{
    edge_t *e = ctx;
    edge_session_t *s = edge_net_user(c);
    edge_close(e, s, code);
    edge_outq_free(&s->out);
    s->close_code = code;
    edge_session_dirty_add(&e->dirty, s);
}

/* ---- what goes out ---- */

static bool
write_ping(edge_session_t *s)
{
    uint8_t ping[EDGE_FRAME_OUT_HEADER_MAX];
    s->wants_ping = false;
    s->sent_mono_ms = cq_now_mono_ms();
    return edge_net_send(s->conn, EDGE_FRAME_PING, ping + sizeof ping, 0);
}

/* Writes until the socket has enough. False: the connection is broken. */
static bool
write_queue(edge_t *e, edge_session_t *s)
{
    uint8_t *frame;
    size_t n;
    bool ok = true;
    while (ok && !edge_net_is_blocked(s->conn) && edge_outq_front(&s->out, &frame, &n)) {
        ok = edge_net_send(s->conn, EDGE_FRAME_BINARY, frame, n);
        edge_outq_pop(&s->out);
        s->sent_mono_ms = cq_now_mono_ms();
        e->metrics->frames_out_total++;
        e->metrics->bytes_out_total += n;
    }
    return ok;
}

/* All is out: the lagging are told to sync. */
static void
after_drain(edge_t *e, edge_session_t *s)
{
    if (s->out.is_lagging) {
        s->out.is_lagging = false;
        e->metrics->sessions_lagging--;
        edge_send_sync_now(e, s, NULL);
    }
}

static void
note_pushed(edge_session_t *s)
{
    if (s->push_mono_us) {
        cq_histogram_add_span(&edge_metrics_stages()->push, s->push_mono_us, cq_now_mono_us());
        s->push_mono_us = 0;
    }
}

void
edge_ws_flush(edge_t *e, edge_session_t *s)
{
    if (!s->conn) {
        return;
    }
    bool ok = !s->wants_ping || edge_net_is_blocked(s->conn) || write_ping(s);
    if (!ok || !write_queue(e, s)) {
        edge_net_kill(s->conn);
        return;
    }
    bool is_drained = edge_outq_is_empty(&s->out) && !edge_net_is_blocked(s->conn);
    if (is_drained) {
        note_pushed(s);
        after_drain(e, s);
    }
    if (s->state == EDGE_STATE_CLOSING && edge_outq_is_empty(&s->out)) {
        edge_net_close(s->conn, s->close_code);
        return;
    }
    edge_ops_resume(e, s);
}

static void
on_drained(void *ctx, edge_conn_t *c)
{
    edge_t *e = ctx;
    edge_session_t *s = edge_net_user(c);
    s->sent_mono_ms = cq_now_mono_ms();
    edge_session_dirty_add(&e->dirty, s);
}

bool
edge_ws_is_waiting(const edge_session_t *s)
{
    return s->conn && edge_net_is_blocked(s->conn);
}

void
edge_ws_settle(edge_session_t *s)
{
    if (s->conn) {
        edge_net_settle(s->conn);
    }
}

bool
edge_ws_has_time(const edge_t *e)
{
    return edge_net_has_time(e->ws->net);
}

void
edge_ws_spent(const edge_t *e, uint64_t since_us)
{
    edge_net_spent(e->ws->net, since_us);
}

void
edge_ws_pause(edge_session_t *s, bool paused)
{
    if (s->conn) {
        edge_net_pause(s->conn, paused);
    }
}

void
edge_ws_kill(edge_session_t *s)
{
    if (s->conn) {
        edge_net_kill(s->conn);
    }
}

static void
on_request(void *ctx, edge_conn_t *c, const struct edge_head *head)
{
    edge_http_serve(ctx, c, head);
}

static const struct edge_net_calls calls = {
    .on_accept = on_accept,
    .on_request = on_request,
    .on_upgrade = on_upgrade,
    .on_open = on_open,
    .on_heard = on_heard,
    .on_ping = on_ping,
    .on_message = on_message,
    .on_broken = on_broken,
    .on_peer_close = on_peer_close,
    .on_drained = on_drained,
    .on_gone = on_gone,
};

/* ---- TLS ---- */

static void
reload_tls(struct edge_ws *ws)
{
    edge_t *e = ws->edge;
    if (edge_tls_reload(ws->tls)) {
        e->metrics->tls_reload_failed_total++;
    } else {
        e->metrics->tls_reloads_total++;
    }
}

static void
on_hangup(void *ctx)
{
    struct edge_ws *ws = ctx;
    if (ws->tls) {
        reload_tls(ws);
    }
}

static void
on_tls_timer(void *ctx)
{
    struct edge_ws *ws = ctx;
    if (edge_tls_is_stale(ws->tls)) {
        reload_tls(ws);
    }
}

static bool
start_tls(struct edge_ws *ws)
{
    const struct edge_config *cfg = ws->edge->cfg;
    cq_loop_on_hangup(ws->edge->loop, on_hangup, ws);
    if (!cfg->tls_certificate[0]) {
        return true;
    }
    ws->tls = edge_tls_new(cfg->tls_certificate, cfg->tls_key);
    if (!ws->tls) {
        CQ_LOG(ERROR, "EDGE-TLS-FAIL", "reason=\"tls-certificate and tls-key are not usable\"");
        return false;
    }
    ws->tls_timer = cq_timer_new(ws->edge->loop, on_tls_timer, ws);
    cq_timer_start(ws->tls_timer, cfg->tls_check_interval_ms, cfg->tls_check_interval_ms);
    return true;
}

/* ---- life ---- */

static edge_net_t *
listen_for_clients(struct edge_ws *ws)
{
    edge_t *e = ws->edge;
    const struct edge_config *cfg = e->cfg;
    struct edge_net_cfg net = {
        .loop = e->loop,
        .address = cfg->listen_address,
        .port = (uint16_t)cfg->listen_port,
        .tls = ws->tls,
        .proxy_from = cfg->proxy_from,
        .request_timeout_ms = cfg->handshake_timeout_ms,
        .transfer_timeout_ms = cfg->transfer_timeout_ms,
        .transfer_min_bytes = cfg->transfer_min_bytes,
        .newcomer_share = (unsigned)cfg->newcomer_share_percent,
        .newcomer_share_busy = (unsigned)cfg->newcomer_share_busy_percent,
        .connections_max = cfg->session_max + CONNECTIONS_BESIDES,
        .address_max = cfg->address_connections_max,
        .waiting_max = cfg->handshakes_max,
        .frames = {.frame_max_bytes = cfg->frame_max_bytes,
                   .message_max_bytes = cfg->frame_max_bytes},
        .settled = {&e->sessions.memory.input_bytes, cfg->input_total_max_bytes},
        .newcomers = {&e->sessions.memory.guest_input_bytes, cfg->guest_input_max_bytes},
        .calls = &calls,
        .ctx = e,
        .stats = edge_metrics_net(),
    };
    return edge_net_new(&net);
}

struct edge_ws *
edge_ws_new(edge_t *e)
{
    struct edge_ws *ws = cq_alloc(sizeof *ws);
    ws->edge = e;
    ws->net = start_tls(ws) ? listen_for_clients(ws) : NULL;
    if (!ws->net) {
        edge_ws_destroy(&ws);
        return NULL;
    }
    size_t fds = edge_net_descriptors_free(ws->net);
    if (fds < e->cfg->session_max) {
        CQ_LOG(WARN, "EDGE-DESCRIPTORS-FEW", "free=%zu session_max=%llu", fds,
               (unsigned long long)e->cfg->session_max);
    }
    CQ_LOG(INFO, "EDGE-LISTEN", "address=%s tls=%s port=%u", e->cfg->listen_address,
           ws->tls ? "yes" : "no", edge_net_port(ws->net));
    return ws;
}

void
edge_ws_destroy(struct edge_ws **p)
{
    struct edge_ws *ws = *p;
    if (!ws) {
        return;
    }
    edge_net_destroy(&ws->net);
    *p = NULL;
    cq_loop_on_hangup(ws->edge->loop, NULL, NULL);
    cq_timer_destroy(&ws->tls_timer);
    edge_tls_destroy(&ws->tls);
    free(ws);
}

size_t
edge_ws_descriptors_free(const edge_t *e)
{
    return edge_net_descriptors_free(e->ws->net);
}
