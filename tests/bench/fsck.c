/* SPDX-License-Identifier: MPL-2.0
 * fsck on a whole database (accounts, friends, wrapped keys, messages, receipts): how long, how
 * much memory, and what it costs appends that go on beside it, in process.
 *
 * Users sit in a circle, each is friends with the next ten; so there are ten chats a user.
 */
#include "store/fsck.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "tests/bench/measure.h"
#include "tests/lib/store_world.h"

enum {
    FRIENDS = 10,
    CIPHER_OVERHEAD = 24,
    BATCH_MAX = 15000,
    SAMPLE_US = 50000,
    ROUNDS = 3, /* of appending without and with fsck */
    KIB = 1024,
};

struct options {
    char *data;
    uint64_t messages, chats, batch, bytes, receipts, seconds;
};

static const struct cq_config_item items[] = {
    {"data", CQ_CONFIG_STR, offsetof(struct options, data), NULL, 1, 4000, "", "an empty folder"},
    {"messages", CQ_CONFIG_UINT, offsetof(struct options, messages), "500000", 1, 1000000000, "",
     "messages in the database"},
    {"chats", CQ_CONFIG_UINT, offsetof(struct options, chats), "50000", 200, 100000000, "",
     "chats they are spread over"},
    {"batch", CQ_CONFIG_UINT, offsetof(struct options, batch), "1024", 1, BATCH_MAX, "",
     "records per commit"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 1, CQ_TEXT_MAX, "bytes",
     "length of a text"},
    {"receipts", CQ_CONFIG_UINT, offsetof(struct options, receipts), "25", 0, 100, "%",
     "messages that are read at once"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "4", 1, 600, "s",
     "of appending without fsck, and as many with it, three times"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static struct options options;
static struct store_world world;
static uint64_t user_count;
static uint8_t random_text[CQ_CIPHERTEXT_MAX];

/* ---- the committer: one batch at a time ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct store_batch *job;
static bool job_done;

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
        store_core_run_commit(&world.core, b);
        (void)pthread_mutex_lock(&mutex);
        job_done = true;
        (void)pthread_cond_broadcast(&changed);
        (void)pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static pthread_t
start_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, fn, arg)) {
        bench_measure_fail("cannot start a thread");
    }
    return t;
}

static void
wait_committed(void)
{
    struct store_batch *b = world.core.committing;
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
    store_world_commit_end(&world, b);
}

static void
commit(void)
{
    wait_committed();
    struct store_batch *b = store_world_commit_begin(&world);
    if (!b) {
        return;
    }
    (void)pthread_mutex_lock(&mutex);
    job = b;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

static void
commit_if_full(void)
{
    if (world.core.building->record_count >= options.batch ||
        world.core.building->row_count >= BATCH_MAX) {
        commit();
    }
}

/* ---- the database ---- */

static uint64_t
random_number(uint64_t below)
{
    static uint64_t seed = 88172645463325252U;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below ? seed % below : 0;
}

static void
make_people(void)
{
    for (uint64_t i = 0; i < user_count; i++) {
        store_world_add_user(&world, i);
        commit_if_full();
    }
    for (uint64_t i = 0; i < user_count * FRIENDS; i++) {
        uint64_t user = i / FRIENDS;
        store_world_befriend(&world, user, (user + 1 + i % FRIENDS) % user_count);
        commit_if_full();
    }
}

static void
append_one(void)
{
    uint64_t user = random_number(user_count);
    uint64_t peer = (user + 1 + random_number(FRIENDS)) % user_count;
    if (random_number(2)) {
        uint64_t swap = user;
        user = peer;
        peer = swap;
    }
    store_world_say(&world, user, peer,
                    (struct cq_view){random_text, options.bytes + CIPHER_OVERHEAD});
    if (random_number(100) < options.receipts) {
        store_world_read(&world, peer, user, 0);
    }
    commit_if_full();
}

static void
open_world(void)
{
    char dir[4096];
    char key[4096];
    (void)snprintf(dir, sizeof dir, "%.4000s/store", options.data);
    (void)snprintf(key, sizeof key, "%.4000s/keys/master.key", options.data);
    store_world_open(&world, dir, key);
    world.interval_records = 500000;
}

static void
fill_database(void)
{
    open_world();
    (void)start_thread(run_committer, NULL);
    make_people();
    for (uint64_t i = 0; i < options.messages; i++) {
        append_one();
    }
    commit();
    wait_committed();
    store_world_flush(&world);
    store_world_close(&world);
}

/* In a process of its own: its memory is not fsck's. */
static void
make_database(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        fill_database();
        exit(0); /* NOLINT(concurrency-mt-unsafe): the committer waits */
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        bench_measure_fail("cannot make the database");
    }
}

/* ---- fsck on a thread of its own ---- */

static atomic_bool stop;
static atomic_uint_fast64_t peak_bytes;
static uint64_t runs, fsck_cpu_ns, fsck_records;

static bool
is_cancelled(void *ctx)
{
    (void)ctx;
    return atomic_load(&stop);
}

static uint64_t
thread_cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* Once, or until stop. */
static void *
run_fsck(void *again)
{
    const struct store_fsck_cfg cfg = {.engine = world.core.engine,
                                       .vault = world.core.vault,
                                       .is_cancelled = is_cancelled,
                                       .is_gentle = true};
    struct store_fsck_report report;
    uint64_t start = thread_cpu_ns();
    fsck_records = 0;
    do {
        int rc = store_fsck_run(&cfg, &report);
        if (report.found || (rc && !atomic_load(&stop))) {
            store_fsck_print(stderr, &report);
            bench_measure_fail("fsck: %s, %" PRIu64 " findings", cq_err_name(rc), report.found);
        }
        runs++;
        fsck_records += report.records;
        if (!again) {
            bench_measure_say("records", (double)report.records, "1");
            bench_measure_say("passes", report.passes, "1");
        }
        store_fsck_report_free(&report);
    } while (again && !atomic_load(&stop));
    fsck_cpu_ns = thread_cpu_ns() - start;
    return NULL;
}

static uint64_t
anonymous_bytes(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kib = strtoull(line + 8, NULL, 10);
        }
    }
    if (f) {
        (void)fclose(f);
    }
    return kib * KIB;
}

static void *
run_sampler(void *ctx)
{
    (void)ctx;
    while (!atomic_load(&stop)) {
        uint64_t now = anonymous_bytes();
        if (now > atomic_load(&peak_bytes)) {
            atomic_store(&peak_bytes, now);
        }
        (void)usleep(SAMPLE_US);
    }
    return NULL;
}

static void
measure_alone(void)
{
    atomic_store(&stop, false);
    uint64_t before = anonymous_bytes();
    pthread_t sampler = start_thread(run_sampler, NULL);
    uint64_t start = bench_measure_now_ns();
    pthread_t fsck = start_thread(run_fsck, NULL);
    (void)pthread_join(fsck, NULL);
    double seconds = (double)(bench_measure_now_ns() - start) / 1e9;
    atomic_store(&stop, true);
    (void)pthread_join(sampler, NULL);
    bench_measure_say("took", seconds, "s");
    bench_measure_say("cpu", (double)fsck_cpu_ns / 1e9, "s");
    bench_measure_say("anonymous_before", (double)before / 1e6, "MB");
    bench_measure_say("anonymous_peak", (double)atomic_load(&peak_bytes) / 1e6, "MB");
}

/* ---- appends beside it ---- */

/* Records per second. */
static double
append_for_a_while(void)
{
    uint64_t first = world.core.last_pos;
    uint64_t start = bench_measure_now_ns();
    uint64_t end = start + options.seconds * 1000000000U;
    while (bench_measure_now_ns() < end) {
        for (unsigned i = 0; i < 64; i++) {
            append_one();
        }
    }
    commit();
    wait_committed();
    return (double)(world.core.last_pos - first) * 1e9 / (double)(bench_measure_now_ns() - start);
}

static void
measure_appends(void)
{
    double without = 0;
    double with = 0;
    double cpu = 0;
    static char again;
    (void)append_for_a_while(); /* until rounds of rows go on all the time */
    runs = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double alone = append_for_a_while();
        without += alone / ROUNDS;
        atomic_store(&stop, false);
        pthread_t fsck = start_thread(run_fsck, &again);
        double beside = append_for_a_while();
        with += beside / ROUNDS;
        (void)fprintf(stderr, "  %.0f alone, %.0f beside it\n", alone, beside);
        atomic_store(&stop, true);
        (void)pthread_join(fsck, NULL);
        cpu += (double)fsck_cpu_ns / 1e9;
    }
    bench_measure_say("appended_alone", without, "1/s");
    bench_measure_say("appended_beside_fsck", with, "1/s");
    bench_measure_say("appended_ratio", with / without, "1");
    bench_measure_say("fsck_cpu_share", cpu / (double)(options.seconds * ROUNDS), "1");
    bench_measure_say("fsck_runs", (double)runs, "1");
}

int
main(int argc, char **argv)
{
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-fsck", argc, argv, &options);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    cq_log_init("bench", CQ_LOG_WARN);
    user_count = options.chats / FRIENDS;
    bench_measure_begin("fsck",
                        "%" PRIu64 " messages of %" PRIu64 " bytes, %" PRIu64 " chats, %" PRIu64
                        " %% read at once, %" PRIu64 " records per commit",
                        options.messages, options.bytes, user_count * FRIENDS, options.receipts,
                        options.batch);
    cq_random(random_text, sizeof random_text);
    (void)mkdir(options.data, 0700);
    make_database();
    open_world();
    (void)start_thread(run_committer, NULL);
    measure_alone();
    measure_appends();
    store_world_close(&world);
    cq_config_free(items, ITEM_COUNT, &options);
    return 0;
}
