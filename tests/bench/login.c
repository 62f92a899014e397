/* SPDX-License-Identifier: MPL-2.0
 * login: a storm of sessions that come with a token: connect, RESUME, SYNC.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/rt/check.h"

#include "tests/bench/bench.h"
#include "tests/bench/client.h"
#include "tests/bench/seed.h"

enum {
    STORM_S = 300,
    SETTLE_MS = 500
};

#define NS_PER_MS UINT64_C(1000000)

struct bench_login {
    struct bench_login_cfg cfg;
    size_t opened, done;
    struct bench_seed seed;
    size_t devices; /* that it has for us */
    struct bench_client *sessions;
    struct bench_hist *took;
};

uint16_t
bench_system_use(const struct bench_system *s, const struct bench_procs *procs)
{
    uint16_t ports[BENCH_EDGES_MAX];
    size_t edges = bench_measure_edges(procs);
    edges = edges < BENCH_EDGES_MAX ? edges : BENCH_EDGES_MAX;
    for (size_t i = 0; i < edges; i++) {
        ports[i] = (uint16_t)(s->port + i);
    }
    bench_client_edges(ports, edges);
    if (s->tls_ca[0]) {
        bench_conn_use_tls(s->tls_ca);
    }
    return ports[0];
}

struct bench_login *
bench_login_new(const struct bench_login_cfg *cfg)
{
    struct bench_login *l = cq_alloc(sizeof *l);
    l->cfg = *cfg;
    l->sessions = cq_alloc(cfg->sessions * sizeof *l->sessions);
    bench_seed_load(&l->seed, cfg->seed);
    l->devices = (size_t)l->seed.header.users * l->seed.header.devices;
    if (l->devices <= cfg->skip) {
        bench_measure_fail("%zu devices are too few", l->devices);
    }
    l->devices -= cfg->skip;
    return l;
}

static void
on_ready(struct bench_client *c, struct cq_frame_op *synced)
{
    (void)synced;
    struct bench_login *l = c->owner;
    if (c->since_ns && l->took) {
        bench_measure_add(l->took, bench_measure_now_ns() - c->since_ns);
    }
    l->done += c->since_ns != 0;
    c->since_ns = 0;
}

static void
on_op(struct bench_client *c, struct cq_frame_op *op)
{
    if (op->code == CQ_OP_SYNC_NOW) {
        bench_client_sync(c);
    }
}

static void
open_one(struct bench_login *l)
{
    struct bench_client *c = &l->sessions[l->opened];
    const struct bench_seed_session *s = &l->seed.sessions[l->cfg.skip + l->opened % l->devices];
    c->owner = l;
    c->token = s->token;
    c->token_size = s->token_size;
    c->keeps_version = true;
    c->is_returning = l->cfg.is_returning;
    c->conn.is_frugal = true;
    c->on_ready = on_ready;
    c->on_op = on_op;
    bench_client_connect(c, (uint16_t)(l->cfg.port + l->opened % l->cfg.edges));
    l->opened++;
}

void
bench_login_open(struct bench_login *l, size_t count, struct bench_hist *took)
{
    uint64_t deadline = bench_measure_now_ns() + UINT64_C(1000) * STORM_S * NS_PER_MS;
    l->took = took;
    while (l->done < count) {
        while (l->opened < count && l->opened - l->done < l->cfg.in_flight) {
            open_one(l);
        }
        bench_conn_poll(bench_client_due(deadline));
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("%zu of %zu sessions in %d s", l->done, count, STORM_S);
        }
    }
}

void
bench_login_destroy(struct bench_login **login)
{
    struct bench_login *l = *login;
    for (size_t i = 0; i < l->opened; i++) {
        bench_conn_close(&l->sessions[i].conn);
    }
    bench_seed_free(&l->seed);
    free(l->sessions);
    free(l);
    *login = NULL;
}

/* ---- the benchmark ---- */

struct options {
    struct bench_system system;
    char *seed;
    uint64_t sessions, in_flight;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    {"sessions", CQ_CONFIG_UINT, offsetof(struct options, sessions), "2000", 1, 1000000, "",
     "sessions that come back"},
    BENCH_SEED_ITEM,
    {"in-flight", CQ_CONFIG_UINT, offsetof(struct options, in_flight), "200", 1, 1000000, "",
     "of them at a time"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

int
bench_login_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    static struct bench_hist took;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench login", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_begin("login", "%" PRIu64 " sessions, %" PRIu64 " at a time%s", o.sessions,
                        o.in_flight, o.system.tls_ca[0] ? ", TLS" : "");
    bench_measure_find(&procs, o.system.data);
    uint16_t port = bench_system_use(&o.system, &procs);
    struct bench_login_cfg cfg = {.sessions = o.sessions,
                                  .seed = o.seed,
                                  .in_flight = o.in_flight,
                                  .port = port,
                                  .edges = bench_measure_edges(&procs)};
    struct bench_login *l = bench_login_new(&cfg);
    bench_measure_sample(&procs, &before);
    bench_login_open(l, o.sessions, &took);
    uint64_t end = bench_measure_now_ns();
    while (bench_measure_now_ns() < end + SETTLE_MS * NS_PER_MS) {
        bench_conn_poll(end + SETTLE_MS * NS_PER_MS); /* what is done behind the answers counts */
    }
    bench_measure_sample(&procs, &after);
    bench_measure_say("sessions", (double)o.sessions * 1e9 / (double)(end - before.time_ns), "1/s");
    bench_measure_say_hist("connect_to_synced", &took);
    bench_measure_say_cpu("cpu_per_session", &procs, &before, &after, (double)o.sessions);
    bench_login_destroy(&l);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
