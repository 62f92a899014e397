/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-store: the store without a bus, in one process: engine, projection and batches as
 * the store uses them. One thread builds the next batch while another one commits the one before.
 * At the end everything is dropped as in a crash, and the replay is timed.
 */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "store/checkpoint.h"
#include "store/core.h"
#include "tests/bench/measure.h"

enum {
    BATCH_MAX = 16000,
    CIPHER_OVERHEAD = 24,
    DISK_PROBES = 500,
};

struct options {
    char *data;
    uint64_t messages, chats, batch, bytes, cache, checkpoint_records;
    bool zipf, probe;
};

static const struct cq_config_item items[] = {
    {"data", CQ_CONFIG_STR, offsetof(struct options, data), NULL, 1, 4096, "",
     "an empty folder for the database"},
    {"messages", CQ_CONFIG_UINT, offsetof(struct options, messages), "1000000", 1, 1000000000, "",
     "messages"},
    {"chats", CQ_CONFIG_UINT, offsetof(struct options, chats), "100000", 1, 100000000, "",
     "chats they are spread over"},
    {"batch", CQ_CONFIG_UINT, offsetof(struct options, batch), "1024", 1, BATCH_MAX, "",
     "messages per commit"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 1, CQ_TEXT_MAX, "bytes",
     "length of a text"},
    {"chat-cache", CQ_CONFIG_UINT, offsetof(struct options, cache), "200000", 1, 100000000, "",
     "unchanged chats in memory"},
    {"checkpoint-records", CQ_CONFIG_UINT, offsetof(struct options, checkpoint_records), "500000",
     1, 10000000, "", "a round of write-behind begins so far behind the head"},
    {"zipf", CQ_CONFIG_BOOL, offsetof(struct options, zipf), "false", 0, 0, "",
     "a few chats get most messages (Zipf, s = 1); else all get the same"},
    {"probe", CQ_CONFIG_BOOL, offsetof(struct options, probe), "false", 0, 0, "",
     "say only what commits cost (conditions of other benchmarks)"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static struct options options;
static struct store_core core;
static struct bench_hist plain_commits, slice_commits;
static bool measuring;
static bool building_slices, committing_slices;
static const struct cq_id user = {{1}}, peer = {{2}}, device = {{3}};

/* ---- the committer: one batch at a time ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct store_batch *job;
static bool job_done;
static uint64_t job_ns;

static void *
run_committer(void *ctx)
{
    (void)ctx;
    for (;;) {
        (void)pthread_mutex_lock(&mutex);
        while (!job || job_done) {
            (void)pthread_cond_wait(&changed, &mutex);
        }
        struct store_batch *b = job;
        (void)pthread_mutex_unlock(&mutex);
        uint64_t start = bench_measure_now_ns();
        store_core_run_commit(&core, b);
        uint64_t took = bench_measure_now_ns() - start;
        (void)pthread_mutex_lock(&mutex);
        job_done = true;
        job_ns = took;
        (void)pthread_cond_broadcast(&changed);
        (void)pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void
wait_committed(void)
{
    struct store_batch *b = core.committing;
    if (!b) {
        return;
    }
    (void)pthread_mutex_lock(&mutex);
    while (!job_done) {
        (void)pthread_cond_wait(&changed, &mutex);
    }
    job = NULL;
    job_done = false;
    (void)pthread_mutex_unlock(&mutex);
    if (b->rc) {
        bench_measure_fail("commit: %s", cq_err_name(b->rc));
    }
    if (measuring) {
        bench_measure_add(committing_slices ? &slice_commits : &plain_commits, job_ns);
    }
    store_core_drop_snapshot(&core);
    core.durable_pos = b->first_pos + b->record_count - 1;
    core.marker = b->marker ? b->marker : core.marker;
    store_projection_committed(core.projection, b);
    store_batch_destroy(&core.committing);
}

static void
add_slice(bool force)
{
    const struct store_checkpoint_now now = {
        .interval_records = options.checkpoint_records,
        .lag_records = core.last_pos - core.marker,
        .is_due = force,
        .in_hurry = force,
    };
    size_t before = core.building->row_count;
    (void)store_checkpoint_add(core.projection, core.building, &now);
    building_slices = core.building->row_count > before;
}

static void
commit(bool force)
{
    wait_committed();
    add_slice(force);
    store_core_drop_snapshot(&core);
    if (store_batch_is_empty(core.building)) {
        return;
    }
    store_batch_seal(core.building);
    core.committing = core.building;
    committing_slices = building_slices;
    core.building = store_core_next_batch(&core);
    (void)pthread_mutex_lock(&mutex);
    job = core.committing;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

/* ---- the work ---- */

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
    static uint64_t seed = 88172645463325252U;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    if (!options.zipf) {
        return seed % options.chats;
    }
    double u = (double)(seed >> 11) / 9007199254740992.0;
    uint64_t rank = (uint64_t)pow((double)options.chats, u); /* density 1 / rank */
    return rank <= options.chats ? rank - 1 : options.chats - 1;
}

static void
check(int rc, const char *what)
{
    if (rc) {
        bench_measure_fail("%s: %s", what, cq_err_name(rc));
    }
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
        check(store_projection_begin(core.projection, &f.chat, &c), "a new chat");
        check(store_core_append(&core, c, CQ_REC_FRIEND, &f, &pos), "a friend record");
        if (core.building->record_count >= 4096) {
            commit(false);
        }
    }
    do {
        commit(true);
        wait_committed();
    } while (core.marker < core.last_pos);
}

static void
append_message(const uint8_t *random)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(pick_chat());
    int member = 0;
    uint64_t seq = 0, pos = 0;
    check(store_core_chat(&core, &id, &user, &c, &member), "a chat");
    uint64_t dseq = c->head + 1;
    if (store_chat_judge(c, &device, dseq, c->head, &seq) != STORE_CHAT_ACCEPT) {
        bench_measure_fail("a message is not accepted");
    }
    struct cq_rec_message m = {
        .chat = id,
        .seq = dseq,
        .user = user,
        .device = device,
        .dseq = dseq,
        .time_unix_ms = cq_now_unix_ms(),
        .key_version = 1,
        .nonce = {random, CQ_NONCE_SIZE},
        .ciphertext = {random, options.bytes + CIPHER_OVERHEAD},
    };
    check(store_core_append(&core, c, CQ_REC_MESSAGE, &m, &pos), "a message");
}

static void
append_all(void)
{
    static uint8_t random[CQ_CIPHERTEXT_MAX];
    cq_random(random, sizeof random);
    for (uint64_t i = 1; i <= options.messages; i++) {
        append_message(random);
        if (i % options.batch == 0 || i == options.messages) {
            commit(false);
        }
    }
    wait_committed();
}

/* ---- life ---- */

static const struct store_core_cfg *
core_cfg(void)
{
    static struct store_core_cfg cfg;
    cfg.chat_cache = options.cache;
    cfg.checkpoint_records = options.checkpoint_records;
    return &cfg;
}

static void
open_core(void)
{
    const struct store_engine_cfg engine = {
        .dir = options.data, .map_bytes = UINT64_C(1) << 38, .reserve_bytes = 64 << 20};
    core = (struct store_core){.cfg = core_cfg()};
    const struct store_projection_cfg projection = {store_core_row_on_disk, &core, options.cache};
    check(store_engine_open(&engine, &core.engine), "open");
    core.projection = store_projection_new(&projection);
    core.last_pos = core.durable_pos = store_engine_last_pos(core.engine);
    core.building = store_core_next_batch(&core);
}

static void
close_core(void)
{
    store_core_drop_snapshot(&core);
    store_batch_destroy(&core.building);
    store_projection_destroy(&core.projection);
    store_engine_close(&core.engine);
}

static void
say_recovery(void)
{
    close_core();
    uint64_t start = bench_measure_now_ns();
    open_core();
    check(store_replay_run(&core), "replay");
    uint64_t records = core.last_pos - core.marker;
    bench_measure_say("recovery", (double)(bench_measure_now_ns() - start) / 1e9, "s");
    bench_measure_say("recovery_records", (double)records, "1");
    close_core();
}

static void
measure(void)
{
    uint64_t cpu = bench_measure_own_cpu_ns();
    uint64_t written = bench_measure_own_written();
    uint64_t start = bench_measure_now_ns();
    measuring = true;
    append_all();
    measuring = false;
    double n = (double)options.messages;
    double seconds = (double)(bench_measure_now_ns() - start) / 1e9;
    if (options.probe) {
        bench_measure_say_hist("disk_commit", &plain_commits);
        return;
    }
    bench_measure_say("appended", n / seconds, "1/s");
    bench_measure_say("cpu_per_message", (double)(bench_measure_own_cpu_ns() - cpu) / 1e3 / n,
                      "us");
    bench_measure_say("written_per_message", (double)(bench_measure_own_written() - written) / n,
                      "bytes");
    bench_measure_say_hist("commit", &plain_commits);
    bench_measure_say_hist("commit_with_slice", &slice_commits);
    bench_measure_say(
        "commits_with_slice",
        (double)slice_commits.count / (double)(slice_commits.count + plain_commits.count), "1");
}

int
main(int argc, char **argv)
{
    pthread_t committer;
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-store", argc, argv, &options);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    cq_log_init("bench", CQ_LOG_WARN);
    bench_measure_begin(options.probe ? "chat" : "store",
                        "%" PRIu64 " messages of %" PRIu64 " bytes, %" PRIu64 " chats%s, %" PRIu64
                        " per commit",
                        options.messages, options.bytes, options.chats,
                        options.zipf ? " (zipf)" : "", options.batch);
    open_core();
    if (pthread_create(&committer, NULL, run_committer, NULL)) {
        bench_measure_fail("cannot start a thread");
    }
    begin_chats();
    measure();
    if (!options.probe) {
        say_recovery();
        bench_measure_disk(options.data, DISK_PROBES);
    }
    cq_config_free(items, ITEM_COUNT, &options);
    return 0;
}
