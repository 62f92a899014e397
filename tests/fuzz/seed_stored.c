/* SPDX-License-Identifier: MPL-2.0
 * Writes the seeds of fuzz_stored: one good value of each kind, and that value cut off and changed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/blobfile.h"
#include "common/rt/token.h"
#include "common/wire/pack.h"

#include "presence/redis_value.h"
#include "store/account.h"
#include "store/blob.h"
#include "store/blob_tree.h"
#include "store/chat.h"
#include "store/complete.h"
#include "store/friend.h"
#include "store/manifest.h"

enum {
    PATH_SIZE = 4096,
    MANIFEST_SUM_LINE = 69, /* "sum ", 64 digits, newline */
};

static const char *folder;

static void
write_seed(unsigned kind, const char *variant, const void *data, size_t n)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/stored-%u-%s", folder, kind, variant);
    FILE *f = fopen(path, "we");
    bool ok = f && fputc((int)kind, f) != EOF && fwrite(data, 1, n, f) == n;
    if (!f || fclose(f) != 0 || !ok) {
        (void)fprintf(stderr, "seed_stored: cannot write %s\n", path);
        exit(EXIT_FAILURE); /* NOLINT(concurrency-mt-unsafe) one thread */
    }
}

static void
write_seeds(unsigned kind, cq_buf_t *b)
{
    write_seed(kind, "good", b->data, b->size);
    write_seed(kind, "half", b->data, b->size / 2);
    b->data[b->size / 3] ^= 0x55;
    write_seed(kind, "changed", b->data, b->size);
    cq_buf_clear(b);
}

static void
write_chat(cq_buf_t *b)
{
    struct store_chat_answer answers[2] = {{7, 2}, {9, 4}};
    struct store_chat_device devices[2] = {{.device = {{1}},
                                            .last_dseq = 9,
                                            .answer_count = 2,
                                            .answer_newest = 1,
                                            .answers = answers},
                                           {.device = {{2}}, .member = 1, .delivered = 4}};
    struct store_chat_index tail[4] = {{10, 1}, {20, 2}, {30, 2}, {70, 3}};
    struct store_chat c = {.last_pos = 70,
                           .head = 4,
                           .open = true,
                           .key_version = 1,
                           .tail_first = 1,
                           .tail = tail,
                           .tail_count = 4};
    c.members[0] = (struct store_chat_member){.user = {{3}}, .sent = 3, .read_audit = true};
    c.members[1] = (struct store_chat_member){.user = {{4}}, .sent = 1, .unread_count = 1};
    c.devices = devices;
    c.device_count = 2;
    store_chat_write(b, &c);
}

static void
write_block(cq_buf_t *b)
{
    struct store_chat_index tail[STORE_CHAT_BLOCK];
    for (uint64_t i = 0; i < STORE_CHAT_BLOCK; i++) {
        tail[i] = (struct store_chat_index){1 + i * i * 100, 1 + i / 2};
    }
    struct store_chat c = {.tail_first = 1, .tail = tail, .tail_count = STORE_CHAT_BLOCK};
    store_chat_write_block(b, &c, 1);
}

static void
write_complete(cq_buf_t *b)
{
    struct store_complete c;
    store_complete_init(&c, 1000000);
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        c.pos[i] += i * 341;
    }
    store_complete_write(b, &c);
}

static void
write_online(cq_buf_t *b)
{
    static const struct presence_redis_session session = {"edge.1", 77, {{5}}, 1795497454817};
    char text[PRESENCE_REDIS_VALUE_SIZE];
    cq_buf_append(b, text, presence_redis_value_write(text, 1795497454817, &session, 1));
}

static void
write_key(cq_buf_t *b)
{
    static const struct cq_id user = {{6}};
    char text[PRESENCE_REDIS_KEY_SIZE];
    cq_buf_append(b, text, presence_redis_value_key(text, PRESENCE_REDIS_ONLINE, &user));
}

static void
write_manifest(cq_buf_t *b)
{
    struct store_manifest m = {.created_unix_ms = 1795497454817,
                               .version = "0.1.0",
                               .schema = 1,
                               .epoch = {{7}},
                               .head = 9,
                               .marker = 3,
                               .part_count = 1};
    m.parts[0] = (struct store_manifest_part){"store", "data.mdb", 4096, {8}};
    store_manifest_write(b, &m);
}

int
main(int argc, char **argv)
{
    static const uint8_t secret_key[64] = {1};
    struct store_friend f = {.last_pos = 3,
                             .relation = CQ_RELATION_FRIENDS,
                             .chat = {{1}},
                             .key_version = 1,
                             .peer_name = "bob"};
    struct store_account a = {.name = "ann", .hash = "$argon2id$v=19$", .created_unix_ms = 1};
    struct store_device d = {.label = "phone", .generation = 1};
    struct cq_token t = {
        .user = {{1}}, .device = {{2}}, .name = "ann", .generation = 1, .expires_unix_ms = 1};
    cq_buf_t b = {0};
    if (argc != 2) {
        (void)fprintf(stderr, "usage: seed_stored FOLDER\n");
        return EXIT_FAILURE;
    }
    folder = argv[1];
    write_chat(&b);
    write_seeds(0, &b);
    write_block(&b);
    write_seeds(1, &b);
    store_friend_write(&b, &f);
    write_seeds(2, &b);
    store_account_write(&b, &a);
    write_seeds(3, &b);
    store_device_write(&b, &d);
    write_seeds(4, &b);
    cq_token_sign(&b, &t, secret_key);
    static const struct cq_token_keys keys = {{1}, {1}, true};
    cq_buf_t sealed = {0};
    cq_token_seal(&sealed, (struct cq_view){b.data, b.size}, &keys);
    write_seed(5, "sealed", sealed.data, sealed.size);
    cq_buf_free(&sealed);
    write_seeds(5, &b);
    write_online(&b);
    write_seeds(6, &b);
    write_key(&b);
    write_seeds(7, &b);
    write_manifest(&b);
    write_seeds(8, &b);
    store_manifest_write_unfinished(&b, 1795497454817);
    write_seed(8, "unfinished", b.data, b.size);
    cq_buf_clear(&b);
    write_manifest(&b);
    write_seed(9, "good", b.data, b.size - MANIFEST_SUM_LINE);
    cq_buf_clear(&b);
    const struct store_blob blob = {.state = STORE_BLOB_WHOLE, .length = 300, .references = 2};
    store_blob_write(&b, &blob);
    write_seeds(10, &b);
    struct cq_blobfile_header header = {.length = 300, .tentative_from = CQ_BLOBFILE_NOT_TENTATIVE};
    cq_blobfile_write_header(cq_buf_reserve(&b, CQ_BLOBFILE_HEADER_SIZE), &header);
    b.size = CQ_BLOBFILE_HEADER_SIZE;
    write_seeds(11, &b);
    header.form = CQ_BLOBFILE_KEYED;
    cq_blobfile_write_header(cq_buf_reserve(&b, CQ_BLOBFILE_HEADER_SIZE), &header);
    write_seed(11, "keyed", b.data, CQ_BLOBFILE_HEADER_SIZE);
    const struct store_blob_entry entry = {.id = {{1, 2, 3}}, .length = 4711, .hash = {9, 8, 7}};
    char line[STORE_BLOB_TREE_LINE_SIZE];
    store_blob_tree_write_line(&entry, line);
    cq_buf_append(&b, line, strlen(line));
    write_seeds(12, &b);
    write_complete(&b);
    write_seeds(13, &b);
    cq_buf_free(&b);
    return EXIT_SUCCESS;
}
