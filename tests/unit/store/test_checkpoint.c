/* SPDX-License-Identifier: MPL-2.0
 * How much is written behind with which commit: every commit carries a little, and the marker never
 * falls further behind than promised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/checkpoint.h"

enum {
    INTERVAL = 20000,
    PER_COMMIT = 100
};

static const struct cq_id ann = {{1}}, bob = {{2}};

static int
no_row(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value)
{
    (void)ctx;
    (void)t;
    (void)key;
    (void)value;
    return -CQ_E_NOT_FOUND;
}

struct load {
    store_projection_t *p;
    uint64_t pos, marker, batch, state;
    size_t rows_max;
    uint64_t lag_max;
    uint64_t partition; /* of the chats that change; 0: any */
};

static int
fresh(void **state)
{
    static struct load load;
    const struct store_projection_cfg cfg = {no_row, NULL, NULL, 1000000};
    load = (struct load){.p = store_projection_new(&cfg), .state = 88172645463325252U};
    *state = &load;
    return 0;
}

static int
done(void **state)
{
    struct load *load = *state;
    store_projection_destroy(&load->p);
    return 0;
}

/* A change of one of `chats` chats. */
static void
change(struct load *l, struct store_batch *b, uint64_t chats)
{
    struct store_chat *c = NULL;
    l->state ^= l->state << 13;
    l->state ^= l->state >> 7;
    l->state ^= l->state << 17;
    uint64_t n = (l->state % chats + 1) * 0x9e3779b97f4a7c15U;
    struct cq_rec_friend f = {.user = ann, .peer = bob, .key_version = 1};
    memcpy(f.chat.b, &n, sizeof n);
    while (l->partition && cq_id_partition(&f.chat) != l->partition) {
        n += 0x9e3779b97f4a7c15U;
        memcpy(f.chat.b, &n, sizeof n);
    }
    assert_int_equal(store_projection_begin(l->p, &f.chat, &c), 0);
    assert_int_equal(store_projection_apply(l->p, c, ++l->pos, CQ_REC_FRIEND, &f), 0);
    size_t begin = store_batch_record_begin(b);
    cq_buf_append(&b->bytes, "r", 1);
    store_batch_record_end(b, begin);
}

static void
commit(struct load *l, uint64_t records, uint64_t chats, bool due)
{
    struct store_batch *b = store_batch_new(++l->batch, l->pos + 1);
    for (uint64_t i = 0; i < records; i++) {
        change(l, b, chats);
    }
    const struct store_checkpoint_now now = {
        .interval_records = INTERVAL, .lag_records = l->pos - l->marker, .is_due = due};
    (void)store_checkpoint_add(l->p, b, &now);
    store_batch_seal(b);
    l->rows_max = b->row_count > l->rows_max ? b->row_count : l->rows_max;
    store_projection_committed(l->p, b);
    l->marker = b->marker ? b->marker : l->marker;
    l->lag_max = l->pos - l->marker > l->lag_max ? l->pos - l->marker : l->lag_max;
    store_batch_destroy(&b);
}

static void
the_marker_keeps_up(void **state)
{
    struct load *l = *state;
    for (unsigned i = 0; i < 10 * INTERVAL / PER_COMMIT; i++) {
        commit(l, PER_COMMIT, 1000000, false);
    }
    assert_true(l->marker > 0);
    assert_true(l->lag_max <= INTERVAL + 2 * PER_COMMIT);
    /* A chat a record, not thousands in one commit. */
    assert_true(l->rows_max <= 2 * PER_COMMIT);
}

static void
large_commits_carry_more(void **state)
{
    struct load *l = *state;
    for (unsigned i = 0; i < 20; i++) {
        commit(l, INTERVAL / 4, 1000000, false);
    }
    assert_true(l->lag_max <= INTERVAL + INTERVAL / 4);
}

/* One partition has all the work of a sweep: it is spread over many commits, and still in time. */
static void
a_heavy_partition_is_spread(void **state)
{
    struct load *l = *state;
    for (unsigned i = 0; i < 10 * INTERVAL / PER_COMMIT; i++) {
        l->partition = i % 3 ? 0 : 7;
        commit(l, PER_COMMIT, 1000000, false);
    }
    assert_true(l->lag_max <= 2 * INTERVAL);
    assert_true(l->rows_max <= 3 * PER_COMMIT + 256);
}

/* Much is behind, and must not get more and more. */
static void
a_late_sweep_hurries(void **state)
{
    struct load *l = *state;
    struct store_batch *b = store_batch_new(++l->batch, 1);
    for (unsigned i = 0; i < 2 * INTERVAL; i++) {
        change(l, b, 1000000);
    }
    store_batch_destroy(&b);
    unsigned commits = 0;
    while (l->pos - l->marker > INTERVAL + INTERVAL / 16) {
        commit(l, PER_COMMIT, 1000000, false);
        assert_true(++commits <= INTERVAL / 2 / PER_COMMIT + 5);
    }
    assert_true(l->rows_max <= 2 * 2 * 2 * PER_COMMIT);
}

static void
a_due_round_needs_no_lag(void **state)
{
    struct load *l = *state;
    commit(l, 1, 10, false);
    assert_int_equal(l->marker, 0);
    commit(l, 0, 10, true);
    assert_int_equal(l->marker, 1);
    assert_int_equal(store_projection_dirty_count(l->p), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_marker_keeps_up),         TEST(large_commits_carry_more),
        TEST(a_heavy_partition_is_spread), TEST(a_late_sweep_hurries),
        TEST(a_due_round_needs_no_lag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
