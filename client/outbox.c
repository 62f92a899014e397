/* SPDX-License-Identifier: MPL-2.0 */
#include "client/outbox.h"

static const struct verdict_row {
    int err;
    enum cq_outbox_verdict verdict;
} verdicts[] = {
    {CQ_OK, CQ_OUTBOX_SENT},
    {CQ_E_OUT_OF_ORDER, CQ_OUTBOX_REORDER},
    {CQ_E_DSEQ_CONFLICT, CQ_OUTBOX_CONFLICT},
    {CQ_E_KEY_VERSION, CQ_OUTBOX_REKEY},
    {CQ_E_CHAT_CLOSED, CQ_OUTBOX_REFUSED},
    {CQ_E_NOT_FOUND, CQ_OUTBOX_REFUSED},
    {CQ_E_BAD_ARG, CQ_OUTBOX_REFUSED},
    {CQ_E_TOO_BIG, CQ_OUTBOX_REFUSED},
    {CQ_E_UNKNOWN_OP, CQ_OUTBOX_REFUSED},
    {CQ_E_DENIED, CQ_OUTBOX_REFUSED},
    {CQ_E_NO_BLOB, CQ_OUTBOX_REFUSED},
};

enum cq_outbox_verdict
cq_outbox_judge(int err)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
        if (verdicts[i].err == err) {
            return verdicts[i].verdict;
        }
    }
    /* Everything else, and what later versions add, is no statement about the message: keep it. */
    return CQ_OUTBOX_RETRY;
}

struct cq_outbox_plan
cq_outbox_next(const struct cq_out *rows,
               const bool *in_flight,
               size_t count,
               uint64_t done,
               size_t window)
{
    size_t flying = 0;
    for (size_t i = 0; i < count; i++) {
        flying += in_flight[i];
    }
    uint64_t before = done; /* dseq of the last live row before rows[i], or done */
    for (size_t i = 0; i < count && flying < window; i++) {
        uint64_t expected = before;
        before = rows[i].dseq > before ? rows[i].dseq : before;
        if (rows[i].dseq - rows[0].dseq >= window) {
            break;
        }
        if (in_flight[i]) {
            continue;
        }
        bool may_change = rows[i].state == CQ_OUT_QUEUED || rows[i].state == CQ_OUT_REFUSED;
        if (may_change && rows[i].dseq > expected && rows[i].prev != expected) {
            return (struct cq_outbox_plan){CQ_OUTBOX_RECHAIN, i, expected};
        }
        return (struct cq_outbox_plan){CQ_OUTBOX_SEND, i, rows[i].prev};
    }
    return (struct cq_outbox_plan){CQ_OUTBOX_NOTHING, 0, 0};
}
