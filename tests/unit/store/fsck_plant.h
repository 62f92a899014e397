/* SPDX-License-Identifier: MPL-2.0
 * What plants corruptions: rows and records written past the store, into the world of fsck_world.h.
 */
#ifndef TESTS_UNIT_STORE_FSCK_PLANT_H
#define TESTS_UNIT_STORE_FSCK_PLANT_H

#include "common/wire/pack.h"

#include "fsck_world.h"
#include "store/blob.h"
#include "store/record.h"

static inline void
put(enum store_table t, struct store_key key, struct cq_view value)
{
    struct store_row row = {.table = t, .key = store_key_view(&key), .value = value};
    struct store_commit c = {.rows = &row, .row_count = 1};
    assert_int_equal(store_engine_commit(world.core.engine, &c), 0);
}

static inline void
erase(enum store_table t, struct store_key key)
{
    put(t, key, (struct cq_view){0});
}

static inline void
put_buf(enum store_table t, struct store_key key, cq_buf_t *b)
{
    put(t, key, (struct cq_view){b->data, b->size});
    cq_buf_free(b);
}

/* A copy of a row. */
static inline size_t
get(enum store_table t, struct store_key key, uint8_t value[4096])
{
    store_snapshot_t *s = NULL;
    struct cq_view row = {0};
    assert_int_equal(store_snapshot_open(world.core.engine, &s), 0);
    int rc = store_snapshot_row(s, t, store_key_view(&key), &row);
    assert_true(rc == 0 || rc == -CQ_E_NOT_FOUND);
    assert_true(row.n <= 4096);
    if (row.n) {
        memcpy(value, row.p, row.n);
    }
    store_snapshot_close(&s);
    return row.n;
}

static inline void
append_bytes(struct cq_view record)
{
    struct store_commit c = {.first_pos = store_engine_last_pos(world.core.engine) + 1,
                             .records = &record,
                             .record_count = 1};
    assert_int_equal(store_engine_commit(world.core.engine, &c), 0);
}

static inline void
append(enum cq_rec_kind kind, const void *fields)
{
    cq_buf_t b = {0};
    cq_rec_write(&b, kind, fields);
    append_bytes((struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

static inline struct store_key
chat_key(uint64_t user, uint64_t peer)
{
    struct cq_id id = store_world_chat_id(user, peer);
    return store_key_of(&id);
}

/* Of chat 1-2. */
static inline struct store_key
index_key(uint64_t seq)
{
    struct cq_id id = store_world_chat_id(1, 2);
    return store_key_index(&id, seq);
}

static inline struct store_key
audit_key(uint64_t user, uint64_t peer)
{
    struct cq_id id = store_world_chat_id(user, peer);
    struct cq_id whose = store_world_user_id(user);
    return store_key_pair(&id, &whose);
}

static inline struct store_key
friend_key(uint64_t user, uint64_t peer)
{
    struct cq_id a = store_world_user_id(user);
    struct cq_id b = store_world_user_id(peer);
    return store_key_pair(&a, &b);
}

static inline struct store_key
user_key(uint64_t user)
{
    struct cq_id id = store_world_user_id(user);
    return store_key_of(&id);
}

static inline struct store_key
owner_key(uint64_t user)
{
    struct cq_id id = store_world_device_id(user);
    return store_key_of(&id);
}

static inline struct store_key
device_key(uint64_t user)
{
    struct cq_id id = store_world_user_id(user);
    struct cq_id device = store_world_device_id(user);
    return store_key_pair(&id, &device);
}

static inline struct store_key
receipt_key(uint64_t up_to)
{
    struct cq_id chat = store_world_chat_id(1, 2);
    struct cq_id user = store_world_user_id(2);
    return store_key_receipt(&chat, STORE_RECEIPT_READ, &user, up_to);
}

static inline void
write_chat(const struct store_chat *c)
{
    cq_buf_t b = {0};
    store_chat_write(&b, c);
    put_buf(STORE_TABLE_CHAT, store_key_of(&c->id), &b);
}

static inline void
read_chat(struct store_chat *c)
{
    uint8_t bytes[4096];
    struct cq_id id = store_world_chat_id(1, 2);
    size_t n = get(STORE_TABLE_CHAT, store_key_of(&id), bytes);
    store_chat_init(c, &id);
    assert_int_equal(store_chat_read((struct cq_view){bytes, n}, c), 0);
}

/* A field of the CHAT row 1-2 plus one. */
static inline void
raise_chat(size_t offset)
{
    struct store_chat c;
    uint64_t value;
    read_chat(&c);
    memcpy(&value, (char *)&c + offset, sizeof value);
    value++;
    memcpy((char *)&c + offset, &value, sizeof value);
    write_chat(&c);
    store_chat_fini(&c);
}

static inline void
raise_device(size_t offset)
{
    struct store_chat c;
    uint64_t value;
    read_chat(&c);
    memcpy(&value, (char *)c.devices + offset, sizeof value);
    value++;
    memcpy((char *)c.devices + offset, &value, sizeof value);
    write_chat(&c);
    store_chat_fini(&c);
}

/* A block of chat 1-2 with a change: of a position, or of who sent a message. */
static inline void
change_block(uint64_t first, uint64_t pos_step, uint32_t senders)
{
    uint8_t bytes[4096];
    struct store_chat_block block;
    struct store_chat_index entries[STORE_CHAT_BLOCK];
    size_t n = get(STORE_TABLE_INDEX, index_key(first), bytes);
    assert_int_equal(store_chat_read_block((struct cq_view){bytes, n}, &block), 0);
    block.pos[STORE_CHAT_BLOCK - 1] += pos_step;
    block.senders ^= senders;
    for (unsigned i = 0; i < STORE_CHAT_BLOCK; i++) {
        entries[i] = store_chat_block_entry(&block, i);
    }
    struct store_chat c = {.tail_first = first,
                           .tail_rank = block.rank,
                           .tail = entries,
                           .tail_count = STORE_CHAT_BLOCK};
    cq_buf_t b = {0};
    store_chat_write_block(&b, &c, first);
    put_buf(STORE_TABLE_INDEX, index_key(first), &b);
}

static inline void
copy_block(uint64_t from, struct store_key to)
{
    uint8_t bytes[4096];
    size_t n = get(STORE_TABLE_INDEX, index_key(from), bytes);
    put(STORE_TABLE_INDEX, to, (struct cq_view){bytes, n});
}

static inline void
put_numbers(enum store_table t, struct store_key key, size_t count, const uint64_t numbers[])
{
    cq_buf_t b = {0};
    if (count > 1) {
        cq_pack_array(&b, count);
    }
    for (size_t i = 0; i < count; i++) {
        cq_pack_uint(&b, numbers[i]);
    }
    put_buf(t, key, &b);
}

static inline void
put_number(enum store_table t, struct store_key key, uint64_t number)
{
    put_numbers(t, key, 1, &number);
}

static inline struct store_friend
get_friend(uint64_t user, uint64_t peer)
{
    uint8_t bytes[4096];
    struct store_friend f;
    size_t n = get(STORE_TABLE_USER, friend_key(user, peer), bytes);
    assert_int_equal(store_friend_read((struct cq_view){bytes, n}, &f), 0);
    return f;
}

static inline void
put_friend(uint64_t user, uint64_t peer, const struct store_friend *f)
{
    cq_buf_t b = {0};
    store_friend_write(&b, f);
    put_buf(STORE_TABLE_USER, friend_key(user, peer), &b);
}

static inline struct cq_rec_message
next_message(void)
{
    static const uint8_t nonce[CQ_NONCE_SIZE];
    struct store_chat *c = store_world_chat(&world, 1, 2);
    struct cq_id device = store_world_device_id(1);
    return (struct cq_rec_message){.chat = c->id,
                                   .seq = c->head + 1,
                                   .user = store_world_user_id(1),
                                   .device = device,
                                   .dseq = store_chat_device(c, &device)->last_dseq + 1,
                                   .time_unix_ms = 1,
                                   .key_version = 1,
                                   .nonce = {nonce, sizeof nonce},
                                   .ciphertext = text};
}

static inline struct cq_rec_receipt
receipt_up_to(uint64_t up_to)
{
    return (struct cq_rec_receipt){store_world_chat_id(1, 2), store_world_user_id(2),
                                   store_world_device_id(2), up_to, 1};
}

/* ---- blobs ---- */

static inline struct store_key
blob_key(uint64_t n)
{
    struct cq_id id = store_world_blob_id(n);
    return store_key_of(&id);
}

static inline struct store_key
reader_key(uint64_t n, uint64_t user)
{
    struct cq_id id = store_world_blob_id(n), user_id = store_world_user_id(user);
    return store_key_pair(&id, &user_id);
}

static inline struct store_blob
read_blob(uint64_t n)
{
    struct store_key key = blob_key(n);
    struct store_blob blob;
    struct cq_view row;
    assert_int_equal(store_core_row(&world.core, STORE_TABLE_BLOB, &key, &row), 0);
    assert_int_equal(store_blob_read(row, &blob), 0);
    return blob;
}

static inline void
write_blob(uint64_t n, const struct store_blob *blob)
{
    cq_buf_t b = {0};
    store_blob_write(&b, blob);
    put_buf(STORE_TABLE_BLOB, blob_key(n), &b);
}

static inline void
write_use(uint64_t user, uint64_t bytes, uint64_t count)
{
    struct cq_id id = store_world_user_id(user);
    cq_buf_t b = {0};
    store_blob_write_use(&b, &(struct store_blob_use){bytes, count});
    put_buf(STORE_TABLE_BLOB_USE, store_key_of(&id), &b);
}

/* ---- the tests: one for each corruption ---- */

struct plant {
    const char *name;
    void (*fn)(void);
    enum store_fsck_kind kind;
    const char *where; /* how the finding's place begins */
};

static inline void
is_found_alone(void **state)
{
    const struct plant *p = *state;
    expect_clean();
    p->fn();
    assert_int_equal(run_with(0), 0);
    bool is_right = report.found == 1 && report.findings[0].kind == p->kind &&
                    strncmp(report.findings[0].where, p->where, strlen(p->where)) == 0;
    if (!is_right) {
        print_message("expected %s at %s\n", store_fsck_kind_word(p->kind), p->where);
        store_fsck_print(stdout, &report);
    }
    assert_true(is_right);
    assert_int_equal(report.counts[p->kind], 1);
    assert_int_equal(store_fsck_exit_code(0, &report), 1);
    /* Several passes see the same. */
    assert_int_equal(run_with(4096), 0);
    assert_int_equal(report.found, 1);
}

static inline int
set_up_plant(void **state)
{
    void *unused = NULL;
    (void)state;
    return set_up(&unused);
}

static inline int
tear_down_plant(void **state)
{
    void *unused = NULL;
    (void)state;
    return tear_down(&unused);
}

static inline void
make_tests(const struct plant *plants, size_t count, struct CMUnitTest *tests)
{
    for (size_t i = 0; i < count; i++) {
        union {
            const struct plant *from;
            void *to;
        } p = {&plants[i]};
        tests[i] = (struct CMUnitTest){plants[i].name, is_found_alone, set_up_plant,
                                       tear_down_plant, p.to};
    }
}

#endif
