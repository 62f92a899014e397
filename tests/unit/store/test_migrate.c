/* SPDX-License-Identifier: MPL-2.0
 * A database of version 1 becomes one of this version: the receipts of its log get their index, in
 * steps, also when it is killed between them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "store/batch.h"
#include "store/migrate.h"
#include "tests/unit/store/folder.h"

enum {
    CHATS = 7,
    ROUNDS = 40,
    RECORDS = CHATS + CHATS * ROUNDS * 3
};

static char dir[FOLDER_PATH_SIZE];

static store_engine_t *
open_engine(void)
{
    const struct store_engine_cfg cfg = {.dir = dir, .map_bytes = (uint64_t)64 << 20};
    store_engine_t *e = NULL;
    assert_int_equal(store_engine_open(&cfg, &e), 0);
    return e;
}

static struct cq_id
chat_number(unsigned n)
{
    return (struct cq_id){{(uint8_t)(n * 91 + 1), (uint8_t)n, 7}};
}

static const struct cq_id ann = {{1}};
static const struct cq_id bob = {{2}};
static const struct cq_id bob_phone = {{4}};

static void
add(struct store_batch *b, enum cq_rec_kind kind, const void *fields)
{
    size_t begin = store_batch_record_begin(b);
    cq_rec_write(&b->bytes, kind, fields);
    store_batch_record_end(b, begin);
}

/* One message, delivered to bob's phone, read by bob; as version 1 wrote it. */
static void
add_round(struct store_batch *b, unsigned n, uint64_t seq)
{
    static uint8_t bytes[CQ_NONCE_SIZE + CQ_MAC_SIZE];
    struct cq_rec_message m = {.chat = chat_number(n),
                               .seq = seq,
                               .user = ann,
                               .device = {{3}},
                               .dseq = seq,
                               .nonce = {bytes, CQ_NONCE_SIZE},
                               .ciphertext = {bytes, CQ_MAC_SIZE + 1}};
    struct cq_rec_receipt r = {
        .chat = chat_number(n), .user = bob, .device = bob_phone, .up_to = seq};
    add(b, CQ_REC_MESSAGE, &m);
    add(b, CQ_REC_RECEIPT, &r);
    r.device = (struct cq_id){0};
    add(b, CQ_REC_RECEIPT, &r);
}

/* A log as version 1 left it: no receipt rows, and the schema says 1. */
static void
make_version_1(void)
{
    store_engine_t *e = open_engine();
    struct store_batch *b = store_batch_new(1, 1);
    for (unsigned n = 0; n < CHATS; n++) {
        struct cq_rec_friend f = {.user = ann,
                                  .peer = bob,
                                  .chat = chat_number(n),
                                  .user_name = {(const uint8_t *)"ann", 3},
                                  .peer_name = {(const uint8_t *)"bob", 3}};
        add(b, CQ_REC_FRIEND, &f);
    }
    for (uint64_t seq = 1; seq <= ROUNDS; seq++) {
        for (unsigned n = 0; n < CHATS; n++) {
            add_round(b, n, seq);
        }
    }
    struct store_key key = store_key_text(STORE_META_SCHEMA);
    store_batch_put(b, STORE_TABLE_META, store_key_view(&key),
                    (struct cq_view){(const uint8_t *)"\x01", 1}, false);
    store_batch_seal(b);
    assert_int_equal(store_engine_commit(e, &b->commit), 0);
    store_batch_destroy(&b);
    assert_int_equal(store_engine_last_pos(e), RECORDS);
    store_engine_close(&e);
}

static uint64_t
number(store_snapshot_t *s, enum store_table t, const struct store_key *key)
{
    struct cq_view row;
    if (store_snapshot_row(s, t, store_key_view(key), &row)) {
        return 0;
    }
    cq_reader_t r = cq_reader_of(row);
    return cq_read_uint(&r, UINT64_MAX);
}

static bool
count_row(void *ctx, struct cq_view key, struct cq_view value)
{
    (void)key;
    (void)value;
    ++*(unsigned *)ctx;
    return true;
}

static unsigned
count_rows(store_snapshot_t *s)
{
    unsigned count = 0;
    assert_int_equal(store_snapshot_scan(s, STORE_TABLE_RECEIPT, (struct cq_view){0},
                                         (struct cq_view){0}, count_row, &count),
                     0);
    return count;
}

static void
check_migrated(store_engine_t *e)
{
    store_snapshot_t *s = NULL;
    struct store_key schema = store_key_text(STORE_META_SCHEMA);
    struct store_key progress = store_key_text("migrate");
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(number(s, STORE_TABLE_META, &schema), STORE_SCHEMA_VERSION);
    assert_int_equal(number(s, STORE_TABLE_META, &progress), 0);
    assert_int_equal(count_rows(s), CHATS * ROUNDS * 2);
    for (unsigned n = 0; n < CHATS; n++) {
        struct cq_id chat = chat_number(n);
        for (uint64_t seq = 1; seq <= ROUNDS; seq++) {
            uint64_t pos = CHATS + 3 * ((seq - 1) * CHATS + n) + 1;
            struct store_key held =
                store_key_receipt(&chat, STORE_RECEIPT_DELIVERED, &bob_phone, seq);
            struct store_key read = store_key_receipt(&chat, STORE_RECEIPT_READ, &bob, seq);
            assert_int_equal(number(s, STORE_TABLE_RECEIPT, &held), pos + 1);
            assert_int_equal(number(s, STORE_TABLE_RECEIPT, &read), pos + 2);
        }
    }
    store_snapshot_close(&s);
}

static void
version_1_gets_its_receipts(void **state)
{
    (void)state;
    make_version_1();
    store_engine_t *e = open_engine();
    assert_int_equal(store_engine_schema(e), 1);
    assert_int_equal(store_migrate_run(e), 0);
    check_migrated(e);
    store_engine_close(&e);
    e = open_engine();
    assert_int_equal(store_engine_schema(e), STORE_SCHEMA_VERSION);
    assert_int_equal(store_migrate_run(e), 0);
    check_migrated(e);
    store_engine_close(&e);
}

/* Rows of chats in the form of version 3: they are emptied, and a start applies the log again. */
static void
version_3_applies_its_log_again(void **state)
{
    (void)state;
    make_version_1();
    store_engine_t *e = open_engine();
    struct store_batch *b = store_batch_new(1, RECORDS + 1);
    struct store_key schema = store_key_text(STORE_META_SCHEMA);
    struct store_key marker = store_key_text("marker");
    store_batch_put(b, STORE_TABLE_META, store_key_view(&schema),
                    (struct cq_view){(const uint8_t *)"\x03", 1}, false);
    store_batch_put(b, STORE_TABLE_META, store_key_view(&marker),
                    (struct cq_view){(const uint8_t *)"\x7f", 1}, false);
    for (unsigned n = 0; n < CHATS; n++) {
        struct cq_id chat = chat_number(n);
        struct store_key key = store_key_of(&chat);
        store_batch_put(b, STORE_TABLE_CHAT, store_key_view(&key),
                        (struct cq_view){(const uint8_t *)"\x9a", 1}, false);
    }
    store_batch_seal(b);
    assert_int_equal(store_engine_commit(e, &b->commit), 0);
    store_batch_destroy(&b);
    store_engine_close(&e);
    e = open_engine();
    assert_int_equal(store_engine_schema(e), 3);
    assert_int_equal(store_migrate_run(e), 0);
    store_snapshot_t *s = NULL;
    struct cq_view row;
    unsigned count = 0;
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(number(s, STORE_TABLE_META, &schema), STORE_SCHEMA_VERSION);
    assert_int_equal(store_snapshot_row(s, STORE_TABLE_META, store_key_view(&marker), &row),
                     -CQ_E_NOT_FOUND);
    assert_int_equal(store_snapshot_scan(s, STORE_TABLE_CHAT, (struct cq_view){0},
                                         (struct cq_view){0}, count_row, &count),
                     0);
    assert_int_equal(count, 0);
    store_snapshot_close(&s);
    store_engine_close(&e);
}

/* A process that does some steps and is killed. */
static void
migrate_and_die(unsigned steps, size_t records_max)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct store_engine_cfg cfg = {.dir = dir, .map_bytes = (uint64_t)64 << 20};
        store_engine_t *e = NULL;
        uint64_t version = 0;
        int rc = store_engine_open(&cfg, &e);
        for (unsigned i = 0; !rc && i < steps; i++) {
            rc = store_migrate_step(e, records_max, &version);
        }
        (void)kill(getpid(), rc ? SIGTERM : SIGKILL);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void
goes_on_after_a_kill(void **state)
{
    (void)state;
    make_version_1();
    migrate_and_die(3, 100);
    migrate_and_die(1, 17);
    migrate_and_die(0, 1);
    store_engine_t *e = open_engine();
    assert_int_equal(store_engine_schema(e), 1);
    store_snapshot_t *s = NULL;
    struct store_key progress = store_key_text("migrate");
    assert_int_equal(store_snapshot_open(e, &s), 0);
    assert_int_equal(number(s, STORE_TABLE_META, &progress), 317);
    assert_in_range(count_rows(s), 1, CHATS * ROUNDS * 2 - 1);
    store_snapshot_close(&s);
    assert_int_equal(store_migrate_run(e), 0);
    check_migrated(e);
    store_engine_close(&e);
}

static void
an_empty_one_and_version_0(void **state)
{
    (void)state;
    store_engine_t *e = open_engine();
    struct store_batch *b = store_batch_new(1, 1);
    struct store_key key = store_key_text(STORE_META_SCHEMA);
    store_batch_put(b, STORE_TABLE_META, store_key_view(&key),
                    (struct cq_view){(const uint8_t *)"\x00", 1}, false);
    store_batch_seal(b);
    assert_int_equal(store_engine_commit(e, &b->commit), 0);
    store_batch_destroy(&b);
    store_engine_close(&e);
    e = open_engine();
    assert_int_equal(store_engine_schema(e), 0);
    assert_int_equal(store_migrate_run(e), 0);
    store_engine_close(&e);
    e = open_engine();
    assert_int_equal(store_engine_schema(e), STORE_SCHEMA_VERSION);
    store_engine_close(&e);
}

static void
a_damaged_record_stops_it(void **state)
{
    (void)state;
    make_version_1();
    store_engine_t *e = open_engine();
    struct cq_view bad = {(const uint8_t *)"\xc1", 1};
    struct store_commit c = {.first_pos = RECORDS + 1, .records = &bad, .record_count = 1};
    assert_int_equal(store_engine_commit(e, &c), 0);
    assert_int_equal(store_migrate_run(e), -CQ_E_CORRUPT);
    store_engine_close(&e);
    e = open_engine();
    assert_int_equal(store_engine_schema(e), 1);
    store_engine_close(&e);
}

static int
fresh(void **state)
{
    (void)state;
    folder_make(dir);
    return 0;
}

static int
done(void **state)
{
    (void)state;
    folder_remove(dir);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(version_1_gets_its_receipts), TEST(version_3_applies_its_log_again),
        TEST(goes_on_after_a_kill),        TEST(an_empty_one_and_version_0),
        TEST(a_damaged_record_stops_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
