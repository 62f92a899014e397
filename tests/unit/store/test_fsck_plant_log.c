/* SPDX-License-Identifier: MPL-2.0
 * fsck finds each planted corruption, and nothing else: records of the log and what is kept about
 * it.
 */
#include "fsck_plant.h"

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
    struct cq_rec_commit c = {.last_pos = UINT64_C(1) << 40, .time_unix_ms = 1};
    append(CQ_REC_COMMIT, &c);
}
static void
plant_log_privacy(void)
{
    struct cq_rec_privacy p = {store_world_user_id(77), true, 1};
    append(CQ_REC_PRIVACY, &p);
}
static void
plant_marker_above(void)
{
    put_number(STORE_TABLE_META, store_key_text("marker"), world.core.last_pos + 1);
}
static void
put_complete(uint64_t pos)
{
    struct store_complete c;
    cq_buf_t b = {0};
    store_complete_init(&c, pos);
    store_complete_write(&b, &c);
    put_buf(STORE_TABLE_META, store_key_text("complete"), &b);
}
static void
plant_complete_above(void)
{
    put_complete(world.core.last_pos + 1);
}
/* A good message, which a start would leave out: the row does not have it. */
static void
plant_complete_early(void)
{
    struct cq_rec_message m = next_message();
    append(CQ_REC_MESSAGE, &m);
    put_complete(world.core.last_pos + 1);
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

static const struct plant plants[] = {
    {"log known of stranger", plant_log_known, STORE_FSCK_LOG_MEMBER, "log "},
    {"log forget other's device", plant_log_forget, STORE_FSCK_LOG_MEMBER, "log "},
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
    {"marker above", plant_marker_above, STORE_FSCK_META, "meta marker"},
    {"complete above", plant_complete_above, STORE_FSCK_META, "meta complete"},
    {"complete early", plant_complete_early, STORE_FSCK_ROW_BEHIND, "chat "},
    {"routed above", plant_routed_above, STORE_FSCK_META, "meta routed"},
    {"schema", plant_schema, STORE_FSCK_META, "meta schema"},
    {"epoch", plant_epoch, STORE_FSCK_META, "meta epoch"},
};

enum {
    PLANT_COUNT = sizeof plants / sizeof plants[0]
};

int
main(void)
{
    struct CMUnitTest tests[PLANT_COUNT];
    make_tests(plants, PLANT_COUNT, tests);
    return cmocka_run_group_tests_name("store.fsck_plant_log", tests, NULL, NULL);
}
