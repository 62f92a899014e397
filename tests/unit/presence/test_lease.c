/* SPDX-License-Identifier: MPL-2.0 */
#include <stdio.h>

#include "presence/lease.h"
#include "tests/unit/presence/lib.h"

static int
up(presence_lease_t *l, const char *name, uint64_t incarnation)
{
    bool fresh;
    return presence_lease_up(l, name, incarnation, &fresh);
}

static void
test_ready_when_all_have_announced(void **state)
{
    (void)state;
    static presence_lease_t l;
    int a = up(&l, "edge.1", 1);
    int b = up(&l, "edge.2", 2);
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_false(presence_lease_settle(&l));
    l.registered = true;
    assert_false(presence_lease_settle(&l));
    l.edges[a].announced = true;
    assert_int_equal(presence_lease_missing(&l), 1);
    assert_false(presence_lease_settle(&l));
    /* The other one dies instead. */
    assert_int_equal(presence_lease_down(&l, "edge.2"), b);
    assert_true(presence_lease_settle(&l));
    assert_false(presence_lease_settle(&l)); /* only once */
    /* Ready stays, even with an edge that has not announced. */
    assert_int_equal(up(&l, "edge.2", 3), b);
    assert_true(l.ready);
    presence_lease_lost(&l);
    l.registered = true;
    assert_false(presence_lease_settle(&l));
}

static void
test_index_and_incarnation(void **state)
{
    (void)state;
    static presence_lease_t l;
    bool fresh = false;
    int a = presence_lease_up(&l, "edge.1", 7, &fresh);
    assert_true(fresh);
    assert_int_equal(presence_lease_down(&l, "edge.1"), a);
    assert_int_equal(presence_lease_find(&l, "edge.1"), -1);
    assert_int_equal(presence_lease_down(&l, "edge.1"), -1);
    /* The same process again: its numbers go on. */
    assert_int_equal(presence_lease_up(&l, "edge.1", 7, &fresh), a);
    assert_false(fresh);
    assert_int_equal(presence_lease_up(&l, "edge.1", 8, &fresh), a);
    assert_true(fresh);
}

static void
test_full_table(void **state)
{
    (void)state;
    static presence_lease_t l;
    char name[32];
    for (int i = 0; i < PRESENCE_EDGE_MAX; i++) {
        (void)snprintf(name, sizeof name, "edge.%d", i);
        assert_true(up(&l, name, 1) >= 0);
    }
    assert_int_equal(up(&l, "edge.x", 1), -CQ_E_BUSY);
    int freed = presence_lease_down(&l, "edge.17");
    bool fresh = false;
    assert_int_equal(presence_lease_up(&l, "edge.x", 1, &fresh), freed);
    assert_true(fresh);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_when_all_have_announced),
        cmocka_unit_test(test_index_and_incarnation),
        cmocka_unit_test(test_full_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
