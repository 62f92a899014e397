/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <czmq.h>

#include "common/rt/check.h"
#include "common/wire/name.h"

enum {
    FORMER_MAX = 256,
    INCARNATION_DIGITS = 16
};

struct role {
    char name[CQ_ACTOR_NAME_MAX + 1];
    struct broker_actor **members;
    size_t count, room;
    size_t next; /* whose turn it is */
};

struct former {
    char name[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation;
};

struct broker_registry {
    zhashx_t *by_name; /* → struct broker_actor, owned */
    zhashx_t *by_role; /* → struct role, owned */
    struct broker_actor *all[BROKER_REGISTRY_MAX];
    size_t count;
    struct former former[FORMER_MAX]; /* a ring */
    size_t former_next;
};

static bool
read_hex(const uint8_t *p, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < INCARNATION_DIGITS; i++) {
        if (p[i] >= '0' && p[i] <= '9') {
            *out = *out << 4 | (uint64_t)(p[i] - '0');
        } else if (p[i] >= 'a' && p[i] <= 'f') {
            *out = *out << 4 | (uint64_t)(p[i] - 'a' + 10);
        } else {
            return false;
        }
    }
    return true;
}

bool
broker_identity_read(struct cq_view identity,
                     char name[CQ_ACTOR_NAME_MAX + 1],
                     uint64_t *incarnation)
{
    const size_t tail = 1 + INCARNATION_DIGITS;
    if (identity.n <= tail || identity.n > BROKER_IDENTITY_MAX) {
        return false;
    }
    size_t n = identity.n - tail;
    if (identity.p[n] != '#' || !cq_actor_name_ok((const char *)identity.p, n)) {
        return false;
    }
    memcpy(name, identity.p, n);
    name[n] = '\0';
    return read_hex(identity.p + n + 1, incarnation) && *incarnation != 0;
}

broker_registry_t *
broker_registry_new(void)
{
    broker_registry_t *r = cq_alloc(sizeof *r);
    r->by_name = zhashx_new();
    r->by_role = zhashx_new();
    CQ_ASSERT(r->by_name && r->by_role);
    return r;
}

void
broker_registry_destroy(broker_registry_t **r_p)
{
    broker_registry_t *r = *r_p;
    if (!r) {
        return;
    }
    while (r->count) {
        broker_registry_remove(r, r->all[r->count - 1]);
    }
    zhashx_destroy(&r->by_name);
    zhashx_destroy(&r->by_role);
    free(r);
    *r_p = NULL;
}

static void
join_role(broker_registry_t *r, struct broker_actor *a)
{
    struct role *role = zhashx_lookup(r->by_role, a->role);
    if (!role) {
        role = cq_alloc(sizeof *role);
        memcpy(role->name, a->role, sizeof role->name);
        (void)zhashx_insert(r->by_role, role->name, role);
    }
    if (role->count == role->room) {
        role->room = role->room ? 2 * role->room : 4;
        struct broker_actor **members =
            realloc(role->members, role->room * sizeof(struct broker_actor *));
        CQ_ASSERT(members);
        role->members = members;
    }
    role->members[role->count++] = a;
}

static void
leave_role(broker_registry_t *r, const struct broker_actor *a)
{
    struct role *role = zhashx_lookup(r->by_role, a->role);
    size_t i = 0;
    while (role->members[i] != a) {
        i++;
    }
    role->members[i] = role->members[--role->count];
    if (role->count == 0) {
        zhashx_delete(r->by_role, role->name);
        free(role->members);
        free(role);
    }
}

int
broker_registry_add(broker_registry_t *r,
                    const char *name,
                    const char *role,
                    uint64_t incarnation,
                    struct broker_actor **out)
{
    *out = NULL;
    if (r->count == BROKER_REGISTRY_MAX) {
        return -CQ_E_BUSY;
    }
    struct broker_actor *a = cq_alloc(sizeof *a);
    (void)snprintf(a->name, sizeof a->name, "%s", name);
    (void)snprintf(a->role, sizeof a->role, "%s", role);
    int n = snprintf(a->identity, sizeof a->identity, "%s#%016" PRIx64, a->name, incarnation);
    a->identity_size = (size_t)n;
    a->incarnation = incarnation;
    int rc = zhashx_insert(r->by_name, a->name, a);
    CQ_ASSERT(rc == 0);
    a->place = r->count;
    r->all[r->count++] = a;
    join_role(r, a);
    *out = a;
    return 0;
}

void
broker_registry_remove(broker_registry_t *r, struct broker_actor *a)
{
    struct former *f = &r->former[r->former_next];
    r->former_next = (r->former_next + 1) % FORMER_MAX;
    memcpy(f->name, a->name, sizeof f->name);
    f->incarnation = a->incarnation;
    leave_role(r, a);
    zhashx_delete(r->by_name, a->name);
    r->all[a->place] = r->all[--r->count];
    r->all[a->place]->place = a->place;
    free(a);
}

struct broker_actor *
broker_registry_find(const broker_registry_t *r, const char *name)
{
    return zhashx_lookup(r->by_name, name);
}

struct broker_actor *
broker_registry_by_identity(const broker_registry_t *r, struct cq_view identity)
{
    char name[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation = 0;
    if (!broker_identity_read(identity, name, &incarnation)) {
        return NULL;
    }
    struct broker_actor *a = zhashx_lookup(r->by_name, name);
    return a && a->incarnation == incarnation ? a : NULL;
}

struct broker_actor *
broker_registry_route(broker_registry_t *r, const char *dst)
{
    struct broker_actor *a = zhashx_lookup(r->by_name, dst);
    if (a) {
        return a->is_doomed ? NULL : a;
    }
    struct role *role = zhashx_lookup(r->by_role, dst);
    for (size_t i = 0; role && i < role->count; i++) {
        a = role->members[role->next++ % role->count];
        if (!a->is_doomed) {
            return a;
        }
    }
    return NULL;
}

bool
broker_registry_was(const broker_registry_t *r, const char *name, uint64_t incarnation)
{
    for (size_t i = 0; i < FORMER_MAX; i++) {
        const struct former *f = &r->former[i];
        if (f->incarnation == incarnation && strcmp(f->name, name) == 0) {
            return true;
        }
    }
    return false;
}

size_t
broker_registry_count(const broker_registry_t *r)
{
    return r->count;
}

struct broker_actor *
broker_registry_at(const broker_registry_t *r, size_t i)
{
    return r->all[i];
}
