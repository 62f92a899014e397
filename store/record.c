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
