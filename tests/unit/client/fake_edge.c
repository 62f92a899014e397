/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/unit/client/fake_edge.h"

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

enum {
    DEADLINE_MS = 15000
};

struct fake_edge {
    int listener;
    int fd; /* -1: nobody */
    char url[64];
    cq_buf_t in;    /* bytes of the connection */
    uint8_t *frame; /* the message whose operations are being taken */
    cq_reader_t ops;
    int ops_left;
};

static void
give_up(const char *what)
{
    (void)fprintf(stderr, "fake edge: %s\n", what);
    abort();
}

fake_edge_t *
fake_edge_new(void)
{
    fake_edge_t *e = cq_alloc(sizeof *e);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    e->fd = -1;
    e->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(e->listener, (struct sockaddr *)&a, sizeof a) || listen(e->listener, 8) ||
        getsockname(e->listener, (struct sockaddr *)&a, &n)) {
        give_up("cannot listen");
    }
    (void)snprintf(e->url, sizeof e->url, "ws://127.0.0.1:%u/ws", ntohs(a.sin_port));
    return e;
}

void
fake_edge_hang_up(fake_edge_t *e)
{
    if (e->fd >= 0) {
        close(e->fd);
    }
    e->fd = -1;
    e->ops_left = 0;
    cq_buf_clear(&e->in);
}

void
fake_edge_destroy(fake_edge_t **p)
{
    fake_edge_t *e = *p;
    *p = NULL;
    fake_edge_hang_up(e);
    close(e->listener);
    cq_buf_free(&e->in);
    free(e->frame);
    free(e);
}

const char *
fake_edge_url(const fake_edge_t *e)
{
    return e->url;
}

static bool
readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, ms) > 0;
}

/* false: nothing came in ms */
static bool
receive(fake_edge_t *e, int ms)
{
    if (!readable(e->fd, ms)) {
        return false;
    }
    ssize_t n = read(e->fd, cq_buf_reserve(&e->in, 65536), 65536);
    if (n <= 0) {
        give_up("the client has closed");
    }
    e->in.size += (size_t)n;
    return true;
}

static void
send_all(fake_edge_t *e, const void *data, size_t n)
{
    if (send(e->fd, data, n, MSG_NOSIGNAL) != (ssize_t)n) {
        give_up("cannot send");
    }
}

void
fake_edge_accept(fake_edge_t *e)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    fake_edge_hang_up(e);
    if (!readable(e->listener, DEADLINE_MS)) {
        give_up("nobody connects");
    }
    e->fd = accept(e->listener, NULL, NULL);
    char *request = NULL;
    do {
        if (!receive(e, DEADLINE_MS)) {
            give_up("no handshake");
        }
        (void)cq_buf_reserve(&e->in, 1);
        e->in.data[e->in.size] = '\0';
        request = (char *)e->in.data;
    } while (!strstr(request, "\r\n\r\n"));
    if (!strstr(request, "chasqui.v1")) {
        give_up("not our subprotocol");
    }
    char *key = strstr(request, "Sec-WebSocket-Key: ");
    char text[128];
    unsigned char digest[20];
    char accept_key[64];
    char answer[512];
    (void)snprintf(text, sizeof text, "%.24s%s", key ? key + 19 : "", guid);
    lws_SHA1((const unsigned char *)text, strlen(text), digest);
    lws_b64_encode_string((const char *)digest, sizeof digest, accept_key, sizeof accept_key);
    (void)snprintf(
        answer, sizeof answer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chasqui.v1\r\n\r\n",
        accept_key);
    cq_buf_clear(&e->in);
    send_all(e, answer, strlen(answer));
}

/* A whole WebSocket message from the client, if there is one: unmasked into e->frame. */
static bool
take_message(fake_edge_t *e, size_t *size)
{
    const uint8_t *p = e->in.data;
    if (e->in.size < 6) {
        return false;
    }
    size_t n = p[1] & 0x7f;
    size_t head = 2;
    if (n == 126) {
        n = (size_t)p[2] << 8 | p[3];
        head = 4;
    } else if (n == 127) {
        give_up("a frame of more than 65,535 bytes");
    }
    if (e->in.size < head + 4 + n) {
        return false;
    }
    uint8_t kind = p[0] & 0x0f;
    free(e->frame);
    e->frame = cq_alloc(n);
    for (size_t i = 0; i < n; i++) {
        e->frame[i] = p[head + 4 + i] ^ p[head + i % 4];
    }
    memmove(e->in.data, e->in.data + head + 4 + n, e->in.size - head - 4 - n);
    e->in.size -= head + 4 + n;
    *size = kind == 2 ? n : 0;
    return true;
}

static bool
next_op(fake_edge_t *e, int ms, struct cq_frame_op *op)
{
    while (!e->ops_left) {
        size_t n = 0;
        while (!take_message(e, &n)) {
            if (!receive(e, ms)) {
                return false;
            }
        }
        if (n) {
            e->ops_left = cq_frame_open(e->frame, n, CQ_FRAME_OPS_MAX, &e->ops);
        }
    }
    if (e->ops_left < 0 || cq_frame_next(&e->ops, op)) {
        give_up("not a frame");
    }
    e->ops_left--;
    return true;
}

void
fake_edge_expect(fake_edge_t *e, uint8_t code, struct fake_op *out)
{
    struct cq_frame_op op;
    do {
        if (!next_op(e, DEADLINE_MS, &op)) {
            (void)fprintf(stderr, "waited for %s\n", cq_op_find(code)->name);
            give_up("the operation did not come");
        }
    } while (op.code == CQ_OP_PING && code != CQ_OP_PING);
    if (op.code != code) {
        const struct cq_op *row = cq_op_find(op.code);
        (void)fprintf(stderr, "waited for %s, got %s\n", cq_op_find(code)->name,
                      row ? row->name : "?");
        give_up("another operation");
    }
    memset(out, 0, sizeof *out);
    if (cq_schema_read(cq_op_find(code)->fields, &op.fields, op.field_count, &out->auth)) {
        give_up("wrong fields");
    }
    out->code = op.code;
    out->rid = op.rid;
}

void
fake_edge_expect_silence(fake_edge_t *e, int ms)
{
    struct cq_frame_op op;
    if (next_op(e, ms, &op)) {
        (void)fprintf(stderr, "got %s\n", cq_op_find(op.code) ? cq_op_find(op.code)->name : "?");
        give_up("an operation that nobody asked for");
    }
}

void
fake_edge_raw(fake_edge_t *e, const void *data, size_t n)
{
    uint8_t head[4] = {0x82, (uint8_t)n, 0, 0};
    size_t head_size = 2;
    if (n > 125) {
        head[1] = 126;
        head[2] = (uint8_t)(n >> 8);
        head[3] = (uint8_t)n;
        head_size = 4;
    }
    send_all(e, head, head_size);
    send_all(e, data, n);
}

static void
send_op(fake_edge_t *e, cq_buf_t *op)
{
    cq_buf_t frame = {0};
    cq_pack_array(&frame, 1);
    cq_buf_append(&frame, op->data, op->size);
    fake_edge_raw(e, frame.data, frame.size);
    cq_buf_free(&frame);
    cq_buf_free(op);
}

void
fake_edge_ok(fake_edge_t *e, uint64_t rid, const struct cq_schema *s, const void *in)
{
    cq_buf_t op = {0};
    cq_frame_ok(&op, rid, s, in);
    send_op(e, &op);
}

void
fake_edge_err(fake_edge_t *e, uint64_t rid, int err, uint64_t retry_after_ms, uint64_t detail)
{
    cq_buf_t op = {0};
    cq_frame_err(&op, rid, err, retry_after_ms, detail);
    send_op(e, &op);
}

void
fake_edge_push(fake_edge_t *e, uint8_t code, const struct cq_schema *s, const void *in)
{
    cq_buf_t op = {0};
    cq_frame_push(&op, (enum cq_op_code)code, s, in);
    send_op(e, &op);
}
