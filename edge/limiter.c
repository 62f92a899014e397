/* SPDX-License-Identifier: MPL-2.0
 * Open addressing with a short, fixed probe: a bucket lives within PROBE slots of its hash. A slot
 * whose bucket is full again is free. No neighbourhood free: the table doubles up to its maximum,
 * then the bucket nearest to full is overwritten.
 */
#include "edge/limiter.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    PROBE = 16,
    ENTRIES_MIN = 256
};

struct entry {
    uint64_t key;
    uint64_t full_mono_us; /* when the bucket is full again; 0: never used */
    uint8_t rate;
};

struct edge_limiter {
    struct edge_limit limits[EDGE_RATE_COUNT];
    struct entry *entries;
    size_t room;
    size_t room_max;
};

edge_limiter_t *
edge_limiter_new(const struct edge_limit *limits, size_t entries_max)
{
    edge_limiter_t *l = cq_alloc(sizeof *l);
    for (size_t i = 0; i < EDGE_RATE_COUNT; i++) {
        l->limits[i] = limits[i];
    }
    l->room_max = entries_max < ENTRIES_MIN ? ENTRIES_MIN : entries_max;
    l->room = ENTRIES_MIN;
    l->entries = cq_alloc(l->room * sizeof *l->entries);
    return l;
}

void
edge_limiter_destroy(edge_limiter_t **l)
{
    if (*l) {
        free((*l)->entries);
        free(*l);
        *l = NULL;
    }
}

static size_t
hash(enum edge_rate rate, uint64_t key)
{
    uint64_t h = (key + (uint64_t)rate * 0x632be59bd9b4e019u) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ (h >> 29));
}

/* The slot of this bucket, or the best one for it: *is_own tells. NULL: all are taken by others
 * (and *worst is the fullest). */
static struct entry *
find(edge_limiter_t *l, enum edge_rate rate, uint64_t key, uint64_t now_us, struct entry **worst)
{
    size_t h = hash(rate, key);
    struct entry *spare = NULL;
    *worst = NULL;
    for (size_t i = 0; i < PROBE; i++) {
        struct entry *e = &l->entries[(h + i) & (l->room - 1)];
        if (e->full_mono_us && e->key == key && e->rate == rate) {
            return e;
        }
        if (e->full_mono_us <= now_us && !spare) {
            spare = e;
        }
        if (!e->full_mono_us) {
            break;
        }
        if (!*worst || e->full_mono_us < (*worst)->full_mono_us) {
            *worst = e;
        }
    }
    if (spare) {
        *spare = (struct entry){.key = key, .rate = (uint8_t)rate, .full_mono_us = now_us};
    }
    return spare;
}

static void
grow(edge_limiter_t *l, uint64_t now_us)
{
    struct entry *old = l->entries;
    size_t old_room = l->room;
    l->room *= 2;
    l->entries = cq_alloc(l->room * sizeof *l->entries);
    for (size_t i = 0; i < old_room; i++) {
        struct entry *worst;
        if (old[i].full_mono_us > now_us) {
            struct entry *e = find(l, (enum edge_rate)old[i].rate, old[i].key, now_us, &worst);
            *(e ? e : worst) = old[i];
        }
    }
    free(old);
}

uint64_t
edge_limiter_take(edge_limiter_t *l, enum edge_rate rate, uint64_t key, uint64_t now_mono_us)
{
    const struct edge_limit *limit = &l->limits[rate];
    if (!limit->per_s) {
        return 0;
    }
    struct entry *worst;
    struct entry *e = find(l, rate, key, now_mono_us, &worst);
    if (!e && l->room < l->room_max) {
        grow(l, now_mono_us);
        e = find(l, rate, key, now_mono_us, &worst);
    }
    if (!e) {
        e = worst;
        *e = (struct entry){.key = key, .rate = (uint8_t)rate, .full_mono_us = now_mono_us};
    }
    uint64_t token_us = 1000000 / limit->per_s;
    token_us = token_us ? token_us : 1;
    uint64_t full = (e->full_mono_us > now_mono_us ? e->full_mono_us : now_mono_us) + token_us;
    uint64_t span_us = limit->burst * token_us;
    if (full - now_mono_us > span_us) {
        return (full - now_mono_us - span_us) / 1000 + 1;
    }
    e->full_mono_us = full;
    return 0;
}

size_t
edge_limiter_entries(const edge_limiter_t *l)
{
    return l->room;
}
