/* SPDX-License-Identifier: MPL-2.0
 * libwebsockets on libuv. What its use costs is decided here:
 *  - a frame is written at once when nothing is queued and lws holds back nothing of an earlier
 * one; else on WRITEABLE. Never twice on a partial write;
 *  - tx_packet_size is set: without it lws hands the socket pieces of rx_buffer_size bytes and
 * buffers the rest;
 *  - rx_buffer_size is small, as every connection has one; frames beyond it come in pieces and are
 * put together here;
 * *  - lws' own "validity" timers are off (see lws_validity_confirmed below); ours: sweep.c;
 *  - the close frame is written here and the peer's answer awaited, as lws 4.1 on libuv, in
 * Debian's build, closes twice in one go and with that drops the close frame that it has promised
 * to send.
 */
#include "edge/ws.h"

#include <assert.h>
#include <libwebsockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "edge/ops.h"
#include "edge/origin.h"

#define SUBPROTOCOL "chasqui.v1"

enum {
    RX_BUFFER_BYTES = 512,
    SERVICE_BUFFER_BYTES = 16384,
    FD_HEADROOM = 64,      /* kept free for the bus, logs, timers */
    FD_BESIDES = 256,      /* what the process needs besides sessions */
    KEEPALIVE_S = 5,       /* idle HTTP connections */
    HEADER_TEXT_MAX = 512, /* longest header we look at */
    CLOSE_RUNS = 64,
    LOG_PER_S = 10,
    WRITE_CLOSE = 4, /* lws_write's kind for a close frame, not in its public list */
};

static_assert(EDGE_OUTQ_HEADROOM >= LWS_PRE + 8, "room for the frame's header");

struct edge_ws {
    edge_t *edge;
    struct lws_context *context; /* lws writes NULL when it is gone */
    struct lws_protocols protocols[2];
    lws_retry_bo_t validity;
    rlim_t fd_max;
    void *loops[1];
};

/* Replaces lws' function of this name, which it calls for every handshake and Pong: it would put
 * the connection at the end of a sorted list of all connections, walking the whole list. 100,000
 * sessions would do nothing else. What it does it for, noticing dead peers, is done by sweep.c.
 * Where a linker does not let a program replace it, the policy below makes it harmless, not cheap.
 */
void
lws_validity_confirmed(struct lws *wsi)
{
    (void)wsi;
}

typedef int ws_fn(edge_t *e, struct lws *wsi, void *user, void *in, size_t n);

static uint64_t
address_key(const struct sockaddr_storage *a)
{
    uint64_t key = 0;
    if (a->ss_family == AF_INET) {
        key = ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr;
    } else if (a->ss_family == AF_INET6) {
        /* The upper half: one customer's network. */
        memcpy(&key, ((const struct sockaddr_in6 *)(const void *)a)->sin6_addr.s6_addr, sizeof key);
    }
    return key;
}

static int
on_accept(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)wsi, (void)n;
    const struct lws_filter_network_conn_args *args = user;
    /* The lowest free descriptor is taken: a high one means that few are left. */
    if ((rlim_t)(lws_intptr_t)in + FD_HEADROOM >= e->ws->fd_max) {
        e->metrics->refused_fds_total++;
        return 1;
    }
    uint64_t key = args ? address_key(&args->cli_addr) : 0;
    if (edge_limiter_take(e->limiter, EDGE_RATE_ACCEPT, key, cq_now_mono_us())) {
        e->metrics->refused_rate_total++;
        return 1;
    }
    e->metrics->accepted_total++;
    return edge_drain_is_closed(e);
}

/* The header's text, empty if it is not there; false if it is too long for us. */
static bool
copy_header(struct lws *wsi, enum lws_token_indexes token, char out[HEADER_TEXT_MAX])
{
    out[0] = '\0';
    int length = lws_hdr_total_length(wsi, token);
    return length == 0 ||
           (length < HEADER_TEXT_MAX && lws_hdr_copy(wsi, out, HEADER_TEXT_MAX, token) >= 0);
}

static unsigned
judge_handshake(const edge_t *e, struct lws *wsi, const char *upgrade, const char **why)
{
    char path[HEADER_TEXT_MAX], protocols[HEADER_TEXT_MAX], origin[HEADER_TEXT_MAX],
        host[HEADER_TEXT_MAX];
    *why = "malformed handshake";
    if (!upgrade || strcmp(upgrade, "websocket") != 0 ||
        !copy_header(wsi, WSI_TOKEN_GET_URI, path) ||
        !copy_header(wsi, WSI_TOKEN_PROTOCOL, protocols) ||
        !copy_header(wsi, WSI_TOKEN_ORIGIN, origin) || !copy_header(wsi, WSI_TOKEN_HOST, host)) {
        return HTTP_STATUS_BAD_REQUEST;
    }
    *why = "WebSocket is at /ws";
    if (strcmp(path, "/ws") != 0) {
        return HTTP_STATUS_NOT_FOUND;
    }
    *why = "the subprotocol is " SUBPROTOCOL;
    if (!edge_origin_list_has(protocols, SUBPROTOCOL)) {
        return HTTP_STATUS_BAD_REQUEST;
    }
    *why = "this origin is not allowed";
    if (!edge_origin_ok(e->cfg->origins, origin, host)) {
        return HTTP_STATUS_FORBIDDEN;
    }
    *why = "this edge is full or closing";
    return edge_drain_is_closed(e) || e->sessions.count >= e->cfg->session_max
               ? HTTP_STATUS_SERVICE_UNAVAILABLE
               : 0;
}

static int
on_upgrade(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)n;
    const char *why;
    unsigned status = judge_handshake(e, wsi, in, &why);
    if (!status) {
        return 0;
    }
    if (status == HTTP_STATUS_SERVICE_UNAVAILABLE) {
        e->metrics->refused_full_total++;
    } else {
        e->metrics->refused_handshake_total++;
    }
    CQ_LOG(DEBUG, "EDGE-HANDSHAKE-REFUSED", "status=%u", status);
    return edge_http_refuse(wsi, status, why) < 0 ? -1 : 1;
}

static int
on_open(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)in, (void)n;
    int fd = lws_get_socket_fd(wsi);
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    (void)getpeername(fd, (struct sockaddr *)&peer, &size);
    edge_session_t *s = edge_session_new(&e->sessions, cq_now_mono_ms());
    s->wsi = wsi;
    s->address = address_key(&peer);
    lws_set_opaque_user_data(wsi, s);
    e->metrics->sessions++;
    return 0;
}

static int
on_closed(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)in, (void)n;
    edge_session_t *s = lws_get_opaque_user_data(wsi);
    if (s) {
        lws_set_opaque_user_data(wsi, NULL);
        s->wsi = NULL;
        edge_gone(e, s);
    }
    return 0;
}

static void
refuse(edge_t *e, edge_session_t *s, uint16_t code)
{
    e->metrics->protocol_errors_total++;
    CQ_LOG(DEBUG, "EDGE-FRAME-REFUSED", "session=%llu code=%u", (unsigned long long)s->number,
           code);
    edge_close(e, s, code);
}

static void
take_message(edge_t *e, edge_session_t *s)
{
    cq_buf_t message = s->input->message;
    s->input->message = (cq_buf_t){0};
    edge_session_input_count(s);
    e->metrics->frames_in_total++;
    edge_ops_message(e, s, (struct cq_view){message.data, message.size});
    cq_buf_free(&message);
    if (s->input && !s->input->held_count) {
        edge_session_input_drop(s);
    }
}

static int
on_receive(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user;
    edge_session_t *s = lws_get_opaque_user_data(wsi);
    if (!s || s->state == EDGE_STATE_CLOSING) {
        return 0;
    }
    s->heard_mono_ms = cq_now_mono_ms();
    e->metrics->bytes_in_total += n;
    if (!lws_frame_is_binary(wsi)) {
        refuse(e, s, EDGE_CLOSE_TEXT);
        return 0;
    }
    size_t before = s->input ? s->input->message.size : 0;
    size_t rest = lws_remaining_packet_payload(wsi);
    if (rest > e->cfg->frame_max_bytes || before + n + rest > e->cfg->frame_max_bytes) {
        refuse(e, s, EDGE_CLOSE_TOO_BIG);
        return 0;
    }
    bool is_whole = !rest && lws_is_final_fragment(wsi);
    if (is_whole && !before) {
        e->metrics->frames_in_total++;
        edge_ops_message(e, s, (struct cq_view){in, n});
        return 0;
    }
    cq_buf_append(&edge_session_input(s)->message, in, n);
    edge_session_input_count(s);
    if (s->memory->input_bytes > e->cfg->input_total_max_bytes) {
        refuse(e, s, EDGE_CLOSE_POLICY);
        return 0;
    }
    if (is_whole) {
        take_message(e, s);
    }
    return 0;
}

static int
on_pong(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)e, (void)user, (void)in, (void)n;
    edge_session_t *s = lws_get_opaque_user_data(wsi);
    if (s) {
        s->heard_mono_ms = cq_now_mono_ms();
    }
    return 0;
}

/* The peer closes, or answers our close. 0 lets lws answer it, otherwise the connection ends at
 * once. */
static int
on_peer_close(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)in, (void)n;
    edge_session_t *s = lws_get_opaque_user_data(wsi);
    if (!s || s->is_close_sent) {
        return -1;
    }
    edge_close(e, s, EDGE_CLOSE_NORMAL);
    edge_outq_free(&s->out);
    s->is_close_sent = true; /* lws sends it */
    return 0;
}

/* One lws_write. False: the connection is broken. */
static bool
write_once(edge_t *e, edge_session_t *s, uint8_t *p, size_t n, enum lws_write_protocol kind)
{
    if (lws_write(s->wsi, p, n, kind) < (int)n) {
        return false;
    }
    s->sent_mono_ms = cq_now_mono_ms();
    if (lws_partial_buffered(s->wsi)) {
        e->metrics->partial_writes_total++;
    }
    return true;
}

/* Writes at most one frame (and a ping), as the pipe is free. False: the connection is broken. */
static bool
write_next(edge_t *e, edge_session_t *s)
{
    if (s->wants_ping) {
        /* Not empty: lws does not report the answer to an empty one. */
        uint8_t ping[LWS_PRE + 1] = {[LWS_PRE] = '.'};
        s->wants_ping = false;
        if (!write_once(e, s, ping + LWS_PRE, 1, LWS_WRITE_PING)) {
            return false;
        }
    }
    uint8_t *frame;
    size_t n;
    if (!lws_partial_buffered(s->wsi) && edge_outq_front(&s->out, &frame, &n)) {
        bool ok = write_once(e, s, frame, n, LWS_WRITE_BINARY);
        edge_outq_pop(&s->out);
        e->metrics->frames_out_total++;
        e->metrics->bytes_out_total += n;
        return ok;
    }
    return true;
}

/* The last frame of a closing session, once everything before it is out. */
static bool
write_close(edge_t *e, edge_session_t *s)
{
    bool is_due = s->state == EDGE_STATE_CLOSING && !s->is_close_sent &&
                  edge_outq_is_empty(&s->out) && !lws_partial_buffered(s->wsi);
    if (!is_due) {
        return true;
    }
    s->is_close_sent = true;
    uint8_t close[LWS_PRE + 2];
    close[LWS_PRE] = (uint8_t)(s->close_code >> 8);
    close[LWS_PRE + 1] = (uint8_t)s->close_code;
    return write_once(e, s, close + LWS_PRE, 2, (enum lws_write_protocol)WRITE_CLOSE);
}

/* What follows when output has gone: the lagging are told to sync, the rest asks for its turn. */
static void
after_write(edge_t *e, edge_session_t *s)
{
    bool is_partial = lws_partial_buffered(s->wsi);
    bool is_empty = edge_outq_is_empty(&s->out);
    if (is_empty && !is_partial && s->out.is_lagging) {
        s->out.is_lagging = false;
        e->metrics->sessions_lagging--;
        edge_send_sync_now(e, s, NULL);
    }
    /* lws asks by itself for what it holds back. */
    bool wants_close = s->state == EDGE_STATE_CLOSING && !s->is_close_sent;
    if (!is_empty || wants_close || s->out.is_lagging) {
        lws_callback_on_writable(s->wsi);
    }
    edge_ops_resume(e, s);
}

void
edge_ws_flush(edge_t *e, edge_session_t *s)
{
    if (!s->wsi || s->is_close_sent) {
        return;
    }
    if (lws_partial_buffered(s->wsi)) {
        lws_callback_on_writable(s->wsi);
        return;
    }
    if (write_next(e, s) && write_close(e, s)) {
        after_write(e, s);
    } else {
        edge_ws_kill(s);
    }
}

static int
on_writeable(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)in, (void)n;
    edge_session_t *s = lws_get_opaque_user_data(wsi);
    if (!s || s->is_close_sent || lws_partial_buffered(wsi)) {
        return 0;
    }
    if (!write_next(e, s) || !write_close(e, s)) {
        return -1;
    }
    after_write(e, s);
    return 0;
}

void
edge_ws_pause(edge_session_t *s, bool paused)
{
    if (s->wsi) {
        (void)lws_rx_flow_control(s->wsi, !paused);
    }
}

void
edge_ws_kill(edge_session_t *s)
{
    if (s->wsi) {
        lws_set_timeout(s->wsi, PENDING_TIMEOUT_KILLED_BY_PARENT, LWS_TO_KILL_SYNC);
    }
}

static int
on_http(edge_t *e, struct lws *wsi, void *user, void *in, size_t n)
{
    (void)user, (void)in, (void)n;
    return edge_http_serve(e, wsi);
}

/* Everything else is left to lws' defaults for a server: nothing. */
static ws_fn *const handlers[] = {
    [LWS_CALLBACK_FILTER_NETWORK_CONNECTION] = on_accept,
    [LWS_CALLBACK_HTTP_CONFIRM_UPGRADE] = on_upgrade,
    [LWS_CALLBACK_HTTP] = on_http,
    [LWS_CALLBACK_ESTABLISHED] = on_open,
    [LWS_CALLBACK_RECEIVE] = on_receive,
    [LWS_CALLBACK_RECEIVE_PONG] = on_pong,
    [LWS_CALLBACK_WS_PEER_INITIATED_CLOSE] = on_peer_close,
    [LWS_CALLBACK_SERVER_WRITEABLE] = on_writeable,
    [LWS_CALLBACK_CLOSED] = on_closed,
};

static int
on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    size_t i = (size_t)reason;
    if (i >= sizeof handlers / sizeof handlers[0] || !handlers[i]) {
        return 0;
    }
    struct edge_ws *ws = lws_context_user(lws_get_context(wsi));
    return handlers[i](ws->edge, wsi, user, in, n);
}

/* lws' errors are worth a line, but peers can provoke them: not many. */
static void
on_log(int level, const char *line)
{
    static uint64_t second;
    static unsigned count;
    (void)level;
    uint64_t now_s = cq_now_mono_ms() / 1000;
    count = now_s == second ? count + 1 : 0;
    second = now_s;
    if (count < LOG_PER_S) {
        char text[256];
        CQ_LOG(WARN, "EDGE-LWS", "text=%s",
               cq_log_text(line, strcspn(line, "\n"), text, sizeof text));
    }
}

/* As many as the sessions need, not simply the hard limit: lws has tables of that length. */
static rlim_t
raise_fd_limit(uint64_t session_max)
{
    struct rlimit r = {0};
    (void)getrlimit(RLIMIT_NOFILE, &r);
    rlim_t wanted = (rlim_t)session_max + FD_BESIDES;
    r.rlim_cur = wanted < r.rlim_max ? wanted : r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r)) {
        (void)getrlimit(RLIMIT_NOFILE, &r);
    }
    if (r.rlim_cur < wanted) {
        CQ_LOG(WARN, "EDGE-FD-LIMIT", "limit=%llu wanted=%llu", (unsigned long long)r.rlim_cur,
               (unsigned long long)wanted);
    }
    return r.rlim_cur;
}

static unsigned
handshake_s(const struct edge_config *cfg)
{
    return cfg->auth_timeout_ms < 1000 ? 1 : (unsigned)(cfg->auth_timeout_ms / 1000);
}

static struct lws_context *
new_context(struct edge_ws *ws)
{
    const struct edge_config *cfg = ws->edge->cfg;
    ws->loops[0] = cq_loop_uv(ws->edge->loop);
    struct lws_context_creation_info info = {
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
                   LWS_SERVER_OPTION_UV_NO_SIGSEGV_SIGFPE_SPIN |
                   LWS_SERVER_OPTION_SKIP_SERVER_CANONICAL_NAME,
        .foreign_loops = ws->loops,
        .pcontext = &ws->context,
        .user = ws,
        .server_string = "chasqui",
        .pt_serv_buf_size = SERVICE_BUFFER_BYTES,
        .timeout_secs = handshake_s(cfg),
    };
    return lws_create_context(&info);
}

static struct lws_vhost *
new_vhost(struct edge_ws *ws)
{
    const struct edge_config *cfg = ws->edge->cfg;
    const char *address = cfg->listen_address;
    bool is_ipv6 = strchr(address, ':') != NULL;
    struct lws_context_creation_info info = {
        .options = LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
                   (is_ipv6 ? 0 : LWS_SERVER_OPTION_DISABLE_IPV6),
        .iface = strcmp(address, "0.0.0.0") == 0 ? NULL : address,
        .port = (int)cfg->listen_port,
        .protocols = ws->protocols,
        .retry_and_idle_policy = &ws->validity,
        .keepalive_timeout = KEEPALIVE_S,
        .timeout_secs = handshake_s(cfg),
        .timeout_secs_ah_idle = handshake_s(cfg),
        .vhost_name = "chasqui",
    };
    return lws_create_vhost(ws->context, &info);
}

struct edge_ws *
edge_ws_new(edge_t *e)
{
    struct edge_ws *ws = cq_alloc(sizeof *ws);
    ws->edge = e;
    ws->fd_max = raise_fd_limit(e->cfg->session_max);
    ws->protocols[0] = (struct lws_protocols){
        .name = SUBPROTOCOL,
        .callback = on_lws,
        .rx_buffer_size = RX_BUFFER_BYTES,
        .tx_packet_size = CQ_PUSH_FRAME_MAX,
    };
    ws->validity = (lws_retry_bo_t){.secs_since_valid_ping = UINT16_MAX,
                                    .secs_since_valid_hangup = UINT16_MAX};
    lws_set_log_level(LLL_ERR, on_log);
    ws->context = new_context(ws);
    struct lws_vhost *vhost = ws->context ? new_vhost(ws) : NULL;
    if (!vhost) {
        char text[128];
        CQ_LOG(
            ERROR, "EDGE-LISTEN-FAIL", "address=%s port=%llu",
            cq_log_text(e->cfg->listen_address, strlen(e->cfg->listen_address), text, sizeof text),
            (unsigned long long)e->cfg->listen_port);
        edge_ws_destroy(&ws);
        return NULL;
    }
    CQ_LOG(INFO, "EDGE-LISTEN", "address=%s port=%d", e->cfg->listen_address,
           lws_get_vhost_listen_port(vhost));
    return ws;
}

void
edge_ws_destroy(struct edge_ws **wsp)
{
    struct edge_ws *ws = *wsp;
    *wsp = NULL;
    if (!ws) {
        return;
    }
    if (ws->context) {
        /* On somebody else's loop this only begins: the loop has to run for the handles to close,
         * then it ends. */
        lws_context_destroy(ws->context);
        for (int i = 0; ws->context && i < CLOSE_RUNS; i++) {
            (void)uv_run(ws->loops[0], UV_RUN_NOWAIT);
        }
        if (ws->context) {
            lws_context_destroy(ws->context);
        }
    }
    free(ws);
}
