/* SPDX-License-Identifier: MPL-2.0
 * fsck finds each planted corruption, and nothing else: rows that chats have: index, CHAT,
 * Unread_Audit, Read_Audit, receipts.
 */
#include "fsck_plant.h"

static void
plant_index_missing(void)
{
    erase(STORE_TABLE_INDEX, index_key(1));
}
static void
plant_index_missing_last(void)
{
    erase(STORE_TABLE_INDEX, index_key(33));
}
static void
plant_index_extra(void)
{
    copy_block(33, index_key(65));
}
static void
plant_index_of_nobody(void)
{
    struct cq_id id = {{1, 2, 3, 4, 5}};
    copy_block(1, store_key_index(&id, 1));
}
static void
plant_index_seq_0(void)
{
    copy_block(1, index_key(0));
}
static void
plant_index_between(void)
{
    copy_block(1, index_key(2));
}
static void
plant_index_wrong(void)
{
    change_block(1, 1, 0);
}
static void
plant_index_other_block(void)
{
    copy_block(1, index_key(33));
}
static void
plant_index_wrong_rank(void)
{
    change_block(33, 0, 4);
}
static void
plant_index_undecodable(void)
{
    put(STORE_TABLE_INDEX, index_key(33), (struct cq_view){(const uint8_t *)"\xc1", 1});
}
static void
plant_index_key(void)
{
    struct store_key key = index_key(5);
    key.n--;
    put_number(STORE_TABLE_INDEX, key, 1);
}
static void
plant_chat_open_index(void)
{
    struct store_chat c;
    read_chat(&c);
    c.tail[c.tail_count - 1].pos++;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_open_rank(void)
{
    struct store_chat c;
    read_chat(&c);
    c.tail[2].rank = c.tail[2].rank == c.tail[1].rank ? c.tail[1].rank + 1 : c.tail[1].rank;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_head(void)
{
    struct store_chat c;
    read_chat(&c);
    c.head += STORE_CHAT_BLOCK; /* the block that is filling up stays as it is */
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_last_pos(void)
{
    raise_chat(offsetof(struct store_chat, last_pos));
}
static void
plant_chat_key_version(void)
{
    raise_chat(offsetof(struct store_chat, key_version));
}
static void
plant_chat_unread(void)
{
    raise_chat(offsetof(struct store_chat, members[0].unread_count));
}
static void
plant_chat_read(void)
{
    raise_chat(offsetof(struct store_chat, members[1].read));
}
static void
plant_chat_sent(void)
{
    raise_chat(offsetof(struct store_chat, members[1].sent));
}
static void
plant_chat_delivered(void)
{
    raise_device(offsetof(struct store_chat_device, delivered));
}
static void
plant_chat_answer(void)
{
    struct store_chat c;
    read_chat(&c);
    c.devices[0].answers[1].seq++;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_device(void)
{
    struct store_chat c;
    read_chat(&c);
    c.devices[0].device.b[3] ^= 1;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_open(void)
{
    struct store_chat c;
    read_chat(&c);
    c.open = false;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_read_audit(void)
{
    struct store_chat c;
    struct cq_id id = store_world_user_id(2); /* 1 has read nothing of 2's */
    read_chat(&c);
    c.members[store_chat_member(&c, &id)].read_audit = true;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_read_audit_ended(void)
{
    struct store_chat c;
    struct cq_id id = store_world_user_id(1); /* 2 has read, and 1's devices do not know */
    read_chat(&c);
    c.members[store_chat_member(&c, &id)].read_audit = false;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_changed_pos(void)
{
    struct store_chat c;
    read_chat(&c);
    c.changed_pos--;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_undecodable(void)
{
    put(STORE_TABLE_CHAT, chat_key(1, 2), (struct cq_view){(const uint8_t *)"\x97\x01", 2});
}
static void
plant_chat_missing(void)
{
    erase(STORE_TABLE_CHAT, chat_key(1, 2));
}
static void
plant_chat_extra(void)
{
    struct store_chat c;
    read_chat(&c);
    c.id.b[9] ^= 1;
    c.members[0].unread_count = c.members[1].unread_count = 0;
    write_chat(&c);
    store_chat_fini(&c);
}
static void
plant_chat_behind(void)
{
    uint8_t old_row[4096];
    size_t old_size = get(STORE_TABLE_CHAT, chat_key(4, 5), old_row);
    store_world_say(&world, 4, 5, text);
    store_world_read(&world, 5, 4, 0);
    store_world_settle(&world, 4, 5);
    store_world_flush(&world);
    put(STORE_TABLE_CHAT, chat_key(4, 5), (struct cq_view){old_row, old_size});
}
static void
plant_unread_missing(void)
{
    erase(STORE_TABLE_UNREAD, audit_key(1, 2));
}
static void
plant_unread_stray(void)
{
    const uint64_t numbers[] = {1, 1, 1, 1};
    put_numbers(STORE_TABLE_UNREAD, audit_key(4, 5), 4, numbers);
}
static void
plant_unread_of_stranger(void)
{
    const uint64_t numbers[] = {1, 1, 1, 1};
    struct cq_id chat = store_world_chat_id(1, 2);
    struct cq_id user = store_world_user_id(6);
    put_numbers(STORE_TABLE_UNREAD, store_key_pair(&chat, &user), 4, numbers);
}
static void
plant_unread_wrong(void)
{
    uint8_t bytes[4096];
    size_t n = get(STORE_TABLE_UNREAD, audit_key(1, 2), bytes);
    cq_reader_t r = cq_reader(bytes, n);
    uint64_t numbers[4];
    assert_int_equal(cq_read_array(&r, 4, 4), 4);
    for (size_t i = 0; i < 4; i++) {
        numbers[i] = cq_read_uint(&r, UINT64_MAX);
    }
    numbers[2]++;
    put_numbers(STORE_TABLE_UNREAD, audit_key(1, 2), 4, numbers);
}
static void
plant_unread_undecodable(void)
{
    put(STORE_TABLE_UNREAD, audit_key(1, 2), (struct cq_view){(const uint8_t *)"\x94\x01", 2});
}
static void
plant_read_missing(void)
{
    erase(STORE_TABLE_READ, audit_key(1, 2));
}
static void
plant_read_stray(void)
{
    const uint64_t numbers[] = {1, 1, 1};
    put_numbers(STORE_TABLE_READ, audit_key(5, 4), 3, numbers);
}
static void
plant_read_wrong(void)
{
    const uint64_t numbers[] = {1, 1, 1};
    put_numbers(STORE_TABLE_READ, audit_key(1, 2), 3, numbers);
}
static void
plant_receipt_missing(void)
{
    erase(STORE_TABLE_RECEIPT, receipt_key(2));
}
static void
plant_receipt_extra(void)
{
    put_number(STORE_TABLE_RECEIPT, receipt_key(1), 1);
}
static void
plant_receipt_wrong(void)
{
    put_number(STORE_TABLE_RECEIPT, receipt_key(2), 3);
}
static void
plant_receipt_undecodable(void)
{
    put(STORE_TABLE_RECEIPT, receipt_key(2), (struct cq_view){(const uint8_t *)"\xc1", 1});
}

static const struct plant plants[] = {
    {"index missing", plant_index_missing, STORE_FSCK_ROW_MISSING, "index "},
    {"index missing last", plant_index_missing_last, STORE_FSCK_ROW_MISSING, "index "},
    {"index extra", plant_index_extra, STORE_FSCK_ROW_EXTRA, "index "},
    {"index of nobody", plant_index_of_nobody, STORE_FSCK_ROW_EXTRA, "index "},
    {"index seq 0", plant_index_seq_0, STORE_FSCK_ROW_EXTRA, "index "},
    {"index between", plant_index_between, STORE_FSCK_ROW_EXTRA, "index "},
    {"index other block", plant_index_other_block, STORE_FSCK_ROW_WRONG, "index "},
    {"chat open index", plant_chat_open_index, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat open rank", plant_chat_open_rank, STORE_FSCK_ROW_WRONG, "chat "},
    {"index wrong", plant_index_wrong, STORE_FSCK_ROW_WRONG, "index "},
    {"index wrong rank", plant_index_wrong_rank, STORE_FSCK_ROW_WRONG, "index "},
    {"index undecodable", plant_index_undecodable, STORE_FSCK_ROW_VALUE, "index "},
    {"index key", plant_index_key, STORE_FSCK_ROW_KEY, "index "},
    {"chat head", plant_chat_head, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat last pos", plant_chat_last_pos, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat key version", plant_chat_key_version, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat unread", plant_chat_unread, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat read", plant_chat_read, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat sent", plant_chat_sent, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat delivered", plant_chat_delivered, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat answer", plant_chat_answer, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat device", plant_chat_device, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat open", plant_chat_open, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat read audit", plant_chat_read_audit, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat read audit ended", plant_chat_read_audit_ended, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat changed pos", plant_chat_changed_pos, STORE_FSCK_ROW_WRONG, "chat "},
    {"chat undecodable", plant_chat_undecodable, STORE_FSCK_ROW_VALUE, "chat "},
    {"chat missing", plant_chat_missing, STORE_FSCK_ROW_MISSING, "chat "},
    {"chat extra", plant_chat_extra, STORE_FSCK_ROW_EXTRA, "chat "},
    {"chat behind", plant_chat_behind, STORE_FSCK_ROW_BEHIND, "chat "},
    {"unread missing", plant_unread_missing, STORE_FSCK_ROW_MISSING, "unread_audit "},
    {"unread stray", plant_unread_stray, STORE_FSCK_ROW_EXTRA, "unread_audit "},
    {"unread of stranger", plant_unread_of_stranger, STORE_FSCK_ROW_EXTRA, "unread_audit "},
    {"unread wrong", plant_unread_wrong, STORE_FSCK_ROW_WRONG, "unread_audit "},
    {"unread undecodable", plant_unread_undecodable, STORE_FSCK_ROW_VALUE, "unread_audit "},
    {"read missing", plant_read_missing, STORE_FSCK_ROW_MISSING, "read_audit "},
    {"read stray", plant_read_stray, STORE_FSCK_ROW_EXTRA, "read_audit "},
    {"read wrong", plant_read_wrong, STORE_FSCK_ROW_WRONG, "read_audit "},
    {"receipt missing", plant_receipt_missing, STORE_FSCK_ROW_MISSING, "receipt "},
    {"receipt extra", plant_receipt_extra, STORE_FSCK_ROW_EXTRA, "receipt "},
    {"receipt wrong", plant_receipt_wrong, STORE_FSCK_ROW_WRONG, "receipt "},
    {"receipt undecodable", plant_receipt_undecodable, STORE_FSCK_ROW_VALUE, "receipt "},
};

enum {
    PLANT_COUNT = sizeof plants / sizeof plants[0]
};

int
main(void)
{
    struct CMUnitTest tests[PLANT_COUNT];
    make_tests(plants, PLANT_COUNT, tests);
    return cmocka_run_group_tests_name("store.fsck_plant_chat", tests, NULL, NULL);
}
