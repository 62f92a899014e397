/* SPDX-License-Identifier: MPL-2.0
 * Worker actors: CZMQ actors (threads) that run jobs for a loop: the store's committer, vault and
 * readers.
 *
 * Jobs cross over inproc PUSH/PULL sockets as owned pointers; the actor's pipe carries control
 * only. With one thread jobs run in the order they were submitted, and their done calls come in
 * that order.
 */
#ifndef CQ_RT_WORKER_H
#define CQ_RT_WORKER_H

#include <stddef.h>

#include "common/rt/loop.h"
#include "common/wire/err.h"

typedef struct cq_worker cq_worker_t;
/* run: on a worker thread, may block. done: on the loop thread, takes the job back. ctx is cfg.ctx:
 * run may only touch what no other thread does. */
typedef void cq_worker_run_fn(void *ctx, void *job);
typedef void cq_worker_done_fn(void *ctx, void *job);

struct cq_worker_cfg {
    const char *name; /* thread name and metrics, at most 15 characters */
    unsigned thread_count;
    unsigned queue_max; /* jobs submitted and not done */
    cq_worker_run_fn *run;
    cq_worker_done_fn *done;
    cq_worker_done_fn *ask; /* loop thread: takes a question of cq_worker_ask; may be NULL */
    void *ctx;
};

/* NULL if threads cannot be started (logged). */
cq_worker_t *cq_worker_new(cq_loop_t *loop, const struct cq_worker_cfg *cfg);
/* Takes *job (NULL afterwards) and returns 0; -CQ_E_BUSY if queue_max are under way: the job stays
 * the caller's. */
int cq_worker_submit(cq_worker_t *w, void **job) CQ_MUST_CHECK;
/* From within run: has ask called on the loop thread, and does not wait. How the answer comes back
 * is the caller's business. Each question is handed over exactly once, at the latest by
 * cq_worker_destroy. */
void cq_worker_ask(void *question);
unsigned cq_worker_pending(const cq_worker_t *w);
/* Waits for the jobs under way, calls done for each, joins the threads. */
void cq_worker_destroy(cq_worker_t **w);

#endif
