/* SPDX-License-Identifier: MPL-2.0 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <czmq.h>

#include "common/rt/loop.h"

struct fixture {
    cq_loop_t *loop;
    cq_timer_t *limit;
    bool timed_out;
    char order[64];
    size_t order_size;
    int turns;
    int fired;
    zsock_t *a, *b;
    cq_zwatch_t *watch;
    int received, wanted, bound;
};

static void
note(struct fixture *f, char c)
{
    if (f->order_size + 1 < sizeof f->order) {
        f->order[f->order_size++] = c;
    }
}

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
    cq_timer_start(f->limit, 5000, 0);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    cq_zwatch_destroy(&f->watch);
    zsock_destroy(&f->a);
    zsock_destroy(&f->b);
    cq_timer_destroy(&f->limit);
    cq_loop_destroy(&f->loop);
    free(f);
    return 0;
}

static void
on_once(void *ctx)
{
    struct fixture *f = ctx;
    note(f, 't');
    f->fired++;
}

static void
on_third(void *ctx)
{
    struct fixture *f = ctx;
    if (++f->fired == 3) {
        cq_loop_stop(f->loop);
    }
}

static void
timer_repeats(void **state)
{
    struct fixture *f = *state;
    cq_timer_t *t = cq_timer_new(f->loop, on_third, f);
    uint64_t began = cq_now_mono_ms();
    cq_timer_start(t, 5, 10);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 3);
    assert_true(cq_now_mono_ms() - began >= 24);
    assert_false(f->timed_out);
    cq_timer_destroy(&t);
    assert_null(t);
}

static void
on_stop(void *ctx)
{
    cq_loop_stop(((struct fixture *)ctx)->loop);
}

static void
timer_stops_and_restarts(void **state)
{
    struct fixture *f = *state;
    cq_timer_t *t = cq_timer_new(f->loop, on_once, f);
    cq_timer_t *end = cq_timer_new(f->loop, on_stop, f);
    cq_timer_start(t, 1, 0);
    cq_timer_stop(t);
    cq_timer_start(end, 20, 0);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 0);
    cq_timer_start(t, 1, 0);
    cq_timer_start(end, 20, 0);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 1);
    cq_timer_destroy(&t);
    cq_timer_destroy(&end);
}

static void
on_turn_one(void *ctx)
{
    note(ctx, '1');
}

static void
on_turn_two(void *ctx)
{
    struct fixture *f = ctx;
    note(f, '2');
    if (f->fired) {
        cq_loop_stop(f->loop);
    }
}

static void
on_flush(void *ctx)
{
    note(ctx, 'f');
}

/* Timers, then turn hooks in order, then flush hooks, though the flush hook was added first. */
static void
turn_order(void **state)
{
    struct fixture *f = *state;
    cq_timer_t *t = cq_timer_new(f->loop, on_once, f);
    cq_loop_on_flush(f->loop, on_flush, f);
    cq_loop_on_turn(f->loop, on_turn_one, f);
    cq_loop_on_turn(f->loop, on_turn_two, f);
    cq_timer_start(t, 0, 0);
    cq_loop_run(f->loop);
    assert_non_null(strstr(f->order, "t12f"));
    assert_null(strstr(f->order, "t1f"));
    f->order_size = 0;
    memset(f->order, 0, sizeof f->order);
    cq_loop_off_turn(f->loop, on_turn_one, f);
    cq_loop_off_turn(f->loop, on_flush, f);
    cq_timer_start(t, 0, 0);
    cq_loop_run(f->loop);
    assert_null(strchr(f->order, '1'));
    assert_null(strchr(f->order, 'f'));
    assert_non_null(strchr(f->order, '2'));
    cq_timer_destroy(&t);
}

static void
open_pair(struct fixture *f)
{
    static int
        counter; /* an inproc name is free again only some time after its socket was closed */
    char name[64];
    (void)snprintf(name, sizeof name, "@inproc://loop-test-%d", counter++);
    f->a = zsock_new_pair(name);
    name[0] = '>';
    f->b = zsock_new_pair(name);
    assert_non_null(f->a);
    assert_non_null(f->b);
}

static bool
on_input(void *ctx)
{
    struct fixture *f = ctx;
    char byte;
    for (int i = 0; i < f->bound; i++) {
        if (zmq_recv(zsock_resolve(f->b), &byte, 1, ZMQ_DONTWAIT) < 0) {
            return false;
        }
        if (++f->received == f->wanted) {
            cq_loop_stop(f->loop);
        }
    }
    return true;
}

/* What was sent before the watch existed is found, and a bound does not strand the rest. */
static void
watch_drains_over_turns(void **state)
{
    struct fixture *f = *state;
    open_pair(f);
    f->wanted = 500;
    f->bound = 7;
    for (int i = 0; i < f->wanted; i++) {
        assert_int_equal(zmq_send(zsock_resolve(f->a), "x", 1, 0), 1);
    }
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    assert_int_equal(f->received, 500);
}

/* The watched socket sends in a hook while its peer sends too: the edge of ZMQ_FD is swallowed
 * again and again. */
static void
on_ping_turn(void *ctx)
{
    struct fixture *f = ctx;
    char byte;
    if (f->turns < f->wanted) {
        f->turns++;
        (void)zmq_send(zsock_resolve(f->a), "x", 1, ZMQ_DONTWAIT);
    }
    (void)zmq_send(zsock_resolve(f->b), "y", 1, ZMQ_DONTWAIT);
    cq_zwatch_sent(f->watch);
    (void)zmq_recv(zsock_resolve(f->a), &byte, 1, ZMQ_DONTWAIT);
}

static void
watch_survives_swallowed_edges(void **state)
{
    struct fixture *f = *state;
    open_pair(f);
    f->wanted = 2000;
    f->bound = 1;
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_loop_on_turn(f->loop, on_ping_turn, f);
    cq_timer_t *kick = cq_timer_new(f->loop, on_once, f);
    cq_timer_start(kick, 1, 0);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    assert_int_equal(f->received, 2000);
    cq_loop_off_turn(f->loop, on_ping_turn, f);
    cq_timer_destroy(&kick);
}

/* Another thread sends, with rests, so that the loop falls asleep between and in the middle. */
static void *
send_all(void *ctx)
{
    struct fixture *f = ctx;
    const struct timespec rest = {0, 20000};
    for (int i = 0; i < f->wanted; i++) {
        if (i % 5 == 0) {
            (void)nanosleep(&rest, NULL);
        }
        (void)zmq_send(zsock_resolve(f->a), "x", 1, 0);
    }
    return NULL;
}

static void
watch_of_another_thread_misses_nothing(void **state)
{
    struct fixture *f = *state;
    pthread_t sender;
    open_pair(f);
    f->wanted = 20000;
    f->bound = 3;
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_timer_start(f->limit, 60000, 0);
    assert_int_equal(pthread_create(&sender, NULL, send_all, f), 0);
    cq_loop_run(f->loop);
    assert_int_equal(pthread_join(sender, NULL), 0);
    assert_false(f->timed_out);
    assert_int_equal(f->received, f->wanted);
}

static void
watch_pauses(void **state)
{
    struct fixture *f = *state;
    open_pair(f);
    f->wanted = 1;
    f->bound = 10;
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_zwatch_pause(f->watch, true);
    assert_int_equal(zmq_send(zsock_resolve(f->a), "x", 1, 0), 1);
    cq_timer_t *end = cq_timer_new(f->loop, on_stop, f);
    cq_timer_start(end, 30, 0);
    cq_loop_run(f->loop);
    assert_int_equal(f->received, 0);
    cq_zwatch_pause(f->watch, false);
    cq_loop_run(f->loop);
    assert_int_equal(f->received, 1);
    assert_false(f->timed_out);
    cq_timer_destroy(&end);
}

static void
sleeps_when_idle(void **state)
{
    struct fixture *f = *state;
    open_pair(f);
    f->bound = 10;
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_timer_t *end = cq_timer_new(f->loop, on_stop, f);
    cq_loop_on_turn(f->loop, on_turn_one, f);
    cq_timer_start(end, 100, 0);
    cq_loop_run(f->loop);
    assert_true(f->order_size < 20);
    cq_timer_destroy(&end);
}

static void
on_signal(void *ctx)
{
    struct fixture *f = ctx;
    f->fired++;
    cq_loop_stop(f->loop);
}

/* A loop remembers the process's id (rt/pid.h): it must be right all the same. */
static void
pid_is_right_after_a_fork(void **state)
{
    (void)state;
    assert_int_equal(getpid(), syscall(SYS_getpid));
    pid_t child = fork();
    if (child == 0) {
        _exit(getpid() == syscall(SYS_getpid) ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(getpid(), syscall(SYS_getpid));
}

static void
signals_stop_or_call(void **state)
{
    struct fixture *f = *state;
    (void)raise(SIGTERM);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    cq_loop_on_signal(f->loop, on_signal, f);
    (void)raise(SIGINT);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 1);
    (void)raise(SIGPIPE);
}

static void
a_hangup_ends_unless_somebody_minds_it(void **state)
{
    struct fixture *f = *state;
    (void)raise(SIGHUP);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
    cq_loop_on_hangup(f->loop, on_signal, f);
    (void)raise(SIGHUP);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 1);
    cq_loop_on_hangup(f->loop, NULL, NULL);
    (void)raise(SIGHUP); /* nothing */
    cq_timer_t *end = cq_timer_new(f->loop, on_signal, f);
    cq_timer_start(end, 20, 0);
    cq_loop_run(f->loop);
    assert_int_equal(f->fired, 2);
    cq_timer_destroy(&end);
}

static void
stop_before_run(void **state)
{
    struct fixture *f = *state;
    cq_loop_stop(f->loop);
    cq_loop_run(f->loop);
    assert_false(f->timed_out);
}

static void
on_many_events(void *ctx)
{
    struct fixture *f = ctx;
    for (int i = 0; i < 1000; i++) {
        cq_loop_breathe(f->loop);
        f->fired += f->received; /* events that came behind the message */
    }
    cq_loop_stop(f->loop);
}

/* A message that waits while one iteration brings many events is read, and what it produces is
 * sent, between them. */
static void
breathing_lets_messages_through(void **state)
{
    struct fixture *f = *state;
    cq_timer_t *t = cq_timer_new(f->loop, on_many_events, f);
    open_pair(f);
    f->wanted = 2; /* never */
    f->bound = 7;
    f->watch = cq_zwatch_new(f->loop, zsock_resolve(f->b), on_input, f);
    cq_loop_on_flush(f->loop, on_flush, f);
    cq_timer_start(t, 0, 0);
    assert_int_equal(zmq_send(zsock_resolve(f->a), "x", 1, 0), 1);
    cq_loop_run(f->loop);
    assert_int_equal(f->received, 1);
    assert_in_range(f->fired, 500, 999);
    assert_true(f->order_size >= 7); /* 'f's */
    cq_timer_destroy(&t);
}

static void *
tell_policy(void *arg)
{
    *(int *)arg = sched_getscheduler(0);
    return NULL;
}

static void
threads_are_batch(void **state)
{
    int policy = -1;
    pthread_t thread;
    (void)state;
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    assert_int_equal(pthread_create(&thread, NULL, tell_policy, &policy), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(policy, SCHED_BATCH);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timer_repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(timer_stops_and_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(turn_order, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_drains_over_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_survives_swallowed_edges, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_of_another_thread_misses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_pauses, setup, teardown),
        cmocka_unit_test_setup_teardown(breathing_lets_messages_through, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_are_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(sleeps_when_idle, setup, teardown),
        cmocka_unit_test_setup_teardown(pid_is_right_after_a_fork, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_stop_or_call, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hangup_ends_unless_somebody_minds_it, setup, teardown),
        cmocka_unit_test_setup_teardown(stop_before_run, setup, teardown),
    };
    return cmocka_run_group_tests_name("rt.loop", tests, NULL, NULL);
}
