/* SPDX-License-Identifier: MPL-2.0 */
#include "store/fsck_job.h"

#include <inttypes.h>

#include "common/rt/log.h"

#include "store/core.h"
#include "store/fsck_files.h"

static bool
is_cancelled(void *ctx)
{
    return store_job_is_cancelled(ctx);
}

/* Several passes over a log that grows: the share that is done, as records of it. */
static void
on_progress(void *ctx, const struct store_fsck_progress *p)
{
    store_job_progress(ctx, p->last_pos / 1000 * p->permille, p->last_pos);
    store_job_say(ctx, "pass %u, %" PRIu64 " findings", p->pass, p->found);
}

void
store_fsck_job_findings(store_job_t *job, const struct store_fsck_report *r)
{
    for (size_t i = 0; i < r->finding_count; i++) {
        const struct store_fsck_finding *f = &r->findings[i];
        store_job_find(job, "%s: %s: is %s, should be %s", store_fsck_kind_word(f->kind), f->where,
                       f->is, f->should);
    }
    for (size_t i = 0; r->found > r->finding_count && i < STORE_FSCK_KIND_COUNT; i++) {
        if (r->counts[i]) {
            store_job_find(job, "%s: %" PRIu64 " in all: %s", store_fsck_kind_word(i), r->counts[i],
                           store_fsck_kind_text(i));
        }
    }
}

static void
say_result(store_job_t *job,
           const struct store_fsck_report *r,
           const struct store_fsck_files *files)
{
    store_fsck_job_findings(job, r);
    store_job_progress(job, r->records, r->records);
    store_job_say(job,
                  "%" PRIu64 " records, %" PRIu64 " messages, %" PRIu64 " chats, %" PRIu64
                  " users, %" PRIu64 " rows in %u passes, %" PRIu64 " blobs (%" PRIu64
                  " MiB read), %" PRIu64 " ms: %" PRIu64 " findings",
                  r->records, r->messages, r->chats, r->users, r->rows, r->passes, files->count,
                  files->bytes >> 20, r->took_ms, r->found);
}

static int
run(store_job_t *job, bool with_data)
{
    const struct store_core *core = store_job_ctx(job);
    struct store_fsck_report report;
    const struct store_fsck_cfg cfg = {.engine = core->engine,
                                       .vault = core->vault,
                                       .is_gentle = true,
                                       .is_cancelled = is_cancelled,
                                       .on_progress = on_progress,
                                       .ctx = job};
    store_job_say(job, "accounts and friends");
    struct store_fsck_files files = {
        .engine = core->engine, .job = job, .with_data = with_data, .report = &report};
    int rc = store_fsck_run(&cfg, &report);
    rc = rc ? rc : store_fsck_files_check(&files);
    CQ_LOG(INFO, "STORE-FSCK", "err=%s records=%" PRIu64 " found=%" PRIu64 " ms=%" PRIu64,
           cq_err_name(rc), report.records, report.found, report.took_ms);
    if (rc == 0) {
        say_result(job, &report, &files);
    } else {
        store_job_say(job, rc == -CQ_E_UNAVAILABLE
                               ? "the database was opened again meanwhile: start it again"
                               : "the database cannot be read: see the store's log");
    }
    store_fsck_report_free(&report);
    return rc;
}

int
store_fsck_job_run(store_job_t *job)
{
    return run(job, false);
}

int
store_fsck_job_blobs_run(store_job_t *job)
{
    return run(job, true);
}
