/* SPDX-License-Identifier: MPL-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/loop.h"
#include "common/rt/worker.h"

enum {
    JOBS = 3000,
    QUEUE = 64,
    STARTS = 100
};

struct job {
    int number;
    int result; /* written by the thread, read by the loop: no atomics, the hand-over orders it */
};

struct fixture {
    cq_loop_t *loop;
    cq_timer_t *limit;
    cq_worker_t *worker;
    bool timed_out;
    int submitted, done, wanted;
    int last;
    bool in_order;
    atomic_int inside, inside_max;
    atomic_int gate; /* 0: jobs wait */
};

static void
on_limit(void *ctx)
{
    struct fixture *f = ctx;
    f->timed_out = true;
    cq_loop_stop(f->loop);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->loop = cq_loop_new();
    f->limit = cq_timer_new(f->loop, on_limit, f);
    cq_timer_start(f->limit, 20000, 0);
    f->in_order = true;
    f->last = -1;
    atomic_store(&f->gate, 1);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    cq_worker_destroy(&f->worker);
    cq_timer_destroy(&f->limit);
    cq_loop_destroy(&f->loop);
    free(f);
    return 0;
}

static void
run(void *ctx, void *arg)
{
    struct fixture *f = ctx;
    struct job *job = arg;
    int inside = atomic_fetch_add(&f->inside, 1) + 1;
    int max = atomic_load(&f->inside_max);
    while (inside > max && !atomic_compare_exchange_weak(&f->inside_max, &max, inside)) {
    }
    while (!atomic_load(&f->gate)) {
        (void)usleep(100);
    }
    job->result = job->number * 2;
    (void)atomic_fetch_sub(&f->inside, 1);
}

static bool
submit(struct fixture *f)
{
    struct job *job = calloc(1, sizeof *job);
    job->number = f->submitted;
    void *p = job;
    if (cq_worker_submit(f->worker, &p) != 0) {
        assert_ptr_equal(p, job);
        free(job);
        return false;
    }
    assert_null(p);
    f->submitted++;
    return true;
}

static void
on_done(void *ctx, void *arg)
{
    struct fixture *f = ctx;
    struct job *job = arg;
    assert_int_equal(job->result, job->number * 2);
    f->in_order = f->in_order && job->number == f->last + 1;
    f->last = job->number;
    free(job);
    f->done++;
    while (f->submitted < f->wanted && submit(f)) {
    }
    if (f->done == f->wanted) {
        cq_loop_stop(f->loop);
    }
}

static void
start(struct fixture *f, unsigned threads)
{
    struct cq_worker_cfg cfg = {.name = "test",
                                .thread_count = threads,
                                .queue_max = QUEUE,
                                .run = run,
                                .done = on_done,
                                .ctx = f};
    f->worker = cq_worker_new(f->loop, &cfg);
    assert_non_null(f->worker);
}

static void
one_thread_keeps_order(void **state)
{
    struct fixture *f = *state;
    f->wanted = JOBS;
    start(f, 1);
    while (submit(f)) {
    }
    assert_int_equal(cq_worker_pending(f->worker), QUEUE);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    assert_int_equal(f->done, JOBS);
    assert_true(f->in_order);
    assert_int_equal(atomic_load(&f->inside_max), 1);
    assert_int_equal(cq_worker_pending(f->worker), 0);
}

static void
many_threads_share(void **state)
{
    struct fixture *f = *state;
    f->wanted = JOBS;
    atomic_store(&f->gate, 0);
    start(f, 4);
    while (submit(f)) {
    }
    while (atomic_load(&f->inside) < 4) { /* all four have one, none has two */
        (void)usleep(100);
    }
    atomic_store(&f->gate, 1);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    assert_int_equal(f->done, JOBS);
    assert_int_equal(atomic_load(&f->inside_max), 4);
}

static void
destroy_waits_for_jobs(void **state)
{
    struct fixture *f = *state;
    f->wanted = QUEUE;
    start(f, 2);
    while (f->submitted < QUEUE && submit(f)) {
    }
    cq_worker_destroy(&f->worker);
    assert_null(f->worker);
    assert_int_equal(f->done, QUEUE);
}

static void
full_is_busy(void **state)
{
    struct fixture *f = *state;
    f->wanted = QUEUE;
    atomic_store(&f->gate, 0);
    start(f, 2);
    for (int i = 0; i < QUEUE; i++) {
        assert_true(submit(f));
    }
    assert_false(submit(f));
    atomic_store(&f->gate, 1);
    cq_loop_run(f->loop);
    assert_int_equal(f->done, QUEUE);
}

/* A service may be told to end while it starts; CZMQ's actors do not bear that. */
struct nuisance {
    pthread_t victim;
    atomic_bool is_over;
};

static void *
disturb(void *arg)
{
    struct nuisance *n = arg;
    while (!atomic_load(&n->is_over)) {
        (void)pthread_kill(n->victim, SIGINT);
        (void)usleep(20);
    }
    return NULL;
}

static void
signals_do_not_disturb_start_and_end(void **state)
{
    struct fixture *f = *state;
    struct nuisance n = {.victim = pthread_self()};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, disturb, &n), 0);
    for (int i = 0; i < STARTS; i++) {
        start(f, 2);
        cq_worker_destroy(&f->worker);
    }
    atomic_store(&n.is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_thread_keeps_order, setup, teardown),
        cmocka_unit_test_setup_teardown(many_threads_share, setup, teardown),
        cmocka_unit_test_setup_teardown(destroy_waits_for_jobs, setup, teardown),
        cmocka_unit_test_setup_teardown(full_is_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_do_not_disturb_start_and_end, setup, teardown),
    };
    return cmocka_run_group_tests_name("rt.worker", tests, NULL, NULL);
}
