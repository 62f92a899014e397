/* SPDX-License-Identifier: MPL-2.0
 * The public handle, for client.c (opening, events, requests), held.c (what the disk answers).
 */
#ifndef CLIENT_CLIENT_PARTS_H
#define CLIENT_CLIENT_PARTS_H

#include <pthread.h>

#include "client/db.h"
#include "client/events.h"
#include "client/include/chasqui/client.h"
#include "client/session.h"

/* Up to where this process has given a chat's messages to the application. */
struct shown {
    struct cq_id chat;
    uint64_t shown;
    uint64_t seen_in_db;
};

struct cq_client {
    pthread_mutex_t lock; /* of db, session's making, next_request */
    cq_db_t *db;
    cq_session_t *session; /* NULL until something needs the network */
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

#endif
