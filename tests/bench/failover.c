/* SPDX-License-Identifier: MPL-2.0
 * failover: an edge is killed under people who talk, or hangs, or all edges are restarted one by
 * one; they come back on another, as the client library would. Of one that hangs only the heartbeat
 * tells.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/wire/limits.h"

#include "tests/bench/bench.h"
#include "tests/bench/client.h"
#include "tests/bench/pairs.h"

enum {
    WARM_UP_S = 2,
    BACK_S = 120 /* nobody may take longer to come back */
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t sessions, rate, seconds;
    bool hang;
    char *restart;
};

static void
run_s(uint64_t seconds)
{
    bench_pairs_run(bench_measure_now_ns() + seconds * NS_PER_S);
}

/* Talks on until nobody is away; from the first loss that is noticed. */
static double
until_all_are_back(void)
{
    uint64_t start = bench_measure_now_ns();
    uint64_t deadline = start + BACK_S * NS_PER_S;
    while (!bench_client_away()) {
        bench_pairs_run(bench_measure_now_ns() + NS_PER_S / 1000);
    }
    while (bench_client_away()) {
        bench_pairs_run(bench_measure_now_ns() + NS_PER_S / 100);
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("%zu are not back after %d s", bench_client_away(), BACK_S);
        }
    }
    return (double)(bench_measure_now_ns() - start) / 1e9;
}

/* Talks on while the command restarts the edges, and until all are back. */
static double
restart_all(const char *command)
{
    uint64_t start = bench_measure_now_ns();
    pid_t child = fork();
    if (child == 0) {
        (void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    pid_t ended = 0;
    while (!ended || bench_client_away()) {
        bench_pairs_run(bench_measure_now_ns() + NS_PER_S / 100);
        ended = ended ? ended : waitpid(child, &status, WNOHANG);
        if (bench_measure_now_ns() - start > BACK_S * NS_PER_S) {
            bench_measure_fail("not over after %d s", BACK_S);
        }
    }
    if (ended < 0 || status != 0) {
        bench_measure_fail("the restart failed: %s", command);
    }
    return (double)(bench_measure_now_ns() - start) / 1e9;
}

/* What is to be survived; how long until all are back. */
static double
break_it(const struct bench_procs *procs, const struct options *o)
{
    if (o->restart[0]) {
        return restart_all(o->restart);
    }
    bench_measure_signal_last_edges(procs, 1, o->hang ? SIGSTOP : SIGKILL);
    return until_all_are_back();
}

static void
say_latency(const char *when)
{
    char name[64];
    const struct bench_hist *h = &bench_pairs_result()->received;
    (void)snprintf(name, sizeof name, "sent_to_received.%s", when);
    bench_measure_say_hist(name, h);
}

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    BENCH_SEED_ITEM,
    {"sessions", CQ_CONFIG_UINT, offsetof(struct options, sessions), "200", 2, 100000, "",
     "sessions of the edge that is killed; each talks with one of another edge"},
    {"rate", CQ_CONFIG_UINT, offsetof(struct options, rate), "500", 1, 1000000, "per s",
     "messages in total"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "5", 1, 3600, "s",
     "of talk before and after"},
    {"restart", CQ_CONFIG_STR, offsetof(struct options, restart), "", 0, 4096, "",
     "a command that restarts the edges; nothing is killed"},
    {"through", CQ_CONFIG_UINT, offsetof(struct options, system.through), "0", 0, 65535, "",
     "port of a load balancer in front of the edges, which chooses for all; 0: none"},
    {"hang", CQ_CONFIG_BOOL, offsetof(struct options, hang), "false", 0, 0, "",
     "the edge is stopped and not killed; back is counted from the end of the heartbeat's limit"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

int
bench_failover_run(int argc, char **argv)
{
    static struct bench_procs procs;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench failover", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_find(&procs, o.system.data);
    bench_measure_begin(
        "failover", "%" PRIu64 " sessions, %" PRIu64 " messages/s%s%s%s", o.sessions, o.rate,
        o.restart[0] ? ", rolling restart"
        : o.hang     ? ", the edge hangs"
                     : "",
        o.system.tls_ca[0] ? ", TLS" : "", o.system.through ? ", HAProxy in front" : "");
    uint16_t first = bench_system_use(&o.system, &procs);
    size_t last = o.system.through ? 0 : bench_measure_edges(&procs) - 1;
    struct bench_pairs_cfg talk = {.seed = o.seed,
                                   .pairs = o.sessions,
                                   .bytes = 200,
                                   .rate = o.rate,
                                   .port_x = first,
                                   .port_y = (uint16_t)(first + last),
                                   .is_returning = true,
                                   .is_mixed = true};
    if (o.hang) {
        bench_client_watch();
    }
    bench_pairs_begin(&talk);
    bench_pairs_send(true);
    run_s(WARM_UP_S);
    bench_pairs_measure(true);
    run_s(o.seconds);
    say_latency("quiet");
    uint64_t notes = bench_pairs_result()->offline_notes;
    bench_pairs_measure(true);
    double seconds = break_it(&procs, &o);
    run_s(o.seconds);
    const struct bench_pairs_result *t = bench_pairs_result();
    say_latency("failover");
    bench_pairs_drain(); /* fails if anything is lost, doubled or out of order */
    if (o.hang) {
        bench_measure_signal_last_edges(&procs, 1, SIGKILL);
        bench_measure_say("heartbeat_limit", (double)bench_client_limit_ms(), "ms");
    }
    bench_measure_say_hist(o.hang ? "usable_again_after_limit" : "usable_again", &t->back);
    bench_measure_say("all_back", seconds, "s");
    bench_measure_say("connections_lost", (double)t->lost, "1");
    bench_measure_say("sends_repeated", (double)t->resent, "1");
    bench_measure_say("messages_lost_or_doubled", 0, "1");
    bench_measure_say("friends_said_to_be_gone", (double)(t->offline_notes - notes), "1");
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
