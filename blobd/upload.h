/* SPDX-License-Identifier: MPL-2.0
 * The uploads that are open: one file and one queue of jobs each, so that what is asked of an
 * upload happens in order, and different uploads at the same time.
 */
#ifndef BLOBD_UPLOAD_H
#define BLOBD_UPLOAD_H

#include "blobd/core.h"

struct blobd_upload {
    struct cq_id id;
    blobd_part_t *part; /* NULL: not open yet, or gone. Owned by the job under way, if any */
    uint64_t transfer;  /* whose data is taken; 0: nobody's */
    uint64_t used_mono_ms;
    struct blobd_ask *asks; /* waiting; the first one is under way if is_running */
    struct blobd_ask **asks_tail;
    unsigned ask_count;
    bool is_running;
    struct blobd_upload *next; /* in its hash bucket */
};

enum blobd_ask_kind {
    BLOBD_ASK_CREATE,
    BLOBD_ASK_STATE,
    BLOBD_ASK_BEGIN,
    BLOBD_ASK_WRITE,
    BLOBD_ASK_END,
    BLOBD_ASK_DROP,
    BLOBD_ASK_COUNT
};

/* Something asked of an upload, on its way through a disk thread. */
struct blobd_ask {
    struct blobd_job job; /* first */
    enum blobd_ask_kind kind;
    struct blobd_upload *upload;
    struct cq_bus_from from;
    struct cq_blobfile_header header; /* CREATE: what to make; then what is */
    struct cq_id user;                /* who asks */
    uint64_t transfer;
    uint64_t offset; /* in: expected; out: what it is */
    bool flag;       /* BEGIN: tentative; END: keep; CREATE, out: failed, there is no file */
    bool is_whole;   /* out: a complete blob of this root */
    uint8_t root[CQ_BLOB_HASH_SIZE];
    size_t size;
    uint8_t *data; /* WRITE: owned */
    struct blobd_ask *next;
};

/* Puts it into the upload's queue, which takes it. BUSY (too many uploads open, or too much asked
 * of this one): it is the caller's as before. */
int blobd_upload_ask(blobd_t *b, const struct cq_id *id, struct blobd_ask *ask) CQ_MUST_CHECK;

/* What on_upload.c adds: the work on the disk thread, and the answer. */
blobd_job_fn blobd_on_upload_run;
void blobd_on_upload_done(struct blobd_ask *ask);

#endif
