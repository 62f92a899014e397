/* SPDX-License-Identifier: MPL-2.0
 * What newcomers may have of the loop's time. A credit in microseconds grows with the clock, as
 * fast as their share says, up to a bound; whatever is done for them is taken from it. Without
 * credit they wait in one line, in the order in which they had something to say, and who wants to
 * connect waits in the listener's queue. The share is smaller while this thread has to wait for a
 * processor: what newcomers make us do, here and in the other services, then delays messages. With
 * TLS it stays: handshakes take the most of it, for which no other service works.
 */
#include <unistd.h>

#include "common/rt/log.h"
#include "common/rt/rundelay.h"

#include "edge/net_conn.h"

enum {
    CREDIT_US = 8000,  /* so long credit gathers */
    GRAIN_US = 1600,   /* for the credit of so long it is worth waking up */
    ALL = 100,         /* percent */
    LOOK_US = 20000,   /* so often processors are looked at: some ticks of the kernel's */
    FULL_PERCENT = 12, /* of the time, this thread waits for a processor: they are full */
    NS_PER_US = 1000
};

/* Down at once, since messages wait meanwhile, and up again with the time, to find out what is
 * free.
 */
unsigned
edge_net_pace_next_share(unsigned share,
                         unsigned least,
                         unsigned most,
                         uint64_t elapsed_us,
                         uint64_t waited_us)
{
    if (waited_us * ALL >= elapsed_us * FULL_PERCENT) {
        unsigned less = share / 2;
        return less > least ? less : least;
    }
    uint64_t more = share + elapsed_us / LOOK_US;
    return more < most ? (unsigned)more : most;
}

void
edge_net_pace_look(edge_net_t *net)
{
    uint64_t before_ns = net->pace.delay_ns, now_us = cq_now_mono_us();
    uint64_t elapsed_us = now_us - net->pace.looked_us;
    if (elapsed_us < LOOK_US || net->pace.run_delay < 0 ||
        cq_run_delay_ns(net->pace.run_delay, &net->pace.delay_ns)) {
        return;
    }
    net->pace.looked_us = now_us;
    net->pace.share = edge_net_pace_next_share(net->pace.share, net->cfg.newcomer_share_busy,
                                               net->cfg.newcomer_share, elapsed_us,
                                               (net->pace.delay_ns - before_ns) / NS_PER_US);
    net->cfg.stats->newcomer_share = net->pace.share;
}

static void
refill(edge_net_t *net)
{
    edge_net_pace_look(net);
    uint64_t now_us = cq_now_mono_us();
    int64_t more = (int64_t)((now_us - net->pace.at_us) * net->pace.share / ALL);
    if (more) {
        net->pace.credit_us += more;
        net->pace.at_us = now_us;
    }
    int64_t most = (int64_t)CREDIT_US * net->pace.share / ALL;
    net->pace.credit_us = net->pace.credit_us < most ? net->pace.credit_us : most;
}

bool
edge_net_has_time(edge_net_t *net)
{
    if (net->pace.credit_us <= 0) {
        refill(net);
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
        int64_t share = net->pace.share;
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

static void
on_timer(void *ctx)
{
    edge_net_t *net = ctx;
    net->pace.is_planned = false;
    refill(net);
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

/* The share stays as it is where the kernel does not tell. */
static void
begin_looking(edge_net_t *net)
{
    net->pace.run_delay = cq_run_delay_open();
    if (net->pace.run_delay < 0 || cq_run_delay_ns(net->pace.run_delay, &net->pace.delay_ns)) {
        CQ_LOG(WARN, "EDGE-NO-SCHEDSTAT",
               "newcomer-share-busy-percent has no effect: the kernel does not tell how long a "
               "thread waits (/proc/thread-self/schedstat)");
    }
}

void
edge_net_pace_begin(edge_net_t *net)
{
    unsigned most = net->cfg.newcomer_share, least = net->cfg.newcomer_share_busy;
    net->pace.timer = cq_timer_new(net->cfg.loop, on_timer, net);
    net->pace.at_us = net->pace.looked_us = cq_now_mono_us();
    net->pace.share = most;
    net->cfg.stats->newcomer_share = most;
    if (least && least < most && !net->cfg.tls) {
        begin_looking(net);
    }
}

void
edge_net_pace_end(edge_net_t *net)
{
    cq_timer_destroy(&net->pace.timer);
    if (net->pace.run_delay >= 0) {
        (void)close(net->pace.run_delay);
    }
}
