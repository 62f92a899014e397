/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/delta.h"
#include "tests/unit/presence/lib.h"

enum {
    GRACE_MS = 5000,
    TICK_MS = 1000,
    COST_MAX = 1000
};

struct told {
    size_t changes;
    size_t left;
    struct cq_id user;
    bool online;
    uint64_t time_unix_ms;
    uint64_t seen_unix_ms;
    size_t cost; /* of each change */
};

static struct told told;

static void
on_left(void *ctx, const struct cq_id *user, uint64_t seen_unix_ms)
{
    (void)ctx;
    (void)user;
    told.left++;
    told.seen_unix_ms = seen_unix_ms;
}

static size_t
on_change(void *ctx, const struct cq_id *user, bool online, uint64_t time_unix_ms)
{
    (void)ctx;
    told.changes++;
    told.user = *user;
    told.online = online;
    told.time_unix_ms = time_unix_ms;
    return told.cost;
}

static int
setup(void **state)
{
    const struct presence_delta_cfg cfg = {GRACE_MS, TICK_MS, COST_MAX, on_left, on_change, NULL};
    *state = presence_delta_new(&cfg);
    told = (struct told){0};
    return 0;
}

static int
teardown(void **state)
{
    presence_delta_t *d = *state;
    presence_delta_destroy(&d);
    return 0;
}

static void
up(presence_delta_t *d, uint32_t user, uint64_t now_ms)
{
    struct cq_id id = id_of(user);
    presence_delta_up(d, &id, &(struct presence_delta_up){now_ms + 7000000, now_ms, false});
}

static void
down(presence_delta_t *d, uint32_t user, uint64_t now_ms)
{
    struct cq_id id = id_of(user);
    presence_delta_down(d, &id, now_ms + 8000000, now_ms);
}

static bool
is_visible(presence_delta_t *d, uint32_t user)
{
    struct cq_id id = id_of(user);
    uint64_t since_unix_ms;
    return presence_delta_is_visible(d, &id, &since_unix_ms);
}

static void
run(presence_delta_t *d, uint64_t from_ms, uint64_t to_ms)
{
    for (uint64_t t = from_ms; t <= to_ms; t += TICK_MS / PRESENCE_DELTA_SLICES) {
        presence_delta_step(d, t);
    }
}

static void
test_comes_and_leaves(void **state)
{
    presence_delta_t *d = *state;
    up(d, 1, 100);
    assert_true(is_visible(d, 1));
    run(d, 100, 900);
    assert_int_equal(told.changes, 0); /* not before the tick */
    run(d, 1000, 1000);
    assert_int_equal(told.changes, 1);
    assert_true(told.online);
    assert_int_equal(told.time_unix_ms, 7000100);
    down(d, 1, 2000);
    run(d, 2000, 6900);
    assert_true(is_visible(d, 1));
    assert_int_equal(told.left, 0);
    run(d, 7000, 7900);
    assert_int_equal(told.left, 1);
    assert_int_equal(told.seen_unix_ms, 8002000);
    assert_false(is_visible(d, 1));
    run(d, 8000, 8000);
    assert_int_equal(told.changes, 2);
    assert_false(told.online);
    assert_int_equal(told.time_unix_ms, 8002000);
    assert_int_equal(presence_delta_visible_count(d), 0);
    run(d, 8100, 20000);
    assert_int_equal(told.changes, 2);
}

static void
test_back_within_grace(void **state)
{
    presence_delta_t *d = *state;
    up(d, 1, 0);
    run(d, 0, 1000);
    for (uint64_t t = 2000; t < 60000; t += 5000) {
        down(d, 1, t);
        run(d, t, t + 4800);
        up(d, 1, t + 4900);
        run(d, t + 4900, t + 4900);
    }
    assert_int_equal(told.changes, 1);
    assert_int_equal(told.left, 0);
    struct cq_id id = id_of(1);
    uint64_t since_unix_ms = 0;
    assert_true(presence_delta_is_visible(d, &id, &since_unix_ms));
    assert_int_equal(since_unix_ms, 7000000); /* since the first time */
}

/* An edge with thousands of users died: a turn ends the grace of some. */
static void
test_a_crowd_leaves_in_portions(void **state)
{
    presence_delta_t *d = *state;
    enum {
        CROWD = 1000
    };
    for (uint32_t i = 1; i <= CROWD; i++) {
        up(d, i, 0);
        down(d, i, 10);
    }
    assert_false(presence_delta_leave(d, 10 + GRACE_MS - 1));
    unsigned turns = 1;
    for (; presence_delta_leave(d, 10 + GRACE_MS); turns++) {
        assert_true(told.left <= turns * 100);
    }
    assert_true(turns >= CROWD / 100);
    assert_int_equal(told.left, CROWD);
}

/* Told as one last state, not as a story. */
static void
test_changes_meet_in_the_queue(void **state)
{
    presence_delta_t *d = *state;
    const struct presence_delta_cfg cfg = {0, TICK_MS, COST_MAX, on_left, on_change, NULL};
    presence_delta_t *no_grace = presence_delta_new(&cfg);
    (void)d;
    for (uint64_t t = 10; t < 800; t += 20) {
        up(no_grace, 1, t);
        down(no_grace, 1, t + 10);
        presence_delta_step(no_grace, t + 10);
    }
    run(no_grace, 800, 3000);
    assert_int_equal(told.changes, 0);
    assert_int_equal(presence_delta_pending(no_grace), 0);
    up(no_grace, 1, 3010);
    down(no_grace, 1, 3020);
    up(no_grace, 1, 3030);
    run(no_grace, 3030, 5000);
    assert_int_equal(told.changes, 1);
    assert_true(told.online);
    presence_delta_destroy(&no_grace);
}

/* Everybody comes at once: a tick never costs more than the ceiling, and everybody is told in the
 * end. */
static void
test_ceiling(void **state)
{
    presence_delta_t *d = *state;
    enum {
        USERS = 2000
    };
    told.cost = 9; /* 10 with the look-up */
    for (uint32_t u = 1; u <= USERS; u++) {
        up(d, u, 10);
    }
    size_t before = 0;
    uint64_t t = 1000;
    while (told.changes < USERS) {
        run(d, t, t + 900);
        size_t in_tick = told.changes - before;
        assert_true(in_tick > 0);
        assert_true(in_tick * 10 <= COST_MAX + (size_t)PRESENCE_DELTA_SLICES * 10);
        before = told.changes;
        t += TICK_MS;
    }
    assert_int_equal(presence_delta_pending(d), 0);
}

static void
test_quiet(void **state)
{
    presence_delta_t *d = *state;
    struct cq_id id = id_of(1);
    presence_delta_up(d, &id, &(struct presence_delta_up){500, 0, true});
    presence_delta_up(d, &id, &(struct presence_delta_up){300, 0, false}); /* an older session */
    run(d, 0, 3000);
    assert_int_equal(told.changes, 0);
    uint64_t since_unix_ms = 0;
    assert_true(presence_delta_is_visible(d, &id, &since_unix_ms));
    assert_int_equal(since_unix_ms, 300);
    down(d, 1, 3000);
    run(d, 3000, 10000);
    assert_int_equal(told.changes, 1);
    assert_false(told.online);
}

static void
test_extend(void **state)
{
    presence_delta_t *d = *state;
    up(d, 1, 0);
    run(d, 0, 1000);
    down(d, 1, 1000);
    presence_delta_extend(d, 60000); /* blind for a minute */
    run(d, 60000, 64900);
    assert_true(is_visible(d, 1));
    run(d, 65000, 66000);
    assert_int_equal(told.left, 1);
}

static void
test_absent(void **state)
{
    presence_delta_t *d = *state;
    struct cq_id one = id_of(1);
    struct cq_id two = id_of(2);
    up(d, 1, 0);
    run(d, 0, 1000);
    presence_delta_absent(d, &one, 5, 1100); /* is online: nothing to say */
    presence_delta_absent(d, &two, 6, 1100);
    presence_delta_absent(d, &two, 6, 1100);
    run(d, 1100, 2000);
    assert_int_equal(told.changes, 2);
    assert_false(told.online);
    assert_int_equal(told.time_unix_ms, 6);
    assert_int_equal(number_of(&told.user), 2);
    /* Comes back before it was told. */
    struct cq_id three = id_of(3);
    presence_delta_absent(d, &three, 6, 2100);
    up(d, 3, 2200);
    run(d, 2200, 5000);
    assert_int_equal(told.changes, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static void
test_retell(void **state)
{
    presence_delta_t *d = *state;
    struct cq_id id = id_of(1);
    up(d, 1, 0);
    run(d, 1000, 1000);
    presence_delta_retell(d, &id, 1000);
    presence_delta_retell(d, &id, 1100);
    run(d, 1100, 3000);
    assert_int_equal(told.changes, 2);
    assert_true(told.online);
    down(d, 1, 3000);
    run(d, 3000, 9000);
    assert_int_equal(told.changes, 3);
    presence_delta_retell(d, &id, 9000); /* not known any more */
    run(d, 9000, 11000);
    assert_int_equal(told.changes, 4);
    assert_false(told.online);
    assert_int_equal(told.time_unix_ms, 0);
    assert_false(presence_delta_is_busy(d));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_comes_and_leaves),
        TEST(test_back_within_grace),
        TEST(test_a_crowd_leaves_in_portions),
        TEST(test_changes_meet_in_the_queue),
        TEST(test_ceiling),
        TEST(test_quiet),
        TEST(test_extend),
        TEST(test_absent),
        TEST(test_retell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
