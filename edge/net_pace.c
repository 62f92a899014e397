/* SPDX-License-Identifier: MPL-2.0
 * What newcomers may have of the loop's time. A credit in microseconds grows with the clock, as
 * fast as their share says, up to a bound; whatever is done for them is taken from it. Without
 * credit they wait in one line, in the order in which they had something to say, and who wants to
 * connect waits in the listener's queue.
 */
#include "edge/net_conn.h"

enum {
    CREDIT_US = 8000, /* so long credit gathers */
    GRAIN_US = 1600,  /* for the credit of so long it is worth waking up */
    ALL = 100         /* percent */
};

void
edge_net_pace_refill(edge_net_t *net)
{
    uint64_t now_us = cq_now_mono_us();
    int64_t more = (int64_t)((now_us - net->pace.at_us) * net->cfg.newcomer_share / ALL);
    if (more) {
        net->pace.credit_us += more;
        net->pace.at_us = now_us;
    }
    int64_t most = (int64_t)CREDIT_US * net->cfg.newcomer_share / ALL;
    net->pace.credit_us = net->pace.credit_us < most ? net->pace.credit_us : most;
}

bool
edge_net_has_time(edge_net_t *net)
{
    if (net->pace.credit_us <= 0) {
        edge_net_pace_refill(net);
    }
    return net->pace.credit_us > 0;
}

void
edge_net_spent(edge_net_t *net, uint64_t since_us)
{
    net->pace.credit_us -= (int64_t)(cq_now_mono_us() - since_us);
}

static void
plan(edge_net_t *net)
{
    if (!net->pace.is_planned) {
        int64_t share = net->cfg.newcomer_share;
        int64_t wait_us = GRAIN_US - net->pace.credit_us * ALL / share;
        wait_us = wait_us > 0 ? wait_us : 0;
        net->pace.is_planned = true;
        cq_timer_start(net->pace.timer, (uint64_t)(wait_us + 999) / 1000, 0);
    }
}

static void
put_off(edge_conn_t *c)
{
    edge_net_t *net = c->net;
    net->cfg.stats->put_off_total++;
    c->is_later = true;
    c->later_prev = net->pace.last;
    *(c->later_prev ? &c->later_prev->later_next : &net->pace.first) = c;
    net->pace.last = c;
    c->events = 0;
    (void)uv_poll_stop(&c->poll);
    plan(net);
}

void
edge_net_pace_forget(edge_conn_t *c)
{
    edge_net_t *net = c->net;
    if (c->is_later) {
        *(c->later_prev ? &c->later_prev->later_next : &net->pace.first) = c->later_next;
        *(c->later_next ? &c->later_next->later_prev : &net->pace.last) = c->later_prev;
        c->later_prev = c->later_next = NULL;
        c->is_later = false;
    }
}

bool
edge_net_pace_ask(edge_conn_t *c)
{
    if (c->is_later) {
        return false;
    }
    if (!c->net->pace.first && edge_net_has_time(c->net)) {
        return true;
    }
    put_off(c);
    return false;
}

bool
edge_net_pace_may_accept(edge_net_t *net)
{
    if (!net->pace.first && edge_net_has_time(net)) {
        return true;
    }
    net->pace.is_closed = true;
    (void)uv_poll_stop(net->listener);
    plan(net);
    return false;
}

void
edge_net_pace_on_timer(void *ctx)
{
    edge_net_t *net = ctx;
    net->pace.is_planned = false;
    edge_net_pace_refill(net);
    while (net->pace.first && edge_net_has_time(net)) {
        edge_conn_t *c = net->pace.first;
        edge_net_pace_forget(c);
        edge_net_conn_serve(c);
    }
    if (net->pace.first) {
        plan(net);
    } else if (net->pace.is_closed) {
        net->pace.is_closed = false;
        edge_net_listen_open(net);
    }
}
