/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/stats.h"

#include "common/rt/metric.h"

struct presence_stats presence_stats;

static const struct cq_metric metrics[] = {
#define X(name, type, doc) {"chasqui_presence_" #name, doc, CQ_METRIC_##type, &presence_stats.name},
    PRESENCE_STATS(X)
#undef X
};

void
presence_stats_register(void)
{
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
}
