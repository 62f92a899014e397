/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/random.h"

#include "client/reconnect.h"
#include "tests/bench/measure.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    LOOK_SLICES = 10, /* a tenth of those who watch looks at its clock at a time */
    LOOK_MS = 1000 / LOOK_SLICES
};

static struct {
    struct cq_reconnect list;
    uint16_t ports[BENCH_EDGES_MAX];
    struct bench_client **heap; /* those that wait, the earliest first */
    size_t count, room;
    size_t away;
    uint64_t refused;
    bool is_watching;
    struct bench_client **watchers;
    size_t watcher_count, watcher_room;
    uint64_t limit_ms, look_ns;
    size_t slice;
} all;

bool
bench_client_is_answer(const struct cq_frame_op *op, uint64_t rid)
{
    if (op->code == CQ_OP_ERR) {
        struct cq_frame_op e = *op;
        struct cq_failure f;
        int rc = cq_schema_read(&cq_failure_schema, &e.fields, e.field_count, &f);
        bench_measure_fail("request %" PRIu64 " failed: %s", op->rid,
                           rc ? "?" : cq_err_name((int)f.err));
    }
    return op->code == CQ_OP_OK && op->rid == rid;
}

void
bench_client_edges(const uint16_t *ports, size_t count)
{
    char text[BENCH_EDGES_MAX * 32];
    size_t n = 0;
    for (size_t i = 0; i < count && i < BENCH_EDGES_MAX; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%sws://127.0.0.1:%u/ws", i ? "," : "",
                              ports[i]);
        all.ports[i] = ports[i];
    }
    if (cq_reconnect_init(&all.list, text, 0)) {
        bench_measure_fail("no list of edges: %s", text);
    }
}

size_t
bench_client_away(void)
{
    return all.away;
}

uint64_t
bench_client_refused(void)
{
    return all.refused;
}

/* ---- who waits ---- */

static void
push(struct bench_client *c)
{
    if (all.count == all.room) {
        all.room = all.room ? 2 * all.room : 1024;
        all.heap = realloc(all.heap, all.room * sizeof(struct bench_client *));
        CQ_ASSERT(all.heap);
    }
    size_t at = all.count++;
    for (; at && all.heap[(at - 1) / 2]->due_ns > c->due_ns; at = (at - 1) / 2) {
        all.heap[at] = all.heap[(at - 1) / 2];
    }
    all.heap[at] = c;
    c->is_waiting = true;
}

static struct bench_client *
pop(void)
{
    struct bench_client *first = all.heap[0];
    struct bench_client *last = all.heap[--all.count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < all.count; at = child) {
        bool right = child + 1 < all.count;
        child += right && all.heap[child + 1]->due_ns < all.heap[child]->due_ns;
        if (all.heap[child]->due_ns >= last->due_ns) {
            break;
        }
        all.heap[at] = all.heap[child];
    }
    all.heap[at] = last;
    first->is_waiting = false;
    return first;
}

/* ---- one client ---- */

static void
come_back(struct bench_client *c, uint32_t at_least_ms)
{
    all.list.next = c->next;
    all.list.failures = c->failures;
    all.list.was_online = c->was_online;
    struct cq_attempt a = cq_reconnect_next(&all.list, cq_random_u64());
    c->port = a.url->port;
    c->next = all.list.next;
    c->failures = all.list.failures;
    uint32_t delay_ms = a.delay_ms > at_least_ms ? a.delay_ms : at_least_ms;
    c->due_ns = bench_measure_now_ns() + delay_ms * NS_PER_MS;
    push(c);
}

static void
lose(struct bench_client *c)
{
    if (!c->is_ready) {
        return;
    }
    c->since_ns = bench_measure_now_ns();
    all.away++;
    c->is_ready = false;
    if (c->on_lost) {
        c->on_lost(c);
    }
}

/* ---- heartbeats ---- */

void
bench_client_watch(void)
{
    all.is_watching = true;
}

uint64_t
bench_client_limit_ms(void)
{
    return all.limit_ms;
}

static void
watch(struct bench_client *c)
{
    if (all.watcher_count == all.watcher_room) {
        all.watcher_room = all.watcher_room ? 2 * all.watcher_room : 1024;
        all.watchers = realloc(all.watchers, all.watcher_room * sizeof(struct bench_client *));
        CQ_ASSERT(all.watchers);
    }
    all.watchers[all.watcher_count++] = c;
}

static void
keep_limit(struct cq_frame_op welcome)
{
    struct cq_welcome w;
    if (all.is_watching &&
        !cq_schema_read(&cq_welcome_schema, &welcome.fields, welcome.field_count, &w)) {
        all.limit_ms = w.heartbeat_limit_ms;
    }
}

static void
look(struct bench_client *c, uint64_t now)
{
    uint64_t end_ns = c->conn.heard_ns + all.limit_ms * NS_PER_MS;
    if (c->conn.state == BENCH_CONN_CLOSED || now <= end_ns) {
        return;
    }
    bool was_ready = c->is_ready;
    bench_conn_close(&c->conn);
    lose(c);
    c->since_ns = was_ready ? end_ns : c->since_ns;
    come_back(c, 0);
}

static void
look_at_some(void)
{
    uint64_t now = bench_measure_now_ns();
    if (!all.limit_ms || now < all.look_ns) {
        return;
    }
    all.look_ns = now + LOOK_MS * NS_PER_MS;
    all.slice = (all.slice + 1) % LOOK_SLICES;
    for (size_t i = all.slice; i < all.watcher_count; i += LOOK_SLICES) {
        look(all.watchers[i], now);
    }
}

/* ---- what comes ---- */

static void
on_end(struct bench_conn *conn)
{
    struct bench_client *c = conn->owner;
    if (!c->is_returning) {
        bench_measure_fail("the edge ended a connection");
    }
    lose(c);
    come_back(c, 0);
}

/* An edge that is busy: again later, as it says. */
static void
on_refused(struct bench_client *c, struct cq_frame_op *op)
{
    struct cq_failure f;
    if (!c->is_returning || cq_schema_read(&cq_failure_schema, &op->fields, op->field_count, &f)) {
        (void)bench_client_is_answer(op, 0); /* fails with the error's name */
    }
    all.refused++;
    bench_conn_close(&c->conn);
    come_back(c, (uint32_t)f.retry_after_ms);
}

static void
keep_version(struct bench_client *c, struct cq_frame_op op)
{
    struct cq_synced s;
    if (!c->keeps_version) {
        return;
    }
    if (cq_schema_read(&cq_synced_schema, &op.fields, op.field_count, &s) || s.more) {
        bench_measure_fail("SYNC cannot be read, or has more than one part");
    }
    c->epoch = s.epoch;
    c->version = s.version;
}

static void
on_op(struct bench_conn *conn, struct cq_frame_op *op)
{
    struct bench_client *c = conn->owner;
    bool is_login = op->rid == BENCH_CLIENT_RESUME_RID || op->rid == BENCH_CLIENT_SYNC_RID;
    if (op->code == CQ_OP_ERR && is_login) {
        on_refused(c, op);
    } else if (op->code == CQ_OP_OK && op->rid == BENCH_CLIENT_RESUME_RID) {
        keep_limit(*op);
        bench_token_keep(&c->token, op);
    } else if (op->code == CQ_OP_OK && op->rid == BENCH_CLIENT_SYNC_RID) {
        all.away -= !c->is_ready;
        c->is_ready = true;
        keep_version(c, *op);
        c->was_online = true;
        c->failures = 0;
        c->on_ready(c, op);
    } else if (op->code == CQ_OP_GOAWAY && c->is_returning) {
        bench_conn_close(conn);
        lose(c);
        come_back(c, cq_reconnect_wait(0, 500, cq_random_u64()));
    } else if (c->is_ready && c->on_op) {
        c->on_op(c, op);
    }
}

void
bench_client_sync(struct bench_client *c)
{
    struct cq_sync sync = {.epoch = c->epoch, .version = c->version};
    cq_frame_request(bench_conn_next_op(&c->conn), CQ_OP_SYNC, BENCH_CLIENT_SYNC_RID,
                     &cq_sync_schema, &sync);
}

static void
on_open_turn(struct bench_conn *conn)
{
    struct bench_client *c = conn->owner;
    if (c->is_ready && c->on_turn) {
        c->on_turn(c);
    }
}

static void
log_in(struct bench_conn *conn)
{
    struct bench_client *c = conn->owner;
    struct cq_resume resume = {c->token.now};
    cq_frame_request(bench_conn_next_op(conn), CQ_OP_RESUME, BENCH_CLIENT_RESUME_RID,
                     &cq_resume_schema, &resume);
    bench_client_sync(c);
    conn->on_turn = on_open_turn;
}

static void
dial(struct bench_client *c, uint16_t port)
{
    c->conn.owner = c;
    c->conn.on_op = on_op;
    c->conn.on_turn = log_in;
    c->conn.on_end = on_end;
    bench_conn_open(&c->conn, port);
}

void
bench_client_leave(struct bench_client *c)
{
    bench_conn_close(&c->conn);
    c->is_ready = false;
}

static size_t
index_of(uint16_t port)
{
    for (size_t i = 0; i < all.list.count; i++) {
        if (all.ports[i] == port) {
            return i;
        }
    }
    return 0;
}

void
bench_client_connect(struct bench_client *c, uint16_t port)
{
    c->since_ns = bench_measure_now_ns();
    c->next = all.list.count ? (index_of(port) + 1) % all.list.count : 0;
    c->failures = 1;
    all.away++;
    if (all.is_watching) {
        watch(c);
    }
    dial(c, port);
}

uint64_t
bench_client_due(uint64_t until)
{
    while (all.count && all.heap[0]->due_ns <= bench_measure_now_ns()) {
        struct bench_client *c = pop();
        dial(c, c->port);
    }
    if (all.watcher_count) {
        look_at_some();
        until = all.look_ns && all.look_ns < until ? all.look_ns : until;
    }
    return all.count && all.heap[0]->due_ns < until ? all.heap[0]->due_ns : until;
}
