/* SPDX-License-Identifier: MPL-2.0
 * Write-behind: slices in key order, the marker, trimming, eviction, audit rows; with a table in
 * memory as the disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/projection.h"
#include "store/record.h"

/* The "disk": rows of sealed batches, newest last. */
struct disk_row {
    enum store_table table;
    struct store_key key;
    uint8_t value[2048];
    size_t size;
    bool is_deleted;
};

static struct disk_row disk[20000];
static size_t disk_count;

static int
read_row(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value)
{
    (void)ctx;
    for (size_t i = disk_count; i-- > 0;) {
        if (disk[i].table == t && disk[i].key.n == key.n &&
            memcmp(disk[i].key.b, key.p, key.n) == 0) {
            *value = (struct cq_view){disk[i].value, disk[i].size};
            return disk[i].is_deleted ? -CQ_E_NOT_FOUND : 0;
        }
    }
    return -CQ_E_NOT_FOUND;
}

static struct store_complete on_disk;

static uint64_t batch_number;

static uint64_t pos;

/* The log. */
enum {
    LOG_MAX = 100000
};

static cq_buf_t log_bytes;
static size_t log_ends[LOG_MAX]; /* by position */

static int
read_record(void *ctx, uint64_t at, struct cq_view *record)
{
    (void)ctx;
    assert_true(at > 0 && at <= pos);
    *record = (struct cq_view){log_bytes.data + log_ends[at - 1], log_ends[at] - log_ends[at - 1]};
    return 0;
}

static void
apply(store_projection_t *p, struct store_chat *c, enum cq_rec_kind kind, const void *fields)
{
    assert_true(++pos < LOG_MAX);
    cq_rec_write(&log_bytes, kind, fields);
    log_ends[pos] = log_bytes.size;
    assert_int_equal(store_projection_apply(p, c, pos, kind, fields), 0);
}

/* Commits a slice to the disk; returns its marker. */
static uint64_t
commit(store_projection_t *p, const struct store_slice *slice)
{
    struct store_batch *b = store_batch_new(++batch_number, pos + 1);
    (void)store_projection_slice(p, b, slice);
    store_batch_seal(b);
    for (size_t i = 0; i < b->commit.row_count; i++) {
        const struct store_row *row = &b->commit.rows[i];
        struct disk_row *d = &disk[disk_count++];
        assert_true(disk_count < 20000 && row->value.n <= sizeof d->value);
        *d = (struct disk_row){
            .table = row->table, .size = row->value.n, .is_deleted = row->value.p == NULL};
        store_key_add(&d->key, row->key.p, row->key.n);
        if (row->value.n) {
            memcpy(d->value, row->value.p, row->value.n);
        }
        if (i) {
            const struct store_row *before = row - 1;
            assert_true(before->table < row->table ||
                        memcmp(before->key.p, row->key.p,
                               before->key.n < row->key.n ? before->key.n : row->key.n) < 0);
        }
    }
    store_projection_complete(p, pos, &on_disk);
    store_projection_committed(p, b);
    uint64_t marker = b->marker;
    store_batch_destroy(&b);
    return marker;
}

/* A slice of the round under way; the marker if that ends it, else 0. */
static uint64_t
commit_slice(store_projection_t *p, size_t weight_max)
{
    const struct store_slice slice = {.weight_max = weight_max};
    uint64_t marker = commit(p, &slice);
    return store_projection_in_round(p) ? 0 : marker;
}

static struct cq_id
chat_number(unsigned n)
{
    struct cq_id id = {{(uint8_t)(n * 37), (uint8_t)(n * 101), (uint8_t)n, (uint8_t)(n >> 8), 1}};
    return id;
}

static const struct cq_id ann = {{1}};
static const struct cq_id bob = {{2}};
static const struct cq_id phone = {{3}};
static const struct cq_id tablet = {{4}};

static void
begin(store_projection_t *p, unsigned n)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(n);
    struct cq_rec_friend f = {.user = ann,
                              .peer = bob,
                              .user_relation = CQ_RELATION_FRIENDS,
                              .peer_relation = CQ_RELATION_FRIENDS,
                              .chat = id,
                              .key_version = 1,
                              .user_name = {(const uint8_t *)"ann", 3},
                              .peer_name = {(const uint8_t *)"bob", 3}};
    assert_int_equal(store_projection_begin(p, &id, &c), 0);
    apply(p, c, CQ_REC_FRIEND, &f);
}

static const uint8_t bytes[CQ_MAC_SIZE + 10];

static void
say(store_projection_t *p, unsigned n)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(n);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    struct cq_rec_message m = {.chat = id,
                               .seq = c->head + 1,
                               .user = ann,
                               .device = phone,
                               .dseq = c->head + 1,
                               .nonce = {bytes, 24},
                               .ciphertext = {bytes, sizeof bytes}};
    apply(p, c, CQ_REC_MESSAGE, &m);
}

static void
read_all(store_projection_t *p, unsigned n)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(n);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    struct cq_rec_receipt r = {.chat = id, .user = bob, .up_to = c->head};
    apply(p, c, CQ_REC_RECEIPT, &r);
}

/* bob reads on his tablet, which therefore holds it. */
static void
read_on_tablet(store_projection_t *p, unsigned n)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(n);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    struct cq_rec_read r = {.chat = id, .user = bob, .device = tablet, .up_to = c->head};
    apply(p, c, CQ_REC_READ, &r);
}

/* The position in a receipt row, 0 if there is none. */
static uint64_t
receipt_row(unsigned n, enum store_receipt_kind kind, const struct cq_id *id, uint64_t up_to)
{
    struct cq_id chat = chat_number(n);
    struct store_key key = store_key_receipt(&chat, kind, id, up_to);
    struct cq_view row;
    if (read_row(NULL, STORE_TABLE_RECEIPT, store_key_view(&key), &row)) {
        return 0;
    }
    cq_reader_t r = cq_reader_of(row);
    return cq_read_uint(&r, UINT64_MAX);
}

static int
fresh(void **state)
{
    const struct store_projection_cfg cfg = {read_row, read_record, NULL, 10};
    disk_count = 0;
    pos = 0;
    cq_buf_clear(&log_bytes);
    store_complete_init(&on_disk, 0);
    *state = store_projection_new(&cfg);
    return 0;
}

static int
done(void **state)
{
    store_projection_t *p = *state;
    store_projection_destroy(&p);
    return 0;
}

static void
rounds_end_with_the_marker(void **state)
{
    store_projection_t *p = *state;
    for (unsigned n = 0; n < 50; n++) {
        begin(p, n);
        say(p, n);
    }
    uint64_t head = pos;
    store_projection_round(p);
    unsigned slices = 0;
    uint64_t marker = 0;
    while (!marker) {
        assert_true(++slices < 60);
        say(p,
            slices %
                50); /* goes on changing: belongs to the next round, or is written with this one */
        marker = commit_slice(p, 9);
    }
    assert_true(slices > 5);
    assert_true(marker >= head);
    assert_false(store_projection_in_round(p));
    assert_true(store_projection_dirty_count(p) > 0);
}

enum {
    SWEPT_CHATS = 40,
    SWEPT_COMMITS = 600,
    SWEEP_COMMITS = 20,
};

static void
check_disk(const uint64_t *should)
{
    for (unsigned n = 0; n < SWEPT_CHATS; n++) {
        struct cq_id id = chat_number(n);
        struct store_key key = store_key_of(&id);
        struct store_chat c;
        struct cq_view row;
        store_chat_init(&c, &id);
        if (should[n]) {
            assert_int_equal(read_row(NULL, STORE_TABLE_CHAT, store_key_view(&key), &row), 0);
            assert_int_equal(store_chat_read(row, &c), 0);
            assert_true(c.last_pos >= should[n]);
        }
        store_chat_fini(&c);
    }
}

/* As after a crash: rows from the disk, and the chats are owed the log behind the marker. */
static void
forget(store_projection_t **projection, uint64_t marker)
{
    const struct store_projection_cfg cfg = {read_row, read_record, NULL, 10};
    store_projection_destroy(projection);
    *projection = store_projection_new(&cfg);
    for (uint64_t at = marker + 1; at <= pos; at++) {
        struct cq_view record;
        union store_record fields;
        enum cq_rec_kind kind;
        assert_int_equal(read_record(NULL, at, &record), 0);
        assert_int_equal(store_record_read(record, &kind, &fields), 0);
        struct cq_id chat = store_record_chat(kind, &fields);
        if (at > store_complete_of(&on_disk, &chat)) {
            store_projection_owe(*projection, &chat, at);
        }
    }
    store_projection_resume(*projection);
}

static void
settle(store_projection_t *p)
{
    while (!store_projection_is_settled(p)) {
        assert_int_equal(store_projection_settle(p, 3), 0);
    }
}

/* Whatever the slices: the rows have everything up to the marker, and however often the store is
 * killed, the marker keeps up. */
static void
the_marker_follows_the_sweep(void **state)
{
    store_projection_t *p = *state;
    const struct store_slice slice = {.parts = (int64_t)CQ_PARTITION_COUNT * STORE_SLICE_PARTITION /
                                               SWEEP_COMMITS,
                                      .weight_max = SWEPT_CHATS};
    static uint64_t newest[SWEPT_COMMITS][SWEPT_CHATS]; /* of each chat, up to each commit */
    static uint64_t head[SWEPT_COMMITS];
    uint64_t marker = 0;
    unsigned complete = 0; /* commits up to the marker */
    for (unsigned n = 0; n < SWEPT_CHATS; n++) {
        begin(p, n);
    }
    store_projection_round(p);
    marker = commit_slice(p, SIZE_MAX / 4);
    assert_int_equal(marker, SWEPT_CHATS);
    for (unsigned i = 0; i < SWEPT_COMMITS; i++) {
        memcpy(newest[i], newest[i ? i - 1 : 0], sizeof newest[i]);
        for (unsigned k = 0; k < i % 5; k++) {
            unsigned n = (i * 7 + k * k) % SWEPT_CHATS;
            say(p, n);
            newest[i][n] = pos;
        }
        head[i] = pos;
        uint64_t moved = commit(p, &slice);
        assert_true(moved >= marker && moved <= pos);
        marker = moved;
        for (; complete <= i && head[complete] <= marker; complete++) {
            check_disk(newest[complete]);
        }
        assert_true(i - complete <= 3 * SWEEP_COMMITS || complete > i);
        if (i % (i < SWEPT_COMMITS / 2 ? 97 : 7) == 6) {
            forget(&p, marker);
            if (i % 2) { /* else the sweep does it, partition by partition */
                settle(p);
            }
        }
    }
    *state = p;
}

/* After any number of slices, what is on disk plus the log behind the marker is the whole state. */
static void
forgetting_and_replaying_gives_the_same(void **state)
{
    store_projection_t *p = *state;
    for (unsigned n = 0; n < 20; n++) {
        begin(p, n);
    }
    for (unsigned i = 0; i < 100; i++) {
        say(p, i % 20);
    }
    store_projection_round(p);
    while (!commit_slice(p, 7)) {
    }
    store_projection_reset(p);
    for (unsigned n = 0; n < 20; n++) {
        struct store_chat *c = NULL;
        struct cq_id id = chat_number(n);
        assert_int_equal(store_projection_chat(p, &id, &c), 0);
        assert_int_equal(c->head, 5);
        assert_int_equal(c->members[1].unread_count, 5);
        for (uint64_t seq = 1; seq <= 5; seq++) {
            struct store_chat_index index;
            assert_int_equal(store_projection_index(p, c, seq, &index), 0);
            assert_int_equal(index.pos, 20 + 20 * (seq - 1) + n + 1);
            assert_int_equal(index.rank, seq);
        }
        struct store_chat_index beyond;
        assert_int_equal(store_projection_index(p, c, 6, &beyond), -CQ_E_NOT_FOUND);
    }
}

static uint64_t
head_of(store_projection_t *p, unsigned n)
{
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(n);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    return c->head;
}

/* Some rows are newer than the marker, one chat has no row at all; some chats are asked for, and
 * written to, before it is their turn. */
static void
what_is_owed_is_there_when_asked_for(void **state)
{
    enum {
        CHATS = 30
    };
    store_projection_t *p = *state;
    bool open = false;
    for (unsigned n = 0; n < CHATS; n++) {
        begin(p, n);
    }
    for (unsigned i = 0; i < 4 * CHATS; i++) {
        say(p, i % CHATS);
    }
    store_projection_round(p);
    (void)commit_slice(p, 11);
    begin(p, CHATS);
    say(p, CHATS);
    store_complete_init(&on_disk, 0);
    forget(&p, 0);
    *state = p;
    assert_false(store_projection_is_settled(p));
    assert_int_equal(store_projection_count(p), 0);
    assert_int_equal(head_of(p, 7), 4);
    assert_int_equal(head_of(p, CHATS), 1);
    say(p, 7);
    struct cq_id id = chat_number(8);
    assert_int_equal(store_projection_is_open(p, &id, &open), 0);
    assert_true(open);
    id = chat_number(CHATS + 1);
    assert_int_equal(store_projection_is_open(p, &id, &open), -CQ_E_NOT_FOUND);
    settle(p);
    for (unsigned n = 0; n < CHATS; n++) {
        assert_int_equal(head_of(p, n), n == 7 ? 5 : 4);
    }
    store_projection_round(p);
    uint64_t marker = 0;
    while (!marker) {
        marker = commit_slice(p, 11);
    }
    assert_int_equal(marker, pos);
    uint64_t newest[SWEPT_CHATS] = {0};
    for (unsigned n = 0; n < CHATS; n++) {
        newest[n] = CHATS + 3 * CHATS + n + 1;
    }
    newest[7] = pos;
    check_disk(newest);
}

/* A record that cannot follow: the chat is not to be had, and nothing is written. */
static void
what_is_owed_may_be_damaged(void **state)
{
    store_projection_t *p = *state;
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(1);
    begin(p, 1);
    say(p, 1);
    say(p, 1);
    forget(&p, 0);
    *state = p;
    log_bytes.data[log_ends[1]] ^= 0xff;
    assert_int_equal(store_projection_chat(p, &id, &c), -CQ_E_CORRUPT);
    assert_null(c);
    assert_int_equal(store_projection_settle(p, 1), -CQ_E_CORRUPT);
    assert_false(store_projection_is_settled(p));
    assert_int_equal(store_projection_dirty_count(p), 0);
    /* Nor does the sweep pass it. */
    for (int i = 0; i < 3; i++) {
        const struct store_slice slice = {
            .parts = (int64_t)CQ_PARTITION_COUNT * STORE_SLICE_PARTITION, .weight_max = 1000};
        assert_int_equal(commit(p, &slice), 0);
    }
    assert_int_equal(disk_count, 0);
}

static void
audit_rows_exist_only_while_they_say_something(void **state)
{
    store_projection_t *p = *state;
    struct cq_id id = chat_number(1);
    struct store_key unread = store_key_pair(&id, &bob);
    struct store_key read = store_key_pair(&id, &ann);
    struct cq_view row;
    begin(p, 1);
    say(p, 1);
    store_projection_round(p);
    (void)commit_slice(p, 100);
    assert_int_equal(read_row(NULL, STORE_TABLE_UNREAD, store_key_view(&unread), &row), 0);
    assert_int_equal(read_row(NULL, STORE_TABLE_READ, store_key_view(&read), &row),
                     -CQ_E_NOT_FOUND);
    read_all(p, 1);
    store_projection_round(p);
    (void)commit_slice(p, 100);
    assert_int_equal(read_row(NULL, STORE_TABLE_UNREAD, store_key_view(&unread), &row),
                     -CQ_E_NOT_FOUND);
    assert_int_equal(read_row(NULL, STORE_TABLE_READ, store_key_view(&read), &row), 0);
}

static size_t
block_rows(void)
{
    size_t n = 0;
    for (size_t i = 0; i < disk_count; i++) {
        n += disk[i].table == STORE_TABLE_INDEX;
    }
    return n;
}

static void
a_long_tail_is_written_in_parts(void **state)
{
    store_projection_t *p = *state;
    begin(p, 1);
    for (int i = 0; i < 1000; i++) {
        say(p, 1);
    }
    store_projection_round(p);
    unsigned slices = 0;
    while (!commit_slice(p, 2)) {
        slices++;
    }
    assert_true(slices > 10);
    assert_int_equal(block_rows(), 1000 / STORE_CHAT_BLOCK);
    store_projection_reset(p);
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(1);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    for (uint64_t seq = 1; seq <= 1000; seq++) {
        struct store_chat_index index;
        assert_int_equal(store_projection_index(p, c, seq, &index), 0);
        assert_int_equal(index.pos, seq + 1);
    }
}

static void
receipts_are_indexed(void **state)
{
    store_projection_t *p = *state;
    begin(p, 1);
    say(p, 1);
    read_on_tablet(p, 1); /* position 3 */
    say(p, 1);
    say(p, 1);
    read_all(p, 1); /* position 6: as version 1 wrote it */
    store_projection_round(p);
    (void)commit_slice(p, 100);
    assert_int_equal(receipt_row(1, STORE_RECEIPT_READ, &bob, 1), 3);
    assert_int_equal(receipt_row(1, STORE_RECEIPT_DELIVERED, &tablet, 1), 3);
    assert_int_equal(receipt_row(1, STORE_RECEIPT_READ, &bob, 3), 6);
    assert_int_equal(receipt_row(1, STORE_RECEIPT_DELIVERED, &tablet, 3), 0);
    assert_int_equal(receipt_row(1, STORE_RECEIPT_DELIVERED, &bob, 1), 0);
}

/* A slice ends anywhere, but never between the two rows of one record, and none is left out. */
static void
many_receipts_are_written_in_parts(void **state)
{
    store_projection_t *p = *state;
    begin(p, 1);
    for (int i = 0; i < 300; i++) {
        say(p, 1);
        read_on_tablet(p, 1);
    }
    store_projection_round(p);
    unsigned slices = 0;
    while (!commit_slice(p, 1)) {
        slices++;
    }
    assert_true(slices > 10);
    for (uint64_t seq = 1; seq <= 300; seq++) {
        assert_int_equal(receipt_row(1, STORE_RECEIPT_READ, &bob, seq), 2 * seq + 1);
        assert_int_equal(receipt_row(1, STORE_RECEIPT_DELIVERED, &tablet, seq), 2 * seq + 1);
    }
    store_projection_reset(p);
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(1);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    assert_int_equal(c->receipt_count, 0);
    assert_int_equal(store_chat_device(c, &tablet)->delivered, 300);
}

/* However hot all of them are: memory has a bound. */
static void
clean_chats_leave(void **state)
{
    store_projection_t *p = *state;
    for (unsigned n = 0; n < 2000; n++) {
        begin(p, n);
    }
    store_projection_round(p);
    while (!commit_slice(p, 500)) {
    }
    assert_int_equal(store_projection_dirty_count(p), 0);
    for (unsigned i = 0; i < 10; i++) {
        (void)commit_slice(p, 1);
    }
    assert_true(store_projection_count(p) <= 10); /* cache_max */
}

/* Also where nothing is ever committed; what is not on disk yet stays. */
static void
chats_that_are_only_read_leave(void **state)
{
    store_projection_t *p = *state;
    for (unsigned n = 0; n < 300; n++) {
        begin(p, n);
    }
    store_projection_round(p);
    while (!commit_slice(p, 500)) {
    }
    say(p, 7);
    for (unsigned turn = 0; turn < 30; turn++) {
        for (unsigned n = 10 * turn; n < 10 * turn + 10; n++) {
            struct store_chat *c = NULL;
            struct cq_id id = chat_number(n);
            assert_int_equal(store_projection_chat(p, &id, &c), 0);
        }
        store_projection_trim(p);
    }
    assert_int_equal(store_projection_dirty_count(p), 1);
    assert_true(store_projection_count(p) <= 10 + 1); /* cache_max, and the dirty one */
    struct store_chat *c = NULL;
    struct cq_id id = chat_number(7);
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    assert_int_equal(c->head, 1);
}

/* A list of chats asks this of each: nobody's chats may come into memory for it. */
static void
open_is_read_without_loading(void **state)
{
    store_projection_t *p = *state;
    struct cq_id id = chat_number(1);
    bool open = false;
    begin(p, 1);
    assert_int_equal(store_projection_is_open(p, &id, &open), 0);
    assert_true(open); /* from memory: there is no row yet */
    store_projection_round(p);
    (void)commit_slice(p, 100);
    store_projection_reset(p);
    open = false;
    assert_int_equal(store_projection_is_open(p, &id, &open), 0);
    assert_true(open);
    assert_int_equal(store_projection_count(p), 0);
    struct cq_rec_friend f = {
        .user = ann, .peer = bob, .user_blocks = true, .chat = id, .key_version = 1};
    struct store_chat *c = NULL;
    assert_int_equal(store_projection_chat(p, &id, &c), 0);
    apply(p, c, CQ_REC_FRIEND, &f);
    assert_int_equal(store_projection_is_open(p, &id, &open), 0);
    assert_false(open); /* memory before the row */
    id = chat_number(2);
    assert_int_equal(store_projection_is_open(p, &id, &open), -CQ_E_NOT_FOUND);
}

static void
damaged_rows_are_errors(void **state)
{
    store_projection_t *p = *state;
    struct cq_id id = chat_number(1);
    struct store_key key = store_key_of(&id);
    struct store_chat *c = NULL;
    disk[disk_count++] =
        (struct disk_row){.table = STORE_TABLE_CHAT, .key = key, .value = {0x93, 1, 2}, .size = 3};
    assert_int_equal(store_projection_chat(p, &id, &c), -CQ_E_CORRUPT);
    assert_null(c);
    bool open = false;
    assert_int_equal(store_projection_is_open(p, &id, &open), -CQ_E_CORRUPT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rounds_end_with_the_marker),
        TEST(the_marker_follows_the_sweep),
        TEST(forgetting_and_replaying_gives_the_same),
        TEST(what_is_owed_is_there_when_asked_for),
        TEST(what_is_owed_may_be_damaged),
        TEST(audit_rows_exist_only_while_they_say_something),
        TEST(a_long_tail_is_written_in_parts),
        TEST(receipts_are_indexed),
        TEST(many_receipts_are_written_in_parts),
        TEST(clean_chats_leave),
        TEST(chats_that_are_only_read_leave),
        TEST(open_is_read_without_loading),
        TEST(damaged_rows_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
