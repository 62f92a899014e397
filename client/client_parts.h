/* SPDX-License-Identifier: MPL-2.0
 * The public handle, for client.c (opening, events, requests), held.c (what the disk answers).
 */
#ifndef CLIENT_CLIENT_PARTS_H
#define CLIENT_CLIENT_PARTS_H

#include <pthread.h>

#include "client/db.h"
#include "client/events.h"
#include "client/include/chasqui/client.h"
#include "client/medium.h"
#include "client/session.h"
#include "client/transfer.h"

/* Up to where this process has given a chat's messages to the application. */
struct shown {
    struct cq_id chat;
    uint64_t shown;
    uint64_t seen_in_db;
};

/* A medium as the application sees it; `view` points into `medium`. */
struct cq_shown_medium {
    struct cq_medium medium;
    cq_client_media_t view;
};

struct cq_client {
    pthread_mutex_t lock; /* of db, session's making, next_request */
    cq_db_t *db;
    cq_session_t *session;   /* NULL until something needs the network */
    cq_transfer_t *transfer; /* NULL until there is a blob to move */
    cq_events_t *events;
    char *home;
    char *ca_file;
    char servers[CQ_DB_SERVERS_MAX];
    char label[CQ_LABEL_MAX + 1];
    char user[CQ_NAME_MAX + 1];
    char device[CQ_ID_HEX_SIZE];
    struct cq_id user_id;
    struct cq_id device_id;
    bool accepts_any_certificate;
    bool messages;
    cq_client_event_fn *on_event;
    void *ctx;
    uint64_t next_request;
    struct shown *shown; /* dispatch only */
    int shown_count;
};

/* client.c */
/* Queues a command; the request's number, or an error. Takes cmd. */
int64_t cq_client_submit(cq_client_t *c, struct cq_command *cmd, bool answered);
/* Has the session look at the disk; `added` is a message whose outcome the application waits for.
 */
void cq_client_flush(cq_client_t *c, const struct cq_out *added);
/* May this device send to this chat now? Under the lock. */
int cq_client_may_send(cq_client_t *c, const char *peer, struct cq_chat *chat) CQ_MUST_CHECK;

/* media.c */
/* NULL for a text, or when it cannot be read. */
const cq_client_media_t *
cq_client_show_medium(struct cq_shown_medium *out, const uint8_t *medium, size_t n);
/* Starts moving what waits, if anything does. */
int cq_client_resume_uploads(cq_client_t *c) CQ_MUST_CHECK;

#endif
