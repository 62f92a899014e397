/* SPDX-License-Identifier: MPL-2.0
 * Requests: heads are collected, judged, and handed on, or become WebSockets. Unless an exchange is
 * begun (net_body.c) requests with a body are answered without reading it; and of pipelined ones
 * that came in one piece only the first is answered: the connection ends with that answer.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/rt/log.h"

#include "edge/net_conn.h"

enum {
    NO_CONTENT = 204,
    NOT_MODIFIED = 304,
    BAD_REQUEST = 400,
    NOT_ALLOWED = 405,
    UPGRADE_REQUIRED = 426,
    UNAVAILABLE = 503,
    KEY_SIZE = 24,
    HEADERS_MAX = 2048,
    WHY_MAX = 200
};

/* Reason phrases in the words of RFC 9110 (429 and 431: RFC 6585; 507: RFC 4918; 460: tus). */
static const struct {
    uint16_t status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {204, "No Content"},
    {206, "Partial Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {460, "Checksum Mismatch"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"}, /* RFC 9110 15.6.2's phrase; any coding but chunked is refused */
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

static const char *
reason_of(unsigned status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Status";
}

void
edge_net_http_replied(edge_conn_t *c)
{
    if (edge_net_body_continues(c)) {
        return;
    }
    edge_net_body_over(c);
    if (c->is_last_reply) {
        edge_net_conn_finish(c);
        return;
    }
    edge_net_conn_move(c, EDGE_CONN_WAITING);
    edge_net_conn_set_state(c, EDGE_CONN_HEAD);
}

bool
edge_net_http_head(edge_conn_t *c, const struct edge_net_reply *r, uint64_t n, cq_buf_t *out)
{
    char about_body[160] = "";
    if (r->status != NO_CONTENT && r->status != NOT_MODIFIED) {
        (void)snprintf(about_body, sizeof about_body,
                       "content-type: %s\r\ncontent-length: %" PRIu64 "\r\n",
                       r->type ? r->type : "text/plain", n);
    }
    if (c->exchange && c->exchange->body_left) { /* the rest of it is not read */
        c->is_last_reply = true;
        edge_net_conn_set_state(c, EDGE_CONN_REPLY);
    }
    uint8_t *at = cq_buf_reserve(out, HEADERS_MAX);
    int size =
        snprintf((char *)at, HEADERS_MAX,
                 "HTTP/1.1 %u %s\r\n%scache-control: %s\r\n"
                 "x-content-type-options: nosniff\r\n%s%s\r\n",
                 r->status, reason_of(r->status), about_body, r->cache ? r->cache : "no-store",
                 c->is_last_reply ? "connection: close\r\n" : "", r->headers ? r->headers : "");
    if (size < 0 || size >= HEADERS_MAX) {
        return false;
    }
    out->size += (size_t)size;
    return true;
}

void
edge_net_reply(edge_conn_t *c, const struct edge_net_reply *r)
{
    if (c->state != EDGE_CONN_REPLY && c->state != EDGE_CONN_BODY) {
        return;
    }
    cq_buf_t out = {0};
    bool ok = edge_net_http_head(c, r, r->n, &out);
    if (ok && !c->is_head_only && r->n) {
        cq_buf_append(&out, r->body, r->n);
    }
    ok = ok && edge_net_conn_write(c, out.data, out.size);
    cq_buf_free(&out);
    if (!ok) {
        edge_net_kill(c);
    } else if (!c->out) {
        edge_net_http_replied(c);
    }
}

/* Answers with a sentence, and ends the connection. */
static void
refuse(edge_conn_t *c, unsigned status, const char *why, const char *headers)
{
    char text[WHY_MAX];
    int n = snprintf(text, sizeof text, "%s\n", why);
    struct edge_net_reply r = {.status = status, .headers = headers, .body = text, .n = (size_t)n};
    c->is_last_reply = true;
    edge_net_conn_set_state(c, EDGE_CONN_REPLY);
    edge_net_reply(c, &r);
}

static void
refuse_request(edge_conn_t *c, unsigned status)
{
    char ip[EDGE_IP_TEXT_MAX];
    c->net->cfg.stats->refused_request_total++;
    CQ_LOG(DEBUG, "EDGE-REQUEST-REFUSED", "from=%s status=%u", edge_ip_text(&c->ip, ip), status);
    refuse(c, status, "this is no request that can be answered", NULL);
}

/* ---- WebSocket handshakes (RFC 6455 §4.2) ---- */

/* Base64 of 16 bytes. */
static bool
is_key(struct cq_view key)
{
    if (key.n != KEY_SIZE || key.p[KEY_SIZE - 2] != '=' || key.p[KEY_SIZE - 1] != '=') {
        return false;
    }
    for (size_t i = 0; i < KEY_SIZE - 2; i++) {
        uint8_t b = key.p[i];
        bool is_digit = (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z') ||
                        (b >= '0' && b <= '9') || b == '+' || b == '/';
        if (!is_digit) {
            return false;
        }
    }
    return strchr("AQgw", key.p[KEY_SIZE - 3]); /* the bits beyond the 16 bytes are 0 */
}

static bool
has_body(const struct edge_head *h)
{
    struct cq_view length = edge_head_field(h, "content-length");
    return (length.p && !edge_head_is(length, "0")) || edge_head_count(h, "transfer-encoding");
}

static unsigned
check_handshake(const struct edge_head *h, const char **why)
{
    *why = "a WebSocket handshake is a GET";
    if (!edge_head_is(h->method, "GET")) {
        return NOT_ALLOWED;
    }
    *why = "only version 13 of the WebSocket protocol is spoken";
    if (!edge_head_is(edge_head_field(h, "sec-websocket-version"), "13")) {
        return UPGRADE_REQUIRED;
    }
    *why = "malformed WebSocket handshake";
    bool ok = h->minor == 1 && !has_body(h) && edge_head_lists(h, "connection", "upgrade") &&
              is_key(edge_head_field(h, "sec-websocket-key"));
    return ok ? 0 : BAD_REQUEST;
}

static void
accept_handshake(edge_conn_t *c, const struct edge_head *h, const char *protocol)
{
    char accept[EDGE_TLS_WS_ACCEPT_SIZE], text[512];
    struct cq_view key = edge_head_field(h, "sec-websocket-key");
    edge_tls_ws_accept(key.p, key.n, accept);
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                     accept, protocol ? "Sec-WebSocket-Protocol: " : "", protocol ? protocol : "",
                     protocol ? "\r\n" : "");
    if (!edge_net_conn_write(c, text, (size_t)n)) {
        edge_net_kill(c);
        return;
    }
    edge_net_conn_move(c, EDGE_CONN_OPEN);
    edge_net_conn_set_state(c, EDGE_CONN_WS);
    if (c->net->cfg.calls->on_open) {
        c->net->cfg.calls->on_open(c->net->cfg.ctx, c);
    }
}

static void
upgrade(edge_conn_t *c, const struct edge_head *h, uint8_t *rest, size_t n)
{
    struct edge_net_upgrade answer = {.why = "malformed WebSocket handshake"};
    unsigned status = check_handshake(h, &answer.why);
    if (!status) {
        status = c->net->cfg.calls->on_upgrade(c->net->cfg.ctx, c, h, &answer);
    }
    if (status) {
        char ip[EDGE_IP_TEXT_MAX];
        c->net->cfg.stats->refused_handshake_total++;
        CQ_LOG(DEBUG, "EDGE-HANDSHAKE-REFUSED", "from=%s status=%u", edge_ip_text(&c->ip, ip),
               status);
        refuse(c, status, answer.why,
               status == UPGRADE_REQUIRED ? "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                          : NULL);
        return;
    }
    /* The head may be in what the connection keeps: that is let go of only now. */
    cq_buf_t kept = {0};
    if (c->in) {
        kept = c->in->bytes;
        c->in->bytes = (cq_buf_t){0};
        edge_net_conn_in_drop(c);
    }
    accept_handshake(c, h, answer.protocol);
    if (n && c->state == EDGE_CONN_WS) {
        edge_net_ws_take(c, rest, n);
    }
    cq_buf_free(&kept);
}

/* ---- requests ---- */

static void
serve(edge_conn_t *c, const struct edge_head *h, uint8_t *rest, size_t n)
{
    const struct edge_net_calls *calls = c->net->cfg.calls;
    c->net->cfg.stats->http_total++;
    c->is_head_only = edge_head_is(h->method, "HEAD");
    c->is_last_reply =
        h->minor == 0 || n || has_body(h) || edge_head_lists(h, "connection", "close");
    if (c->refuse) {
        refuse(c, c->refuse, "too many connections: try again later", "retry-after: 5\r\n");
    } else if (calls->on_upgrade && edge_head_lists(h, "upgrade", "websocket")) {
        upgrade(c, h, rest, n);
    } else {
        edge_net_conn_set_state(c, EDGE_CONN_REPLY);
        c->net->rest = (struct cq_view){rest, n};
        calls->on_request(c->net->cfg.ctx, c, h);
        if (c->state != EDGE_CONN_GONE) {
            edge_net_conn_in_drop(c);
        }
    }
}

void
edge_net_http_take(edge_conn_t *c, uint8_t *p, size_t n)
{
    uint8_t *at = p;
    bool has_room = true;
    if (c->in && c->in->bytes.size) {
        cq_buf_append(&c->in->bytes, p, n);
        has_room = edge_net_conn_in_count(c);
        at = c->in->bytes.data;
        n = c->in->bytes.size;
    }
    struct edge_head h;
    int size = edge_head_parse(&h, at, n);
    if (size < 0) {
        refuse_request(c, (unsigned)-size);
    } else if (size > 0) {
        serve(c, &h, at + size, n - (size_t)size);
    } else if (at == p) {
        cq_buf_append(&edge_net_conn_in(c)->bytes, at, n);
        has_room = edge_net_conn_in_count(c);
    }
    if (size == 0 && !has_room) {
        refuse(c, UNAVAILABLE, "too many send parts of requests: try again later",
               "retry-after: 5\r\n");
    }
}
