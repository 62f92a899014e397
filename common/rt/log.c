/* SPDX-License-Identifier: MPL-2.0
 * Each line leaves with one write(2), so lines of threads and of processes that share a stderr do
 * not mix.
 */
#include "common/rt/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/wire/read.h"

enum {
    LINE_MAX_BYTES = 2048,
    PART_MAX = 64,
    UTF8_MAX = 4
};

/* Written once, before threads start. */
static char log_part[PART_MAX] = "-";
static enum cq_log_level log_level = CQ_LOG_INFO;

static const char *const level_names[] = {
    [CQ_LOG_DEBUG] = "debug",
    [CQ_LOG_INFO] = "info",
    [CQ_LOG_WARN] = "warn",
    [CQ_LOG_ERROR] = "error",
};

enum {
    LEVEL_COUNT = sizeof level_names / sizeof level_names[0]
};

void
cq_log_init(const char *part, enum cq_log_level level)
{
    (void)cq_log_text(part, strlen(part), log_part, sizeof log_part);
    log_level = level;
}

int
cq_log_level_by_name(const char *name)
{
    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(level_names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

bool
cq_log_is_on(enum cq_log_level level)
{
    return level >= log_level;
}

/* What the format produced is one line, whatever its values were. */
static void
keep_one_line(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < ' ' || s[i] == 0x7f) {
            s[i] = '?';
        }
    }
}

static size_t
written(int rc, size_t room)
{
    size_t n = rc < 0 ? 0 : (size_t)rc;
    return n < room ? n : room - 1;
}

void
cq_log_write(enum cq_log_level level, const char *id, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    struct timespec now;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += written(snprintf(line + n, sizeof line - n, ".%03dZ level=%s part=%s id=%s ",
                          (int)(now.tv_nsec / 1000000), level_names[level], log_part, id),
                 sizeof line - n);
    size_t start = n;
    va_list args;
    va_start(args, fmt);
    n += written(vsnprintf(line + n, sizeof line - n, fmt, args), sizeof line - n);
    va_end(args);
    keep_one_line(line + start, n - start);
    line[n++] = '\n'; /* over the final NUL */
    ssize_t rc = write(STDERR_FILENO, line, n);
    (void)rc; /* nowhere to say it */
}

/* Bytes of the printable UTF-8 sequence at s, or 0 for what must be escaped. */
static size_t
printable(const uint8_t *s, size_t n)
{
    if (s[0] < 0x80) {
        return s[0] >= ' ' && s[0] != 0x7f && s[0] != '"' && s[0] != '\\';
    }
    if (s[0] == 0xc2 && n > 1 && s[1] < 0xa0) { /* C1 controls */
        return 0;
    }
    for (size_t len = 2; len <= UTF8_MAX && len <= n; len++) {
        if (cq_utf8_ok(s, len)) {
            return len;
        }
    }
    return 0;
}

static bool
is_plain(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = printable(s + i, n - i);
        if (len == 0 || s[i] == ' ' || s[i] == '=') {
            return false;
        }
        i += len;
    }
    return n > 0;
}

static size_t
escape(uint8_t c, char out[8])
{
    static const char digits[] = "0123456789abcdef";
    static const char plain[] = "\"\\\n\r\t";
    static const char names[] = "\"\\nrt";
    const char *hit = c ? strchr(plain, c) : NULL;
    out[0] = '\\';
    if (hit) {
        out[1] = names[hit - plain];
        return 2;
    }
    out[1] = 'x';
    out[2] = digits[c >> 4];
    out[3] = digits[c & 15];
    return 4;
}

const char *
cq_log_text(const void *s, size_t n, char *out, size_t out_size)
{
    const uint8_t *p = s;
    if (out_size < 3) {
        if (out_size) {
            out[0] = '\0';
        }
        return out;
    }
    size_t used = 0;
    bool quote = n >= out_size || !is_plain(p, n);
    if (quote) {
        out[used++] = '"';
    }
    for (size_t i = 0; i < n;) {
        char escaped[8];
        size_t len = printable(p + i, n - i);
        size_t need = len ? len : escape(p[i], escaped);
        if (used + need + 2 > out_size) { /* room for the quote and NUL */
            break;
        }
        memcpy(out + used, len ? (const char *)p + i : escaped, need);
        used += need;
        i += len ? len : 1;
    }
    if (quote) {
        out[used++] = '"';
    }
    out[used] = '\0';
    return out;
}
