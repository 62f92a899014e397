/* SPDX-License-Identifier: MPL-2.0
 * The blobs of a backup. The copy of the database says which; blobd copies them, checked, into the
 * backup's folder; the list of them becomes a part of the manifest (blob_tree.h).
 *
 * From before the copy until the end no blob is collected: what the copy knows stays on blobd's
 * disk. New blobs may come meanwhile, they never change afterwards.
 */
#ifndef STORE_BACKUP_BLOBS_H
#define STORE_BACKUP_BLOBS_H

#include "store/engine.h"
#include "store/job.h"
#include "store/manifest.h"

#define STORE_BACKUP_BLOBS "blobs"

typedef struct store_backup_blobs store_backup_blobs_t;

struct store_backup_blobs_result {
    uint64_t count, bytes; /* in the backup */
    uint64_t copied_bytes; /* the others were there already */
    uint64_t lost;         /* missing or damaged: findings of the job */
};

/* Job actor. Begins to hold back collection. 0; UNAVAILABLE: cancelled. */
int store_backup_blobs_begin(store_job_t *job, store_backup_blobs_t **out) CQ_MUST_CHECK;
/* Ends it. After an error blobd may still be writing: this waits a little for it. */
void store_backup_blobs_end(store_backup_blobs_t **blobs);

/* copy: of the database; folder: of the backup under way; progress goes from base to base and the
 * bytes of all blobs. *part: for the manifest. On an error the job has said why. */
struct store_backup_blobs_cfg {
    store_engine_t *copy;
    const char *folder;
    uint64_t progress_base;
};
int store_backup_blobs_save(store_backup_blobs_t *b,
                            const struct store_backup_blobs_cfg *cfg,
                            struct store_manifest_part *part,
                            struct store_backup_blobs_result *result) CQ_MUST_CHECK;

#endif
