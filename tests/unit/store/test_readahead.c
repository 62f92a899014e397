/* SPDX-License-Identifier: MPL-2.0
 * Reading ahead changes nothing; it ends when it is told to, and leaves the engine to its owner.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "store/readahead.h"

enum {
    RECORDS = 50000
};

static char folder[FOLDER_PATH_SIZE];
static store_engine_t *engine;

static int
set_up(void **state)
{
    char dir[FOLDER_PATH_SIZE + 8];
    static uint64_t bodies[RECORDS];
    static struct cq_view records[RECORDS];
    (void)state;
    folder_make(folder);
    (void)snprintf(dir, sizeof dir, "%s/db", folder);
    const struct store_engine_cfg cfg = {.dir = dir, .map_bytes = STORE_MAP_DEFAULT};
    assert_int_equal(store_engine_open(&cfg, &engine), 0);
    for (size_t i = 0; i < RECORDS; i++) {
        bodies[i] = i;
        records[i] = (struct cq_view){(const uint8_t *)&bodies[i], sizeof bodies[i]};
    }
    const struct store_commit commit = {
        .first_pos = 1, .records = records, .record_count = RECORDS};
    assert_int_equal(store_engine_commit(engine, &commit), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    store_engine_close(&engine);
    folder_remove(folder);
    return 0;
}

static void
little_is_not_worth_it(void **state)
{
    (void)state;
    assert_null(store_readahead_start(engine, 1, 10));
    assert_null(store_readahead_start(engine, 2, 1));
    store_readahead_t *none = NULL;
    store_readahead_stop(&none);
}

static void
it_stops_at_any_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        store_readahead_t *r = store_readahead_start(engine, 1, RECORDS);
        assert_non_null(r);
        (void)usleep(i * 300);
        store_readahead_stop(&r);
        assert_null(r);
        assert_int_equal(store_engine_reopen(engine), 0); /* no snapshot is left */
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(little_is_not_worth_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_stops_at_any_time, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
