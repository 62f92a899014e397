/* SPDX-License-Identifier: MPL-2.0 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/rundelay.h"

static atomic_bool is_over;

static void *
spin(void *arg)
{
    while (!atomic_load(&is_over)) {
    }
    return arg;
}

/* Two threads that never sleep, on one processor: each waits while the other runs. */
static void
who_shares_a_processor_waits(void **state)
{
    cpu_set_t before, one;
    pthread_t other;
    uint64_t first_ns, ns;
    (void)state;
    int fd = cq_run_delay_open();
    if (fd < 0) {
        skip(); /* a kernel without it */
    }
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cq_run_delay_ns(fd, &first_ns), 0);
    assert_int_equal(pthread_create(&other, NULL, spin, NULL), 0); /* inherits the processor */
    do {
        assert_int_equal(cq_run_delay_ns(fd, &ns), 0);
        assert_true(ns >= first_ns);
    } while (ns - first_ns < 1000000);
    atomic_store(&is_over, true);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(close(fd), 0);
}

static void
what_is_no_such_file_is_said(void **state)
{
    uint64_t ns;
    int ends[2];
    (void)state;
    assert_int_equal(cq_run_delay_ns(-1, &ns), -CQ_E_UNAVAILABLE);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(cq_run_delay_ns(ends[0], &ns), -CQ_E_UNAVAILABLE);
    assert_int_equal(close(ends[0]) | close(ends[1]), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_shares_a_processor_waits),
        cmocka_unit_test(what_is_no_such_file_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
