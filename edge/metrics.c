/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/metrics.h"

#include <stdbool.h>

#include "common/rt/metric.h"

#include "edge/net.h"

static struct edge_metrics metrics;

static const struct cq_metric table[] = {
#define EDGE_METRIC(field, type, doc) \
    {"chasqui_edge_" #field, doc, CQ_METRIC_##type, &metrics.field},
    EDGE_METRICS(EDGE_METRIC)
#undef EDGE_METRIC
};

static struct edge_net_stats net;

static const struct cq_metric net_table[] = {
#define EDGE_NET_STAT(field, type, doc) {"chasqui_edge_" #field, doc, CQ_METRIC_##type, &net.field},
    EDGE_NET_STATS(EDGE_NET_STAT)
#undef EDGE_NET_STAT
};

static const struct cq_metric ops[] = {
#define CQ_REQUEST(name, code, served, state, fields, answer, doc) \
    {"chasqui_edge_requests_total{op=\"" #name "\"}",              \
     "requests that reached the gate, by operation", CQ_METRIC_COUNTER, &metrics.op_calls[code]},
#define CQ_PUSH(name, code, policy, fields, doc)
#include "common/wire/ops.def"
#undef CQ_REQUEST
#undef CQ_PUSH
};

static const struct cq_metric limits[] = {
#define EDGE_RATE(name, key, scope, rate, burst, doc)                                             \
    {"chasqui_edge_rate_limited_total{limit=\"" key "\"}", "what a rate limit refused, by limit", \
     CQ_METRIC_COUNTER, &metrics.rate_limited[EDGE_RATE_##name]},
    EDGE_RATES(EDGE_RATE)
#undef EDGE_RATE
};

struct edge_metrics *
edge_metrics_get(void)
{
    static bool is_registered;
    if (!is_registered) {
        cq_metric_register(table, sizeof table / sizeof table[0]);
        cq_metric_register(net_table, sizeof net_table / sizeof net_table[0]);
        cq_metric_register(ops, sizeof ops / sizeof ops[0]);
        cq_metric_register(limits, sizeof limits / sizeof limits[0]);
        is_registered = true;
    }
    return &metrics;
}

struct edge_net_stats *
edge_metrics_net(void)
{
    return &net;
}
