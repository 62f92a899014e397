/* SPDX-License-Identifier: MPL-2.0
 * The little HTTP an edge speaks: is it alive, is it ready, what is it.
 */
#include <stdio.h>
#include <string.h>

#include "edge/blob.h"
#include "edge/ops.h"
#include "edge/ws.h"

static const char page[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width,initial-scale=1\"><title>chasqui</title>\n<style>\n"
    ":root{color-scheme:light "
    "dark;--ink:#2b2118;--paper:#faf5ec;--red:#b3392b;--soft:#8a7a66;--box:#f1e7d6}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#efe6d8;--paper:#1d1814;--red:#e8796a;--soft:#"
    "a3927c;--box:#2a231c}}\n"
    "body{margin:0;min-height:100vh;display:grid;grid-template-columns:minmax(0,1fr);"
    "place-items:center;background:var(--paper);color:"
    "var(--ink);"
    "font:17px/1.6 Georgia,serif}\nmain{box-sizing:border-box;width:100%;max-width:38rem;"
    "padding:2rem}\n"
    "h1{font-size:2.6rem;margin:0;letter-spacing:.02em}h1:after{content:'';display:block;width:"
    "6rem;height:.5rem;margin-top:.4rem;"
    "background:repeating-linear-gradient(90deg,var(--red) 0 .8rem,transparent .8rem 1.2rem)}\n"
    "p.lead{font-size:1.15rem}code,pre{font:14px/1.5 "
    "ui-monospace,monospace;background:var(--box);border-radius:.3rem}\n"
    "code{padding:.1em .35em}pre{padding:.9rem "
    "1.1rem;overflow-x:auto}small{color:var(--soft)}\n</style></head>\n"
    "<body><main><h1>chasqui</h1>\n<p class=\"lead\">A messenger of your own, in which every "
    "message can be proved: stored before it is "
    "called sent, numbered without gaps, delivered once.</p>\n"
    "<p>This is an edge: it speaks WebSocket at <code>/ws</code>, subprotocol "
    "<code>chasqui.v1</code>. With the terminal client:</p>\n"
    "<pre>chasqui --server ws://HOST:PORT/ws signup NAME\nchasqui --server ws://HOST:PORT/ws chat "
    "FRIEND</pre>\n"
    "<p>Is this page's address <code>https://</code>, then write <code>wss://</code>.</p>\n"
    "<p>Is it alive: <code>/healthz</code>. Is it ready for logins: <code>/readyz</code>.</p>\n"
    "<p><small>Chasquis were the relay runners of the Inca roads: each carried the message to the "
    "next post and handed it over "
    "whole.</small></p></main></body></html>\n";

static const char policy[] =
    "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n";

static void
reply(edge_conn_t *c, unsigned status, const char *type, const char *body, size_t n)
{
    struct edge_net_reply r = {
        .status = status, .type = type, .headers = policy, .body = body, .n = n};
    edge_net_reply(c, &r);
}

static void
serve_page(edge_t *e, edge_conn_t *c)
{
    (void)e;
    reply(c, 200, "text/html; charset=utf-8", page, sizeof page - 1);
}

static void
serve_health(edge_t *e, edge_conn_t *c)
{
    (void)e;
    reply(c, 200, "text/plain", "ok\n", 3);
}

static void
serve_ready(edge_t *e, edge_conn_t *c)
{
    const char *reason = edge_unready_reason(e);
    const char *degraded = edge_degraded_reason(e);
    char body[160];
    int n;
    if (reason) {
        n = snprintf(body, sizeof body, "{\"ready\":false,\"reason\":\"%s\"}\n", reason);
    } else if (degraded) {
        n = snprintf(body, sizeof body, "{\"ready\":true,\"degraded\":\"%s\"}\n", degraded);
    } else {
        n = snprintf(body, sizeof body, "{\"ready\":true}\n");
    }
    reply(c, reason ? 503 : 200, "application/json", body, (size_t)n);
}

static void
serve_no_upgrade(edge_t *e, edge_conn_t *c)
{
    (void)e;
    static const char text[] = "this is a WebSocket: ask for an upgrade\n";
    struct edge_net_reply r = {.status = 426,
                               .headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                               .body = text,
                               .n = sizeof text - 1};
    edge_net_reply(c, &r);
}

static const struct {
    const char *path;
    void (*fn)(edge_t *e, edge_conn_t *c);
    bool is_free; /* of the limit: a load balancer asks, from an address that may be everybody's */
} routes[] = {
    {"/", serve_page, false},
    {"/healthz", serve_health, true},
    {"/readyz", serve_ready, true},
    {"/ws", serve_no_upgrade, false},
};

enum {
    ROUTE_COUNT = sizeof routes / sizeof routes[0],
    TOO_MANY = 429,
    MS_PER_S = 1000
};

/* The row of a path; ROUTE_COUNT: none. */
static size_t
find_route(const struct edge_head *head)
{
    size_t i = 0;
    while (i < ROUTE_COUNT && !edge_head_is(head->path, routes[i].path)) {
        i++;
    }
    return i;
}

static void
refuse_rate(edge_conn_t *c, uint64_t retry_ms)
{
    char header[64];
    (void)snprintf(header, sizeof header, "retry-after: %llu\r\n",
                   (unsigned long long)((retry_ms + MS_PER_S - 1) / MS_PER_S));
    struct edge_net_reply r = {
        .status = TOO_MANY, .headers = header, .body = "too many requests\n", .n = 18};
    edge_net_reply(c, &r);
}

void
edge_http_serve(edge_t *e, edge_conn_t *c, const struct edge_head *head)
{
    if (edge_head_is(head->path, "/blob") ||
        (head->path.n >= 6 && memcmp(head->path.p, "/blob/", 6) == 0)) {
        edge_blob_serve(e, c, head);
        return;
    }
    size_t route = find_route(head);
    bool is_free = route < ROUTE_COUNT && routes[route].is_free;
    uint64_t retry_ms =
        is_free ? 0 : edge_ops_take_for(e, EDGE_RATE_HTTP, NULL, edge_ip_key(edge_net_ip(c)));
    if (retry_ms) {
        refuse_rate(c, retry_ms);
        return;
    }
    if (!edge_head_is(head->method, "GET") && !edge_head_is(head->method, "HEAD")) {
        struct edge_net_reply r = {
            .status = 405, .headers = "allow: GET, HEAD\r\n", .body = "GET only\n", .n = 9};
        edge_net_reply(c, &r);
        return;
    }
    if (route < ROUTE_COUNT) {
        routes[route].fn(e, c);
        return;
    }
    reply(c, 404, "text/plain", "not found\n", 10);
}
