/* SPDX-License-Identifier: MPL-2.0
 * Hash table from a 16-byte key to a pointer: open addressing, linear probing, no tombstones. {0}
 * is an empty table. It grows and shrinks a few entries with each change, so no call is long.
 */
#ifndef PRESENCE_MAP_H
#define PRESENCE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"

struct presence_map_slot {
    struct cq_id key;
    void *value; /* NULL: free */
};

typedef struct presence_map {
    struct presence_map_slot *slots;
    size_t room;                   /* 0 or a power of two */
    size_t count;                  /* in both tables */
    struct presence_map_slot *old; /* the table before; its entries are moving */
    size_t old_room;
    size_t old_next; /* those before it have moved */
} presence_map_t;

/* The value, or NULL. */
void *presence_map_find(const presence_map_t *m, const struct cq_id *key);
/* Adds or replaces. value is not NULL. */
void presence_map_put(presence_map_t *m, const struct cq_id *key, void *value);
/* Takes the value out; NULL if there was none. */
void *presence_map_take(presence_map_t *m, const struct cq_id *key);
/* Calls fn for every value, then frees the table (for destroy functions; fn may be NULL). */
void presence_map_clear(presence_map_t *m, void (*fn)(void *value));

/* A key made of two numbers. */
static inline struct cq_id
presence_map_pair(uint64_t a, uint64_t b)
{
    struct cq_id key;
    memcpy(key.b, &a, sizeof a);
    memcpy(key.b + sizeof a, &b, sizeof b);
    return key;
}

#endif
