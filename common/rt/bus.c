/* SPDX-License-Identifier: MPL-2.0
 * Life of an endpoint. It registers until the broker answers, then pings every third of the lease.
 * A broker that is silent for a lease, or that says WHO, ends the registration: all peers are down,
 * and it starts anew.
 *
 * libzmq's ROUTER may take the first frame of a connection for its identity when the connection
 * before it, of the same identity, is not buried yet; such a connection is deaf. So a socket whose
 * REGISTERs stay without answer is replaced.
 */
#include <errno.h>
#include <inttypes.h>

#include "common/rt/bus_impl.h"
#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/rt/random.h"
#include "common/wire/name.h"

enum {
    TICK_MS = 100,       /* while not registered */
    TICK_MAX_MS = 500,   /* or a sixth of the lease */
    ASK_MS = 300,        /* REGISTER again */
    ASKS_PER_SOCKET = 5, /* then a new socket */
    LEASE_DEFAULT_MS = 3000,
    LEASE_MIN_MS = 300,
    STALL_MS = 1000, /* a tick this late: we were busy, not the broker silent */
    LINGER_MS = 200,
    LOG_EVERY_MS = 1000,
};

struct cq_bus_stats cq_bus_stats;

static const struct cq_metric metrics[] = {
    {"chasqui_bus_envelopes_in_total", "envelopes received", CQ_METRIC_COUNTER,
     &cq_bus_stats.envelopes_in},
    {"chasqui_bus_envelopes_out_total", "envelopes sent", CQ_METRIC_COUNTER,
     &cq_bus_stats.envelopes_out},
    {"chasqui_bus_items_in_total", "items received", CQ_METRIC_COUNTER, &cq_bus_stats.items_in},
    {"chasqui_bus_items_out_total", "items sent", CQ_METRIC_COUNTER, &cq_bus_stats.items_out},
    {"chasqui_bus_items_dropped_total", "items not sent: no broker", CQ_METRIC_COUNTER,
     &cq_bus_stats.dropped_items},
    {"chasqui_bus_items_bounced_total", "items that came back", CQ_METRIC_COUNTER,
     &cq_bus_stats.bounced_items},
    {"chasqui_bus_garbage_total", "what peers sent and is not valid", CQ_METRIC_COUNTER,
     &cq_bus_stats.garbage},
    {"chasqui_bus_denied_total", "items from the wrong role", CQ_METRIC_COUNTER,
     &cq_bus_stats.denied},
    {"chasqui_bus_unknown_op_total", "envelopes of unknown operations", CQ_METRIC_COUNTER,
     &cq_bus_stats.unknown_op},
    {"chasqui_bus_requests_total", "requests", CQ_METRIC_COUNTER, &cq_bus_stats.requests},
    {"chasqui_bus_retries_total", "requests sent again", CQ_METRIC_COUNTER, &cq_bus_stats.retries},
    {"chasqui_bus_deadlines_total", "requests without an answer in time", CQ_METRIC_COUNTER,
     &cq_bus_stats.deadlines},
    {"chasqui_bus_in_flight", "requests without an answer yet", CQ_METRIC_GAUGE,
     &cq_bus_stats.in_flight},
    {"chasqui_bus_peers", "actors alive", CQ_METRIC_GAUGE, &cq_bus_stats.peers},
};

bool
cq_bus_log_due(cq_bus_t *bus, enum cq_bus_log kind)
{
    uint64_t now = cq_now_mono_ms();
    bool due = now - bus->logged_mono_ms[kind] >= LOG_EVERY_MS;
    if (due) {
        bus->logged_mono_ms[kind] = now;
    }
    return due;
}

int
cq_bus_item_next(cq_reader_t *body, uint64_t *rid, cq_reader_t *fields, size_t *count)
{
    *fields = cq_reader_of(cq_read_any(body));
    size_t n = cq_read_array(fields, 1, UINT32_MAX);
    *rid = cq_read_uint(fields, UINT64_MAX);
    *count = n ? n - 1 : 0;
    return body->err || fields->err ? -CQ_E_BAD_FRAME : 0;
}

static void
note_garbage(cq_bus_t *bus, const char *src, const char *what)
{
    char text[2 * CQ_ACTOR_NAME_MAX];
    cq_bus_stats.garbage++;
    if (cq_bus_log_due(bus, CQ_BUS_LOG_GARBAGE)) {
        CQ_LOG(WARN, "BUS-INPUT-GARBAGE", "src=%s what=%s total=%" PRIu64,
               cq_log_text(src, strlen(src), text, sizeof text), what, cq_bus_stats.garbage);
    }
}

/* ---- registration ---- */

static void
send_register(cq_bus_t *bus)
{
    struct cq_actor a = {
        .name = {(const uint8_t *)bus->name, strlen(bus->name)},
        .role = {(const uint8_t *)bus->role, strlen(bus->role)},
        .incarnation = bus->incarnation,
    };
    bus->asked_mono_ms = cq_now_mono_ms();
    if (cq_bus_out_now(bus, CQ_BUS_REGISTER, &cq_actor_schema, &a)) {
        bus->asked_count++;
    }
}

static void
end_registration(cq_bus_t *bus)
{
    if (bus->is_registered) {
        bus->is_registered = false;
        cq_timer_start(bus->tick, TICK_MS, TICK_MS);
        cq_bus_peers_all_down(bus);
    }
}

/* WHO: the broker is there and does not know us. */
static void
on_who(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    (void)fields;
    (void)count;
    end_registration(bus);
    if (cq_now_mono_ms() - bus->asked_mono_ms >= ASK_MS) { /* it may say so to many envelopes */
        send_register(bus);
    }
}

static void
on_registered(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_registered m;
    if (cq_schema_read(&cq_registered_schema, fields, count, &m) != 0) {
        note_garbage(bus, CQ_BUS_BROKER, "registered");
        return;
    }
    if (bus->is_registered && bus->broker_incarnation == m.broker_incarnation) {
        return; /* the answer to a REGISTER that was repeated */
    }
    end_registration(bus);
    bus->is_registered = true;
    bus->is_lost = false;
    bus->broker_incarnation = m.broker_incarnation;
    bus->lease_ms = m.lease_ms < LEASE_MIN_MS ? LEASE_MIN_MS : m.lease_ms;
    bus->pinged_mono_ms = cq_now_mono_ms();
    uint64_t tick_ms = bus->lease_ms / 6 < TICK_MAX_MS ? bus->lease_ms / 6 : TICK_MAX_MS;
    cq_timer_start(bus->tick, tick_ms, tick_ms);
    CQ_LOG(INFO, "BUS-REGISTERED", "name=%s actors=%zu lease_ms=%" PRIu64, bus->name,
           m.actors.count, bus->lease_ms);
    cq_reader_t list = cq_list_reader(&m.actors);
    for (size_t i = 0; i < m.actors.count; i++) {
        struct cq_actor a;
        if (cq_schema_read_array(&cq_actor_schema, &list, &a) != 0) {
            note_garbage(bus, CQ_BUS_BROKER, "actors");
            break;
        }
        cq_bus_peers_up(bus, &a);
    }
    if (bus->cfg.on_registered) {
        bus->cfg.on_registered(bus->cfg.ctx);
    }
}

static void
on_up(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_actor a;
    if (cq_schema_read(&cq_actor_schema, fields, count, &a) != 0) {
        note_garbage(bus, CQ_BUS_BROKER, "up");
    } else if (bus->is_registered) {
        cq_bus_peers_up(bus, &a);
    }
}

static void
on_down(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_actor a;
    if (cq_schema_read(&cq_actor_schema, fields, count, &a) != 0) {
        note_garbage(bus, CQ_BUS_BROKER, "down");
    } else if (bus->is_registered) {
        cq_bus_peers_down(bus, &a);
    }
}

static void
on_bounce(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_bounce b;
    if (cq_schema_read(&cq_bounce_schema, fields, count, &b) != 0) {
        note_garbage(bus, CQ_BUS_BROKER, "bounce");
        return;
    }
    if (b.op == CQ_BUS_REGISTER) {
        CQ_LOG(ERROR, "BUS-REGISTER-REFUSED",
               "name=%s err=%s reason=\"another process has this name, or the bus is full\"",
               bus->name, cq_err_name((int)b.err));
        return;
    }
    cq_bus_requests_bounced(bus, &b);
}

static void
on_pong(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    (void)bus; /* having been heard is all */
    (void)fields;
    (void)count;
}

/* ---- what comes in ---- */

typedef void broker_handler(cq_bus_t *bus, cq_reader_t *fields, size_t count);

/* What only the broker may say. */
static broker_handler *const broker_handlers[256] = {
    [CQ_BUS_REGISTERED] = on_registered,
    [CQ_BUS_BUS_PONG] = on_pong,
    [CQ_BUS_WHO] = on_who,
    [CQ_BUS_UP] = on_up,
    [CQ_BUS_DOWN] = on_down,
    [CQ_BUS_BOUNCE] = on_bounce,
};

static void
dispatch_broker(cq_bus_t *bus, const struct cq_envelope *e, cq_reader_t *body, size_t items)
{
    broker_handler *fn = broker_handlers[e->op];
    if (e->op == CQ_BUS_REPLY) {
        cq_bus_requests_answer(bus, NULL, body, items);
        return;
    }
    if (!fn) {
        note_garbage(bus, CQ_BUS_BROKER, "op");
        return;
    }
    for (size_t i = 0; i < items; i++) {
        uint64_t rid = 0;
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &rid, &fields, &count) != 0) {
            note_garbage(bus, CQ_BUS_BROKER, "item");
            return;
        }
        fn(bus, &fields, count);
    }
}

static void
answer_metrics(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    cq_bus_t *bus = ctx;
    cq_buf_t text = {0};
    (void)fields;
    (void)count;
    cq_metric_text(&text, bus->name);
    struct cq_metrics m = {.text = {text.data, text.size}};
    cq_bus_reply(bus, from, &cq_metrics_schema, &m);
    cq_buf_free(&text);
}

/* Every item that wants an answer gets this error. */
static void
refuse_items(cq_bus_t *bus, const char *src, cq_reader_t *body, size_t items, int err)
{
    struct cq_bus_from from = {.rid = 0};
    (void)snprintf(from.src, sizeof from.src, "%s", src);
    for (size_t i = 0; i < items; i++) {
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &from.rid, &fields, &count) != 0) {
            return;
        }
        cq_bus_reply_err(bus, &from, err, 0);
    }
}

static void
call_items(cq_bus_t *bus,
           cq_bus_handler *fn,
           void *ctx,
           const char *src,
           cq_reader_t *body,
           size_t items)
{
    struct cq_bus_from from = {.rid = 0};
    (void)snprintf(from.src, sizeof from.src, "%s", src);
    for (size_t i = 0; i < items; i++) {
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &from.rid, &fields, &count) != 0) {
            note_garbage(bus, src, "item");
            return;
        }
        fn(ctx, &from, &fields, count);
    }
}

static void
dispatch_peer(cq_bus_t *bus,
              const char *src,
              const struct cq_envelope *e,
              cq_reader_t *body,
              size_t items)
{
    const struct cq_bus_peer *peer = cq_bus_peers_find(bus, src);
    const struct cq_bus_row *row = bus->rows[e->op];
    if (e->op == CQ_BUS_REPLY) {
        if (peer) {
            cq_bus_requests_answer(bus, peer, body, items);
        }
        return;
    }
    if (e->op == CQ_BUS_METRICS) {
        call_items(bus, answer_metrics, bus, src, body, items);
        return;
    }
    if (!row) {
        cq_bus_stats.unknown_op++;
        if (cq_bus_log_due(bus, CQ_BUS_LOG_OP)) {
            CQ_LOG(WARN, "BUS-OP-UNKNOWN", "src=%s op=%u", src, e->op);
        }
        refuse_items(bus, src, body, items, -CQ_E_UNKNOWN_OP);
        return;
    }
    if (row->role && (!peer || strcmp(peer->role, row->role) != 0)) {
        cq_bus_stats.denied += items;
        if (cq_bus_log_due(bus, CQ_BUS_LOG_DENIED)) {
            CQ_LOG(WARN, "BUS-ROLE-DENIED", "src=%s role=%s op=%u", src, peer ? peer->role : "-",
                   e->op);
        }
        refuse_items(bus, src, body, items, -CQ_E_DENIED);
        return;
    }
    call_items(bus, row->fn, bus->cfg.ctx, src, body, items);
}

enum {
    FRAMES = 3
};

static void
take_envelope(cq_bus_t *bus, zmq_msg_t frames[FRAMES])
{
    char src[CQ_ACTOR_NAME_MAX + 1];
    size_t n = zmq_msg_size(&frames[0]);
    struct cq_envelope e;
    cq_reader_t body;
    cq_bus_stats.envelopes_in++;
    if (!cq_actor_name_ok(zmq_msg_data(&frames[0]), n)) {
        note_garbage(bus, "?", "src");
        return;
    }
    memcpy(src, zmq_msg_data(&frames[0]), n);
    src[n] = '\0';
    int rc = cq_envelope_read(zmq_msg_data(&frames[1]), zmq_msg_size(&frames[1]), &e);
    int items =
        rc ? rc : cq_envelope_open(zmq_msg_data(&frames[2]), zmq_msg_size(&frames[2]), &body);
    if (items < 0) {
        note_garbage(bus, src, rc ? "header" : "body");
        return;
    }
    cq_bus_stats.items_in += (uint64_t)items;
    bus->heard_mono_ms = cq_now_mono_ms();
    bus->asked_count = 0;
    if (strcmp(src, CQ_BUS_BROKER) == 0) {
        dispatch_broker(bus, &e, &body, (size_t)items);
    } else if (bus->is_registered) {
        dispatch_peer(bus, src, &e, &body, (size_t)items);
    }
}

/* Reads one message, whatever its number of frames. False: none there. */
static bool
receive(cq_bus_t *bus)
{
    zmq_msg_t frames[FRAMES];
    void *sock = zsock_resolve(bus->sock);
    size_t count = 0;
    bool has_more = true;
    while (has_more) {
        zmq_msg_t extra;
        zmq_msg_t *msg = count < FRAMES ? &frames[count] : &extra;
        (void)zmq_msg_init(msg);
        int rc = zmq_msg_recv(msg, sock, ZMQ_DONTWAIT);
        if (rc < 0 && errno == EINTR) {
            continue;
        }
        if (rc < 0) {
            break;
        }
        has_more = zmq_msg_more(msg);
        if (msg == &extra) {
            (void)zmq_msg_close(&extra);
        }
        count++;
    }
    if (count == FRAMES) {
        take_envelope(bus, frames);
    } else if (count) {
        note_garbage(bus, "?", "frames");
    }
    for (size_t i = 0; i < count && i < FRAMES; i++) {
        (void)zmq_msg_close(&frames[i]);
    }
    return count > 0;
}

static bool
on_input(void *ctx)
{
    cq_bus_t *bus = ctx;
    for (int i = 0; i < CQ_BUS_ENVELOPES_PER_TURN; i++) {
        if (!receive(bus)) {
            return false;
        }
        if (bus->is_paused) {
            return true;
        }
    }
    return true;
}

/* ---- life ---- */

static void
close_socket(cq_bus_t *bus)
{
    cq_zwatch_destroy(&bus->watch);
    zsock_destroy(&bus->sock);
}

static bool
open_socket(cq_bus_t *bus)
{
    char identity[CQ_BUS_IDENTITY_MAX + 1];
    (void)snprintf(identity, sizeof identity, "%s#%016" PRIx64, bus->name, bus->incarnation);
    bus->sock = zsock_new(ZMQ_DEALER);
    CQ_ASSERT(bus->sock);
    zsock_set_identity(bus->sock, identity);
    zsock_set_linger(bus->sock, LINGER_MS);
    zsock_set_sndhwm(bus->sock, CQ_BUS_HWM);
    zsock_set_rcvhwm(bus->sock, CQ_BUS_HWM);
    zsock_set_immediate(bus->sock, 1);
    zsock_set_heartbeat_ivl(bus->sock, 1000);
    zsock_set_heartbeat_timeout(bus->sock, 3000);
    zsock_set_reconnect_ivl(bus->sock, 50);
    zsock_set_reconnect_ivl_max(bus->sock, 1000);
    zsock_set_maxmsgsize(bus->sock, CQ_ENVELOPE_MAX + 4096);
    if (zsock_connect(bus->sock, "%s", bus->endpoint) != 0) {
        CQ_LOG(ERROR, "BUS-CONNECT-FAIL", "endpoint=%s reason=\"%s\"", bus->endpoint,
               zmq_strerror(zmq_errno()));
        zsock_destroy(&bus->sock);
        return false;
    }
    bus->watch = cq_zwatch_new(bus->loop, zsock_resolve(bus->sock), on_input, bus);
    cq_zwatch_pause(bus->watch, bus->is_paused);
    return true;
}

static void
ask_again(cq_bus_t *bus, uint64_t now)
{
    if (now - bus->asked_mono_ms < ASK_MS) {
        return;
    }
    if (bus->asked_count >= ASKS_PER_SOCKET) {
        CQ_LOG(WARN, "BUS-SOCKET-DEAF", "name=%s asked=%u", bus->name, bus->asked_count);
        bus->asked_count = 0;
        close_socket(bus);
        bool is_open = open_socket(bus);
        CQ_ASSERT(is_open); /* the endpoint was valid before */
    }
    send_register(bus);
}

static void
on_tick(void *ctx)
{
    cq_bus_t *bus = ctx;
    uint64_t now = cq_now_mono_ms();
    /* Busy ourselves, or not reading: what the broker said is still unread. */
    if (now - bus->ticked_mono_ms >= STALL_MS || bus->is_paused) {
        bus->heard_mono_ms = now;
    }
    bus->ticked_mono_ms = now;
    bool is_silent = now - bus->heard_mono_ms > bus->lease_ms;
    if (is_silent) {
        end_registration(bus);
    }
    if (is_silent && !bus->is_lost) {
        bus->is_lost = true;
        CQ_LOG(WARN, "BUS-BROKER-LOST", "silent_ms=%" PRIu64, now - bus->heard_mono_ms);
        if (bus->cfg.on_lost) {
            bus->cfg.on_lost(bus->cfg.ctx);
        }
    }
    if (!bus->is_registered) {
        ask_again(bus, now);
    } else if (now - bus->pinged_mono_ms >= bus->lease_ms / 3) {
        struct cq_bus_ping ping = {.incarnation = bus->incarnation};
        bus->pinged_mono_ms = now;
        (void)cq_bus_out_now(bus, CQ_BUS_BUS_PING, &cq_bus_ping_schema, &ping);
    }
}

static bool
is_cfg_ok(const struct cq_bus_cfg *cfg)
{
    return cfg->name && cfg->role && cfg->endpoint &&
           cq_actor_name_ok(cfg->name, strlen(cfg->name)) &&
           cq_actor_name_ok(cfg->role, strlen(cfg->role)) &&
           strcmp(cfg->name, CQ_BUS_BROKER) != 0 &&
           strlen(cfg->endpoint) < sizeof((cq_bus_t *)0)->endpoint;
}

cq_bus_t *
cq_bus_new(cq_loop_t *loop, const struct cq_bus_cfg *cfg)
{
    if (!is_cfg_ok(cfg)) {
        CQ_LOG(ERROR, "BUS-CONFIG-BAD", "reason=\"endpoint, name or role\"");
        return NULL;
    }
    cq_bus_t *bus = cq_alloc(sizeof *bus);
    bus->cfg = *cfg;
    bus->loop = loop;
    (void)snprintf(bus->endpoint, sizeof bus->endpoint, "%s", cfg->endpoint);
    (void)snprintf(bus->name, sizeof bus->name, "%s", cfg->name);
    (void)snprintf(bus->role, sizeof bus->role, "%s", cfg->role);
    do {
        bus->incarnation = cq_random_u64();
    } while (bus->incarnation == 0);
    for (size_t i = 0; i < cfg->row_count; i++) {
        bus->rows[cfg->rows[i].op] = &cfg->rows[i];
    }
    if (!open_socket(bus)) {
        free(bus);
        return NULL;
    }
    bus->lease_ms = LEASE_DEFAULT_MS;
    bus->is_lost = true; /* nothing to lose yet */
    bus->heard_mono_ms = bus->ticked_mono_ms = cq_now_mono_ms();
    cq_bus_peers_start(bus);
    cq_bus_requests_start(bus);
    cq_loop_on_flush(loop, cq_bus_out_flush, bus);
    bus->tick = cq_timer_new(loop, on_tick, bus);
    cq_timer_start(bus->tick, 1, TICK_MS);
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    return bus;
}

void
cq_bus_destroy(cq_bus_t **bus_p)
{
    cq_bus_t *bus = *bus_p;
    if (!bus) {
        return;
    }
    *bus_p = NULL;
    cq_bus_out_flush(bus);
    if (bus->is_registered) {
        struct cq_bus_ping leave = {.incarnation = bus->incarnation};
        (void)cq_bus_out_now(bus, CQ_BUS_LEAVE, &cq_bus_ping_schema, &leave);
    }
    cq_loop_off_turn(bus->loop, cq_bus_out_flush, bus);
    cq_timer_destroy(&bus->tick);
    close_socket(bus);
    cq_bus_requests_stop(bus);
    cq_bus_out_stop(bus);
    cq_bus_stats.peers -= zhashx_size(bus->peers);
    cq_bus_peers_stop(bus);
    free(bus);
}

bool
cq_bus_is_registered(const cq_bus_t *bus)
{
    return bus->is_registered;
}

uint64_t
cq_bus_incarnation(const cq_bus_t *bus)
{
    return bus->incarnation;
}

void
cq_bus_pause(cq_bus_t *bus, bool paused)
{
    if (bus->is_paused && !paused) {
        bus->heard_mono_ms = cq_now_mono_ms();
    }
    bus->is_paused = paused;
    cq_zwatch_pause(bus->watch, paused);
}
