/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/metrics.h"

#include <stdbool.h>

#include "common/rt/metric.h"
#include "common/wire/frame.h"

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

static struct edge_stages stages;

#define REQUEST_DOC "from an operation's passing the gate to its answer's being queued (OK only)"
static const struct cq_histogram_row histograms[] = {
#define EDGE_REQUEST_CLASS(name, label)                             \
    {"chasqui_edge_request_seconds{op=\"" label "\"}", REQUEST_DOC, \
     &stages.requests[EDGE_REQUEST_##name]},
    EDGE_REQUEST_CLASSES(EDGE_REQUEST_CLASS)
#undef EDGE_REQUEST_CLASS
        {"chasqui_edge_push_seconds", "from reading a push off the bus to its session's socket",
         &stages.push},
    {"chasqui_edge_message_age_seconds",
     "from a message's being accepted by the store to its being queued here (wall clocks, ms)",
     &stages.age},
};

struct edge_stages *
edge_metrics_stages(void)
{
    return &stages;
}

enum edge_request_class
edge_metrics_request_class(uint8_t op)
{
    static const uint8_t classes[256] = {
        [CQ_OP_SEND] = EDGE_REQUEST_SEND,   [CQ_OP_ACK] = EDGE_REQUEST_ACK,
        [CQ_OP_SYNC] = EDGE_REQUEST_SYNC,   [CQ_OP_HISTORY] = EDGE_REQUEST_HISTORY,
        [CQ_OP_LOGIN] = EDGE_REQUEST_LOGIN, [CQ_OP_SIGNUP] = EDGE_REQUEST_LOGIN,
    };
    return (enum edge_request_class)classes[op];
}

struct edge_metrics *
edge_metrics_get(void)
{
    static bool is_registered;
    if (!is_registered) {
        cq_metric_register(table, sizeof table / sizeof table[0]);
        cq_metric_register(net_table, sizeof net_table / sizeof net_table[0]);
        cq_metric_register(ops, sizeof ops / sizeof ops[0]);
        cq_metric_register(limits, sizeof limits / sizeof limits[0]);
        cq_metric_register_histograms(histograms, sizeof histograms / sizeof histograms[0]);
        is_registered = true;
    }
    return &metrics;
}

struct edge_net_stats *
edge_metrics_net(void)
{
    return &net;
}
