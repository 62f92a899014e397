/* SPDX-License-Identifier: MPL-2.0
 * Counters of the blob daemon. Loop thread only.
 */
#ifndef BLOBD_STATS_H
#define BLOBD_STATS_H

#include <stdint.h>

#include "blobd/volume.h"

struct blobd_stats {
    uint64_t uploads_total, uploads_open, whole_total, bytes_in_total, bytes_out_total, jobs_total,
        jobs_waiting, orphans_total, collected_total, expired_total, damaged_total, scrubbed_total,
        room_bytes, blobs, blob_bytes, is_counted, scrub_end_s, missing_total, saved_total;
};
extern struct blobd_stats blobd_stats;

/* Takes over how many blobs there are, once all have been counted. */
void blobd_stats_count(const blobd_volume_t *v);
void blobd_stats_register(void);

#endif
