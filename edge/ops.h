/* SPDX-License-Identifier: MPL-2.0
 * Operations from clients: one table, one gate (known → fields → state → rate) before any handler.
 */
#ifndef EDGE_OPS_H
#define EDGE_OPS_H

#include "edge/edge.h"

/* A request that passed the gate. All views borrow for the call. */
struct edge_request {
    uint8_t op;
    uint8_t cost;
    uint64_t rid;
    const void *fields; /* decoded by the operation's schema */
    struct cq_view raw; /* the client's values as one msgpack array, as they came */
};

/* Returns 0: answered, or will be; or the negative error that the gate answers with. */
typedef int edge_op_fn(edge_t *e, edge_session_t *s, const struct edge_request *rq);

/* A whole message came in. Closes the session if it is none. */
void edge_ops_message(edge_t *e, edge_session_t *s, struct cq_view message);
/* Goes on with what was held back, if the session may go on; reads from it again, or not. Call
 * after anything that may unblock it. */
void edge_ops_resume(edge_t *e, edge_session_t *s);
/* Begins no more of its operations and reads no more from it; those that are begun will be
 * answered. What was held back is not done: the client has no answer to it and repeats it
 * elsewhere. */
void edge_ops_stop(edge_t *e, edge_session_t *s);
/* Takes a token of this limit for the session. 0, or after how many ms there will be one. */
uint64_t edge_ops_take(edge_t *e, const edge_session_t *s, enum edge_rate rate);
/* The same for whoever has no session (HTTP). user: only for limits that count by it; address: key
 * of the peer's. */
uint64_t
edge_ops_take_for(edge_t *e, enum edge_rate rate, const struct cq_id *user, uint64_t address);
/* Is there a handler for this code? */
bool edge_ops_is_served(uint8_t code);

enum {
    EDGE_OPS_FIELDS_MAX = 512
}; /* largest request's struct in bytes */

#endif
