/* SPDX-License-Identifier: MPL-2.0
 * A session's output: operations gathered into frames, each one WebSocket message and one write.
 *
 * Two policies beyond the bound: an EPHEMERAL push is dropped; a DURABLE push is dropped and the
 * session marked lagging (it is told to sync when the queue has drained; until then all its pushes
 * are dropped, the sync brings them). Answers are never dropped: who asks for more than it reads is
 * not read from any more, which bounds them.
 */
#ifndef EDGE_OUTQ_H
#define EDGE_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/read.h"

enum edge_outq_kind {
    EDGE_OUTQ_ANSWER,
    EDGE_OUTQ_DURABLE,
    EDGE_OUTQ_EPHEMERAL
};

enum {
    EDGE_OUTQ_HEADROOM =
        32, /* writable bytes before a frame: the library's header and the array's */
    EDGE_OUTQ_GATHER_MAX =
        65536, /* a frame is not gathered beyond this; a bigger operation gets a frame of its own */
};

struct edge_chunk;

struct edge_outq {
    struct edge_chunk *head, *tail;
    struct edge_chunk *
        *tail_at;  /* where the pointer to the tail is; the queue itself must not move */
    size_t bytes;  /* of operations queued */
    size_t *total; /* the same of all queues; may be NULL */
    bool is_lagging;
};

/* Adds one operation (at most CQ_PUSH_FRAME_MAX - 8 bytes: the caller checked). False: dropped, by
 * the policy above. */
bool
edge_outq_put(struct edge_outq *q, enum edge_outq_kind kind, struct cq_view op, size_t bytes_max);
/* The first frame, ready to write, with EDGE_OUTQ_HEADROOM - 8 writable bytes before it. False:
 * nothing is queued. Nothing more is added to it. Valid until edge_outq_pop. */
bool edge_outq_front(struct edge_outq *q, uint8_t **frame, size_t *n);
/* Drops the first frame. */
void edge_outq_pop(struct edge_outq *q);
void edge_outq_free(struct edge_outq *q);

static inline bool
edge_outq_is_empty(const struct edge_outq *q)
{
    return !q->head;
}

#endif
