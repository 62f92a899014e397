/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/lease.h"

#include <string.h>

int
presence_lease_find(const presence_lease_t *l, const char *name)
{
    for (int i = 0; i < PRESENCE_EDGE_MAX; i++) {
        if (l->edges[i].live && strcmp(l->edges[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The index this name had, else one never used, else that of a dead edge. */
static int
place_for(const presence_lease_t *l, const char *name)
{
    int unused = -1;
    int dead = -1;
    for (int i = 0; i < PRESENCE_EDGE_MAX; i++) {
        const struct presence_lease_edge *e = &l->edges[i];
        if (strcmp(e->name, name) == 0) {
            return i;
        }
        if (e->name[0] == '\0') {
            unused = unused < 0 ? i : unused;
        } else if (!e->live) {
            dead = dead < 0 ? i : dead;
        }
    }
    return unused >= 0 ? unused : dead;
}

int
presence_lease_up(presence_lease_t *l, const char *name, uint64_t incarnation, bool *fresh)
{
    size_t n = strlen(name);
    int i = place_for(l, name);
    if (i < 0 || n == 0 || n > CQ_ACTOR_NAME_MAX) {
        return -CQ_E_BUSY;
    }
    struct presence_lease_edge *e = &l->edges[i];
    *fresh = strcmp(e->name, name) != 0 || e->incarnation != incarnation;
    memset(e, 0, sizeof *e);
    memcpy(e->name, name, n);
    e->incarnation = incarnation;
    e->live = true;
    return i;
}

int
presence_lease_down(presence_lease_t *l, const char *name)
{
    int i = presence_lease_find(l, name);
    if (i >= 0) {
        l->edges[i].live = false;
        l->edges[i].announced = false;
    }
    return i;
}

unsigned
presence_lease_missing(const presence_lease_t *l)
{
    unsigned n = 0;
    for (int i = 0; i < PRESENCE_EDGE_MAX; i++) {
        n += l->edges[i].live && !l->edges[i].announced;
    }
    return n;
}

bool
presence_lease_settle(presence_lease_t *l)
{
    if (l->ready || !l->registered || presence_lease_missing(l) > 0) {
        return false;
    }
    l->ready = true;
    return true;
}

void
presence_lease_lost(presence_lease_t *l)
{
    l->registered = false;
    l->ready = false;
}
