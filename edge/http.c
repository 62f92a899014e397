/* SPDX-License-Identifier: MPL-2.0
 * The little HTTP an edge speaks: is it alive, is it ready, what is it.
 */
#include <assert.h>
#include <libwebsockets.h>
#include <stdio.h>
#include <string.h>

#include "edge/ws.h"

enum {
    PATH_MAX_BYTES = 128,
    HEADERS_MAX = 1024,
    BODY_MAX = 4096
};

static const char page[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width,initial-scale=1\"><title>chasqui</title>\n<style>\n"
    ":root{color-scheme:light "
    "dark;--ink:#2b2118;--paper:#faf5ec;--red:#b3392b;--soft:#8a7a66;--box:#f1e7d6}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#efe6d8;--paper:#1d1814;--red:#e8796a;--soft:#"
    "a3927c;--box:#2a231c}}\n"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:"
    "var(--ink);"
    "font:17px/1.6 Georgia,serif}\nmain{max-width:38rem;padding:2rem}\n"
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
    "<p>Is it alive: <code>/healthz</code>. Is it ready for logins: <code>/readyz</code>.</p>\n"
    "<p><small>Chasquis were the relay runners of the Inca roads: each carried the message to the "
    "next post and handed it over "
    "whole.</small></p></main></body></html>\n";

struct response {
    unsigned status;
    const char *type;
    const char *body;
    size_t n;
};

static int
respond(struct lws *wsi, const struct response *r)
{
    static const char policy[] = "default-src 'none'; style-src 'unsafe-inline'";
    uint8_t headers[LWS_PRE + HEADERS_MAX];
    uint8_t *start = headers + LWS_PRE;
    uint8_t *p = start;
    uint8_t *end = headers + sizeof headers - 1;
    if (lws_add_http_common_headers(wsi, r->status, r->type, r->n, &p, end) ||
        lws_add_http_header_by_name(
            wsi, (const uint8_t *)"cache-control:", (const uint8_t *)"no-store", 8, &p, end) ||
        lws_add_http_header_by_name(wsi, (const uint8_t *)"x-content-type-options:",
                                    (const uint8_t *)"nosniff", 7, &p, end) ||
        lws_add_http_header_by_name(wsi, (const uint8_t *)"content-security-policy:",
                                    (const uint8_t *)policy, sizeof policy - 1, &p, end) ||
        lws_finalize_write_http_header(wsi, start, &p, end)) {
        return -1;
    }
    uint8_t body[LWS_PRE + BODY_MAX];
    memcpy(body + LWS_PRE, r->body, r->n);
    if (lws_write(wsi, body + LWS_PRE, r->n, LWS_WRITE_HTTP_FINAL) != (int)r->n) {
        return -1;
    }
    return 0;
}

static int
respond_and_complete(struct lws *wsi, const struct response *r)
{
    return respond(wsi, r) || lws_http_transaction_completed(wsi) ? -1 : 0;
}

int
edge_http_refuse(struct lws *wsi, unsigned status, const char *text)
{
    char body[160];
    int n = snprintf(body, sizeof body, "%s\n", text);
    struct response r = {status, "text/plain", body, (size_t)n};
    return respond(wsi, &r);
}

static int
serve_page(edge_t *e, struct lws *wsi)
{
    (void)e;
    static_assert(sizeof page <= BODY_MAX, "the page fits one write");
    struct response r = {HTTP_STATUS_OK, "text/html; charset=utf-8", page, sizeof page - 1};
    return respond_and_complete(wsi, &r);
}

static int
serve_health(edge_t *e, struct lws *wsi)
{
    (void)e;
    struct response r = {HTTP_STATUS_OK, "text/plain", "ok\n", 3};
    return respond_and_complete(wsi, &r);
}

static int
serve_ready(edge_t *e, struct lws *wsi)
{
    const char *reason = edge_unready_reason(e);
    char body[160];
    int n = reason ? snprintf(body, sizeof body, "{\"ready\":false,\"reason\":\"%s\"}\n", reason)
                   : snprintf(body, sizeof body, "{\"ready\":true}\n");
    struct response r = {reason ? HTTP_STATUS_SERVICE_UNAVAILABLE : HTTP_STATUS_OK,
                         "application/json", body, (size_t)n};
    return respond_and_complete(wsi, &r);
}

static const struct {
    const char *path;
    int (*fn)(edge_t *e, struct lws *wsi);
} routes[] = {
    {"/", serve_page},
    {"/healthz", serve_health},
    {"/readyz", serve_ready},
};

int
edge_http_serve(edge_t *e, struct lws *wsi)
{
    char path[PATH_MAX_BYTES];
    if (lws_hdr_copy(wsi, path, sizeof path, WSI_TOKEN_GET_URI) > 0) {
        for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
            if (strcmp(path, routes[i].path) == 0) {
                return routes[i].fn(e, wsi);
            }
        }
    }
    bool is_get = lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0;
    struct response r = {is_get ? HTTP_STATUS_NOT_FOUND : HTTP_STATUS_METHOD_NOT_ALLOWED,
                         "text/plain", "not found\n", 10};
    return respond_and_complete(wsi, &r);
}
