/* SPDX-License-Identifier: MPL-2.0
 * The edge's configuration: one table.
 */
#ifndef EDGE_CONFIG_H
#define EDGE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/rt/config.h"

#include "edge/limiter.h"

struct edge_config {
    char *name;
    char *broker;
    char *listen_address;
    uint64_t listen_port;
    char *peers;
    char *tls_certificate;
    char *tls_key;
    uint64_t tls_check_interval_ms;
    bool plain_text_anywhere;
    char *proxy_from;
    char *metrics_address;
    uint64_t metrics_port;
    bool metrics_anywhere;
    uint64_t metrics_timeout_ms;
    char *origins;
    uint64_t heartbeat_interval_ms;
    uint64_t heartbeat_limit_ms;
    uint64_t handshake_timeout_ms;
    uint64_t auth_timeout_ms;
    uint64_t session_max;
    uint64_t address_connections_max;
    uint64_t handshakes_max;
    uint64_t session_queue_max_bytes;
    uint64_t session_requests_max;
    uint64_t frame_max_bytes;
    uint64_t queue_total_max_bytes;
    uint64_t input_total_max_bytes;
    uint64_t guest_input_max_bytes;
    uint64_t seen_interval_ms;
    uint64_t newcomer_share_percent;
    uint64_t newcomer_share_busy_percent;
    uint64_t drain_notice_ms;
    uint64_t drain_limit_ms;
    uint64_t blob_max_bytes;
    bool blob_files;
    uint64_t transfers_max;
    uint64_t user_transfers_max;
    uint64_t transfer_timeout_ms;
    uint64_t transfer_min_bytes;
    struct edge_limit limits[EDGE_RATE_COUNT];
    char *log_level;
};

extern const struct cq_config_item edge_config_items[];
extern const size_t edge_config_count;

/* What one table cannot say: combinations. 0 or -CQ_E_CONFIG after a sentence on stderr. */
int edge_config_check(const struct edge_config *cfg) CQ_MUST_CHECK;

#endif
