/* SPDX-License-Identifier: MPL-2.0
 * The job "backup": a consistent copy of the database while it is being written, in a new folder:
 *
 *   PATH/data.mdb     the database
 *   PATH/blobs/III/ID the blobs that it knows (backup_blobs.h)
 *   PATH/blobs.list   … and their list
 *   PATH/manifest     what it is, and the hashes of database and list (manifest.h)
 *
 * It is made as PATH.partial, synced, read back, checked, and only then gets its name. What a crash
 * leaves is a PATH.partial whose manifest says "unfinished"; the next backup to PATH takes over its
 * blobs, those that are whole, and replaces the rest. The master key is not in it.
 */
#ifndef STORE_BACKUP_H
#define STORE_BACKUP_H

#include "store/job.h"

#define STORE_BACKUP_PART     "store"
#define STORE_BACKUP_FILE     "data.mdb"
#define STORE_BACKUP_MANIFEST "manifest"
#define STORE_BACKUP_PARTIAL  ".partial"

/* Run on the job actor; the job's context is the core. The second one is "backup-database": no
 * blobs. */
int store_backup_run(store_job_t *job) CQ_MUST_CHECK;
int store_backup_database_run(store_job_t *job) CQ_MUST_CHECK;

#endif
