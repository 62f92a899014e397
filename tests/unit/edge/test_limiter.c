/* SPDX-License-Identifier: MPL-2.0
 * Token buckets: rates, bursts, bounded memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/limiter.h"

static edge_limiter_t *
new_limiter(uint64_t per_s, uint64_t burst, size_t entries_max)
{
    struct edge_limit limits[EDGE_RATE_COUNT];
    for (size_t i = 0; i < EDGE_RATE_COUNT; i++) {
        limits[i] = (struct edge_limit){per_s, burst};
    }
    limits[EDGE_RATE_SIGNAL].per_s = 0;
    return edge_limiter_new(limits, entries_max);
}

static void
test_burst_then_rate(void **state)
{
    (void)state;
    edge_limiter_t *l = new_limiter(10, 5, 1024);
    uint64_t now = 1000000;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(edge_limiter_take(l, EDGE_RATE_SEND, 7, now), 0);
    }
    uint64_t wait_ms = edge_limiter_take(l, EDGE_RATE_SEND, 7, now);
    assert_in_range(wait_ms, 100, 101);
    assert_int_equal(edge_limiter_take(l, EDGE_RATE_SEND, 8, now), 0);
    assert_int_equal(edge_limiter_take(l, EDGE_RATE_FRIEND, 7, now), 0);
    now += 100000;
    assert_int_equal(edge_limiter_take(l, EDGE_RATE_SEND, 7, now), 0);
    assert_true(edge_limiter_take(l, EDGE_RATE_SEND, 7, now) > 0);
    now += 10000000;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(edge_limiter_take(l, EDGE_RATE_SEND, 7, now), 0);
    }
    assert_true(edge_limiter_take(l, EDGE_RATE_SEND, 7, now) > 0);
    edge_limiter_destroy(&l);
    edge_limiter_destroy(&l);
}

static void
test_refusals_cost_nothing(void **state)
{
    (void)state;
    edge_limiter_t *l = new_limiter(10, 1, 1024);
    assert_int_equal(edge_limiter_take(l, EDGE_RATE_LOGIN, 1, 1000000), 0);
    for (int i = 0; i < 100; i++) {
        assert_in_range(edge_limiter_take(l, EDGE_RATE_LOGIN, 1, 1000000), 1, 101);
    }
    edge_limiter_destroy(&l);
}

static void
test_no_limit(void **state)
{
    (void)state;
    edge_limiter_t *l = new_limiter(1, 1, 1024);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(edge_limiter_take(l, EDGE_RATE_SIGNAL, 1, 1), 0);
    }
    edge_limiter_destroy(&l);
}

static void
test_memory_is_bounded(void **state)
{
    (void)state;
    edge_limiter_t *l = new_limiter(1, 3, 4096);
    for (uint64_t key = 0; key < 200000; key++) {
        assert_int_equal(edge_limiter_take(l, EDGE_RATE_LOGIN, key, 1000000), 0);
    }
    assert_int_equal(edge_limiter_entries(l), 4096);
    edge_limiter_destroy(&l);
}

static void
test_growing_keeps_buckets(void **state)
{
    (void)state;
    edge_limiter_t *l = new_limiter(1, 1, 65536);
    for (uint64_t key = 0; key < 2000; key++) {
        assert_int_equal(edge_limiter_take(l, EDGE_RATE_LOGIN, key * 977, 1000000), 0);
    }
    for (uint64_t key = 0; key < 2000; key++) {
        assert_true(edge_limiter_take(l, EDGE_RATE_LOGIN, key * 977, 1000000) > 0);
    }
    edge_limiter_destroy(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_then_rate),
        cmocka_unit_test(test_refusals_cost_nothing),
        cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_growing_keeps_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
