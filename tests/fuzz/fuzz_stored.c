/* SPDX-License-Identifier: MPL-2.0
 * Every decoder of what lies on disk, in Redis or in a client's hands: rows of the store, resume
 * tokens, values of presence, manifests of backups. The first byte says which. What is accepted is
 * written and read again: it must come out the same.
 */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/rt/blobfile.h"
#include "common/rt/token.h"

#include "presence/redis_value.h"
#include "store/account.h"
#include "store/blob.h"
#include "store/blob_tree.h"
#include "store/chat.h"
#include "store/complete.h"
#include "store/friend.h"
#include "store/manifest.h"
#include "tests/fuzz/fuzz_wire.h"

static void
must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void
must_equal(const cq_buf_t *a, const cq_buf_t *b)
{
    must(a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
}

static void
try_chat(struct cq_view row)
{
    static const struct cq_id id = {{1}};
    struct store_chat c;
    cq_buf_t first = {0};
    cq_buf_t second = {0};
    store_chat_init(&c, &id);
    int rc = store_chat_read(row, &c);
    if (rc == 0) {
        store_chat_write(&first, &c);
        store_chat_fini(&c);
        store_chat_init(&c, &id);
        must(store_chat_read((struct cq_view){first.data, first.size}, &c) == 0);
        store_chat_write(&second, &c);
        must_equal(&first, &second);
    }
    store_chat_fini(&c);
    cq_buf_free(&first);
    cq_buf_free(&second);
}

static void
try_index(struct cq_view row)
{
    struct store_chat_block block;
    if (store_chat_read_block(row, &block) == 0) {
        (void)store_chat_block_entry(&block, STORE_CHAT_BLOCK - 1);
    }
}

static void
try_friend(struct cq_view row)
{
    struct store_friend f;
    struct store_friend again;
    cq_buf_t b = {0};
    if (store_friend_read(row, &f) == 0) {
        store_friend_write(&b, &f);
        must(store_friend_read((struct cq_view){b.data, b.size}, &again) == 0);
        must(again.relation == f.relation && strcmp(again.peer_name, f.peer_name) == 0);
    }
    cq_buf_free(&b);
}

static void
try_account(struct cq_view row)
{
    struct store_account a;
    if (store_account_read(row, &a) == 0) {
        must(strlen(a.name) <= CQ_NAME_MAX && strlen(a.hash) < STORE_HASH_SIZE);
    }
}

static void
try_device(struct cq_view row)
{
    struct store_device d;
    if (store_device_read(row, &d) == 0) {
        must(strlen(d.label) <= CQ_LABEL_MAX);
    }
}

static void
try_token(struct cq_view token)
{
    static const struct cq_token_keys keys = {{0x58, 0x66}, {0x53}, true};
    struct cq_token t;
    must(cq_token_verify(token, &keys, 0, &t) < 0); /* nobody has signed or sealed it */
}

static void
try_online(struct cq_view value)
{
    struct presence_redis_session sessions[PRESENCE_REDIS_LISTED_MAX];
    uint64_t heartbeat = 0;
    int count = presence_redis_value_read(value, &heartbeat, sessions, PRESENCE_REDIS_LISTED_MAX);
    must(count <= PRESENCE_REDIS_LISTED_MAX);
    for (int i = 0; i < count; i++) {
        must(strlen(sessions[i].edge) <= CQ_ACTOR_NAME_MAX);
    }
}

static void
try_key(struct cq_view key)
{
    struct cq_id user;
    uint64_t number = 0;
    (void)!presence_redis_value_key_read(key, PRESENCE_REDIS_ONLINE, &user);
    (void)presence_redis_value_number(key, &number);
}

static void
try_manifest(struct cq_view text)
{
    struct store_manifest m;
    struct store_manifest again;
    cq_buf_t b = {0};
    (void)store_manifest_is_ours(text);
    if (store_manifest_read(text, &m) == 0) {
        store_manifest_write(&b, &m);
        must(b.size == text.n && memcmp(b.data, text.p, b.size) == 0);
        must(store_manifest_read((struct cq_view){b.data, b.size}, &again) == 0);
    }
    cq_buf_free(&b);
}

/* The same with a sum that fits, so that what is behind the sum is reached. */
static void
try_manifest_body(struct cq_view body)
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    char hex[2 * STORE_MANIFEST_HASH_SIZE + 1];
    cq_buf_t b = {0};
    must(crypto_generichash(hash, sizeof hash, body.p, body.n, NULL, 0) == 0);
    (void)sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    cq_buf_append(&b, body.p, body.n);
    cq_buf_append(&b, "sum ", 4);
    cq_buf_append(&b, hex, sizeof hex - 1);
    cq_buf_append(&b, "\n", 1);
    try_manifest((struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

static void
try_blob(struct cq_view row)
{
    struct store_blob blob;
    struct store_blob_use use;
    cq_buf_t b = {0};
    if (store_blob_read(row, &blob) == 0) {
        store_blob_write(&b, &blob);
        must(store_blob_read((struct cq_view){b.data, b.size}, &blob) == 0);
    }
    (void)!store_blob_read_use(row, &use);
    cq_buf_free(&b);
}

/* A file shorter than a header is read as if zeros followed. */
static void
try_blob_header(struct cq_view file)
{
    static uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, file.p, file.n < sizeof bytes ? file.n : sizeof bytes);
    if (cq_blobfile_read_header(bytes, &h) == 0) {
        must(h.length <= CQ_BLOBFILE_LENGTH_MAX && h.synced <= h.length);
        (void)!cq_blobfile_check_trailer(&h, file);
    }
}

/* A line of a backup's list: what is taken is exactly what would be written. */
static void
try_blob_line(struct cq_view text)
{
    char line[STORE_BLOB_TREE_LINE_SIZE], again[STORE_BLOB_TREE_LINE_SIZE];
    struct store_blob_entry e;
    size_t n = text.n < sizeof line ? text.n : sizeof line - 1;
    memcpy(line, text.p, n);
    line[n] = '\0';
    if (store_blob_tree_read_line(line, &e)) {
        store_blob_tree_write_line(&e, again);
        must(strcmp(line, again) == 0 && e.length <= CQ_BLOBFILE_LENGTH_MAX);
    }
}

static void
try_complete(struct cq_view row)
{
    static struct store_complete c, again;
    const uint64_t last_pos = UINT64_C(1) << 40;
    cq_buf_t b = {0};
    if (store_complete_read(row, last_pos, &c) == 0) {
        for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
            must(c.pos[i] <= last_pos);
        }
        store_complete_write(&b, &c);
        must(store_complete_read((struct cq_view){b.data, b.size}, last_pos, &again) == 0);
        must(memcmp(&c, &again, sizeof c) == 0);
    }
    cq_buf_free(&b);
}

static void (*const tries[])(struct cq_view) = {
    try_chat,  try_index,       try_friend,    try_account,  try_device,
    try_token, try_online,      try_key,       try_manifest, try_manifest_body,
    try_blob,  try_blob_header, try_blob_line, try_complete,
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 0 && data[0] < sizeof tries / sizeof tries[0]) {
        tries[data[0]]((struct cq_view){data + 1, n - 1});
    }
    return 0;
}
