/* SPDX-License-Identifier: MPL-2.0 */
#include "store/job.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/worker.h"
#include "common/wire/pack.h"

struct store_job {
    struct cq_id id;
    const struct store_job_kind *kind;
    void *ctx;
    char *path;
    uint64_t started_unix_ms;
    /* Written by the job actor while it runs. */
    _Atomic uint64_t done;
    _Atomic uint64_t total;
    atomic_bool is_cancelled; /* written by the loop thread */
    int rc;                   /* read when it has ended */
    pthread_mutex_t mutex;    /* the four below */
    char text[CQ_JOB_TEXT_MAX + 1];
    cq_buf_t findings; /* packed strings */
    size_t finding_count;
    size_t kept_count;
    /* Loop thread. */
    enum cq_job_state_code state;
    uint64_t ended_unix_ms;
    char said[CQ_JOB_TEXT_MAX + 1]; /* a copy of text for whoever asks */
};

struct store_jobs {
    struct store_jobs_cfg cfg;
    cq_worker_t *worker;
    store_job_t *kept[STORE_JOBS_KEPT]; /* newest first */
    size_t count;
};

/* ---- job actor ---- */

static void
run_job(void *ctx, void *arg)
{
    store_job_t *job = arg;
    (void)ctx;
    job->rc = job->kind->run(job);
}

static void
on_ask(void *ctx, void *arg)
{
    const store_jobs_t *jobs = ctx;
    struct store_job_ask *ask = arg;
    ask->fn(ask, jobs->cfg.ctx);
}

void
store_job_ask(struct store_job_ask *ask)
{
    cq_worker_ask(ask);
}

void *
store_job_ctx(const store_job_t *job)
{
    return job->ctx;
}

const char *
store_job_path(const store_job_t *job)
{
    return job->path;
}

bool
store_job_is_cancelled(const store_job_t *job)
{
    return atomic_load(&job->is_cancelled);
}

void
store_job_progress(store_job_t *job, uint64_t done, uint64_t total)
{
    atomic_store(&job->total, total);
    atomic_store(&job->done, done);
}

/* Formats and makes it UTF-8 (a path may be anything): text goes out as msgpack strings. */
static void
format_text(char *out, size_t size, const char *fmt, va_list args)
{
    (void)vsnprintf(out, size, fmt, args);
    size_t n = strlen(out);
    if (n == size - 1) {
        while (n && ((unsigned char)out[n - 1] & 0xc0) == 0x80) {
            n--; /* perhaps only a part of a character */
        }
        out[n ? n - ((unsigned char)out[n - 1] >= 0xc0) : 0] = '\0';
    }
    if (!cq_utf8_ok(out, strlen(out))) {
        for (char *p = out; *p; p++) {
            if ((unsigned char)*p >= 0x80) {
                *p = '?';
            }
        }
    }
}

void
store_job_say(store_job_t *job, const char *fmt, ...)
{
    char text[CQ_JOB_TEXT_MAX + 1];
    va_list args;
    va_start(args, fmt);
    format_text(text, sizeof text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&job->mutex);
    memcpy(job->text, text, sizeof text);
    pthread_mutex_unlock(&job->mutex);
}

void
store_job_find(store_job_t *job, const char *fmt, ...)
{
    char text[CQ_JOB_FINDING_MAX + 1];
    va_list args;
    va_start(args, fmt);
    format_text(text, sizeof text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&job->mutex);
    job->finding_count++;
    if (job->kept_count < CQ_JOB_FINDINGS_MAX) {
        cq_pack_str(&job->findings, text, strlen(text));
        job->kept_count++;
    }
    pthread_mutex_unlock(&job->mutex);
}

/* ---- loop thread ---- */

static void
on_done(void *ctx, void *arg)
{
    store_job_t *job = arg;
    char text[512];
    (void)ctx;
    job->ended_unix_ms = cq_now_unix_ms();
    job->state = !job->rc                      ? CQ_JOB_DONE
                 : store_job_is_cancelled(job) ? CQ_JOB_CANCELLED
                                               : CQ_JOB_FAILED;
    CQ_LOG(INFO, "STORE-JOB-END", "kind=%s err=%s cancelled=%d findings=%zu ms=%" PRIu64 " text=%s",
           job->kind->name, cq_err_name(job->rc), job->state == CQ_JOB_CANCELLED,
           job->finding_count, job->ended_unix_ms - job->started_unix_ms,
           cq_log_text(job->text, strlen(job->text), text, sizeof text));
}

static void
destroy(store_job_t *job)
{
    pthread_mutex_destroy(&job->mutex);
    cq_buf_free(&job->findings);
    free(job->path);
    free(job);
}

store_jobs_t *
store_jobs_new(cq_loop_t *loop, const struct store_jobs_cfg *cfg)
{
    store_jobs_t *jobs = cq_alloc(sizeof *jobs);
    const struct cq_worker_cfg worker = {.name = "job",
                                         .thread_count = 1,
                                         .queue_max = 1,
                                         .run = run_job,
                                         .done = on_done,
                                         .ask = on_ask,
                                         .ctx = jobs};
    jobs->cfg = *cfg;
    jobs->worker = cq_worker_new(loop, &worker);
    if (!jobs->worker) {
        free(jobs);
        return NULL;
    }
    return jobs;
}

void
store_jobs_destroy(store_jobs_t **jobs_p)
{
    store_jobs_t *jobs = *jobs_p;
    if (!jobs) {
        return;
    }
    if (jobs->count) {
        store_jobs_cancel(jobs->kept[0]);
    }
    cq_worker_destroy(&jobs->worker);
    for (size_t i = 0; i < jobs->count; i++) {
        destroy(jobs->kept[i]);
    }
    free(jobs);
    *jobs_p = NULL;
}

static const struct store_job_kind *
find_kind(const store_jobs_t *jobs, struct cq_view name)
{
    for (size_t i = 0; i < jobs->cfg.kind_count; i++) {
        const struct store_job_kind *kind = &jobs->cfg.kinds[i];
        if (strlen(kind->name) == name.n && memcmp(kind->name, name.p, name.n) == 0) {
            return kind;
        }
    }
    return NULL;
}

static store_job_t *
make(const store_jobs_t *jobs, const struct store_job_kind *kind, const struct cq_job_start *start)
{
    store_job_t *job = cq_alloc(sizeof *job);
    int failed = pthread_mutex_init(&job->mutex, NULL);
    job->id = start->job;
    job->kind = kind;
    job->ctx = jobs->cfg.ctx;
    job->path = strndup((const char *)start->path.p, start->path.n);
    CQ_ASSERT(!failed && job->path);
    job->state = CQ_JOB_RUNNING;
    job->started_unix_ms = cq_now_unix_ms();
    return job;
}

static void
keep(store_jobs_t *jobs, store_job_t *job)
{
    if (jobs->count == STORE_JOBS_KEPT) {
        destroy(jobs->kept[--jobs->count]);
    }
    for (size_t i = jobs->count; i > 0; i--) {
        jobs->kept[i] = jobs->kept[i - 1];
    }
    jobs->kept[0] = job;
    jobs->count++;
}

int
store_jobs_start(store_jobs_t *jobs, const struct cq_job_start *start, store_job_t **out)
{
    store_job_t *same = store_jobs_find(jobs, &start->job);
    if (same) {
        *out = same;
        return 0;
    }
    const struct store_job_kind *kind = find_kind(jobs, start->kind);
    bool has_path = start->path.n > 0;
    if (!kind || kind->wants_path != has_path || (has_path && start->path.p[0] != '/')) {
        return -CQ_E_BAD_ARG;
    }
    if (cq_worker_pending(jobs->worker)) {
        return -CQ_E_BUSY;
    }
    store_job_t *job = make(jobs, kind, start);
    void *handed = job;
    int rc = cq_worker_submit(jobs->worker, &handed);
    CQ_ASSERT(rc == 0); /* nothing is pending */
    keep(jobs, job);
    CQ_LOG(INFO, "STORE-JOB-START", "kind=%s", kind->name);
    *out = job;
    return 0;
}

store_job_t *
store_jobs_find(store_jobs_t *jobs, const struct cq_id *id)
{
    if (cq_id_is_none(id)) {
        return jobs->count ? jobs->kept[0] : NULL;
    }
    for (size_t i = 0; i < jobs->count; i++) {
        if (cq_id_eq(&jobs->kept[i]->id, id)) {
            return jobs->kept[i];
        }
    }
    return NULL;
}

void
store_jobs_cancel(store_job_t *job)
{
    if (job->state == CQ_JOB_RUNNING) {
        atomic_store(&job->is_cancelled, true);
    }
}

static struct cq_view
view_text(const char *text)
{
    return (struct cq_view){(const uint8_t *)text, strlen(text)};
}

/* The kept findings from number `from` on, copied. */
static struct cq_list
copy_findings(const store_job_t *job, uint64_t from, cq_buf_t *out)
{
    cq_reader_t r = cq_reader(job->findings.data, job->findings.size);
    size_t skipped = 0;
    while (skipped < job->kept_count && skipped < from) {
        (void)cq_read_any(&r);
        skipped++;
    }
    cq_buf_clear(out);
    cq_buf_append(out, r.p, (size_t)(r.end - r.p));
    return cq_list_of(out, job->kept_count - skipped);
}

void
store_jobs_state(store_job_t *job, uint64_t from, cq_buf_t *findings, struct cq_job_state *out)
{
    pthread_mutex_lock(&job->mutex);
    *out = (struct cq_job_state){
        .job = job->id,
        .kind = view_text(job->kind->name),
        .path = view_text(job->path),
        .state = job->state,
        .done = atomic_load(&job->done),
        .total = atomic_load(&job->total),
        .unit = view_text(job->kind->unit),
        .started_unix_ms = job->started_unix_ms,
        .ended_unix_ms = job->ended_unix_ms,
        .finding_count = job->finding_count,
        .findings = copy_findings(job, from, findings),
    };
    memcpy(job->said, job->text, sizeof job->said);
    pthread_mutex_unlock(&job->mutex);
    out->text = view_text(job->said);
    out->err = job->state == CQ_JOB_FAILED ? (uint64_t)-job->rc : 0;
}
