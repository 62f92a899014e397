/* SPDX-License-Identifier: MPL-2.0
 * Output queues: frames, bounds, the two policies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/buf.h"
#include "common/wire/frame.h"
#include "common/wire/pack.h"

#include "edge/outq.h"

/* An operation of exactly n bytes with a number in it. */
static struct cq_view
op(cq_buf_t *b, uint64_t number, size_t n)
{
    cq_buf_clear(b);
    cq_pack_array(b, 3);
    cq_pack_uint(b, CQ_OP_MESSAGE);
    cq_pack_uint(b, number);
    size_t left = n - b->size;
    uint8_t *filler = calloc(1, left + 1);
    size_t head = left > 65538 ? 5 : left > 257 ? 3 : 2;
    cq_pack_bin(b, filler, left - head);
    free(filler);
    assert_int_equal(b->size, n);
    return (struct cq_view){b->data, b->size};
}

/* Takes the first frame: its number of operations; *first: the number in the first. */
static int
take(struct edge_outq *q, uint64_t *first, size_t *bytes)
{
    uint8_t *frame;
    if (!edge_outq_front(q, &frame, bytes)) {
        return -1;
    }
    memset(frame - 24, 0xee, 24); /* the headroom is ours */
    cq_reader_t r;
    int count = cq_frame_open(frame, *bytes, 1000000, &r);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        struct cq_frame_op o;
        assert_int_equal(cq_frame_next(&r, &o), 0);
        uint64_t number = cq_read_uint(&o.fields, UINT64_MAX);
        *first = i ? *first : number;
        assert_int_equal(number, *first + (uint64_t)i);
    }
    assert_true(cq_reader_at_end(&r));
    edge_outq_pop(q);
    return count;
}

static void
test_gathers_into_one_frame(void **state)
{
    (void)state;
    struct edge_outq q = {0};
    cq_buf_t b = {0};
    uint64_t first = 0;
    size_t n = 0;
    static const size_t counts[] = {1, 15, 16, 17, 1000};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        for (size_t i = 0; i < counts[k]; i++) {
            assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 1 + i, 40), 1 << 20));
        }
        assert_int_equal(q.bytes, counts[k] * 40);
        assert_int_equal(take(&q, &first, &n), counts[k]);
        assert_int_equal(first, 1);
        assert_true(edge_outq_is_empty(&q));
        assert_int_equal(q.bytes, 0);
    }
    cq_buf_free(&b);
}

static void
test_splits_at_the_gather_limit(void **state)
{
    (void)state;
    struct edge_outq q = {0};
    cq_buf_t b = {0};
    for (uint64_t i = 0; i < 50; i++) {
        assert_true(edge_outq_put(&q, EDGE_OUTQ_DURABLE, op(&b, i, 10000), 1 << 20));
    }
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 50, 300000), 1 << 20));
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 51, 30), 1 << 20));
    uint64_t next = 0;
    uint64_t first = 0;
    size_t n = 0;
    int count;
    while ((count = take(&q, &first, &n)) > 0) {
        assert_int_equal(first, next);
        assert_true(n <= EDGE_OUTQ_GATHER_MAX + 8 || count == 1);
        next += (uint64_t)count;
    }
    assert_int_equal(next, 52);
    cq_buf_free(&b);
}

static void
test_front_is_closed(void **state)
{
    (void)state;
    struct edge_outq q = {0};
    cq_buf_t b = {0};
    uint8_t *frame;
    size_t n, first_n;
    uint64_t first;
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 1, 30), 1000));
    assert_true(edge_outq_front(&q, &frame, &first_n));
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 2, 30), 1000));
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 3, 500), 1000));
    assert_true(edge_outq_front(&q, &frame, &n));
    assert_int_equal(n, first_n);
    assert_int_equal(take(&q, &first, &n), 1);
    assert_int_equal(take(&q, &first, &n), 2);
    assert_int_equal(first, 2);
    assert_int_equal(take(&q, &first, &n), -1);
    cq_buf_free(&b);
}

static void
test_policies_at_the_bound(void **state)
{
    (void)state;
    struct edge_outq q = {0};
    cq_buf_t b = {0};
    enum {
        MAX = 1000
    };
    assert_true(edge_outq_put(&q, EDGE_OUTQ_DURABLE, op(&b, 0, 500), MAX));
    assert_true(edge_outq_put(&q, EDGE_OUTQ_EPHEMERAL, op(&b, 1, 500), MAX));
    assert_false(edge_outq_put(&q, EDGE_OUTQ_EPHEMERAL, op(&b, 2, 30), MAX));
    assert_false(q.is_lagging);
    assert_false(edge_outq_put(&q, EDGE_OUTQ_DURABLE, op(&b, 2, 30), MAX));
    assert_true(q.is_lagging);
    assert_true(edge_outq_put(&q, EDGE_OUTQ_ANSWER, op(&b, 2, 3000), MAX));
    size_t n;
    uint64_t first;
    while (take(&q, &first, &n) > 0) {
    }
    assert_true(q.is_lagging);
    assert_false(edge_outq_put(&q, EDGE_OUTQ_DURABLE, op(&b, 3, 30), MAX));
    q.is_lagging = false;
    assert_true(edge_outq_put(&q, EDGE_OUTQ_DURABLE, op(&b, 3, 30), MAX));
    edge_outq_free(&q);
    assert_int_equal(q.bytes, 0);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gathers_into_one_frame),
        cmocka_unit_test(test_splits_at_the_gather_limit),
        cmocka_unit_test(test_front_is_closed),
        cmocka_unit_test(test_policies_at_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
