/* SPDX-License-Identifier: MPL-2.0
 * Client requests on their way over the bus: who asked, and what it counts against the client's
 * bound.
 */
#ifndef EDGE_CALL_H
#define EDGE_CALL_H

#include "edge/edge.h"
#include "edge/ops.h"

/* A request that waits for an answer of the bus. */
struct edge_call {
    edge_t *edge;
    struct edge_call *prev, *next;
    uint64_t session;
    uint64_t rid;
    uint64_t begun_mono_us; /* when it passed the gate */
    uint8_t op;
    uint8_t cost;
    cq_buf_t packed; /* logins: the WELCOME that goes out once presence knows the session */
};

/* A call for this request, counted against the session. Owned by the edge until edge_call_end. */
struct edge_call *edge_call_new(edge_t *e, edge_session_t *s, const struct edge_request *rq);
/* Takes the call. The session it came from, or NULL if that is gone; then nobody waits for an
 * answer. */
edge_session_t *edge_call_end(struct edge_call **call);
/* It was answered OK: how long that took. Before edge_call_end. */
void edge_call_count(const struct edge_call *call);
/* Frees all that are left; their answers will not come any more. */
void edge_call_free_all(edge_t *e);
/* Values of an answer: where they end is found by walking them, as the reader may go on beyond
 * them. */
struct cq_view edge_call_values(cq_reader_t *fields, size_t count);

/* Handlers of the operations table. */
int edge_call_on_store(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;
int
edge_call_on_presence(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;
int edge_call_on_ping(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;

#endif
