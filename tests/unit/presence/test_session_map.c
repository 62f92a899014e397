/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/session_map.h"
#include "tests/unit/presence/lib.h"

static int
add(presence_session_map_t *m, uint16_t edge, uint64_t number, uint32_t user)
{
    struct presence_session *s = NULL;
    struct presence_gone gone;
    const struct presence_session_info info = {edge, number, id_of(user), id_of(9000 + user), 5};
    int rc = presence_session_map_add(m, &info, &s, &gone);
    if (rc == 0) {
        assert_int_equal(s->number, number);
        assert_true(cq_id_eq(&s->user->id, &info.user));
    }
    return rc;
}

static void
test_several_devices(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    struct presence_gone gone = {0};
    struct cq_id user = id_of(1);
    assert_int_equal(add(m, 0, 10, 1), 0);
    assert_int_equal(add(m, 3, 10, 1), 0); /* the same number on another edge */
    assert_int_equal(presence_session_map_user(m, &user)->session_count, 2);
    assert_int_equal(m->sessions.count, 2);
    assert_false(presence_session_map_remove(m, presence_session_map_find(m, 0, 10), &gone));
    assert_null(presence_session_map_find(m, 0, 10));
    presence_session_map_user(m, &user)->seen_unix_ms = 77;
    assert_true(presence_session_map_remove(m, presence_session_map_find(m, 3, 10), &gone));
    assert_int_equal(gone.seen_unix_ms, 77);
    assert_true(cq_id_eq(&gone.user, &user));
    assert_null(presence_session_map_user(m, &user));
    assert_true(presence_list_is_empty(&m->all));
    presence_session_map_destroy(&m);
}

static void
test_same_again_is_an_update(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    assert_int_equal(add(m, 1, 4, 1), 0);
    assert_int_equal(add(m, 1, 4, 1), 0);
    assert_int_equal(m->sessions.count, 1);
    assert_int_equal(m->edge_counts[1], 1);
    presence_session_map_destroy(&m);
}

/* An edge gives a number to another user: it moves, and the former user is reported gone. */
static void
test_number_moves_to_another_user(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    struct presence_session *s = NULL;
    struct presence_gone gone;
    assert_int_equal(add(m, 1, 4, 1), 0);
    const struct presence_session_info info = {1, 4, id_of(2), id_of(3), 5};
    assert_int_equal(presence_session_map_add(m, &info, &s, &gone), 0);
    struct cq_id first = id_of(1);
    assert_true(cq_id_eq(&gone.user, &first));
    assert_null(presence_session_map_user(m, &first));
    assert_int_equal(m->sessions.count, 1);
    presence_session_map_destroy(&m);
}

static void
test_limit_of_a_user(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    for (uint64_t i = 0; i < PRESENCE_USER_SESSIONS_MAX; i++) {
        assert_int_equal(add(m, 0, i, 1), 0);
    }
    assert_int_equal(add(m, 0, 100000, 1), -CQ_E_BUSY);
    assert_null(presence_session_map_find(m, 0, 100000));
    assert_int_equal(add(m, 0, 5, 1), 0); /* an update is not one more */
    assert_int_equal(add(m, 0, 100000, 2), 0);
    presence_session_map_destroy(&m);
}

static void
count_gone(void *ctx, struct presence_user *user, const struct presence_gone *gone)
{
    size_t *count = ctx;
    /* The even ones have another session elsewhere. */
    assert_int_equal(number_of(gone ? &gone->user : &user->id) % 2, gone ? 1 : 0);
    *count += gone != NULL;
}

static void
test_edge_goes(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    for (uint32_t u = 0; u < 1000; u++) {
        assert_int_equal(add(m, 0, u, u), 0);
        if (u % 2 == 0) {
            assert_int_equal(add(m, 1, u, u), 0);
        }
    }
    size_t gone = 0;
    presence_session_map_edge_down(m, 0);
    assert_int_equal(m->edge_counts[0], 0);
    assert_null(presence_session_map_find(m, 0, 7));
    for (int i = 0; i < 9; i++) {
        assert_true(presence_session_map_reap(m, 100, count_gone, &gone));
        assert_int_equal(m->sessions.count, 1500 - 100 * (i + 1));
    }
    assert_false(presence_session_map_reap(m, 100, count_gone, &gone));
    assert_int_equal(gone, 500);
    assert_int_equal(m->users.count, 500);
    assert_int_equal(m->sessions.count, 500);
    assert_int_equal(m->edge_counts[0], 0);
    assert_false(presence_session_map_reap(m, 100, count_gone, &gone));
    assert_int_equal(gone, 500);
    presence_session_map_destroy(&m);
}

static void
never_gone(void *ctx, struct presence_user *user, const struct presence_gone *gone)
{
    (void)ctx;
    assert_non_null(user);
    assert_null(gone);
}

/* An edge that is back before its dead sessions are gone announces the same numbers: nobody flaps,
 * and the limit of a user counts the living. */
static void
test_edge_back_at_once(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    for (int round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < PRESENCE_USER_SESSIONS_MAX; n++) {
            assert_int_equal(add(m, 3, n, 1), 0);
            assert_true(presence_session_map_is_live(m, presence_session_map_find(m, 3, n)));
        }
        assert_int_equal(add(m, 3, PRESENCE_USER_SESSIONS_MAX, 1), -CQ_E_BUSY);
        assert_int_equal(m->edge_counts[3], PRESENCE_USER_SESSIONS_MAX);
        assert_int_equal(m->dead_count, round * PRESENCE_USER_SESSIONS_MAX);
        if (round < 2) {
            presence_session_map_edge_down(m, 3);
        }
    }
    while (presence_session_map_reap(m, 7, never_gone, NULL)) {
    }
    assert_int_equal(m->sessions.count, PRESENCE_USER_SESSIONS_MAX);
    assert_int_equal(m->edge_counts[3], PRESENCE_USER_SESSIONS_MAX);
    assert_non_null(presence_session_map_find(m, 3, 9));
    presence_session_map_destroy(&m);
}

static void
test_walk_while_users_come_and_go(void **state)
{
    (void)state;
    presence_session_map_t *m = presence_session_map_new();
    struct presence_link cursor = {0};
    struct presence_gone gone;
    assert_null(presence_session_map_walk_next(m, &cursor)); /* none began */
    for (uint32_t u = 0; u < 100; u++) {
        assert_int_equal(add(m, 0, u, u), 0);
    }
    presence_session_map_walk(m, &cursor);
    bool seen[200] = {false};
    struct presence_user *user;
    uint32_t next = 100;
    while ((user = presence_session_map_walk_next(m, &cursor))) {
        uint32_t n = number_of(&user->id);
        assert_false(seen[n]);
        seen[n] = true;
        if (n % 3 == 0) { /* this one goes, and the one after the next */
            assert_true(presence_session_map_remove(m, presence_session_map_find(m, 0, n), &gone));
            struct presence_session *s = presence_session_map_find(m, 0, n + 2);
            assert_true(!s || presence_session_map_remove(m, s, &gone));
        }
        if (n < 100 && n % 5 == 0) {
            assert_int_equal(add(m, 0, next, next), 0);
            next++;
        }
    }
    for (uint32_t n = 0; n < next; n++) {
        assert_true(seen[n] || !presence_session_map_find(m, 0, n));
    }
    assert_false(presence_list_has(&cursor));
    presence_session_map_walk(m, &cursor);
    presence_session_map_walk(m, &cursor); /* again from the start */
    assert_non_null(presence_session_map_walk_next(m, &cursor));
    presence_session_map_walk_end(&cursor);
    presence_session_map_destroy(&m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_devices),
        cmocka_unit_test(test_same_again_is_an_update),
        cmocka_unit_test(test_number_moves_to_another_user),
        cmocka_unit_test(test_limit_of_a_user),
        cmocka_unit_test(test_edge_goes),
        cmocka_unit_test(test_edge_back_at_once),
        cmocka_unit_test(test_walk_while_users_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
