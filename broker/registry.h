/* SPDX-License-Identifier: MPL-2.0
 * Who is on the bus: actors by name, members of roles, when each was last heard, and who held a
 * name before. Pure: no sockets, no clock.
 */
#ifndef BROKER_REGISTRY_H
#define BROKER_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/limits.h"
#include "common/wire/read.h"

enum {
    BROKER_REGISTRY_MAX = 4096,
    BROKER_IDENTITY_MAX = CQ_ACTOR_NAME_MAX + 1 + 16, /* "edge.2#0123456789abcdef" */
};

struct broker_actor {
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    char identity[BROKER_IDENTITY_MAX + 1]; /* routing id of its socket */
    size_t identity_size;
    uint64_t incarnation;
    uint64_t heard_mono_ms;
    bool is_doomed; /* to be announced down and removed */
    size_t place;   /* in the list of all */
};

typedef struct broker_registry broker_registry_t;

/* Splits a routing id into name (out, NUL-terminated) and incarnation. False: not NAME#INCARNATION.
 */
bool broker_identity_read(struct cq_view identity,
                          char name[CQ_ACTOR_NAME_MAX + 1],
                          uint64_t *incarnation);

broker_registry_t *broker_registry_new(void);
void broker_registry_destroy(broker_registry_t **r);

/* Adds an actor. name and role are valid and the name is free; identity is made of name and
 * incarnation. Returns 0 and the actor (the registry's, until removed), or -CQ_E_BUSY: full. */
int broker_registry_add(broker_registry_t *r,
                        const char *name,
                        const char *role,
                        uint64_t incarnation,
                        struct broker_actor **out) CQ_MUST_CHECK;
/* Forgets the actor (frees it) and remembers that its incarnation held the name. */
void broker_registry_remove(broker_registry_t *r, struct broker_actor *a);

/* The actor of this name, doomed or not, or NULL. */
struct broker_actor *broker_registry_find(const broker_registry_t *r, const char *name);
/* The actor that this routing id belongs to, or NULL. */
struct broker_actor *broker_registry_by_identity(const broker_registry_t *r,
                                                 struct cq_view identity);
/* Where an envelope for dst goes: the actor of this name, else the members of this role in turn;
 * NULL: nobody. */
struct broker_actor *broker_registry_route(broker_registry_t *r, const char *dst);
/* Did this incarnation hold the name before (of the last 256 that went)? */
bool broker_registry_was(const broker_registry_t *r, const char *name, uint64_t incarnation);

size_t broker_registry_count(const broker_registry_t *r);
struct broker_actor *broker_registry_at(const broker_registry_t *r, size_t i);

#endif
