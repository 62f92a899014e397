/* SPDX-License-Identifier: MPL-2.0
 * Envelopes through the ROUTER: reading one, sending one. Bodies are moved, never copied or looked
 * into.
 */
#ifndef BROKER_ROUTE_H
#define BROKER_ROUTE_H

#include <zmq.h>

#include "common/wire/frame.h"

#include "broker/registry.h"

/* An envelope as it came: [identity][dst][header][body]. */
struct broker_envelope {
    zmq_msg_t identity, dst, header, body;
    char to[CQ_ACTOR_NAME_MAX + 1]; /* dst, checked */
    struct cq_envelope head;        /* header, checked */
    struct cq_view from;            /* identity, view until closed */
    struct cq_view content;         /* body, view until forwarded or closed */
};

enum broker_input {
    BROKER_INPUT_NONE,
    BROKER_INPUT_ENVELOPE,
    BROKER_INPUT_GARBAGE
};

/* Reads one message. ENVELOPE: *e is filled, release it with broker_envelope_close(). GARBAGE: it
 * was not one and is gone; identity says whose it was (truncated, for the log). NONE: nothing
 * there. */
enum broker_input broker_route_receive(void *router,
                                       struct broker_envelope *e,
                                       char identity[BROKER_IDENTITY_MAX + 1]);
void broker_envelope_close(struct broker_envelope *e);

/* Passes header and body on with src as source. 0; -CQ_E_UNROUTABLE: the connection is gone;
 * -CQ_E_BUSY: its queue is full. On success header and body are empty, on an error unchanged. */
int broker_route_forward(void *router,
                         struct broker_envelope *e,
                         const char *src,
                         const struct broker_actor *to) CQ_MUST_CHECK;

/* Sends the broker's own envelope (items packed one after the other). Errors as above. */
int broker_route_send(void *router,
                      struct cq_view identity,
                      uint8_t op,
                      const cq_buf_t *items,
                      size_t count) CQ_MUST_CHECK;

#endif
