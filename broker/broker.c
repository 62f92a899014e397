/* SPDX-License-Identifier: MPL-2.0
 * Life of the broker, what comes in, and who is still alive.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <czmq.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "broker/broker_impl.h"

enum {
    ENVELOPES_PER_TURN = 256,
    HWM = 10000, /* envelopes queued for one actor */
    SWEEPS_PER_LEASE = 6,
    PROBE_FIRST_MS = 2, /* libzmq says "disconnected" before the ROUTER forgets the peer */
    PROBE_REPEAT_MS = 50,
    PROBES = 6,
    LOG_EVERY_MS = 1000,
    LINGER_MS = 200,
};

struct broker_stats broker_stats;

static const struct cq_metric metrics[] = {
    {"chasqui_broker_forwarded_total", "envelopes passed on", CQ_METRIC_COUNTER,
     &broker_stats.forwarded},
    {"chasqui_broker_garbage_total", "messages that are no envelopes", CQ_METRIC_COUNTER,
     &broker_stats.garbage},
    {"chasqui_broker_unroutable_total", "bounces: nobody there", CQ_METRIC_COUNTER,
     &broker_stats.bounced_unroutable},
    {"chasqui_broker_busy_total", "bounces: queue full", CQ_METRIC_COUNTER,
     &broker_stats.bounced_busy},
    {"chasqui_broker_who_total", "envelopes of unknown actors", CQ_METRIC_COUNTER,
     &broker_stats.who},
    {"chasqui_broker_registered_total", "registrations", CQ_METRIC_COUNTER,
     &broker_stats.registered},
    {"chasqui_broker_down_total", "actors that died or left", CQ_METRIC_COUNTER,
     &broker_stats.downs},
    {"chasqui_broker_refused_total", "registrations refused", CQ_METRIC_COUNTER,
     &broker_stats.refused},
    {"chasqui_broker_actors", "actors alive", CQ_METRIC_GAUGE, &broker_stats.actors},
};

/* ---- what comes in ---- */

static void
note_garbage(broker_t *b, const char *identity, const char *what)
{
    char text[3 * BROKER_IDENTITY_MAX];
    uint64_t now = cq_now_mono_ms();
    broker_stats.garbage++;
    if (now - b->logged_mono_ms >= LOG_EVERY_MS) {
        b->logged_mono_ms = now;
        CQ_LOG(WARN, "BROKER-INPUT-GARBAGE", "from=%s what=%s total=%" PRIu64,
               cq_log_text(identity, strlen(identity), text, sizeof text), what,
               broker_stats.garbage);
    }
}

static void
forward(broker_t *b, struct broker_envelope *e, const char *src)
{
    struct broker_actor *to = broker_registry_route(b->registry, e->to);
    int rc = to ? broker_route_forward(b->router, e, src, to) : -CQ_E_UNROUTABLE;
    if (rc == 0) {
        broker_stats.forwarded++;
        return;
    }
    if (to && rc == -CQ_E_UNROUTABLE) {
        broker_announce_doom(b, to);
    }
    broker_bounce(b->router, e, rc);
}

/* Not known: it must register before it may do anything else. */
static void
ask_who(broker_t *b, const struct broker_envelope *e)
{
    broker_stats.who++;
    cq_buf_clear(&b->items);
    cq_pack_array(&b->items, 1);
    cq_pack_uint(&b->items, 0);
    int rc = broker_route_send(b->router, e->from, CQ_BUS_WHO, &b->items, 1);
    (void)rc; /* it asks again */
}

static void
take_envelope(broker_t *b, struct broker_envelope *e)
{
    struct broker_actor *a = broker_control_sender(b, e);
    bool is_control = strcmp(e->to, "broker") == 0;
    if (a && !a->is_doomed) {
        a->heard_mono_ms = cq_now_mono_ms();
    } else if (!is_control || e->head.op != CQ_BUS_REGISTER) {
        ask_who(b, e);
        return;
    }
    if (!is_control) {
        forward(b, e, a->name);
    } else if (broker_control_take(b, e) != 0) {
        note_garbage(b, a ? a->name : "?", "control");
    }
}

static bool
on_input(void *ctx)
{
    broker_t *b = ctx;
    for (int i = 0; i < ENVELOPES_PER_TURN; i++) {
        struct broker_envelope e;
        char identity[BROKER_IDENTITY_MAX + 1];
        enum broker_input input = broker_route_receive(b->router, &e, identity);
        if (input == BROKER_INPUT_NONE) {
            return false;
        }
        if (input == BROKER_INPUT_GARBAGE) {
            note_garbage(b, identity, "frames");
            continue;
        }
        take_envelope(b, &e);
        broker_envelope_close(&e);
        broker_announce_reap(b);
    }
    return true;
}

/* ---- who is alive ---- */

static void
on_sweep(void *ctx)
{
    broker_t *b = ctx;
    uint64_t now = cq_now_mono_ms();
    uint64_t late = now - b->swept_mono_ms;
    uint64_t period = b->lease_ms / SWEEPS_PER_LEASE;
    /* If the broker itself stood still, what actors said meanwhile is still unread. */
    uint64_t grace = late > 2 * period ? late : 0;
    b->swept_mono_ms = now;
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *a = broker_registry_at(b->registry, i);
        a->heard_mono_ms = a->heard_mono_ms + grace < now ? a->heard_mono_ms + grace : now;
        if (a->heard_mono_ms + b->lease_ms < now) {
            broker_announce_doom(b, a);
        }
    }
    broker_announce_reap(b);
}

/* A connection is gone, libzmq does not say whose: everybody is sent a word, and whoever cannot be
 * reached is dead. */
static void
on_probe(void *ctx)
{
    broker_t *b = ctx;
    struct cq_bus_ping pong = {.incarnation = b->incarnation};
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *a = broker_registry_at(b->registry, i);
        if (!a->is_doomed) {
            broker_announce_tell(b, a, CQ_BUS_BUS_PONG, &cq_bus_ping_schema, &pong);
        }
    }
    broker_announce_reap(b);
    if (--b->probes_left == 0) {
        cq_timer_stop(b->probe);
    }
}

static bool
on_monitor(void *ctx)
{
    broker_t *b = ctx;
    zmq_msg_t msg;
    (void)zmq_msg_init(&msg);
    bool any = false;
    int rc;
    while ((rc = zmq_msg_recv(&msg, zsock_resolve(b->monitor), ZMQ_DONTWAIT)) >= 0 ||
           errno == EINTR) {
        any = any || rc >= 0; /* the one event asked for, and its address */
    }
    (void)zmq_msg_close(&msg);
    if (any) {
        b->probes_left = PROBES;
        cq_timer_start(b->probe, PROBE_FIRST_MS, PROBE_REPEAT_MS);
    }
    return false;
}

/* ---- life ---- */

/* Is a broker listening there? libzmq would take its socket file away. */
static bool
is_taken(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    (void)snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return taken;
}

static bool
bind_router(broker_t *b, const char *endpoint)
{
    static const char ipc[] = "ipc://";
    bool is_ipc = strncmp(endpoint, ipc, sizeof ipc - 1) == 0;
    const char *path = is_ipc ? endpoint + sizeof ipc - 1 : "";
    if (strlen(path) >= sizeof b->socket_file) {
        CQ_LOG(ERROR, "BROKER-PATH-LONG", "endpoint=%s max_bytes=%zu", endpoint,
               sizeof b->socket_file - 1);
        return false;
    }
    if (is_ipc && is_taken(path)) {
        CQ_LOG(ERROR, "BROKER-ENDPOINT-TAKEN", "endpoint=%s reason=\"another broker serves it\"",
               endpoint);
        return false;
    }
    mode_t mask = umask(S_IXUSR | S_IRWXG | S_IRWXO);     /* the socket file: 0600 */
    int rc = is_ipc ? zmq_bind(b->router, endpoint) : -1; /* tcp would need CURVE and keepalive */
    int err = is_ipc ? errno : EPROTONOSUPPORT;
    (void)umask(mask);
    if (rc != 0) {
        CQ_LOG(ERROR, "BROKER-BIND-FAIL", "endpoint=%s reason=\"%s\"", endpoint, zmq_strerror(err));
        return false;
    }
    (void)snprintf(b->socket_file, sizeof b->socket_file, "%s", path);
    return true;
}

static bool
open_router(broker_t *b, const char *endpoint)
{
    static atomic_uint counter;
    char monitor[64];
    b->router_sock = zsock_new(ZMQ_ROUTER);
    CQ_ASSERT(b->router_sock);
    b->router = zsock_resolve(b->router_sock);
    zsock_set_router_mandatory(b->router_sock, 1);
    zsock_set_linger(b->router_sock, LINGER_MS);
    zsock_set_sndhwm(b->router_sock, HWM);
    zsock_set_rcvhwm(b->router_sock, HWM);
    zsock_set_maxmsgsize(b->router_sock, CQ_ENVELOPE_MAX + 4096);
    (void)snprintf(monitor, sizeof monitor, "inproc://broker-monitor-%u",
                   atomic_fetch_add(&counter, 1));
    int rc = zmq_socket_monitor(b->router, monitor, ZMQ_EVENT_DISCONNECTED);
    CQ_ASSERT(rc == 0);
    b->monitor = zsock_new(ZMQ_PAIR);
    CQ_ASSERT(b->monitor);
    rc = zsock_connect(b->monitor, "%s", monitor);
    CQ_ASSERT(rc == 0);
    return bind_router(b, endpoint);
}

broker_t *
broker_new(cq_loop_t *loop, const struct broker_cfg *cfg)
{
    broker_t *b = cq_alloc(sizeof *b);
    b->loop = loop;
    b->lease_ms = cfg->lease_ms;
    b->incarnation = cq_random_u64();
    b->registry = broker_registry_new();
    b->swept_mono_ms = cq_now_mono_ms();
    if (!open_router(b, cfg->endpoint)) {
        broker_destroy(&b);
        return NULL;
    }
    b->watch = cq_zwatch_new(loop, b->router, on_input, b);
    b->monitor_watch = cq_zwatch_new(loop, zsock_resolve(b->monitor), on_monitor, b);
    b->probe = cq_timer_new(loop, on_probe, b);
    b->sweep = cq_timer_new(loop, on_sweep, b);
    uint64_t period = b->lease_ms / SWEEPS_PER_LEASE;
    cq_timer_start(b->sweep, period, period);
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    CQ_LOG(INFO, "BROKER-LISTEN", "endpoint=%s lease_ms=%" PRIu64, cfg->endpoint, b->lease_ms);
    return b;
}

void
broker_destroy(broker_t **b_p)
{
    broker_t *b = *b_p;
    if (!b) {
        return;
    }
    cq_timer_destroy(&b->sweep);
    cq_timer_destroy(&b->probe);
    cq_zwatch_destroy(&b->monitor_watch);
    cq_zwatch_destroy(&b->watch);
    if (b->router) {
        (void)zmq_socket_monitor(b->router, NULL, 0);
    }
    zsock_destroy(&b->monitor);
    zsock_destroy(&b->router_sock);
    if (b->socket_file[0]) {
        (void)unlink(b->socket_file);
    }
    broker_stats.actors -= broker_registry_count(b->registry);
    broker_registry_destroy(&b->registry);
    cq_buf_free(&b->items);
    free(b);
    *b_p = NULL;
}

size_t
broker_actor_count(const broker_t *b)
{
    return broker_registry_count(b->registry);
}
