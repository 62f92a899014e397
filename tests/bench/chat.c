/* SPDX-License-Identifier: MPL-2.0
 * chat: pairs who talk (pairs.h), X on the first edge, Y on the second.
 */
#include <inttypes.h>

#include "common/wire/limits.h"

#include "tests/bench/bench.h"
#include "tests/bench/pairs.h"

enum {
    WARM_UP_S = 2,
    DISK_PROBES = 500
};

#define NS_PER_S UINT64_C(1000000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t pairs, window, bytes, seconds, rate;
    bool no_receipts, silent_acks;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    BENCH_SEED_ITEM,
    {"pairs", CQ_CONFIG_UINT, offsetof(struct options, pairs), "100", 1, 100000, "", "pairs"},
    {"window", CQ_CONFIG_UINT, offsetof(struct options, window), "8", 1, CQ_WINDOW, "",
     "sends that X leaves unanswered (closed loop)"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 1, CQ_TEXT_MAX, "bytes",
     "length of a text"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "10", 1, 3600, "s",
     "measured time, behind a warm-up of 2 s"},
    {"rate", CQ_CONFIG_UINT, offsetof(struct options, rate), "0", 0, 1000000, "per s",
     "messages in total (open loop); 0: closed loop"},
    {"no-receipts", CQ_CONFIG_BOOL, offsetof(struct options, no_receipts), "false", 0, 0, "",
     "Y acknowledges nothing"},
    {"silent-acks", CQ_CONFIG_BOOL, offsetof(struct options, silent_acks), "false", 0, 0, "",
     "Y wants no answer to its ACKs"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static void
report(const struct bench_procs *procs, const struct bench_sample *a, const struct bench_sample *b)
{
    double seconds = (double)(b->time_ns - a->time_ns) / 1e9;
    const struct bench_pairs_result *t = bench_pairs_result();
    double delivered = (double)t->delivered;
    if (t->delivered == 0) {
        bench_measure_fail("nothing was delivered");
    }
    bench_measure_say("delivered", delivered / seconds, "1/s");
    bench_measure_say("read_back", (double)t->read_back / seconds, "1/s");
    bench_measure_say("receipts", (double)t->receipts / seconds, "1/s");
    bench_measure_say_hist("sent_to_received", &t->received);
    bench_measure_say_hist("sent_to_answer", &t->answered);
    bench_measure_say_cpu("cpu_per_message", procs, a, b, delivered);
    bench_measure_say("store_written_per_message",
                      (double)(b->store_write_bytes - a->store_write_bytes) / delivered, "bytes");
    bench_measure_say("sync_now", (double)t->syncs, "1");
}

int
bench_chat_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench chat", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_begin(
        "chat", "pairs %" PRIu64 ", %s %" PRIu64 ", %" PRIu64 " bytes, %" PRIu64 " s%s%s", o.pairs,
        o.rate ? "rate" : "window", o.rate ? o.rate : o.window, o.bytes, o.seconds,
        o.no_receipts ? ", no receipts" : "", o.silent_acks ? ", silent acks" : "");
    bench_measure_find(&procs, o.system.data);
    uint16_t first = bench_system_use(&o.system, &procs);
    uint16_t second = bench_measure_edges(&procs) > 1 ? (uint16_t)(first + 1) : first;
    struct bench_pairs_cfg cfg = {.seed = o.seed,
                                  .pairs = o.pairs,
                                  .window = o.window,
                                  .bytes = o.bytes,
                                  .rate = o.rate,
                                  .no_receipts = o.no_receipts,
                                  .silent_acks = o.silent_acks,
                                  .port_x = first,
                                  .port_y = second};
    bench_pairs_begin(&cfg);
    bench_measure_disk(o.system.data, DISK_PROBES);
    bench_pairs_send(true);
    bench_pairs_run(bench_measure_now_ns() + WARM_UP_S * NS_PER_S);
    bench_measure_sample(&procs, &before);
    bench_pairs_measure(true);
    bench_pairs_run(bench_measure_now_ns() + o.seconds * NS_PER_S);
    bench_pairs_measure(false);
    bench_measure_sample(&procs, &after);
    bench_pairs_drain();
    report(&procs, &before, &after);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
