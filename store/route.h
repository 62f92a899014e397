/* SPDX-License-Identifier: MPL-2.0
 * Routing: what is durable is given to presence, in log order, at least once. `routed-up-to` is the
 * position that presence has confirmed; it is stored with the commits, and after a crash of either
 * side routing goes on behind it (design §3).
 *
 * Fresh records come from the batch in memory; when presence was away or the window is full, they
 * are read from the log later.
 */
#ifndef STORE_ROUTE_H
#define STORE_ROUTE_H

#include "store/batch.h"

struct store_core;
typedef struct store_route store_route_t;

store_route_t *store_route_new(struct store_core *core, uint64_t routed_pos);
void store_route_destroy(store_route_t **r);
/* A presence came or went. */
void store_route_peer(store_route_t *r, bool up);
/* The batch is durable: its records may be routed. */
void store_route_committed(store_route_t *r, const struct store_batch *b);
/* ROUTED from presence. */
void store_route_confirmed(store_route_t *r, uint64_t stream, uint64_t pos);
/* Once a turn: catches up from the log if the window allows. Once a second: starts again if nothing
 * was confirmed for long. */
void store_route_turn(store_route_t *r);
void store_route_tick(store_route_t *r);
uint64_t store_route_confirmed_pos(const store_route_t *r);
/* After a failed commit: positions above `durable` are gone. */
void store_route_reset(store_route_t *r, uint64_t durable);
/* An ephemeral event: to all sessions of the users, now or never. */
void store_route_ephemeral(store_route_t *r,
                           const struct cq_id *users,
                           size_t count,
                           struct cq_view event);

#endif
