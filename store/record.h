/* SPDX-License-Identifier: MPL-2.0
 * Reading log records: the decoded fields of any kind.
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "common/wire/frame.h"

union store_record {
    struct cq_rec_message message;
    struct cq_rec_receipt receipt;
    struct cq_rec_friend friendship;
    struct cq_rec_commit commit;
    struct cq_rec_read read;
    struct cq_rec_privacy privacy;
    struct cq_rec_known known;
    struct cq_rec_forget forget;
};

/* Kind and fields; views borrow the bytes. 0 or -CQ_E_CORRUPT. */
int store_record_read(struct cq_view bytes,
                      enum cq_rec_kind *kind,
                      union store_record *out) CQ_MUST_CHECK;
/* The chat that a record belongs to; none for COMMIT, PRIVACY and friendships without a chat yet.
 */
struct cq_id store_record_chat(enum cq_rec_kind kind, const union store_record *r);
/* The same as store_record_read for a record that must be a message. */
int store_record_message(struct cq_view bytes, struct cq_rec_message *out) CQ_MUST_CHECK;

#endif
