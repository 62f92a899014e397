/* SPDX-License-Identifier: MPL-2.0
 * Life of an endpoint, its socket, its counters.
 */
#include <inttypes.h>

#include "common/rt/bus_impl.h"
#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/rt/random.h"
#include "common/wire/name.h"

enum {
    LEASE_DEFAULT_MS = 3000,
    LINGER_MS = 200,
    LOG_EVERY_MS = 1000
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
    {"chasqui_bus_denied_total", "envelopes of the wrong role", CQ_METRIC_COUNTER,
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
    zsock_set_reconnect_ivl(bus->sock, 50);
    zsock_set_reconnect_ivl_max(bus->sock, 1000);
    zsock_set_maxmsgsize(bus->sock, CQ_ENVELOPE_MAX + 4096);
    if (zsock_connect(bus->sock, "%s", bus->endpoint) != 0) {
        CQ_LOG(ERROR, "BUS-CONNECT-FAIL", "endpoint=%s reason=\"%s\"", bus->endpoint,
               zmq_strerror(zmq_errno()));
        zsock_destroy(&bus->sock);
        return false;
    }
    bus->watch = cq_zwatch_new(bus->loop, zsock_resolve(bus->sock), cq_bus_in_read, bus);
    cq_zwatch_pause(bus->watch, bus->is_paused);
    return true;
}

void
cq_bus_reopen(cq_bus_t *bus)
{
    close_socket(bus);
    bool is_open = open_socket(bus);
    CQ_ASSERT(is_open); /* the endpoint was valid before */
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
    bus->tick = cq_timer_new(loop, cq_bus_broker_tick, bus);
    cq_timer_start(bus->tick, 1, CQ_BUS_TICK_MS);
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    cq_bus_in_register_metrics();
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

uint64_t
cq_bus_read_mono_us(const cq_bus_t *bus)
{
    return bus->read_mono_us;
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
