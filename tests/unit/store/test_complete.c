/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "store/complete.h"

enum {
    BASE = 1000000,
    STEP = 350
};

static void
write_steps(cq_buf_t *b, struct store_complete *c)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        c->pos[i] = BASE + (i * 7 % CQ_PARTITION_COUNT) * STEP;
    }
    store_complete_write(b, c);
}

static void
what_is_written_is_read(void **state)
{
    (void)state;
    cq_buf_t b = {0};
    struct store_complete c, again;
    write_steps(&b, &c);
    uint64_t last = BASE + (CQ_PARTITION_COUNT - 1) * STEP;
    struct cq_view row = {b.data, b.size};
    assert_int_equal(store_complete_read(row, last, &again), 0);
    assert_memory_equal(&c, &again, sizeof c);
    struct cq_id chat = {{0, 5}};
    assert_int_equal(store_complete_of(&again, &chat), c.pos[5]);
    cq_buf_free(&b);
}

static void
nothing_is_complete_beyond_the_log(void **state)
{
    (void)state;
    cq_buf_t b = {0};
    struct store_complete c;
    write_steps(&b, &c);
    uint64_t last = BASE + (CQ_PARTITION_COUNT - 1) * STEP;
    struct cq_view row = {b.data, b.size};
    assert_int_equal(store_complete_read(row, last - 1, &c), -CQ_E_CORRUPT);
    assert_int_equal(store_complete_read(row, BASE - 1, &c), -CQ_E_CORRUPT);
    for (size_t n = 0; n < b.size; n += 97) {
        assert_int_equal(store_complete_read((struct cq_view){b.data, n}, last, &c), -CQ_E_CORRUPT);
    }
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(nothing_is_complete_beyond_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
