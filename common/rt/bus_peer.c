/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/bus_impl.h"
#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/wire/name.h"

void
cq_bus_peers_start(cq_bus_t *bus)
{
    bus->peers = zhashx_new();
    bus->roles = zhashx_new();
    CQ_ASSERT(bus->peers && bus->roles);
}

void
cq_bus_peers_stop(cq_bus_t *bus)
{
    for (void *p = zhashx_first(bus->peers); p; p = zhashx_next(bus->peers)) {
        free(p);
    }
    for (void *n = zhashx_first(bus->roles); n; n = zhashx_next(bus->roles)) {
        free(n);
    }
    zhashx_destroy(&bus->peers);
    zhashx_destroy(&bus->roles);
}

const struct cq_bus_peer *
cq_bus_peers_find(const cq_bus_t *bus, const char *name)
{
    return zhashx_lookup(bus->peers, name);
}

bool
cq_bus_peer_is(const struct cq_bus_peer *peer, const char *dst)
{
    return strcmp(peer->name, dst) == 0 || strcmp(peer->role, dst) == 0;
}

bool
cq_bus_has(const cq_bus_t *bus, const char *role_or_name)
{
    const size_t *members = zhashx_lookup(bus->roles, role_or_name);
    return (members && *members) || zhashx_lookup(bus->peers, role_or_name);
}

/* Changes the number of a role's members; roles of nobody are forgotten, so that names from the bus
 * do not pile up. */
static void
count_role(cq_bus_t *bus, const char *role, bool up)
{
    size_t *members = zhashx_lookup(bus->roles, role);
    if (!members) {
        members = cq_alloc(sizeof *members);
        (void)zhashx_insert(bus->roles, role, members);
    }
    *members = up ? *members + 1 : *members - 1;
    if (*members == 0) {
        zhashx_delete(bus->roles, role);
        free(members);
    }
}

/* Takes the peer out, then tells. */
static void
forget(cq_bus_t *bus, struct cq_bus_peer *peer)
{
    zhashx_delete(bus->peers, peer->name);
    count_role(bus, peer->role, false);
    cq_bus_stats.peers--;
    CQ_LOG(INFO, "BUS-PEER-DOWN", "peer=%s role=%s", peer->name, peer->role);
    if (bus->cfg.on_peer) {
        bus->cfg.on_peer(bus->cfg.ctx, peer->name, peer->role, peer->incarnation, false);
    }
    cq_bus_requests_down(bus, peer);
    free(peer);
}

static void
copy_text(char out[CQ_ACTOR_NAME_MAX + 1], struct cq_view v)
{
    memcpy(out, v.p, v.n); /* the schema bounds it */
    out[v.n] = '\0';
}

void
cq_bus_peers_up(cq_bus_t *bus, const struct cq_actor *a)
{
    if (!cq_actor_name_ok((const char *)a->name.p, a->name.n) ||
        !cq_actor_name_ok((const char *)a->role.p, a->role.n)) {
        cq_bus_stats.garbage++;
        return;
    }
    struct cq_bus_peer now = {.incarnation = a->incarnation};
    copy_text(now.name, a->name);
    copy_text(now.role, a->role);
    struct cq_bus_peer *old = zhashx_lookup(bus->peers, now.name);
    if (old && old->incarnation == now.incarnation) {
        return;
    }
    if (old) {
        forget(bus, old);
    }
    if (zhashx_size(bus->peers) >= CQ_BUS_PEERS_MAX) {
        cq_bus_stats.garbage++;
        return;
    }
    struct cq_bus_peer *peer = cq_alloc(sizeof *peer);
    *peer = now;
    (void)zhashx_insert(bus->peers, peer->name, peer);
    count_role(bus, peer->role, true);
    cq_bus_stats.peers++;
    CQ_LOG(INFO, "BUS-PEER-UP", "peer=%s role=%s", peer->name, peer->role);
    if (bus->cfg.on_peer) {
        bus->cfg.on_peer(bus->cfg.ctx, now.name, now.role, now.incarnation, true);
    }
    cq_bus_requests_up(bus, &now);
}

void
cq_bus_peers_down(cq_bus_t *bus, const struct cq_actor *a)
{
    char name[CQ_ACTOR_NAME_MAX + 1];
    copy_text(name, a->name);
    struct cq_bus_peer *peer = zhashx_lookup(bus->peers, name);
    if (peer && peer->incarnation == a->incarnation) {
        forget(bus, peer);
    }
}

void
cq_bus_peers_all_down(cq_bus_t *bus)
{
    struct cq_bus_peer *peer;
    while ((peer = zhashx_first(bus->peers))) {
        forget(bus, peer);
    }
}
