/* SPDX-License-Identifier: MPL-2.0
 * Accepting, who may stay, and how long. File descriptors are watched before they run out: the last
 * ones are kept to tell clients why they are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "edge/net_conn.h"

enum {
    BACKLOG = 4096,
    ACCEPTS_PER_TURN = 16, /* a storm of newcomers must leave turns for those who are there */
    FD_REFUSE = 64,        /* with fewer free than this, requests are refused with a reason */
    FD_DROP = 16,          /* and with fewer than this, connections are dropped */
    FD_LATER = 8,          /* descriptors that the process opens after the listener */
    ADDRESS_SLACK = 16,
    TICK_MIN_MS = 10,
    TICK_MAX_MS = 250,
    UNAVAILABLE = 503,
    TOO_MANY = 429
};

static const char no_descriptors[] =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: "
    "0\r\n\r\n";

size_t
edge_net_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) {
        return 1024;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit wanted = {limit.rlim_max, limit.rlim_max};
        limit = setrlimit(RLIMIT_NOFILE, &wanted) ? limit : wanted;
    }
    return limit.rlim_cur > INT32_MAX ? INT32_MAX : (size_t)limit.rlim_cur;
}

size_t
edge_net_descriptors_free(const edge_net_t *net)
{
    size_t used = net->fd_base + FD_LATER + net->count + FD_REFUSE;
    return used < net->fd_max ? net->fd_max - used : 0;
}

/* ---- who may stay ---- */

bool
edge_net_listen_admit(edge_conn_t *c)
{
    edge_net_t *net = c->net;
    struct edge_net_stats *stats = net->cfg.stats;
    if (net->cfg.calls->on_accept && !net->cfg.calls->on_accept(net->cfg.ctx, &c->ip)) {
        stats->refused_rate_total++;
        edge_net_kill(c);
        return false;
    }
    size_t most = net->cfg.address_max;
    size_t now = edge_ip_count_add(net->addresses, edge_ip_key(&c->ip));
    c->is_counted = true;
    if (most && now > most) {
        /* Told why, unless it does not listen to that. */
        stats->refused_address_total++;
        c->refuse = TOO_MANY;
        if (now > most + most / 8 + ADDRESS_SLACK) {
            edge_net_kill(c);
            return false;
        }
    }
    return true;
}

void
edge_net_listen_forget(edge_conn_t *c)
{
    if (c->is_counted) {
        edge_ip_count_remove(c->net->addresses, edge_ip_key(&c->ip));
        c->is_counted = false;
    }
}

static void
take_connection(edge_net_t *net, int fd, const struct sockaddr *address)
{
    struct edge_net_stats *stats = net->cfg.stats;
    stats->accepted_total++;
    bool is_full = net->count >= net->cfg.connections_max;
    bool has_no_fds = (size_t)fd + FD_DROP >= net->fd_max;
    edge_conn_t *c = is_full || has_no_fds ? NULL : edge_net_conn_new(net, fd);
    if (!c) {
        stats->refused_full_total += is_full;
        stats->refused_fds_total += !is_full;
        (void)close(fd);
        return;
    }
    /* The lowest free descriptor is taken: a high one means that few are left. */
    if ((size_t)fd + FD_REFUSE >= net->fd_max) {
        stats->refused_fds_total++;
        c->refuse = UNAVAILABLE;
    }
    /* Whoever means it says soon what it wants: the oldest is the likeliest not to. */
    if (net->cfg.waiting_max && net->waiting > net->cfg.waiting_max) {
        stats->crowded_out_total++;
        edge_net_kill(net->lists[EDGE_CONN_WAITING].first);
    }
    c->ip = edge_ip_of(address);
    if (!edge_ip_list_has(net->proxies, &c->ip) && edge_net_listen_admit(c)) {
        edge_net_conn_start(c);
    }
}

/* No descriptor is left: the spare one is given up to take the connection and say so. */
static void
refuse_for_descriptors(edge_net_t *net)
{
    net->cfg.stats->refused_fds_total++;
    if (net->spare_fd >= 0) {
        (void)close(net->spare_fd);
    }
    int fd = accept4(net->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        if (!net->cfg.tls) {
            (void)send(fd, no_descriptors, sizeof no_descriptors - 1, MSG_NOSIGNAL);
        }
        (void)close(fd);
    }
    net->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void
on_listener(uv_poll_t *poll, int status, int events)
{
    (void)events;
    edge_net_t *net = poll->data;
    uint64_t since_us = cq_now_mono_us();
    for (int i = 0; !status && i < ACCEPTS_PER_TURN && edge_net_pace_may_accept(net); i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof address;
        int fd = accept4(net->fd, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_connection(net, fd, (const struct sockaddr *)&address);
        } else if (errno == EMFILE || errno == ENFILE) {
            refuse_for_descriptors(net);
        } else if (errno != ECONNABORTED && errno != EINTR) {
            break;
        }
    }
    edge_net_spent(net, since_us);
}

void
edge_net_listen_open(edge_net_t *net)
{
    (void)uv_poll_start(net->listener, UV_READABLE, on_listener);
}

/* ---- time ---- */

static void
on_tick(void *ctx)
{
    edge_net_t *net = ctx;
    uint64_t now = cq_now_mono_ms();
    edge_net_pace_look(net);
    for (int i = 0; i < EDGE_CONN_OPEN; i++) {
        edge_conn_t *c;
        while ((c = net->lists[i].first) && c->due_mono_ms <= now) {
            if (i == EDGE_CONN_TRANSFER && edge_net_body_may_go_on(c)) {
                continue;
            }
            net->cfg.stats->timeout_total += i == EDGE_CONN_WAITING;
            net->cfg.stats->slow_total += i == EDGE_CONN_TRANSFER;
            edge_net_kill(c);
        }
    }
    net->cfg.stats->descriptors_free = edge_net_descriptors_free(net);
}

/* ---- life ---- */

static int
open_listener(const char *address, uint16_t port)
{
    char service[8];
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *info = NULL;
    if (getaddrinfo(address, service, &hints, &info)) {
        return -1;
    }
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Connections inherit the second. */
    bool ok = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) &&
              !setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) &&
              !bind(fd, info->ai_addr, info->ai_addrlen) && !listen(fd, BACKLOG);
    freeaddrinfo(info);
    if (!ok && fd >= 0) {
        (void)close(fd);
    }
    return ok ? fd : -1;
}

static uint16_t
port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t size = sizeof a;
    memset(&a, 0, sizeof a);
    (void)getsockname(fd, (struct sockaddr *)&a, &size);
    uint16_t port;
    memcpy(&port, (const uint8_t *)&a + offsetof(struct sockaddr_in, sin_port), sizeof port);
    return ntohs(port);
}

static bool
begin_listening(edge_net_t *net)
{
    net->fd = open_listener(net->cfg.address, net->cfg.port);
    if (net->fd < 0) {
        return false;
    }
    net->port = port_of(net->fd);
    net->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    net->fd_base = (size_t)(net->spare_fd >= 0 ? net->spare_fd : net->fd) + 1;
    net->listener = cq_alloc(sizeof *net->listener);
    int rc = uv_poll_init(cq_loop_uv(net->cfg.loop), net->listener, net->fd);
    CQ_ASSERT(rc == 0);
    net->listener->data = net;
    edge_net_listen_open(net);
    return true;
}

edge_net_t *
edge_net_new(const struct edge_net_cfg *cfg)
{
    const char *bad;
    size_t bad_n;
    edge_net_t *net = cq_alloc(sizeof *net);
    net->cfg = *cfg;
    net->fd = net->spare_fd = net->pace.run_delay = -1;
    net->fd_max = edge_net_raise_descriptors();
    net->addresses = edge_ip_count_new();
    net->proxies = edge_ip_list_new(cfg->proxy_from ? cfg->proxy_from : "", &bad, &bad_n);
    if (!net->proxies || !begin_listening(net)) {
        char text[128];
        CQ_LOG(ERROR, "EDGE-LISTEN-FAIL", "address=%s port=%u",
               cq_log_text(cfg->address, strlen(cfg->address), text, sizeof text), cfg->port);
        edge_net_destroy(&net);
        return NULL;
    }
    uint64_t tick_ms = cfg->request_timeout_ms / 8;
    tick_ms = tick_ms < TICK_MIN_MS ? TICK_MIN_MS : tick_ms > TICK_MAX_MS ? TICK_MAX_MS : tick_ms;
    net->timer = cq_timer_new(cfg->loop, on_tick, net);
    cq_timer_start(net->timer, tick_ms, tick_ms);
    edge_net_pace_begin(net);
    on_tick(net);
    return net;
}

static void
on_listener_closed(uv_handle_t *handle)
{
    free(handle);
}

void
edge_net_destroy(edge_net_t **p)
{
    edge_net_t *net = *p;
    *p = NULL;
    if (!net) {
        return;
    }
    for (int i = 0; i < EDGE_CONN_LIST_COUNT; i++) {
        while (net->lists[i].first) {
            edge_net_kill(net->lists[i].first);
        }
    }
    if (net->listener) {
        uv_close((uv_handle_t *)net->listener, on_listener_closed);
    }
    if (net->fd >= 0) {
        (void)close(net->fd);
    }
    if (net->spare_fd >= 0) {
        (void)close(net->spare_fd);
    }
    cq_timer_destroy(&net->timer);
    edge_net_pace_end(net);
    edge_ip_list_destroy(&net->proxies);
    edge_ip_count_destroy(&net->addresses);
    free(net);
}

uint16_t
edge_net_port(const edge_net_t *net)
{
    return net->port;
}
