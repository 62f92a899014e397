/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/inproc.h"

#include <pthread.h>

#include "common/rt/check.h"
#include "common/rt/random.h"

#include "store/checkpoint.h"

enum {
    CIPHER_OVERHEAD = 24,
    TEXT_MAX = 16384
};

static struct store_core core;
static struct store_core_cfg core_cfg;
static struct bench_inproc_commits *counting;
static bool building_slice, committing_slice, paused;

/* ---- the committer: one batch at a time ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t committer;
static bool committer_runs;
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

void
bench_inproc_check(int rc, const char *what)
{
    if (rc) {
        bench_measure_fail("%s: %s", what, cq_err_name(rc));
    }
}

void
bench_inproc_count(struct bench_inproc_commits *commits)
{
    counting = commits;
}

void
bench_inproc_wait(void)
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
    bench_inproc_check(b->rc, "commit");
    if (counting) {
        bench_measure_add(committing_slice ? &counting->with_slice : &counting->plain, job_ns);
    }
    store_core_drop_snapshot(&core);
    core.durable_pos = b->first_pos + b->record_count - 1;
    core.marker = b->marker ? b->marker : core.marker;
    store_projection_committed(core.projection, b);
    store_batch_destroy(&core.committing);
}

static void
hand_over(void)
{
    store_core_drop_snapshot(&core);
    if (store_batch_is_empty(core.building)) {
        return;
    }
    store_batch_seal(core.building);
    core.committing = core.building;
    committing_slice = building_slice;
    core.building = store_core_next_batch(&core);
    (void)pthread_mutex_lock(&mutex);
    job = core.committing;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

static void
add_slice(bool settling)
{
    uint64_t lag = core.last_pos - core.marker;
    if (paused && lag > core_cfg.checkpoint_records) {
        lag = core_cfg.checkpoint_records; /* it is not late, it was held up */
    }
    const struct store_checkpoint_now now = {
        .interval_records = core_cfg.checkpoint_records,
        .lag_records = lag,
        .is_due = settling,
        .in_hurry = settling,
    };
    size_t before = core.building->row_count;
    (void)store_checkpoint_add(core.projection, core.building, &now);
    building_slice = core.building->row_count > before;
}

void
bench_inproc_commit(void)
{
    bench_inproc_wait();
    add_slice(false);
    hand_over();
}

void
bench_inproc_commit_log_only(void)
{
    bench_inproc_wait();
    building_slice = false;
    paused = true;
    hand_over();
}

void
bench_inproc_settle(void)
{
    do {
        bench_inproc_wait();
        add_slice(true);
        hand_over();
        bench_inproc_wait();
    } while (core.marker < core.last_pos || store_projection_dirty_count(core.projection));
}

/* ---- life ---- */

struct store_core *
bench_inproc_open(const struct bench_inproc_cfg *cfg)
{
    const struct store_engine_cfg engine = {
        .dir = cfg->data, .map_bytes = UINT64_C(1) << 38, .reserve_bytes = 64 << 20};
    core_cfg = (struct store_core_cfg){.chat_cache = cfg->chat_cache,
                                       .checkpoint_records = cfg->checkpoint_records};
    core = (struct store_core){.cfg = &core_cfg};
    const struct store_projection_cfg projection = {
        store_core_row_on_disk, store_core_record_on_disk, &core, cfg->chat_cache};
    bench_inproc_check(store_engine_open(&engine, &core.engine), "open");
    core.projection = store_projection_new(&projection);
    core.last_pos = core.durable_pos = store_engine_last_pos(core.engine);
    bench_inproc_check(store_replay_run(&core), "replay");
    bench_inproc_check(store_replay_settle(&core, UINT64_MAX), "settle");
    core.building = store_core_next_batch(&core);
    if (!committer_runs && pthread_create(&committer, NULL, run_committer, NULL)) {
        bench_measure_fail("cannot start a thread");
    }
    committer_runs = true;
    return &core;
}

void
bench_inproc_close(void)
{
    bench_inproc_wait();
    store_core_drop_snapshot(&core);
    store_batch_destroy(&core.building);
    store_projection_destroy(&core.projection);
    store_engine_close(&core.engine);
}

/* ---- messages ---- */

void
bench_inproc_message(const struct bench_message *m)
{
    static uint8_t random[TEXT_MAX + CIPHER_OVERHEAD];
    struct store_chat *c = NULL;
    int member = 0;
    uint64_t seq = 0;
    uint64_t pos = 0;
    if (!random[0]) {
        cq_random(random, sizeof random);
        random[0] = 1;
    }
    bench_inproc_check(store_core_chat(&core, &m->chat, &m->user, &c, &member), "a chat");
    const struct store_chat_device *d = store_chat_device(c, &m->device);
    uint64_t last = d ? d->last_dseq : 0;
    if (store_chat_judge(c, &m->device, last + 1, last, &seq) != STORE_CHAT_ACCEPT) {
        bench_measure_fail("a message is not accepted");
    }
    struct cq_rec_message record = {
        .chat = m->chat,
        .seq = c->head + 1,
        .user = m->user,
        .device = m->device,
        .dseq = last + 1,
        .time_unix_ms = cq_now_unix_ms(),
        .key_version = 1,
        .nonce = {random, CQ_NONCE_SIZE},
        .ciphertext = {random, m->text_bytes + CIPHER_OVERHEAD},
    };
    bench_inproc_check(store_core_append(&core, c, CQ_REC_MESSAGE, &record, &pos), "a message");
}
