/* SPDX-License-Identifier: MPL-2.0 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>

#include "common/wire/pack.h"

#include "folder.h"
#include "store/engine.h"

static char folder[FOLDER_PATH_SIZE];
static char dir[FOLDER_PATH_SIZE + 8];

static struct cq_view
text(const char *s)
{
    return (struct cq_view){(const uint8_t *)s, strlen(s)};
}

static int
open_engine(store_engine_t **e)
{
    struct store_engine_cfg cfg = {.dir = dir, .map_bytes = STORE_MAP_DEFAULT};
    return store_engine_open(&cfg, e);
}

static int
append(store_engine_t *e, uint64_t first_pos, size_t count)
{
    struct cq_view records[64];
    uint64_t bodies[64];
    for (size_t i = 0; i < count; i++) {
        bodies[i] = (first_pos + i) * 7;
        records[i] = (struct cq_view){(const uint8_t *)&bodies[i], sizeof bodies[i]};
    }
    struct store_commit c = {.first_pos = first_pos, .records = records, .record_count = count};
    return store_engine_commit(e, &c);
}

/* value NULL deletes */
static int
put(store_engine_t *e, enum store_table t, const char *key, const char *value)
{
    struct store_row row = {.table = t, .key = text(key)};
    if (value) {
        row.value = text(value);
    }
    struct store_commit c = {.rows = &row, .row_count = 1};
    return store_engine_commit(e, &c);
}

static int
set_up(void **state)
{
    (void)state;
    folder_make(folder);
    (void)snprintf(dir, sizeof dir, "%s/db", folder);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

static mode_t
mode_of(const char *name)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static void
new_folder_is_private(void **state)
{
    (void)state;
    store_engine_t *e;
    mode_t old = umask(0);
    assert_int_equal(open_engine(&e), 0);
    umask(old);
    assert_int_equal(mode_of("."), 0700);
    assert_int_equal(mode_of("lock"), 0600);
    assert_int_equal(mode_of("data.mdb"), 0600);
    assert_int_equal(mode_of("lock.mdb"), 0600);
    assert_true(store_engine_last_pos(e) == 0);
    store_engine_close(&e);
    assert_null(e);
    store_engine_close(&e);
}

static void
fence_rises_with_every_open(void **state)
{
    (void)state;
    store_engine_t *e;
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(open_engine(&e), 0);
        assert_true(store_engine_fence(e) == 2 * i - 1);
        assert_int_equal(store_engine_reopen(e), 0);
        assert_true(store_engine_fence(e) == 2 * i);
        store_engine_close(&e);
    }
}

static void
second_opener_is_locked_out(void **state)
{
    (void)state;
    store_engine_t *e, *other;
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(open_engine(&other), -CQ_E_LOCKED);
    assert_null(other);
    assert_int_equal(append(e, 1, 1), 0); /* the refused one has not touched anything */
    assert_int_equal(store_engine_reopen(e), 0);
    assert_int_equal(open_engine(&other), -CQ_E_LOCKED);
    store_engine_close(&e);
    assert_int_equal(open_engine(&e), 0);
    store_engine_close(&e);
}

static void
unusable_folders_are_io_errors(void **state)
{
    (void)state;
    store_engine_t *e;
    struct store_engine_cfg cfg = {.dir = "/nonexistent/a/b", .map_bytes = STORE_MAP_DEFAULT};
    assert_int_equal(store_engine_open(&cfg, &e), -CQ_E_IO);
    assert_null(e);
    int fd = open(dir, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(open_engine(&e), -CQ_E_IO);
    unlink(dir);
}

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    uint64_t *next = ctx;
    uint64_t body;
    if (pos != *next || record.n != sizeof body) {
        return false;
    }
    memcpy(&body, record.p, sizeof body);
    *next += body == pos * 7;
    return body == pos * 7;
}

static void
log_keeps_everything_in_order(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s;
    struct cq_view v;
    assert_int_equal(open_engine(&e), 0);
    for (uint64_t pos = 1; pos <= 1000; pos += 50) {
        assert_int_equal(append(e, pos, 50), 0);
        assert_true(store_engine_last_pos(e) == pos + 49);
    }
    store_engine_close(&e);
    assert_int_equal(open_engine(&e), 0);
    assert_true(store_engine_last_pos(e) == 1000);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    uint64_t next = 1;
    assert_int_equal(store_snapshot_log(s, 0, on_record, &next), 0);
    assert_true(next == 1001);
    next = 990;
    assert_int_equal(store_snapshot_log(s, 990, on_record, &next), 0);
    assert_true(next == 1001);
    next = 5;
    assert_int_equal(store_snapshot_log(s, 1001, on_record, &next), 0);
    assert_true(next == 5);
    assert_int_equal(store_snapshot_record(s, 1000, &v), 0);
    assert_int_equal(store_snapshot_record(s, 1001, &v), -CQ_E_NOT_FOUND);
    assert_int_equal(store_snapshot_record(s, 0, &v), -CQ_E_NOT_FOUND);
    store_snapshot_close(&s);
    store_engine_close(&e);
}

static void
gaps_and_repeats_are_refused(void **state)
{
    (void)state;
    store_engine_t *e;
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(append(e, 2, 1), -CQ_E_CORRUPT);
    assert_int_equal(append(e, 1, 3), 0);
    assert_int_equal(append(e, 3, 1), -CQ_E_CORRUPT);
    assert_int_equal(append(e, 5, 1), -CQ_E_CORRUPT);
    assert_int_equal(append(e, 4, 1), 0);
    struct store_commit nothing = {0};
    assert_int_equal(store_engine_commit(e, &nothing), 0);
    assert_true(store_engine_last_pos(e) == 4);
    store_engine_close(&e);
}

static void
rows_are_put_replaced_and_deleted(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s, *old;
    struct cq_view v;
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(put(e, STORE_TABLE_CHAT, "k", "one"), 0);
    assert_int_equal(store_snapshot_open(e, &old), 0);
    assert_int_equal(put(e, STORE_TABLE_CHAT, "k", "two"), 0);
    assert_int_equal(put(e, STORE_TABLE_USER, "k", ""), 0);
    assert_int_equal(put(e, STORE_TABLE_CHAT, "absent", NULL), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text("k"), &v), 0);
    assert_true(v.n == 3 && memcmp(v.p, "two", 3) == 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_USER, text("k"), &v), 0);
    assert_true(v.n == 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_READ, text("k"), &v), -CQ_E_NOT_FOUND);
    assert_int_equal(store_snapshot_row(old, STORE_TABLE_CHAT, text("k"), &v), 0);
    assert_true(v.n == 3 && memcmp(v.p, "one", 3) == 0); /* a snapshot stands still */
    assert_int_equal(store_snapshot_row(old, STORE_TABLE_USER, text("k"), &v), -CQ_E_NOT_FOUND);
    store_snapshot_close(&s);
    store_snapshot_close(&old);
    assert_int_equal(put(e, STORE_TABLE_CHAT, "k", NULL), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text("k"), &v), -CQ_E_NOT_FOUND);
    store_snapshot_close(&s);
    store_engine_close(&e);
}

static void
key_length_is_bounded(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s;
    struct cq_view v;
    char key[STORE_KEY_MAX + 2];
    memset(key, 'k', sizeof key);
    key[STORE_KEY_MAX + 1] = '\0';
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(put(e, STORE_TABLE_CHAT, key, "v"), -CQ_E_BAD_ARG);
    assert_int_equal(put(e, STORE_TABLE_CHAT, "", "v"), -CQ_E_BAD_ARG);
    assert_int_equal(put(e, STORE_TABLE_CHAT, key + 1, "v"), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text(key), &v), -CQ_E_BAD_ARG);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text(""), &v), -CQ_E_BAD_ARG);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text(key + 1), &v), 0);
    store_snapshot_close(&s);
    store_engine_close(&e);
}

struct found {
    char keys[64];
    int left;
};

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct found *f = ctx;
    (void)value;
    size_t n = strlen(f->keys);
    memcpy(f->keys + n, key.p, key.n);
    f->keys[n + key.n] = ' ';
    return --f->left > 0;
}

static void
expect_scan(store_snapshot_t *s, const char *prefix, const char *from, int max, const char *want)
{
    struct found f = {.left = max};
    struct cq_view start = from ? text(from) : (struct cq_view){0};
    assert_int_equal(store_snapshot_scan(s, STORE_TABLE_INDEX, text(prefix), start, on_row, &f), 0);
    assert_string_equal(f.keys, want);
}

static void
scans_keep_to_the_prefix(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s;
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    expect_scan(s, "", NULL, 9, "");
    expect_scan(s, "a", NULL, 9, "");
    store_snapshot_close(&s);
    static const char *const keys[] = {"a", "a1", "a2", "a3", "b", "b1"};
    struct store_row rows[6];
    for (int i = 0; i < 6; i++) {
        rows[i] = (struct store_row){STORE_TABLE_INDEX, text(keys[i]), text("v")};
    }
    struct store_commit c = {.rows = rows, .row_count = 6};
    assert_int_equal(store_engine_commit(e, &c), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    expect_scan(s, "", NULL, 9, "a a1 a2 a3 b b1 ");
    expect_scan(s, "a", NULL, 9, "a a1 a2 a3 ");
    expect_scan(s, "a", NULL, 2, "a a1 ");
    expect_scan(s, "a", "a2", 9, "a2 a3 ");
    expect_scan(s, "a", "a25", 9, "a3 ");
    expect_scan(s, "b", "a2", 9, "b b1 ");
    expect_scan(s, "a", "b", 9, "");
    expect_scan(s, "a1", "a", 9, "a1 ");
    expect_scan(s, "c", NULL, 9, "");
    expect_scan(s, "", "a3", 9, "a3 b b1 ");
    store_snapshot_close(&s);
    store_engine_close(&e);
}

static void
records_and_rows_are_one_commit(void **state)
{
    (void)state;
    store_engine_t *e;
    store_snapshot_t *s;
    struct cq_view v;
    static uint8_t big[100000];
    memset(big, 'x', sizeof big);
    struct cq_view record = {big, sizeof big};
    struct store_row rows[] = {
        {STORE_TABLE_META, text("k"), text("v")},
        {STORE_TABLE_CHAT, text("a"), {0}},
        {STORE_TABLE_CHAT, text("b"), record},
        {STORE_TABLE_READ, text("c"), text("d")},
    };
    struct store_commit c = {1, &record, 1, rows, 4};
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(store_engine_commit(e, &c), 0);
    store_engine_close(&e);
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(store_snapshot_record(s, 1, &v), 0);
    assert_true(v.n == sizeof big && memcmp(v.p, big, v.n) == 0);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_CHAT, text("b"), &v), 0);
    assert_true(v.n == sizeof big);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_READ, text("c"), &v), 0);
    store_snapshot_close(&s);
    store_engine_close(&e);
}

/* ---- planted states ---- */

static void
plant(const char *table, const void *key, size_t key_size, const void *value, size_t size)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    char k[16], v[16];
    memcpy(k, key, key_size);
    memcpy(v, value, size);
    MDB_val mk = {key_size, k}, mv = {size, v};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, dir, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, table, 0, &dbi), 0);
    assert_int_equal(size ? mdb_put(txn, dbi, &mk, &mv, 0) : mdb_del(txn, dbi, &mk, NULL), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void
plant_schema(uint64_t version)
{
    cq_buf_t b = {0};
    cq_pack_uint(&b, version);
    plant("meta", STORE_META_SCHEMA, strlen(STORE_META_SCHEMA), b.data, b.size);
    cq_buf_free(&b);
}

static void
make_database(uint64_t records)
{
    store_engine_t *e;
    assert_int_equal(open_engine(&e), 0);
    for (uint64_t pos = 1; pos <= records; pos++) {
        assert_int_equal(append(e, pos, 1), 0);
    }
    store_engine_close(&e);
}

static void
schema_is_told_or_refused(void **state)
{
    (void)state;
    store_engine_t *e;
    make_database(3);
    plant_schema(STORE_SCHEMA_VERSION + 1);
    assert_int_equal(open_engine(&e), -CQ_E_NEWER_SCHEMA);
    assert_int_equal(open_engine(&e), -CQ_E_NEWER_SCHEMA); /* and left as it was */
    plant_schema(STORE_SCHEMA_VERSION);
    assert_int_equal(open_engine(&e), 0);
    assert_true(store_engine_schema(e) == STORE_SCHEMA_VERSION);
    store_engine_close(&e);
    plant_schema(0);
    assert_int_equal(open_engine(&e), 0);
    assert_true(store_engine_last_pos(e) == 3);
    assert_true(store_engine_schema(e) == 0); /* store/migrate.c's to raise */
    store_engine_close(&e);
    plant("meta", STORE_META_SCHEMA, strlen(STORE_META_SCHEMA), "\xa1x", 2);
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
    plant("meta", STORE_META_SCHEMA, strlen(STORE_META_SCHEMA), "", 0);
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
}

static void
missing_record_is_corrupt(void **state)
{
    (void)state;
    store_engine_t *e;
    make_database(3);
    uint64_t pos = 2;
    plant("log", &pos, sizeof pos, "", 0);
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
}

static void
damage_file(off_t cut_to, const char *garbage)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    if (garbage) {
        for (int i = 0; i < 2; i++) { /* both meta pages */
            assert_int_equal(pwrite(fd, garbage, strlen(garbage), i * 4096 + 16), strlen(garbage));
        }
    }
    if (cut_to >= 0) {
        assert_int_equal(ftruncate(fd, cut_to), 0);
    }
    close(fd);
}

static void
damaged_files_are_refused(void **state)
{
    (void)state;
    store_engine_t *e;
    make_database(200);
    struct stat st;
    char path[256];
    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    assert_int_equal(stat(path, &st), 0);
    /* From the end to the meta pages: opened if only free pages were lost, and then whole; else
     * refused and left alone. */
    int refused = 0;
    for (off_t size = st.st_size - 4096; size > 8192; size -= 4096) {
        damage_file(size, NULL);
        int rc = open_engine(&e);
        assert_true(rc == 0 || rc == -CQ_E_CORRUPT);
        if (rc == 0) {
            assert_true(store_engine_last_pos(e) == 200);
            store_engine_close(&e);
            continue;
        }
        refused++;
        struct stat after;
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(after.st_size, size);
    }
    assert_true(refused > 0);
    damage_file(5000, NULL); /* in the second meta page */
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
    damage_file(100, NULL);
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
}

static void
garbage_is_refused(void **state)
{
    (void)state;
    store_engine_t *e;
    make_database(1);
    damage_file(-1, "this is not a database");
    assert_int_equal(open_engine(&e), -CQ_E_CORRUPT);
}

/* ---- snapshots of other threads and reopen ---- */

struct reader {
    store_engine_t *engine;
    pthread_barrier_t barrier;
    atomic_bool stop;
    unsigned rounds;
    bool ok;
};

static void *
read_for_a_while(void *arg)
{
    struct reader *r = arg;
    r->ok = true;
    pthread_barrier_wait(&r->barrier);
    while (!atomic_load(&r->stop)) {
        store_snapshot_t *s;
        uint64_t next = 1;
        if (store_snapshot_open(r->engine, &s) != 0) {
            r->ok = false;
            break;
        }
        r->ok = r->ok && store_snapshot_log(s, 1, on_record, &next) == 0 && next > 1;
        store_snapshot_close(&s);
        r->rounds++;
    }
    return NULL;
}

static void
reopen_waits_for_readers(void **state)
{
    (void)state;
    store_engine_t *e;
    pthread_t threads[3];
    assert_int_equal(open_engine(&e), 0);
    assert_int_equal(append(e, 1, 1), 0);
    struct reader r[3];
    for (int i = 0; i < 3; i++) {
        r[i] = (struct reader){.engine = e};
        pthread_barrier_init(&r[i].barrier, NULL, 2);
        assert_int_equal(pthread_create(&threads[i], NULL, read_for_a_while, &r[i]), 0);
        pthread_barrier_wait(&r[i].barrier);
    }
    for (uint64_t pos = 2; pos < 40; pos++) {
        assert_int_equal(append(e, pos, 1), 0);
        assert_int_equal(store_engine_reopen(e), 0);
    }
    for (int i = 0; i < 3; i++) {
        atomic_store(&r[i].stop, true);
        pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&r[i].barrier);
        assert_true(r[i].ok && r[i].rounds > 0);
    }
    store_engine_close(&e);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(new_folder_is_private),
        TEST(fence_rises_with_every_open),
        TEST(second_opener_is_locked_out),
        TEST(unusable_folders_are_io_errors),
        TEST(log_keeps_everything_in_order),
        TEST(gaps_and_repeats_are_refused),
        TEST(rows_are_put_replaced_and_deleted),
        TEST(key_length_is_bounded),
        TEST(scans_keep_to_the_prefix),
        TEST(records_and_rows_are_one_commit),
        TEST(schema_is_told_or_refused),
        TEST(missing_record_is_corrupt),
        TEST(damaged_files_are_refused),
        TEST(garbage_is_refused),
        TEST(reopen_waits_for_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
