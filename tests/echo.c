/* SPDX-License-Identifier: MPL-2.0
 * ws-echo: the edge's WebSocket layer with nothing behind it but an echo, for conformance suites:
 *   ws-echo PORT [--max-frame BYTES] [--max-message BYTES] [--timeout-ms MS] [--tls CERT KEY]
 * Listens on 127.0.0.1, any path, any subprotocol (none is chosen). Prints "listening PORT".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/log.h"
#include "common/wire/buf.h"

#include "edge/net.h"

enum {
    MESSAGE_DEFAULT = 64 * 1024 * 1024,
    TIMEOUT_DEFAULT_MS = 10000
};

struct options {
    uint64_t port, max_frame, max_message, timeout_ms;
    const char *certificate, *key;
};

/* A message came: it goes back, whether or not the socket takes it now. While it does not, nothing
 * more is read. */
static void
on_message(void *ctx, edge_conn_t *c, struct cq_view data, bool is_text)
{
    (void)ctx;
    cq_buf_t out = {0};
    static const uint8_t headroom[EDGE_FRAME_OUT_HEADER_MAX];
    cq_buf_append(&out, headroom, sizeof headroom);
    cq_buf_append(&out, data.p, data.n);
    bool ok = edge_net_send(c, is_text ? EDGE_FRAME_TEXT : EDGE_FRAME_BINARY,
                            out.data + sizeof headroom, data.n);
    cq_buf_free(&out);
    if (!ok) {
        edge_net_kill(c);
    } else if (edge_net_is_blocked(c)) {
        edge_net_pause(c, true);
    }
}

static void
on_drained(void *ctx, edge_conn_t *c)
{
    (void)ctx;
    edge_net_pause(c, false);
}

static unsigned
on_upgrade(void *ctx, edge_conn_t *c, const struct edge_head *h, struct edge_net_upgrade *answer)
{
    (void)ctx, (void)h, (void)answer;
    edge_net_settle(c);
    return 0;
}

static void
on_request(void *ctx, edge_conn_t *c, const struct edge_head *h)
{
    (void)ctx, (void)h;
    static const char text[] = "this is a WebSocket echo\n";
    struct edge_net_reply r = {.status = 426,
                               .headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                               .body = text,
                               .n = sizeof text - 1};
    edge_net_reply(c, &r);
}

static const struct edge_net_calls calls = {
    .on_request = on_request,
    .on_upgrade = on_upgrade,
    .on_message = on_message,
    .on_drained = on_drained,
};

static bool
read_number(const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    if (!text || *text < '0' || *text > '9') {
        return false;
    }
    *out = strtoull(text, &end, 10);
    return !*end && *out <= max;
}

static bool
read_options(int argc, char **argv, struct options *o)
{
    const struct {
        const char *name;
        uint64_t *value;
    } numbers[] = {{"--max-frame", &o->max_frame},
                   {"--max-message", &o->max_message},
                   {"--timeout-ms", &o->timeout_ms}};
    if (argc < 2 || !read_number(argv[1], UINT16_MAX, &o->port)) {
        return false;
    }
    for (int i = 2; i < argc; i += 2) {
        bool ok = false;
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            ok = ok || (strcmp(argv[i], numbers[k].name) == 0 &&
                        read_number(argv[i + 1], UINT32_MAX, numbers[k].value));
        }
        if (!ok && strcmp(argv[i], "--tls") == 0 && i + 2 < argc) {
            o->certificate = argv[++i];
            o->key = argv[i + 1];
            ok = true;
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static int
run(const struct options *o)
{
    cq_loop_t *loop = cq_loop_new();
    struct edge_net_stats stats = {0};
    edge_tls_t *tls = o->certificate ? edge_tls_new(o->certificate, o->key) : NULL;
    struct edge_net_cfg cfg = {
        .loop = loop,
        .address = "127.0.0.1",
        .port = (uint16_t)o->port,
        .tls = tls,
        .request_timeout_ms = o->timeout_ms,
        .newcomer_share = 100,
        .connections_max = SIZE_MAX,
        .frames = {o->max_frame, o->max_message, true},
        .calls = &calls,
        .stats = &stats,
    };
    edge_net_t *net = o->certificate && !tls ? NULL : edge_net_new(&cfg);
    bool ok = net != NULL;
    if (ok) {
        (void)printf("listening %u\n", edge_net_port(net));
        (void)fflush(stdout);
        cq_loop_run(loop);
    }
    edge_net_destroy(&net);
    edge_tls_destroy(&tls);
    cq_loop_destroy(&loop);
    return ok ? 0 : 1;
}

int
main(int argc, char **argv)
{
    struct options o = {.max_frame = MESSAGE_DEFAULT,
                        .max_message = MESSAGE_DEFAULT,
                        .timeout_ms = TIMEOUT_DEFAULT_MS};
    if (!read_options(argc, argv, &o)) {
        (void)fprintf(stderr, "usage: ws-echo PORT [--max-frame BYTES] [--max-message BYTES] "
                              "[--timeout-ms MS] [--tls CERTIFICATE KEY]\n");
        return 2;
    }
    cq_log_init("ws-echo", CQ_LOG_WARN);
    return run(&o);
}
