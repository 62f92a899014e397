/* SPDX-License-Identifier: MPL-2.0
 * The table of sessions, its walks, and the state machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "edge/session.h"

static const struct {
    uint8_t from, event, to;
} allowed[] = {
    {EDGE_STATE_CONNECTED, EDGE_EVENT_AUTH, EDGE_STATE_AUTHENTICATING},
    {EDGE_STATE_CONNECTED, EDGE_EVENT_TOKEN_OK, EDGE_STATE_ANNOUNCING},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_AUTH_OK, EDGE_STATE_ANNOUNCING},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_AUTH_FAILED, EDGE_STATE_CONNECTED},
    {EDGE_STATE_ANNOUNCING, EDGE_EVENT_ANNOUNCED, EDGE_STATE_READY},
    {EDGE_STATE_CONNECTED, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_ANNOUNCING, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_READY, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
};

static int
expected(int from, int event)
{
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        if (allowed[i].from == from && allowed[i].event == event) {
            return allowed[i].to;
        }
    }
    return -1;
}

static void
test_every_step(void **state)
{
    (void)state;
    for (int from = 0; from < EDGE_STATE_COUNT; from++) {
        for (int ev = 0; ev < EDGE_EVENT_COUNT; ev++) {
            edge_session_t s = {.state = (uint8_t)from, .state_mono_ms = 1};
            bool ok = edge_session_event(&s, (enum edge_event)ev, 77);
            int to = expected(from, ev);
            assert_int_equal(ok, to >= 0);
            assert_int_equal(s.state, to >= 0 ? to : from);
            assert_int_equal(s.state_mono_ms, to >= 0 ? 77 : 1);
        }
    }
}

static void
test_names(void **state)
{
    (void)state;
    for (int i = 0; i < EDGE_STATE_COUNT; i++) {
        assert_string_not_equal(edge_session_state_name((uint8_t)i), "?");
    }
    for (int i = 0; i < EDGE_EVENT_COUNT; i++) {
        assert_string_not_equal(edge_session_event_name((uint8_t)i), "?");
    }
    assert_string_equal(edge_session_state_name(EDGE_STATE_COUNT), "?");
}

static void
test_find_by_number(void **state)
{
    (void)state;
    enum {
        N = 5000
    };
    edge_sessions_t t;
    edge_session_table_init(&t, UINT64_MAX - 100); /* numbers wrap round */
    uint64_t *numbers = calloc(N, sizeof *numbers);
    for (size_t i = 0; i < N; i++) {
        numbers[i] = edge_session_new(&t, 5)->number;
    }
    assert_int_equal(t.count, N);
    for (size_t i = 0; i < N; i += 2) {
        edge_session_free(&t, edge_session_find(&t, numbers[i]));
    }
    for (size_t i = 0; i < N; i++) {
        edge_session_t *s = edge_session_find(&t, numbers[i]);
        assert_int_equal(s != NULL, i % 2);
        assert_true(!s || (s->number == numbers[i] && s->state == EDGE_STATE_CONNECTED));
    }
    assert_int_equal(t.count, N / 2);
    edge_session_t *s = edge_session_find(&t, numbers[1]);
    assert_true(edge_session_event(s, EDGE_EVENT_CLOSE, 6));
    assert_null(edge_session_find(&t, numbers[1]));
    free(numbers);
    edge_session_table_free(&t);
}

static void
test_walk_survives_ends_and_beginnings(void **state)
{
    (void)state;
    edge_sessions_t t;
    edge_session_table_init(&t, 100);
    edge_session_t *s[6];
    for (int i = 0; i < 6; i++) {
        s[i] = edge_session_new(&t, 0);
    }
    struct edge_cursor a, b;
    edge_session_cursor_begin(&t, &a);
    edge_session_cursor_begin(&t, &b);
    assert_ptr_equal(edge_session_cursor_next(&a), s[0]);
    edge_session_free(&t, s[1]); /* the next of a */
    edge_session_free(&t, s[0]); /* the next of b */
    assert_ptr_equal(edge_session_cursor_next(&a), s[2]);
    assert_ptr_equal(edge_session_cursor_next(&b), s[2]);
    edge_session_free(&t, s[2]);
    assert_ptr_equal(edge_session_cursor_next(&a), s[3]);
    assert_ptr_equal(edge_session_cursor_next(&a), s[4]);
    edge_session_free(&t, s[5]);
    assert_null(edge_session_cursor_next(&a));
    edge_session_t *late = edge_session_new(&t, 0);
    assert_ptr_equal(edge_session_cursor_next(&a), late);
    assert_null(edge_session_cursor_next(&a));
    edge_session_cursor_end(&t, &a);
    assert_ptr_equal(edge_session_cursor_next(&b), s[3]);
    edge_session_cursor_end(&t, &b);
    edge_session_cursor_end(&t, &b);
    assert_null(t.cursors);
    edge_session_table_free(&t);
}

static void
test_dirty_list(void **state)
{
    (void)state;
    edge_sessions_t t;
    edge_session_table_init(&t, 1);
    edge_session_t *dirty = NULL;
    edge_session_t *a = edge_session_new(&t, 0), *b = edge_session_new(&t, 0),
                   *c = edge_session_new(&t, 0);
    edge_session_dirty_add(&dirty, a);
    edge_session_dirty_add(&dirty, b);
    edge_session_dirty_add(&dirty, a);
    edge_session_dirty_add(&dirty, c);
    edge_session_free(&t, b); /* in the middle */
    assert_ptr_equal(dirty, c);
    assert_ptr_equal(dirty->dirty_next, a);
    assert_null(a->dirty_next);
    edge_session_dirty_remove(c);
    edge_session_dirty_remove(c);
    assert_ptr_equal(dirty, a);
    edge_session_free(&t, a);
    assert_null(dirty);
    edge_session_table_free(&t);
}

static void
test_a_session_is_small(void **state)
{
    (void)state;
    assert_true(sizeof(edge_session_t) <= 320);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_step),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_find_by_number),
        cmocka_unit_test(test_walk_survives_ends_and_beginnings),
        cmocka_unit_test(test_dirty_list),
        cmocka_unit_test(test_a_session_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
