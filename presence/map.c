/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/map.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    ROOM_MIN = 16,
    MOVE_STEP = 32, /* slots of the old table looked at with each change */
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

/* Stands in the old table where an entry was: a look-up goes on behind it. */
static char moved;

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

/* The key's slot in the old table, or NULL. */
static struct presence_map_slot *
locate_old(const presence_map_t *m, const struct cq_id *key)
{
    if (!m->old) {
        return NULL;
    }
    size_t i = hash(key) & (m->old_room - 1);
    while (m->old[i].value && (m->old[i].value == &moved || !cq_id_eq(&m->old[i].key, key))) {
        i = (i + 1) & (m->old_room - 1);
    }
    return m->old[i].value ? &m->old[i] : NULL;
}

void *
presence_map_find(const presence_map_t *m, const struct cq_id *key)
{
    void *value = m->room ? m->slots[locate(m, key)].value : NULL;
    if (!value) {
        const struct presence_map_slot *slot = locate_old(m, key);
        value = slot ? slot->value : NULL;
    }
    return value;
}

static void
move_some(presence_map_t *m, size_t max)
{
    for (size_t n = 0; m->old && n < max; n++) {
        struct presence_map_slot *slot = &m->old[m->old_next++];
        if (slot->value && slot->value != &moved) {
            m->slots[locate(m, &slot->key)] = *slot;
            slot->value = &moved;
        }
        if (m->old_next == m->old_room) {
            free(m->old);
            m->old = NULL;
        }
    }
}

/* At these steps the old table is empty long before the new one asks for another. */
static void
resize(presence_map_t *m, size_t room)
{
    move_some(m, SIZE_MAX);
    m->old = m->slots;
    m->old_room = m->room;
    m->old_next = 0;
    m->slots = cq_alloc(room * sizeof *m->slots);
    m->room = room;
}

void
presence_map_put(presence_map_t *m, const struct cq_id *key, void *value)
{
    CQ_ASSERT(value);
    if (m->room == 0 || (m->count + 1) * 4 > m->room * 3) {
        resize(m, m->room ? m->room * 2 : ROOM_MIN);
    }
    move_some(m, MOVE_STEP);
    struct presence_map_slot *old = locate_old(m, key);
    if (old) {
        old->value = &moved;
        m->count--;
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

static void *
take_out(presence_map_t *m, const struct cq_id *key)
{
    size_t i = locate(m, key);
    void *value = m->slots[i].value;
    if (value) {
        close_hole(m, i);
        return value;
    }
    struct presence_map_slot *old = locate_old(m, key);
    if (old) {
        value = old->value;
        old->value = &moved;
    }
    return value;
}

void *
presence_map_take(presence_map_t *m, const struct cq_id *key)
{
    if (m->room == 0) {
        return NULL;
    }
    move_some(m, MOVE_STEP);
    void *value = take_out(m, key);
    if (value) {
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
    move_some(m, SIZE_MAX);
    for (size_t i = 0; fn && i < m->room; i++) {
        if (m->slots[i].value) {
            fn(m->slots[i].value);
        }
    }
    free(m->slots);
    *m = (presence_map_t){0};
}
