/* SPDX-License-Identifier: MPL-2.0
 * Bodies in parts. Reading is by credit: nothing is taken off the socket that was not wanted, so a
 * user that waits for something else slows its peer down and keeps nothing. Writing waits for the
 * socket between the parts.
 */
#include <stdlib.h>

#include "common/rt/check.h"

#include "edge/net_conn.h"

void
edge_net_exchange_begin(edge_conn_t *c,
                        const struct edge_head *head,
                        uint64_t body_n,
                        const struct edge_net_exchange *calls,
                        void *user)
{
    CQ_ASSERT(!c->exchange && c->state == EDGE_CONN_REPLY);
    struct edge_conn_exchange *x = cq_alloc(sizeof *x);
    *x = (struct edge_conn_exchange){.calls = calls, .user = user, .body_left = body_n};
    struct cq_view rest = c->net->rest;
    size_t early = rest.n < body_n ? rest.n : (size_t)body_n;
    cq_buf_append(&x->early, rest.p, early);
    x->is_expecting = !early && edge_head_lists(head, "expect", "100-continue");
    c->is_last_reply =
        head->minor == 0 || rest.n > early || edge_head_lists(head, "connection", "close");
    c->exchange = x;
    edge_net_conn_move(c, EDGE_CONN_TRANSFER);
}

void
edge_net_body_over(edge_conn_t *c)
{
    struct edge_conn_exchange *x = c->exchange;
    if (!x) {
        return;
    }
    c->exchange = NULL;
    x->calls->on_over(x->user);
    cq_buf_free(&x->early);
    free(x);
}

bool
edge_net_body_may_go_on(edge_conn_t *c)
{
    struct edge_conn_exchange *x = c->exchange;
    if (!x) {
        return false; /* its answer is on its way out, and nobody takes it */
    }
    bool is_our_turn = c->state == EDGE_CONN_BODY ? !x->wanted : !edge_net_is_blocked(c);
    bool ok = is_our_turn || x->moved >= c->net->cfg.transfer_min_bytes;
    x->moved = 0;
    if (ok) {
        edge_net_conn_move(c, EDGE_CONN_TRANSFER);
    }
    return ok;
}

/* ---- the request's ---- */

void
edge_net_body_want(edge_conn_t *c, size_t n)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct edge_conn_exchange *x = c->exchange;
    if (!x || !x->body_left || x->is_streaming) {
        return;
    }
    edge_net_settle(c); /* what it sends is wanted */
    x->wanted += n;
    if (x->is_expecting) {
        x->is_expecting = false;
        if (!edge_net_conn_write(c, go_on, sizeof go_on - 1)) {
            edge_net_kill(c);
            return;
        }
    }
    c->wants_read = c->wants_read || edge_net_body_has_early(c);
    edge_net_conn_set_state(c, EDGE_CONN_BODY);
}

size_t
edge_net_body_room(const edge_conn_t *c)
{
    size_t room = sizeof c->net->buffer;
    if (c->state == EDGE_CONN_BODY) {
        const struct edge_conn_exchange *x = c->exchange;
        room = x->wanted < room ? x->wanted : room;
        room = x->body_left < room ? (size_t)x->body_left : room;
    }
    return room;
}

bool
edge_net_body_has_early(const edge_conn_t *c)
{
    return c->exchange && c->exchange->early_at < c->exchange->early.size;
}

size_t
edge_net_body_early(edge_conn_t *c, size_t room)
{
    if (c->state != EDGE_CONN_BODY || !edge_net_body_has_early(c)) {
        return 0;
    }
    struct edge_conn_exchange *x = c->exchange;
    size_t left = x->early.size - x->early_at;
    size_t n = left < room ? left : room;
    memcpy(c->net->buffer, x->early.data + x->early_at, n);
    x->early_at += n;
    if (n == left) {
        cq_buf_free(&x->early);
        x->early_at = 0;
    }
    return n;
}

void
edge_net_body_take(edge_conn_t *c, const uint8_t *p, size_t n)
{
    struct edge_conn_exchange *x = c->exchange;
    x->moved += n;
    x->wanted -= n;
    x->body_left -= n;
    bool is_end = !x->body_left;
    if (is_end) {
        edge_net_conn_set_state(c, EDGE_CONN_REPLY);
    }
    x->calls->on_body(x->user, p, n);
    if (is_end && c->exchange) {
        x->calls->on_body_end(x->user);
    }
}

/* ---- the answer's ---- */

void
edge_net_stream_begin(edge_conn_t *c, const struct edge_net_reply *r, uint64_t n)
{
    struct edge_conn_exchange *x = c->exchange;
    cq_buf_t out = {0};
    if (!x) {
        return;
    }
    x->is_streaming = true;
    x->reply_left = n;
    bool ok = edge_net_http_head(c, r, n, &out) && edge_net_conn_write(c, out.data, out.size);
    cq_buf_free(&out);
    if (!ok) {
        edge_net_kill(c);
    }
}

void
edge_net_stream_write(edge_conn_t *c, const void *p, size_t n)
{
    struct edge_conn_exchange *x = c->exchange;
    if (!x) {
        return;
    }
    CQ_ASSERT(n <= x->reply_left);
    x->reply_left -= n;
    if (!edge_net_conn_write(c, p, n)) {
        edge_net_kill(c);
    } else if (!c->out && !x->reply_left) {
        edge_net_http_replied(c);
    }
}

bool
edge_net_stream_takes_files(const edge_conn_t *c)
{
    return !c->ssl;
}

ssize_t
edge_net_stream_file(edge_conn_t *c, int fd, uint64_t at, size_t n)
{
    struct edge_conn_exchange *x = c->exchange;
    if (!x) {
        return -CQ_E_IO; /* an answer that is over takes nothing */
    }
    if (edge_net_is_blocked(c)) {
        return 0;
    }
    CQ_ASSERT(n <= x->reply_left);
    ssize_t done = edge_net_conn_write_file(c, fd, at, n);
    if (done == -CQ_E_IO) {
        return done;
    }
    if (done < 0) {
        edge_net_kill(c);
        return 0;
    }
    x->reply_left -= (uint64_t)done;
    if (!x->reply_left) {
        edge_net_http_replied(c);
    }
    return done;
}

bool
edge_net_body_continues(edge_conn_t *c)
{
    struct edge_conn_exchange *x = c->exchange;
    if (!x || !x->reply_left) {
        return false;
    }
    x->calls->on_room(x->user);
    return true;
}
