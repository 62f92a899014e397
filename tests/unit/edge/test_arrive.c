/* SPDX-License-Identifier: MPL-2.0
 * Who comes back: a bounded number at a time, in order, and nobody is forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "edge/arrive.h"

enum {
    CROWD = 3 * EDGE_ARRIVE_MAX
};

static edge_sessions_t table;
static struct edge_arrivals arrivals;
static edge_session_t *crowd[CROWD];

static int
begin(void **state)
{
    (void)state;
    arrivals = (struct edge_arrivals){0};
    edge_session_table_init(&table, UINT64_MAX - 10); /* numbers wrap round */
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = edge_session_new(&table, 0);
    }
    return 0;
}

static int
end(void **state)
{
    (void)state;
    edge_arrive_free(&arrivals);
    edge_session_table_free(&table);
    return 0;
}

/* RESUME, as ops.c and auth.c do it. */
static bool
resume(edge_session_t *s, uint64_t now_mono_ms)
{
    if (!edge_arrive_ask(&arrivals, s)) {
        return false;
    }
    assert_true(edge_session_event(s, EDGE_EVENT_TOKEN_OK, now_mono_ms));
    edge_arrive_begin(&arrivals, s, now_mono_ms);
    return true;
}

static void
all_ask(void)
{
    for (int i = 0; i < CROWD; i++) {
        assert_int_equal(resume(crowd[i], 0), i < EDGE_ARRIVE_MAX);
    }
}

static void
arrive(edge_session_t *s, uint64_t now_mono_ms)
{
    assert_true(edge_session_event(s, EDGE_EVENT_ANNOUNCED, now_mono_ms));
}

static void
test_group_by_group_in_order(void **state)
{
    enum {
        OVER_MS = 10,
        RESTED_MS = 2 * OVER_MS
    };
    (void)state;
    all_ask();
    for (int i = 0; i < EDGE_ARRIVE_MAX; i++) {
        edge_arrive_look(&arrivals, &table, OVER_MS);
        assert_int_equal(arrivals.count, EDGE_ARRIVE_MAX - i);
        assert_null(edge_arrive_next(&arrivals, &table));
        crowd[i]->cost = 1; /* asked for something that is not answered yet */
        arrive(crowd[i], OVER_MS);
        edge_arrive_look(&arrivals, &table, OVER_MS);
        assert_int_equal(arrivals.count, EDGE_ARRIVE_MAX - i);
        crowd[i]->cost = 0;
    }
    edge_arrive_look(&arrivals, &table, OVER_MS);
    assert_int_equal(arrivals.count, 0);
    edge_arrive_look(&arrivals, &table, RESTED_MS - 1);
    assert_null(edge_arrive_next(&arrivals, &table));
    edge_arrive_look(&arrivals, &table, RESTED_MS);
    for (int i = EDGE_ARRIVE_MAX; i < 2 * EDGE_ARRIVE_MAX; i++) {
        edge_session_t *next = edge_arrive_next(&arrivals, &table);
        assert_ptr_equal(next, crowd[i]);
        assert_false(next->is_in_line);
        assert_true(resume(next, RESTED_MS));
    }
    assert_null(edge_arrive_next(&arrivals, &table));
}

static void
test_those_who_end_leave_no_hole(void **state)
{
    (void)state;
    all_ask();
    edge_session_free(&table, crowd[3]);               /* under way */
    edge_session_free(&table, crowd[EDGE_ARRIVE_MAX]); /* first in line */
    edge_arrive_look(&arrivals, &table, 1);
    assert_int_equal(arrivals.count, EDGE_ARRIVE_MAX - 1);
    for (int i = 0; i < EDGE_ARRIVE_MAX; i++) {
        if (i != 3) {
            arrive(crowd[i], 1);
        }
    }
    edge_arrive_look(&arrivals, &table, 1);
    edge_arrive_look(&arrivals, &table, 2);
    assert_ptr_equal(edge_arrive_next(&arrivals, &table), crowd[EDGE_ARRIVE_MAX + 1]);
}

/* The time in which nobody came is not a group's. */
static void
test_a_rest_is_as_long_as_the_group(void **state)
{
    (void)state;
    const uint64_t late_ms = 1000 * (uint64_t)EDGE_ARRIVE_MS;
    edge_arrive_look(&arrivals, &table, 0);
    assert_true(resume(crowd[0], late_ms));
    arrive(crowd[0], late_ms);
    edge_arrive_look(&arrivals, &table, late_ms + 1);
    assert_int_equal(arrivals.rest_until_mono_ms, late_ms + 2);
}

/* Nobody answers: after a while they do not count any more. */
static void
test_a_service_that_hangs_does_not_lock_the_door(void **state)
{
    (void)state;
    all_ask();
    edge_arrive_look(&arrivals, &table, EDGE_ARRIVE_MS - 1);
    assert_null(edge_arrive_next(&arrivals, &table));
    edge_arrive_look(&arrivals, &table, EDGE_ARRIVE_MS);
    const uint64_t rested_ms = 2 * (uint64_t)EDGE_ARRIVE_MS;
    edge_arrive_look(&arrivals, &table, rested_ms);
    for (int i = EDGE_ARRIVE_MAX; i < 2 * EDGE_ARRIVE_MAX; i++) {
        edge_session_t *next = edge_arrive_next(&arrivals, &table);
        assert_ptr_equal(next, crowd[i]);
        assert_true(resume(next, rested_ms));
    }
    assert_null(edge_arrive_next(&arrivals, &table));
}

/* A place is free, but others were first. */
static void
test_nobody_jumps_the_line(void **state)
{
    (void)state;
    all_ask();
    edge_arrive_look(&arrivals, &table, EDGE_ARRIVE_MS);
    assert_int_equal(arrivals.count, 0);
    edge_session_t *late = edge_session_new(&table, 0);
    assert_false(edge_arrive_ask(&arrivals, late));
    for (int i = EDGE_ARRIVE_MAX; i < CROWD; i++) {
        edge_arrive_look(&arrivals, &table, 2 * EDGE_ARRIVE_MS);
        assert_ptr_equal(edge_arrive_next(&arrivals, &table), crowd[i]);
    }
    edge_arrive_look(&arrivals, &table, 2 * EDGE_ARRIVE_MS);
    assert_ptr_equal(edge_arrive_next(&arrivals, &table), late);
    assert_true(edge_arrive_ask(&arrivals, late));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_group_by_group_in_order),
        TEST(test_those_who_end_leave_no_hole),
        TEST(test_a_rest_is_as_long_as_the_group),
        TEST(test_a_service_that_hangs_does_not_lock_the_door),
        TEST(test_nobody_jumps_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
