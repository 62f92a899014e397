/* SPDX-License-Identifier: MPL-2.0
 * metrics [ACTOR]: the counters of one actor, or of all with the samples of one metric together.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/metric_merge.h"

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

static void
on_text(void *ctx, cq_reader_t *fields, size_t count)
{
    cq_buf_t *text = ctx;
    struct cq_metrics m;
    if (cq_schema_read(&cq_metrics_schema, fields, count, &m) == 0) {
        cq_buf_append(text, m.text.p, m.text.n);
    }
}

int
ctl_metrics_of(struct ctl *ctl, const char *actor, cq_buf_t *text)
{
    const struct ctl_question q = {actor, CQ_BUS_METRICS, &cq_empty_schema, "", on_text, text};
    return ctl_ask(ctl, &q);
}

/* ---- reading the text ---- */

struct line {
    const char *p;
    size_t n;
};

/* The next line without its end; false at the end of the text. */
static bool
next_line(const cq_buf_t *text, size_t *at, struct line *line)
{
    if (*at >= text->size) {
        return false;
    }
    const char *p = (const char *)text->data + *at;
    const char *end = memchr(p, '\n', text->size - *at);
    line->p = p;
    line->n = end ? (size_t)(end - p) : text->size - *at;
    *at += line->n + 1;
    return true;
}

/* The metric that a line is about: of a sample its name, of a comment the word behind HELP or TYPE.
 */
static struct line
metric_of(struct line l)
{
    static const char *const comments[] = {"# HELP ", "# TYPE "};
    for (size_t i = 0; i < sizeof comments / sizeof comments[0]; i++) {
        size_t n = strlen(comments[i]);
        if (l.n > n && memcmp(l.p, comments[i], n) == 0) {
            l.p += n;
            l.n -= n;
        }
    }
    size_t n = 0;
    while (n < l.n && l.p[n] != ' ' && l.p[n] != '{') {
        n++;
    }
    return (struct line){l.p, n};
}

static bool
is_sample_of(struct line l, const char *name)
{
    struct line m = metric_of(l);
    return l.n && l.p[0] != '#' && m.n == strlen(name) && memcmp(m.p, name, m.n) == 0;
}

static bool
find_sample(const cq_buf_t *text, const char *name, struct line *l)
{
    size_t at = 0;
    while (next_line(text, &at, l)) {
        if (is_sample_of(*l, name)) {
            return true;
        }
    }
    return false;
}

/* Where the value of a sample begins. */
static size_t
value_of(struct line l)
{
    size_t at = l.n;
    while (at > 0 && l.p[at - 1] != ' ') {
        at--;
    }
    return at;
}

bool
ctl_metrics_value(const cq_buf_t *text, const char *name, uint64_t *value)
{
    char digits[32];
    struct line l;
    if (!find_sample(text, name, &l)) {
        return false;
    }
    size_t at = value_of(l);
    (void)snprintf(digits, sizeof digits, "%.*s", (int)(l.n - at < 31 ? l.n - at : 31), l.p + at);
    return ctl_number(digits, 0, UINT64_MAX, value);
}

bool
ctl_metrics_label(const cq_buf_t *text,
                  const char *name,
                  const char *label,
                  char *out,
                  size_t out_size)
{
    char start[64];
    struct line l;
    if (!find_sample(text, name, &l)) {
        return false;
    }
    int n = snprintf(start, sizeof start, "%s=\"", label);
    const char *at = n > 0 ? memmem(l.p, l.n, start, (size_t)n) : NULL;
    if (!at) {
        return false;
    }
    at += n;
    const char *end = memchr(at, '"', l.n - (size_t)(at - l.p));
    size_t size = end ? (size_t)(end - at) : 0;
    if (size == 0 || size >= out_size) {
        return false;
    }
    memcpy(out, at, size);
    out[size] = '\0';
    return true;
}

/* ---- printing ---- */

static void
print_json(struct ctl *ctl, struct line l)
{
    struct line m = metric_of(l);
    char actor[CQ_ACTOR_NAME_MAX + 1];
    cq_buf_t one = {0};
    if (l.n == 0 || l.p[0] == '#') {
        return;
    }
    char *name = strndup(m.p, m.n);
    char *value = strndup(l.p + value_of(l), l.n - value_of(l));
    CQ_ASSERT(name && value);
    cq_buf_append(&one, l.p, l.n);
    json_begin(&ctl->line, "metric");
    json_str(&ctl->line, "actor",
             ctl_metrics_label(&one, name, "actor", actor, sizeof actor) ? actor : "");
    json_str(&ctl->line, "name", name);
    json_text(&ctl->line, "sample", l.p + m.n, value_of(l) ? value_of(l) - m.n - 1 : 0);
    uint64_t number = 0;
    if (ctl_number(value, 0, UINT64_MAX, &number)) {
        json_uint(&ctl->line, "value", number);
    } else {
        json_str(&ctl->line, "value", value);
    }
    json_end(&ctl->line);
    cq_buf_free(&one);
    free(name);
    free(value);
}

static void
print_line(struct ctl *ctl, struct line l)
{
    if (ctl->json) {
        print_json(ctl, l);
    } else {
        (void)printf("%.*s\n", (int)l.n, l.p);
    }
}

static void
print_text(struct ctl *ctl, const cq_buf_t *text)
{
    struct line l;
    size_t at = 0;
    while (next_line(text, &at, &l)) {
        print_line(ctl, l);
    }
}

/* ---- asking ---- */

/* One actor's metrics; who does not answer is named as missing. */
static int
collect(struct ctl *ctl, cq_metric_merge_t *merge, const char *actor)
{
    cq_buf_t text = {0};
    int err = ctl_metrics_of(ctl, actor, &text);
    if (err) {
        cq_metric_merge_missing(merge, actor);
    } else {
        cq_metric_merge_add(merge, actor, (struct cq_view){text.data, text.size});
    }
    cq_buf_free(&text);
    return err;
}

static bool
has_role(const struct ctl *ctl, const char *role)
{
    for (size_t i = 0; i < ctl->peer_count; i++) {
        if (strcmp(ctl->peers[i].role, role) == 0) {
            return true;
        }
    }
    return false;
}

/* Everybody. Goes on behind one who does not answer: then the exit code says so. */
static int
collect_all(struct ctl *ctl, cq_metric_merge_t *merge)
{
    static const char *const parts[] = {"store", "presence", "edge"};
    int err = collect(ctl, merge, "broker");
    int rc = err ? ctl_refused(ctl, "broker", err) : 0;
    for (size_t i = 0; i < ctl->peer_count && !ctl->is_interrupted; i++) {
        struct ctl_peer peer = ctl->peers[i]; /* the list may change while we wait */
        err = collect(ctl, merge, peer.name);
        rc = err ? ctl_refused(ctl, peer.name, err) : rc;
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!has_role(ctl, parts[i])) {
            cq_metric_merge_missing(merge, parts[i]);
            rc = ctl_fail(ctl, CTL_FAILED, "UNAVAILABLE", "there is no %s", parts[i]);
        }
    }
    return rc;
}

int
ctl_metrics(struct ctl *ctl, struct ctl_args *args)
{
    int rc = ctl_words(ctl, args, 0, 1);
    rc = rc ? rc : ctl_open(ctl);
    if (rc) {
        return rc;
    }
    const char *actor = args->n ? args->v[0] : NULL;
    if (actor && strcmp(actor, "broker") != 0 && !cq_bus_has(ctl->bus, actor)) {
        return ctl_fail(ctl, CTL_NO_ANSWER, "UNROUTABLE",
                        "no actor \"%s\" is on the bus (chasquictl status lists them)", actor);
    }
    cq_metric_merge_t *merge = cq_metric_merge_new();
    cq_buf_t text = {0};
    if (actor) {
        int err = collect(ctl, merge, actor);
        rc = err ? ctl_refused(ctl, actor, err) : 0;
    } else {
        rc = collect_all(ctl, merge);
    }
    cq_metric_merge_write(merge, &text);
    print_text(ctl, &text);
    cq_metric_merge_destroy(&merge);
    cq_buf_free(&text);
    return rc;
}
