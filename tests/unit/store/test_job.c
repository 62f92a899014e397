/* SPDX-License-Identifier: MPL-2.0
 * Long jobs: one at a time, found again by their id, progress, findings, cancelling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/job.h"

static cq_loop_t *loop;
static cq_timer_t *timer;
static store_jobs_t *jobs;
static atomic_int gate; /* 0: the job waits */
static uint64_t deadline_mono_ms;

/* ---- kinds ---- */

static int
run_waiting(store_job_t *job)
{
    store_job_say(job, "waiting");
    store_job_progress(job, 1, 10);
    while (!atomic_load(&gate) && !store_job_is_cancelled(job)) {
        usleep(1000);
    }
    if (store_job_is_cancelled(job)) {
        return -CQ_E_UNAVAILABLE;
    }
    store_job_progress(job, 10, 10);
    store_job_say(job, "opened %d of %s", 1, store_job_path(job));
    return 0;
}

static int
run_failing(store_job_t *job)
{
    store_job_say(job, "no room");
    return -CQ_E_NO_SPACE;
}

static int
run_finding(store_job_t *job)
{
    for (int i = 0; i < CQ_JOB_FINDINGS_MAX + 5; i++) {
        store_job_find(job, "finding %d", i);
    }
    return 0;
}

/* What it says is longer than allowed, and not UTF-8. */
static int
run_talking(store_job_t *job)
{
    char text[3 * CQ_JOB_TEXT_MAX];
    memset(text, 'x', sizeof text);
    memcpy(text, "\xc3\xa4", 2);
    for (size_t i = 1; i + 2 < sizeof text; i += 2) {
        memcpy(text + i, "\xc3\xa4", 2);
    }
    text[sizeof text - 1] = '\0';
    store_job_say(job, "%s", text);
    store_job_find(job, "%s", text);
    store_job_find(job, "bad \xff byte");
    return 0;
}

static const struct store_job_kind kinds[] = {
    {"wait", "steps", true, run_waiting},
    {"fail", "steps", false, run_failing},
    {"find", "steps", false, run_finding},
    {"talk", "steps", false, run_talking},
};

/* ---- helpers ---- */

static void
on_timer(void *ctx)
{
    (void)ctx;
    cq_loop_stop(loop);
}

static int
set_up(void **state)
{
    (void)state;
    const struct store_jobs_cfg cfg = {kinds, sizeof kinds / sizeof kinds[0], NULL};
    atomic_store(&gate, 0);
    loop = cq_loop_new();
    timer = cq_timer_new(loop, on_timer, NULL);
    cq_timer_start(timer, 1, 1);
    jobs = store_jobs_new(loop, &cfg);
    deadline_mono_ms = cq_now_mono_ms() + 20000;
    return jobs ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    store_jobs_destroy(&jobs);
    cq_timer_destroy(&timer);
    cq_loop_destroy(&loop);
    return 0;
}

static struct cq_view
text(const char *s)
{
    return (struct cq_view){(const uint8_t *)s, strlen(s)};
}

static int
start(uint8_t id, const char *kind, const char *path, store_job_t **job)
{
    const struct cq_job_start in = {.job = {{id}}, .kind = text(kind), .path = text(path)};
    return store_jobs_start(jobs, &in, job);
}

static struct cq_job_state
state_of(store_job_t *job, uint64_t from, cq_buf_t *findings)
{
    struct cq_job_state s;
    store_jobs_state(job, from, findings, &s);
    return s;
}

static struct cq_job_state
wait_end(store_job_t *job, cq_buf_t *findings)
{
    struct cq_job_state s = state_of(job, 0, findings);
    while (s.state == CQ_JOB_RUNNING && cq_now_mono_ms() < deadline_mono_ms) {
        cq_loop_run(loop);
        s = state_of(job, 0, findings);
    }
    return s;
}

static void
assert_text(struct cq_view v, const char *expected)
{
    assert_int_equal(v.n, strlen(expected));
    assert_memory_equal(v.p, expected, v.n);
}

/* ---- tests ---- */

static void
test_runs_to_its_end(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    assert_int_equal(start(1, "wait", "/there", &job), 0);
    struct cq_job_state s = state_of(job, 0, &findings);
    assert_int_equal(s.state, CQ_JOB_RUNNING);
    assert_true(s.started_unix_ms > 0 && s.ended_unix_ms == 0);
    assert_text(s.unit, "steps");
    atomic_store(&gate, 1);
    s = wait_end(job, &findings);
    assert_int_equal(s.state, CQ_JOB_DONE);
    assert_int_equal(s.err, 0);
    assert_int_equal(s.done, 10);
    assert_int_equal(s.total, 10);
    assert_text(s.text, "opened 1 of /there");
    assert_true(s.ended_unix_ms >= s.started_unix_ms);
    cq_buf_free(&findings);
}

static void
test_repetition_finds_the_same_job(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    store_job_t *again = NULL;
    assert_int_equal(start(1, "wait", "/a", &job), 0);
    assert_int_equal(start(1, "wait", "/a", &again), 0);
    assert_ptr_equal(job, again);
    atomic_store(&gate, 1);
    wait_end(job, &findings);
    assert_int_equal(start(1, "wait", "/a", &again), 0);
    assert_ptr_equal(job, again);
    assert_int_equal(state_of(again, 0, &findings).state, CQ_JOB_DONE);
    cq_buf_free(&findings);
}

static void
test_one_at_a_time(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    store_job_t *other = NULL;
    assert_int_equal(start(1, "wait", "/a", &job), 0);
    assert_int_equal(start(2, "fail", "", &other), -CQ_E_BUSY);
    assert_null(store_jobs_find(jobs, &(struct cq_id){{2}}));
    atomic_store(&gate, 1);
    wait_end(job, &findings);
    assert_int_equal(start(2, "fail", "", &other), 0);
    struct cq_job_state s = wait_end(other, &findings);
    assert_int_equal(s.state, CQ_JOB_FAILED);
    assert_int_equal(s.err, CQ_E_NO_SPACE);
    assert_text(s.text, "no room");
    assert_ptr_equal(store_jobs_find(jobs, &(struct cq_id){{0}}), other);
    cq_buf_free(&findings);
}

static void
test_bad_requests(void **state)
{
    (void)state;
    store_job_t *job = NULL;
    assert_int_equal(start(1, "nonsense", "", &job), -CQ_E_BAD_ARG);
    assert_int_equal(start(1, "wait", "", &job), -CQ_E_BAD_ARG);
    assert_int_equal(start(1, "wait", "relative", &job), -CQ_E_BAD_ARG);
    assert_int_equal(start(1, "fail", "/path", &job), -CQ_E_BAD_ARG);
    assert_null(job);
    assert_null(store_jobs_find(jobs, &(struct cq_id){{0}}));
}

static void
test_is_cancelled(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    assert_int_equal(start(1, "wait", "/a", &job), 0);
    store_jobs_cancel(job);
    struct cq_job_state s = wait_end(job, &findings);
    assert_int_equal(s.state, CQ_JOB_CANCELLED);
    assert_int_equal(s.err, 0);
    store_jobs_cancel(job); /* it has ended: nothing happens */
    assert_int_equal(state_of(job, 0, &findings).state, CQ_JOB_CANCELLED);
    cq_buf_free(&findings);
}

/* A stop of the store does not wait for the job's end. */
static void
test_destroy_cancels(void **state)
{
    (void)state;
    store_job_t *job = NULL;
    assert_int_equal(start(1, "wait", "/a", &job), 0);
}

static void
test_findings_are_counted_and_bounded(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    assert_int_equal(start(1, "find", "", &job), 0);
    struct cq_job_state s = wait_end(job, &findings);
    assert_int_equal(s.finding_count, CQ_JOB_FINDINGS_MAX + 5);
    assert_int_equal(s.findings.count, CQ_JOB_FINDINGS_MAX);
    s = state_of(job, CQ_JOB_FINDINGS_MAX - 1, &findings);
    assert_int_equal(s.findings.count, 1);
    cq_reader_t r = cq_list_reader(&s.findings);
    char last[32];
    (void)snprintf(last, sizeof last, "finding %d", CQ_JOB_FINDINGS_MAX - 1);
    assert_text(cq_read_str(&r, 1, 100), last);
    assert_int_equal(state_of(job, UINT64_MAX, &findings).findings.count, 0);
    cq_buf_free(&findings);
}

/* Whatever a job says, the answer can be read. */
static void
test_text_is_cut_and_valid(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    cq_buf_t packed = {0};
    store_job_t *job = NULL;
    struct cq_job_state out;
    assert_int_equal(start(1, "talk", "", &job), 0);
    struct cq_job_state s = wait_end(job, &findings);
    assert_in_range(s.text.n, CQ_JOB_TEXT_MAX - 4, CQ_JOB_TEXT_MAX);
    cq_schema_write_array(&cq_job_state_schema, &packed, &s);
    cq_reader_t r = cq_reader(packed.data, packed.size);
    assert_int_equal(cq_schema_read_array(&cq_job_state_schema, &r, &out), 0);
    r = cq_list_reader(&out.findings);
    assert_in_range(cq_read_str(&r, 1, CQ_JOB_FINDING_MAX).n, CQ_JOB_FINDING_MAX - 4,
                    CQ_JOB_FINDING_MAX);
    assert_text(cq_read_str(&r, 1, CQ_JOB_FINDING_MAX), "bad ? byte");
    assert_int_equal(r.err, 0);
    cq_buf_free(&packed);
    cq_buf_free(&findings);
}

static void
test_the_latest_are_kept(void **state)
{
    (void)state;
    cq_buf_t findings = {0};
    store_job_t *job = NULL;
    for (int i = 1; i <= STORE_JOBS_KEPT + 1; i++) {
        assert_int_equal(start((uint8_t)i, "fail", "", &job), 0);
        wait_end(job, &findings);
    }
    assert_null(store_jobs_find(jobs, &(struct cq_id){{1}}));
    assert_non_null(store_jobs_find(jobs, &(struct cq_id){{2}}));
    assert_ptr_equal(store_jobs_find(jobs, &(struct cq_id){{0}}), job);
    cq_buf_free(&findings);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_runs_to_its_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repetition_finds_the_same_job, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_is_cancelled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_destroy_cancels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_findings_are_counted_and_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_text_is_cut_and_valid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_latest_are_kept, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("store.job", tests, NULL, NULL);
}
