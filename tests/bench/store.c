/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-store: how fast the store appends, without a bus. At the end everything is dropped
 * as in a crash, and the replay is timed.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "tests/bench/inproc.h"
#include "tests/bench/people.h"

enum {
    BATCH_MAX = 16000,
    SETUP_BATCH = 4096,
    WARM_UP_BATCH = 1024,
    DISK_PROBES = 500,
    LOG_ONLY_CYCLE = 640,
    PATH_ROOM = 4200,
};

struct options {
    char *data;
    uint64_t messages, windows, warm_up, chats, batch, bytes, cache, checkpoint_records, log_only;
    uint64_t hold_mib;
    char *probe; /* the benchmark's name whose condition this is */
    bool zipf;
};

#define OPTION(key, type, field) key, CQ_CONFIG_##type, offsetof(struct options, field)

static const struct cq_config_item items[] = {
    {OPTION("data", STR, data), NULL, 1, 4096, "", "an empty folder for the database"},
    {OPTION("messages", UINT, messages), "1000000", 1, 1000000000, "", "messages"},
    {OPTION("windows", UINT, windows), "1", 1, 10000, "",
     "so many times these messages, one after the other, each with figures of its own"},
    {OPTION("warm-up", UINT, warm_up), "0", 0, 1000000000, "", "messages before, not counted"},
    {OPTION("chats", UINT, chats), "100000", 1, 100000000, "", "chats they are spread over"},
    {OPTION("batch", UINT, batch), "1024", 1, BATCH_MAX, "", "messages per commit"},
    {OPTION("bytes", UINT, bytes), "200", 1, CQ_TEXT_MAX, "bytes", "length of a text"},
    {OPTION("chat-cache", UINT, cache), "1000000", 1, 100000000, "", "unchanged chats in memory"},
    {OPTION("checkpoint-records", UINT, checkpoint_records), "350000", 1, 10000000, "",
     "a round of write-behind begins so far behind the head"},
    {OPTION("log-only", UINT, log_only), "0", 0, LOG_ONLY_CYCLE, "",
     "of 640 commits in a row, so many carry no write-behind, to compare with the others"},
    {OPTION("hold-mib", UINT, hold_mib), "0", 0, 1000000, "MiB",
     "memory that is taken first and kept: what the machine has used lately, and has at hand"},
    {OPTION("zipf", BOOL, zipf), "false", 0, 0, "",
     "a few chats get most messages (Zipf, s = 1); else all get the same"},
    {OPTION("probe", STR, probe), "", 0, 32, "",
     "say only what commits cost, as a condition of this other benchmark"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static struct options options;
static struct store_core *core;
static struct bench_inproc_commits commits;
static const struct cq_id user = {{1}}, peer = {{2}}, device = {{3}};

/* ---- the work ---- */

/* Where a hypervisor takes back what is not used, the first touch of memory can cost a hundred
 * times the next one. What is still at hand makes the first windows cheap, not the last ones; this
 * way all of them pay alike. Shared, so it is no memory of ours in the figures. */
static void
hold_memory(void)
{
    size_t bytes = (size_t)options.hold_mib << 20;
    if (bytes && mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) == MAP_FAILED) {
        bench_measure_fail("there are no %" PRIu64 " MiB to hold", options.hold_mib);
    }
}

static struct cq_id
chat_number(uint64_t n)
{
    struct cq_id id = {{0}};
    uint64_t mixed = (n + 1) * 0x9e3779b97f4a7c15U;
    mixed ^= mixed >> 29;
    memcpy(id.b, &mixed, sizeof mixed);
    memcpy(id.b + sizeof mixed, &n, sizeof n);
    id.b[15] = 1;
    return id;
}

static uint64_t
pick_chat(void)
{
    if (!options.zipf) {
        return bench_people_random(options.chats);
    }
    double u = (double)bench_people_random(UINT64_C(1) << 53) / 9007199254740992.0;
    uint64_t rank = (uint64_t)pow((double)options.chats, u); /* density 1 / rank */
    return rank <= options.chats ? rank - 1 : options.chats - 1;
}

static void
begin_chats(void)
{
    for (uint64_t i = 0; i < options.chats; i++) {
        struct store_chat *c = NULL;
        struct cq_rec_friend f = {.user = user,
                                  .peer = peer,
                                  .action = CQ_OP_ADD,
                                  .user_relation = CQ_RELATION_FRIENDS,
                                  .peer_relation = CQ_RELATION_FRIENDS,
                                  .chat = chat_number(i),
                                  .key_version = 1,
                                  .user_name = {(const uint8_t *)"ann", 3},
                                  .peer_name = {(const uint8_t *)"bob", 3}};
        uint64_t pos = 0;
        bench_inproc_check(store_projection_begin(core->projection, &f.chat, &c), "a new chat");
        bench_inproc_check(store_core_append(core, c, CQ_REC_FRIEND, &f, &pos), "a friend record");
        if (core->building->record_count >= SETUP_BATCH) {
            bench_inproc_commit();
        }
    }
    bench_inproc_settle();
}

static bool
is_log_only(uint64_t commit)
{
    return commit % LOG_ONLY_CYCLE < options.log_only;
}

static void
append(uint64_t messages, uint64_t batch)
{
    for (uint64_t i = 1; i <= messages; i++) {
        const struct bench_message m = {chat_number(pick_chat()), user, device, options.bytes};
        bench_inproc_message(&m);
        if (i % batch == 0 || i == messages) {
            is_log_only(i / batch) ? bench_inproc_commit_log_only() : bench_inproc_commit();
        }
    }
    bench_inproc_wait();
}

/* ---- figures ---- */

static double
bytes_on_disk(void)
{
    char path[PATH_ROOM];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/data.mdb", options.data);
    return stat(path, &st) ? 0 : (double)st.st_size;
}

static void
say_recovery(void)
{
    bench_inproc_close();
    const struct bench_inproc_cfg cfg = {options.data, options.cache, options.checkpoint_records};
    uint64_t cpu = bench_measure_own_cpu_ns();
    uint64_t start = bench_measure_now_ns();
    core = bench_inproc_open(&cfg);
    uint64_t records = core->last_pos - core->marker;
    bench_measure_say("replay", (double)(bench_measure_now_ns() - start) / 1e9, "s");
    bench_measure_say("replay_cpu", (double)(bench_measure_own_cpu_ns() - cpu) / 1e9, "s");
    bench_measure_say("replay_records", (double)records, "1");
    bench_inproc_close();
}

static void
say_conditions(uint64_t before)
{
    char behind[64] = "";
    char held[64] = "";
    if (before) {
        (void)snprintf(behind, sizeof behind, " behind %" PRIu64, before);
    }
    if (options.hold_mib) {
        (void)snprintf(held, sizeof held, ", %" PRIu64 " MiB held", options.hold_mib);
    }
    bench_measure_begin(options.probe[0] ? options.probe : "store",
                        "%" PRIu64 " messages of %" PRIu64 " bytes%s, %" PRIu64 " chats%s, %" PRIu64
                        " per commit%s",
                        options.messages, options.bytes, behind, options.chats,
                        options.zipf ? " (zipf)" : "", options.batch, held);
}

/* A p99.9 rests on a thousandth of the commits of its side: the counts say how far to trust it. */
static void
say_comparison(void)
{
    static const struct {
        const char *metric;
        double part;
    } ratios[] = {{"commit_p99_to_log_only", 0.99}, {"commit_p99.9_to_log_only", 0.999}};
    bench_measure_say_hist("commit_log_only", &commits.plain);
    bench_measure_say("commits", (double)commits.with_slice.count, "1");
    bench_measure_say("commits_log_only", (double)commits.plain.count, "1");
    for (size_t i = 0; i < sizeof ratios / sizeof ratios[0] && commits.plain.count; i++) {
        bench_measure_say(ratios[i].metric,
                          (double)bench_measure_quantile(&commits.with_slice, ratios[i].part) /
                              (double)bench_measure_quantile(&commits.plain, ratios[i].part),
                          "1");
    }
}

static void
measure(void)
{
    commits = (struct bench_inproc_commits){.plain = {0}};
    double disk = bytes_on_disk();
    uint64_t cpu = bench_measure_own_cpu_ns();
    uint64_t written = bench_measure_own_written();
    uint64_t accounted = bench_measure_own_accounted();
    uint64_t start = bench_measure_now_ns();
    bench_inproc_count(&commits);
    append(options.messages, options.batch);
    bench_inproc_count(NULL);
    double n = (double)options.messages;
    double seconds = (double)(bench_measure_now_ns() - start) / 1e9;
    if (options.probe[0]) {
        bench_measure_say_hist("disk_commit", &commits.plain);
        return;
    }
    bench_measure_say("appended", n / seconds, "1/s");
    bench_measure_say("cpu_per_message", (double)(bench_measure_own_cpu_ns() - cpu) / 1e3 / n,
                      "us");
    bench_measure_say("written_per_message", (double)(bench_measure_own_written() - written) / n,
                      "bytes");
    bench_measure_say("accounted_per_message",
                      (double)(bench_measure_own_accounted() - accounted) / n, "bytes");
    bench_measure_say("disk_per_message", (bytes_on_disk() - disk) / n, "bytes");
    bench_measure_say_hist("commit", &commits.with_slice);
    if (options.log_only) {
        say_comparison();
    }
    bench_measure_say("dirty_chats", (double)store_projection_dirty_count(core->projection), "1");
    bench_measure_say("chats_in_memory", (double)store_projection_count(core->projection), "1");
    bench_measure_say("memory", bench_measure_own_memory() / 1e6, "MB");
}

int
main(int argc, char **argv)
{
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-store", argc, argv, &options);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    cq_log_init("bench", CQ_LOG_WARN);
    hold_memory();
    const struct bench_inproc_cfg cfg = {options.data, options.cache, options.checkpoint_records};
    core = bench_inproc_open(&cfg);
    begin_chats();
    append(options.warm_up, options.batch > WARM_UP_BATCH ? options.batch : WARM_UP_BATCH);
    for (uint64_t i = 0; i < options.windows; i++) {
        say_conditions(options.warm_up + i * options.messages);
        measure();
    }
    if (!options.probe[0]) {
        say_recovery();
        bench_measure_disk(options.data, DISK_PROBES);
    }
    cq_config_free(items, ITEM_COUNT, &options);
    return 0;
}
