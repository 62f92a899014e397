/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/metric.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"

enum {
    TABLES_MAX = 16,
    SAMPLE_MAX = 1024,
    PER_MILLION = 1000000
};

const uint32_t cq_histogram_bounds_us[CQ_HISTOGRAM_BOUNDS] = {
    50,    100,    200,    500,    1000,    2000,    5000,    10000,   20000,
    50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000};

/* The same in seconds, as they are written. */
static const char *const bounds_s[CQ_HISTOGRAM_BOUNDS] = {
    "5e-05", "0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02",
    "0.05",  "0.1",    "0.2",    "0.5",    "1",     "2",     "5",     "10"};

static struct {
    const struct cq_metric *metrics;
    size_t count;
} tables[TABLES_MAX];
static size_t table_count;

static struct {
    const struct cq_histogram_row *rows;
    size_t count;
} histograms[TABLES_MAX];
static size_t histogram_count;

static uint64_t start_unix_s;
static const char *trouble;

static const char *const type_names[] = {
    [CQ_METRIC_COUNTER] = "counter",
    [CQ_METRIC_GAUGE] = "gauge",
};

static void
note_start(void)
{
    if (!start_unix_s) {
        start_unix_s = cq_now_unix_ms() / 1000;
    }
}

void
cq_metric_register(const struct cq_metric *metrics, size_t count)
{
    for (size_t i = 0; i < table_count; i++) {
        if (tables[i].metrics == metrics) {
            return; /* a second instance of the same part */
        }
    }
    CQ_ASSERT(table_count < TABLES_MAX);
    note_start();
    tables[table_count].metrics = metrics;
    tables[table_count].count = count;
    table_count++;
}

void
cq_metric_register_histograms(const struct cq_histogram_row *rows, size_t count)
{
    for (size_t i = 0; i < histogram_count; i++) {
        if (histograms[i].rows == rows) {
            return;
        }
    }
    CQ_ASSERT(histogram_count < TABLES_MAX);
    note_start();
    histograms[histogram_count].rows = rows;
    histograms[histogram_count].count = count;
    histogram_count++;
}

/* ---- writing ---- */

/* A name taken apart: `base{labels}`. */
struct name {
    int base_size;
    const char *base;
    int labels_size; /* 0: none */
    const char *labels;
};

static struct name
split(const char *text)
{
    size_t n = strcspn(text, "{");
    struct name name = {(int)n, text, 0, ""};
    if (text[n]) {
        name.labels = text + n + 1;
        name.labels_size = (int)strcspn(name.labels, "}");
    }
    return name;
}

static bool
is_same_base(const struct name *a, const struct name *b)
{
    return a->base_size == b->base_size && memcmp(a->base, b->base, (size_t)a->base_size) == 0;
}

static void
append_text(cq_buf_t *out, const char *s)
{
    cq_buf_append(out, s, strlen(s));
}

static void
append_head(cq_buf_t *out, const struct name *n, const char *doc, const char *type)
{
    append_text(out, "# HELP ");
    cq_buf_append(out, n->base, (size_t)n->base_size);
    append_text(out, " ");
    append_text(out, doc);
    append_text(out, "\n# TYPE ");
    cq_buf_append(out, n->base, (size_t)n->base_size);
    append_text(out, " ");
    append_text(out, type);
    append_text(out, "\n");
}

/* base + suffix {actor, labels, more} value */
struct sample {
    const struct name *name;
    const char *suffix;
    const char *actor;
    const char *more; /* le="…", or empty */
    const char *value;
};

static void
append_sample(cq_buf_t *out, const struct sample *s)
{
    char line[SAMPLE_MAX];
    (void)snprintf(line, sizeof line, "%.*s%s{actor=\"%s\"%s%.*s%s%s} %s\n", s->name->base_size,
                   s->name->base, s->suffix, s->actor, s->name->labels_size ? "," : "",
                   s->name->labels_size, s->name->labels, s->more[0] ? "," : "", s->more, s->value);
    append_text(out, line);
}

static void
append_metric(cq_buf_t *out, const struct cq_metric *m, const struct name *name, const char *actor)
{
    char value[32];
    (void)snprintf(value, sizeof value, "%" PRIu64, *m->value);
    struct sample s = {name, "", actor, "", value};
    append_sample(out, &s);
}

static void
append_histogram(cq_buf_t *out,
                 const struct cq_histogram *h,
                 const struct name *name,
                 const char *actor)
{
    char more[32], value[48];
    uint64_t count = 0;
    struct sample s = {name, "_bucket", actor, more, value};
    for (size_t i = 0; i <= CQ_HISTOGRAM_BOUNDS; i++) {
        count += h->counts[i];
        (void)snprintf(more, sizeof more, "le=\"%s\"",
                       i < CQ_HISTOGRAM_BOUNDS ? bounds_s[i] : "+Inf");
        (void)snprintf(value, sizeof value, "%" PRIu64, count);
        append_sample(out, &s);
    }
    more[0] = '\0';
    s.suffix = "_count";
    append_sample(out, &s);
    s.suffix = "_sum";
    (void)snprintf(value, sizeof value, "%" PRIu64 ".%06" PRIu64, h->sum_us / PER_MILLION,
                   h->sum_us % PER_MILLION);
    append_sample(out, &s);
}

/* ---- what every process says of itself ---- */

static void
append_self(cq_buf_t *out,
            const char *plain_name,
            const char *doc,
            const char *type,
            struct sample s)
{
    struct name name = split(plain_name);
    s.name = &name;
    s.suffix = "";
    append_head(out, &name, doc, type);
    append_sample(out, &s);
}

static uint64_t
resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        char line[128];
        char *end = fgets(line, sizeof line, f) ? line : NULL;
        (void)fclose(f);
        if (end) {
            (void)strtoul(line, &end, 10);
            pages = strtoul(end, NULL, 10);
        }
    }
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void
append_process(cq_buf_t *out, const char *actor)
{
    char value[48];
    struct rusage u = {0};
    (void)getrusage(RUSAGE_SELF, &u);
    uint64_t us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * PER_MILLION +
                  (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    struct sample s = {.actor = actor, .more = "version=\"" CQ_VERSION "\"", .value = "1"};
    append_self(out, "chasqui_info", "the program's version", "gauge", s);
    s.more = "";
    s.value = value;
    (void)snprintf(value, sizeof value, "%" PRIu64, start_unix_s);
    append_self(out, "chasqui_start_time_seconds", "when the process started, Unix time", "gauge",
                s);
    (void)snprintf(value, sizeof value, "%" PRIu64 ".%06" PRIu64, us / PER_MILLION,
                   us % PER_MILLION);
    append_self(out, "chasqui_cpu_seconds_total", "CPU time of all threads", "counter", s);
    (void)snprintf(value, sizeof value, "%" PRIu64, resident_bytes());
    append_self(out, "chasqui_resident_bytes", "memory in use (resident set)", "gauge", s);
    if (trouble) {
        char what[SAMPLE_MAX];
        (void)snprintf(what, sizeof what, "what=\"%s\"", trouble);
        s.more = what;
        s.value = "1";
        append_self(out, "chasqui_trouble", "what is wrong, and what to do", "gauge", s);
    }
}

void
cq_metric_trouble(const char *what)
{
    trouble = what;
}

void
cq_metric_text(cq_buf_t *out, const char *actor)
{
    append_process(out, actor);
    struct name last = {0, "", 0, ""};
    for (size_t t = 0; t < table_count; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            const struct cq_metric *m = &tables[t].metrics[i];
            struct name name = split(m->name);
            if (!is_same_base(&name, &last)) {
                append_head(out, &name, m->doc, type_names[m->type]);
            }
            append_metric(out, m, &name, actor);
            last = name;
        }
    }
    for (size_t t = 0; t < histogram_count; t++) {
        for (size_t i = 0; i < histograms[t].count; i++) {
            const struct cq_histogram_row *h = &histograms[t].rows[i];
            struct name name = split(h->name);
            if (!is_same_base(&name, &last)) {
                append_head(out, &name, h->doc, "histogram");
            }
            append_histogram(out, h->histogram, &name, actor);
            last = name;
        }
    }
}
