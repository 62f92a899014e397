/* SPDX-License-Identifier: MPL-2.0 */
#include <string.h>

#include "presence/route.h"
#include "tests/unit/presence/lib.h"

static int
setup(void **state)
{
    *state = presence_route_new();
    return 0;
}

static int
teardown(void **state)
{
    presence_route_t *r = *state;
    presence_route_destroy(&r);
    return 0;
}

/* A route of this position with one delivery for each edge of a bit mask. */
static void
route(presence_route_t *r, uint64_t pos, unsigned edges)
{
    assert_int_equal(presence_route_open(r, pos), PRESENCE_ROUTE_TRACK);
    for (uint16_t e = 0; e < 8; e++) {
        if (edges & 1U << e) {
            (void)presence_route_deliver(r, e);
        }
    }
    presence_route_close(r);
}

static void
delivered(presence_route_t *r, uint16_t edge, uint64_t delivery)
{
    assert_int_equal(presence_route_delivered(r, edge, delivery), 0);
}

static void
assert_news(presence_route_t *r, uint64_t pos)
{
    assert_true(presence_route_has_news(r));
    struct cq_routed routed = presence_route_take_news(r);
    assert_int_equal(routed.stream, 5);
    assert_int_equal(routed.pos, pos);
    assert_false(presence_route_has_news(r));
}

static void
test_in_order_only(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 100);
    assert_false(presence_route_has_news(r));
    route(r, 101, 1);
    route(r, 103, 2);
    route(r, 104, 0); /* nobody online, but not before those in front of it */
    assert_false(presence_route_has_news(r));
    delivered(r, 1, 1);
    assert_false(presence_route_has_news(r));
    delivered(r, 0, 1);
    assert_news(r, 104);
    route(r, 110, 0);
    assert_news(r, 110);
}

static void
test_all_edges_of_a_route(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    route(r, 1, 3);
    route(r, 2, 3);
    delivered(r, 0, 2);
    assert_false(presence_route_has_news(r));
    delivered(r, 1, 1);
    assert_news(r, 1);
    delivered(r, 1, 1); /* again */
    assert_false(presence_route_has_news(r));
    delivered(r, 1, 2);
    assert_news(r, 2);
}

static void
test_edge_down_confirms_its_part(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    route(r, 1, 3);
    presence_route_edge_down(r, 0);
    assert_false(presence_route_has_news(r));
    delivered(r, 1, 1);
    assert_news(r, 1);
    /* The same edge again: numbers go on unless it is fresh. */
    presence_route_edge_up(r, 0, false);
    assert_int_equal(presence_route_deliver(r, 0), 2);
    presence_route_edge_up(r, 0, true);
    assert_int_equal(presence_route_deliver(r, 0), 1);
}

static void
test_ephemeral_is_numbered_but_not_counted(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    assert_int_equal(presence_route_open(r, 0), PRESENCE_ROUTE_PASS);
    assert_int_equal(presence_route_deliver(r, 0), 1);
    presence_route_close(r);
    route(r, 1, 1);
    delivered(r, 0, 1); /* of the ephemeral one */
    assert_false(presence_route_has_news(r));
    delivered(r, 0, 2);
    assert_news(r, 1);
}

static void
test_lies_are_refused(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    route(r, 1, 1);
    assert_int_equal(presence_route_delivered(r, 0, 2), -CQ_E_BAD_ARG);
    assert_int_equal(presence_route_delivered(r, 0, UINT64_MAX), -CQ_E_BAD_ARG);
    assert_int_equal(presence_route_delivered(r, 3, 1), -CQ_E_BAD_ARG);
    assert_false(presence_route_has_news(r));
    assert_int_equal(presence_route_open(r, 1), PRESENCE_ROUTE_PASS); /* not ascending */
    presence_route_close(r);
}

/* What was on its way in an older stream says nothing about the new one. */
static void
test_new_stream(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 4, 0);
    route(r, 50, 1);
    route(r, 51, 1);
    presence_route_begin(r, 5, 10);
    assert_false(presence_route_has_news(r));
    route(r, 11, 1); /* delivery 3 */
    delivered(r, 0, 2);
    assert_false(presence_route_has_news(r));
    delivered(r, 0, 3);
    assert_news(r, 11);
    presence_route_forget(r);
    assert_false(presence_route_has_news(r));
    assert_int_equal(presence_route_open(r, 12), PRESENCE_ROUTE_PASS);
    presence_route_close(r);
}

static void
test_bound_of_tracked(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    for (uint64_t pos = 1; pos <= PRESENCE_ROUTE_TRACKED_MAX; pos++) {
        route(r, pos, 1);
    }
    assert_false(presence_route_is_dropping(r));
    assert_int_equal(presence_route_open(r, PRESENCE_ROUTE_TRACKED_MAX + 1), PRESENCE_ROUTE_DROP);
    assert_true(presence_route_is_dropping(r));
    presence_route_close(r);
    /* What is on its way is still confirmed. */
    delivered(r, 0, PRESENCE_ROUTE_TRACKED_MAX);
    assert_news(r, PRESENCE_ROUTE_TRACKED_MAX);
    presence_route_begin(r, 5, PRESENCE_ROUTE_TRACKED_MAX);
    assert_false(presence_route_is_dropping(r));
    route(r, PRESENCE_ROUTE_TRACKED_MAX + 1, 0);
    assert_news(r, PRESENCE_ROUTE_TRACKED_MAX + 1);
}

/* The ring goes around several times with positions confirmed late. */
static void
test_ring_goes_around(void **state)
{
    presence_route_t *r = *state;
    presence_route_begin(r, 5, 0);
    for (uint64_t pos = 1; pos <= 5ULL * PRESENCE_ROUTE_TRACKED_MAX; pos++) {
        route(r, pos, 1);
        if (pos > 1000) {
            delivered(r, 0, pos - 1000);
            assert_news(r, pos - 1000);
        }
    }
}

static struct cq_route
a_route(uint64_t pos, uint8_t *event, size_t n)
{
    /* event: msgpack bin 32 of n bytes */
    event[0] = 0xc6;
    event[1] = (uint8_t)((n - 5) >> 24);
    event[2] = (uint8_t)((n - 5) >> 16);
    event[3] = (uint8_t)((n - 5) >> 8);
    event[4] = (uint8_t)(n - 5);
    return (struct cq_route){.pos = pos, .event = {event, n}};
}

static void
test_hold(void **state)
{
    presence_route_t *r = *state;
    static uint8_t event[100];
    struct cq_route out;
    presence_route_begin(r, 5, 0);
    assert_false(presence_route_unhold(r, &out));
    /* Held and taken alternately, so that the buffer is moved. */
    uint64_t next = 1;
    for (uint64_t pos = 1; pos <= 3000; pos++) {
        struct cq_route in = a_route(pos, event, sizeof event);
        in.rewatch = pos % 2;
        assert_true(presence_route_hold(r, &in));
        if (pos % 3 != 0) {
            assert_true(presence_route_unhold(r, &out));
            assert_int_equal(out.pos, next);
            assert_int_equal(out.rewatch, next % 2);
            assert_int_equal(out.event.n, sizeof event);
            assert_memory_equal(out.event.p, event, sizeof event);
            next++;
        }
    }
    assert_int_equal(presence_route_held(r), 1000);
    while (presence_route_unhold(r, &out)) {
        assert_int_equal(out.pos, next++);
    }
    assert_int_equal(next, 3001);
}

static void
test_bounds_of_held(void **state)
{
    presence_route_t *r = *state;
    struct cq_route out;
    enum {
        BIG = 1 << 20
    };
    uint8_t *event = malloc(BIG);
    assert_non_null(event);
    memset(event, 1, BIG);
    presence_route_begin(r, 5, 0);
    uint64_t pos = 0;
    struct cq_route in = a_route(1, event, BIG);
    while (presence_route_hold(r, &in)) {
        in.pos++;
        assert_true(++pos <= 16);
    }
    assert_true(presence_route_is_dropping(r));
    assert_true(pos >= 15);
    /* Those in front are still good. */
    assert_true(presence_route_unhold(r, &out));
    assert_int_equal(out.pos, 1);
    assert_int_equal(presence_route_open(r, out.pos), PRESENCE_ROUTE_TRACK);
    presence_route_close(r);
    assert_news(r, 1);
    presence_route_begin(r, 5, 1);
    assert_int_equal(presence_route_held(r), 0);
    in = a_route(2, event, 10);
    for (size_t i = 0; i < PRESENCE_ROUTE_HELD_MAX; i++) {
        assert_true(presence_route_hold(r, &in));
    }
    assert_false(presence_route_hold(r, &in));
    free(event);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_in_order_only),
        TEST(test_all_edges_of_a_route),
        TEST(test_edge_down_confirms_its_part),
        TEST(test_ephemeral_is_numbered_but_not_counted),
        TEST(test_lies_are_refused),
        TEST(test_new_stream),
        TEST(test_bound_of_tracked),
        TEST(test_ring_goes_around),
        TEST(test_hold),
        TEST(test_bounds_of_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
