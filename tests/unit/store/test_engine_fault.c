/* SPDX-License-Identifier: MPL-2.0
 * The engine when things break: its process killed at any time, the map full, the disk full, a
 * write that fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>

#include "folder.h"
#include "store/engine.h"

enum {
    KILLS = 20,
    BATCH = 16,
    BODY_SIZE = 300
};

#define MIB (UINT64_C(1) << 20)

static char folder[FOLDER_PATH_SIZE];

/* ---- LMDB's calls, made to fail (--wrap) ---- */

/* The linker chooses these names.
 * NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming) */
int __real_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *data, unsigned flags);
int __wrap_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *data, unsigned flags);
int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
int __real_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);
int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);

/* The call that fails: after `after` more that work. */
static struct {
    int put_after, put_rc;
    int commit_rc; /* fails without having written */
    int late_rc;   /* fails although all is written */
    int open_rc;
    int disk_rc; /* commits fail, but those that write nothing */
} fault;

int
__wrap_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *data, unsigned flags)
{
    if (fault.put_rc && fault.put_after-- == 0) {
        return fault.put_rc;
    }
    return __real_mdb_cursor_put(cursor, key, data, flags);
}

int
__wrap_mdb_txn_commit(MDB_txn *txn)
{
    unsigned flags = 0;
    mdb_env_get_flags(mdb_txn_env(txn), &flags);
    int rc_before = fault.disk_rc && !(flags & MDB_RDONLY) ? fault.disk_rc : fault.commit_rc;
    if (rc_before) {
        mdb_txn_abort(txn);
        return rc_before;
    }
    int rc = __real_mdb_txn_commit(txn);
    return rc ? rc : fault.late_rc;
}

int
__wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode)
{
    /* kill -9 does not show what these lose, a power cut does. */
    assert_int_equal(flags & (MDB_NOSYNC | MDB_NOMETASYNC | MDB_WRITEMAP | MDB_MAPASYNC), 0);
    return fault.open_rc ? fault.open_rc : __real_mdb_env_open(env, path, flags, mode);
}
/* NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming) */

static int
open_engine(uint64_t map_bytes, uint64_t reserve_bytes, store_engine_t **e)
{
    struct store_engine_cfg cfg = {
        .dir = folder, .map_bytes = map_bytes, .reserve_bytes = reserve_bytes};
    return store_engine_open(&cfg, e);
}

/* Record bodies: their position over and over. The row "last" (META) names the last position of the
 * same commit. */
static void
fill(uint8_t body[BODY_SIZE], uint64_t pos)
{
    for (size_t i = 0; i < BODY_SIZE; i++) {
        body[i] = (uint8_t)(pos >> 8 * (i % 8));
    }
}

static int
append(store_engine_t *e, size_t count)
{
    static uint8_t bodies[BATCH][BODY_SIZE];
    struct cq_view records[BATCH];
    uint64_t first = store_engine_last_pos(e) + 1;
    uint64_t last = first + count - 1;
    for (size_t i = 0; i < count; i++) {
        fill(bodies[i], first + i);
        records[i] = (struct cq_view){bodies[i], BODY_SIZE};
    }
    struct store_row row = {
        STORE_TABLE_META, {(const uint8_t *)"last", 4}, {(const uint8_t *)&last, sizeof last}};
    struct store_commit c = {first, records, count, &row, 1};
    return store_engine_commit(e, &c);
}

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    uint64_t *next = ctx;
    uint8_t body[BODY_SIZE];
    fill(body, pos);
    if (pos != *next || record.n != BODY_SIZE || memcmp(record.p, body, BODY_SIZE) != 0) {
        return false;
    }
    ++*next;
    return true;
}

/* Everything up to the last position is there, whole, and the row agrees. */
static void
check_all(store_engine_t *e)
{
    store_snapshot_t *s;
    struct cq_view v;
    uint64_t next = 1, last = 0;
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(store_snapshot_log(s, 1, on_record, &next), 0);
    assert_true(next == store_engine_last_pos(e) + 1);
    if (next > 1) {
        assert_int_equal(store_snapshot_row(s, STORE_TABLE_META,
                                            (struct cq_view){(const uint8_t *)"last", 4}, &v),
                         0);
        memcpy(&last, v.p, sizeof last);
        assert_true(last == next - 1);
    }
    store_snapshot_close(&s);
}

static int
set_up(void **state)
{
    (void)state;
    memset(&fault, 0, sizeof fault);
    folder_make(folder);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

/* ---- kill -9 ---- */

/* In the child: commits for ever and says each durable position. */
static void
commit_for_ever(int out)
{
    store_engine_t *e;
    if (open_engine(STORE_MAP_DEFAULT, 0, &e) != 0) {
        _exit(2);
    }
    for (size_t n = 1;; n = n % BATCH + 1) {
        if (append(e, n) != 0) {
            _exit(3);
        }
        uint64_t pos = store_engine_last_pos(e);
        if (write(out, &pos, sizeof pos) != sizeof pos) {
            _exit(4);
        }
    }
}

static void
sleep_us(long us)
{
    struct timespec ts = {us / 1000000, us % 1000000 * 1000};
    (void)nanosleep(&ts, NULL);
}

/* Reads the positions until the pipe is closed; after the first one the child has a random while to
 * live. */
static uint64_t
kill_some_time_later(pid_t child, int in)
{
    uint64_t pos = 0, acknowledged = 0;
    bool killed = false;
    while (read(in, &pos, sizeof pos) == sizeof pos) {
        acknowledged = pos;
        if (!killed) {
            sleep_us(rand() % 20000); /* NOLINT(concurrency-mt-unsafe): one thread */
            assert_int_equal(kill(child, SIGKILL), 0);
            killed = true;
        }
    }
    return acknowledged;
}

static void
killed_at_any_time_nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    uint64_t before = 0;
    for (int i = 0; i < KILLS; i++) {
        int ends[2];
        int status = 0;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            commit_for_ever(ends[1]);
        }
        close(ends[1]);
        uint64_t acknowledged = kill_some_time_later(child, ends[0]);
        close(ends[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_true(acknowledged > before);
        store_engine_t *e;
        assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
        assert_true(store_engine_last_pos(e) >= acknowledged);
        check_all(e);
        before = store_engine_last_pos(e);
        store_engine_close(&e);
    }
    print_message("%" PRIu64 " records over %d kills\n", before, KILLS);
}

/* ---- full ---- */

static int
append_until_refused(store_engine_t *e, size_t count)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < 100000; i++) {
        rc = append(e, count);
    }
    return rc;
}

static void
map_full_is_refused_and_reads_go_on(void **state)
{
    (void)state;
    store_engine_t *e;
    assert_int_equal(open_engine(2 * MIB, 0, &e), 0);
    assert_int_equal(append_until_refused(e, BATCH), -CQ_E_NO_SPACE);
    assert_int_equal(append_until_refused(e, 1), -CQ_E_NO_SPACE); /* what is left */
    uint64_t last = store_engine_last_pos(e);
    assert_true(last * BODY_SIZE > MIB / 2); /* it has not given up early */
    check_all(e);
    assert_int_equal(append(e, 1), -CQ_E_NO_SPACE);
    assert_true(store_engine_last_pos(e) == last);
    store_engine_close(&e);
    assert_int_equal(open_engine(2 * MIB, 0, &e), 0); /* also at the next start */
    check_all(e);
    store_engine_close(&e);
    assert_int_equal(open_engine(8 * MIB, 0, &e), 0);
    assert_true(store_engine_last_pos(e) == last);
    assert_int_equal(append(e, BATCH), 0);
    check_all(e);
    store_engine_close(&e);
}

/* The estimate may be passed (an own value too large for what is left): LMDB's own refusal is as
 * clean. */
static void
one_huge_record_is_refused_before_it_is_written(void **state)
{
    (void)state;
    store_engine_t *e;
    uint8_t *huge = calloc(1, 4 * MIB);
    struct cq_view record = {huge, 4 * MIB};
    struct store_commit c = {.first_pos = 1, .records = &record, .record_count = 1};
    assert_int_equal(open_engine(2 * MIB, 0, &e), 0);
    assert_int_equal(store_engine_commit(e, &c), -CQ_E_NO_SPACE);
    assert_int_equal(append(e, 1), 0);
    check_all(e);
    store_engine_close(&e);
    free(huge);
}

static void
disk_reserve_is_kept(void **state)
{
    (void)state;
    store_engine_t *e;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, UINT64_C(1) << 60, &e), 0);
    assert_int_equal(append(e, 1), -CQ_E_NO_SPACE);
    assert_true(store_engine_last_pos(e) == 0);
    check_all(e);
    store_engine_close(&e);
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, 1), 0);
    store_engine_close(&e);
}

/* ---- a write that fails inside a commit ---- */

static void
limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void
failed_write_stops_everything_until_reopen(void **state)
{
    (void)state;
    store_engine_t *e;
    struct stat st;
    char path[FOLDER_PATH_SIZE + 16];
    (void)snprintf(path, sizeof path, "%s/data.mdb", folder);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(append(e, BATCH), 0);
    }
    assert_int_equal(stat(path, &st), 0);
    limit_files((rlim_t)st.st_size);
    assert_int_equal(append_until_refused(e, BATCH), -CQ_E_UNKNOWN_OUTCOME);
    uint64_t last = store_engine_last_pos(e);
    limit_files(RLIM_INFINITY);
    /* The disk is fine again, but what happened is not known until it is read. */
    assert_int_equal(append(e, 1), -CQ_E_UNKNOWN_OUTCOME);
    check_all(e); /* reads go on */
    assert_int_equal(store_engine_reopen(e), 0);
    assert_true(store_engine_last_pos(e) >= last);
    check_all(e);
    assert_int_equal(append(e, BATCH), 0);
    check_all(e);
    store_engine_close(&e);
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    check_all(e);
    store_engine_close(&e);
}

static void
map_full_inside_a_commit_has_changed_nothing(void **state)
{
    (void)state;
    store_engine_t *e;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, BATCH), 0);
    for (int at = 0; at <= BATCH; at++) { /* each record, and the row */
        fault.put_rc = MDB_MAP_FULL;
        fault.put_after = at;
        assert_int_equal(append(e, BATCH), -CQ_E_NO_SPACE);
        assert_true(store_engine_last_pos(e) == BATCH);
        fault.put_rc = 0;
        check_all(e);
    }
    assert_int_equal(append(e, BATCH), 0);
    check_all(e);
    store_engine_close(&e);
}

static void
expect_unknown_then_reopen(store_engine_t *e, uint64_t last_after)
{
    assert_int_equal(append(e, BATCH), -CQ_E_UNKNOWN_OUTCOME);
    memset(&fault, 0, sizeof fault);
    assert_int_equal(append(e, 1), -CQ_E_UNKNOWN_OUTCOME);
    assert_int_equal(store_engine_reopen(e), 0);
    assert_true(store_engine_last_pos(e) == last_after);
    check_all(e);
}

static void
unknown_outcomes_are_known_after_reopen(void **state)
{
    (void)state;
    store_engine_t *e;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, BATCH), 0);
    fault.put_rc = EIO;
    fault.put_after = 3;
    expect_unknown_then_reopen(e, BATCH);
    fault.commit_rc = EIO; /* it has not happened */
    expect_unknown_then_reopen(e, BATCH);
    fault.commit_rc = ENOSPC;
    expect_unknown_then_reopen(e, BATCH);
    fault.late_rc = EIO; /* it has */
    expect_unknown_then_reopen(e, BATCH + BATCH);
    assert_int_equal(append(e, BATCH), 0);
    check_all(e);
    store_engine_close(&e);
}

static void
reopen_that_fails_can_be_repeated(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, BATCH), 0);
    for (int i = 0; i < 2; i++) {
        fault.open_rc = i ? EIO : ENOMEM;
        assert_int_equal(store_engine_reopen(e), -CQ_E_IO);
        assert_int_equal(append(e, 1), -CQ_E_UNKNOWN_OUTCOME);
        assert_int_equal(store_snapshot_open(e, &s), -CQ_E_IO);
        assert_null(s);
    }
    fault.open_rc = 0;
    assert_int_equal(store_engine_reopen(e), 0);
    assert_int_equal(append(e, 1), 0);
    check_all(e);
    fault.open_rc = EIO;
    assert_int_equal(store_engine_reopen(e), -CQ_E_IO);
    store_engine_close(&e); /* also without an environment */
}

/* The store can be read while its disk takes no writes, at a start as well, and nothing is lost. */
static void
disk_that_takes_no_writes_can_be_read(void **state)
{
    (void)state;
    static const struct {
        int code;
        int err;
    } kinds[] = {{ENOSPC, CQ_E_NO_SPACE}, {EIO, CQ_E_IO}, {EROFS, CQ_E_IO}};
    store_engine_t *e;
    uint64_t last = BATCH;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, BATCH), 0);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint64_t fence = store_engine_fence(e);
        fault.disk_rc = kinds[i].code;
        assert_int_equal(append(e, BATCH), -CQ_E_UNKNOWN_OUTCOME);
        assert_int_equal(store_engine_reopen(e), 0);
        for (int n = 0; n < 3; n++) {
            assert_int_equal(append(e, BATCH), -kinds[i].err);
            assert_true(store_engine_last_pos(e) == last);
            check_all(e);
        }
        store_engine_close(&e);
        assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
        assert_int_equal(append(e, BATCH), -kinds[i].err);
        assert_true(store_engine_fence(e) == fence);
        check_all(e);
        fault.disk_rc = 0;
        assert_int_equal(append(e, BATCH), 0);
        last += BATCH;
        assert_true(store_engine_last_pos(e) == last && store_engine_fence(e) > fence);
        check_all(e);
    }
    store_engine_close(&e);
}

static void
copy_file(const char *from, const char *to)
{
    static uint8_t bytes[8 * MIB];
    FILE *in = fopen(from, "rb");
    assert_non_null(in);
    size_t size = fread(bytes, 1, sizeof bytes, in);
    assert_true(size > 0 && size < sizeof bytes);
    assert_int_equal(fclose(in), 0);
    FILE *out = fopen(to, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
}

/* The kernel had shown pages that the disk never got: when it takes writes again, they are gone. */
static void
what_was_only_in_the_cache_is_not_built_upon(void **state)
{
    (void)state;
    store_engine_t *e;
    char path[FOLDER_PATH_SIZE + 16];
    char kept[FOLDER_PATH_SIZE + 16];
    (void)snprintf(path, sizeof path, "%s/data.mdb", folder);
    (void)snprintf(kept, sizeof kept, "%s/kept", folder);
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, BATCH), 0);
    copy_file(path, kept);
    assert_int_equal(append(e, BATCH), 0);
    fault.disk_rc = EIO;
    assert_int_equal(append(e, BATCH), -CQ_E_UNKNOWN_OUTCOME);
    assert_int_equal(store_engine_reopen(e), 0);
    assert_int_equal(append(e, BATCH), -CQ_E_IO);
    assert_true(store_engine_last_pos(e) == 2 * BATCH);
    copy_file(kept, path);
    fault.disk_rc = 0;
    assert_int_equal(append(e, 1), -CQ_E_UNKNOWN_OUTCOME);
    assert_int_equal(append(e, 1), -CQ_E_UNKNOWN_OUTCOME);
    assert_int_equal(store_engine_reopen(e), 0);
    assert_true(store_engine_last_pos(e) == BATCH);
    check_all(e);
    assert_int_equal(append(e, BATCH), 0);
    check_all(e);
    store_engine_close(&e);
}

static void
new_database_needs_a_disk_that_can_be_written(void **state)
{
    (void)state;
    store_engine_t *e;
    fault.disk_rc = ENOSPC;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), -CQ_E_NO_SPACE);
    fault.disk_rc = 0;
    assert_int_equal(open_engine(STORE_MAP_DEFAULT, 0, &e), 0);
    assert_int_equal(append(e, 1), 0);
    store_engine_close(&e);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(killed_at_any_time_nothing_acknowledged_is_lost),
        TEST(map_full_is_refused_and_reads_go_on),
        TEST(one_huge_record_is_refused_before_it_is_written),
        TEST(disk_reserve_is_kept),
        TEST(failed_write_stops_everything_until_reopen),
        TEST(map_full_inside_a_commit_has_changed_nothing),
        TEST(unknown_outcomes_are_known_after_reopen),
        TEST(reopen_that_fails_can_be_repeated),
        TEST(disk_that_takes_no_writes_can_be_read),
        TEST(what_was_only_in_the_cache_is_not_built_upon),
        TEST(new_database_needs_a_disk_that_can_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
