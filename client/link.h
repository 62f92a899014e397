/* SPDX-License-Identifier: MPL-2.0
 * One WebSocket connection at a time, on a libuv loop. link.c is the only file that includes
 * libwebsockets. Loop thread only.
 */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"

#include "client/reconnect.h"

struct uv_loop_s;

/* How wss:// is spoken. Certificates are verified against the system's authorities (OpenSSL's
 * SSL_CERT_FILE and SSL_CERT_DIR are heeded), and the name against the URL's host. */
struct cq_link_tls {
    bool is_used;        /* some URL is wss */
    const char *ca_file; /* PEM file of more authorities, or NULL */
    bool accepts_any;    /* no verification at all: whoever is in between can read passwords */
};

typedef struct cq_link cq_link_t;

struct cq_link_calls {
    void (*on_open)(void *ctx);
    /* one whole binary message, borrowed */
    void (*on_frame)(void *ctx, const void *data, size_t n);
    /* The connection could not be made, or has ended; called once per cq_link_connect, never after
     * cq_link_drop. error: CQ_CLIENT_E_OFFLINE or CQ_CLIENT_E_UNTRUSTED. why: for people, borrowed.
     */
    void (*on_closed)(void *ctx, int error, const char *why);
    /* anything came from the peer */
    void (*on_heard)(void *ctx);
    void *ctx;
};

/* NULL if libwebsockets cannot start. What tls points to is borrowed until cq_link_new returns. */
cq_link_t *cq_link_new(struct uv_loop_s *loop,
                       const struct cq_link_calls *calls,
                       const struct cq_link_tls *tls);
/* Begins to connect; the former connection is dropped. Failure is told by on_closed, never from
 * within this call. */
void cq_link_connect(cq_link_t *link, const struct cq_url *url);
/* Queues one binary message; dropped when not open. Bounded by what the session keeps unanswered.
 */
void cq_link_send(cq_link_t *link, const void *data, size_t n);
/* Closes without a call of on_closed. */
void cq_link_drop(cq_link_t *link);
bool cq_link_is_open(const cq_link_t *link);
/* Everything queued has been handed to the kernel. */
bool cq_link_is_flushed(const cq_link_t *link);
/* Drops the connection and frees what can be freed; the loop must run on until it has no handles,
 * then finish. */
void cq_link_stop(cq_link_t *link);
void cq_link_finish(cq_link_t **p);

#endif
