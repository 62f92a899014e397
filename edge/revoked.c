/* SPDX-License-Identifier: MPL-2.0
 * Open addressing, at most half full. Device ids are chosen by clients, so the hash is not taken
 * from them alone: it is salted per process, or somebody could make all his devices meet in one
 * slot.
 */
#include "edge/revoked.h"

#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/random.h"

enum {
    ROOM_MIN = 64
};

struct row {
    struct cq_id user, device;
    uint64_t generation;
    bool is_used;
};

struct edge_revoked {
    struct row *rows;
    size_t room;
    size_t count;
    uint64_t salt;
};

edge_revoked_t *
edge_revoked_new(void)
{
    edge_revoked_t *r = cq_alloc(sizeof *r);
    r->room = ROOM_MIN;
    r->rows = cq_alloc(r->room * sizeof *r->rows);
    r->salt = cq_random_u64() | 1;
    return r;
}

void
edge_revoked_destroy(edge_revoked_t **r)
{
    if (*r) {
        free((*r)->rows);
        free(*r);
        *r = NULL;
    }
}

static uint64_t
mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0xff51afd7ed558ccdu;
    return h ^ (h >> 32);
}

static struct row *
find(const edge_revoked_t *r, const struct cq_id *user, const struct cq_id *device)
{
    uint64_t parts[2];
    memcpy(parts, device->b, sizeof parts);
    size_t i = (size_t)mix(mix(mix(r->salt, cq_id_hash(user)), parts[0]), parts[1] * r->salt);
    for (;; i++) {
        struct row *row = &r->rows[i & (r->room - 1)];
        if (!row->is_used || (cq_id_eq(&row->device, device) && cq_id_eq(&row->user, user))) {
            return row;
        }
    }
}

static void
grow(edge_revoked_t *r)
{
    struct row *old = r->rows;
    size_t old_room = r->room;
    r->room *= 2;
    r->rows = cq_alloc(r->room * sizeof *r->rows);
    for (size_t i = 0; i < old_room; i++) {
        if (old[i].is_used) {
            *find(r, &old[i].user, &old[i].device) = old[i];
        }
    }
    free(old);
}

void
edge_revoked_add(edge_revoked_t *r,
                 const struct cq_id *user,
                 const struct cq_id *device,
                 uint64_t generation)
{
    struct row *row = find(r, user, device);
    if (!row->is_used) {
        if (r->count * 2 >= r->room) {
            grow(r);
            row = find(r, user, device);
        }
        *row = (struct row){.user = *user, .device = *device, .is_used = true};
        r->count++;
    }
    row->generation = generation > row->generation ? generation : row->generation;
}

bool
edge_revoked_has(const edge_revoked_t *r,
                 const struct cq_id *user,
                 const struct cq_id *device,
                 uint64_t generation)
{
    const struct row *row = find(r, user, device);
    return row->is_used && generation <= row->generation;
}

size_t
edge_revoked_count(const edge_revoked_t *r)
{
    return r->count;
}
