/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rt/loop.h"
#include "common/rt/metric.h"
#include "common/rt/metric_merge.h"

static uint64_t count = 7;
static uint64_t level;
static uint64_t by_kind[2] = {1, 2};
static struct cq_histogram waits;

static const struct cq_metric metrics[] = {
    {"test_things_total", "things", CQ_METRIC_COUNTER, &count},
    {"test_level", "level", CQ_METRIC_GAUGE, &level},
    {"test_kinds_total{kind=\"a\"}", "by kind", CQ_METRIC_COUNTER, &by_kind[0]},
    {"test_kinds_total{kind=\"b\"}", "not said", CQ_METRIC_COUNTER, &by_kind[1]},
};

static const struct cq_histogram_row histograms[] = {
    {"test_wait_seconds{op=\"x\"}", "waits", &waits},
};

static void
test_text(void **state)
{
    (void)state;
    cq_metric_register(metrics, 4);
    cq_metric_register(metrics, 4); /* a second instance of a part */
    level = UINT64_MAX;
    cq_buf_t out = {0};
    cq_metric_text(&out, "edge.1");
    cq_buf_append(&out, "", 1);
    const char *all = (const char *)out.data;
    assert_non_null(strstr(all, "\nchasqui_info{actor=\"edge.1\",version=\"" CQ_VERSION "\"} 1\n"));
    const char *started = strstr(all, "\nchasqui_start_time_seconds{actor=\"edge.1\"} ");
    assert_non_null(started);
    uint64_t start_unix_s = strtoull(strchr(started, ' ') + 1, NULL, 10);
    assert_in_range(start_unix_s, cq_now_unix_ms() / 1000 - 60, cq_now_unix_ms() / 1000);
    assert_null(strstr(all, "chasqui_trouble"));
    const char *resident = strstr(all, "\nchasqui_resident_bytes{actor=\"edge.1\"} ");
    assert_non_null(resident);
    assert_in_range(strtoull(strchr(resident, ' ') + 1, NULL, 10), 100000, UINT64_C(1) << 40);
    assert_non_null(strstr(all, "\n# TYPE chasqui_cpu_seconds_total counter\n"));
    const char *tables = strstr(all, "# HELP test_things_total");
    assert_non_null(tables);
    assert_string_equal(tables, "# HELP test_things_total things\n"
                                "# TYPE test_things_total counter\n"
                                "test_things_total{actor=\"edge.1\"} 7\n"
                                "# HELP test_level level\n"
                                "# TYPE test_level gauge\n"
                                "test_level{actor=\"edge.1\"} 18446744073709551615\n"
                                "# HELP test_kinds_total by kind\n"
                                "# TYPE test_kinds_total counter\n"
                                "test_kinds_total{actor=\"edge.1\",kind=\"a\"} 1\n"
                                "test_kinds_total{actor=\"edge.1\",kind=\"b\"} 2\n");
    cq_buf_free(&out);
}

static void
test_trouble(void **state)
{
    (void)state;
    static const char sample[] =
        "\nchasqui_trouble{actor=\"edge.1\",what=\"no air: open a window\"} 1\n";
    cq_buf_t out = {0};
    cq_metric_trouble("no air: open a window");
    cq_metric_text(&out, "edge.1");
    cq_buf_append(&out, "", 1);
    assert_non_null(strstr((const char *)out.data, sample));
    cq_buf_clear(&out);
    cq_metric_trouble(NULL);
    cq_metric_text(&out, "edge.1");
    cq_buf_append(&out, "", 1);
    assert_null(strstr((const char *)out.data, "chasqui_trouble"));
    cq_buf_free(&out);
}

static void
test_histogram(void **state)
{
    (void)state;
    static const uint64_t us[] = {0, 50, 51, 100, 1000, 1001, 10000000, 10000001};
    for (size_t i = 0; i < sizeof us / sizeof us[0]; i++) {
        cq_histogram_add(&waits, us[i]);
    }
    cq_histogram_add_span(&waits, 20, 10); /* another machine's clock */
    cq_metric_register_histograms(histograms, 1);
    cq_metric_register_histograms(histograms, 1);
    cq_buf_t out = {0};
    cq_metric_text(&out, "a");
    cq_buf_append(&out, "", 1);
    const char *at = strstr((const char *)out.data, "# HELP test_wait_seconds");
    assert_non_null(at);
    static const char begin[] = "# HELP test_wait_seconds waits\n"
                                "# TYPE test_wait_seconds histogram\n"
                                "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"5e-05\"} 3\n"
                                "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"0.0001\"} 5\n"
                                "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"0.0002\"} 5\n";
    assert_memory_equal(at, begin, sizeof begin - 1);
    static const char end[] = "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"10\"} 8\n"
                              "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"+Inf\"} 9\n"
                              "test_wait_seconds_count{actor=\"a\",op=\"x\"} 9\n"
                              "test_wait_seconds_sum{actor=\"a\",op=\"x\"} 20.002203\n";
    const char *tail = strstr(at, "test_wait_seconds_bucket{actor=\"a\",op=\"x\",le=\"10\"}");
    assert_string_equal(tail, end);
    cq_buf_free(&out);
}

static void
test_bounds_grow(void **state)
{
    (void)state;
    for (size_t i = 1; i < CQ_HISTOGRAM_BOUNDS; i++) {
        assert_true(cq_histogram_bounds_us[i] > cq_histogram_bounds_us[i - 1]);
    }
}

/* ---- several actors ---- */

static void
add(cq_metric_merge_t *m, const char *actor, const char *s)
{
    cq_metric_merge_add(m, actor, (struct cq_view){(const uint8_t *)s, strlen(s)});
}

static void
assert_merged(cq_metric_merge_t **m, const char *want)
{
    cq_buf_t out = {0};
    cq_metric_merge_write(*m, &out);
    cq_buf_append(&out, "", 1);
    assert_string_equal((const char *)out.data, want);
    cq_buf_free(&out);
    cq_metric_merge_destroy(m);
}

#define UP_HEAD "# HELP chasqui_up did the actor answer for this text\n# TYPE chasqui_up gauge\n"

static void
test_merge(void **state)
{
    (void)state;
    cq_metric_merge_t *m = cq_metric_merge_new();
    add(m, "a",
        "# HELP x_total x\n# TYPE x_total counter\nx_total{actor=\"a\"} 1\n"
        "# HELP h h\n# TYPE h histogram\nh_bucket{actor=\"a\",le=\"+Inf\"} 2\nh_count{actor=\"a\"} "
        "2\n"
        "h_sum{actor=\"a\"} 0.5\nbare{actor=\"a\"} 3\n");
    cq_metric_merge_missing(m, "b");
    add(m, "c",
        "# HELP h other words\n# TYPE h histogram\nh_bucket{actor=\"c\",le=\"+Inf\"} 4\n"
        "# HELP x_total x\n# TYPE x_total counter\nx_total{actor=\"c\"} 1e3\n"
        "# TYPE empty gauge\nbare{actor=\"c\"} 4");
    assert_int_equal(cq_metric_merge_refused(m), 0);
    assert_merged(
        &m,
        UP_HEAD "chasqui_up{actor=\"a\"} 1\nchasqui_up{actor=\"b\"} 0\nchasqui_up{actor=\"c\"} 1\n"
                "# HELP x_total x\n# TYPE x_total counter\nx_total{actor=\"a\"} "
                "1\nx_total{actor=\"c\"} 1e3\n"
                "# HELP h h\n# TYPE h histogram\nh_bucket{actor=\"a\",le=\"+Inf\"} "
                "2\nh_count{actor=\"a\"} 2\n"
                "h_sum{actor=\"a\"} 0.5\nh_bucket{actor=\"c\",le=\"+Inf\"} 4\n"
                "bare{actor=\"a\"} 3\nbare{actor=\"c\"} 4\n");
}

/* Whoever is on the bus may answer with anything; the text stays one. */
static void
test_merge_refuses_what_is_no_line(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "x{actor=\"b\"} 1",
        "x 1",
        "x{} 1",
        "x{actor=\"a\"}",
        "x{actor=\"a\"} ",
        "x{actor=\"a\"} y",
        "x{actor=\"a\"}  1",
        "x{actor=\"a\" 1",
        "x{actor=\"a\",} 1",
        "x{actor=\"a\",b} 1",
        "x{actor=\"a\",b=\"} 1",
        "x{actor=\"a\",b=\"\\\"} 1",
        "9x{actor=\"a\"} 1",
        "{actor=\"a\"} 1",
        "x{actor=\"a\"} 1 2 3",
        "x{actor=\"a\"} 0x1",
        "x\t{actor=\"a\"} 1",
        "x{actor=\"a\",l=\"\x01\"} 1",
        "no",
        "x{actor=\"a\",1l=\"\"} 1",
    };
    cq_metric_merge_t *m = cq_metric_merge_new();
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        add(m, "a", lines[i]);
        if (cq_metric_merge_refused(m) != i + 1) {
            fail_msg("taken: %s", lines[i]);
        }
    }
    cq_metric_merge_destroy(&m);
    m = cq_metric_merge_new();
    add(m, "a",
        "# HELP\n# TYPE \n#\n# other\n\n\nx{actor=\"a\",b=\"\\\"}\\\\\",c=\"\"} "
        "-1.5e-3\nx{actor=\"a\"} +Inf\nx{actor=\"a\"} NaN\n");
    assert_int_equal(cq_metric_merge_refused(m), 0);
    assert_merged(&m, UP_HEAD
                  "chasqui_up{actor=\"a\"} 1\nx{actor=\"a\",b=\"\\\"}\\\\\",c=\"\"} -1.5e-3\n"
                  "x{actor=\"a\"} +Inf\nx{actor=\"a\"} NaN\n");
}

static void
test_merge_is_bounded(void **state)
{
    (void)state;
    cq_metric_merge_t *m = cq_metric_merge_new();
    cq_buf_t s = {0};
    char line[64];
    for (int i = 0; i < 10000; i++) {
        int n = snprintf(line, sizeof line, "x%d{actor=\"a\"} 1\n", i);
        cq_buf_append(&s, line, (size_t)n);
    }
    cq_metric_merge_add(m, "a", (struct cq_view){s.data, s.size});
    assert_in_range(cq_metric_merge_refused(m), 5000, 6000);
    cq_buf_free(&s);
    cq_metric_merge_destroy(&m);
    cq_metric_merge_destroy(&m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_trouble),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_bounds_grow),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_merge_refuses_what_is_no_line),
        cmocka_unit_test(test_merge_is_bounded),
    };
    return cmocka_run_group_tests_name("rt.metric", tests, NULL, NULL);
}
