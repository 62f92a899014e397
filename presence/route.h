/* SPDX-License-Identifier: MPL-2.0
 * What the store may forget: confirmations of a stream of ROUTE. Pure: no bus, no clock.
 *
 * A position is confirmed when every DELIVER made for it was confirmed by its edge (or that edge is
 * down), and all positions before it are confirmed. While presence is not ready, routes are held.
 * Everything is bounded; at a bound the rest of the stream is dropped without being confirmed, and
 * the store starts a new stream from what was confirmed last.
 */
#ifndef PRESENCE_ROUTE_H
#define PRESENCE_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/frame.h"

#include "presence/session_map.h"

enum {
    PRESENCE_ROUTE_TRACKED_MAX = 65536,   /* positions on their way */
    PRESENCE_ROUTE_HELD_MAX = 65536,      /* routes held until ready */
    PRESENCE_ROUTE_HELD_BYTES = 16777216, /* their bytes */
};

typedef struct presence_route presence_route_t;

presence_route_t *presence_route_new(void);
void presence_route_destroy(presence_route_t **r);

/* A stream starts after pos: whatever was on its way is forgotten. */
void presence_route_begin(presence_route_t *r, uint64_t stream, uint64_t pos);
/* No stream any more (the store is down, or the broker). */
void presence_route_forget(presence_route_t *r);

enum presence_route_verdict {
    PRESENCE_ROUTE_TRACK, /* deliver; its deliveries are counted until presence_route_close() */
    PRESENCE_ROUTE_PASS,  /* deliver, nothing to confirm: ephemeral, no stream, or a position of
                             before */
    PRESENCE_ROUTE_DROP,  /* the rest of this stream is being dropped */
};

/* Is the stream being dropped? Asked when a durable route comes in. */
bool presence_route_is_dropping(const presence_route_t *r);
/* Opens a route of this position for delivering. At PRESENCE_ROUTE_TRACKED_MAX the stream begins to
 * be dropped. */
enum presence_route_verdict presence_route_open(presence_route_t *r, uint64_t pos);
/* The next delivery number of an edge (from 1); counted under the open route if that is tracked. */
uint64_t presence_route_deliver(presence_route_t *r, uint16_t edge);
void presence_route_close(presence_route_t *r);

/* An edge confirmed everything up to this number. -CQ_E_BAD_ARG if it never was given such a
 * number: nothing changed. */
int presence_route_delivered(presence_route_t *r, uint16_t edge, uint64_t delivery) CQ_MUST_CHECK;
/* An edge came up; fresh: its numbers start anew. */
void presence_route_edge_up(presence_route_t *r, uint16_t edge, bool fresh);
/* Whatever an edge owed will not come any more. */
void presence_route_edge_down(presence_route_t *r, uint16_t edge);

/* Is there a confirmed position that was not taken yet? take marks it as told. */
bool presence_route_has_news(const presence_route_t *r);
struct cq_routed presence_route_take_news(presence_route_t *r);

/* Keeps a copy for later. False at a bound: the rest of the stream is dropped from here. */
bool presence_route_hold(presence_route_t *r, const struct cq_route *route);
size_t presence_route_held(const presence_route_t *r);
/* The oldest held route; false if there is none. Its views are valid until the next hold, begin,
 * forget, or DROP of open. */
bool presence_route_unhold(presence_route_t *r, struct cq_route *route);

#endif
