/* SPDX-License-Identifier: MPL-2.0
 * Long jobs (backup, fsck, …) in the store's process: one at a time, on an actor of their own,
 * beside everything else. A job reads through snapshots of its own. Nothing of a job survives a
 * restart: its id is unknown then.
 *
 * A kind is a row of the table store_job_kinds (on_job.c) and one function that runs on the job
 * actor. Rules for it: ask store_job_is_cancelled often (a stop of the store waits for it), keep
 * snapshots short (they pin pages, and store_engine_reopen waits for them), touch nothing of the
 * core but its configuration and its engine.
 */
#ifndef STORE_JOB_H
#define STORE_JOB_H

#include "common/rt/loop.h"
#include "common/wire/frame.h"

typedef struct store_jobs store_jobs_t; /* all, loop thread */
typedef struct store_job store_job_t;   /* one */

struct store_job_kind {
    const char *name;
    const char *unit; /* of its progress: "bytes", "records"; at most 16 bytes */
    bool wants_path;
    /* Job actor. 0, or an error after store_job_say said why. After store_job_is_cancelled was
     * true, whatever it returns counts as cancelled, unless it is 0. */
    int (*run)(store_job_t *job);
};

struct store_jobs_cfg {
    const struct store_job_kind *kinds; /* borrowed */
    size_t kind_count;
    void *ctx; /* for store_job_ctx: the core */
};

enum {
    STORE_JOBS_KEPT = 8 /* the latest ones, with their results */
};

/* ---- loop thread ---- */

/* NULL if its thread cannot be started (logged). */
store_jobs_t *store_jobs_new(cq_loop_t *loop, const struct store_jobs_cfg *cfg);
/* Cancels what runs and waits for it. */
void store_jobs_destroy(store_jobs_t **jobs);
/* Starts a job, or finds the one with this id (whatever else is asked for). 0; BUSY while another
 * one runs; BAD_ARG: no such kind, or a path where none is wanted, or none, or not an absolute one,
 * where one is. */
int store_jobs_start(store_jobs_t *jobs,
                     const struct cq_job_start *start,
                     store_job_t **out) CQ_MUST_CHECK;
/* The job with this id, none: the latest. NULL if it is not known. */
store_job_t *store_jobs_find(store_jobs_t *jobs, const struct cq_id *id);
void store_jobs_cancel(store_job_t *job);
/* *out: views into the job and into findings (of the caller, emptied first), valid until the next
 * call of any function here. from: leave earlier findings out. */
void
store_jobs_state(store_job_t *job, uint64_t from, cq_buf_t *findings, struct cq_job_state *out);

/* ---- job actor ---- */

/* Something that a job wants done on the loop thread: fn is called there, exactly once, at the
 * latest while the jobs are destroyed. The question is the caller's; it is not waited for. */
struct store_job_ask {
    void (*fn)(struct store_job_ask *ask, void *ctx); /* ctx as store_job_ctx */
};
void store_job_ask(struct store_job_ask *ask);

void *store_job_ctx(const store_job_t *job);
const char *store_job_path(const store_job_t *job);
bool store_job_is_cancelled(const store_job_t *job);
/* total 0: not known yet. */
void store_job_progress(store_job_t *job, uint64_t done, uint64_t total);
/* What it is doing, at last the result: replaces what was said before. Cut at CQ_JOB_TEXT_MAX. */
void store_job_say(store_job_t *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Something found. Counted; the first CQ_JOB_FINDINGS_MAX are kept. Cut at CQ_JOB_FINDING_MAX. */
void store_job_find(store_job_t *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
