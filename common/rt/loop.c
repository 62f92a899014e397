/* SPDX-License-Identifier: MPL-2.0
 * libuv with turns. A turn ends in the prepare phase: sockets of ZeroMQ that have input are read
 * (bounded), the hooks send what was queued, and only then is it asked whether a ZeroMQ socket
 * still has input.
 *
 * ZMQ_FD is edge-triggered, and every send or receive on the socket may swallow an edge. So the
 * last thing before sleeping is a look at ZMQ_EVENTS; if a socket is readable, an active idle
 * handle keeps the loop from sleeping. A look is a few system calls, so it is left out where it
 * would find nothing: a receive, or a look, that finds nothing has emptied the socket's mailbox,
 * and the next thing put into it makes the descriptor readable until it is taken out, by a send for
 * example.
 */
#include "common/rt/loop.h"

#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <czmq.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/pid.h"

enum {
    HOOKS_MAX = 8,
    WATCHES_MAX = 32,
    BREATH_EVENTS = 128, /* above what a busy turn brings, so as not to tear its batch */
    CLOSE_ROUNDS = 32
};

struct hook {
    cq_loop_fn *fn;
    void *ctx;
};

struct hooks {
    struct hook all[HOOKS_MAX]; /* fn NULL: taken out */
    size_t count;
};

struct cq_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_idle_t idle; /* active while a watched socket has input left */
    int signal_fd;
    uv_poll_t signals;
    size_t event_count; /* since the last turn, of those that cq_loop_breathe was told of */
    struct hooks on_turn;
    struct hooks on_flush;
    struct hook on_signal;
    struct hook on_hangup;
    bool minds_hangup;                 /* there was an on_hangup once */
    cq_zwatch_t *watches[WATCHES_MAX]; /* NULL: free place */
    size_t watch_count;                /* places in use, free ones in between included */
};

struct cq_timer {
    uv_timer_t uv;
    cq_loop_fn *fn;
    void *ctx;
};

struct cq_zwatch {
    uv_poll_t uv;
    cq_loop_t *loop;
    void *socket;
    cq_zwatch_fn *fn;
    void *ctx;
    size_t place;
    bool is_ready; /* the descriptor was readable, or input is left */
    bool is_paused;
    bool is_drained; /* the last thing done on the socket was to find it empty */
};

/* ---- watched ZeroMQ sockets ---- */

static bool
is_readable(void *socket)
{
    int events = 0;
    size_t n = sizeof events;
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) == 0 && (events & ZMQ_POLLIN);
}

static void
on_readable(uv_poll_t *uv, int status, int events)
{
    (void)status;
    (void)events;
    cq_zwatch_t *w = uv->data;
    w->is_ready = true;
}

static void
start_poll(cq_zwatch_t *w)
{
    int rc = uv_poll_start(&w->uv, UV_READABLE, on_readable);
    CQ_ASSERT(rc == 0);
    w->is_ready = true; /* the edge may be in the past */
}

static void
read_watches(cq_loop_t *loop)
{
    for (size_t i = 0; i < loop->watch_count; i++) {
        cq_zwatch_t *w = loop->watches[i];
        if (w && w->is_ready && !w->is_paused) {
            w->is_ready = false;
            bool has_more = w->fn(w->ctx);
            if (loop->watches[i] == w) { /* fn may have destroyed it */
                w->is_ready = has_more;
                w->is_drained = !has_more;
            }
        }
    }
}

/* Is input left on any socket? Nothing may be sent or received between this and the sleep. */
static bool
check_watches(cq_loop_t *loop)
{
    bool any = false;
    for (size_t i = 0; i < loop->watch_count; i++) {
        cq_zwatch_t *w = loop->watches[i];
        if (w && !w->is_paused) {
            w->is_ready = w->is_ready || (!w->is_drained && is_readable(w->socket));
            w->is_drained = !w->is_ready;
            any = any || w->is_ready;
        }
    }
    return any;
}

static void
on_idle(uv_idle_t *uv)
{
    (void)uv; /* being active is all it does */
}

static void
run_hooks(const struct hooks *hooks)
{
    for (size_t i = 0; i < hooks->count; i++) {
        struct hook h = hooks->all[i];
        if (h.fn) {
            h.fn(h.ctx);
        }
    }
}

static void
take_turn(cq_loop_t *loop)
{
    loop->event_count = 0;
    read_watches(loop);
    run_hooks(&loop->on_turn);
    run_hooks(&loop->on_flush);
}

void
cq_loop_breathe(cq_loop_t *loop)
{
    if (++loop->event_count < BREATH_EVENTS) {
        return;
    }
    /* Their descriptors may be readable without our having been told yet. */
    for (size_t i = 0; i < loop->watch_count; i++) {
        if (loop->watches[i]) {
            loop->watches[i]->is_ready = true;
        }
    }
    take_turn(loop);
}

static void
on_prepare(uv_prepare_t *uv)
{
    cq_loop_t *loop = uv->data;
    take_turn(loop);
    if (check_watches(loop)) {
        (void)uv_idle_start(&loop->idle, on_idle);
    } else {
        (void)uv_idle_stop(&loop->idle);
    }
}

static void
on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

cq_zwatch_t *
cq_zwatch_new(cq_loop_t *loop, void *zmq_socket, cq_zwatch_fn *fn, void *ctx)
{
    size_t place = 0;
    while (place < loop->watch_count && loop->watches[place]) {
        place++;
    }
    CQ_ASSERT(place < WATCHES_MAX);
    int fd = -1;
    size_t n = sizeof fd;
    int rc = zmq_getsockopt(zmq_socket, ZMQ_FD, &fd, &n);
    CQ_ASSERT(rc == 0);
    cq_zwatch_t *w = cq_alloc(sizeof *w);
    *w = (cq_zwatch_t){.loop = loop, .socket = zmq_socket, .fn = fn, .ctx = ctx, .place = place};
    rc = uv_poll_init(&loop->uv, &w->uv, fd);
    CQ_ASSERT(rc == 0);
    w->uv.data = w;
    loop->watches[place] = w;
    loop->watch_count = place == loop->watch_count ? place + 1 : loop->watch_count;
    start_poll(w);
    return w;
}

void
cq_zwatch_sent(cq_zwatch_t *w)
{
    w->is_drained = false;
}

void
cq_zwatch_pause(cq_zwatch_t *w, bool paused)
{
    if (w->is_paused == paused) {
        return;
    }
    w->is_paused = paused;
    if (paused) {
        (void)uv_poll_stop(&w->uv);
    } else {
        start_poll(w);
    }
}

void
cq_zwatch_destroy(cq_zwatch_t **w)
{
    if (*w) {
        cq_loop_t *loop = (*w)->loop;
        loop->watches[(*w)->place] = NULL;
        (void)uv_poll_stop(&(*w)->uv);
        uv_close((uv_handle_t *)&(*w)->uv, on_watch_closed);
        *w = NULL;
    }
}

/* ---- timers ---- */

static void
on_timer(uv_timer_t *uv)
{
    cq_timer_t *t = uv->data;
    t->fn(t->ctx);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

cq_timer_t *
cq_timer_new(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    cq_timer_t *t = cq_alloc(sizeof *t);
    t->fn = fn;
    t->ctx = ctx;
    (void)uv_timer_init(&loop->uv, &t->uv);
    t->uv.data = t;
    return t;
}

void
cq_timer_start(cq_timer_t *t, uint64_t first_ms, uint64_t repeat_ms)
{
    /* libuv counts from the start of the turn; a long turn must not make the timer early. */
    uv_update_time(t->uv.loop);
    (void)uv_timer_start(&t->uv, on_timer, first_ms, repeat_ms);
}

void
cq_timer_stop(cq_timer_t *t)
{
    (void)uv_timer_stop(&t->uv);
}

void
cq_timer_destroy(cq_timer_t **t)
{
    if (*t) {
        uv_close((uv_handle_t *)&(*t)->uv, on_timer_closed);
        *t = NULL;
    }
}

/* ---- the loop ---- */

/* Signals are read from a descriptor and interrupt nothing, in no thread: CZMQ asserts that some
 * calls succeed which a signal can interrupt, and takes an interrupted wait for an answer. */

static const int signal_numbers[] = {SIGINT, SIGTERM, SIGHUP};

static void
take_signal(cq_loop_t *loop, uint32_t number)
{
    bool is_hangup = number == SIGHUP && loop->minds_hangup;
    struct hook hook = is_hangup ? loop->on_hangup : loop->on_signal;
    if (hook.fn) {
        hook.fn(hook.ctx);
    } else if (!is_hangup) {
        uv_stop(&loop->uv);
    }
}

static void
on_signals(uv_poll_t *uv, int status, int events)
{
    (void)status;
    (void)events;
    cq_loop_t *loop = uv->data;
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        take_signal(loop, info.ssi_signo);
    }
}

static sigset_t
signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof signal_numbers / sizeof signal_numbers[0]; i++) {
        (void)sigaddset(&set, signal_numbers[i]);
    }
    return set;
}

bool
cq_loop_block_signals(bool blocked)
{
    const sigset_t set = signals();
    sigset_t before;
    (void)pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, &before);
    return sigismember(&before, signal_numbers[0]) == 1;
}

/* In this thread and those it starts from now on, for good. */
static void
watch_signals(cq_loop_t *loop)
{
    const sigset_t set = signals();
    (void)cq_loop_block_signals(true);
    loop->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CQ_ASSERT(loop->signal_fd >= 0);
    int rc = uv_poll_init(&loop->uv, &loop->signals, loop->signal_fd);
    CQ_ASSERT(rc == 0);
    loop->signals.data = loop;
    rc = uv_poll_start(&loop->signals, UV_READABLE, on_signals);
    CQ_ASSERT(rc == 0);
}

/* CZMQ would catch the signals itself and write its log to stdout. */
static void
tame_czmq(void)
{
    zsys_handler_set(NULL);
    zsys_init();
    zsys_set_logstream(NULL);
}

/* Buffers come and go with every turn, many of 64 KiB and more. malloc would give their pages back
 * to the kernel each time and have them faulted in again, which was half of what an upload cost. So
 * up to so much that is free is kept. */
static void
keep_memory(void)
{
    enum {
        MAPPED_FROM_BYTES = 32 * 1048576, /* the most that can be set */
        KEPT_BYTES = 64 * 1048576
    };
    /* NOLINTBEGIN(concurrency-mt-unsafe): at the start, before there are threads */
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    /* NOLINTEND(concurrency-mt-unsafe) */
}

/* A message wakes some twenty threads, one after the other. With the usual policy each interrupts
 * whoever is at work, who then has little to send; as SCHED_BATCH it waits for the end of the
 * other's time slice, or sleep, so turns are longer and carry more: a third less CPU per message
 * when the processors are busy. It makes no difference where one is idle. The threads of ZeroMQ
 * and of workers inherit it. */
static void
let_others_finish(void)
{
    const struct sched_param none = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
}

cq_loop_t *
cq_loop_new(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    cq_pid_remember();
    keep_memory();
    let_others_finish();
    tame_czmq();
    cq_loop_t *loop = cq_alloc(sizeof *loop);
    int rc = uv_loop_init(&loop->uv);
    CQ_ASSERT(rc == 0);
    (void)uv_prepare_init(&loop->uv, &loop->prepare);
    (void)uv_idle_init(&loop->uv, &loop->idle);
    loop->prepare.data = loop;
    (void)uv_prepare_start(&loop->prepare, on_prepare);
    watch_signals(loop);
    return loop;
}

void
cq_loop_destroy(cq_loop_t **loop)
{
    if (!*loop) {
        return;
    }
    cq_loop_t *self = *loop;
    *loop = NULL;
    uv_close((uv_handle_t *)&self->prepare, NULL);
    uv_close((uv_handle_t *)&self->idle, NULL);
    uv_close((uv_handle_t *)&self->signals, NULL);
    /* A library may need a few rounds to close what it has; one that forgot a handle must not hang
     * the exit. */
    for (int i = 0; i < CLOSE_ROUNDS && uv_run(&self->uv, UV_RUN_NOWAIT); i++) {
    }
    (void)close(self->signal_fd);
    if (uv_loop_close(&self->uv) == 0) {
        free(self);
    } else {
        CQ_LOG(WARN, "LOOP-CLOSE-BUSY", "reason=\"a handle is still open\"");
    }
}

void
cq_loop_run(cq_loop_t *loop)
{
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void
cq_loop_stop(cq_loop_t *loop)
{
    uv_stop(&loop->uv);
}

void
cq_loop_on_signal(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    loop->on_signal = (struct hook){fn, ctx};
}

void
cq_loop_on_hangup(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    loop->on_hangup = (struct hook){fn, ctx};
    loop->minds_hangup = true;
}

static void
add_hook(struct hooks *hooks, cq_loop_fn *fn, void *ctx)
{
    size_t i = 0;
    while (i < hooks->count && hooks->all[i].fn) {
        i++;
    }
    CQ_ASSERT(i < HOOKS_MAX);
    hooks->all[i] = (struct hook){fn, ctx};
    hooks->count = i == hooks->count ? i + 1 : hooks->count;
}

static void
remove_hook(struct hooks *hooks, cq_loop_fn *fn, const void *ctx)
{
    for (size_t i = 0; i < hooks->count; i++) {
        if (hooks->all[i].fn == fn && hooks->all[i].ctx == ctx) {
            hooks->all[i].fn = NULL;
        }
    }
}

void
cq_loop_on_turn(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    add_hook(&loop->on_turn, fn, ctx);
}

void
cq_loop_on_flush(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    add_hook(&loop->on_flush, fn, ctx);
}

void
cq_loop_off_turn(cq_loop_t *loop, cq_loop_fn *fn, void *ctx)
{
    remove_hook(&loop->on_turn, fn, ctx);
    remove_hook(&loop->on_flush, fn, ctx);
}

struct uv_loop_s *
cq_loop_uv(cq_loop_t *loop)
{
    return &loop->uv;
}

/* ---- clocks ---- */

static uint64_t
read_clock_us(clockid_t id)
{
    struct timespec t;
    (void)clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t
cq_now_mono_ms(void)
{
    return read_clock_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t
cq_now_mono_us(void)
{
    return read_clock_us(CLOCK_MONOTONIC);
}

uint64_t
cq_now_unix_ms(void)
{
    return read_clock_us(CLOCK_REALTIME) / 1000;
}
