/* SPDX-License-Identifier: MPL-2.0
 * login: a storm of sessions that come with a token: connect, RESUME, SYNC. Twice: with the tokens
 * of a log-in long ago, whose signatures have to be checked, and everything there is as SYNC's
 * answer; then all go and come again, as after the death of an edge, with what they have.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/rt/check.h"

#include "tests/bench/bench.h"
#include "tests/bench/client.h"
#include "tests/bench/seed.h"

enum {
    STORM_S = 3600,  /* on an emulated machine all takes a while */
    START_MS = 2000, /* services that have just started are busy with that */
    AWAY_MS = 2000,  /* until edges and presence have done with those who left; they may be back
                        within the grace period, as after the death of an edge */
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
    if (s->through) {
        ports[0] = (uint16_t)s->through;
        edges = 1;
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
    if (!c->token.now.n) {
        c->token.now = (struct cq_view){s->token, s->token_size};
    }
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
bench_login_close(struct bench_login *l)
{
    for (size_t i = 0; i < l->opened; i++) {
        bench_client_leave(&l->sessions[i]);
    }
    l->opened = l->done = 0;
}

void
bench_login_destroy(struct bench_login **login)
{
    struct bench_login *l = *login;
    bench_login_close(l);
    for (size_t i = 0; i < l->cfg.sessions; i++) {
        bench_token_free(&l->sessions[i].token);
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

static void
settle(uint64_t ms)
{
    uint64_t end = bench_measure_now_ns() + ms * NS_PER_MS;
    while (bench_measure_now_ns() < end) {
        bench_conn_poll(end);
    }
}

static void
come_all(struct bench_login *l, const struct bench_procs *procs, size_t count, const char *how)
{
    static struct bench_sample before, after;
    struct bench_hist took = {0};
    char name[64];
    bench_measure_sample(procs, &before);
    bench_login_open(l, count, &took);
    uint64_t end = bench_measure_now_ns();
    settle(SETTLE_MS); /* what is done behind the answers counts */
    bench_measure_sample(procs, &after);
    (void)snprintf(name, sizeof name, "%s_sessions", how);
    bench_measure_say(name, (double)count * 1e9 / (double)(end - before.time_ns), "1/s");
    (void)snprintf(name, sizeof name, "%s_connect_to_synced", how);
    bench_measure_say_hist(name, &took);
    (void)snprintf(name, sizeof name, "%s_cpu_per_session", how);
    bench_measure_say_cpu(name, procs, &before, &after, (double)count);
}

int
bench_login_run(int argc, char **argv)
{
    static struct bench_procs procs;
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
    settle(START_MS);
    come_all(l, &procs, o.sessions, "first");
    bench_login_close(l);
    settle(AWAY_MS);
    come_all(l, &procs, o.sessions, "again");
    bench_login_destroy(&l);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
