/* SPDX-License-Identifier: MPL-2.0
 * Counters and gauges of an edge: EDGE_METRIC(field, TYPE, "what it counts").
 */
#ifndef EDGE_METRICS_H
#define EDGE_METRICS_H

#include <stdint.h>

#include "common/rt/metric.h"

#include "edge/limiter.h"

#define EDGE_METRICS(X)                                                                      \
    X(ready, GAUGE, "1: /readyz says yes")                                                   \
    X(degraded, GAUGE, "1: /readyz says that something is missing")                          \
    X(sessions, GAUGE, "connections open")                                                   \
    X(sessions_ready, GAUGE, "sessions logged in")                                           \
    X(sessions_lagging, GAUGE, "sessions whose pushes are dropped until they drain")         \
    X(sessions_paused, GAUGE, "sessions that are not read from for backpressure")            \
    X(queued_bytes, GAUGE, "output waiting for clients")                                     \
    X(input_bytes, GAUGE, "parts of messages and operations held back")                      \
    X(guest_input_bytes, GAUGE, "the same, and parts of requests, of who is not logged in")  \
    X(refused_sessions_total, COUNTER, "refused: session-max, closing, no room at presence") \
    X(tls_reloads_total, COUNTER, "certificates loaded again")                               \
    X(tls_reload_failed_total, COUNTER, "certificates not loaded again: not usable")         \
    X(calls_in_flight, GAUGE, "client requests waiting for store or presence")               \
    X(frames_in_total, COUNTER, "WebSocket messages received")                               \
    X(frames_out_total, COUNTER, "WebSocket messages sent")                                  \
    X(bytes_in_total, COUNTER, "payload bytes received")                                     \
    X(bytes_out_total, COUNTER, "payload bytes sent")                                        \
    X(ops_total, COUNTER, "operations received")                                             \
    X(ops_refused_total, COUNTER, "operations refused by the gate")                          \
    X(ops_rate_limited_total, COUNTER, "operations refused by a rate limit")                 \
    X(answers_ok_total, COUNTER, "operations answered OK")                                   \
    X(answers_err_total, COUNTER, "operations answered with an error")                       \
    X(pushes_total, COUNTER, "pushes queued")                                                \
    X(pushes_dropped_total, COUNTER, "durable pushes dropped: the session is told to sync")  \
    X(ephemeral_dropped_total, COUNTER, "ephemeral pushes dropped")                          \
    X(delivers_total, COUNTER, "DELIVER items from presence")                                \
    X(logins_total, COUNTER, "password logins and sign-ups that succeeded")                  \
    X(resumes_total, COUNTER, "token logins that succeeded")                                 \
    X(token_signatures_total, COUNTER, "valid tokens without a seal of the running store")   \
    X(auth_failed_total, COUNTER, "logins of any kind that failed")                          \
    X(auth_timeout_total, COUNTER, "connections closed: no login in time")                   \
    X(heartbeat_lost_total, COUNTER, "connections closed: nothing heard")                    \
    X(stuck_total, COUNTER, "connections closed: output not taken")                          \
    X(protocol_errors_total, COUNTER, "connections closed: bad frame, text, too large")      \
    X(revoked_total, COUNTER, "sessions closed: device revoked")                             \
    X(sync_now_total, COUNTER, "SYNC_NOW pushed")                                            \
    X(pings_total, COUNTER, "WebSocket Pings sent")                                          \
    X(blob_requests_total, COUNTER, "HTTP requests about blobs")                             \
    X(blob_failed_total, COUNTER, "of these, begun and answered with an error")              \
    X(blob_transfers, GAUGE, "uploads and downloads under way")                              \
    X(blob_uploads_total, COUNTER, "uploads completed")                                      \
    X(blob_downloads_total, COUNTER, "downloads, whole or ranges, given out to their end")   \
    X(blob_bytes_in_total, COUNTER, "bytes of blobs received")                               \
    X(blob_bytes_out_total, COUNTER, "bytes of blobs sent")                                  \
    X(announces_total, COUNTER, "times all sessions were announced to a presence")

struct edge_metrics {
    uint64_t op_calls[256]; /* by code: requests that reached the gate */
    uint64_t rate_limited[EDGE_RATE_COUNT];
#define EDGE_METRIC(field, type, doc) uint64_t field;
    EDGE_METRICS(EDGE_METRIC)
#undef EDGE_METRIC
};

/* Classes of requests whose times are kept apart. */
#define EDGE_REQUEST_CLASSES(X) \
    X(OTHER, "other")           \
    X(SEND, "SEND")             \
    X(ACK, "ACK")               \
    X(SYNC, "SYNC")             \
    X(HISTORY, "HISTORY")       \
    X(LOGIN, "LOGIN")

enum edge_request_class {
#define EDGE_REQUEST_CLASS(name, label) EDGE_REQUEST_##name,
    EDGE_REQUEST_CLASSES(EDGE_REQUEST_CLASS)
#undef EDGE_REQUEST_CLASS
    EDGE_REQUEST_CLASS_COUNT
};

/* How long things take. */
struct edge_stages {
    struct cq_histogram requests[EDGE_REQUEST_CLASS_COUNT];
    struct cq_histogram push;
    struct cq_histogram age;
};

struct edge_stages *edge_metrics_stages(void);
enum edge_request_class edge_metrics_request_class(uint8_t op);

struct edge_net_stats;
/* Those of the connection layer, registered with the rest. */
struct edge_net_stats *edge_metrics_net(void);
/* The process's one set; registers it once. */
struct edge_metrics *edge_metrics_get(void);

#endif
