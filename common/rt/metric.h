/* SPDX-License-Identifier: MPL-2.0
 * Counters and gauges of a process, one table each part: name, description, type, unit. Plain
 * integers, written by one thread. A bus endpoint answers METRICS with all registered tables as
 * Prometheus text.
 */
#ifndef CQ_RT_METRIC_H
#define CQ_RT_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"

enum cq_metric_type {
    CQ_METRIC_COUNTER,
    CQ_METRIC_GAUGE
};

struct cq_metric {
    const char *name; /* "chasqui_edge_frames_total" */
    const char *doc;
    enum cq_metric_type type;
    uint64_t *value; /* borrowed for the process's life */
};

/* Adds a table (borrowed). At most 16 tables; loop thread, at start. */
void cq_metric_register(const struct cq_metric *metrics, size_t count);
/* What is wrong with this process at the moment and what to do about it, in words without quotes
 * and backslashes, as the sample chasqui_trouble{part=…,what=…} 1; NULL: nothing, no sample.
 * Borrowed until the next call; loop thread. */
void cq_metric_trouble(const char *what);
/* Prometheus text exposition format 0.0.4: chasqui_info (with the version) and
 * chasqui_start_time_seconds, chasqui_trouble if there is one, then all tables; each sample
 * labelled part="edge.1". */
void cq_metric_text(cq_buf_t *out, const char *part);

#endif
