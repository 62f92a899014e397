/* SPDX-License-Identifier: MPL-2.0
 * The WebSocket side. ws.c is the only file with libwebsockets' WebSocket calls, http.c with its
 * HTTP calls.
 */
#ifndef EDGE_WS_H
#define EDGE_WS_H

#include "edge/edge.h"

struct lws;

/* Gives the listener, raises the limit of file descriptors. NULL if it cannot listen (logged). */
struct edge_ws *edge_ws_new(edge_t *e);
/* Closes everything; edge_gone is called for every session. */
void edge_ws_destroy(struct edge_ws **ws);

/* Writes at once if the pipe is free, else when it is. Not from within the session's own callbacks.
 * May free s. */
void edge_ws_flush(edge_t *e, edge_session_t *s);
/* Stops or goes on reading from the client. */
void edge_ws_pause(edge_session_t *s, bool paused);
/* Closes the connection at once, without words. Frees s. Not from within the session's own
 * callbacks. */
void edge_ws_kill(edge_session_t *s);

/* http.c: answers a plain HTTP request. What lws expects from the callback. */
int edge_http_serve(edge_t *e, struct lws *wsi);
/* Answers with a status and a short text. 0, or negative if the connection is gone. */
int edge_http_refuse(struct lws *wsi, unsigned status, const char *text);

#endif
