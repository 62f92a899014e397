/* SPDX-License-Identifier: MPL-2.0
 * idle: sessions that say nothing but answer heartbeats: what memory and CPU each one costs.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/conn.h"

enum {
    IN_FLIGHT = 200,
    WARM_UP = 200, /* sessions that come first, so that code and pools are paged in */
    SETTLE_S = 3
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t sessions, seconds;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    {"sessions", CQ_CONFIG_UINT, offsetof(struct options, sessions), "2000", 1, 1000000, "",
     "sessions"},
    BENCH_SEED_ITEM,
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "25", 1, 3600, "s",
     "measured time; one heartbeat each in 25 s"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static void
wait_s(uint64_t seconds)
{
    uint64_t end = bench_measure_now_ns() + seconds * NS_PER_S;
    while (bench_measure_now_ns() < end) {
        bench_conn_poll(end);
    }
}

static void
say_memory(const struct bench_procs *p,
           const struct bench_sample *a,
           const struct bench_sample *b,
           double sessions)
{
    char name[64];
    double sum = 0;
    for (size_t i = 0; i < p->count; i++) {
        double bytes = ((double)b->pss_bytes[i] - (double)a->pss_bytes[i]) / sessions;
        (void)snprintf(name, sizeof name, "pss_per_session.%s", p->list[i].name);
        bench_measure_say(name, bytes, "bytes");
        sum += bytes;
    }
    bench_measure_say("pss_per_session", sum, "bytes");
}

static void
say_heartbeats(const struct bench_sample *a, const struct bench_sample *b, uint64_t pings)
{
    double cpu_ns = bench_measure_cpu_ns(a, b);
    double wall_ns = (double)(b->time_ns - a->time_ns);
    bench_measure_say("heartbeats", (double)pings * 1e9 / wall_ns, "1/s");
    bench_measure_say("cpu_per_heartbeat", pings ? cpu_ns / 1e3 / (double)pings : 0, "us");
    bench_measure_say("cpu_of_a_core", 100 * cpu_ns / wall_ns, "%");
}

int
bench_idle_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench idle", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_find(&procs, o.system.data);
    bench_measure_begin("idle", "%" PRIu64 " sessions, %zu edges, %" PRIu64 " s%s", o.sessions,
                        bench_measure_edges(&procs), o.seconds, o.system.tls_ca[0] ? ", TLS" : "");
    struct bench_login_cfg cfg = {.sessions = WARM_UP + o.sessions,
                                  .seed = o.seed,
                                  .in_flight = IN_FLIGHT,
                                  .port = bench_system_use(&o.system, &procs),
                                  .edges = bench_measure_edges(&procs)};
    struct bench_login *l = bench_login_new(&cfg);
    bench_login_open(l, WARM_UP, NULL);
    wait_s(SETTLE_S);
    bench_measure_memory(&procs, &before);
    bench_measure_sample(&procs, &before);
    wait_s(SETTLE_S);
    bench_measure_sample(&procs, &after);
    bench_measure_say_cpu("cpu_per_s_empty", &procs, &before, &after, SETTLE_S);
    bench_login_open(l, WARM_UP + o.sessions, NULL);
    wait_s(SETTLE_S);
    bench_measure_memory(&procs, &after);
    say_memory(&procs, &before, &after, (double)o.sessions);
    uint64_t pings = bench_conn_pings();
    bench_measure_sample(&procs, &before);
    wait_s(o.seconds);
    bench_measure_sample(&procs, &after);
    bench_measure_say_cpu("cpu_per_session_second", &procs, &before, &after,
                          (double)o.sessions * (double)o.seconds);
    say_heartbeats(&before, &after, bench_conn_pings() - pings);
    bench_login_destroy(&l);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
