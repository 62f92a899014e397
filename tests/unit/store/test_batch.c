/* SPDX-License-Identifier: MPL-2.0
 * Rows of a group commit: cold ones are found again among any number of others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "store/batch.h"

enum {
    ROWS = 5000
};

static struct cq_view
number(const uint64_t *n)
{
    return (struct cq_view){(const uint8_t *)n, sizeof *n};
}

static void
put(struct store_batch *b, enum store_table t, uint64_t key, uint64_t value, bool is_cold)
{
    store_batch_put(b, t, number(&key), number(&value), is_cold);
}

static void
expect(const struct store_batch *b, enum store_table t, uint64_t key, uint64_t value)
{
    struct cq_view found;
    assert_true(store_batch_find(b, t, number(&key), &found));
    assert_int_equal(found.n, sizeof value);
    assert_memory_equal(found.p, &value, sizeof value);
}

static bool
has(const struct store_batch *b, enum store_table t, uint64_t key)
{
    struct cq_view found;
    return store_batch_find(b, t, number(&key), &found);
}

static void
cold_rows_are_found_among_others(void **state)
{
    struct store_batch *b = store_batch_new(1, 1);
    (void)state;
    assert_false(has(b, STORE_TABLE_DEVICE, 1));
    for (uint64_t i = 0; i < ROWS; i++) {
        put(b, STORE_TABLE_DEVICE, i, i, true);
        put(b, STORE_TABLE_CHAT, i, 0, false);
        put(b, STORE_TABLE_USER, i, 2 * i, true);
    }
    for (uint64_t i = 0; i < ROWS; i++) {
        expect(b, STORE_TABLE_DEVICE, i, i);
        expect(b, STORE_TABLE_USER, i, 2 * i);
        assert_false(has(b, STORE_TABLE_CHAT, i));
        assert_false(has(b, STORE_TABLE_DEVICE, ROWS + i));
    }
    assert_int_equal(b->cold_count, 2 * ROWS);
    assert_int_equal(b->row_count, 3 * ROWS);
    store_batch_destroy(&b);
}

static void
the_newest_of_a_key_counts(void **state)
{
    struct store_batch *b = store_batch_new(1, 1);
    struct cq_view found;
    uint64_t deleted = 7;
    (void)state;
    for (uint64_t round = 1; round <= 3; round++) {
        for (uint64_t i = 0; i < ROWS; i++) {
            put(b, STORE_TABLE_DEVICE, i, round * i, true);
        }
    }
    store_batch_put(b, STORE_TABLE_DEVICE, number(&deleted), (struct cq_view){0}, true);
    assert_true(store_batch_find(b, STORE_TABLE_DEVICE, number(&deleted), &found));
    assert_null(found.p);
    put(b, STORE_TABLE_DEVICE, deleted, 1, true);
    expect(b, STORE_TABLE_DEVICE, deleted, 1);
    expect(b, STORE_TABLE_DEVICE, ROWS - 1, (uint64_t)3 * (ROWS - 1));
    store_batch_seal(b);
    assert_int_equal(b->commit.row_count, ROWS); /* no row twice */
    store_batch_destroy(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cold_rows_are_found_among_others),
        cmocka_unit_test(the_newest_of_a_key_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
