/* SPDX-License-Identifier: MPL-2.0
 * Whoever cannot take an announcement (its queue is full, or its connection gone) would know less
 * than the others. So it is doomed: announced down, and it registers anew when it speaks again.
 * Announcing may doom others; reap() goes on until nobody is left.
 */
#include "broker/broker.h"

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
#include "common/wire/name.h"
#include "common/wire/pack.h"

enum {
    ENVELOPES_PER_TURN = 256,
    HWM = 10000, /* envelopes queued for one actor */
    SWEEPS_PER_LEASE = 6,
    PROBE_FIRST_MS = 2, /* libzmq says "disconnected" before the ROUTER forgets the peer */
    PROBE_REPEAT_MS = 50,
    PROBES = 6,
    EVENT_FRAME_MIN = 6,
    LOG_EVERY_MS = 1000,
    LINGER_MS = 200,
};

struct broker {
    cq_loop_t *loop;
    uint64_t lease_ms;
    uint64_t incarnation;
    broker_registry_t *registry;
    zsock_t *router_sock;
    void *router;
    zsock_t *monitor;
    cq_zwatch_t *watch, *monitor_watch;
    cq_timer_t *sweep, *probe;
    unsigned probes_left;
    uint64_t swept_mono_ms;
    uint64_t logged_mono_ms;
    bool has_doomed;
    char socket_file[sizeof((struct sockaddr_un *)0)->sun_path]; /* ours to remove; empty: none */
    cq_buf_t items;
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

static void
doom(broker_t *b, struct broker_actor *a)
{
    a->is_doomed = true;
    b->has_doomed = true;
}

/* ---- what the broker says ---- */

/* One item of rid 0 to one actor; an actor that cannot take it is doomed. */
static void
tell(broker_t *b, struct broker_actor *to, uint8_t op, const struct cq_schema *s, const void *in)
{
    cq_buf_clear(&b->items);
    cq_pack_array(&b->items, 1 + s->field_count);
    cq_pack_uint(&b->items, 0);
    cq_schema_write(s, &b->items, in);
    struct cq_view identity = {(const uint8_t *)to->identity, to->identity_size};
    if (broker_route_send(b->router, identity, op, &b->items, 1) != 0) {
        doom(b, to);
    }
}

static struct cq_actor
actor_fields(const struct broker_actor *a)
{
    return (struct cq_actor){
        .name = {(const uint8_t *)a->name, strlen(a->name)},
        .role = {(const uint8_t *)a->role, strlen(a->role)},
        .incarnation = a->incarnation,
    };
}

static void
announce(broker_t *b, const struct broker_actor *about, uint8_t op)
{
    struct cq_actor m = actor_fields(about);
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *to = broker_registry_at(b->registry, i);
        if (to != about && !to->is_doomed) {
            tell(b, to, op, &cq_actor_schema, &m);
        }
    }
}

static struct broker_actor *
find_doomed(const broker_t *b)
{
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *a = broker_registry_at(b->registry, i);
        if (a->is_doomed) {
            return a;
        }
    }
    return NULL;
}

static void
reap(broker_t *b)
{
    while (b->has_doomed) {
        struct broker_actor *a = find_doomed(b);
        if (!a) {
            b->has_doomed = false;
            return;
        }
        CQ_LOG(INFO, "BROKER-ACTOR-DOWN", "name=%s role=%s incarnation=%016" PRIx64, a->name,
               a->role, a->incarnation);
        announce(b, a, CQ_BUS_DOWN);
        broker_registry_remove(b->registry, a);
        broker_stats.downs++;
        broker_stats.actors--;
    }
}

/* ---- what actors say to the broker ---- */

static void
answer_registered(broker_t *b, struct broker_actor *a)
{
    cq_buf_t list = {0};
    size_t count = 0;
    for (size_t i = 0; i < broker_registry_count(b->registry); i++) {
        struct broker_actor *other = broker_registry_at(b->registry, i);
        if (other != a && !other->is_doomed) {
            struct cq_actor m = actor_fields(other);
            cq_schema_write_array(&cq_actor_schema, &list, &m);
            count++;
        }
    }
    struct cq_registered m = {
        .broker_incarnation = b->incarnation,
        .lease_ms = b->lease_ms,
        .actors = cq_list_of(&list, count),
    };
    tell(b, a, CQ_BUS_REGISTERED, &cq_registered_schema, &m);
    cq_buf_free(&list);
}

static void
copy_text(char out[CQ_ACTOR_NAME_MAX + 1], struct cq_view v)
{
    memcpy(out, v.p, v.n); /* the schema bounds it */
    out[v.n] = '\0';
}

/* The fields name the connection's own identity, and nothing that is the broker's. */
static bool
is_register_ok(const struct broker_envelope *e, const struct cq_actor *m, char name[], char role[])
{
    char own[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation = 0;
    copy_text(name, m->name);
    copy_text(role, m->role);
    return broker_identity_read(e->from, own, &incarnation) && strcmp(own, name) == 0 &&
           incarnation == m->incarnation && cq_actor_name_ok(role, m->role.n) &&
           strlen(role) == m->role.n && strcmp(name, "broker") != 0 && strcmp(role, "broker") != 0;
}

static int
on_register(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct cq_actor m;
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    if (cq_schema_read(&cq_actor_schema, fields, count, &m) != 0 ||
        !is_register_ok(e, &m, name, role)) {
        return -CQ_E_BAD_ARG;
    }
    struct broker_actor *a = broker_registry_find(b->registry, name);
    if (a && a->incarnation == m.incarnation) { /* repeated, the answer was lost or is under way */
        if (strcmp(a->role, role) != 0) {
            return -CQ_E_BAD_ARG;
        }
        answer_registered(b, a);
        return 0;
    }
    if (a && broker_registry_was(b->registry, name, m.incarnation)) {
        /* It held the name before the present holder: two processes of one name would throw each
         * other out for ever. */
        broker_stats.refused++;
        broker_bounce(b->router, e, -CQ_E_DENIED);
        return 0;
    }
    if (a) {
        doom(b, a);
        reap(b);
    }
    if (broker_registry_add(b->registry, name, role, m.incarnation, &a) != 0) {
        broker_stats.refused++;
        broker_bounce(b->router, e, -CQ_E_BUSY);
        return 0;
    }
    a->heard_mono_ms = cq_now_mono_ms();
    broker_stats.registered++;
    broker_stats.actors++;
    CQ_LOG(INFO, "BROKER-ACTOR-UP", "name=%s role=%s incarnation=%016" PRIx64, name, role,
           m.incarnation);
    answer_registered(b, a);
    announce(b, a, CQ_BUS_UP);
    return 0;
}

static struct broker_actor *
sender_of(const broker_t *b, const struct broker_envelope *e)
{
    return broker_registry_by_identity(b->registry, e->from);
}

static int
on_ping(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct broker_actor *a = sender_of(b, e);
    struct cq_bus_ping pong = {.incarnation = b->incarnation};
    (void)fields;
    (void)count;
    if (a) {
        tell(b, a, CQ_BUS_BUS_PONG, &cq_bus_ping_schema, &pong);
    }
    return 0;
}

static int
on_leave(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count)
{
    struct broker_actor *a = sender_of(b, e);
    (void)fields;
    (void)count;
    if (a) {
        doom(b, a);
    }
    return 0;
}

/* METRICS with one item; a reader of counters has no reason to ask more at once. */
static int
answer_metrics(broker_t *b, const struct broker_envelope *e, uint64_t rid)
{
    cq_buf_t text = {0};
    cq_metric_text(&text, "broker");
    cq_buf_clear(&b->items);
    cq_pack_array(&b->items, 3);
    cq_pack_uint(&b->items, rid);
    cq_pack_uint(&b->items, CQ_OK);
    cq_pack_str(&b->items, (const char *)text.data, text.size);
    int rc = broker_route_send(b->router, e->from, CQ_BUS_REPLY, &b->items, 1);
    (void)rc; /* the asker repeats */
    cq_buf_free(&text);
    return 0;
}

typedef int
control_handler(broker_t *b, const struct broker_envelope *e, cq_reader_t *fields, size_t count);

static control_handler *const controls[256] = {
    [CQ_BUS_REGISTER] = on_register,
    [CQ_BUS_BUS_PING] = on_ping,
    [CQ_BUS_LEAVE] = on_leave,
};

/* The first item of an envelope for the broker itself; one is all that its operations have. */
static int
take_control(broker_t *b, const struct broker_envelope *e)
{
    cq_reader_t body;
    int items = cq_envelope_open(e->content.p, e->content.n, &body);
    if (items < 1) {
        return -CQ_E_BAD_FRAME;
    }
    cq_reader_t fields = cq_reader_of(cq_read_any(&body));
    size_t count = cq_read_array(&fields, 1, UINT32_MAX);
    uint64_t rid = cq_read_uint(&fields, UINT64_MAX);
    if (fields.err) {
        return -CQ_E_BAD_FRAME;
    }
    if (e->head.op == CQ_BUS_METRICS) {
        return rid ? answer_metrics(b, e, rid) : 0;
    }
    control_handler *fn = controls[e->head.op];
    return fn ? fn(b, e, &fields, count - 1) : -CQ_E_UNKNOWN_OP;
}

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
        doom(b, to);
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
    struct broker_actor *a = sender_of(b, e);
    bool is_control = strcmp(e->to, "broker") == 0;
    if (a && !a->is_doomed) {
        a->heard_mono_ms = cq_now_mono_ms();
    } else if (!is_control || e->head.op != CQ_BUS_REGISTER) {
        ask_who(b, e);
        return;
    }
    if (!is_control) {
        forward(b, e, a->name);
    } else if (take_control(b, e) != 0) {
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
        reap(b);
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
        a->heard_mono_ms += grace;
        if (a->heard_mono_ms + b->lease_ms < now) {
            doom(b, a);
        }
    }
    reap(b);
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
            tell(b, a, CQ_BUS_BUS_PONG, &cq_bus_ping_schema, &pong);
        }
    }
    reap(b);
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
    while (zmq_msg_recv(&msg, zsock_resolve(b->monitor), ZMQ_DONTWAIT) >= 0) {
        any = true; /* the one event asked for, and its address */
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
    mode_t mask = umask(S_IXUSR | S_IRWXG | S_IRWXO); /* the socket file: 0600 */
    int rc = zmq_bind(b->router, endpoint);
    int err = errno;
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
    zsock_set_heartbeat_ivl(b->router_sock, 1000);
    zsock_set_heartbeat_timeout(b->router_sock, 3000);
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
