/* SPDX-License-Identifier: MPL-2.0
 * A text is read line by line. HELP and TYPE say which family is meant; samples belong to it if
 * their names begin with its name (a histogram's have suffixes), else to one of their own name.
 */
#include "common/rt/metric_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <czmq.h>

#include "common/rt/check.h"

enum {
    FAMILIES_MAX = 4096,
    NAME_MAX_BYTES = 128,
    LINE_MAX_BYTES = 1024,
    COMMENT_COUNT = 2
};

static const char *const comment_starts[COMMENT_COUNT] = {"# HELP ", "# TYPE "};

struct family {
    char name[NAME_MAX_BYTES];
    cq_buf_t comments[COMMENT_COUNT]; /* each line once, whole */
    cq_buf_t samples;
};

struct cq_metric_merge {
    struct family **families; /* in the order they came */
    size_t count, room;
    zhashx_t *by_name; /* name → struct family */
    size_t refused;
};

cq_metric_merge_t *
cq_metric_merge_new(void)
{
    cq_metric_merge_t *m = cq_alloc(sizeof *m);
    m->by_name = zhashx_new();
    CQ_ASSERT(m->by_name);
    return m;
}

void
cq_metric_merge_destroy(cq_metric_merge_t **merge)
{
    cq_metric_merge_t *m = *merge;
    *merge = NULL;
    if (!m) {
        return;
    }
    for (size_t i = 0; i < m->count; i++) {
        cq_buf_free(&m->families[i]->comments[0]);
        cq_buf_free(&m->families[i]->comments[1]);
        cq_buf_free(&m->families[i]->samples);
        free(m->families[i]);
    }
    free(m->families);
    zhashx_destroy(&m->by_name);
    free(m);
}

/* ---- families ---- */

static struct family *
family_of(cq_metric_merge_t *m, struct cq_view name)
{
    char text[NAME_MAX_BYTES];
    if (name.n == 0 || name.n >= sizeof text) {
        return NULL;
    }
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    struct family *f = zhashx_lookup(m->by_name, text);
    if (f || m->count == FAMILIES_MAX) {
        return f;
    }
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 128;
        m->families = realloc(m->families, m->room * sizeof(struct family *));
        CQ_ASSERT(m->families);
    }
    f = cq_alloc(sizeof *f);
    memcpy(f->name, text, name.n + 1);
    m->families[m->count++] = f;
    (void)zhashx_insert(m->by_name, f->name, f);
    return f;
}

/* ---- lines ---- */

static bool
is_name_byte(uint8_t b, bool is_first)
{
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || b == '_' || b == ':' ||
           (!is_first && b >= '0' && b <= '9');
}

static size_t
name_size(struct cq_view v)
{
    size_t n = 0;
    while (n < v.n && is_name_byte(v.p[n], n == 0)) {
        n++;
    }
    return n;
}

static bool
starts_with(struct cq_view v, const char *text)
{
    size_t n = strlen(text);
    return v.n >= n && memcmp(v.p, text, n) == 0;
}

static struct cq_view
behind(struct cq_view v, size_t n)
{
    return (struct cq_view){v.p + n, v.n - n};
}

/* name="value" pairs, comma between, up to the brace that closes them. Bytes read, 0: none such. */
static size_t
labels_size(struct cq_view v)
{
    size_t at = 0;
    while (at < v.n) {
        size_t n = name_size(behind(v, at));
        at += n;
        if (n == 0 || at + 1 >= v.n || v.p[at] != '=' || v.p[at + 1] != '"') {
            return 0;
        }
        for (at += 2; at < v.n && v.p[at] != '"'; at++) {
            at += v.p[at] == '\\';
        }
        at++;
        if (at < v.n && v.p[at] == '}') {
            return at + 1;
        }
        if (at >= v.n || v.p[at] != ',') {
            return 0;
        }
        at++;
    }
    return 0;
}

static bool
is_value(struct cq_view v)
{
    char text[64];
    char *end = NULL;
    if (v.n == 0 || v.n >= sizeof text || v.p[0] == ' ') {
        return false;
    }
    memcpy(text, v.p, v.n);
    text[v.n] = '\0';
    (void)strtod(text, &end);
    return *end == '\0' && !memchr(text, 'x', v.n) && !memchr(text, 'X', v.n);
}

static bool
is_sample(struct cq_view line, const char *actor)
{
    char label[NAME_MAX_BYTES];
    (void)snprintf(label, sizeof label, "{actor=\"%s\"", actor);
    size_t name = name_size(line);
    struct cq_view rest = behind(line, name);
    if (name == 0 || !starts_with(rest, label)) {
        return false;
    }
    rest = behind(rest, 1);
    size_t n = labels_size(rest);
    rest = behind(rest, n);
    return n && rest.n > 1 && rest.p[0] == ' ' && is_value(behind(rest, 1));
}

static bool
is_text(struct cq_view line)
{
    for (size_t i = 0; i < line.n; i++) {
        if (line.p[i] < ' ' || line.p[i] == 0x7f) {
            return false;
        }
    }
    return line.n <= LINE_MAX_BYTES;
}

static void
append_line(cq_buf_t *out, struct cq_view line)
{
    cq_buf_append(out, line.p, line.n);
    cq_buf_append(out, "\n", 1);
}

/* A line that describes a family: it is the one meant from here on. */
static struct family *
take_comment(cq_metric_merge_t *m, struct cq_view line)
{
    for (size_t i = 0; i < COMMENT_COUNT; i++) {
        if (!starts_with(line, comment_starts[i])) {
            continue;
        }
        struct cq_view name = behind(line, strlen(comment_starts[i]));
        name.n = name_size(name);
        struct family *f = family_of(m, name);
        /* Nothing about a family may come behind its samples: the first who has it says it. */
        if (f && !f->comments[i].size && !f->samples.size) {
            append_line(&f->comments[i], line);
        }
        return f;
    }
    return NULL;
}

static struct family *
family_of_sample(cq_metric_merge_t *m, struct family *meant, struct cq_view line)
{
    struct cq_view name = {line.p, name_size(line)};
    static const char *const suffixes[] = {"", "_bucket", "_count", "_sum"};
    size_t n = meant ? strlen(meant->name) : 0;
    if (meant && starts_with(name, meant->name)) {
        for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
            struct cq_view rest = behind(name, n);
            if (rest.n == strlen(suffixes[i]) && starts_with(rest, suffixes[i])) {
                return meant;
            }
        }
    }
    return family_of(m, name);
}

static struct family *
take_line(cq_metric_merge_t *m, const char *actor, struct family *meant, struct cq_view line)
{
    if (line.n && line.p[0] == '#' && is_text(line)) {
        return take_comment(m, line);
    }
    bool ok = is_text(line) && is_sample(line, actor);
    struct family *f = ok ? family_of_sample(m, meant, line) : NULL;
    if (f) {
        append_line(&f->samples, line);
    } else {
        m->refused += line.n > 0;
    }
    return meant;
}

static void
add_up(cq_metric_merge_t *m, const char *actor, bool is_up)
{
    static const char help[] = "# HELP chasqui_up did the actor answer for this text";
    static const char type[] = "# TYPE chasqui_up gauge";
    char line[NAME_MAX_BYTES];
    int n = snprintf(line, sizeof line, "chasqui_up{actor=\"%s\"} %d", actor, is_up);
    (void)take_comment(m, (struct cq_view){(const uint8_t *)help, sizeof help - 1});
    struct family *f = take_comment(m, (struct cq_view){(const uint8_t *)type, sizeof type - 1});
    if (f && n > 0 && (size_t)n < sizeof line) {
        append_line(&f->samples, (struct cq_view){(const uint8_t *)line, (size_t)n});
    }
}

void
cq_metric_merge_add(cq_metric_merge_t *m, const char *actor, struct cq_view text)
{
    struct family *meant = NULL;
    size_t at = 0;
    add_up(m, actor, true);
    while (at < text.n) {
        struct cq_view rest = behind(text, at);
        const uint8_t *end = memchr(rest.p, '\n', rest.n);
        struct cq_view line = {rest.p, end ? (size_t)(end - rest.p) : rest.n};
        meant = take_line(m, actor, meant, line);
        at += line.n + 1;
    }
}

void
cq_metric_merge_missing(cq_metric_merge_t *m, const char *actor)
{
    add_up(m, actor, false);
}

void
cq_metric_merge_write(const cq_metric_merge_t *m, cq_buf_t *out)
{
    for (size_t i = 0; i < m->count; i++) {
        const struct family *f = m->families[i];
        for (size_t c = 0; c < COMMENT_COUNT && f->samples.size; c++) {
            cq_buf_append(out, f->comments[c].data, f->comments[c].size);
        }
        cq_buf_append(out, f->samples.data, f->samples.size);
    }
}

size_t
cq_metric_merge_refused(const cq_metric_merge_t *m)
{
    return m->refused;
}
