/* SPDX-License-Identifier: MPL-2.0
 * Random valid values for any schema, for round trips and fuzz seeds. Strings and lists stay small.
 */
#ifndef TEST_RANDOM_MESSAGE_H
#define TEST_RANDOM_MESSAGE_H

#include <string.h>

#include "common/wire/pack.h"
#include "common/wire/schema.h"

/* Bytes that the views of a message point into. */
struct random_pool {
    uint8_t bytes[65536];
    size_t used;
};

/* xorshift64*: the same numbers everywhere. */
static inline uint32_t
random_next(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1d >> 32);
}

static inline uint64_t
random_number(uint64_t max)
{
    uint64_t v = 0;
    v = (uint64_t)random_next() << 32 | random_next();
    v >>= random_next() % 64; /* all widths */
    return max == UINT64_MAX ? v : v % (max + 1);
}

static inline struct cq_view
random_bytes_of(struct random_pool *pool, uint64_t min, uint64_t max, bool text)
{
    uint64_t span = max - min < 40 ? max - min : 40;
    size_t n = (size_t)(min + random_number(span));
    uint8_t *p = pool->bytes + pool->used;
    pool->used += n;
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(text ? '!' + random_next() % 90 : random_next());
    }
    return (struct cq_view){p, n};
}

static inline struct cq_list
random_list(struct random_pool *pool, uint64_t max)
{
    struct cq_list l = {.count = (size_t)random_number(max < 5 ? max : 5)};
    l.items.p = pool->bytes + pool->used;
    for (size_t i = 0; i < l.count; i++) {
        pool->bytes[pool->used++] = (uint8_t)(random_next() % 128);
    }
    l.items.n = l.count;
    return l;
}

static inline void
random_field(const struct cq_field *f, struct random_pool *pool, void *place)
{
    switch (f->type) {
    case CQ_FIELD_UINT:
        *(uint64_t *)place = random_number(f->max);
        break;
    case CQ_FIELD_ID_OR_NIL:
    case CQ_FIELD_ID:
        for (int i = 0; i < CQ_ID_SIZE; i++) {
            ((struct cq_id *)place)->b[i] = (uint8_t)random_next();
        }
        if (f->type == CQ_FIELD_ID_OR_NIL && random_next() % 3 == 0) {
            *(struct cq_id *)place = (struct cq_id){{0}};
        }
        break;
    case CQ_FIELD_BIN:
        *(struct cq_view *)place = random_bytes_of(pool, f->min, f->max, false);
        break;
    case CQ_FIELD_STR:
        *(struct cq_view *)place = random_bytes_of(pool, f->min, f->max, true);
        break;
    case CQ_FIELD_BOOL:
        *(bool *)place = random_next() % 2;
        break;
    case CQ_FIELD_LIST:
        *(struct cq_list *)place = random_list(pool, f->max);
        break;
    case CQ_FIELD_ANY: {
        static const uint8_t values[] = {0x07, 0xc0, 0xc3, 0xa1, 'x', 0x92, 0x01, 0x90};
        static const struct cq_view any[] = {
            {values, 1}, {values + 1, 1}, {values + 2, 1}, {values + 3, 2}, {values + 5, 3}};
        *(struct cq_view *)place = any[random_next() % 5];
        break;
    }
    }
}

/* out: struct_size bytes. Views live in the pool, which is emptied first. */
static inline void
random_message(const struct cq_schema *s, struct random_pool *pool, void *out)
{
    memset(out, 0, s->struct_size);
    pool->used = 0;
    for (size_t i = 0; i < s->field_count; i++) {
        random_field(&s->fields[i], pool, (char *)out + s->fields[i].offset);
    }
}

#endif
