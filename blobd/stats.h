/* SPDX-License-Identifier: MPL-2.0
 * Counters of the blob daemon. Loop thread only.
 */
#ifndef BLOBD_STATS_H
#define BLOBD_STATS_H

#include <stdint.h>

struct blobd_stats {
    uint64_t uploads_total, uploads_open, whole_total, bytes_in_total, bytes_out_total, jobs_total,
        jobs_waiting, orphans_total, collected_total, expired_total, damaged_total, scrubbed_total,
        room_bytes, blobs, blob_bytes, is_counted, scrub_end_s, missing_total, saved_total;
};
extern struct blobd_stats blobd_stats;

/* So many more complete blobs and bytes of their files. What is not counted yet stays so. */
void blobd_stats_blobs(int64_t count, int64_t bytes);
void blobd_stats_register(void);

#endif
