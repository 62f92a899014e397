/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/config.h"

#include <stdio.h>
#include <string.h>

#include "common/wire/limits.h"

#include "edge/ip.h"

#define TEXT_OF(v) #v
#define TEXT(v)    TEXT_OF(v)
#define AT(field)  offsetof(struct edge_config, field)

const struct cq_config_item edge_config_items[] = {
    {"name", CQ_CONFIG_STR, AT(name), "edge.1", 1, CQ_ACTOR_NAME_MAX, "",
     "this edge's name on the bus"},
    {"broker", CQ_CONFIG_STR, AT(broker), NULL, 1, 256, "", "the broker's endpoint, ipc://PATH"},
    {"listen-address", CQ_CONFIG_STR, AT(listen_address), "127.0.0.1", 1, 64, "",
     "address to listen on"},
    {"listen-port", CQ_CONFIG_UINT, AT(listen_port), "8080", 0, 65535, "",
     "port to listen on, 0: any free one"},
    {"tls-certificate", CQ_CONFIG_STR, AT(tls_certificate), "", 0, 1024, "",
     "PEM file of the certificate and its chain; empty: plain text"},
    {"tls-key", CQ_CONFIG_STR, AT(tls_key), "", 0, 1024, "", "PEM file of the certificate's key"},
    {"tls-check-interval-ms", CQ_CONFIG_UINT, AT(tls_check_interval_ms), "10000", 20, 86400000,
     "ms", "how often is looked whether these files have changed (SIGHUP: at once)"},
    {"plain-text-anywhere", CQ_CONFIG_BOOL, AT(plain_text_anywhere), "false", 0, 0, "",
     "serve without TLS on addresses that other machines reach"},
    {"proxy-from", CQ_CONFIG_STR, AT(proxy_from), "", 0, 4096, "",
     "addresses and networks whose connections must begin with a PROXY header (comma list)"},
    {"metrics-address", CQ_CONFIG_STR, AT(metrics_address), "127.0.0.1", 1, 64, "",
     "address to serve /metrics on"},
    {"metrics-port", CQ_CONFIG_UINT, AT(metrics_port), "0", 0, 65535, "",
     "port to serve /metrics of the whole system on, 0: none"},
    {"metrics-anywhere", CQ_CONFIG_BOOL, AT(metrics_anywhere), "false", 0, 0, "",
     "serve /metrics on addresses that other machines reach"},
    {"metrics-timeout-ms", CQ_CONFIG_UINT, AT(metrics_timeout_ms), "2000", 100, 60000, "ms",
     "time in which the other actors must answer a scrape; who does not counts as down"},
    {"peers", CQ_CONFIG_STR, AT(peers), "", 0, 4096, "",
     "URLs of the other edges, told to clients when this one closes (comma list)"},
    {"origins", CQ_CONFIG_STR, AT(origins), "", 0, 4096, "",
     "origins of web pages that may connect (comma list); empty: same host only"},
    {"heartbeat-interval-ms", CQ_CONFIG_UINT, AT(heartbeat_interval_ms), "25000", 50, 3600000, "ms",
     "silence after which either side says something"},
    {"heartbeat-limit-ms", CQ_CONFIG_UINT, AT(heartbeat_limit_ms), "60000", 100, 7200000, "ms",
     "silence after which a peer counts as dead"},
    {"handshake-timeout-ms", CQ_CONFIG_UINT, AT(handshake_timeout_ms), "10000", 100, 600000, "ms",
     "time for a PROXY header, TLS and the whole of a request together"},
    {"auth-timeout-ms", CQ_CONFIG_UINT, AT(auth_timeout_ms), "10000", 100, 600000, "ms",
     "time to log in"},
    {"newcomer-share-percent", CQ_CONFIG_UINT, AT(newcomer_share_percent), "20", 1, 100, "%",
     "of its time for those who are not logged in yet: a storm must not make the others wait"},
    {"newcomer-share-busy-percent", CQ_CONFIG_UINT, AT(newcomer_share_busy_percent), "5", 1, 100,
     "%", "the same while the processors are full, if it is less; not with TLS"},
    {"session-max", CQ_CONFIG_UINT, AT(session_max), "100000", 1, 1000000, "", "sessions at most"},
    {"address-connections-max", CQ_CONFIG_UINT, AT(address_connections_max), "20000", 0, 1000000,
     "", "connections of one address (of an IPv6 /64) at most; 0: any number"},
    {"handshakes-max", CQ_CONFIG_UINT, AT(handshakes_max), "24576", 16, 1000000, "",
     "connections that have not said yet what they want; beyond it the oldest of them ends"},
    {"session-queue-max-bytes", CQ_CONFIG_UINT, AT(session_queue_max_bytes), "1048576", 4096,
     67108864, "bytes", "output waiting for one client"},
    {"session-requests-max", CQ_CONFIG_UINT, AT(session_requests_max), "64", 1, 4096, "",
     "unanswered requests of one client (those with long answers count 16)"},
    {"frame-max-bytes", CQ_CONFIG_UINT, AT(frame_max_bytes), "65536", 1024, CQ_FRAME_MAX, "bytes",
     "largest message from a client"},
    {"queue-total-max-bytes", CQ_CONFIG_UINT, AT(queue_total_max_bytes), "1073741824", 1048576,
     1099511627776, "bytes", "output waiting for all clients; beyond it each may have 4 KiB"},
    {"input-total-max-bytes", CQ_CONFIG_UINT, AT(input_total_max_bytes), "268435456", 1048576,
     1099511627776, "bytes",
     "parts of messages and operations held back, of all who are logged in; beyond it each has "
     "2 KiB"},
    {"guest-input-max-bytes", CQ_CONFIG_UINT, AT(guest_input_max_bytes), "67108864", 65536,
     1099511627776, "bytes",
     "the same, and parts of requests, of all who are not; beyond it each has 2 KiB"},
    {"seen-interval-ms", CQ_CONFIG_UINT, AT(seen_interval_ms), "60000", 100, 3600000, "ms",
     "how often presence is told who was heard from"},
    {"drain-notice-ms", CQ_CONFIG_UINT, AT(drain_notice_ms), "0", 0, 600000, "ms",
     "closing down: /readyz says no for so long before anybody is sent away (load balancers)"},
    {"drain-limit-ms", CQ_CONFIG_UINT, AT(drain_limit_ms), "10000", 0, 600000, "ms",
     "closing down: time in which all are sent away, what they asked is answered and uploads and "
     "downloads end"},
    {"blob-max-bytes", CQ_CONFIG_UINT, AT(blob_max_bytes), "104857600", 1, UINT64_C(1) << 40,
     "bytes", "largest blob (blobd has a bound of its own)"},
    {"blob-files", CQ_CONFIG_BOOL, AT(blob_files), "true", 0, 0, "",
     "read blobs from blobd's files, if they are on this machine, and not over the bus"},
    {"transfers-max", CQ_CONFIG_UINT, AT(transfers_max), "1000", 1, 100000, "",
     "uploads and downloads at the same time"},
    {"user-transfers-max", CQ_CONFIG_UINT, AT(user_transfers_max), "64", 1, 100000, "",
     "of these, of one user"},
    {"transfer-timeout-ms", CQ_CONFIG_UINT, AT(transfer_timeout_ms), "30000", 100, 600000, "ms",
     "a client that has to send or take a blob moves transfer-min-bytes in this time"},
    {"transfer-min-bytes", CQ_CONFIG_UINT, AT(transfer_min_bytes), "16384", 1, 1073741824, "bytes",
     "fewer than this in transfer-timeout-ms: the connection ends"},
#define EDGE_RATE(name, key, scope, rate_per_s, at_once, doc) \
    {"limit-" key "-per-s",                                   \
     CQ_CONFIG_UINT,                                          \
     AT(limits[EDGE_RATE_##name].per_s),                      \
     TEXT(rate_per_s),                                        \
     0,                                                       \
     1000000,                                                 \
     "per s",                                                 \
     doc "; 0: no limit"},                                    \
        {"limit-" key "-burst",                               \
         CQ_CONFIG_UINT,                                      \
         AT(limits[EDGE_RATE_##name].burst),                  \
         TEXT(at_once),                                       \
         1,                                                   \
         1000000,                                             \
         "",                                                  \
         doc " at once"},
    EDGE_RATES(EDGE_RATE)
#undef EDGE_RATE
        {"log-level", CQ_CONFIG_STR, AT(log_level), "info", 1, 16, "",
         "debug, info, warn or error"},
};

const size_t edge_config_count = sizeof edge_config_items / sizeof edge_config_items[0];

static int
refuse(const char *sentence)
{
    (void)fprintf(stderr, "chasqui-edge: %s\n", sentence);
    return -CQ_E_CONFIG;
}

static bool
is_loopback(const char *address)
{
    struct edge_ip ip;
    return edge_ip_parse(address, strlen(address), &ip) && edge_ip_is_loopback(&ip);
}

static int
check_network(const struct edge_config *cfg)
{
    const char *bad;
    size_t bad_n;
    if (!cfg->tls_certificate[0] != !cfg->tls_key[0]) {
        return refuse("tls-certificate, tls-key: one needs the other");
    }
    if (!cfg->tls_certificate[0] && !cfg->plain_text_anywhere &&
        !is_loopback(cfg->listen_address)) {
        return refuse(
            "listen-address: other machines reach it, and passwords would travel in plain "
            "text: give tls-certificate and tls-key, or say plain-text-anywhere true if "
            "something in front of this edge does TLS");
    }
    if (!cfg->metrics_anywhere && !is_loopback(cfg->metrics_address)) {
        return refuse("metrics-address: other machines reach it: say metrics-anywhere true if that "
                      "is meant");
    }
    edge_ip_list_t *proxies = edge_ip_list_new(cfg->proxy_from, &bad, &bad_n);
    if (!proxies) {
        return refuse("proxy-from: not a list of addresses and networks like 10.0.0.7, fd00::/8");
    }
    edge_ip_list_destroy(&proxies);
    return 0;
}

int
edge_config_check(const struct edge_config *cfg)
{
    int rc = cq_config_check_actor("chasqui-edge", cfg->name, cfg->log_level);
    rc = rc ? rc : check_network(cfg);
    if (rc) {
        return rc;
    }
    if (cfg->heartbeat_limit_ms <= cfg->heartbeat_interval_ms) {
        return refuse("heartbeat-limit-ms: must be greater than heartbeat-interval-ms");
    }
    return 0;
}
