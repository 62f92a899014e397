/* SPDX-License-Identifier: MPL-2.0
 * fsck finds each of many planted corruptions, and nothing else.
 */
#include "fsck_plant.h"

/* ---- corruptions ---- */

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
    raise_device(offsetof(struct store_chat_device, answers[1].seq));
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
static uint8_t old_row[4096];
static size_t old_size;
static void
plant_chat_behind(void)
{
    old_size = get(STORE_TABLE_CHAT, chat_key(4, 5), old_row);
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
static void
plant_log_media(void)
{
    struct cq_rec_message m = next_message();
    m.media = (struct cq_view){(const uint8_t *)"\x93\x01\x02\x03", 4};
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_gap(void)
{
    struct cq_rec_message m = next_message();
    m.seq++;
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_twice(void)
{
    struct cq_rec_message m = next_message();
    m.seq--;
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_dseq(void)
{
    struct cq_rec_message m = next_message();
    m.dseq--;
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_member(void)
{
    struct cq_rec_message m = next_message();
    m.user = store_world_user_id(3);
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_device(void)
{
    struct cq_rec_message m = next_message();
    m.device = store_world_device_id(2);
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_chat(void)
{
    struct cq_rec_message m = next_message();
    m.chat.b[7] ^= 1;
    append(CQ_REC_MESSAGE, &m);
}
static void
plant_log_cursor_above(void)
{
    struct cq_rec_receipt r = receipt_up_to(store_world_chat(&world, 1, 2)->head + 1);
    append(CQ_REC_RECEIPT, &r);
}
static void
plant_log_cursor_back(void)
{
    struct cq_rec_receipt r = receipt_up_to(1);
    append(CQ_REC_RECEIPT, &r);
}
static void
plant_log_known(void)
{
    struct cq_rec_known k = {store_world_chat_id(1, 2), store_world_user_id(3), 1};
    append(CQ_REC_KNOWN, &k);
}
static void
plant_log_forget(void)
{
    struct cq_rec_forget f = {store_world_chat_id(1, 2), store_world_user_id(1),
                              store_world_device_id(2)};
    append(CQ_REC_FORGET, &f);
}
static void
plant_log_undecodable(void)
{
    append_bytes((struct cq_view){(const uint8_t *)"\x93\x01\xc1", 3});
}
static void
plant_log_cut_off(void)
{
    struct cq_rec_message m = next_message();
    cq_buf_t b = {0};
    cq_rec_write(&b, CQ_REC_MESSAGE, &m);
    append_bytes((struct cq_view){b.data, b.size - 1});
    cq_buf_free(&b);
}
static void
plant_log_friend(void)
{
    struct cq_rec_friend f = {.user = store_world_user_id(1),
                              .peer = store_world_user_id(2),
                              .chat = store_world_chat_id(1, 3),
                              .user_name = {(const uint8_t *)"user1", 5},
                              .peer_name = {(const uint8_t *)"user2", 5}};
    append(CQ_REC_FRIEND, &f);
}
static void
plant_log_commit(void)
{
    struct cq_rec_commit c = {UINT64_C(1) << 40, 1};
    append(CQ_REC_COMMIT, &c);
}
static void
plant_log_privacy(void)
{
    struct cq_rec_privacy p = {store_world_user_id(77), true, 1};
    append(CQ_REC_PRIVACY, &p);
}
static void
plant_friend_sides(void)
{
    struct store_friend f = get_friend(1, 2);
    f.last_pos++;
    put_friend(1, 2, &f);
}
static void
plant_friend_relation(void)
{
    struct store_friend f = get_friend(1, 2);
    f.relation = CQ_RELATION_REMOVED;
    put_friend(1, 2, &f);
}
static void
plant_friend_name(void)
{
    struct store_friend f = get_friend(1, 2);
    f.peer_name[0] = 'x';
    put_friend(1, 2, &f);
}
static void
plant_friend_missing(void)
{
    erase(STORE_TABLE_USER, friend_key(2, 1));
}
static void
plant_friend_both_missing(void)
{
    erase(STORE_TABLE_USER, friend_key(6, 1));
    erase(STORE_TABLE_USER, friend_key(1, 6));
}
static void
plant_friend_no_record(void)
{
    struct store_friend f = get_friend(1, 6);
    struct store_friend mirror = get_friend(6, 1);
    put_friend(2, 6, &f);
    put_friend(6, 2, &mirror);
}
static void
plant_friend_undecodable(void)
{
    put(STORE_TABLE_USER, friend_key(2, 1), (struct cq_view){(const uint8_t *)"\x97\x01", 2});
}
static void
plant_key_damaged(void)
{
    struct store_friend f = get_friend(1, 2);
    f.wrapped[30] ^= 1;
    put_friend(1, 2, &f);
}
static void
plant_key_version(void)
{
    struct store_friend f = get_friend(2, 1);
    f.key_version = 2;
    put_friend(2, 1, &f);
}
static void
plant_key_of_other_chat(void)
{
    struct store_friend f = get_friend(1, 2);
    struct store_friend other = get_friend(1, 3);
    memcpy(f.wrapped, other.wrapped, sizeof f.wrapped);
    put_friend(1, 2, &f);
}
static void
plant_key_other(void)
{
    struct store_friend f = get_friend(1, 2);
    struct store_vault_key k = {.chat = f.chat, .key_version = 1};
    store_vault_make_key(world.core.vault, &k);
    memcpy(f.wrapped, k.wrapped, sizeof f.wrapped);
    put_friend(1, 2, &f);
}
static void
plant_name_without_account(void)
{
    struct cq_id id = store_world_user_id(99);
    put(STORE_TABLE_NAME, store_key_name("nobody", 6), (struct cq_view){id.b, CQ_ID_SIZE});
}
static void
plant_name_missing(void)
{
    erase(STORE_TABLE_NAME, store_key_name("user5", 5));
}
static void
plant_name_of_other(void)
{
    struct cq_id id = store_world_user_id(4);
    put(STORE_TABLE_NAME, store_key_name("user5", 5), (struct cq_view){id.b, CQ_ID_SIZE});
}
static void
plant_name_key(void)
{
    struct store_key key = store_key_name("user5", 5);
    struct cq_id id = store_world_user_id(5);
    key.b[0] ^= 1;
    put(STORE_TABLE_NAME, key, (struct cq_view){id.b, CQ_ID_SIZE});
}
static void
plant_account_undecodable(void)
{
    put(STORE_TABLE_ACCOUNT, user_key(5), (struct cq_view){(const uint8_t *)"\x90", 1});
}
static void
plant_account_setting(void)
{
    uint8_t bytes[4096];
    struct store_account a;
    cq_buf_t b = {0};
    size_t n = get(STORE_TABLE_ACCOUNT, user_key(4), bytes);
    assert_int_equal(store_account_read((struct cq_view){bytes, n}, &a), 0);
    a.hide_last_seen = false;
    store_account_write(&b, &a);
    put_buf(STORE_TABLE_ACCOUNT, user_key(4), &b);
}
static void
plant_owner_other(void)
{
    struct cq_id id = store_world_user_id(4);
    put(STORE_TABLE_OWNER, owner_key(1), (struct cq_view){id.b, CQ_ID_SIZE});
}
static void
plant_owner_missing(void)
{
    erase(STORE_TABLE_OWNER, owner_key(1));
}
static void
plant_device_missing(void)
{
    erase(STORE_TABLE_DEVICE, device_key(1));
}
static void
plant_device_undecodable(void)
{
    put(STORE_TABLE_DEVICE, device_key(1), (struct cq_view){(const uint8_t *)"\x95", 1});
}
static void
plant_marker_above(void)
{
    put_number(STORE_TABLE_META, store_key_text("marker"), world.core.last_pos + 1);
}
static void
plant_routed_above(void)
{
    put_number(STORE_TABLE_META, store_key_text("routed"), world.core.last_pos + 1);
}
static void
plant_schema(void)
{
    put_number(STORE_TABLE_META, store_key_text("schema"), STORE_SCHEMA_VERSION + 1);
}
static void
plant_epoch(void)
{
    erase(STORE_TABLE_META, store_key_text("epoch"));
}

/* ---- blobs ---- */

static void
plant_blob_more_references(void)
{
    struct store_blob blob = read_blob(1);
    blob.references++;
    write_blob(1, &blob);
}
static void
plant_blob_fewer_references(void)
{
    struct store_blob blob = read_blob(2);
    blob.references--;
    write_blob(2, &blob);
}
static void
plant_blob_reference_of_nothing(void)
{
    struct store_blob blob = read_blob(3);
    blob.references = 1;
    write_blob(3, &blob);
}
static void
plant_blob_dead(void)
{
    struct store_blob blob = read_blob(1);
    blob.state = STORE_BLOB_DEAD;
    write_blob(1, &blob);
}
static void
plant_blob_no_hash(void)
{
    struct store_blob blob = read_blob(3);
    memset(blob.hash, 0, sizeof blob.hash);
    write_blob(3, &blob);
}
static void
plant_blob_upload_with_hash(void)
{
    struct store_blob blob = read_blob(3);
    blob.state = STORE_BLOB_UPLOADING;
    write_blob(3, &blob);
}
static void
plant_blob_missing(void)
{
    erase(STORE_TABLE_BLOB, blob_key(2));
}
static void
plant_blob_undecodable(void)
{
    put(STORE_TABLE_BLOB, blob_key(1), (struct cq_view){(const uint8_t *)"\x97", 1});
}
static void
plant_blob_key(void)
{
    struct store_key key = blob_key(3);
    key.b[1] ^= 1;
    put_number(STORE_TABLE_BLOB, key, 1);
}
static void
plant_blob_length(void)
{
    struct store_blob blob = read_blob(4);
    blob.length = 999;
    write_blob(4, &blob);
}
static void
plant_use_bytes(void)
{
    write_use(1, 3001, 3);
}
static void
plant_use_count(void)
{
    write_use(1, 3000, 2);
}
static void
plant_use_extra(void)
{
    write_use(5, 10, 1);
}
static void
plant_use_missing(void)
{
    struct cq_id id = store_world_user_id(4);
    erase(STORE_TABLE_BLOB_USE, store_key_of(&id));
}
static void
plant_use_undecodable(void)
{
    struct cq_id id = store_world_user_id(4);
    put(STORE_TABLE_BLOB_USE, store_key_of(&id), (struct cq_view){(const uint8_t *)"\xc0", 1});
}
static void
plant_use_key(void)
{
    struct cq_id id = store_world_user_id(5);
    struct store_key key = store_key_of(&id);
    key.n--;
    put_number(STORE_TABLE_BLOB_USE, key, 1);
}
static void
plant_reader_missing(void)
{
    erase(STORE_TABLE_BLOB_READER, reader_key(2, 3));
}
static void
plant_reader_extra(void)
{
    put(STORE_TABLE_BLOB_READER, reader_key(1, 3), (struct cq_view){(const uint8_t *)"\xc3", 1});
}
static void
plant_reader_of_nothing(void)
{
    put(STORE_TABLE_BLOB_READER, reader_key(77, 3), (struct cq_view){(const uint8_t *)"\xc3", 1});
}
static void
plant_reader_value(void)
{
    put(STORE_TABLE_BLOB_READER, reader_key(1, 2), (struct cq_view){(const uint8_t *)"\xc2", 1});
}
static void
plant_reader_key(void)
{
    struct store_key key = reader_key(1, 2);
    key.n--;
    put(STORE_TABLE_BLOB_READER, key, (struct cq_view){(const uint8_t *)"\xc3", 1});
}

static const struct plant {
    const char *name;
    void (*fn)(void);
    enum store_fsck_kind kind;
    const char *where; /* how the finding's place begins */
} plants[] = {
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
    {"log known of stranger", plant_log_known, STORE_FSCK_LOG_MEMBER, "log "},
    {"log forget other's device", plant_log_forget, STORE_FSCK_LOG_MEMBER, "log "},
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
    {"log media", plant_log_media, STORE_FSCK_LOG_RECORD, "log "},
    {"log gap", plant_log_gap, STORE_FSCK_LOG_SEQ_GAP, "log "},
    {"log twice", plant_log_twice, STORE_FSCK_LOG_SEQ_TWICE, "log "},
    {"log dseq", plant_log_dseq, STORE_FSCK_LOG_DSEQ, "log "},
    {"log member", plant_log_member, STORE_FSCK_LOG_MEMBER, "log "},
    {"log device", plant_log_device, STORE_FSCK_LOG_MEMBER, "log "},
    {"log chat", plant_log_chat, STORE_FSCK_LOG_CHAT, "log "},
    {"log cursor above", plant_log_cursor_above, STORE_FSCK_LOG_CURSOR_ABOVE, "log "},
    {"log cursor back", plant_log_cursor_back, STORE_FSCK_LOG_CURSOR_BACK, "log "},
    {"log undecodable", plant_log_undecodable, STORE_FSCK_LOG_RECORD, "log "},
    {"log cut off", plant_log_cut_off, STORE_FSCK_LOG_RECORD, "log "},
    {"log friend", plant_log_friend, STORE_FSCK_LOG_FRIEND, "log "},
    {"log commit", plant_log_commit, STORE_FSCK_LOG_COMMIT, "log "},
    {"log privacy", plant_log_privacy, STORE_FSCK_LOG_MEMBER, "log "},
    {"friend sides", plant_friend_sides, STORE_FSCK_FRIEND_SIDES, "user "},
    {"friend relation", plant_friend_relation, STORE_FSCK_ROW_WRONG, "user "},
    {"friend name", plant_friend_name, STORE_FSCK_ROW_WRONG, "user "},
    {"friend missing", plant_friend_missing, STORE_FSCK_ROW_MISSING, "user "},
    {"friend both missing", plant_friend_both_missing, STORE_FSCK_ROW_MISSING, "user "},
    {"friend no record", plant_friend_no_record, STORE_FSCK_ROW_WRONG, "user "},
    {"friend undecodable", plant_friend_undecodable, STORE_FSCK_ROW_VALUE, "user "},
    {"key damaged", plant_key_damaged, STORE_FSCK_KEY, "user "},
    {"key version", plant_key_version, STORE_FSCK_ROW_WRONG, "user "},
    {"key of other chat", plant_key_of_other_chat, STORE_FSCK_KEY, "user "},
    {"key other", plant_key_other, STORE_FSCK_FRIEND_SIDES, "user "},
    {"name without account", plant_name_without_account, STORE_FSCK_REFERENCE, "name nobody"},
    {"name missing", plant_name_missing, STORE_FSCK_ROW_MISSING, "name user5"},
    {"name of other", plant_name_of_other, STORE_FSCK_REFERENCE, "name user5"},
    {"name key", plant_name_key, STORE_FSCK_ROW_KEY, "name "},
    {"account undecodable", plant_account_undecodable, STORE_FSCK_ROW_VALUE, "account "},
    {"account setting", plant_account_setting, STORE_FSCK_ROW_WRONG, "account "},
    {"owner other", plant_owner_other, STORE_FSCK_REFERENCE, "owner "},
    {"owner missing", plant_owner_missing, STORE_FSCK_ROW_MISSING, "owner "},
    {"device missing", plant_device_missing, STORE_FSCK_REFERENCE, "owner "},
    {"device undecodable", plant_device_undecodable, STORE_FSCK_ROW_VALUE, "device "},
    {"marker above", plant_marker_above, STORE_FSCK_META, "meta marker"},
    {"routed above", plant_routed_above, STORE_FSCK_META, "meta routed"},
    {"schema", plant_schema, STORE_FSCK_META, "meta schema"},
    {"epoch", plant_epoch, STORE_FSCK_META, "meta epoch"},
    {"blob more references", plant_blob_more_references, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob fewer references", plant_blob_fewer_references, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob reference of nothing", plant_blob_reference_of_nothing, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob dead", plant_blob_dead, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob no hash", plant_blob_no_hash, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob upload with hash", plant_blob_upload_with_hash, STORE_FSCK_ROW_WRONG, "blob "},
    {"blob missing", plant_blob_missing, STORE_FSCK_ROW_MISSING, "blob "},
    {"blob undecodable", plant_blob_undecodable, STORE_FSCK_ROW_VALUE, "blob "},
    {"blob key", plant_blob_key, STORE_FSCK_ROW_KEY, "blob "},
    {"blob length", plant_blob_length, STORE_FSCK_ROW_WRONG, "blob_use "},
    {"use bytes", plant_use_bytes, STORE_FSCK_ROW_WRONG, "blob_use "},
    {"use count", plant_use_count, STORE_FSCK_ROW_WRONG, "blob_use "},
    {"use extra", plant_use_extra, STORE_FSCK_ROW_EXTRA, "blob_use "},
    {"use missing", plant_use_missing, STORE_FSCK_ROW_MISSING, "blob_use "},
    {"use undecodable", plant_use_undecodable, STORE_FSCK_ROW_VALUE, "blob_use "},
    {"use key", plant_use_key, STORE_FSCK_ROW_KEY, "blob_use "},
    {"reader missing", plant_reader_missing, STORE_FSCK_ROW_MISSING, "blob_reader "},
    {"reader extra", plant_reader_extra, STORE_FSCK_ROW_EXTRA, "blob_reader "},
    {"reader of nothing", plant_reader_of_nothing, STORE_FSCK_ROW_EXTRA, "blob_reader "},
    {"reader value", plant_reader_value, STORE_FSCK_ROW_VALUE, "blob_reader "},
    {"reader key", plant_reader_key, STORE_FSCK_ROW_KEY, "blob_reader "},
};

enum {
    PLANT_COUNT = sizeof plants / sizeof plants[0]
};

static void
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

static int
set_up_plant(void **state)
{
    void *unused = NULL;
    (void)state;
    return set_up(&unused);
}

static int
tear_down_plant(void **state)
{
    void *unused = NULL;
    (void)state;
    return tear_down(&unused);
}

int
main(void)
{
    struct CMUnitTest tests[PLANT_COUNT];
    for (size_t i = 0; i < PLANT_COUNT; i++) {
        union {
            const struct plant *from;
            void *to;
        } p = {&plants[i]};
        tests[i] = (struct CMUnitTest){plants[i].name, is_found_alone, set_up_plant,
                                       tear_down_plant, p.to};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
