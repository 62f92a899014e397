/* SPDX-License-Identifier: MPL-2.0
 * Counters of the blob daemon. Loop thread only.
 */
#ifndef BLOBD_STATS_H
#define BLOBD_STATS_H

#include <stdint.h>

struct blobd_stats {
    uint64_t uploads_total, uploads_open, whole_total, bytes_in_total, bytes_out_total, jobs_total,
        jobs_waiting, orphans_total, collected_total, expired_total, damaged_total, scrubbed_total,
        room_bytes;
};
extern struct blobd_stats blobd_stats;

void blobd_stats_register(void);

#endif
