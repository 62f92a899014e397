/* SPDX-License-Identifier: MPL-2.0
 * Jobs on the disk threads. What the worker does not take now waits; uploads and reads bound how
 * much that can be.
 */
#include "common/rt/check.h"

#include "blobd/core.h"
#include "blobd/stats.h"

enum {
    QUEUE_MAX = 256
};

static struct {
    struct blobd_job *head, **tail;
} waiting = {NULL, &waiting.head};

static void
on_run(void *ctx, void *job)
{
    (void)ctx;
    struct blobd_job *j = job;
    j->run(j);
}

static void
submit_waiting(blobd_t *b)
{
    while (waiting.head) {
        struct blobd_job *job = waiting.head;
        struct blobd_job *next = job->next;
        void *taken = job;
        if (cq_worker_submit(b->disk, &taken)) {
            return;
        }
        waiting.head = next;
        if (!next) {
            waiting.tail = &waiting.head;
        }
        blobd_stats.jobs_waiting--;
    }
}

static void
on_done(void *ctx, void *job)
{
    struct blobd_job *j = job;
    blobd_stats.jobs_total++;
    blobd_stats_count(j->blobd->volume);
    j->done(j);
    if (!((blobd_t *)ctx)->is_stopping) {
        submit_waiting(ctx);
    }
}

static void
fail(struct blobd_job *job)
{
    job->rc = -CQ_E_UNAVAILABLE;
    job->done(job);
}

void
blobd_job_start(struct blobd_job *job)
{
    blobd_t *b = job->blobd;
    job->next = NULL;
    if (b->is_stopping) {
        fail(job);
        return;
    }
    *waiting.tail = job;
    waiting.tail = &job->next;
    blobd_stats.jobs_waiting++;
    submit_waiting(b);
}

cq_worker_t *
blobd_job_worker(blobd_t *b)
{
    const struct cq_worker_cfg cfg = {
        .name = "disk",
        .thread_count = (unsigned)b->cfg->disk_threads,
        .queue_max = QUEUE_MAX,
        .run = on_run,
        .done = on_done,
        .ctx = b,
    };
    return cq_worker_new(b->loop, &cfg);
}

bool
blobd_job_is_stopping(const blobd_t *b)
{
    return b->is_stopping;
}

void
blobd_job_stop(blobd_t *b)
{
    b->is_stopping = true;
    while (waiting.head) {
        struct blobd_job *job = waiting.head;
        waiting.head = job->next;
        fail(job);
    }
    waiting.tail = &waiting.head;
    if (b->disk) {
        cq_worker_destroy(&b->disk);
    }
}
