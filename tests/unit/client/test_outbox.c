/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/wire/err.h"

#include "client/outbox.h"

enum {
    WINDOW = 16
};

static struct cq_out
row(uint64_t dseq, uint64_t prev, enum cq_out_state state)
{
    return (struct cq_out){.dseq = dseq, .prev = prev, .state = state};
}

static void
test_verdicts(void **state)
{
    (void)state;
    assert_int_equal(cq_outbox_judge(0), CQ_OUTBOX_SENT);
    assert_int_equal(cq_outbox_judge(CQ_E_OUT_OF_ORDER), CQ_OUTBOX_REORDER);
    assert_int_equal(cq_outbox_judge(CQ_E_DSEQ_CONFLICT), CQ_OUTBOX_CONFLICT);
    assert_int_equal(cq_outbox_judge(CQ_E_KEY_VERSION), CQ_OUTBOX_REKEY);
    assert_int_equal(cq_outbox_judge(CQ_E_CHAT_CLOSED), CQ_OUTBOX_REFUSED);
    assert_int_equal(cq_outbox_judge(CQ_E_NOT_FOUND), CQ_OUTBOX_REFUSED);
    static const int later[] = {
        CQ_E_BUSY,        CQ_E_RATE_LIMITED, CQ_E_UNAVAILABLE, CQ_E_DEADLINE,        CQ_E_NO_SPACE,
        CQ_E_WINDOW_FULL, CQ_E_INTERNAL,     CQ_E_IO,          CQ_E_UNKNOWN_OUTCOME, 999};
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        assert_int_equal(cq_outbox_judge(later[i]), CQ_OUTBOX_RETRY);
    }
}

static void
test_in_order_up_to_the_window(void **state)
{
    (void)state;
    struct cq_out rows[20];
    bool flying[20] = {false};
    for (size_t i = 0; i < 20; i++) {
        rows[i] = row(i + 1, i, CQ_OUT_QUEUED);
    }
    for (size_t i = 0; i < WINDOW; i++) {
        struct cq_outbox_plan p = cq_outbox_next(rows, flying, 20, 0, WINDOW);
        assert_int_equal(p.step, CQ_OUTBOX_SEND);
        assert_int_equal(p.row, i);
        flying[i] = true;
    }
    assert_int_equal(cq_outbox_next(rows, flying, 20, 0, WINDOW).step, CQ_OUTBOX_NOTHING);
    assert_int_equal(cq_outbox_next(rows, flying, 0, 0, WINDOW).step, CQ_OUTBOX_NOTHING);
}

static void
test_unknown_goes_out_unchanged(void **state)
{
    (void)state;
    /* 5, 6 and 7 were accepted and the answers were lost: the first answers come again, whatever
     * prev says */
    struct cq_out rows[] = {row(5, 4, CQ_OUT_UNKNOWN), row(6, 5, CQ_OUT_UNKNOWN),
                            row(7, 6, CQ_OUT_UNKNOWN), row(8, 7, CQ_OUT_QUEUED)};
    bool flying[4] = {false};
    for (size_t i = 0; i < 4; i++) {
        struct cq_outbox_plan p = cq_outbox_next(rows, flying, 4, 7, WINDOW);
        assert_int_equal(p.step, CQ_OUTBOX_SEND);
        assert_int_equal(p.row, i);
        flying[i] = true;
    }
}

static void
test_hole_after_a_refusal(void **state)
{
    (void)state;
    /* 5 was refused for good (its row is not live any more): 6 follows 4 */
    struct cq_out rows[] = {row(6, 5, CQ_OUT_REFUSED), row(7, 6, CQ_OUT_REFUSED)};
    bool flying[2] = {false};
    struct cq_outbox_plan p = cq_outbox_next(rows, flying, 2, 4, WINDOW);
    assert_int_equal(p.step, CQ_OUTBOX_RECHAIN);
    assert_int_equal(p.row, 0);
    assert_int_equal(p.prev, 4);
    rows[0].prev = 4;
    flying[0] = true;
    p = cq_outbox_next(rows, flying, 2, 4, WINDOW);
    assert_int_equal(p.step, CQ_OUTBOX_SEND);
    assert_int_equal(p.row, 1);
    /* while its answer is not known, its prev must stay */
    rows[0] = row(6, 5, CQ_OUT_UNKNOWN);
    flying[0] = false;
    p = cq_outbox_next(rows, flying, 2, 4, WINDOW);
    assert_int_equal(p.step, CQ_OUTBOX_SEND);
    assert_int_equal(p.row, 0);
}

static void
test_the_window_begins_at_the_oldest(void **state)
{
    (void)state;
    /* 5 may have been accepted and has no answer yet, 6 to 20 have theirs: with 21 the store would
     * forget its answer for 5 */
    struct cq_out rows[] = {row(5, 4, CQ_OUT_UNKNOWN), row(21, 20, CQ_OUT_QUEUED)};
    bool flying[2] = {false};
    assert_int_equal(cq_outbox_next(rows, flying, 2, 20, WINDOW).row, 0);
    flying[0] = true;
    assert_int_equal(cq_outbox_next(rows, flying, 2, 20, WINDOW).step, CQ_OUTBOX_NOTHING);
    rows[0].dseq = 6;
    assert_int_equal(cq_outbox_next(rows, flying, 2, 20, WINDOW).step, CQ_OUTBOX_SEND);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_in_order_up_to_the_window),
        cmocka_unit_test(test_unknown_goes_out_unchanged),
        cmocka_unit_test(test_hole_after_a_refusal),
        cmocka_unit_test(test_the_window_begins_at_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
