/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/inbox.h"

static void
test_judge(void **state)
{
    (void)state;
    assert_int_equal(cq_inbox_judge(0, 1), CQ_INBOX_TAKE);
    assert_int_equal(cq_inbox_judge(7, 8), CQ_INBOX_TAKE);
    assert_int_equal(cq_inbox_judge(7, 7), CQ_INBOX_REPEAT);
    assert_int_equal(cq_inbox_judge(7, 1), CQ_INBOX_REPEAT);
    assert_int_equal(cq_inbox_judge(7, 9), CQ_INBOX_GAP);
    assert_int_equal(cq_inbox_judge(7, 0), CQ_INBOX_BAD);
    assert_int_equal(cq_inbox_judge(7, UINT64_MAX), CQ_INBOX_BAD);
}

static void
test_missing(void **state)
{
    (void)state;
    struct cq_inbox_ask none = cq_inbox_missing(5, 5, 500);
    assert_int_equal(none.from, 0);
    assert_int_equal(cq_inbox_missing(6, 5, 500).from, 0);
    struct cq_inbox_ask one = cq_inbox_missing(5, 6, 500);
    assert_int_equal(one.from, 6);
    assert_int_equal(one.to, 6);
    struct cq_inbox_ask many = cq_inbox_missing(0, 100000, 500);
    assert_int_equal(many.from, 1);
    assert_int_equal(many.to, 500);
    struct cq_inbox_ask exact = cq_inbox_missing(10, 510, 500);
    assert_int_equal(exact.to, 510);
    struct cq_inbox_ask huge = cq_inbox_missing(0, UINT64_MAX, 500);
    assert_int_equal(huge.to, 500);
}

static void
test_progress(void **state)
{
    (void)state;
    struct cq_inbox_ask ask = {6, 10};
    assert_false(cq_inbox_progressed(&ask, 5));
    assert_true(cq_inbox_progressed(&ask, 6));
    assert_true(cq_inbox_progressed(&ask, 10));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
