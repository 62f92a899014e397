/* SPDX-License-Identifier: MPL-2.0
 * Proving completeness: what to do with a message's seq, and what to ask for. Pure.
 * docs/protocol.md section 7.
 */
#ifndef CLIENT_INBOX_H
#define CLIENT_INBOX_H

#include <stdbool.h>
#include <stdint.h>

enum cq_inbox_verdict {
    CQ_INBOX_TAKE,   /* the next one */
    CQ_INBOX_REPEAT, /* the device has it */
    CQ_INBOX_GAP,    /* something before it is missing */
    CQ_INBOX_BAD,    /* no message has seq 0 */
};

/* held: highest contiguous seq on the device */
enum cq_inbox_verdict cq_inbox_judge(uint64_t held, uint64_t seq);

struct cq_inbox_ask {
    uint64_t from;
    uint64_t to; /* both included; from 0: nothing to ask */
};

/* The next range to ask HISTORY for, at most `most` messages. */
struct cq_inbox_ask cq_inbox_missing(uint64_t held, uint64_t head, uint64_t most);

/* Did the answer to `ask` bring what was asked, from its beginning? If not, asking again at once
 * would loop. */
bool cq_inbox_progressed(const struct cq_inbox_ask *ask, uint64_t held_after);

#endif
