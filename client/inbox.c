/* SPDX-License-Identifier: MPL-2.0 */
#include "client/inbox.h"

enum cq_inbox_verdict
cq_inbox_judge(uint64_t held, uint64_t seq)
{
    if (seq == 0 || seq > INT64_MAX) {
        return CQ_INBOX_BAD;
    }
    if (seq <= held) {
        return CQ_INBOX_REPEAT;
    }
    return seq == held + 1 ? CQ_INBOX_TAKE : CQ_INBOX_GAP;
}

struct cq_inbox_ask
cq_inbox_missing(uint64_t held, uint64_t head, uint64_t most)
{
    if (head <= held || !most) {
        return (struct cq_inbox_ask){0, 0};
    }
    uint64_t to = head - held > most ? held + most : head;
    return (struct cq_inbox_ask){held + 1, to};
}

bool
cq_inbox_progressed(const struct cq_inbox_ask *ask, uint64_t held_after)
{
    return held_after >= ask->from;
}
