/* SPDX-License-Identifier: MPL-2.0
 * Copies of a live database: consistent, without what was deleted, ended at will; looking into them
 * and finding damage.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/wire/frame.h"
#include "common/wire/pack.h"

#include "folder.h"
#include "store/copy_check.h"
#include "store/disk.h"
#include "store/key.h"

enum {
    RECORDS = 2000,
    ROWS = 500,
    ROW_BYTES = 3000,
    PAGE_BYTES = 4096
};

static char folder[FOLDER_PATH_SIZE];
static char dir[FOLDER_PATH_SIZE + 8];
static char copy_dir[FOLDER_PATH_SIZE + 8];
static char copy_file[FOLDER_PATH_SIZE + 24];
static store_engine_t *engine;

/* ---- a database ---- */

static struct cq_view
bytes(const void *p, size_t n)
{
    return (struct cq_view){p, n};
}

static int
put(enum store_table t, struct cq_view key, struct cq_view value)
{
    struct store_row row = {t, key, value};
    struct store_commit c = {.rows = &row, .row_count = 1};
    return store_engine_commit(engine, &c);
}

static int
append(uint64_t first, size_t count)
{
    struct cq_rec_commit fields = {0};
    cq_buf_t b = {0};
    cq_rec_write(&b, CQ_REC_COMMIT, &fields);
    struct cq_view *records = calloc(count, sizeof *records);
    for (size_t i = 0; i < count; i++) {
        records[i] = bytes(b.data, b.size);
    }
    struct store_commit c = {.first_pos = first, .records = records, .record_count = count};
    int rc = store_engine_commit(engine, &c);
    free(records);
    cq_buf_free(&b);
    return rc;
}

static int
put_number(const char *name, uint64_t value)
{
    cq_buf_t b = {0};
    cq_pack_uint(&b, value);
    int rc = put(STORE_TABLE_META, bytes(name, strlen(name)), bytes(b.data, b.size));
    cq_buf_free(&b);
    return rc;
}

/* The first `count` rows of CHAT, in one commit; value_size 0 deletes them. */
static int
put_chats(uint32_t count, size_t value_size)
{
    static uint8_t value[ROW_BYTES];
    static uint8_t keys[ROWS][6];
    static struct store_row rows[ROWS];
    memset(value, 0x5a, sizeof value);
    for (uint32_t i = 0; i < count; i++) {
        keys[i][4] = (uint8_t)(i >> 8);
        keys[i][5] = (uint8_t)i;
        rows[i] = (struct store_row){STORE_TABLE_CHAT, bytes(keys[i], sizeof keys[i]),
                                     bytes(value_size ? value : NULL, value_size)};
    }
    struct store_commit c = {.rows = rows, .row_count = count};
    return store_engine_commit(engine, &c);
}

static int
fill(void)
{
    static const uint8_t epoch[CQ_ID_SIZE] = {9};
    int rc = append(1, RECORDS);
    rc = rc ? rc : put_chats(ROWS, ROW_BYTES);
    rc = rc ? rc : put(STORE_TABLE_META, bytes("epoch", 5), bytes(epoch, sizeof epoch));
    rc = rc ? rc : put(STORE_TABLE_META, bytes("vault", 5), bytes(epoch, 3));
    rc = rc ? rc : put_number("routed", RECORDS);
    return rc ? rc : put_number("marker", 17);
}

static int
set_up(void **state)
{
    (void)state;
    folder_make(folder);
    (void)snprintf(dir, sizeof dir, "%s/db", folder);
    (void)snprintf(copy_dir, sizeof copy_dir, "%s/copy", folder);
    (void)snprintf(copy_file, sizeof copy_file, "%s/data.mdb", copy_dir);
    struct store_engine_cfg cfg = {.dir = dir, .map_bytes = STORE_MAP_DEFAULT};
    int rc = store_engine_open(&cfg, &engine);
    rc = rc ? rc : fill();
    return rc ? rc : mkdir(copy_dir, 0700);
}

static int
tear_down(void **state)
{
    (void)state;
    store_engine_close(&engine);
    folder_remove(folder);
    return 0;
}

/* ---- copying ---- */

struct sink {
    store_disk_file_t *file;
    uint64_t bytes;
    uint64_t stop_after;  /* 0: never */
    int (*between)(void); /* once, after the first chunk */
};

static bool
on_bytes(void *ctx, const void *data, size_t n)
{
    struct sink *s = ctx;
    s->bytes += n;
    if (s->between) {
        assert_int_equal(s->between(), 0);
        s->between = NULL;
    }
    return store_disk_write(s->file, data, n) == 0 && (!s->stop_after || s->bytes < s->stop_after);
}

static int
copy(struct sink *s)
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    (void)unlink(copy_file);
    assert_int_equal(store_disk_create(copy_file, 0, &s->file), 0);
    int rc = store_engine_copy(engine, on_bytes, s);
    if (!rc) {
        rc = store_disk_finish(&s->file, hash);
    }
    store_disk_abandon(&s->file);
    return rc;
}

static int
check(struct store_copy_facts *facts, char why[128])
{
    return store_copy_check(copy_dir, NULL, NULL, facts, why, 128);
}

static bool
count_row(void *ctx, struct cq_view key, struct cq_view value)
{
    size_t *count = ctx;
    (void)key;
    (void)value;
    ++*count;
    return true;
}

static void
test_a_copy_is_the_database(void **state)
{
    (void)state;
    struct sink s = {0};
    struct store_copy_facts facts;
    char why[128];
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), 0);
    assert_int_equal(facts.head, RECORDS);
    assert_int_equal(facts.marker, 17);
    assert_int_equal(facts.schema, STORE_SCHEMA_VERSION);
    assert_int_equal(facts.epoch.b[0], 9);
    assert_in_range(facts.rows, ROWS + 4, ROWS + 10);
    store_engine_t *e = NULL;
    store_snapshot_t *snapshot = NULL;
    size_t rows = 0;
    assert_int_equal(store_engine_open_copy(copy_dir, &e), 0);
    assert_int_equal(store_snapshot_open(e, &snapshot), 0);
    assert_int_equal(store_snapshot_scan(snapshot, STORE_TABLE_CHAT, (struct cq_view){0},
                                         (struct cq_view){0}, count_row, &rows),
                     0);
    assert_int_equal(rows, ROWS);
    store_snapshot_close(&snapshot);
    store_engine_close(&e);
    assert_int_equal(access(copy_file, F_OK), 0);
    char lock[FOLDER_PATH_SIZE + 24];
    (void)snprintf(lock, sizeof lock, "%s/lock.mdb", copy_dir);
    assert_int_equal(access(lock, F_OK), -1); /* looking has left nothing */
}

static int
write_more(void)
{
    int rc = append(RECORDS + 1, 100);
    return rc ? rc : put_number("marker", RECORDS + 100);
}

/* Commits go on while it is copied; the copy is what was durable at its begin. */
static void
test_writing_goes_on(void **state)
{
    (void)state;
    struct sink s = {.between = write_more};
    struct store_copy_facts facts;
    char why[128];
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), 0);
    assert_int_equal(facts.head, RECORDS);
    assert_int_equal(facts.marker, 17);
    s = (struct sink){0};
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), 0);
    assert_int_equal(facts.head, RECORDS + 100);
}

static bool
file_has(const char *path, const void *needle, size_t n)
{
    cq_buf_t b = {0};
    assert_int_equal(store_disk_load(path, (size_t)64 << 20, &b), 0);
    bool has = memmem(b.data, b.size, needle, n) != NULL;
    cq_buf_free(&b);
    return has;
}

/* Deleted rows stay in free pages of the database; a copy does not have them. */
static void
test_what_was_deleted_is_not_copied(void **state)
{
    (void)state;
    static const char secret[] = "a wrapped key that was shredded";
    char value[ROW_BYTES];
    char file[FOLDER_PATH_SIZE + 24];
    struct sink s = {0};
    (void)snprintf(file, sizeof file, "%s/data.mdb", dir);
    memset(value, 'x', sizeof value);
    memcpy(value, secret, sizeof secret);
    assert_int_equal(put(STORE_TABLE_USER, bytes("k", 1), bytes(value, sizeof value)), 0);
    assert_int_equal(copy(&s), 0);
    assert_true(file_has(copy_file, secret, sizeof secret));
    assert_int_equal(put(STORE_TABLE_USER, bytes("k", 1), (struct cq_view){0}), 0);
    s = (struct sink){0};
    assert_int_equal(copy(&s), 0);
    assert_true(file_has(file, secret, sizeof secret));
    assert_false(file_has(copy_file, secret, sizeof secret));
}

static void
test_size_is_about_right(void **state)
{
    (void)state;
    struct store_engine_size size;
    struct sink s = {0};
    assert_int_equal(put_chats(ROWS / 2, 0), 0);
    assert_int_equal(store_engine_size(engine, &size), 0);
    assert_int_equal(copy(&s), 0);
    assert_in_range(s.bytes, size.used_bytes * 8 / 10, size.used_bytes * 12 / 10 + 65536);
    assert_true(size.file_bytes > size.used_bytes);
}

static void
test_ends_at_will(void **state)
{
    (void)state;
    struct sink s = {.stop_after = 1};
    assert_int_equal(copy(&s), -CQ_E_UNAVAILABLE);
    assert_int_equal(append(RECORDS + 1, 1), 0);
    s = (struct sink){0};
    assert_int_equal(copy(&s), 0);
}

static void *
reopen(void *arg)
{
    int *rc = arg;
    *rc = store_engine_reopen(engine);
    return NULL;
}

static pthread_t reopener;
static int reopened = -1;

static int
start_reopen(void)
{
    int rc = pthread_create(&reopener, NULL, reopen, &reopened);
    usleep(20000); /* most likely it has begun; else the test tries again */
    return rc;
}

/* The store must not wait for a backup before it can go on after a failed write. */
static void
test_makes_room_for_a_reopen(void **state)
{
    (void)state;
    int rc = 0;
    for (int tries = 0; rc == 0 && tries < 100; tries++) {
        struct sink s = {.between = start_reopen};
        rc = copy(&s);
        (void)pthread_join(reopener, NULL);
        assert_int_equal(reopened, 0);
    }
    assert_int_equal(rc, -CQ_E_UNAVAILABLE);
    assert_int_equal(append(RECORDS + 1, 1), 0);
}

/* ---- damage ---- */

static void
test_cut_off(void **state)
{
    (void)state;
    struct sink s = {0};
    struct store_copy_facts facts;
    char why[128];
    assert_int_equal(copy(&s), 0);
    for (off_t size = (off_t)s.bytes - PAGE_BYTES; size > 0; size -= (off_t)97 * PAGE_BYTES) {
        assert_int_equal(truncate(copy_file, size), 0);
        assert_int_equal(check(&facts, why), -CQ_E_CORRUPT);
    }
    assert_int_equal(truncate(copy_file, 0), 0);
    assert_int_not_equal(check(&facts, why), 0);
}

static void
test_what_is_missing_is_named(void **state)
{
    (void)state;
    struct store_copy_facts facts;
    char why[128];
    struct sink s = {0};
    assert_int_equal(put_number("marker", RECORDS + 1), 0);
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), -CQ_E_CORRUPT);
    assert_non_null(strstr(why, "marker"));
    assert_int_equal(put_number("marker", 0), 0);
    assert_int_equal(put(STORE_TABLE_META, bytes("vault", 5), (struct cq_view){0}), 0);
    s = (struct sink){0};
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), -CQ_E_CORRUPT);
    assert_non_null(strstr(why, "vault"));
    struct cq_view junk = bytes("\xc1", 1);
    struct store_commit c = {.first_pos = RECORDS + 1, .records = &junk, .record_count = 1};
    assert_int_equal(put(STORE_TABLE_META, bytes("vault", 5), bytes("v", 1)), 0);
    assert_int_equal(store_engine_commit(engine, &c), 0);
    s = (struct sink){0};
    assert_int_equal(copy(&s), 0);
    assert_int_equal(check(&facts, why), -CQ_E_CORRUPT);
    assert_non_null(strstr(why, "2001"));
}

static bool
refuse_to_watch(void *ctx)
{
    int *asked = ctx;
    ++*asked;
    return false;
}

static void
test_the_check_can_be_ended(void **state)
{
    (void)state;
    struct sink s = {0};
    struct store_copy_facts facts;
    char why[128];
    int asked = 0;
    assert_int_equal(append(RECORDS + 1, 6000), 0);
    assert_int_equal(copy(&s), 0);
    assert_int_equal(store_copy_check(copy_dir, refuse_to_watch, &asked, &facts, why, sizeof why),
                     -CQ_E_UNAVAILABLE);
    assert_int_equal(asked, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_copy_is_the_database, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writing_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_deleted_is_not_copied, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_size_is_about_right, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ends_at_will, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_makes_room_for_a_reopen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_missing_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_check_can_be_ended, set_up, tear_down),
    };
    (void)signal(SIGPIPE, SIG_IGN); /* as the loop does */
    return cmocka_run_group_tests_name("store.copy", tests, NULL, NULL);
}
