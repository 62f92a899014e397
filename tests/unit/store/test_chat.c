/* SPDX-License-Identifier: MPL-2.0
 * What records do to a chat: order, deduplication, cursors, unread counts, and that a replay adds
 * nothing twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/chat.h"

static const struct cq_id chat_id = {{1}};
static const struct cq_id ann = {{2}};
static const struct cq_id bob = {{3}};
static const struct cq_id ann_phone = {{4}};
static const struct cq_id bob_phone = {{5}};
static const struct cq_id none;

/* Index rows that have left the tail, as the table would have them. */
static struct store_chat_index table[4096];

static int
look_up(void *ctx, const struct cq_id *chat, uint64_t seq, struct store_chat_index *out)
{
    (void)ctx;
    assert_true(cq_id_eq(chat, &chat_id));
    if (seq >= 4096 || table[seq].pos == 0) {
        return -CQ_E_NOT_FOUND;
    }
    *out = table[seq];
    return 0;
}

static const struct store_chat_lookup lookup = {look_up, NULL};

static int
befriend(struct store_chat *c, uint64_t pos, bool blocks)
{
    struct cq_rec_friend f = {
        .user = bob,
        .peer = ann,
        .action = CQ_OP_ACCEPT,
        .user_relation = CQ_RELATION_FRIENDS,
        .peer_relation = CQ_RELATION_FRIENDS,
        .user_blocks = blocks,
        .chat = chat_id,
        .key_version = 1,
    };
    return store_chat_apply(c, pos, CQ_REC_FRIEND, &f, &lookup);
}

static int
say(struct store_chat *c, uint64_t pos, bool is_ann, uint64_t seq, uint64_t dseq)
{
    struct cq_rec_message m = {
        .chat = chat_id,
        .seq = seq,
        .user = is_ann ? ann : bob,
        .device = is_ann ? ann_phone : bob_phone,
        .dseq = dseq,
        .time_unix_ms = 1000 + pos,
        .key_version = 1,
    };
    return store_chat_apply(c, pos, CQ_REC_MESSAGE, &m, &lookup);
}

static int
receipt(struct store_chat *c,
        uint64_t pos,
        const struct cq_id *user,
        const struct cq_id *device,
        uint64_t up_to)
{
    struct cq_rec_receipt r = {
        .chat = chat_id, .user = *user, .device = *device, .up_to = up_to, .time_unix_ms = pos};
    return store_chat_apply(c, pos, CQ_REC_RECEIPT, &r, &lookup);
}

static int
fresh(void **state)
{
    struct store_chat *c = malloc(sizeof *c);
    memset(table, 0, sizeof table);
    store_chat_init(c, &chat_id);
    assert_int_equal(befriend(c, 1, false), 0);
    *state = c;
    return 0;
}

static int
done(void **state)
{
    store_chat_fini(*state);
    free(*state);
    return 0;
}

static void
members_are_sorted_and_blocks_close(void **state)
{
    struct store_chat *c = *state;
    assert_int_equal(store_chat_member(c, &ann), 0);
    assert_int_equal(store_chat_member(c, &bob), 1);
    assert_int_equal(store_chat_member(c, &chat_id), -1);
    assert_true(c->open);
    assert_int_equal(befriend(c, 2, true), 0);
    assert_false(c->open);
}

static void
seq_has_no_gaps(void **state)
{
    struct store_chat *c = *state;
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    assert_int_equal(say(c, 3, true, 3, 2), -CQ_E_CORRUPT);
    assert_int_equal(c->head, 1);
    assert_int_equal(c->last_pos, 2);
    assert_int_equal(say(c, 3, false, 2, 1), 0);
    assert_int_equal(c->head, 2);
}

static void
send_follows_prev(void **state)
{
    struct store_chat *c = *state;
    uint64_t seq = 0;
    assert_int_equal(store_chat_judge(c, &ann_phone, 5, 0, &seq), STORE_CHAT_ACCEPT);
    assert_int_equal(say(c, 2, true, 1, 5), 0);
    assert_int_equal(store_chat_judge(c, &ann_phone, 7, 5, &seq), STORE_CHAT_ACCEPT);
    assert_int_equal(store_chat_judge(c, &ann_phone, 7, 6, &seq), STORE_CHAT_OUT_OF_ORDER);
    assert_int_equal(store_chat_judge(c, &ann_phone, 7, 0, &seq), STORE_CHAT_OUT_OF_ORDER);
    assert_int_equal(store_chat_judge(c, &ann_phone, 5, 0, &seq), STORE_CHAT_REPEAT);
    assert_int_equal(seq, 1);
    assert_int_equal(store_chat_judge(c, &ann_phone, 4, 0, &seq), STORE_CHAT_CONFLICT);
    assert_int_equal(store_chat_judge(c, &bob_phone, 1, 0, &seq), STORE_CHAT_ACCEPT);
}

static void
answers_of_one_window_are_kept(void **state)
{
    struct store_chat *c = *state;
    uint64_t seq = 0;
    for (uint64_t i = 1; i <= 3 * CQ_WINDOW; i++) {
        assert_int_equal(say(c, 1 + i, true, i, 10 * i), 0);
    }
    for (uint64_t i = 1; i <= 3 * CQ_WINDOW; i++) {
        bool kept = i > 2 * CQ_WINDOW;
        assert_int_equal(store_chat_judge(c, &ann_phone, 10 * i, 10 * (i - 1), &seq),
                         kept ? STORE_CHAT_REPEAT : STORE_CHAT_CONFLICT);
        if (kept) {
            assert_int_equal(seq, i);
        }
    }
}

static void
cursors_only_grow(void **state)
{
    struct store_chat *c = *state;
    for (uint64_t i = 1; i <= 5; i++) {
        assert_int_equal(say(c, 1 + i, true, i, i), 0);
    }
    assert_int_equal(receipt(c, 10, &bob, &bob_phone, 4), 0);
    assert_int_equal(receipt(c, 11, &bob, &bob_phone, 2), 0);
    assert_int_equal(store_chat_device(c, &bob_phone)->delivered, 4);
    assert_int_equal(receipt(c, 12, &bob, &none, 3), 0);
    assert_int_equal(receipt(c, 13, &bob, &none, 1), 0);
    assert_int_equal(c->members[1].read, 3);
    assert_int_equal(receipt(c, 14, &bob, &bob_phone, 6), -CQ_E_CORRUPT);
    assert_int_equal(receipt(c, 14, &chat_id, &none, 1), -CQ_E_CORRUPT);
    assert_true(c->members[0].read_audit);
    assert_false(c->members[1].read_audit);
    assert_int_equal(c->members[0].read_audit_pos, 12);
}

/* Against the plain way to count, with random senders, reads and trims. */
static void
unread_counts_other_peoples_messages(void **state)
{
    struct store_chat *c = *state;
    bool by_ann[512];
    uint64_t dseq[2] = {0, 0};
    uint64_t pos = 1;
    srand(7);
    for (uint64_t seq = 1; seq < 500; seq++) {
        by_ann[seq] = rand() % 3 != 0;
        assert_int_equal(say(c, ++pos, by_ann[seq], seq, ++dseq[by_ann[seq]]), 0);
        if (rand() % 4 == 0) {
            uint64_t up_to = 1 + (uint64_t)rand() % seq;
            assert_int_equal(receipt(c, ++pos, rand() % 2 ? &ann : &bob, &none, up_to), 0);
        }
        if (rand() % 9 == 0 && c->tail_count) {
            uint64_t upto = c->tail_first + (uint64_t)rand() % c->tail_count;
            for (uint64_t s = c->tail_first; s <= upto; s++) {
                assert_true(store_chat_tail(c, s, &table[s]));
            }
            store_chat_trim(c, upto);
        }
        for (int m = 0; m < 2; m++) {
            uint64_t count = 0;
            uint64_t first = 0;
            for (uint64_t s = seq; s > c->members[m].read; s--) {
                if (by_ann[s] != (m == 0)) {
                    count++;
                    first = s;
                }
            }
            assert_int_equal(c->members[m].unread_count, count);
            if (count) {
                assert_int_equal(c->members[m].first_unread, first);
            }
        }
    }
}

static void
replay_adds_nothing_twice(void **state)
{
    struct store_chat *c = *state;
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    assert_int_equal(say(c, 3, true, 2, 2), 0);
    assert_int_equal(receipt(c, 4, &bob, &none, 1), 0);
    cq_buf_t once = {0};
    cq_buf_t twice = {0};
    store_chat_write(&once, c);
    assert_int_equal(befriend(c, 1, true), 0);
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    assert_int_equal(say(c, 3, true, 2, 2), 0);
    assert_int_equal(receipt(c, 4, &bob, &none, 1), 0);
    store_chat_write(&twice, c);
    assert_int_equal(once.size, twice.size);
    assert_memory_equal(once.data, twice.data, once.size);
    cq_buf_free(&once);
    cq_buf_free(&twice);
}

static void
row_survives_a_round_trip(void **state)
{
    struct store_chat *c = *state;
    for (uint64_t i = 1; i <= 40; i++) {
        assert_int_equal(say(c, 1 + i, i % 3 != 0, i, 3 * i), 0);
    }
    assert_int_equal(receipt(c, 50, &bob, &bob_phone, 30), 0);
    assert_int_equal(receipt(c, 51, &bob, &none, 20), 0);
    cq_buf_t row = {0};
    cq_buf_t again = {0};
    struct store_chat copy;
    store_chat_write(&row, c);
    store_chat_init(&copy, &chat_id);
    assert_int_equal(store_chat_read((struct cq_view){row.data, row.size}, &copy), 0);
    store_chat_write(&again, &copy);
    assert_int_equal(row.size, again.size);
    assert_memory_equal(row.data, again.data, row.size);
    assert_int_equal(copy.tail_first, 33);
    assert_int_equal(copy.tail_count, 8);
    assert_memory_equal(copy.tail, c->tail + 32, 8 * sizeof *copy.tail);
    store_chat_fini(&copy);
    /* Damaged rows are found, not believed. */
    for (size_t cut = 0; cut < row.size; cut++) {
        store_chat_init(&copy, &chat_id);
        assert_int_equal(store_chat_read((struct cq_view){row.data, cut}, &copy), -CQ_E_CORRUPT);
        store_chat_fini(&copy);
    }
    cq_buf_free(&row);
    cq_buf_free(&again);
}

static void
blocks_survive_a_round_trip(void **state)
{
    struct store_chat *c = *state;
    struct store_chat_block block;
    cq_buf_t row = {0};
    uint64_t pos = 1;
    for (uint64_t i = 1; i <= 3 * STORE_CHAT_BLOCK + 1; i++) {
        pos += 1 + i * i * i; /* differences of one to three bytes */
        assert_int_equal(say(c, pos, i % 3 != 0, i, i), 0);
    }
    for (uint64_t first = 1; first <= 2 * STORE_CHAT_BLOCK + 1; first += STORE_CHAT_BLOCK) {
        cq_buf_clear(&row);
        store_chat_write_block(&row, c, first);
        assert_int_equal(store_chat_read_block((struct cq_view){row.data, row.size}, &block), 0);
        for (unsigned i = 0; i < STORE_CHAT_BLOCK; i++) {
            struct store_chat_index kept;
            struct store_chat_index read = store_chat_block_entry(&block, i);
            assert_true(store_chat_tail(c, first + i, &kept));
            assert_int_equal(read.pos, kept.pos);
            assert_int_equal(read.rank, kept.rank);
        }
        for (size_t cut = 0; cut < row.size; cut++) {
            assert_int_equal(store_chat_read_block((struct cq_view){row.data, cut}, &block),
                             -CQ_E_CORRUPT);
        }
    }
    /* What follows a trimmed block has the same row as before. */
    cq_buf_t again = {0};
    store_chat_trim(c, 2 * STORE_CHAT_BLOCK + 5);
    assert_int_equal(c->tail_first, 2 * STORE_CHAT_BLOCK + 1);
    store_chat_write_block(&again, c, c->tail_first);
    assert_int_equal(row.size, again.size);
    assert_memory_equal(row.data, again.data, row.size);
    cq_buf_free(&row);
    cq_buf_free(&again);
}

static void
devices_are_bounded(void **state)
{
    struct store_chat *c = *state;
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    for (uint8_t i = 0; i < STORE_CHAT_DEVICES_MAX - 1; i++) {
        struct cq_id device = {{9, i}};
        assert_int_equal(receipt(c, 3 + i, &bob, &device, 1), 0);
    }
    struct cq_id one_more = {{10}};
    assert_int_equal(receipt(c, 500, &bob, &one_more, 1), -CQ_E_CORRUPT);
    assert_int_equal(c->device_count, STORE_CHAT_DEVICES_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

static int
known(struct store_chat *c, uint64_t pos, const struct cq_id *user, uint64_t known_pos)
{
    struct cq_rec_known k = {.chat = chat_id, .user = *user, .known_pos = known_pos};
    return store_chat_apply(c, pos, CQ_REC_KNOWN, &k, &lookup);
}

static void
a_read_audit_ends_when_it_is_known(void **state)
{
    struct store_chat *c = *state;
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    assert_int_equal(receipt(c, 3, &bob, &none, 1), 0);
    assert_int_equal(known(c, 4, &ann, 2), 0); /* what it had before */
    assert_true(c->members[0].read_audit);
    assert_int_equal(known(c, 5, &bob, 4), 0); /* the other one's devices */
    assert_true(c->members[0].read_audit);
    assert_int_equal(known(c, 6, &ann, 3), 0);
    assert_false(c->members[0].read_audit);
    assert_int_equal(known(c, 7, &chat_id, 3), -CQ_E_CORRUPT);
    assert_int_equal(c->last_pos, 6);
    assert_int_equal(c->changed_pos, 3); /* nobody has to be told */
    assert_int_equal(say(c, 8, true, 2, 2), 0);
    assert_int_equal(c->changed_pos, 8);
    assert_int_equal(receipt(c, 9, &bob, &none, 2), 0);
    assert_true(c->members[0].read_audit);
}

static int
forget(struct store_chat *c, uint64_t pos, const struct cq_id *user, const struct cq_id *device)
{
    struct cq_rec_forget f = {.chat = chat_id, .user = *user, .device = *device};
    return store_chat_apply(c, pos, CQ_REC_FORGET, &f, &lookup);
}

static void
a_device_is_forgotten(void **state)
{
    struct store_chat *c = *state;
    static const struct cq_id ann_tablet = {{9}};
    assert_int_equal(say(c, 2, true, 1, 1), 0);
    assert_int_equal(say(c, 3, false, 2, 1), 0);
    assert_int_equal(receipt(c, 4, &ann, &ann_tablet, 2), 0);
    assert_int_equal(forget(c, 5, &bob, &ann_phone), -CQ_E_CORRUPT); /* not his */
    assert_int_equal(forget(c, 5, &ann, &chat_id), -CQ_E_CORRUPT);
    assert_int_equal(c->device_count, 3);
    assert_int_equal(forget(c, 5, &ann, &ann_phone), 0);
    assert_int_equal(c->device_count, 2);
    assert_null(store_chat_device(c, &ann_phone));
    assert_int_equal(store_chat_device(c, &bob_phone)->last_dseq, 1);
    assert_int_equal(store_chat_device(c, &ann_tablet)->delivered, 2);
    assert_int_equal(c->changed_pos, 4);
    assert_int_equal(forget(c, 5, &ann, &ann_phone), 0); /* a replay */
    assert_int_equal(c->head, 2);
}

static int
read_on(struct store_chat *c, uint64_t pos, const struct cq_id *device, uint64_t up_to)
{
    struct cq_rec_read r = {
        .chat = chat_id, .user = ann, .device = *device, .up_to = up_to, .time_unix_ms = pos};
    return store_chat_apply(c, pos, CQ_REC_READ, &r, &lookup);
}

static void
reading_says_that_the_device_holds_it(void **state)
{
    struct store_chat *c = *state;
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_int_equal(say(c, 1 + seq, false, seq, seq), 0);
    }
    assert_int_equal(read_on(c, 5, &ann_phone, 2), 0);
    assert_int_equal(c->members[0].read, 2);
    assert_int_equal(store_chat_device(c, &ann_phone)->delivered, 2);
    assert_int_equal(store_chat_device(c, &ann_phone)->delivered_time_unix_ms, 5);
    assert_true(c->members[1].read_audit);
    assert_int_equal(receipt(c, 6, &ann, &ann_phone, 3), 0);
    assert_int_equal(read_on(c, 7, &ann_phone, 3), 0); /* read grows, delivered was there */
    assert_int_equal(store_chat_device(c, &ann_phone)->delivered_time_unix_ms, 6);
    assert_int_equal(read_on(c, 8, &ann_phone, 4), -CQ_E_CORRUPT); /* above the head */
    assert_int_equal(c->receipt_count, 4);
    assert_int_equal(read_on(c, 7, &ann_phone, 3), 0); /* a replay adds nothing */
    assert_int_equal(c->receipt_count, 4);
    const struct store_chat_receipt *r = c->receipts;
    assert_true(r[0].is_read && cq_id_eq(&r[0].id, &ann) && r[0].up_to == 2 && r[0].pos == 5);
    assert_true(!r[1].is_read && cq_id_eq(&r[1].id, &ann_phone) && r[1].pos == 5);
    assert_true(!r[2].is_read && r[2].up_to == 3 && r[2].pos == 6);
    assert_true(r[3].is_read && r[3].up_to == 3 && r[3].pos == 7);
    store_chat_trim_receipts(c, 5);
    assert_int_equal(c->receipt_count, 2);
    assert_int_equal(c->receipts[0].pos, 6);
    store_chat_trim_receipts(c, 100);
    assert_int_equal(c->receipt_count, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(members_are_sorted_and_blocks_close),
        TEST(seq_has_no_gaps),
        TEST(send_follows_prev),
        TEST(answers_of_one_window_are_kept),
        TEST(cursors_only_grow),
        TEST(unread_counts_other_peoples_messages),
        TEST(replay_adds_nothing_twice),
        TEST(row_survives_a_round_trip),
        TEST(blocks_survive_a_round_trip),
        TEST(devices_are_bounded),
        TEST(reading_says_that_the_device_holds_it),
        TEST(a_read_audit_ends_when_it_is_known),
        TEST(a_device_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
