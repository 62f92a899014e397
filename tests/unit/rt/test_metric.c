/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rt/loop.h"
#include "common/rt/metric.h"

static uint64_t count = 7;
static uint64_t level;

static const struct cq_metric metrics[] = {
    {"test_things_total", "things", CQ_METRIC_COUNTER, &count},
    {"test_level", "level", CQ_METRIC_GAUGE, &level},
};

static void
text(void **state)
{
    (void)state;
    cq_metric_register(metrics, 2);
    cq_metric_register(metrics, 2); /* a second instance of a part */
    level = UINT64_MAX;
    cq_buf_t out = {0};
    cq_metric_text(&out, "edge.1");
    cq_buf_append(&out, "", 1);
    const char *all = (const char *)out.data;
    assert_non_null(strstr(all, "\nchasqui_info{part=\"edge.1\",version=\"" CQ_VERSION "\"} 1\n"));
    const char *started = strstr(all, "\nchasqui_start_time_seconds{part=\"edge.1\"} ");
    assert_non_null(started);
    uint64_t start_unix_s = strtoull(strchr(started, ' ') + 1, NULL, 10);
    assert_in_range(start_unix_s, cq_now_unix_ms() / 1000 - 60, cq_now_unix_ms() / 1000);
    assert_null(strstr(all, "chasqui_trouble"));
    const char *tables = strstr(all, "# HELP test_things_total");
    assert_non_null(tables);
    assert_string_equal(tables, "# HELP test_things_total things\n"
                                "# TYPE test_things_total counter\n"
                                "test_things_total{part=\"edge.1\"} 7\n"
                                "# HELP test_level level\n"
                                "# TYPE test_level gauge\n"
                                "test_level{part=\"edge.1\"} 18446744073709551615\n");
    cq_buf_free(&out);
}

static void
trouble(void **state)
{
    (void)state;
    static const char sample[] =
        "\nchasqui_trouble{part=\"edge.1\",what=\"no air: open a window\"} 1\n";
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

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(text), cmocka_unit_test(trouble)};
    return cmocka_run_group_tests_name("rt.metric", tests, NULL, NULL);
}
