/* SPDX-License-Identifier: MPL-2.0
 * The backup's side of the volume: names there, and what a backup must not do to the volume.
 */
#ifndef BLOBD_SAVE_H
#define BLOBD_SAVE_H

#include "blobd/core.h"

enum {
    BLOBD_BLOB_NAME_SIZE = 64
};

/* "blobs/III/ID": a blob's name in a volume, and in a backup. */
void blobd_volume_blob_path(const struct cq_id *id, char out[BLOBD_BLOB_NAME_SIZE]);
/* Is the existing folder path the volume itself, or in it? */
bool blobd_volume_contains(const blobd_volume_t *v, const char *path);
/* A small file of the volume, open for reading, or -1. */
int blobd_volume_open_probe(const blobd_volume_t *v);
/* Bytes that must be left free where this folder is: the reserve, if it is the volume's disk. */
uint64_t blobd_volume_reserve_on(const blobd_volume_t *v, int dir_fd);

#endif
