/* SPDX-License-Identifier: MPL-2.0
 * JOB_START, JOB_STATUS, JOB_CANCEL, and the kinds of jobs there are.
 */
#include "store/backup.h"
#include "store/core.h"
#include "store/fsck_job.h"

static void
refuse(struct store_core *core, const struct cq_bus_from *from, int rc)
{
    if (from->rid) {
        cq_bus_reply_err(core->bus, from, rc, 0);
    }
}

static void
answer(struct store_core *core, const struct cq_bus_from *from, store_job_t *job, uint64_t known)
{
    struct cq_job_state state;
    cq_buf_t findings = {0};
    if (from->rid == 0) {
        return;
    }
    if (!job) {
        refuse(core, from, -CQ_E_NOT_FOUND);
        return;
    }
    store_jobs_state(job, known, &findings, &state);
    cq_bus_reply(core->bus, from, &cq_job_state_schema, &state);
    cq_buf_free(&findings);
}

void
store_on_job_start(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_job_start start;
    store_job_t *job = NULL;
    int rc = cq_schema_read(&cq_job_start_schema, fields, count, &start);
    if (!rc) {
        rc = core->stopping ? -CQ_E_UNAVAILABLE : store_jobs_start(core->jobs, &start, &job);
    }
    if (rc) {
        refuse(core, from, rc);
        return;
    }
    answer(core, from, job, 0);
}

void
store_on_job_status(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_job_status in;
    int rc = cq_schema_read(&cq_job_status_schema, fields, count, &in);
    if (rc) {
        refuse(core, from, rc);
        return;
    }
    answer(core, from, store_jobs_find(core->jobs, &in.job), in.from);
}

void
store_on_job_cancel(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_job_cancel in;
    int rc = cq_schema_read(&cq_job_cancel_schema, fields, count, &in);
    if (rc) {
        refuse(core, from, rc);
        return;
    }
    store_job_t *job = store_jobs_find(core->jobs, &in.job);
    if (job) {
        store_jobs_cancel(job);
    }
    answer(core, from, job, UINT64_MAX);
}

const struct store_job_kind store_job_kinds[] = {
    {"backup", "bytes", true, store_backup_run},
    {"backup-database", "bytes", true, store_backup_database_run},
    {"fsck", "records", false, store_fsck_job_run},
    {"fsck-blobs", "records", false, store_fsck_job_blobs_run},
};
const size_t store_job_kind_count = sizeof store_job_kinds / sizeof store_job_kinds[0];
