/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "tests/bench/measure.h"

enum {
    EVENTS = 256,
    READ_BYTES = 65536,
    WS_CONTINUATION = 0x0,
    WS_BINARY = 0x2,
    WS_CLOSE = 0x8,
    WS_PING = 0x9,
    WS_PONG = 0xa,
    WS_FIN = 0x80,
    WS_MASKED = 0x80,
    WS_HEADER_MAX = 14,
    NS_PER_S = 1000000000
};

static int poller = -1;
static int timer = -1;

void
bench_conn_start(void)
{
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &e)) {
        bench_measure_fail("epoll: errno %d", errno);
    }
}

static void
watch(struct bench_conn *c, int how, bool wants_write)
{
    struct epoll_event e = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0), .data.ptr = c};
    c->wants_write = wants_write;
    if (epoll_ctl(poller, how, c->fd, &e)) {
        bench_measure_fail("epoll_ctl: errno %d", errno);
    }
}

void
bench_conn_open(struct bench_conn *c, uint16_t port)
{
    int on = 1;
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        bench_measure_fail("socket: errno %d", errno);
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        bench_measure_fail("connect to port %u: errno %d", port, errno);
    }
    c->state = BENCH_CONN_CONNECTING;
    watch(c, EPOLL_CTL_ADD, true);
}

void
bench_conn_close(struct bench_conn *c)
{
    if (c->state != BENCH_CONN_CLOSED) {
        (void)close(c->fd);
    }
    cq_buf_free(&c->in);
    cq_buf_free(&c->ops);
    cq_buf_free(&c->out);
    c->op_count = 0;
    c->state = BENCH_CONN_CLOSED;
}

/* ---- out ---- */

static void
write_out(struct bench_conn *c)
{
    size_t done = 0;
    while (done < c->out.size) {
        ssize_t n = send(c->fd, c->out.data + done, c->out.size - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            bench_measure_fail("the edge closed a connection: errno %d", errno);
        }
        if (n < 0) {
            break;
        }
        done += (size_t)n;
    }
    c->out.size -= done;
    memmove(c->out.data, c->out.data + done, c->out.size);
    if (c->wants_write != (c->out.size > 0)) {
        watch(c, EPOLL_CTL_MOD, c->out.size > 0);
    }
}

/* A masked frame, RFC 6455 §5.2. */
static void
put_frame(struct bench_conn *c, uint8_t opcode, const uint8_t *data, size_t n)
{
    static uint64_t seed = 0x9e3779b97f4a7c15U;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    uint8_t *to = cq_buf_reserve(&c->out, WS_HEADER_MAX + n);
    uint32_t mask = (uint32_t)seed;
    uint64_t wide = (uint64_t)mask << 32 | mask;
    *to++ = WS_FIN | opcode;
    if (n < 126) {
        *to++ = (uint8_t)(WS_MASKED | n);
    } else if (n < 65536) {
        *to++ = WS_MASKED | 126;
        *to++ = (uint8_t)(n >> 8);
        *to++ = (uint8_t)n;
    } else {
        bench_measure_fail("a frame of %zu bytes", n);
    }
    memcpy(to, &mask, sizeof mask);
    to += sizeof mask;
    size_t i = 0;
    for (; i + sizeof wide <= n; i += sizeof wide) {
        uint64_t v;
        memcpy(&v, data + i, sizeof v);
        v ^= wide;
        memcpy(to + i, &v, sizeof v);
    }
    for (; i < n; i++) {
        to[i] = data[i] ^ (uint8_t)(wide >> (8 * (i % 8)));
    }
    c->out.size = (size_t)(to + n - c->out.data);
}

cq_buf_t *
bench_conn_next_op(struct bench_conn *c)
{
    if (c->op_count++ == 0) {
        cq_buf_clear(&c->ops);
        (void)cq_pack_array_begin(&c->ops);
    }
    return &c->ops;
}

void
bench_conn_flush(struct bench_conn *c)
{
    if (c->op_count == 0) {
        return;
    }
    cq_pack_array_end(&c->ops, 0, c->op_count);
    c->op_count = 0;
    put_frame(c, WS_BINARY, c->ops.data, c->ops.size);
    write_out(c);
}

static void
ask_upgrade(struct bench_conn *c)
{
    static const char request[] = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                  "Sec-WebSocket-Protocol: chasqui.v1\r\n\r\n";
    int failed = 0;
    socklen_t size = sizeof failed;
    (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (failed) {
        bench_measure_fail("connect: error %d", failed);
    }
    cq_buf_append(&c->out, request, sizeof request - 1);
    c->state = BENCH_CONN_HANDSHAKE;
    write_out(c);
}

/* ---- in ---- */

static void
on_message(struct bench_conn *c, const uint8_t *data, size_t n)
{
    cq_reader_t r;
    struct cq_frame_op op;
    int count = cq_frame_open(data, n, SIZE_MAX, &r);
    if (count < 0) {
        bench_measure_fail("the edge sent no frame: %s", cq_err_name(count));
    }
    for (int i = 0; i < count; i++) {
        if (cq_frame_next(&r, &op)) {
            bench_measure_fail("the edge sent a broken frame");
        }
        if (c->on_op) {
            c->on_op(c, &op);
        }
    }
}

/* Bytes of the frame at the front of `data`, 0 if it is not whole yet. */
static size_t
take_frame(struct bench_conn *c, const uint8_t *data, size_t n)
{
    size_t header = 2;
    if (n < header) {
        return 0;
    }
    uint64_t size = data[1] & 127;
    if (size >= 126) {
        size_t width = size == 126 ? 2 : 8;
        header += width;
        if (n < header) {
            return 0;
        }
        size = 0;
        for (size_t i = 0; i < width; i++) {
            size = size << 8 | data[2 + i];
        }
    }
    if (n - header < size) {
        return 0;
    }
    switch (data[0]) {
    case WS_FIN | WS_BINARY:
        on_message(c, data + header, size);
        break;
    case WS_FIN | WS_PING:
        put_frame(c, WS_PONG, data + header, size);
        break;
    case WS_FIN | WS_PONG:
        break;
    case WS_FIN | WS_CLOSE:
        bench_measure_fail("the edge closed a connection with %d",
                           size >= 2 ? data[header] << 8 | data[header + 1] : 0);
    default:
        bench_measure_fail("a frame of kind 0x%x", data[0]);
    }
    return header + size;
}

/* Bytes of the answer to the handshake, 0 if it is not whole yet. */
static size_t
take_answer(struct bench_conn *c, const uint8_t *data, size_t n)
{
    const uint8_t *end = memmem(data, n, "\r\n\r\n", 4);
    if (!end) {
        return 0;
    }
    if (n < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0) {
        bench_measure_fail("the handshake was refused: %.12s", (const char *)data);
    }
    c->state = BENCH_CONN_OPEN;
    return (size_t)(end + 4 - data);
}

static void
take_input(struct bench_conn *c)
{
    size_t done = 0;
    size_t n = 1;
    while (n && done < c->in.size) {
        const uint8_t *at = c->in.data + done;
        n = c->state == BENCH_CONN_OPEN ? take_frame(c, at, c->in.size - done)
                                        : take_answer(c, at, c->in.size - done);
        if (c->state == BENCH_CONN_CLOSED) {
            return; /* by its handler */
        }
        done += n;
    }
    c->in.size -= done;
    memmove(c->in.data, c->in.data + done, c->in.size);
    if (c->in.size == 0 && c->in.room > READ_BYTES) {
        cq_buf_free(&c->in);
    }
}

static void
on_readable(struct bench_conn *c)
{
    static uint8_t chunk[READ_BYTES];
    ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        bench_measure_fail("the edge closed a connection");
    }
    cq_buf_append(&c->in, chunk, (size_t)n);
    take_input(c);
    if (c->state == BENCH_CONN_OPEN && c->on_turn) {
        c->on_turn(c);
    }
    if (c->state == BENCH_CONN_OPEN) {
        bench_conn_flush(c);
        if (c->out.size && !c->wants_write) {
            write_out(c); /* pongs */
        }
    }
}

static void
on_event(struct bench_conn *c, uint32_t events)
{
    if (c->state == BENCH_CONN_CONNECTING) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
            ask_upgrade(c);
        }
        return;
    }
    if (events & EPOLLOUT) {
        write_out(c);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        on_readable(c);
    }
}

void
bench_conn_poll(uint64_t deadline_ns)
{
    struct epoll_event events[EVENTS];
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                         .tv_nsec = (long)(deadline_ns % NS_PER_S)}};
    uint64_t expirations = 0;
    (void)timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    int n = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
        struct bench_conn *c = events[i].data.ptr;
        if (!c) {
            (void)!read(timer, &expirations, sizeof expirations);
        } else if (c->state != BENCH_CONN_CLOSED) {
            on_event(c, events[i].events);
        }
    }
}
