/* SPDX-License-Identifier: MPL-2.0
 * fsck finds each planted corruption, and nothing else: accounts, devices, friends and their keys.
 */
#include "fsck_plant.h"

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
plant_friend_missing_of_1(void)
{
    erase(STORE_TABLE_USER, friend_key(1, 6));
}
static void
plant_friend_missing_of_6(void)
{
    erase(STORE_TABLE_USER, friend_key(6, 1));
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

static const struct plant plants[] = {
    {"friend sides", plant_friend_sides, STORE_FSCK_FRIEND_SIDES, "user "},
    {"friend relation", plant_friend_relation, STORE_FSCK_ROW_WRONG, "user "},
    {"friend name", plant_friend_name, STORE_FSCK_ROW_WRONG, "user "},
    {"friend missing", plant_friend_missing, STORE_FSCK_ROW_MISSING, "user "},
    {"friend missing of 1", plant_friend_missing_of_1, STORE_FSCK_ROW_MISSING, "user "},
    {"friend missing of 6", plant_friend_missing_of_6, STORE_FSCK_ROW_MISSING, "user "},
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
};

enum {
    PLANT_COUNT = sizeof plants / sizeof plants[0]
};

int
main(void)
{
    struct CMUnitTest tests[PLANT_COUNT];
    make_tests(plants, PLANT_COUNT, tests);
    return cmocka_run_group_tests_name("store.fsck_plant_people", tests, NULL, NULL);
}
