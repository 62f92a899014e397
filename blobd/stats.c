/* SPDX-License-Identifier: MPL-2.0 */
#include "blobd/stats.h"

#include "common/rt/metric.h"

struct blobd_stats blobd_stats;

static const struct cq_metric metrics[] = {
    {"chasqui_blobd_uploads_total", "Uploads begun", CQ_METRIC_COUNTER, &blobd_stats.uploads_total},
    {"chasqui_blobd_uploads_open", "Uploads with a file open", CQ_METRIC_GAUGE,
     &blobd_stats.uploads_open},
    {"chasqui_blobd_whole_total", "Uploads completed", CQ_METRIC_COUNTER, &blobd_stats.whole_total},
    {"chasqui_blobd_in_bytes_total", "Bytes of data received", CQ_METRIC_COUNTER,
     &blobd_stats.bytes_in_total},
    {"chasqui_blobd_out_bytes_total", "Bytes of data given out", CQ_METRIC_COUNTER,
     &blobd_stats.bytes_out_total},
    {"chasqui_blobd_jobs_total", "Jobs done by the disk threads", CQ_METRIC_COUNTER,
     &blobd_stats.jobs_total},
    {"chasqui_blobd_jobs_waiting", "Jobs the disk threads have not begun", CQ_METRIC_GAUGE,
     &blobd_stats.jobs_waiting},
    {"chasqui_blobd_orphans_total", "Files removed that the store does not know", CQ_METRIC_COUNTER,
     &blobd_stats.orphans_total},
    {"chasqui_blobd_collected_total", "Blobs removed because nothing refers to them",
     CQ_METRIC_COUNTER, &blobd_stats.collected_total},
    {"chasqui_blobd_expired_total", "Uploads removed because they were not completed in time",
     CQ_METRIC_COUNTER, &blobd_stats.expired_total},
    {"chasqui_blobd_damaged_total", "Times a blob was found damaged", CQ_METRIC_COUNTER,
     &blobd_stats.damaged_total},
    {"chasqui_blobd_scrubbed_bytes_total", "Bytes read to find damage", CQ_METRIC_COUNTER,
     &blobd_stats.scrubbed_total},
    {"chasqui_blobd_room_bytes", "Bytes that may still be taken", CQ_METRIC_GAUGE,
     &blobd_stats.room_bytes},
    {"chasqui_blobd_blobs", "Complete blobs on disk, 0 until they are counted", CQ_METRIC_GAUGE,
     &blobd_stats.blobs},
    {"chasqui_blobd_blob_bytes", "What their files take", CQ_METRIC_GAUGE, &blobd_stats.blob_bytes},
    {"chasqui_blobd_counted", "1: a walk since the start could list every folder, they are counted",
     CQ_METRIC_GAUGE, &blobd_stats.is_counted},
    {"chasqui_blobd_scrub_end_time_seconds",
     "When all blobs had been read to find damage, 0: never", CQ_METRIC_GAUGE,
     &blobd_stats.scrub_end_s},
    {"chasqui_blobd_saved_bytes_total", "Bytes copied into backups", CQ_METRIC_COUNTER,
     &blobd_stats.saved_total},
    {"chasqui_blobd_missing_total", "Times a blob was asked for that is not there",
     CQ_METRIC_COUNTER, &blobd_stats.missing_total},
};

void
blobd_stats_count(const blobd_volume_t *v)
{
    if (blobd_stats.is_counted) {
        struct blobd_total total = blobd_volume_total(v);
        blobd_stats.blobs = total.count;
        blobd_stats.blob_bytes = total.bytes;
    }
}

void
blobd_stats_register(void)
{
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
}
