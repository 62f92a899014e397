/* SPDX-License-Identifier: MPL-2.0
 * Reading and writing of connections. Written directly: a write costs one system call and no
 * wake-up; only what the socket does not take is copied and waits for it. One buffer for all reads:
 * an idle connection keeps neither.
 */
#include "edge/net_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

enum {
    AGAIN = EDGE_TLS_AGAIN,
    FAILED = EDGE_TLS_FAILED,
    ENDING_MS = 2000, /* for the peer's Close or its end of the connection */
    OUT_ROOM_MIN = 256,
    SHAKE_PARTS = 4, /* TLS keeps nobody but us busy: so much less of it is counted */
};

/* ---- lists ---- */

static void
count_waiting(edge_net_t *net, enum edge_conn_list list, int change)
{
    if (list == EDGE_CONN_WAITING) {
        net->waiting += (size_t)change;
        net->cfg.stats->waiting = net->waiting;
    }
}

static void
unlink_conn(edge_conn_t *c)
{
    edge_net_t *net = c->net;
    count_waiting(net, (enum edge_conn_list)c->list, -1);
    *(c->prev ? &c->prev->next : &net->lists[c->list].first) = c->next;
    *(c->next ? &c->next->prev : &net->lists[c->list].last) = c->prev;
    c->prev = c->next = NULL;
}

static void
link_conn(edge_conn_t *c, enum edge_conn_list list)
{
    edge_net_t *net = c->net;
    c->list = (uint8_t)list;
    c->prev = net->lists[list].last;
    *(c->prev ? &c->prev->next : &net->lists[list].first) = c;
    net->lists[list].last = c;
    count_waiting(net, list, 1);
    const uint64_t waits_ms[EDGE_CONN_LIST_COUNT] = {
        [EDGE_CONN_WAITING] = net->cfg.request_timeout_ms,
        [EDGE_CONN_TRANSFER] = net->cfg.transfer_timeout_ms,
        [EDGE_CONN_ENDING] = ENDING_MS,
    };
    if (list != EDGE_CONN_OPEN) {
        c->due_mono_ms = cq_now_mono_ms() + waits_ms[list];
    }
}

void
edge_net_conn_move(edge_conn_t *c, enum edge_conn_list list)
{
    unlink_conn(c);
    link_conn(c, list);
}

/* ---- input that waits ---- */

struct edge_conn_in *
edge_net_conn_in(edge_conn_t *c)
{
    if (!c->in) {
        c->in = cq_alloc(sizeof *c->in);
    }
    return c->in;
}

static const struct edge_net_pool *
pool_of(const edge_conn_t *c)
{
    return c->is_settled ? &c->net->cfg.settled : &c->net->cfg.newcomers;
}

static void
count_in(edge_conn_t *c, size_t now)
{
    const struct edge_net_pool *pool = pool_of(c);
    if (pool->bytes) {
        *pool->bytes += now - c->in->counted;
        c->in->counted = now;
    }
}

bool
edge_net_conn_in_count(edge_conn_t *c)
{
    const struct edge_net_pool *pool = pool_of(c);
    count_in(c, c->in->bytes.room);
    return !pool->bytes || *pool->bytes <= pool->max_bytes ||
           c->in->bytes.size <= EDGE_NET_PART_BYTES;
}

void
edge_net_conn_in_drop(edge_conn_t *c)
{
    if (c->in) {
        count_in(c, 0);
        cq_buf_free(&c->in->bytes);
        free(c->in);
        c->in = NULL;
    }
}

void
edge_net_settle(edge_conn_t *c)
{
    size_t counted = c->in ? c->in->counted : 0;
    if (counted) {
        count_in(c, 0);
    }
    c->is_settled = true;
    if (counted) {
        count_in(c, counted);
    }
}

/* ---- life and end ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

edge_conn_t *
edge_net_conn_new(edge_net_t *net, int fd)
{
    edge_conn_t *c = cq_alloc(sizeof *c);
    if (uv_poll_init(cq_loop_uv(net->cfg.loop), &c->poll, fd)) {
        free(c);
        return NULL;
    }
    c->net = net;
    c->fd = fd;
    c->state = EDGE_CONN_PROXY;
    link_conn(c, EDGE_CONN_WAITING);
    net->count++;
    net->cfg.stats->connections++;
    edge_net_conn_watch(c);
    return c;
}

static void
tell_gone(edge_conn_t *c)
{
    if (c->user) {
        if (c->net->cfg.calls->on_gone) {
            c->net->cfg.calls->on_gone(c->net->cfg.ctx, c);
        }
        c->user = NULL;
    }
}

static void
on_handle_closed(uv_handle_t *handle)
{
    free(handle);
}

void
edge_net_kill(edge_conn_t *c)
{
    if (c->state == EDGE_CONN_GONE) {
        return;
    }
    edge_net_conn_in_drop(c);
    c->state = EDGE_CONN_GONE;
    tell_gone(c);
    edge_net_body_over(c);
    edge_tls_end(c->ssl);
    c->ssl = NULL;
    free(c->out);
    c->out = NULL;
    edge_net_listen_forget(c);
    unlink_conn(c);
    edge_net_pace_forget(c);
    c->net->count--;
    c->net->cfg.stats->connections--;
    uv_close((uv_handle_t *)&c->poll, on_handle_closed);
    (void)close(c->fd);
}

void
edge_net_conn_finish(edge_conn_t *c)
{
    if (c->state == EDGE_CONN_LINGER || c->state == EDGE_CONN_GONE) {
        return;
    }
    if (c->out) {
        c->is_finishing = true;
        edge_net_conn_watch(c);
        return;
    }
    if (c->ssl) {
        edge_tls_say_end(c->ssl);
    }
    (void)shutdown(c->fd, SHUT_WR);
    edge_net_conn_in_drop(c);
    c->state = EDGE_CONN_LINGER;
    c->is_paused = false;
    edge_net_conn_move(c, EDGE_CONN_ENDING);
    tell_gone(c);
    edge_net_conn_watch(c);
}

void
edge_net_conn_set_state(edge_conn_t *c, enum edge_conn_state state)
{
    c->state = (uint8_t)state;
    edge_net_conn_watch(c);
}

/* ---- what to wait for ---- */

static bool
may_read(const edge_conn_t *c)
{
    return !c->is_paused && c->state != EDGE_CONN_REPLY && c->state != EDGE_CONN_GONE &&
           edge_net_body_room(c) > 0;
}

void
edge_net_conn_watch(edge_conn_t *c)
{
    if (c->state == EDGE_CONN_GONE || c->is_later) {
        return;
    }
    int events = 0;
    if (may_read(c)) {
        events |= UV_READABLE;
        /* Input that is in our hands already: a socket that can be written to wakes us at once. */
        events |= c->wants_read ? UV_WRITABLE : 0;
    }
    events |= c->out || c->wants_write || c->wants_room ? UV_WRITABLE : 0;
    if (events == c->events) {
        return;
    }
    c->events = (uint8_t)events;
    if (events) {
        (void)uv_poll_start(&c->poll, events, on_poll);
    } else {
        (void)uv_poll_stop(&c->poll);
    }
}

void
edge_net_pause(edge_conn_t *c, bool paused)
{
    if (c->state == EDGE_CONN_WS) {
        c->is_paused = paused;
        edge_net_conn_watch(c);
    }
}

/* ---- writing ---- */

/* Bytes taken, AGAIN, or FAILED. */
static ssize_t
write_some(edge_conn_t *c, const uint8_t *p, size_t n)
{
    ssize_t rc = c->ssl ? edge_tls_write(c->ssl, p, n) : send(c->fd, p, n, MSG_NOSIGNAL);
    if (rc >= 0 && c->exchange) {
        c->exchange->moved += (uint64_t)rc;
    }
    if (rc >= 0 || c->ssl) {
        return rc;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? AGAIN : FAILED;
}

static void
keep(edge_conn_t *c, const uint8_t *p, size_t n)
{
    struct edge_conn_out *out = c->out;
    size_t size = out ? out->size - out->at : 0;
    if (!out || out->size + n > out->room) {
        size_t room = size + n < OUT_ROOM_MIN ? OUT_ROOM_MIN : size + n;
        struct edge_conn_out *grown = malloc(sizeof *grown + room);
        CQ_ASSERT(grown);
        *grown = (struct edge_conn_out){.size = size, .room = room};
        if (size) {
            memcpy(grown->data, out->data + out->at, size);
        }
        free(out);
        c->out = out = grown;
    }
    memcpy(out->data + out->size, p, n);
    out->size += n;
}

bool
edge_net_conn_write(edge_conn_t *c, const void *p, size_t n)
{
    const uint8_t *at = p;
    if (c->state == EDGE_CONN_GONE || c->state == EDGE_CONN_LINGER) {
        return false;
    }
    ssize_t done = c->out ? AGAIN : write_some(c, at, n);
    if (done == FAILED) {
        return false;
    }
    size_t taken = done > 0 ? (size_t)done : 0;
    if (taken < n) {
        c->net->cfg.stats->partial_writes_total += !c->out;
        keep(c, at + taken, n - taken);
        edge_net_conn_watch(c);
    }
    return true;
}

ssize_t
edge_net_conn_write_file(edge_conn_t *c, int fd, uint64_t at, size_t n)
{
    off_t offset = (off_t)at;
    size_t done = 0;
    ssize_t rc = 1;
    while (done < n && rc > 0) {
        rc = sendfile(c->fd, fd, &offset, n - done);
        done += rc > 0 ? (size_t)rc : 0;
    }
    bool is_full = rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    if (c->exchange) {
        c->exchange->moved += done;
    }
    if (done < n && !is_full) {
        return rc == 0 || errno == EIO ? -CQ_E_IO : -CQ_E_UNAVAILABLE;
    }
    c->wants_room = done < n;
    edge_net_conn_watch(c);
    return (ssize_t)done;
}

bool
edge_net_is_blocked(const edge_conn_t *c)
{
    return c->out || c->wants_room;
}

static void
flush(edge_conn_t *c)
{
    struct edge_conn_out *out = c->out;
    ssize_t done = write_some(c, out->data + out->at, out->size - out->at);
    if (done == FAILED) {
        edge_net_kill(c);
        return;
    }
    out->at += done > 0 ? (size_t)done : 0;
    if (out->at < out->size) {
        return;
    }
    free(out);
    c->out = NULL;
    edge_net_conn_watch(c);
    if (c->is_finishing) {
        edge_net_conn_finish(c);
    } else if (c->state == EDGE_CONN_REPLY) {
        edge_net_http_replied(c);
    } else if (c->state == EDGE_CONN_WS && c->net->cfg.calls->on_drained) {
        c->net->cfg.calls->on_drained(c->net->cfg.ctx, c);
    }
}

/* ---- reading ---- */

/* Bytes read, 0 at the end, AGAIN or FAILED. */
static ssize_t
read_some(edge_conn_t *c, uint8_t *p, size_t n)
{
    if (c->ssl) {
        return edge_tls_read(c->ssl, p, n);
    }
    ssize_t rc = recv(c->fd, p, n, 0);
    if (rc >= 0) {
        return rc;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? AGAIN : FAILED;
}

static void
refuse_proxy(edge_conn_t *c)
{
    char ip[EDGE_IP_TEXT_MAX];
    c->net->cfg.stats->refused_proxy_total++;
    CQ_LOG(WARN, "EDGE-PROXY-REFUSED", "from=%s reason=\"no valid PROXY header\"",
           edge_ip_text(&c->ip, ip));
    edge_net_kill(c);
}

/* The PROXY header, not one byte more: what follows may be TLS. */
static void
read_proxy(edge_conn_t *c)
{
    cq_buf_t *bytes = &edge_net_conn_in(c)->bytes;
    struct edge_proxy proxy;
    int need;
    while ((need = edge_proxy_parse(bytes->data ? bytes->data : (const uint8_t *)"", bytes->size,
                                    &proxy)) > 0) {
        ssize_t n = recv(c->fd, cq_buf_reserve(bytes, (size_t)need), (size_t)need, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            edge_net_kill(c);
            return;
        }
        bytes->size += (size_t)n;
    }
    if (need < 0) {
        refuse_proxy(c);
        return;
    }
    edge_net_conn_in_drop(c);
    if (!proxy.is_local) {
        c->ip = proxy.from;
    }
    if (edge_net_listen_admit(c)) {
        edge_net_conn_start(c);
    }
}

void
edge_net_conn_start(edge_conn_t *c)
{
    if (c->net->cfg.tls) {
        c->ssl = edge_tls_begin(c->net->cfg.tls, c->fd);
        if (!c->ssl) {
            edge_net_kill(c);
            return;
        }
    }
    edge_net_conn_set_state(c, c->ssl ? EDGE_CONN_SHAKING : EDGE_CONN_HEAD);
}

static void
shake(edge_conn_t *c)
{
    bool wants_write = false;
    int rc = edge_tls_shake(c->ssl, &wants_write);
    if (rc == FAILED) {
        c->net->cfg.stats->refused_tls_total++;
        edge_net_kill(c);
        return;
    }
    c->wants_write = rc == AGAIN && wants_write;
    c->wants_read = rc == 1; /* the first request may have come along */
    edge_net_conn_set_state(c, rc == 1 ? EDGE_CONN_HEAD : EDGE_CONN_SHAKING);
}

static void
take(edge_conn_t *c, uint8_t *p, size_t n)
{
    if (c->state == EDGE_CONN_HEAD) {
        edge_net_http_take(c, p, n);
    } else if (c->state == EDGE_CONN_BODY) {
        edge_net_body_take(c, p, n);
    } else if (c->state == EDGE_CONN_WS) {
        edge_net_ws_take(c, p, n);
    }
}

/* The peer has ended it. When thousands do so at once, the others get their turns in between. */
static void
end(edge_conn_t *c)
{
    c->is_over = true;
    if (edge_net_pace_ask(c)) {
        uint64_t since_us = cq_now_mono_us();
        edge_net_kill(c);
        edge_net_spent(c->net, since_us);
    }
}

/* One piece from the socket; with TLS, also what came with it in the same record. */
static void
read_input(edge_conn_t *c)
{
    c->wants_read = false;
    do {
        size_t room = edge_net_body_room(c);
        ssize_t n = (ssize_t)edge_net_body_early(c, room);
        n = n ? n : read_some(c, c->net->buffer, room);
        if (n == AGAIN) {
            break;
        }
        if (n <= 0) {
            end(c);
            return;
        }
        take(c, c->net->buffer, (size_t)n);
        if (c->state == EDGE_CONN_GONE) {
            return;
        }
        c->wants_read = edge_net_body_has_early(c) || (c->ssl && edge_tls_has_input(c->ssl));
    } while (c->wants_read && may_read(c));
    edge_net_conn_watch(c);
}

static void
read_any(edge_conn_t *c)
{
    if (c->is_over) {
        edge_net_kill(c);
    } else if (c->state == EDGE_CONN_PROXY) {
        read_proxy(c);
    } else if (c->state == EDGE_CONN_SHAKING) {
        shake(c);
    } else if (may_read(c)) {
        read_input(c);
    }
    edge_net_conn_watch(c);
}

void
edge_net_conn_serve(edge_conn_t *c)
{
    edge_net_t *net = c->net;
    uint64_t since_us = cq_now_mono_us();
    bool is_shaking = c->state == EDGE_CONN_SHAKING;
    read_any(c);
    if (is_shaking) {
        uint64_t now_us = cq_now_mono_us();
        since_us = now_us - (now_us - since_us) / SHAKE_PARTS;
    }
    edge_net_spent(net, since_us);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    edge_conn_t *c = (edge_conn_t *)poll;
    cq_loop_breathe(c->net->cfg.loop);
    if (c->state == EDGE_CONN_GONE || c->is_later || !c->events) {
        return; /* meanwhile */
    }
    if (status < 0) {
        edge_net_kill(c);
        return;
    }
    if (events & UV_WRITABLE && c->out) {
        flush(c);
    } else if (events & UV_WRITABLE && c->wants_room) {
        c->wants_room = false;
        (void)edge_net_body_continues(c);
        edge_net_conn_watch(c); /* nothing to those that are gone */
    }
    bool has_input = events & UV_READABLE || c->wants_read || c->wants_write;
    if (!has_input || !may_read(c)) {
        return;
    }
    if (c->is_settled) {
        read_any(c);
    } else if (edge_net_pace_ask(c)) {
        edge_net_conn_serve(c);
    }
}

void
edge_net_set_user(edge_conn_t *c, void *user)
{
    c->user = user;
}

void *
edge_net_user(const edge_conn_t *c)
{
    return c->user;
}

const struct edge_ip *
edge_net_ip(const edge_conn_t *c)
{
    return &c->ip;
}
