/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/metric.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"

enum {
    TABLES_MAX = 16,
    SAMPLE_MAX = 256
};

static struct {
    const struct cq_metric *metrics;
    size_t count;
} tables[TABLES_MAX];
static size_t table_count;
static uint64_t start_unix_s;
static const char *trouble;

static const char *const type_names[] = {
    [CQ_METRIC_COUNTER] = "counter",
    [CQ_METRIC_GAUGE] = "gauge",
};

void
cq_metric_register(const struct cq_metric *metrics, size_t count)
{
    for (size_t i = 0; i < table_count; i++) {
        if (tables[i].metrics == metrics) {
            return; /* a second instance of the same part */
        }
    }
    CQ_ASSERT(table_count < TABLES_MAX);
    if (!start_unix_s) {
        start_unix_s = cq_now_unix_ms() / 1000;
    }
    tables[table_count].metrics = metrics;
    tables[table_count].count = count;
    table_count++;
}

static void
append_text(cq_buf_t *out, const char *s)
{
    cq_buf_append(out, s, strlen(s));
}

static void
append_metric(cq_buf_t *out, const struct cq_metric *m, const char *part)
{
    char sample[SAMPLE_MAX];
    append_text(out, "# HELP ");
    append_text(out, m->name);
    append_text(out, " ");
    append_text(out, m->doc);
    append_text(out, "\n# TYPE ");
    append_text(out, m->name);
    append_text(out, " ");
    append_text(out, type_names[m->type]);
    append_text(out, "\n");
    (void)snprintf(sample, sizeof sample, "%s{part=\"%s\"} %" PRIu64 "\n", m->name, part,
                   *m->value);
    append_text(out, sample);
}

/* What every process says of itself. */
static void
append_self(cq_buf_t *out, const char *part)
{
    char text[2 * SAMPLE_MAX];
    (void)snprintf(text, sizeof text,
                   "# HELP chasqui_info the program's version\n"
                   "# TYPE chasqui_info gauge\n"
                   "chasqui_info{part=\"%s\",version=\"" CQ_VERSION "\"} 1\n"
                   "# HELP chasqui_start_time_seconds when the process started, Unix time\n"
                   "# TYPE chasqui_start_time_seconds gauge\n"
                   "chasqui_start_time_seconds{part=\"%s\"} %" PRIu64 "\n",
                   part, part, start_unix_s);
    append_text(out, text);
    if (trouble) {
        (void)snprintf(text, sizeof text,
                       "# HELP chasqui_trouble what is wrong, and what to do\n"
                       "# TYPE chasqui_trouble gauge\n"
                       "chasqui_trouble{part=\"%s\",what=\"%s\"} 1\n",
                       part, trouble);
        append_text(out, text);
    }
}

void
cq_metric_trouble(const char *what)
{
    trouble = what;
}

void
cq_metric_text(cq_buf_t *out, const char *part)
{
    append_self(out, part);
    for (size_t t = 0; t < table_count; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            append_metric(out, &tables[t].metrics[i], part);
        }
    }
}
