/* SPDX-License-Identifier: MPL-2.0
 * Between an endpoint and the broker. It registers until the broker answers, then pings every third
 * of the lease. A broker that is silent for a lease, or that says WHO, ends the registration: all
 * peers are down, and it starts anew.
 *
 * libzmq's ROUTER may take the first frame of a connection for its identity when the connection
 * before it, of the same identity, is not buried yet; such a connection is deaf. So a socket whose
 * REGISTERs stay without answer is replaced.
 */
#include <inttypes.h>

#include "common/rt/bus_impl.h"
#include "common/rt/log.h"

enum {
    TICK_MAX_MS = 500,   /* or a sixth of the lease */
    ASK_MS = 300,        /* REGISTER again */
    ASKS_PER_SOCKET = 5, /* then a new socket */
    LEASE_MIN_MS = 300,
};

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
        cq_timer_start(bus->tick, CQ_BUS_TICK_MS, CQ_BUS_TICK_MS);
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
        cq_bus_note_garbage(bus, CQ_BUS_BROKER, "registered");
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
            cq_bus_note_garbage(bus, CQ_BUS_BROKER, "actors");
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
        cq_bus_note_garbage(bus, CQ_BUS_BROKER, "up");
    } else if (bus->is_registered) {
        cq_bus_peers_up(bus, &a);
    }
}

static void
on_down(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_actor a;
    if (cq_schema_read(&cq_actor_schema, fields, count, &a) != 0) {
        cq_bus_note_garbage(bus, CQ_BUS_BROKER, "down");
    } else if (bus->is_registered) {
        cq_bus_peers_down(bus, &a);
    }
}

static void
on_bounce(cq_bus_t *bus, cq_reader_t *fields, size_t count)
{
    struct cq_bounce b;
    if (cq_schema_read(&cq_bounce_schema, fields, count, &b) != 0) {
        cq_bus_note_garbage(bus, CQ_BUS_BROKER, "bounce");
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

void
cq_bus_broker_said(cq_bus_t *bus, const struct cq_envelope *e, cq_reader_t *body, size_t items)
{
    broker_handler *fn = broker_handlers[e->op];
    if (e->op == CQ_BUS_REPLY) {
        cq_bus_requests_answer(bus, NULL, body, items);
        return;
    }
    if (!fn) {
        cq_bus_note_garbage(bus, CQ_BUS_BROKER, "op");
        return;
    }
    for (size_t i = 0; i < items; i++) {
        uint64_t rid = 0;
        size_t count = 0;
        cq_reader_t fields;
        if (cq_bus_item_next(body, &rid, &fields, &count) != 0) {
            cq_bus_note_garbage(bus, CQ_BUS_BROKER, "item");
            return;
        }
        fn(bus, &fields, count);
    }
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
        cq_bus_reopen(bus);
    }
    send_register(bus);
}

void
cq_bus_broker_tick(void *ctx)
{
    cq_bus_t *bus = ctx;
    uint64_t now = cq_now_mono_ms();
    /* Late ourselves, or not reading: what the broker said is still unread. */
    if (now - bus->ticked_mono_ms >= bus->lease_ms / 3 || bus->is_paused) {
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
