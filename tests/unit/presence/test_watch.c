/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/watch.h"
#include "tests/unit/presence/lib.h"

static int
setup(void **state)
{
    *state = presence_watch_new();
    return 0;
}

static int
teardown(void **state)
{
    presence_watch_t *w = *state;
    presence_watch_destroy(&w);
    return 0;
}

/* The store's answer about a user: ids from … to. */
static bool
set(presence_watch_t *w, uint32_t user, uint32_t from, uint32_t to)
{
    struct cq_id ids[256];
    size_t n = 0;
    for (uint32_t i = to; i-- > from;) { /* not ascending */
        ids[n++] = id_of(i);
    }
    struct cq_id id = id_of(user);
    const struct presence_watch_list list = {.ids = ids, .count = n};
    return presence_watch_set(w, &id, &list);
}

static bool
want(presence_watch_t *w, uint32_t user)
{
    struct cq_id id = id_of(user);
    return presence_watch_want(w, &id);
}

static void
release(presence_watch_t *w, uint32_t user)
{
    struct cq_id id = id_of(user);
    presence_watch_release(w, &id);
}

static bool
sees(presence_watch_t *w, uint32_t a, uint32_t b)
{
    struct cq_id from = id_of(a);
    struct cq_id to = id_of(b);
    return presence_watch_sees(w, &from, &to);
}

static void
assert_next(presence_watch_t *w, uint32_t user)
{
    struct cq_id id;
    assert_true(presence_watch_is_waiting(w));
    assert_true(presence_watch_next(w, &id));
    assert_int_equal(number_of(&id), user);
}

static void
assert_none(presence_watch_t *w)
{
    struct cq_id id;
    assert_false(presence_watch_is_waiting(w));
    assert_false(presence_watch_next(w, &id));
}

static void
add_number(void *ctx, const struct cq_id *id)
{
    uint64_t *sum = ctx;
    *sum += number_of(id);
}

static uint64_t
watchers(presence_watch_t *w, uint32_t user)
{
    uint64_t sum = 0;
    struct cq_id id = id_of(user);
    const struct presence_watch_change change = {true, 1};
    (void)presence_watch_change(w, &id, &change, add_number, &sum);
    return sum;
}

static void
test_fetch_once(void **state)
{
    presence_watch_t *w = *state;
    assert_false(want(w, 1));
    assert_false(want(w, 1));
    assert_next(w, 1);
    assert_none(w);
    assert_false(want(w, 1)); /* under way */
    assert_none(w);
    assert_true(set(w, 1, 10, 20));
    assert_true(want(w, 1));
    assert_none(w);
    assert_true(sees(w, 1, 10) && sees(w, 1, 15) && sees(w, 1, 19));
    assert_false(sees(w, 1, 9) || sees(w, 1, 20) || sees(w, 10, 1) || sees(w, 1, 1));
    assert_int_equal(watchers(w, 12), 1);
    assert_int_equal(presence_watch_links(w), 10);
    release(w, 1);
    assert_false(sees(w, 1, 10));
    assert_int_equal(watchers(w, 12), 0);
    assert_int_equal(presence_watch_links(w), 0);
}

static void
test_renew_hides_at_once(void **state)
{
    presence_watch_t *w = *state;
    struct cq_id one = id_of(1);
    want(w, 1);
    assert_next(w, 1);
    assert_true(set(w, 1, 10, 20));
    presence_watch_renew(w, &one);
    assert_false(sees(w, 1, 10));
    assert_int_equal(watchers(w, 10), 0);
    assert_false(presence_watch_is_known(w, &one));
    assert_next(w, 1);
    assert_true(set(w, 1, 15, 17));
    assert_true(sees(w, 1, 15));
    assert_false(sees(w, 1, 10));
}

/* An answer that was given before the change must not be taken. */
static void
test_renew_while_fetching(void **state)
{
    presence_watch_t *w = *state;
    struct cq_id one = id_of(1);
    want(w, 1);
    assert_next(w, 1);
    presence_watch_renew(w, &one);
    assert_false(set(w, 1, 10, 20));
    assert_false(sees(w, 1, 10));
    assert_next(w, 1);
    assert_true(set(w, 1, 30, 31));
    assert_true(sees(w, 1, 30));
}

static void
test_release_while_fetching(void **state)
{
    presence_watch_t *w = *state;
    want(w, 1);
    assert_next(w, 1);
    release(w, 1);
    assert_false(set(w, 1, 10, 20));
    assert_int_equal(presence_watch_links(w), 0);
    /* Wanted again while the question is under way: its answer is good. */
    want(w, 2);
    assert_next(w, 2);
    release(w, 2);
    assert_false(want(w, 2));
    assert_none(w);
    assert_true(set(w, 2, 10, 20));
    /* An answer that nobody asked for. */
    assert_false(set(w, 2, 10, 21));
    assert_false(set(w, 77, 10, 20));
}

static void
test_failure_is_tried_again(void **state)
{
    presence_watch_t *w = *state;
    struct cq_id one = id_of(1);
    want(w, 1);
    assert_next(w, 1);
    presence_watch_fail(w, &one);
    assert_none(w);
    assert_false(want(w, 1));
    assert_none(w); /* not before retry */
    presence_watch_retry(w);
    assert_next(w, 1);
    presence_watch_fail(w, &one);
    release(w, 1);
    presence_watch_retry(w);
    assert_none(w);
}

static void
test_doubles_and_self(void **state)
{
    presence_watch_t *w = *state;
    struct cq_id ids[] = {id_of(5), id_of(1), id_of(5), {{0}}, id_of(4), id_of(5)};
    struct cq_id one = id_of(1);
    want(w, 1);
    assert_next(w, 1);
    const struct presence_watch_list list = {.ids = ids, .count = 6};
    assert_true(presence_watch_set(w, &one, &list));
    assert_int_equal(presence_watch_links(w), 2);
    assert_int_equal(presence_watch_count(w, &one), 2);
    uint64_t sum = 0;
    presence_watch_each(w, &one, add_number, &sum);
    assert_int_equal(sum, 9);
}

/* Many who watch each other, released and renewed in a random order: both directions always agree.
 */
static void
test_both_directions_agree(void **state)
{
    presence_watch_t *w = *state;
    enum {
        USERS = 60
    };
    bool is_wanted[USERS] = {false};
    uint32_t random = 99;
    for (int step = 0; step < 3000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t u = (random >> 8) % USERS;
        struct cq_id id = id_of(u + 1);
        if (is_wanted[u] && (random >> 3 & 1)) {
            release(w, u + 1);
            is_wanted[u] = false;
        } else {
            want(w, u + 1);
            presence_watch_renew(w, &id);
            assert_next(w, u + 1);
            uint32_t from = (random >> 16) % USERS;
            assert_true(set(w, u + 1, from + 1, USERS + 1));
            is_wanted[u] = true;
        }
        if (step % 50 != 0) {
            continue;
        }
        size_t links = 0;
        for (uint32_t a = 1; a <= USERS; a++) {
            uint64_t expected = 0;
            for (uint32_t b = 1; b <= USERS; b++) {
                expected += sees(w, b, a) ? b : 0;
                links += sees(w, b, a);
            }
            assert_int_equal(watchers(w, a), expected);
        }
        assert_int_equal(presence_watch_links(w), links);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static bool
hides(presence_watch_t *w, uint32_t user)
{
    struct cq_id id = id_of(user);
    return presence_watch_hides(w, &id);
}

static enum presence_watch_seen
own_seen(presence_watch_t *w, uint32_t user)
{
    struct cq_id id = id_of(user);
    return presence_watch_own_seen(w, &id);
}

/* user sees one other, who hides; and hides himself. */
static bool
set_hiding(presence_watch_t *w, uint32_t user, uint32_t other, bool user_hides, bool other_hides)
{
    struct cq_id id = id_of(user);
    struct cq_id ids[] = {id_of(other)};
    struct cq_id hidden[] = {id_of(other)};
    const struct presence_watch_list list = {ids, 1, user_hides, hidden, other_hides};
    return presence_watch_set(w, &id, &list);
}

static void
test_who_hides(void **state)
{
    presence_watch_t *w = *state;
    assert_false(want(w, 1));
    assert_next(w, 1);
    assert_int_equal(own_seen(w, 1), PRESENCE_WATCH_UNKNOWN);
    assert_true(set_hiding(w, 1, 2, false, true));
    assert_int_equal(own_seen(w, 1), PRESENCE_WATCH_SHOWS);
    assert_false(hides(w, 1));
    assert_true(hides(w, 2)); /* by the list of the one who sees him */
    assert_int_equal(own_seen(w, 2), PRESENCE_WATCH_UNKNOWN);
    assert_false(want(w, 2));
    assert_next(w, 2);
    assert_true(set_hiding(w, 2, 1, false, false));
    assert_false(hides(w, 2)); /* his own word is the better one */
    struct cq_id two = id_of(2);
    presence_watch_renew(w, &two);
    assert_int_equal(own_seen(w, 2), PRESENCE_WATCH_SHOWS); /* until the new list is here */
    assert_next(w, 2);
    assert_true(set_hiding(w, 2, 1, true, false));
    assert_int_equal(own_seen(w, 2), PRESENCE_WATCH_HIDES);
    release(w, 2);
    assert_true(hides(w, 2)); /* kept for those who see him */
    assert_int_equal(own_seen(w, 2), PRESENCE_WATCH_UNKNOWN);
    release(w, 1);
    assert_false(hides(w, 2)); /* nobody asks */
}

struct heard {
    size_t count;
    uint32_t last;
    struct presence_watch_change change;
};

static void
hear(void *ctx, const struct cq_id *user, const struct presence_watch_change *change)
{
    struct heard *h = ctx;
    h->count++;
    h->last = (uint32_t)number_of(user);
    h->change = *change;
}

static struct heard
changes_after(presence_watch_t *w, uint32_t watcher, uint64_t after)
{
    struct cq_id id = id_of(watcher);
    struct heard h = {0};
    presence_watch_each_change(w, &id, after, hear, &h);
    return h;
}

static size_t
change(presence_watch_t *w, uint32_t user, bool online, uint64_t time_unix_ms)
{
    struct cq_id id = id_of(user);
    uint64_t sum = 0;
    const struct presence_watch_change c = {online, time_unix_ms};
    return presence_watch_change(w, &id, &c, add_number, &sum);
}

static void
test_changes_are_told_once(void **state)
{
    presence_watch_t *w = *state;
    assert_int_equal(change(w, 5, true, 1), 0); /* nobody sees him */
    for (uint32_t user = 1; user <= 2; user++) {
        assert_false(want(w, user));
        assert_next(w, user);
        assert_true(set(w, user, 3, 13));
    }
    uint64_t before = presence_watch_change_number(w);
    assert_int_equal(changes_after(w, 1, before).count, 0);
    assert_int_equal(change(w, 5, true, 10), 2);
    assert_int_equal(change(w, 5, false, 20), 2); /* only the last word counts */
    assert_int_equal(change(w, 7, true, 30), 2);
    struct heard h = changes_after(w, 1, before);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.last, 7);
    assert_int_equal(h.change.time_unix_ms, 30);
    uint64_t heard = presence_watch_change_number(w);
    assert_int_equal(changes_after(w, 1, heard).count, 0);
    assert_int_equal(changes_after(w, 2, before).count, 2); /* told at his own time */
    assert_int_equal(change(w, 5, true, 40), 2);
    h = changes_after(w, 1, heard);
    assert_int_equal(h.count, 1);
    assert_true(h.change.online);
    assert_int_equal(h.change.time_unix_ms, 40);
    release(w, 1);
    assert_int_equal(changes_after(w, 1, before).count, 0);
    assert_int_equal(change(w, 5, false, 50), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fetch_once),
        TEST(test_renew_hides_at_once),
        TEST(test_renew_while_fetching),
        TEST(test_release_while_fetching),
        TEST(test_failure_is_tried_again),
        TEST(test_doubles_and_self),
        TEST(test_both_directions_agree),
        TEST(test_who_hides),
        TEST(test_changes_are_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
