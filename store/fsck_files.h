/* SPDX-License-Identifier: MPL-2.0
 * The files of blobs against their rows: each complete blob has one of the right size and hash, and
 * there is none that no row knows. Online blobd looks (BLOB_CHECK, BLOB_LIST), offline and in a
 * backup the folder is read.
 */
#ifndef STORE_FSCK_FILES_H
#define STORE_FSCK_FILES_H

#include "store/fsck.h"
#include "store/job.h"

struct store_fsck_files {
    store_engine_t *engine;
    store_job_t *job; /* online: for questions, progress, cancelling; else NULL */
    const char *root; /* offline: the folder */
    bool with_data;   /* read all of it, not only header, size and trailer */
    struct store_fsck_report *report;
    uint64_t count, bytes; /* out: looked at */
};

/* Adds its findings to the report. 0; UNAVAILABLE: cancelled; CORRUPT, IO: the database cannot be
 * read. A blobd that does not answer is a finding. */
int store_fsck_files_check(struct store_fsck_files *in) CQ_MUST_CHECK;

#endif
