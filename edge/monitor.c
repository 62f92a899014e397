/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/monitor.h"

#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "edge/net.h"
#include "edge/scrape.h"
#include "edge/ws.h"

enum {
    CONNECTIONS_MAX = 32,
    REQUEST_TIMEOUT_MS = 10000,
    TRANSFER_TIMEOUT_MS = 30000,
    TRANSFER_MIN_BYTES = 1024,
};

struct edge_monitor {
    edge_t *edge;
    edge_net_t *net;
    struct edge_net_stats stats; /* not shown: the clients' listener has the metrics of this name */
};

/* A scraper that waits; its exchange's user. */
struct scraper {
    edge_t *edge;
    edge_conn_t *conn;
};

static void
reply(edge_conn_t *c, unsigned status, struct cq_view body)
{
    struct edge_net_reply r = {.status = status,
                               .type = "text/plain; version=0.0.4; charset=utf-8",
                               .body = body.p,
                               .n = body.n};
    edge_net_reply(c, &r);
}

static void
reply_text(edge_conn_t *c, unsigned status, const char *text)
{
    reply(c, status, (struct cq_view){(const uint8_t *)text, strlen(text)});
}

static void
on_scraped(void *ctx, struct cq_view text)
{
    const struct scraper *s = ctx;
    reply(s->conn, 200, text);
}

static void
on_over(void *user)
{
    struct scraper *s = user;
    edge_scrape_forget(s->edge->scrape, s);
    free(s);
}

static void
serve_metrics(edge_t *e, edge_conn_t *c, const struct edge_head *head)
{
    static const struct edge_net_exchange calls = {.on_over = on_over};
    struct scraper *s = cq_alloc(sizeof *s);
    *s = (struct scraper){e, c};
    edge_net_exchange_begin(c, head, 0, &calls, s);
    if (edge_scrape_begin(e->scrape, on_scraped, s)) {
        reply_text(c, 503, "too many scrapes at once\n");
    }
}

static void
on_request(void *ctx, edge_conn_t *c, const struct edge_head *head)
{
    const struct edge_monitor *m = ctx;
    edge_t *e = m->edge;
    bool is_get = edge_head_is(head->method, "GET") || edge_head_is(head->method, "HEAD");
    if (is_get && edge_head_is(head->path, "/metrics")) {
        serve_metrics(e, c, head);
    } else if (is_get &&
               (edge_head_is(head->path, "/readyz") || edge_head_is(head->path, "/healthz"))) {
        edge_http_serve(e, c, head);
    } else if (is_get) {
        reply_text(c, 404, "here is /metrics, /readyz, /healthz\n");
    } else {
        struct edge_net_reply r = {
            .status = 405, .headers = "allow: GET, HEAD\r\n", .body = "GET only\n", .n = 9};
        edge_net_reply(c, &r);
    }
}

struct edge_monitor *
edge_monitor_new(edge_t *e)
{
    static const struct edge_net_calls calls = {.on_request = on_request};
    struct edge_monitor *m = cq_alloc(sizeof *m);
    m->edge = e;
    struct edge_net_cfg net = {
        .newcomer_share = 100,
        .loop = e->loop,
        .address = e->cfg->metrics_address,
        .port = (uint16_t)e->cfg->metrics_port,
        .request_timeout_ms = REQUEST_TIMEOUT_MS,
        .transfer_timeout_ms = TRANSFER_TIMEOUT_MS,
        .transfer_min_bytes = TRANSFER_MIN_BYTES,
        .connections_max = CONNECTIONS_MAX,
        .calls = &calls,
        .ctx = m,
        .stats = &m->stats,
    };
    m->net = edge_net_new(&net);
    if (!m->net) {
        free(m);
        return NULL;
    }
    CQ_LOG(INFO, "EDGE-MONITOR-LISTEN", "address=%s port=%u", e->cfg->metrics_address,
           edge_net_port(m->net));
    return m;
}

void
edge_monitor_destroy(struct edge_monitor **monitor)
{
    struct edge_monitor *m = *monitor;
    *monitor = NULL;
    if (m) {
        edge_net_destroy(&m->net);
        free(m);
    }
}
