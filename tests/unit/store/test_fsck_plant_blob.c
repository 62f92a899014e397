/* SPDX-License-Identifier: MPL-2.0
 * fsck finds each planted corruption, and nothing else: blobs, who uses and who may read them.
 */
#include "fsck_plant.h"

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

static const struct plant plants[] = {
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

int
main(void)
{
    struct CMUnitTest tests[PLANT_COUNT];
    make_tests(plants, PLANT_COUNT, tests);
    return cmocka_run_group_tests_name("store.fsck_plant_blob", tests, NULL, NULL);
}
