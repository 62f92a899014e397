/* SPDX-License-Identifier: MPL-2.0
 * Counters, gauges and histograms of a process, one table each part. Plain integers, written by one
 * thread. A bus endpoint answers METRICS with all registered tables as Prometheus text.
 *
 * Names end with their unit (_seconds, _bytes), counters with _total. A name may carry labels of
 * its own, `chasqui_edge_requests_total{op="SEND"}`; rows of one name then stand together, and the
 * first one's description counts.
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

enum {
    CQ_HISTOGRAM_BOUNDS = 17
};

/* How often which duration came, in fixed buckets: 50 µs to 10 s by 1, 2, 5. */
struct cq_histogram {
    uint64_t counts[CQ_HISTOGRAM_BOUNDS + 1]; /* the last: beyond all bounds */
    uint64_t sum_us;
};

/* Upper bounds, included, in microseconds. */
extern const uint32_t cq_histogram_bounds_us[CQ_HISTOGRAM_BOUNDS];

struct cq_histogram_row {
    const char *name; /* "chasqui_store_commit_seconds" */
    const char *doc;
    const struct cq_histogram *histogram; /* borrowed for the process's life */
};

/* Adds a table (borrowed), as cq_metric_register. */
void cq_metric_register_histograms(const struct cq_histogram_row *rows, size_t count);

/* Some nanoseconds: no division, no clock. */
static inline void
cq_histogram_add(struct cq_histogram *h, uint64_t us)
{
    size_t i = 0;
    while (i < CQ_HISTOGRAM_BOUNDS && us > cq_histogram_bounds_us[i]) {
        i++;
    }
    h->counts[i]++;
    h->sum_us += us;
}

/* The time from one reading of the monotonic clock to a later one; a clock that is not the same one
 * (another machine's) counts as 0. */
static inline void
cq_histogram_add_span(struct cq_histogram *h, uint64_t from_us, uint64_t to_us)
{
    cq_histogram_add(h, to_us > from_us ? to_us - from_us : 0);
}

/* What is wrong with this process at the moment and what to do about it, in words without quotes
 * and backslashes, as the sample chasqui_trouble{actor=…,what=…} 1; NULL: nothing, no sample.
 * Borrowed until the next call; loop thread. */
void cq_metric_trouble(const char *what);

/* Prometheus text exposition format 0.0.4: chasqui_info (with the version), what the system says of
 * the process, chasqui_trouble if there is one, then all tables; the first label of each sample is
 * actor="edge.1". */
void cq_metric_text(cq_buf_t *out, const char *actor);

#endif
