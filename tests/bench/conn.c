/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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
    NS_PER_S = 1000000000,
    PER_SOURCE = 16384,
    SOURCES = 250
};

static int poller = -1;
static int timer = -1;
static SSL_CTX *tls;
static uint64_t pings;
static unsigned first_source;

void
bench_conn_sources(unsigned first)
{
    first_source = first;
}

void
bench_conn_start(void)
{
    struct rlimit files;
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
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

void
bench_conn_use_tls(const char *ca_file)
{
    tls = SSL_CTX_new(TLS_client_method());
    if (!tls || SSL_CTX_load_verify_locations(tls, ca_file, NULL) != 1) {
        bench_measure_fail("cannot use the certificate %s", ca_file);
    }
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Whole handshakes: a storm does not find the sessions of another edge. */
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
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

/* The connection is over: tells its owner, or gives up. */
static void
finish(struct bench_conn *c, const char *why, int number)
{
    if (!c->on_end) {
        bench_measure_fail("%s (%d)", why, number);
    }
    bench_conn_close(c);
    c->on_end(c);
}

static void
choose_source(int fd)
{
    static unsigned opened;
    unsigned source = (first_source + opened++ / PER_SOURCE) % SOURCES;
    int on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + source)};
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) {
        bench_measure_fail("bind: errno %d", errno);
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
    choose_source(c->fd);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->state = BENCH_CONN_CONNECTING;
    c->heard_ns = bench_measure_now_ns();
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        int number = errno;
        watch(c, EPOLL_CTL_ADD, false);
        finish(c, "connect: errno", number);
        return;
    }
    watch(c, EPOLL_CTL_ADD, true);
}

void
bench_conn_close(struct bench_conn *c)
{
    if (c->state != BENCH_CONN_CLOSED) {
        SSL_free(c->ssl);
        c->ssl = NULL;
        (void)close(c->fd);
    }
    cq_buf_free(&c->in);
    cq_buf_free(&c->ops);
    cq_buf_free(&c->out);
    c->op_count = 0;
    c->state = BENCH_CONN_CLOSED;
}

/* ---- the socket, with TLS or without ---- */

/* Of SSL_read and SSL_write, as errno has it. */
static ssize_t
as_errno(struct bench_conn *c, int rc)
{
    if (rc > 0) {
        return rc;
    }
    int why = SSL_get_error(c->ssl, rc);
    ERR_clear_error();
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t
give(struct bench_conn *c, const uint8_t *p, size_t n)
{
    return c->ssl ? as_errno(c, SSL_write(c->ssl, p, (int)n)) : send(c->fd, p, n, MSG_NOSIGNAL);
}

static ssize_t
take(struct bench_conn *c, uint8_t *p, size_t n)
{
    return c->ssl ? as_errno(c, SSL_read(c->ssl, p, (int)n)) : recv(c->fd, p, n, 0);
}

/* ---- out ---- */

static void
write_out(struct bench_conn *c)
{
    size_t done = 0;
    while (done < c->out.size) {
        ssize_t n = give(c, c->out.data + done, c->out.size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            finish(c, "the edge closed a connection: errno", errno);
            return;
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
    cq_buf_append(&c->out, request, sizeof request - 1);
    c->state = BENCH_CONN_HANDSHAKE;
    write_out(c);
}

static void
shake_tls(struct bench_conn *c)
{
    int rc = SSL_connect(c->ssl);
    if (rc == 1) {
        ask_upgrade(c);
        return;
    }
    int why = SSL_get_error(c->ssl, rc);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        watch(c, EPOLL_CTL_MOD, why == SSL_ERROR_WANT_WRITE);
    } else {
        finish(c, "TLS handshake: error", why);
    }
}

static void
on_connected(struct bench_conn *c)
{
    int failed = 0;
    socklen_t size = sizeof failed;
    (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (failed) {
        finish(c, "connect: errno", failed);
    } else if (tls) {
        c->ssl = SSL_new(tls);
        if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1) {
            bench_measure_fail("no memory for TLS");
        }
        c->state = BENCH_CONN_TLS;
        shake_tls(c);
    } else {
        ask_upgrade(c);
    }
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
        pings++;
        break;
    case WS_FIN | WS_PONG:
        break;
    case WS_FIN | WS_CLOSE:
        finish(c, "the edge closed a connection with",
               size >= 2 ? data[header] << 8 | data[header + 1] : 0);
        break;
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
        finish(c, "the handshake was refused", n < 12 ? 0 : atoi((const char *)data + 9));
        return 0;
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
    c->heard_ns = bench_measure_now_ns();
    do {
        ssize_t n = take(c, chunk, sizeof chunk);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n <= 0) {
            finish(c, "the edge closed a connection", n < 0 ? errno : 0);
            return;
        }
        cq_buf_append(&c->in, chunk, (size_t)n);
    } while (c->ssl && SSL_pending(c->ssl));
    take_input(c);
    if (c->state == BENCH_CONN_OPEN && c->on_turn) {
        c->on_turn(c);
    }
    if (c->state == BENCH_CONN_OPEN) {
        bench_conn_flush(c);
    }
    if (c->state == BENCH_CONN_OPEN && c->out.size && !c->wants_write) {
        write_out(c); /* pongs */
    }
    if (c->is_frugal && c->state == BENCH_CONN_OPEN && !c->in.size && !c->out.size) {
        cq_buf_free(&c->in);
        cq_buf_free(&c->out);
        cq_buf_free(&c->ops);
    }
}

static void
on_event(struct bench_conn *c, uint32_t events)
{
    if (c->state == BENCH_CONN_CONNECTING) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
            on_connected(c);
        }
        return;
    }
    if (c->state == BENCH_CONN_TLS) {
        shake_tls(c);
        return;
    }
    if (events & EPOLLOUT) {
        write_out(c);
    }
    if (c->state != BENCH_CONN_CLOSED && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        on_readable(c);
    }
}

uint64_t
bench_conn_pings(void)
{
    return pings;
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
