/* SPDX-License-Identifier: MPL-2.0
 * The job "fsck": checks the database of the running store.
 */
#ifndef STORE_FSCK_JOB_H
#define STORE_FSCK_JOB_H

#include "store/fsck.h"
#include "store/job.h"

/* struct store_job_kind.run; the job's ctx is the core. What is found are the job's findings; it
 * ends well even if there are some, and fails only if it could not check. */
int store_fsck_job_run(store_job_t *job) CQ_MUST_CHECK;
/* The same, and reads all bytes of all blobs, as fast as blobd scrubs. */
int store_fsck_job_blobs_run(store_job_t *job) CQ_MUST_CHECK;

/* The findings of a report as those of a job. */
void store_fsck_job_findings(store_job_t *job, const struct store_fsck_report *r);

#endif
