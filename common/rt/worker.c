/* SPDX-License-Identifier: MPL-2.0
 * Each thread has a PUSH/PULL pair towards it; all share one pair back. Jobs wait in a ring on the
 * loop's side and a thread is given a job only when it is free, so a long job never holds up others
 * while another thread idles; a single thread is given all there are, so that it need not wait for
 * the loop between two.
 *
 * An actor's pipe may drop $TERM when it is full, so it carries nothing else: a thread is stopped
 * by an empty job behind its last one, answers with an empty job, and only then its actor is
 * destroyed.
 */
#include "common/rt/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <czmq.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#if defined(__SANITIZE_THREAD__)
#    define CQ_UNDER_TSAN 1
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define CQ_UNDER_TSAN 1
#    endif
#endif
#ifdef CQ_UNDER_TSAN
/* libzmq is not instrumented: say what a message through it orders. */
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#    define HANDOFF_SEND(p)    __tsan_release(p)
#    define HANDOFF_RECEIVE(p) __tsan_acquire(p)
#else
#    define HANDOFF_SEND(p)    (void)(p)
#    define HANDOFF_RECEIVE(p) (void)(p)
#endif

enum {
    ENDPOINT_MAX = 64,
    THREAD_NAME_MAX = 16,
    DONE_PER_TURN = 256,
    THREADS_MAX = 64
};

/* What crosses: copied. */
struct parcel {
    void *job; /* NULL: stop, and the answer to it */
    uint32_t thread;
    uint32_t is_question; /* not a job that is done, but something of cq_worker_ask */
};

/* A worker thread's own way back to the loop. */
static _Thread_local zsock_t *way_back;

struct thread {
    cq_worker_t *worker;
    zactor_t *actor;
    zsock_t *push;
    unsigned busy; /* jobs it has */
    uint32_t index;
    bool is_up; /* written by the thread before it signals */
};

struct cq_worker {
    struct cq_worker_cfg cfg;
    char name[THREAD_NAME_MAX];
    char endpoint[ENDPOINT_MAX];
    zsock_t *pull;
    cq_zwatch_t *watch;
    struct thread *threads;
    unsigned thread_count; /* started ones */
    unsigned credit;       /* jobs a thread may have */
    void **ring;
    unsigned ring_first;
    unsigned ring_count;
    unsigned pending; /* in the ring or with a thread */
};

static bool
send_parcel(zsock_t *sock, struct parcel p)
{
    int rc;
    if (p.job) {
        HANDOFF_SEND(p.job);
    }
    do {
        rc = zmq_send(zsock_resolve(sock), &p, sizeof p, 0);
    } while (rc < 0 && errno == EINTR);
    return rc == (int)sizeof p;
}

static bool
receive_parcel(zsock_t *sock, struct parcel *p, int flags)
{
    int rc;
    do {
        rc = zmq_recv(zsock_resolve(sock), p, sizeof *p, flags);
    } while (rc < 0 && errno == EINTR);
    if (rc != (int)sizeof *p) {
        return false;
    }
    if (p->job) {
        HANDOFF_RECEIVE(p->job);
    }
    return true;
}

/* ---- the threads ---- */

static void
run_jobs(struct thread *t, zsock_t *pull, zsock_t *push)
{
    const struct cq_worker_cfg *cfg = &t->worker->cfg;
    struct parcel p;
    way_back = push;
    while (receive_parcel(pull, &p, 0)) {
        if (p.job) {
            cfg->run(cfg->ctx, p.job);
        }
        bool is_stop = !p.job;
        if (!send_parcel(push, p) || is_stop) {
            return;
        }
    }
}

void
cq_worker_ask(void *question)
{
    CQ_ASSERT(way_back && question);
    bool sent = send_parcel(way_back, (struct parcel){question, 0, 1});
    CQ_ASSERT(sent);
}

static zsock_t *
open_end(int type, const char *endpoint)
{
    zsock_t *sock = zsock_new(type);
    CQ_ASSERT(sock);
    zsock_set_linger(sock, 0);
    zsock_set_sndhwm(sock, 0); /* bounded by queue_max */
    zsock_set_rcvhwm(sock, 0);
    if (zsock_attach(sock, endpoint, false) != 0) {
        zsock_destroy(&sock);
    }
    return sock;
}

static void
thread_endpoint(const cq_worker_t *w, uint64_t index, bool binds, char out[ENDPOINT_MAX])
{
    (void)snprintf(out, ENDPOINT_MAX, "%c%.40s-%u", binds ? '@' : '>', w->endpoint,
                   (unsigned)index);
}

static void
back_endpoint(const cq_worker_t *w, bool binds, char out[ENDPOINT_MAX])
{
    (void)snprintf(out, ENDPOINT_MAX, "%c%.40s-back", binds ? '@' : '>', w->endpoint);
}

/* The actor's body. Signals are the loop's business. */
static void
on_actor(zsock_t *pipe, void *args)
{
    struct thread *t = args;
    char endpoint[ENDPOINT_MAX];
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    (void)pthread_setname_np(pthread_self(), t->worker->name);
    thread_endpoint(t->worker, t->index, false, endpoint);
    zsock_t *pull = open_end(ZMQ_PULL, endpoint);
    back_endpoint(t->worker, false, endpoint);
    zsock_t *push = open_end(ZMQ_PUSH, endpoint);
    t->is_up = pull && push;
    HANDOFF_SEND(t);
    zsock_signal(pipe, t->is_up ? 0 : 1);
    if (t->is_up) {
        run_jobs(t, pull, push);
    }
    zsock_destroy(&pull);
    zsock_destroy(&push);
    char *command = zstr_recv(pipe); /* $TERM */
    zstr_free(&command);
}

static bool
start_thread(cq_worker_t *w, struct thread *t, uint32_t index)
{
    char endpoint[ENDPOINT_MAX];
    t->worker = w;
    t->index = index;
    thread_endpoint(w, index, true, endpoint);
    t->push = open_end(ZMQ_PUSH, endpoint);
    t->actor = t->push ? zactor_new(on_actor, t) : NULL;
    HANDOFF_RECEIVE(t);
    if (t->actor && t->is_up) {
        return true;
    }
    CQ_LOG(ERROR, "WORKER-START-FAIL", "name=%s thread=%u", w->name, (unsigned)index);
    zactor_destroy(&t->actor);
    zsock_destroy(&t->push);
    return false;
}

/* ---- the loop's side ---- */

/* The ring's oldest job goes to this thread. */
static void
give(cq_worker_t *w, struct thread *t)
{
    bool sent = send_parcel(t->push, (struct parcel){w->ring[w->ring_first], t->index, 0});
    CQ_ASSERT(sent);
    w->ring_first = (w->ring_first + 1) % w->cfg.queue_max;
    w->ring_count--;
    t->busy++;
}

/* Jobs to threads that have room, as long as there are both. */
static void
dispatch(cq_worker_t *w)
{
    for (unsigned i = 0; i < w->thread_count; i++) {
        while (w->threads[i].busy < w->credit && w->ring_count) {
            give(w, &w->threads[i]);
        }
    }
}

static void
finish(cq_worker_t *w, const struct parcel *p)
{
    w->threads[p->thread].busy--;
    w->pending--;
    dispatch(w); /* the thread goes on while done runs */
    w->cfg.done(w->cfg.ctx, p->job);
}

static void
take(cq_worker_t *w, const struct parcel *p)
{
    if (p->is_question) {
        w->cfg.ask(w->cfg.ctx, p->job);
    } else {
        finish(w, p);
    }
}

static bool
on_input(void *ctx)
{
    cq_worker_t *w = ctx;
    struct parcel p;
    for (int i = 0; i < DONE_PER_TURN; i++) {
        if (!receive_parcel(w->pull, &p, ZMQ_DONTWAIT)) {
            return false;
        }
        take(w, &p);
    }
    return true;
}

cq_worker_t *
cq_worker_new(cq_loop_t *loop, const struct cq_worker_cfg *cfg)
{
    static atomic_uint counter;
    char endpoint[ENDPOINT_MAX];
    CQ_ASSERT(cfg->thread_count >= 1 && cfg->thread_count <= THREADS_MAX && cfg->queue_max >= 1);
    cq_worker_t *w = cq_alloc(sizeof *w);
    w->cfg = *cfg;
    (void)snprintf(w->name, sizeof w->name, "%s", cfg->name);
    (void)snprintf(w->endpoint, sizeof w->endpoint, "inproc://worker-%u",
                   atomic_fetch_add(&counter, 1));
    w->credit = cfg->thread_count == 1 ? cfg->queue_max : 1;
    w->ring = cq_alloc(cfg->queue_max * sizeof(void *));
    w->threads = cq_alloc(cfg->thread_count * sizeof(struct thread));
    back_endpoint(w, true, endpoint);
    w->pull = open_end(ZMQ_PULL, endpoint);
    CQ_ASSERT(w->pull);
    while (w->thread_count < cfg->thread_count) {
        if (!start_thread(w, &w->threads[w->thread_count], w->thread_count)) {
            cq_worker_destroy(&w);
            return NULL;
        }
        w->thread_count++;
    }
    w->watch = cq_zwatch_new(loop, zsock_resolve(w->pull), on_input, w);
    return w;
}

int
cq_worker_submit(cq_worker_t *w, void **job)
{
    CQ_ASSERT(*job);
    if (w->pending >= w->cfg.queue_max) {
        return -CQ_E_BUSY;
    }
    w->ring[(w->ring_first + w->ring_count) % w->cfg.queue_max] = *job;
    w->ring_count++;
    w->pending++;
    *job = NULL;
    dispatch(w);
    return 0;
}

unsigned
cq_worker_pending(const cq_worker_t *w)
{
    return w->pending;
}

void
cq_worker_destroy(cq_worker_t **worker)
{
    cq_worker_t *w = *worker;
    struct parcel p;
    if (!w) {
        return;
    }
    while (w->pending && receive_parcel(w->pull, &p, 0)) {
        take(w, &p);
    }
    for (unsigned i = 0; i < w->thread_count; i++) {
        bool sent = send_parcel(w->threads[i].push, (struct parcel){NULL, i, 0});
        CQ_ASSERT(sent);
    }
    for (unsigned i = 0; i < w->thread_count && receive_parcel(w->pull, &p, 0); i++) {
    }
    for (unsigned i = 0; i < w->thread_count; i++) {
        zactor_destroy(&w->threads[i].actor);
        zsock_destroy(&w->threads[i].push);
    }
    cq_zwatch_destroy(&w->watch);
    zsock_destroy(&w->pull);
    free(w->threads);
    free(w->ring);
    free(w);
    *worker = NULL;
}
