/* SPDX-License-Identifier: MPL-2.0
 * Between connections (net.h) and sessions: who may connect, what a message is, what a session's
 * queue becomes on the wire.
 */
#ifndef EDGE_WS_H
#define EDGE_WS_H

#include "edge/edge.h"
#include "edge/net.h"

/* Gives the listener. NULL if it cannot listen (logged). */
struct edge_ws *edge_ws_new(edge_t *e);
/* Closes everything; edge_gone is called for every session. */
void edge_ws_destroy(struct edge_ws **p);
/* For how many more connections are there file descriptors? */
size_t edge_ws_descriptors_free(const edge_t *e);

/* Writes what is queued as far as the socket takes it. Not from within the session's own callbacks.
 * May free s. */
void edge_ws_flush(edge_t *e, edge_session_t *s);
/* Is output waiting for the client to take it (and not just for the end of the turn)? */
bool edge_ws_is_waiting(const edge_session_t *s);
/* The session is logged in: its input comes before newcomers'. */
void edge_ws_settle(edge_session_t *s);
/* edge_net_has_time and edge_net_spent. */
bool edge_ws_has_time(const edge_t *e);
void edge_ws_spent(const edge_t *e, uint64_t since_us);
/* Stops or goes on reading from the client. */
void edge_ws_pause(edge_session_t *s, bool paused);
/* Closes the connection at once, without words. Frees s. Not from within the session's own
 * callbacks. */
void edge_ws_kill(edge_session_t *s);

/* http.c: answers a plain HTTP request. */
void edge_http_serve(edge_t *e, edge_conn_t *c, const struct edge_head *head);

#endif
