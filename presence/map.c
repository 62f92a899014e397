/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/map.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    ROOM_MIN = 16
};

/* Both halves count: keys are random ids, or pairs of small numbers. */
static uint64_t
hash(const struct cq_id *key)
{
    uint64_t a, b;
    memcpy(&a, key->b, sizeof a);
    memcpy(&b, key->b + sizeof a, sizeof b);
    uint64_t h = (a * 0x9e3779b97f4a7c15U) ^ (b + 0x632be59bd9b4e019U);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9U;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebU;
    return h ^ (h >> 31);
}

/* The key's slot, or the free one where it would go. There is always a free one. */
static size_t
locate(const presence_map_t *m, const struct cq_id *key)
{
    size_t i = hash(key) & (m->room - 1);
    while (m->slots[i].value && !cq_id_eq(&m->slots[i].key, key)) {
        i = (i + 1) & (m->room - 1);
    }
    return i;
}

void *
presence_map_find(const presence_map_t *m, const struct cq_id *key)
{
    return m->room ? m->slots[locate(m, key)].value : NULL;
}

static void
resize(presence_map_t *m, size_t room)
{
    struct presence_map_slot *old = m->slots;
    size_t old_room = m->room;
    m->slots = cq_alloc(room * sizeof *m->slots);
    m->room = room;
    for (size_t i = 0; i < old_room; i++) {
        if (old[i].value) {
            m->slots[locate(m, &old[i].key)] = old[i];
        }
    }
    free(old);
}

void
presence_map_put(presence_map_t *m, const struct cq_id *key, void *value)
{
    CQ_ASSERT(value);
    if (m->room == 0 || (m->count + 1) * 4 > m->room * 3) {
        resize(m, m->room ? m->room * 2 : ROOM_MIN);
    }
    struct presence_map_slot *slot = &m->slots[locate(m, key)];
    if (!slot->value) {
        m->count++;
    }
    *slot = (struct presence_map_slot){*key, value};
}

/* Moves what follows back over a hole, so that no look-up stops at it. */
static void
close_hole(presence_map_t *m, size_t hole)
{
    size_t mask = m->room - 1;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = hash(&m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].value = NULL;
}

void *
presence_map_take(presence_map_t *m, const struct cq_id *key)
{
    if (m->room == 0) {
        return NULL;
    }
    size_t i = locate(m, key);
    void *value = m->slots[i].value;
    if (value) {
        close_hole(m, i);
        m->count--;
        if (m->room > ROOM_MIN && m->count * 8 < m->room) {
            resize(m, m->room / 2);
        }
    }
    return value;
}

void
presence_map_clear(presence_map_t *m, void (*fn)(void *value))
{
    for (size_t i = 0; fn && i < m->room; i++) {
        if (m->slots[i].value) {
            fn(m->slots[i].value);
        }
    }
    free(m->slots);
    *m = (presence_map_t){0};
}
