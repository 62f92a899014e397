/* SPDX-License-Identifier: MPL-2.0
 * mosquitto: the load of `chat` (pairs.c) on Debian's MQTT broker, so that both can be measured in
 * one run on one machine. X of each pair publishes with QoS 1 and keeps `window` unacknowledged; Y
 * acknowledges each message and publishes, for all that it got at once, one read marker with QoS 1,
 * which X gets and acknowledges. MQTT 3.1.1, as far as that needs it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/config.h"
#include "common/wire/buf.h"

#include "tests/bench/bench.h"
#include "tests/bench/measure.h"

enum {
    WARM_UP_S = 2,
    EVENTS = 256,
    INPUT_MAX = 65536,
    TOPIC_MAX = 32,
    SUBSCRIBE_ID = 65535, /* packet ids of messages are below */
    CONNECT = 0x10,
    CONNACK = 0x20,
    PUBLISH_QOS1 = 0x32,
    PUBACK = 0x40,
    SUBSCRIBE = 0x82,
    SUBACK = 0x90,
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    uint64_t port, pid, pairs, window, bytes, seconds;
    bool no_receipts, clean;
};

static const struct cq_config_item items[] = {
    {"port", CQ_CONFIG_UINT, offsetof(struct options, port), NULL, 1, 65535, "",
     "where mosquitto listens on 127.0.0.1"},
    {"pid", CQ_CONFIG_UINT, offsetof(struct options, pid), NULL, 1, INT32_MAX, "", "its process"},
    {"pairs", CQ_CONFIG_UINT, offsetof(struct options, pairs), "100", 1, 10000, "", "pairs"},
    {"window", CQ_CONFIG_UINT, offsetof(struct options, window), "8", 1, 16, "",
     "messages that X leaves unacknowledged"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 8, 16384, "bytes",
     "length of a message"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "10", 1, 3600, "s",
     "measured time, behind a warm-up of 2 s"},
    {"no-receipts", CQ_CONFIG_BOOL, offsetof(struct options, no_receipts), "false", 0, 0, "",
     "no read markers"},
    {"clean", CQ_CONFIG_BOOL, offsetof(struct options, clean), "false", 0, 0, "",
     "sessions that are not kept: nothing of them is saved"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

struct client {
    int fd;
    bool is_y, is_ready;
    uint16_t next_id;
    uint64_t unacknowledged;
    uint64_t got;          /* messages, in what is being read */
    char topic[TOPIC_MAX]; /* to publish to */
    cq_buf_t in, out;
};

static struct {
    struct options o;
    struct client *clients;
    size_t ready;
    bool is_measuring;
    uint64_t delivered, read_back;
    struct bench_hist received;
} run;

/* ---- packets ---- */

static void
put_u16(cq_buf_t *b, size_t v)
{
    const uint8_t p[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    cq_buf_append(b, p, sizeof p);
}

static void
put_text(cq_buf_t *b, const char *text)
{
    put_u16(b, strlen(text));
    cq_buf_append(b, text, strlen(text));
}

/* Packet type and the length of what follows. */
static void
put_head(cq_buf_t *b, uint8_t type, size_t n)
{
    cq_buf_append(b, &type, 1);
    do {
        uint8_t digit = (uint8_t)(n % 128 | (n >= 128 ? 128 : 0));
        cq_buf_append(b, &digit, 1);
        n /= 128;
    } while (n);
}

static void
put_connect(struct client *c, const char *id)
{
    /* level, flags (2: the session ends with the connection), no keep-alive */
    const uint8_t rest[] = {4, run.o.clean ? 2 : 0, 0, 0};
    put_head(&c->out, CONNECT, 6 + sizeof rest + 2 + strlen(id));
    put_text(&c->out, "MQTT");
    cq_buf_append(&c->out, rest, sizeof rest);
    put_text(&c->out, id);
}

static void
put_subscribe(struct client *c, const char *topic)
{
    const uint8_t qos = 1;
    put_head(&c->out, SUBSCRIBE, 2 + 2 + strlen(topic) + 1);
    put_u16(&c->out, SUBSCRIBE_ID);
    put_text(&c->out, topic);
    cq_buf_append(&c->out, &qos, 1);
}

static void
put_publish(struct client *c, const void *data, size_t n)
{
    c->next_id = (uint16_t)(c->next_id % (SUBSCRIBE_ID - 1) + 1);
    put_head(&c->out, PUBLISH_QOS1, 2 + strlen(c->topic) + 2 + n);
    put_text(&c->out, c->topic);
    put_u16(&c->out, c->next_id);
    cq_buf_append(&c->out, data, n);
}

static void
flush(struct client *c)
{
    while (c->out.size) {
        ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            bench_measure_fail("mosquitto has ended a connection");
        }
        if (n > 0) {
            c->out.size -= (size_t)n;
            memmove(c->out.data, c->out.data + n, c->out.size);
        }
    }
}

/* ---- what X and Y do ---- */

static void
fill_window(struct client *x)
{
    static uint8_t text[16384];
    while (x->unacknowledged < run.o.window) {
        uint64_t now_ns = bench_measure_now_ns();
        memcpy(text, &now_ns, sizeof now_ns);
        put_publish(x, text, run.o.bytes);
        x->unacknowledged++;
    }
}

static void
take_message(struct client *c, const uint8_t *p, size_t n)
{
    size_t topic = n > 2 ? (size_t)p[0] << 8 | p[1] : n;
    uint64_t sent_ns;
    if (n < 4 + topic + sizeof sent_ns) {
        bench_measure_fail("a message that is none");
    }
    put_head(&c->out, PUBACK, 2);
    cq_buf_append(&c->out, p + 2 + topic, 2);
    c->got++;
    if (!c->is_y) {
        run.read_back += run.is_measuring;
    } else if (run.is_measuring) {
        memcpy(&sent_ns, p + 4 + topic, sizeof sent_ns);
        bench_measure_add(&run.received, bench_measure_now_ns() - sent_ns);
        run.delivered++;
    }
}

static void
take_packet(struct client *c, uint8_t type, const uint8_t *p, size_t n)
{
    switch (type & 0xf0) {
    case PUBLISH_QOS1 & 0xf0:
        take_message(c, p, n);
        break;
    case PUBACK:
        c->unacknowledged -= c->is_y ? 0 : 1;
        break;
    case CONNACK:
        if (n != 2 || p[1]) {
            bench_measure_fail("mosquitto refuses a connection");
        }
        break;
    case SUBACK:
        c->is_ready = true;
        run.ready++;
        break;
    default:
        bench_measure_fail("a packet of type %u", type);
    }
}

/* Bytes of the whole packet at p, or 0: more are needed. *body: behind its head. */
static size_t
packet_size(const uint8_t *p, size_t n, size_t *body)
{
    size_t length = 0;
    for (size_t i = 1; i < n && i <= 4; i++) {
        length |= (size_t)(p[i] & 127) << 7 * (i - 1);
        if (!(p[i] & 128)) {
            *body = i + 1;
            return *body + length <= n ? *body + length : 0;
        }
    }
    return 0;
}

static void
read_some(struct client *c)
{
    ssize_t n = recv(c->fd, cq_buf_reserve(&c->in, INPUT_MAX), INPUT_MAX, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        bench_measure_fail("mosquitto has ended a connection");
    }
    c->in.size += n > 0 ? (size_t)n : 0;
    size_t at = 0, body = 0;
    for (size_t size; (size = packet_size(c->in.data + at, c->in.size - at, &body)); at += size) {
        take_packet(c, c->in.data[at], c->in.data + at + body, size - body);
    }
    c->in.size -= at;
    memmove(c->in.data, c->in.data + at, c->in.size);
    if (c->is_y && c->got && !run.o.no_receipts) {
        put_publish(c, &c->got, sizeof c->got);
    } else if (!c->is_y && run.ready == 2 * run.o.pairs) {
        fill_window(c);
    }
    c->got = 0;
    flush(c);
}

/* ---- all of them ---- */

static void
open_one(int poll, size_t number)
{
    struct client *c = &run.clients[number];
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)run.o.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    const int on = 1;
    char id[TOPIC_MAX], from[TOPIC_MAX];
    c->is_y = number % 2;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &e) != 0) {
        bench_measure_fail("cannot connect to port %" PRIu64, run.o.port);
    }
    (void)snprintf(id, sizeof id, "bench-%zu", number);
    (void)snprintf(from, sizeof from, "%s/%zu", c->is_y ? "text" : "read", number / 2);
    (void)snprintf(c->topic, sizeof c->topic, "%s/%zu", c->is_y ? "read" : "text", number / 2);
    put_connect(c, id);
    put_subscribe(c, from);
    flush(c);
}

static void
go_on_until(int poll, uint64_t end_ns, size_t ready)
{
    struct epoll_event events[EVENTS];
    while (bench_measure_now_ns() < end_ns && run.ready < ready) {
        int n = epoll_wait(poll, events, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            read_some(events[i].data.ptr);
        }
    }
}

int
bench_mosquitto_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench mosquitto", argc, argv, &run.o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_begin(
        "mosquitto", "pairs %" PRIu64 ", window %" PRIu64 ", %" PRIu64 " bytes, %" PRIu64 " s%s%s",
        run.o.pairs, run.o.window, run.o.bytes, run.o.seconds,
        run.o.no_receipts ? ", no receipts" : "", run.o.clean ? ", clean sessions" : "");
    procs.count = 1;
    procs.list[0] = (struct bench_proc){"mosquitto", (pid_t)run.o.pid};
    run.clients = cq_alloc(2 * run.o.pairs * sizeof *run.clients);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < 2 * run.o.pairs; i++) {
        open_one(poll, i);
    }
    go_on_until(poll, bench_measure_now_ns() + 10 * NS_PER_S, 2 * run.o.pairs);
    for (size_t i = 0; i < 2 * run.o.pairs; i += 2) {
        fill_window(&run.clients[i]);
        flush(&run.clients[i]);
    }
    go_on_until(poll, bench_measure_now_ns() + WARM_UP_S * NS_PER_S, SIZE_MAX);
    bench_measure_sample(&procs, &before);
    run.is_measuring = true;
    go_on_until(poll, bench_measure_now_ns() + run.o.seconds * NS_PER_S, SIZE_MAX);
    run.is_measuring = false;
    bench_measure_sample(&procs, &after);
    double seconds = (double)(after.time_ns - before.time_ns) / 1e9;
    if (!run.delivered) {
        bench_measure_fail("nothing was delivered");
    }
    bench_measure_say("delivered", (double)run.delivered / seconds, "1/s");
    bench_measure_say("read_back", (double)run.read_back / seconds, "1/s");
    bench_measure_say_hist("sent_to_received", &run.received);
    bench_measure_say_cpu("cpu_per_message", &procs, &before, &after, (double)run.delivered);
    for (size_t i = 0; i < 2 * run.o.pairs; i++) {
        (void)close(run.clients[i].fd);
        cq_buf_free(&run.clients[i].in);
        cq_buf_free(&run.clients[i].out);
    }
    (void)close(poll);
    free(run.clients);
    return 0;
}
