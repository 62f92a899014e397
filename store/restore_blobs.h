/* SPDX-License-Identifier: MPL-2.0
 * The blobs of a backup, back into a folder for blobd.
 */
#ifndef STORE_RESTORE_BLOBS_H
#define STORE_RESTORE_BLOBS_H

#include "store/manifest.h"

struct store_restore_blobs {
    const char *backup;
    const char *target; /* must not exist, or be empty; made under the name `fresh` */
    const char *fresh;
    const struct store_manifest_part *part;
    uint64_t count, bytes; /* out */
    char why[256];         /* out: what to do about an error */
};

/* Copies every blob of the list, checked. Nothing has the name target yet. 0; CORRUPT (the backup);
 * BAD_STATE (something is in the way); NO_SPACE; IO. */
int store_restore_blobs_copy(struct store_restore_blobs *r) CQ_MUST_CHECK;
/* Gives it its name, durably. */
int store_restore_blobs_finish(struct store_restore_blobs *r) CQ_MUST_CHECK;
/* After an error: removes what there is. */
int store_restore_blobs_remove(const char *fresh) CQ_MUST_CHECK;

#endif
