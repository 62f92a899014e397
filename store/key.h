/* SPDX-License-Identifier: MPL-2.0
 * Keys of rows: the partition's two bytes, then ids, then a big-endian number. See the list of
 * tables in engine.h.
 */
#ifndef STORE_KEY_H
#define STORE_KEY_H

#include <string.h>

#include "store/engine.h"

struct store_key {
    uint8_t b[STORE_KEY_MAX];
    size_t n;
};

static inline struct cq_view
store_key_view(const struct store_key *k)
{
    return (struct cq_view){k->b, k->n};
}

static inline void
store_key_add(struct store_key *k, const void *data, size_t n)
{
    if (n) { /* data of an empty view is NULL */
        memcpy(k->b + k->n, data, n);
    }
    k->n += n;
}

/* P id */
static inline struct store_key
store_key_of(const struct cq_id *id)
{
    struct store_key k = {{0}, 2};
    uint16_t partition = cq_id_partition(id);
    k.b[0] = (uint8_t)(partition >> 8);
    k.b[1] = (uint8_t)partition;
    store_key_add(&k, id->b, CQ_ID_SIZE);
    return k;
}

/* P first second; the partition is the first one's */
static inline struct store_key
store_key_pair(const struct cq_id *first, const struct cq_id *second)
{
    struct store_key k = store_key_of(first);
    store_key_add(&k, second->b, CQ_ID_SIZE);
    return k;
}

static inline void
store_key_add_uint(struct store_key *k, uint64_t value)
{
    for (int shift = 56; shift >= 0; shift -= 8) {
        k->b[k->n++] = (uint8_t)(value >> shift);
    }
}

/* P chat seq */
static inline struct store_key
store_key_index(const struct cq_id *chat, uint64_t seq)
{
    struct store_key k = store_key_of(chat);
    store_key_add_uint(&k, seq);
    return k;
}

/* P chat kind id: all receipts of one device (delivered) or of one user (read), ascending by up_to.
 * The kind keeps a device apart that calls itself like a user. */
enum store_receipt_kind {
    STORE_RECEIPT_DELIVERED = 'd', /* id: the device */
    STORE_RECEIPT_READ = 'r'       /* id: the user */
};

static inline struct store_key
store_key_receipts(const struct cq_id *chat, enum store_receipt_kind kind, const struct cq_id *id)
{
    struct store_key k = store_key_of(chat);
    k.b[k.n++] = (uint8_t)kind;
    store_key_add(&k, id->b, CQ_ID_SIZE);
    return k;
}

/* P chat kind id up_to: the record that moved this cursor to up_to. The first one at or above a seq
 * says when the message was delivered or read. */
static inline struct store_key
store_key_receipt(const struct cq_id *chat,
                  enum store_receipt_kind kind,
                  const struct cq_id *id,
                  uint64_t up_to)
{
    struct store_key k = store_key_receipts(chat, kind, id);
    store_key_add_uint(&k, up_to);
    return k;
}

static inline struct store_key
store_key_text(const char *text)
{
    struct store_key k = {{0}, 0};
    store_key_add(&k, text, strlen(text));
    return k;
}

/* The second id of a pair key. */
static inline struct cq_id
store_key_second(struct cq_view key)
{
    struct cq_id id = {0};
    if (key.n >= 2 + 2 * CQ_ID_SIZE) {
        memcpy(id.b, key.p + 2 + CQ_ID_SIZE, CQ_ID_SIZE);
    }
    return id;
}

/* P of the name's hash, name */
struct store_key store_key_name(const char *name, size_t n);

#endif
