/* SPDX-License-Identifier: MPL-2.0
 * idle: sessions that say nothing but answer heartbeats: what memory and CPU each one costs.
 */
#include <inttypes.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/crowd.h"

enum {
    IN_FLIGHT = 200,
    WARM_UP = 200, /* sessions that come first, so that code and pools are paged in */
    SETTLE_S = 3
};

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
say_heartbeats(const struct bench_sample *a, const struct bench_sample *b, uint64_t pings)
{
    double cpu_ns = bench_measure_cpu_ns(a, b);
    double wall_ns = (double)(b->time_ns - a->time_ns);
    bench_measure_say("heartbeats", (double)pings * 1e9 / wall_ns, "1/s");
    bench_measure_say("cpu_per_heartbeat", pings ? cpu_ns / 1e3 / (double)pings : 0, "us");
    bench_measure_say("cpu_of_a_core", 100 * cpu_ns / wall_ns, "%");
}

/* Those who are there first pay for what everybody uses; then the others come. */
static void
fill(const struct options *o, const struct bench_procs *procs, struct bench_crowd *crowd)
{
    static struct bench_sample before, after;
    bench_crowd_open(crowd, WARM_UP);
    (void)sleep(SETTLE_S);
    bench_measure_memory(procs, &before);
    bench_measure_sample(procs, &before);
    (void)sleep(SETTLE_S);
    bench_measure_sample(procs, &after);
    bench_measure_say_cpu("cpu_per_s_empty", procs, &before, &after, SETTLE_S);
    uint64_t start = bench_measure_now_ns();
    bench_measure_sample(procs, &before);
    bench_crowd_open(crowd, WARM_UP + o->sessions);
    bench_measure_say("opened",
                      (double)o->sessions * 1e9 / (double)(bench_measure_now_ns() - start), "1/s");
    (void)sleep(SETTLE_S);
    bench_measure_sample(procs, &after);
    bench_measure_say_cpu("cpu_per_login", procs, &before, &after, (double)o->sessions);
    bench_measure_memory(procs, &after);
    bench_measure_say_memory("pss_per_session", procs, &before, &after, (double)o->sessions);
}

static void
be_idle(const struct options *o, const struct bench_procs *procs, struct bench_crowd *crowd)
{
    static struct bench_sample before, after;
    uint64_t pings = bench_crowd_pings(crowd);
    bench_measure_sample(procs, &before);
    before.own_cpu_ns += bench_crowd_cpu_ns(crowd);
    (void)sleep((unsigned)o->seconds);
    bench_measure_sample(procs, &after);
    after.own_cpu_ns += bench_crowd_cpu_ns(crowd);
    bench_measure_say_cpu("cpu_per_session_second", procs, &before, &after,
                          (double)o->sessions * (double)o->seconds);
    say_heartbeats(&before, &after, bench_crowd_pings(crowd) - pings);
    if (bench_crowd_away(crowd)) {
        bench_measure_fail("sessions are gone"); /* or their heartbeats were not answered */
    }
}

int
bench_idle_run(int argc, char **argv)
{
    static struct bench_procs procs;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench idle", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_find(&procs, o.system.data);
    struct bench_login_cfg cfg = {.sessions = WARM_UP + o.sessions,
                                  .seed = o.seed,
                                  .in_flight = IN_FLIGHT,
                                  .port = bench_system_use(&o.system, &procs),
                                  .edges = bench_measure_edges(&procs)};
    struct bench_crowd *crowd = bench_crowd_new(&cfg);
    bench_measure_begin("idle",
                        "%" PRIu64 " sessions, %zu edges, %zu load generators, %" PRIu64 " s%s",
                        o.sessions, bench_measure_edges(&procs), bench_crowd_helpers(crowd),
                        o.seconds, o.system.tls_ca[0] ? ", TLS" : "");
    fill(&o, &procs, crowd);
    be_idle(&o, &procs, crowd);
    bench_crowd_destroy(&crowd);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
