/* SPDX-License-Identifier: MPL-2.0
 * The rules of sending, docs/protocol.md section 6, as decisions over the outbox's rows. Pure:
 * sending.c carries them out.
 */
#ifndef CLIENT_OUTBOX_H
#define CLIENT_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/db.h"

/* What an answer to SEND means. */
enum cq_outbox_verdict {
    CQ_OUTBOX_SENT,    /* durable: remove it */
    CQ_OUTBOX_RETRY,   /* not now: the same bytes again later */
    CQ_OUTBOX_REORDER, /* OUT_OF_ORDER: not accepted; send everything after `detail` again, in order
                        */
    CQ_OUTBOX_REKEY,   /* KEY_VERSION: not accepted; encrypt it again with the current key */
    CQ_OUTBOX_REFUSED, /* not accepted, for good */
    CQ_OUTBOX_CONFLICT, /* the dseq belongs to other bytes: this device is a copy */
};

/* err: 0 or the positive error number */
enum cq_outbox_verdict cq_outbox_judge(int err);

enum cq_outbox_step {
    CQ_OUTBOX_NOTHING,
    CQ_OUTBOX_SEND,    /* send rows[row] as it is */
    CQ_OUTBOX_RECHAIN, /* set rows[row].prev to `prev` first, then send it */
};

struct cq_outbox_plan {
    enum cq_outbox_step step;
    size_t row;
    uint64_t prev;
};

/* The next thing to send of a chat. rows: live, ascending by dseq. done: last dseq known to be
 * accepted. in_flight[i]: rows[i] waits for its answer. window: most unanswered, counted from the
 * first live row: the store keeps so many answers, and as long as that row is not known to be
 * accepted its answer must be among them, whatever was answered behind it.
 *
 * A row that may have been accepted (UNKNOWN) goes out unchanged, whatever its prev: its answer
 * tells. A row that was never sent or was refused follows the one before it, or `done`: if an
 * earlier one was refused for good, prev is corrected. */
struct cq_outbox_plan cq_outbox_next(const struct cq_out *rows,
                                     const bool *in_flight,
                                     size_t count,
                                     uint64_t done,
                                     size_t window);

#endif
