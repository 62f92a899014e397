/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/map.h"
#include "tests/unit/presence/lib.h"

enum {
    KEYS = 5000,
    STEPS = 200000
};

/* Against an array: random puts and takes, everything is found at all times. */
static void
test_random_changes(void **state)
{
    (void)state;
    presence_map_t map = {0};
    static char is_in[KEYS];
    static int values[KEYS];
    size_t count = 0;
    uint32_t random = 12345;
    for (int step = 0; step < STEPS; step++) {
        random = random * 1664525 + 1013904223;
        /* Phases of growing and shrinking. */
        uint32_t k = (random >> 8) % KEYS;
        bool put = (random >> 4 & 7) < (step / 20000 % 2 ? 2U : 6U);
        struct cq_id key = id_of(k);
        if (put) {
            presence_map_put(&map, &key, &values[k]);
            count += !is_in[k];
            is_in[k] = 1;
        } else {
            assert_ptr_equal(presence_map_take(&map, &key), is_in[k] ? &values[k] : NULL);
            count -= (size_t)is_in[k];
            is_in[k] = 0;
        }
        assert_int_equal(map.count, count);
        if (step % 5000 == 0) {
            for (uint32_t i = 0; i < KEYS; i++) {
                key = id_of(i);
                assert_ptr_equal(presence_map_find(&map, &key), is_in[i] ? &values[i] : NULL);
            }
        }
    }
    presence_map_clear(&map, NULL);
}

/* Growing to 100,000 and back never moves more than a few entries at a time, and finds all
 * meanwhile. */
static void
test_no_call_is_long(void **state)
{
    (void)state;
    enum {
        MANY = 100000
    };
    static int value;
    presence_map_t map = {0};
    size_t moving = 0;
    for (uint32_t i = 0; i < 2 * MANY; i++) {
        struct cq_id key = id_of(i < MANY ? i : 2 * MANY - 1 - i);
        size_t before = map.old ? map.old_next : 0;
        const struct presence_map_slot *table = map.slots;
        if (i < MANY) {
            presence_map_put(&map, &key, &value);
        } else {
            assert_ptr_equal(presence_map_take(&map, &key), &value);
        }
        /* A new table is asked for only when the one before is done with. */
        assert_true(table == map.slots || !before);
        assert_true(!map.old || map.old_next <= before + 64);
        moving += map.old != NULL;
        struct cq_id other = id_of(i < MANY ? i / 2 : (2 * MANY - 1 - i) / 2);
        assert_true(presence_map_find(&map, &other) || map.count == 0);
        other = id_of(MANY);
        assert_null(presence_map_find(&map, &other));
    }
    assert_int_equal(map.count, 0);
    assert_true(moving > 1000);
    presence_map_clear(&map, NULL);
}

static void
test_empty(void **state)
{
    (void)state;
    presence_map_t map = {0};
    struct cq_id key = id_of(1);
    assert_null(presence_map_find(&map, &key));
    assert_null(presence_map_take(&map, &key));
    presence_map_clear(&map, NULL);
}

static void
test_pairs_differ(void **state)
{
    (void)state;
    struct cq_id a = presence_map_pair(1, 2);
    struct cq_id b = presence_map_pair(2, 1);
    assert_false(cq_id_eq(&a, &b));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_no_call_is_long),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_pairs_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
