/* SPDX-License-Identifier: MPL-2.0
 * 16-byte identifiers. All zero means "none" and travels as nil.
 */
#ifndef CQ_WIRE_ID_H
#define CQ_WIRE_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/wire/limits.h"

struct cq_id {
    uint8_t b[CQ_ID_SIZE];
};

static inline bool
cq_id_eq(const struct cq_id *a, const struct cq_id *b)
{
    return memcmp(a->b, b->b, CQ_ID_SIZE) == 0;
}

static inline int
cq_id_cmp(const struct cq_id *a, const struct cq_id *b)
{
    return memcmp(a->b, b->b, CQ_ID_SIZE);
}

static inline bool
cq_id_is_none(const struct cq_id *a)
{
    static const struct cq_id none;
    return cq_id_eq(a, &none);
}

/* Ids are random or hashes: their first bytes spread well. For hash tables in memory, not for
 * partitions. */
static inline uint64_t
cq_id_hash(const struct cq_id *a)
{
    uint64_t h;
    memcpy(&h, a->b, sizeof h);
    return h;
}

/* The partition of a user or chat: the first two bytes, big-endian, modulo the fixed count. */
enum {
    CQ_PARTITION_COUNT = 1024
};

static inline uint16_t
cq_id_partition(const struct cq_id *a)
{
    return (uint16_t)(((a->b[0] << 8) | a->b[1]) % CQ_PARTITION_COUNT);
}

enum {
    CQ_ID_HEX_SIZE = 2 * CQ_ID_SIZE + 1
};

/* Lower-case hex with a final NUL into out. Returns out. */
static inline char *
cq_id_hex(const struct cq_id *a, char out[CQ_ID_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CQ_ID_SIZE; i++) {
        out[2 * i] = digits[a->b[i] >> 4];
        out[2 * i + 1] = digits[a->b[i] & 15];
    }
    out[CQ_ID_HEX_SIZE - 1] = '\0';
    return out;
}

#endif
