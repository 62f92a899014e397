/* SPDX-License-Identifier: MPL-2.0
 * What a job asks blobd, through the loop's bus: many questions under way, answers in any order.
 * Job actor, if nothing else is said.
 */
#ifndef STORE_BLOB_LINK_H
#define STORE_BLOB_LINK_H

#include "store/blob_tree.h"
#include "store/core.h"

typedef struct store_blob_link store_blob_link_t;

enum store_blob_link_kind {
    STORE_BLOB_LINK_HOLD,  /* no blob is collected from here on. value: 0 when none is being
                              collected any more; else ask again */
    STORE_BLOB_LINK_FREE,  /* the end of that */
    STORE_BLOB_LINK_BEGIN, /* BLOB_SAVE_BEGIN: path, bytes */
    STORE_BLOB_LINK_SAVE,  /* path, entry. value: bytes copied */
    STORE_BLOB_LINK_CHECK, /* entry, bytes of data from offset. value: the offset behind them */
    STORE_BLOB_LINK_LIST,  /* entry.id: behind this one. ids */
    STORE_BLOB_LINK_HAS,   /* value: is there a blobd? */
};

struct store_blob_question {
    enum store_blob_link_kind kind;
    struct store_blob_entry entry;
    const char *path; /* borrowed for the call */
    uint64_t bytes, offset;
};

struct store_blob_answer {
    int rc; /* 0, what blobd answered, DEADLINE, UNAVAILABLE */
    uint64_t value;
    struct cq_id *ids; /* LIST; of the answer */
    size_t id_count;
};

/* An error of it ends the asking. */
typedef int store_blob_answer_fn(void *ctx,
                                 const struct store_blob_question *q,
                                 const struct store_blob_answer *a);

/* on_answer is called within ask and wait. */
store_blob_link_t *
store_blob_link_new(store_job_t *job, store_blob_answer_fn *on_answer, void *ctx);
/* What is still under way is forgotten. */
void store_blob_link_destroy(store_blob_link_t **link);
/* Asks; waits for answers while too many questions are under way. 0; UNAVAILABLE: the job is
 * cancelled; an error of on_answer. */
int store_blob_link_ask(store_blob_link_t *link, const struct store_blob_question *q) CQ_MUST_CHECK;
/* Until everything is answered. As ask. */
int store_blob_link_wait(store_blob_link_t *link) CQ_MUST_CHECK;
/* Asks one thing and waits for its answer, which is given back instead of being told to on_answer.
 * Nothing else may be under way. 0; what was answered; UNAVAILABLE. */
int store_blob_link_call(store_blob_link_t *link,
                         const struct store_blob_question *q,
                         uint64_t *value) CQ_MUST_CHECK;
/* Asks and does not care for the answer. */
void store_blob_link_tell(store_blob_link_t *link, const struct store_blob_question *q);
/* After a cancellation or an error: for at most so long until nothing is under way any more. */
void store_blob_link_settle(store_blob_link_t *link, uint64_t ms);

/* Loop thread, when the bus has ended: questions whose answers do not come any more. */
void store_blob_link_free_all(struct store_core *core);

#endif
