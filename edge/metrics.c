/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/metrics.h"

#include <stdbool.h>

#include "common/rt/metric.h"

static struct edge_metrics metrics;

static const struct cq_metric table[] = {
#define EDGE_METRIC(field, type, doc) \
    {"chasqui_edge_" #field, doc, CQ_METRIC_##type, &metrics.field},
    EDGE_METRICS(EDGE_METRIC)
#undef EDGE_METRIC
};

struct edge_metrics *
edge_metrics_get(void)
{
    static bool is_registered;
    if (!is_registered) {
        cq_metric_register(table, sizeof table / sizeof table[0]);
        is_registered = true;
    }
    return &metrics;
}
