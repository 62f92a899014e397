/* SPDX-License-Identifier: MPL-2.0
 * storm: the last edges are killed, and all their sessions come back on the others at once, as the
 * client library's would, while pairs talk there.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/crowd.h"
#include "tests/bench/talk.h"

enum {
    WARM_UP_S = 2,
    SETTLE_S = 2,
    LOOK_US = 1000,
    BACK_S = 120, /* nobody may take longer to come back */
    SESSIONS_IN_FLIGHT = 200,
    QUIET = 0,
    STORM = 1
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t sessions, killed, pairs, rate, seconds;
};

/* Until nobody is away, from the first loss that is noticed. */
static double
until_all_are_back(struct bench_crowd *crowd)
{
    while (!bench_crowd_away(crowd)) {
        (void)usleep(LOOK_US);
    }
    uint64_t start = bench_measure_now_ns();
    while (bench_crowd_away(crowd)) {
        (void)usleep(LOOK_US);
        if (bench_measure_now_ns() - start > BACK_S * NS_PER_S) {
            bench_measure_fail("%zu are not back after %d s", bench_crowd_away(crowd), BACK_S);
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
     "sessions of the edges that are killed"},
    {"killed", CQ_CONFIG_UINT, offsetof(struct options, killed), "1", 1, 1000, "",
     "edges that are killed, the last ones"},
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

/* The system as it is before: sessions on the last edges, pairs on the first two. */
static struct bench_crowd *
begin(const struct options *o, const struct bench_procs *procs)
{
    uint16_t first = bench_system_use(&o->system, procs);
    size_t edges = bench_measure_edges(procs);
    if (edges < 2 + o->killed) {
        bench_measure_fail("a storm needs two edges for those who talk, beside those it kills");
    }
    struct bench_login_cfg sessions = {.sessions = o->sessions,
                                       .seed = o->seed,
                                       .skip = 2 * o->pairs,
                                       .in_flight = SESSIONS_IN_FLIGHT,
                                       .port = (uint16_t)(first + edges - o->killed),
                                       .edges = o->killed,
                                       .is_returning = true};
    struct bench_crowd *crowd = bench_crowd_new(&sessions);
    bench_crowd_open(crowd, o->sessions);
    return crowd;
}

static double
measure_quiet(struct bench_talk *t, const struct bench_procs *procs, uint64_t seconds)
{
    static struct bench_sample before, after;
    bench_talk_phase(t, QUIET);
    bench_measure_sample(procs, &before);
    (void)sleep((unsigned)seconds);
    bench_measure_sample(procs, &after);
    bench_talk_phase(t, -1);
    return bench_measure_cpu_ns(&before, &after) / (double)(after.time_ns - before.time_ns);
}

/* What a storm meets. */
struct scene {
    struct bench_talk *talk;
    struct bench_crowd *crowd;
    struct bench_procs procs;
    double quiet_cpu; /* share of a core that those who talk cost */
};

static void
storm(struct scene *s, const struct options *o)
{
    static struct bench_sample before, after;
    struct bench_procs *procs = &s->procs;
    bench_talk_phase(s->talk, STORM);
    bench_measure_sample(procs, &before);
    bench_measure_signal_last_edges(procs, o->killed, SIGKILL);
    double seconds = until_all_are_back(s->crowd);
    bench_talk_phase(s->talk, -1);
    (void)sleep(SETTLE_S); /* what is done behind the answers counts */
    bench_measure_sample_again(procs, o->system.data, &before);
    bench_measure_sample(procs, &after);
    bench_measure_say("all_back", seconds, "s");
    bench_measure_say("refused", (double)bench_crowd_refused(s->crowd), "1");
    bench_measure_say_cpu("cpu_per_session_with_talk", procs, &before, &after, (double)o->sessions);
    double talk_ns = s->quiet_cpu * (double)(after.time_ns - before.time_ns);
    bench_measure_say("cpu_per_session",
                      (bench_measure_cpu_ns(&before, &after) - talk_ns) / 1e3 / (double)o->sessions,
                      "us");
}

int
bench_storm_run(int argc, char **argv)
{
    static struct scene s;
    struct bench_seed seed;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench storm", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_find(&s.procs, o.system.data);
    bench_measure_begin("storm",
                        "%" PRIu64 " sessions, %zu edges, %" PRIu64 " of them killed, %" PRIu64
                        " pairs at %" PRIu64 " messages/s%s",
                        o.sessions, bench_measure_edges(&s.procs), o.killed, o.pairs, o.rate,
                        o.system.tls_ca[0] ? ", TLS" : "");
    bench_seed_load(&seed, o.seed);
    s.crowd = begin(&o, &s.procs);
    const struct bench_talk_cfg talk = {&seed, o.pairs, o.rate, (uint16_t)o.system.port};
    s.talk = bench_talk_start(&talk);
    (void)sleep(WARM_UP_S);
    s.quiet_cpu = measure_quiet(s.talk, &s.procs, o.seconds);
    storm(&s, &o);
    double quiet_p99 = say_latency(s.talk, QUIET, "quiet");
    double storm_p99 = say_latency(s.talk, STORM, "storm");
    bench_measure_say("message_p99_storm_to_quiet", storm_p99 / quiet_p99, "1");
    bench_talk_stop(&s.talk);
    bench_crowd_destroy(&s.crowd);
    bench_seed_free(&seed);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
