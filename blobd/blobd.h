/* SPDX-License-Identifier: MPL-2.0
 * The blob daemon: encrypted images, files and voice messages on disk. It sees ciphertext only, and
 * believes the edges who is asking (the bus is trusted); who may read what is the store's business.
 */
#ifndef BLOBD_BLOBD_H
#define BLOBD_BLOBD_H

#include <stdint.h>

#include "common/rt/loop.h"

struct blobd_cfg {
    char *name;
    char *broker;
    char *data;
    char *log_level;
    uint64_t length_max;    /* bytes of a blob */
    uint64_t reserve_bytes; /* space that is left free on the disk */
    uint64_t upload_life_s; /* an upload that is not complete by then is removed */
    uint64_t upload_idle_s; /* the file of an upload nobody touches is closed */
    uint64_t uploads_open_max;
    uint64_t disk_threads;
    uint64_t sweep_s;           /* from the end of a search for orphans to the next one */
    uint64_t orphan_grace_s;    /* a file that the store does not know lives so long */
    uint64_t scrub_bytes_per_s; /* reading of all blobs to find damage; 0: off */
};

typedef struct blobd blobd_t;

/* NULL if the folder or the endpoint are not usable (logged). */
blobd_t *blobd_blobd_new(cq_loop_t *loop, const struct blobd_cfg *cfg);
void blobd_blobd_destroy(blobd_t **b);

#endif
