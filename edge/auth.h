/* SPDX-License-Identifier: MPL-2.0
 * Logging in: a password goes to the store, a token is verified here; then presence is told, then
 * the client gets WELCOME. So the session is registered before the client's first sync. Logging
 * out.
 */
#ifndef EDGE_AUTH_H
#define EDGE_AUTH_H

#include "common/rt/token.h"

#include "edge/ops.h"

int
edge_auth_on_password(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;
int edge_auth_on_resume(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;
int edge_auth_on_logout(edge_t *e, edge_session_t *s, const struct edge_request *rq) CQ_MUST_CHECK;
/* Whose token this is. By which proof it is valid, or -CQ_E_BAD_TOKEN, -CQ_E_REVOKED, which are
 * counted. Only once the store is known. */
int edge_auth_token(edge_t *e, struct cq_view token, struct cq_token *t) CQ_MUST_CHECK;

#endif
