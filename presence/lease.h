/* SPDX-License-Identifier: MPL-2.0
 * Which edges are alive, and which of them have announced their sessions. Presence is *ready* once
 * it is registered and every live edge has announced; before that it neither delivers nor confirms,
 * because somebody it does not know yet may be online. Once ready it stays ready until the broker
 * is lost: an edge that comes later tells its sessions to sync.
 */
#ifndef PRESENCE_LEASE_H
#define PRESENCE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/limits.h"

#include "presence/session_map.h"

struct presence_lease_edge {
    char name[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation;
    bool live;
    bool announced;
};

typedef struct presence_lease {
    struct presence_lease_edge edges[PRESENCE_EDGE_MAX];
    bool registered;
    bool ready;
} presence_lease_t;

/* An edge came up. Its index, or -CQ_E_BUSY if the table is full. *fresh: another incarnation than
 * the index had before, so numbering starts anew. A live edge of that name keeps its index. */
int presence_lease_up(presence_lease_t *l, const char *name, uint64_t incarnation, bool *fresh)
    CQ_MUST_CHECK;
/* An edge went down. Its index, or -1 if it was not known. */
int presence_lease_down(presence_lease_t *l, const char *name);
/* Index of a live edge, or -1. */
int presence_lease_find(const presence_lease_t *l, const char *name);
/* Live edges that have not announced. */
unsigned presence_lease_missing(const presence_lease_t *l);
/* Checks again whether presence is ready; true at the moment it becomes so. */
bool presence_lease_settle(presence_lease_t *l);
/* The broker is lost: everything has to be announced again. */
void presence_lease_lost(presence_lease_t *l);

#endif
