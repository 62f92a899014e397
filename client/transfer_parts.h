/* SPDX-License-Identifier: MPL-2.0
 * What transfer.c, upload.c and download.c share.
 */
#ifndef CLIENT_TRANSFER_PARTS_H
#define CLIENT_TRANSFER_PARTS_H

#include <pthread.h>

#include "client/http.h"
#include "client/reconnect.h"
#include "client/transfer.h"

/* One direction's thread. */
struct cq_transfer_side {
    cq_transfer_t *t;
    pthread_t thread;
    bool has_thread;
    bool is_woken; /* under the lock */
    cq_http_t *http;
    cq_db_t *db;
    size_t server;         /* the one to ask, of t->urls */
    unsigned failures;     /* since the last progress */
    uint64_t told_mono_ms; /* last TRANSFER event */
    struct cq_identity id;
};

struct cq_transfer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_stopping;
    struct cq_download *downloads, **downloads_last;
    struct cq_transfer_side up, down;
    struct cq_reconnect urls;
    char *home;
    char *ca_file;
    cq_events_t *events;
    cq_transfer_fn *on_queued;
    void *ctx;
};

uint64_t cq_transfer_now_ms(void);
bool cq_transfer_is_stopping(cq_transfer_t *t);
/* Waits until woken, stopped, or delay_ms have passed. */
void cq_transfer_wait(struct cq_transfer_side *side, uint64_t delay_ms);
/* The server to ask now, with the token that the home has now. NOT_LOGGED_IN, CLONED. */
int cq_transfer_server(struct cq_transfer_side *side, struct cq_http_server *out) CQ_MUST_CHECK;
/* Something went wrong that may pass: how long to wait; the next server's turn comes. */
uint64_t cq_transfer_failed(struct cq_transfer_side *side, int rc);
/* Is this about now only? */
bool cq_transfer_is_passing(int rc);
/* TRANSFER, at most ten a second and the last one. */
void cq_transfer_tell(struct cq_transfer_side *side, const cq_client_event_t *event);

/* upload.c, download.c: the threads. */
void cq_upload_run(struct cq_transfer_side *side);
void cq_download_run(struct cq_transfer_side *side);

#endif
