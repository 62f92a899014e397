/* SPDX-License-Identifier: MPL-2.0
 * What the files of the disk volume share: volume_disk.c (the folder), part.c, blob.c.
 */
#ifndef BLOBD_VOLUME_DISK_H
#define BLOBD_VOLUME_DISK_H

#include <pthread.h>

#include "blobd/tally.h"
#include "blobd/volume.h"

enum {
    BLOBD_NAME_SIZE = 64 /* "blobs/0a1/0a1b…", with its NUL */
};

struct blobd_volume {
    int dir_fd;
    int lock_fd;
    uint64_t reserve_bytes;
    char *path;             /* absolute, of the folder; NULL: nobody knows */
    bool is_same_boot;      /* the machine has not restarted since what is here was written */
    pthread_mutex_t making; /* a folder of blobs: nobody relies on one that is not durable */
    blobd_tally_t *tally;
};

/* The project's error for an errno. */
int blobd_volume_errno(int err);
/* The same where something was to be made or moved: a folder that is missing is no NOT_FOUND. */
int blobd_volume_change_errno(int err);
/* Names relative to the folder. */
void blobd_volume_part_name(char out[BLOBD_NAME_SIZE], const struct cq_id *id);
void blobd_volume_blob_name(char out[BLOBD_NAME_SIZE], const struct cq_id *id);
/* The number of the folder that a blob is in. */
unsigned blobd_volume_folder_of(const struct cq_id *id);
int blobd_volume_sync_folder(const blobd_volume_t *v, const char *name) CQ_MUST_CHECK;
/* The folder that a blob goes into, durable. */
int blobd_volume_make_folder(blobd_volume_t *v, const struct cq_id *id) CQ_MUST_CHECK;

/* After a restart of the machine: cuts off what had not been synced, durably. 0; IO, NO_SPACE. */
int blobd_part_settle(blobd_volume_t *v, const struct cq_id *id) CQ_MUST_CHECK;

#endif
