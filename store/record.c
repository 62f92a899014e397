/* SPDX-License-Identifier: MPL-2.0 */
#include "store/record.h"

int
store_record_read(struct cq_view bytes, enum cq_rec_kind *kind, union store_record *out)
{
    cq_reader_t r;
    size_t count = 0;
    int rc = cq_rec_open(bytes.p, bytes.n, kind, &r, &count);
    if (!rc) {
        rc = cq_rec_read(*kind, &r, count, out);
    }
    return rc ? -CQ_E_CORRUPT : 0;
}

struct cq_id
store_record_chat(enum cq_rec_kind kind, const union store_record *r)
{
    switch (kind) {
    case CQ_REC_MESSAGE:
        return r->message.chat;
    case CQ_REC_RECEIPT:
        return r->receipt.chat;
    case CQ_REC_READ:
        return r->read.chat;
    case CQ_REC_FRIEND:
        return r->friendship.chat;
    case CQ_REC_KNOWN:
        return r->known.chat;
    case CQ_REC_FORGET:
        return r->forget.chat;
    case CQ_REC_COMMIT:
    case CQ_REC_PRIVACY:
        break;
    }
    return (struct cq_id){0};
}

int
store_record_message(struct cq_view bytes, struct cq_rec_message *out)
{
    union store_record record;
    enum cq_rec_kind kind;
    int rc = store_record_read(bytes, &kind, &record);
    if (!rc && kind != CQ_REC_MESSAGE) {
        rc = -CQ_E_CORRUPT;
    }
    if (!rc) {
        *out = record.message;
    }
    return rc;
}
