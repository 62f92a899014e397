/* SPDX-License-Identifier: MPL-2.0
 * fsck: a healthy database has no findings, in whatever state of write-behind; random bytes in rows
 * do no harm.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "fsck_world.h"

/* ---- healthy ---- */

static void
clean_database_has_no_findings(void **state)
{
    (void)state;
    expect_clean();
    assert_int_equal(report.chats, 4);
    assert_int_equal(report.users, 6);
    assert_int_equal(report.messages, FSCK_ROUNDS * 6 + 1 + 4);
    assert_int_equal(report.records, 2 * world.core.last_pos); /* and once for the blobs */
    assert_int_equal(report.last_pos, world.core.last_pos);
    assert_int_equal(report.passes, 1);
}

static void
rows_may_be_behind_the_log(void **state)
{
    (void)state;
    talk(&world, 5);
    expect_clean();
    store_world_befriend(&world, 5, 6);
    store_world_say(&world, 5, 6, text);
    store_world_commit(&world);
    expect_clean();
    /* A round under way: some chats are written, others not. */
    world.slice_max = 1;
    store_world_round(&world);
    for (int i = 0; i < 12; i++) {
        store_world_say(&world, 1, 2, text);
        store_world_commit(&world);
        expect_clean();
    }
}

/* A chat with more INDEX rows than a slice: they go ahead of the chat's row. */
static void
index_rows_may_be_ahead(void **state)
{
    (void)state;
    for (int i = 0; i < 350; i++) {
        store_world_say(&world, 4, 5, text);
        store_world_receive(&world, 5, 4, 0);
    }
    store_world_commit(&world);
    world.slice_max = 4;
    store_world_round(&world);
    for (int i = 0; i < 40; i++) {
        store_world_commit(&world);
        expect_clean();
    }
}

static void
a_restart_changes_nothing(void **state)
{
    (void)state;
    talk(&world, 3);
    store_world_close(&world);
    store_world_open(&world, dir, key_path);
    expect_clean();
    talk(&world, 3);
    store_world_flush(&world);
    expect_clean();
}

/* A Read_Audit row that all devices know goes without a record. */
static void
settled_audits_are_fine(void **state)
{
    (void)state;
    store_world_settle(&world, 1, 2);
    store_world_flush(&world);
    expect_clean();
    store_world_say(&world, 1, 2, text);
    store_world_flush(&world);
    expect_clean();
    store_world_read(&world, 2, 1, 0);
    store_world_flush(&world);
    expect_clean();
}

static void
little_memory_takes_more_passes(void **state)
{
    (void)state;
    for (uint64_t i = 100; i < 160; i++) {
        store_world_add_user(&world, i);
    }
    for (uint64_t i = 101; i < 160; i++) {
        store_world_befriend(&world, i, i - 1);
        store_world_say(&world, i, i - 1, text);
    }
    store_world_commit(&world);
    for (int flushed = 0; flushed < 2; flushed++) {
        assert_int_equal(run_with(4096), 0);
        show();
        assert_int_equal(report.found, 0);
        assert_true(report.passes > 5);
        assert_int_equal(report.chats, 4 + 59);
        assert_int_equal(report.messages, FSCK_ROUNDS * 6 + 1 + 4 + 59);
        store_world_flush(&world);
    }
}

static bool
is_cancelled(void *ctx)
{
    (void)ctx;
    return true;
}

static void
can_be_cancelled(void **state)
{
    (void)state;
    struct store_fsck_cfg cfg = {.engine = world.core.engine, .is_cancelled = is_cancelled};
    int rc = store_fsck_run(&cfg, &report);
    assert_int_equal(rc, -CQ_E_UNAVAILABLE);
    assert_int_equal(store_fsck_exit_code(rc, &report), 2);
}

static unsigned progress_calls;

static void
on_progress(void *ctx, const struct store_fsck_progress *p)
{
    (void)ctx;
    assert_true(p->permille <= 1000);
    progress_calls++;
}

static void
tells_progress(void **state)
{
    (void)state;
    struct store_fsck_cfg cfg = {.engine = world.core.engine, .on_progress = on_progress};
    progress_calls = 0;
    assert_int_equal(store_fsck_run(&cfg, &report), 0);
    assert_true(progress_calls > 0);
}

/* ---- beside a writer ---- */

struct beside {
    atomic_bool stop;
    uint64_t runs, found;
    int rc;
};

static void *
run_beside(void *ctx)
{
    struct beside *b = ctx;
    const struct store_fsck_cfg cfg = {.engine = world.core.engine,
                                       .vault = world.core.vault,
                                       .snapshot_ms_max = 1,
                                       .state_bytes_max = 8192};
    do {
        struct store_fsck_report r;
        int rc = store_fsck_run(&cfg, &r);
        b->rc = b->rc ? b->rc : rc;
        b->found += r.found;
        b->runs++;
        if (r.found) {
            store_fsck_print(stderr, &r);
        }
        store_fsck_report_free(&r);
    } while (!atomic_load(&b->stop));
    return NULL;
}

static void
a_writer_beside_it_is_no_finding(void **state)
{
    static struct beside b;
    pthread_t thread;
    (void)state;
    world.slice_max = 2;
    assert_int_equal(pthread_create(&thread, NULL, run_beside, &b), 0);
    for (uint64_t i = 200; i < 260; i++) {
        store_world_add_user(&world, i);
        store_world_commit(&world);
        store_world_befriend(&world, i, 1 + i % 6);
        store_world_hide(&world, i, i % 2);
        store_world_say(&world, i, 1 + i % 6, text);
        store_world_read(&world, 1 + i % 6, i, 0);
        store_world_add_blob(&world, i, i, 10);
        store_world_add_blob(&world, 1, 1000 + i, 10);
        store_world_show(&world, i, 1 + i % 6, text, i);
        talk(&world, 3);
        store_world_show(&world, i, 1 + i % 6, text, i);
        store_world_show(&world, 1, 2, text, 1);
        if (!store_projection_in_round(world.core.projection)) {
            store_world_round(&world);
        }
    }
    atomic_store(&b.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(b.rc, 0);
    assert_int_equal(b.found, 0);
    assert_true(b.runs > 0);
}

/* The clock that fsck sees: where it hurries, every look at it finds a snapshot too old. */
static atomic_bool clock_hurries;
static atomic_uint_fast64_t skipped_ms;

uint64_t __real_cq_now_mono_ms(void);
uint64_t __wrap_cq_now_mono_ms(void);

uint64_t
__wrap_cq_now_mono_ms(void)
{
    if (atomic_load(&clock_hurries)) {
        atomic_fetch_add(&skipped_ms, 1);
    }
    return __real_cq_now_mono_ms() + atomic_load(&skipped_ms);
}

enum {
    FIRST_LATE_USER = 300,
    LATE_USERS = 40
};
static uint64_t late_user;

/* Called before each snapshot. */
static bool
a_chat_begins(void *ctx)
{
    (void)ctx;
    if (late_user < FIRST_LATE_USER + LATE_USERS) {
        uint64_t friend = 1 + late_user % 6;
        store_world_add_user(&world, late_user);
        store_world_befriend(&world, late_user, friend);
        for (unsigned i = 0; i < STORE_CHAT_BLOCK; i++) {
            store_world_say(&world, late_user, friend, text);
        }
        store_world_receive(&world, friend, late_user, 0);
        store_world_read(&world, friend, late_user, 0);
        if (late_user % 3) {
            store_world_flush(&world);
        } else {
            store_world_round(&world);
            store_world_commit(&world);
        }
        late_user++;
    }
    return false;
}

/* A chat that begins behind the snapshot that CHAT rows were read in, and is seen by its INDEX and
 * RECEIPT rows in a later one. */
static void
a_chat_that_begins_meanwhile_is_no_finding(void **state)
{
    (void)state;
    const struct store_fsck_cfg cfg = {.engine = world.core.engine,
                                       .vault = world.core.vault,
                                       .is_cancelled = a_chat_begins,
                                       .snapshot_ms_max = 1};
    late_user = FIRST_LATE_USER;
    world.slice_max = 1;
    atomic_store(&clock_hurries, true);
    int rc = store_fsck_run(&cfg, &report);
    atomic_store(&clock_hurries, false);
    show();
    assert_int_equal(rc, 0);
    assert_int_equal(report.found, 0);
    assert_true(late_user > FIRST_LATE_USER + 4);
}

/* ---- random bytes ---- */

static uint64_t seed = 1;

static uint64_t
random_number(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

struct picked {
    uint64_t countdown;
    struct store_key key;
    uint8_t value[4096];
    size_t size;
};

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct picked *p = ctx;
    if (p->countdown-- || value.n > sizeof p->value) {
        return true;
    }
    p->key.n = 0;
    store_key_add(&p->key, key.p, key.n);
    memcpy(p->value, value.p, value.n);
    p->size = value.n;
    return false;
}

static void
write_row(enum store_table t, const struct picked *p)
{
    struct store_row row = {t, store_key_view(&p->key), {p->value, p->size}};
    struct store_commit c = {.rows = &row, .row_count = 1};
    assert_int_equal(store_engine_commit(world.core.engine, &c), 0);
}

static bool
pick(enum store_table t, struct picked *p)
{
    store_snapshot_t *s = NULL;
    *p = (struct picked){.countdown = random_number(8)};
    assert_int_equal(store_snapshot_open(world.core.engine, &s), 0);
    assert_int_equal(store_snapshot_scan(s, t, (struct cq_view){0}, (struct cq_view){0}, on_row, p),
                     0);
    store_snapshot_close(&s);
    return p->size > 0;
}

/* Bytes of these tables that only their owners understand: password hashes, public keys, labels,
 * times, the hash of a blob's file (fsck_files.h). A change of them is another row, not a damaged
 * one. */
static bool
may_be_unnoticed(enum store_table t)
{
    return t == STORE_TABLE_META || t == STORE_TABLE_ACCOUNT || t == STORE_TABLE_DEVICE ||
           t == STORE_TABLE_BLOB;
}

static void
random_bytes_in_rows_are_found_or_mean_the_same(void **state)
{
    unsigned found = 0;
    (void)state;
    for (unsigned i = 0; i < 1500; i++) {
        struct picked row;
        struct picked damaged;
        enum store_table t = (enum store_table)random_number(STORE_TABLE_COUNT);
        if (!pick(t, &row)) {
            continue;
        }
        damaged = row;
        for (uint64_t n = random_number(3) + 1; n > 0; n--) {
            damaged.value[random_number(row.size)] ^= (uint8_t)(1 + random_number(255));
        }
        if (random_number(4) == 0) {
            damaged.size = random_number(row.size) + 1;
        }
        write_row(t, &damaged);
        assert_int_equal(run_with(random_number(2) ? 4096 : 0), 0);
        bool is_same = damaged.size == row.size && memcmp(damaged.value, row.value, row.size) == 0;
        if (!report.found && !is_same && !may_be_unnoticed(t)) {
            print_message("table %d, key of %zu bytes, value of %zu\n", t, row.key.n, row.size);
            fail();
        }
        found += report.found > 0;
        write_row(t, &row);
    }
    assert_true(found > 500);
    expect_clean();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(clean_database_has_no_findings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rows_may_be_behind_the_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(index_rows_may_be_ahead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_restart_changes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(settled_audits_are_fine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(little_memory_takes_more_passes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(can_be_cancelled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_progress, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_writer_beside_it_is_no_finding, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_chat_that_begins_meanwhile_is_no_finding, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(random_bytes_in_rows_are_found_or_mean_the_same, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
