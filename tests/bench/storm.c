/* SPDX-License-Identifier: MPL-2.0
 * storm: the last edge is killed, and all its sessions come back on the others at once, as the
 * client library's would, while pairs talk there.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/client.h"
#include "tests/bench/talk.h"

enum {
    WARM_UP_S = 2,
    SETTLE_S = 2,
    BACK_S = 120, /* nobody may take longer to come back */
    SESSIONS_IN_FLIGHT = 200,
    QUIET = 0,
    STORM = 1
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t sessions, pairs, rate, seconds;
};

static void
run_s(uint64_t seconds)
{
    uint64_t end = bench_measure_now_ns() + seconds * NS_PER_S;
    while (bench_measure_now_ns() < end) {
        bench_conn_poll(bench_client_due(end));
    }
}

/* Until nobody is away, from the first loss that is noticed. */
static double
until_all_are_back(void)
{
    uint64_t start = bench_measure_now_ns();
    uint64_t deadline = start + BACK_S * NS_PER_S;
    while (!bench_client_away()) {
        bench_conn_poll(bench_client_due(deadline));
    }
    while (bench_client_away()) {
        bench_conn_poll(bench_client_due(deadline));
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("%zu are not back after %d s", bench_client_away(), BACK_S);
        }
    }
    return (double)(bench_measure_now_ns() - start) / 1e9;
}

static double
say_latency(const struct bench_talk *t, int phase, const char *when)
{
    char name[64];
    const struct bench_hist *h = bench_talk_hist(t, phase);
    (void)snprintf(name, sizeof name, "message.%s", when);
    bench_measure_say_hist(name, h);
    return (double)bench_measure_quantile(h, 0.99);
}

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    BENCH_SEED_ITEM,
    {"sessions", CQ_CONFIG_UINT, offsetof(struct options, sessions), "2000", 1, 1000000, "",
     "sessions of the edge that is killed"},
    {"pairs", CQ_CONFIG_UINT, offsetof(struct options, pairs), "100", 1, 100000, "",
     "pairs who talk meanwhile, on the other edges"},
    {"rate", CQ_CONFIG_UINT, offsetof(struct options, rate), "500", 1, 1000000, "per s",
     "their messages in total"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "10", 1, 3600, "s",
     "of quiet that the storm is compared with"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

/* The system as it is before: sessions on the last edge, pairs on the first two. */
static struct bench_login *
begin(const struct options *o, const struct bench_procs *procs)
{
    uint16_t first = bench_system_use(&o->system, procs);
    size_t edges = bench_measure_edges(procs);
    if (edges < 3) {
        bench_measure_fail("a storm needs three edges: two for those who talk, one to be killed");
    }
    struct bench_login_cfg sessions = {.sessions = o->sessions,
                                       .seed = o->seed,
                                       .skip = 2 * o->pairs,
                                       .in_flight = SESSIONS_IN_FLIGHT,
                                       .port = (uint16_t)(first + edges - 1),
                                       .edges = 1,
                                       .is_returning = true};
    struct bench_login *l = bench_login_new(&sessions);
    bench_login_open(l, o->sessions, NULL);
    return l;
}

static double
measure_quiet(struct bench_talk *t, const struct bench_procs *procs, uint64_t seconds)
{
    static struct bench_sample before, after;
    bench_talk_phase(t, QUIET);
    bench_measure_sample(procs, &before);
    run_s(seconds);
    bench_measure_sample(procs, &after);
    bench_talk_phase(t, -1);
    return bench_measure_cpu_ns(&before, &after) / (double)(after.time_ns - before.time_ns);
}

static void
storm(struct bench_talk *t, struct bench_procs *procs, const struct options *o, double quiet_cpu)
{
    static struct bench_sample before, after;
    bench_talk_phase(t, STORM);
    bench_measure_sample(procs, &before);
    bench_measure_kill_last_edge(procs);
    double seconds = until_all_are_back();
    bench_talk_phase(t, -1);
    run_s(SETTLE_S); /* what is done behind the answers counts */
    bench_measure_sample_again(procs, o->system.data, &before);
    bench_measure_sample(procs, &after);
    bench_measure_say("all_back", seconds, "s");
    bench_measure_say("refused", (double)bench_client_refused(), "1");
    bench_measure_say_cpu("cpu_per_session_with_talk", procs, &before, &after, (double)o->sessions);
    double talk_ns = quiet_cpu * (double)(after.time_ns - before.time_ns);
    bench_measure_say("cpu_per_session",
                      (bench_measure_cpu_ns(&before, &after) - talk_ns) / 1e3 / (double)o->sessions,
                      "us");
}

int
bench_storm_run(int argc, char **argv)
{
    static struct bench_procs procs;
    struct bench_seed seed;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench storm", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_find(&procs, o.system.data);
    bench_measure_begin(
        "storm", "%" PRIu64 " sessions, %zu edges, %" PRIu64 " pairs at %" PRIu64 " messages/s%s",
        o.sessions, bench_measure_edges(&procs), o.pairs, o.rate,
        o.system.tls_ca[0] ? ", TLS" : "");
    bench_seed_load(&seed, o.seed);
    const struct bench_talk_cfg talk = {&seed, o.pairs, o.rate, (uint16_t)o.system.port};
    struct bench_talk *t = bench_talk_start(&talk);
    struct bench_login *l = begin(&o, &procs);
    run_s(WARM_UP_S);
    double quiet_cpu = measure_quiet(t, &procs, o.seconds);
    storm(t, &procs, &o, quiet_cpu);
    double quiet_p99 = say_latency(t, QUIET, "quiet");
    double storm_p99 = say_latency(t, STORM, "storm");
    bench_measure_say("message_p99_storm_to_quiet", storm_p99 / quiet_p99, "1");
    bench_talk_stop(&t);
    bench_login_destroy(&l);
    bench_seed_free(&seed);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
