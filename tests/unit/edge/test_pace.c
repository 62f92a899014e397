/* SPDX-License-Identifier: MPL-2.0
 * The share of newcomers: down as soon as there is a wait for a processor, up again step by step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/net_conn.h"

enum {
    LEAST = 5,
    MOST = 20,
    LOOK_US = 20000
};

static unsigned
next(unsigned share, uint64_t waited_us)
{
    return edge_net_pace_next_share(share, LEAST, MOST, LOOK_US, waited_us);
}

static void
who_has_to_wait_gives_less(void **state)
{
    (void)state;
    assert_int_equal(next(MOST, LOOK_US), 10);
    assert_int_equal(next(10, LOOK_US / 2), LEAST);
    assert_int_equal(next(9, LOOK_US / 2), LEAST); /* never less */
    assert_int_equal(next(LEAST, LOOK_US), LEAST);
}

static void
who_has_not_gives_more_again(void **state)
{
    unsigned share = LEAST;
    (void)state;
    for (unsigned i = LEAST; i < MOST; i++) {
        share = next(share, LOOK_US / 50);
        assert_int_equal(share, i + 1);
    }
    assert_int_equal(next(share, 0), MOST);
    assert_int_equal(edge_net_pace_next_share(LEAST, LEAST, MOST, UINT64_C(7) * LOOK_US, 0),
                     LEAST + 7);
    assert_int_equal(edge_net_pace_next_share(LEAST, LEAST, MOST, UINT64_MAX / 1000, 0), MOST);
}

/* What a quiet machine makes a thread wait is no reason. */
static void
some_wait_is_nothing(void **state)
{
    (void)state;
    assert_int_equal(next(MOST, LOOK_US / 10), MOST);
    assert_int_equal(edge_net_pace_next_share(MOST, LEAST, MOST, UINT64_C(1000) * LOOK_US,
                                              UINT64_C(50) * LOOK_US),
                     MOST);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_to_wait_gives_less),
        cmocka_unit_test(who_has_not_gives_more_again),
        cmocka_unit_test(some_wait_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
