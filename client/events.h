/* SPDX-License-Identifier: MPL-2.0
 * Events on their way from the session's thread to cq_client_dispatch(), and the descriptor that
 * says so. Any thread.
 *
 * Bounded: at CQ_EVENTS_MAX new events are dropped and counted, and a WARNING follows the ones that
 * were kept. Messages are not kept here: cq_events_poke() says that the database has new ones, so
 * they cannot be lost.
 */
#ifndef CLIENT_EVENTS_H
#define CLIENT_EVENTS_H

#include "common/wire/err.h"
#include "common/wire/id.h"

#include "client/include/chasqui/client.h"

enum {
    CQ_EVENTS_MAX = 8192,
    CQ_EVENT_TEXT_MAX = 512
};

typedef struct cq_events cq_events_t;

/* An event with its strings. */
struct cq_event_node {
    struct cq_event_node *next;
    cq_client_event_t event;
    char peer[CQ_NAME_MAX + 1];
    char from[CQ_NAME_MAX + 1];
    char id[CQ_ID_HEX_SIZE];
    char text[CQ_EVENT_TEXT_MAX];
};

/* NULL if no descriptor is left. */
cq_events_t *cq_events_new(void);
void cq_events_destroy(cq_events_t **p);
int cq_events_fd(const cq_events_t *q);
/* Copies the event and its strings (cut at their sizes). */
void cq_events_push(cq_events_t *q, const cq_client_event_t *event);
void cq_events_poke(cq_events_t *q);
/* Was poked since the last call? Also makes the descriptor quiet until the next push or poke. */
bool cq_events_take_poke(cq_events_t *q);
/* Gives the oldest event (free it), or NULL. */
struct cq_event_node *cq_events_pop(cq_events_t *q);

#endif
