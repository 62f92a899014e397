/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/output.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "common/rt/check.h"
#include "common/wire/read.h"

enum {
    SECOND_MS = 1000,
    MINUTE_MS = 60000,
    HOUR_MS = 3600000,
    DAY_MS = 86400000
};

static bool colors;

static void
put(cq_buf_t *b, const char *s)
{
    cq_buf_append(b, s, strlen(s));
}

/* ---- characters ---- */

/* Length of the UTF-8 character at s and its code point; 0: not UTF-8. */
static size_t
decode(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t size = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (size > n || !cq_utf8_ok(s, size)) {
        *cp = u[0];
        return 0;
    }
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    *cp = u[0] & masks[size];
    for (size_t i = 1; i < size; i++) {
        *cp = (*cp << 6) | (u[i] & 0x3f);
    }
    return size;
}

/* Characters that change the direction or the place of what follows, or that nobody sees. */
static bool
is_hiding(uint32_t cp)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {{0x061c, 0x061c}, {0x200e, 0x200f}, {0x2028, 0x202e},
                  {0x2066, 0x2069}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (cp >= ranges[i].first && cp <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

static void
escape_one(cq_buf_t *b, const char *s, size_t size, uint32_t cp)
{
    char code[16];
    if (!size || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
        (void)snprintf(code, sizeof code, "\\x%02x", cp & 0xff);
        put(b, cp == '\n' ? " ⏎ " : cp == '\t' ? "    " : code);
    } else if (is_hiding(cp)) {
        (void)snprintf(code, sizeof code, "\\u{%x}", cp);
        put(b, code);
    } else {
        cq_buf_append(b, s, size);
    }
}

void
out_escape(cq_buf_t *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t size = decode(s + i, n - i, &cp);
        escape_one(b, s + i, size, cp);
        i += size ? size : 1;
    }
}

static size_t
width_of(uint32_t cp)
{
    int w = wcwidth((wchar_t)cp);
    return w < 0 ? 1 : (size_t)w;
}

size_t
out_width(const char *s, size_t n)
{
    size_t width = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t size = decode(s + i, n - i, &cp);
        width += width_of(cp);
        i += size ? size : 1;
    }
    return width;
}

size_t
out_fit(const char *s, size_t n, size_t columns)
{
    size_t width = 0;
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        size_t size = decode(s + i, n - i, &cp);
        width += width_of(cp);
        if (width > columns) {
            break;
        }
        i += size ? size : 1;
    }
    return i;
}

char *
out_safe(const char *s, size_t n, size_t columns)
{
    cq_buf_t b = {0};
    out_escape(&b, s, n);
    if (columns && out_width((const char *)b.data, b.size) > columns) {
        b.size = out_fit((const char *)b.data, b.size, columns - 1);
        put(&b, "…");
    }
    cq_buf_append(&b, "", 1);
    size_t size;
    return (char *)cq_buf_take(&b, &size);
}

/* ---- times ---- */

uint64_t
out_now_unix_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
local_time(uint64_t unix_ms, struct tm *tm)
{
    time_t t = (time_t)(unix_ms / 1000);
    if (!localtime_r(&t, tm)) {
        memset(tm, 0, sizeof *tm);
    }
}

/* Not a literal for the compiler's sake: the formats come from this file only. */
static const char *
format(char *out, size_t size, const char *fmt, const struct tm *tm)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (!strftime(out, size, fmt, tm)) {
        out[0] = '\0';
    }
#pragma GCC diagnostic pop
    return out;
}

static bool
is_same_day(const struct tm *a, const struct tm *b)
{
    return a->tm_year == b->tm_year && a->tm_yday == b->tm_yday;
}

const char *
out_clock(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size)
{
    struct tm t;
    struct tm now;
    local_time(time_unix_ms, &t);
    local_time(now_unix_ms, &now);
    const char *fmt = is_same_day(&t, &now)      ? "%H:%M:%S"
                      : t.tm_year == now.tm_year ? "%e %b %H:%M:%S"
                                                 : "%Y-%m-%d %H:%M:%S";
    return format(out, size, fmt, &t);
}

const char *
out_stamp(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size)
{
    char clock[64];
    out_clock(time_unix_ms, now_unix_ms, clock, sizeof clock);
    (void)snprintf(out, size, "%s.%03u", clock, (unsigned)(time_unix_ms % SECOND_MS));
    return out;
}

const char *
out_after(uint64_t start_unix_ms, uint64_t time_unix_ms, char *out, size_t size)
{
    uint64_t ms = time_unix_ms - start_unix_ms;
    if (time_unix_ms < start_unix_ms) {
        (void)snprintf(out, size, "earlier");
    } else if (ms < SECOND_MS) {
        (void)snprintf(out, size, "%u ms", (unsigned)ms);
    } else if (ms < MINUTE_MS) {
        (void)snprintf(out, size, "%u.%02u s", (unsigned)(ms / SECOND_MS),
                       (unsigned)(ms % SECOND_MS / 10));
    } else if (ms < HOUR_MS) {
        (void)snprintf(out, size, "%u min %u s", (unsigned)(ms / MINUTE_MS),
                       (unsigned)(ms % MINUTE_MS / SECOND_MS));
    } else if (ms < DAY_MS) {
        (void)snprintf(out, size, "%u h %u min", (unsigned)(ms / HOUR_MS),
                       (unsigned)(ms % HOUR_MS / MINUTE_MS));
    } else {
        (void)snprintf(out, size, "%" PRIu64 " d %u h", ms / DAY_MS,
                       (unsigned)(ms % DAY_MS / HOUR_MS));
    }
    return out;
}

const char *
out_ago(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size)
{
    uint64_t age = now_unix_ms > time_unix_ms ? now_unix_ms - time_unix_ms : 0;
    struct tm t;
    struct tm now;
    struct tm yesterday;
    if (age < MINUTE_MS) {
        (void)snprintf(out, size, "just now");
        return out;
    }
    if (age < HOUR_MS) {
        (void)snprintf(out, size, "%u min ago", (unsigned)(age / MINUTE_MS));
        return out;
    }
    local_time(time_unix_ms, &t);
    local_time(now_unix_ms, &now);
    local_time(now_unix_ms - DAY_MS, &yesterday);
    const char *fmt = is_same_day(&t, &now)         ? "today %H:%M"
                      : is_same_day(&t, &yesterday) ? "yesterday %H:%M"
                      : t.tm_year == now.tm_year    ? "%e %b %H:%M"
                                                    : "%Y-%m-%d";
    return format(out, size, fmt, &t);
}

const char *
out_day(uint64_t time_unix_ms, char *out, size_t size)
{
    struct tm t;
    local_time(time_unix_ms, &t);
    return format(out, size, "%A, %e %B %Y", &t);
}

/* ---- colours ---- */

void
out_init(bool json)
{
    const char *no_color = getenv("NO_COLOR"); /* NOLINT(concurrency-mt-unsafe): one thread yet */
    const char *term = getenv("TERM");         /* NOLINT(concurrency-mt-unsafe): one thread yet */
    colors = !json && isatty(STDOUT_FILENO) && (!no_color || !*no_color) && term &&
             strcmp(term, "dumb") != 0;
}

bool
out_has_colors(void)
{
    return colors;
}

const char *
out_style(enum out_style style)
{
    static const char *const codes[] = {
        [OUT_PLAIN] = "\033[0m",   [OUT_BOLD] = "\033[1m",   [OUT_DIM] = "\033[2m",
        [OUT_RED] = "\033[31m",    [OUT_GREEN] = "\033[32m", [OUT_YELLOW] = "\033[33m",
        [OUT_BLUE] = "\033[1;34m", [OUT_CYAN] = "\033[36m",
    };
    return colors ? codes[style] : "";
}

/* ---- JSON ---- */

static void
json_string(cq_buf_t *b, const char *s, size_t n)
{
    put(b, "\"");
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t size = decode(s + i, n - i, &cp);
        char code[16];
        if (!size) {
            put(b, "\\ufffd");
        } else if (cp == '"' || cp == '\\') {
            code[0] = '\\';
            code[1] = (char)cp;
            cq_buf_append(b, code, 2);
        } else if (cp < 0x20 || cp == 0x7f || (cp >= 0x80 && cp < 0xa0) || is_hiding(cp)) {
            (void)snprintf(code, sizeof code, "\\u%04x", cp);
            put(b, code);
        } else {
            cq_buf_append(b, s + i, size);
        }
        i += size ? size : 1;
    }
    put(b, "\"");
}

static void
json_key(cq_buf_t *b, const char *key)
{
    put(b, b->size ? "," : "{");
    json_string(b, key, strlen(key));
    put(b, ":");
}

void
json_begin(cq_buf_t *b, const char *type)
{
    cq_buf_clear(b);
    json_str(b, "type", type);
}

void
json_str(cq_buf_t *b, const char *key, const char *s)
{
    json_text(b, key, s ? s : "", s ? strlen(s) : 0);
}

void
json_text(cq_buf_t *b, const char *key, const char *s, size_t n)
{
    json_key(b, key);
    json_string(b, s, n);
}

void
json_uint(cq_buf_t *b, const char *key, uint64_t v)
{
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%llu", (unsigned long long)v);
    json_key(b, key);
    put(b, digits);
}

void
json_bool(cq_buf_t *b, const char *key, bool v)
{
    json_key(b, key);
    put(b, v ? "true" : "false");
}

void
json_null(cq_buf_t *b, const char *key)
{
    json_key(b, key);
    put(b, "null");
}

void
json_end(cq_buf_t *b)
{
    put(b, "}\n");
    (void)fwrite(b->data, 1, b->size, stdout);
    (void)fflush(stdout);
    cq_buf_free(b);
}

/* ---- tables ---- */

struct cell {
    char *text;
    enum out_style style;
};

struct out_table {
    size_t columns;
    size_t rows;
    size_t widths[OUT_COLUMNS_MAX];
    struct cell *cells;
};

static void
add_row(out_table_t *t,
        const char *const *texts,
        const enum out_style *styles,
        enum out_style preset)
{
    t->cells = realloc(t->cells, (t->rows + 1) * t->columns * sizeof *t->cells);
    CQ_ASSERT(t->cells);
    for (size_t i = 0; i < t->columns; i++) {
        size_t width = out_width(texts[i], strlen(texts[i]));
        t->widths[i] = width > t->widths[i] ? width : t->widths[i];
        struct cell *c = &t->cells[t->rows * t->columns + i];
        c->text = strdup(texts[i]);
        CQ_ASSERT(c->text);
        c->style = styles ? styles[i] : preset;
    }
    t->rows++;
}

out_table_t *
out_table_new(size_t columns, const char *const *titles)
{
    CQ_ASSERT(columns && columns <= OUT_COLUMNS_MAX);
    out_table_t *t = cq_alloc(sizeof *t);
    t->columns = columns;
    add_row(t, titles, NULL, OUT_DIM);
    return t;
}

void
out_table_row(out_table_t *t, const char *const *cells, const enum out_style *styles)
{
    add_row(t, cells, styles, OUT_PLAIN);
}

static void
print_cell(const struct cell *c, size_t width, bool right, bool last)
{
    size_t pad = width - out_width(c->text, strlen(c->text));
    (void)printf("%*s%s%s%s%*s", right ? (int)pad : 0, "",
                 c->style == OUT_PLAIN ? "" : out_style(c->style), c->text,
                 c->style == OUT_PLAIN ? "" : out_style(OUT_PLAIN), right || last ? 0 : (int)pad,
                 "");
    (void)fputs(last ? "\n" : "  ", stdout);
}

void
out_table_destroy(out_table_t **p)
{
    out_table_t *t = *p;
    *p = NULL;
    for (size_t i = 0; t && i < t->rows * t->columns; i++) {
        free(t->cells[i].text);
    }
    if (t) {
        free(t->cells);
        free(t);
    }
}

void
out_table_print(out_table_t **p, unsigned right)
{
    out_table_t *t = *p;
    *p = NULL;
    for (size_t row = 0; row < t->rows; row++) {
        for (size_t i = 0; i < t->columns; i++) {
            struct cell *c = &t->cells[row * t->columns + i];
            print_cell(c, t->widths[i], (right >> i) & 1u, i + 1 == t->columns);
            free(c->text);
        }
    }
    free(t->cells);
    free(t);
}
