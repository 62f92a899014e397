/* SPDX-License-Identifier: MPL-2.0
 * A broker and some endpoints on one loop, for the tests of the bus. Payload everywhere: one
 * unsigned number.
 */
#ifndef TEST_BUS_FIXTURE_H
#define TEST_BUS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/bus_impl.h"
#include "common/rt/random.h"

#include "broker/broker.h"

enum {
    NODES = 3,
    SEEN_MAX = 32768,
    TRACE_MAX = 2048,
    LEASE_MS = 600,
    OP_ASK = 0x36,
    OP_EVENT = 0x35,
    OP_OTHER = 0x33,
    OP_EDGE_ONLY = 0x12
};

struct fixture;

struct node {
    struct fixture *f;
    cq_bus_t *bus;
    char trace[TRACE_MAX];   /* "up store.1 " "down store.1 " "registered " "lost " */
    uint64_t seen[SEEN_MAX]; /* numbers of events and requests, in order */
    size_t seen_count;
    struct cq_bus_from last_from;
    bool is_mute; /* does not answer */
    int replies;
    int last_err;
    uint64_t last_value, last_detail;
    size_t last_count;
};

struct fixture {
    cq_loop_t *loop;
    cq_timer_t *check;
    broker_t *broker;
    char folder[32], endpoint[64];
    struct node nodes[NODES];
    bool (*until)(struct fixture *f);
    uint64_t end_mono_ms;
    bool is_done;
    uint64_t wanted;
};

static inline void
trace(struct node *n, const char *what, const char *who)
{
    size_t used = strlen(n->trace);
    (void)snprintf(n->trace + used, sizeof n->trace - used, "%s%s%s ", what, who[0] ? " " : "",
                   who);
}

static inline void
on_check(void *ctx)
{
    struct fixture *f = ctx;
    f->is_done = f->until && f->until(f);
    if (f->is_done || cq_now_mono_ms() > f->end_mono_ms) {
        cq_loop_stop(f->loop);
    }
}

/* Runs the loop until the condition holds; false after limit_ms. */
static inline bool
run_until(struct fixture *f, bool (*until)(struct fixture *f), uint64_t limit_ms)
{
    f->until = until;
    f->end_mono_ms = cq_now_mono_ms() + limit_ms;
    f->is_done = false;
    cq_timer_start(f->check, 0, 1);
    cq_loop_run(f->loop);
    cq_timer_stop(f->check);
    return f->is_done;
}

static inline void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    (void)role;
    assert_true(incarnation != 0);
    trace(ctx, up ? "up" : "down", name);
}

static inline void
on_registered(void *ctx)
{
    trace(ctx, "registered", "");
}

static inline void
on_lost(void *ctx)
{
    trace(ctx, "lost", "");
}

static inline void
see(struct node *n, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct cq_bus_ping m;
    n->last_from = *from;
    if (cq_schema_read(&cq_bus_ping_schema, fields, count, &m) != 0) {
        cq_bus_reply_err(n->bus, from, -CQ_E_BAD_ARG, 0);
    } else if (n->seen_count < SEEN_MAX) {
        n->seen[n->seen_count++] = m.incarnation;
    }
}

static inline void
on_event(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    see(ctx, from, fields, count);
}

/* Answers value + 1; 404 is answered by an error with a detail. */
static inline void
on_ask(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct node *n = ctx;
    see(n, from, fields, count);
    uint64_t value = n->seen[n->seen_count - 1];
    struct cq_bus_ping answer = {.incarnation = value + 1};
    if (n->is_mute) {
        return;
    }
    if (value == 404) {
        cq_bus_reply_err(n->bus, from, -CQ_E_NOT_FOUND, 77);
    } else {
        cq_bus_reply(n->bus, from, &cq_bus_ping_schema, &answer);
    }
}

static const struct cq_bus_row rows[] = {
    {OP_ASK, on_ask, NULL},
    {OP_EVENT, on_event, NULL},
    {OP_OTHER, on_event, NULL},
    {OP_EDGE_ONLY, on_ask, "edge"},
};

static inline void
start_node_max(struct fixture *f, int i, const char *name, const char *role, uint32_t in_flight_max)
{
    struct cq_bus_cfg cfg = {
        .endpoint = f->endpoint,
        .name = name,
        .role = role,
        .rows = rows,
        .row_count = sizeof rows / sizeof rows[0],
        .on_peer = on_peer,
        .on_registered = on_registered,
        .on_lost = on_lost,
        .ctx = &f->nodes[i],
        .in_flight_max = in_flight_max,
    };
    f->nodes[i].f = f;
    f->nodes[i].bus = cq_bus_new(f->loop, &cfg);
    assert_non_null(f->nodes[i].bus);
}

static inline void
start_node(struct fixture *f, int i, const char *name, const char *role)
{
    start_node_max(f, i, name, role, 0);
}

static inline void
start_broker(struct fixture *f)
{
    struct broker_cfg cfg = {.endpoint = f->endpoint, .lease_ms = LEASE_MS};
    f->broker = broker_new(f->loop, &cfg);
    assert_non_null(f->broker);
}

static inline bool
all_registered(struct fixture *f)
{
    size_t alive = 0;
    bool all = true;
    for (int i = 0; i < NODES; i++) {
        alive += f->nodes[i].bus != NULL;
    }
    for (int i = 0; i < NODES; i++) {
        cq_bus_t *bus = f->nodes[i].bus;
        all = all && (!bus || (cq_bus_is_registered(bus) && zhashx_size(bus->peers) == alive - 1));
    }
    return all;
}

static inline void
on_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct node *n = ctx;
    n->replies++;
    n->last_err = err;
    n->last_detail = detail;
    n->last_count = count;
    n->last_value = err == 0 && count ? cq_read_uint(fields, UINT64_MAX) : 0;
}

static inline int
ask(struct node *n, const char *dst, uint8_t op, uint64_t value, uint64_t deadline_ms)
{
    struct cq_bus_ping m = {.incarnation = value};
    struct cq_bus_wait wait = {deadline_ms, on_reply, n};
    return cq_bus_request(n->bus, dst, op, &cq_bus_ping_schema, &m, &wait);
}

static inline void
tell(struct node *n, const char *dst, uint8_t op, uint64_t value)
{
    struct cq_bus_ping m = {.incarnation = value};
    cq_bus_event(n->bus, dst, op, &cq_bus_ping_schema, &m);
}

static inline int
setup_bare(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->loop = cq_loop_new();
    f->check = cq_timer_new(f->loop, on_check, f);
    (void)snprintf(f->folder, sizeof f->folder, "/tmp/cq-bus-XXXXXX");
    if (!mkdtemp(f->folder)) {
        return -1;
    }
    (void)snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/broker.sock", f->folder);
    *state = f;
    return 0;
}

static inline int
setup(void **state)
{
    if (setup_bare(state) != 0) {
        return -1;
    }
    struct fixture *f = *state;
    start_broker(f);
    start_node(f, 0, "edge.1", "edge");
    start_node(f, 1, "store.1", "store");
    return run_until(f, all_registered, 5000) ? 0 : -1;
}

static inline int
teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < NODES; i++) {
        cq_bus_destroy(&f->nodes[i].bus);
    }
    broker_destroy(&f->broker);
    cq_timer_destroy(&f->check);
    cq_loop_destroy(&f->loop);
    (void)rmdir(f->folder);
    free(f);
    return 0;
}

static inline bool
node0_has_reply(struct fixture *f)
{
    return (uint64_t)f->nodes[0].replies >= f->wanted;
}

static inline bool
node1_has_seen(struct fixture *f)
{
    return f->nodes[1].seen_count >= f->wanted;
}

#endif
