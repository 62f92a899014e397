/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/head.h"

#include <string.h>
#include <strings.h>

enum {
    BAD_REQUEST = 400,
    LENGTH_REQUIRED = 411,
    TOO_LARGE = 431,
    NOT_IMPLEMENTED = 501,
    VERSION_NOT_SUPPORTED = 505
};

struct cursor {
    const uint8_t *p, *end;
};

static bool
is_token_char(uint8_t b)
{
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') ||
           (b && strchr("!#$%&'*+-.^_`|~", b));
}

static struct cq_view
take_token(struct cursor *c)
{
    const uint8_t *start = c->p;
    while (c->p < c->end && is_token_char(*c->p)) {
        c->p++;
    }
    return (struct cq_view){start, (size_t)(c->p - start)};
}

static bool
take_text(struct cursor *c, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, text, n) != 0) {
        return false;
    }
    c->p += n;
    return true;
}

static int
parse_request_line(struct edge_head *h, struct cursor *c)
{
    h->method = take_token(c);
    if (!h->method.n || !take_text(c, " ")) {
        return -BAD_REQUEST;
    }
    const uint8_t *start = c->p;
    while (c->p<c->end && * c->p> ' ' && *c->p < 0x7f) {
        c->p++;
    }
    h->target = (struct cq_view){start, (size_t)(c->p - start)};
    if (!h->target.n || !take_text(c, " HTTP/")) {
        return -BAD_REQUEST;
    }
    const uint8_t *query = memchr(h->target.p, '?', h->target.n);
    h->path = (struct cq_view){start, query ? (size_t)(query - start) : h->target.n};
    if (!take_text(c, "1.")) {
        return -VERSION_NOT_SUPPORTED;
    }
    bool is_known = c->p < c->end && (*c->p == '0' || *c->p == '1');
    if (!is_known) {
        return -VERSION_NOT_SUPPORTED;
    }
    h->minor = (uint8_t)(*c->p++ - '0');
    return take_text(c, "\r\n") ? 0 : -BAD_REQUEST;
}

static bool
is_space(uint8_t b)
{
    return b == ' ' || b == '\t';
}

static int
parse_field(struct edge_head *h, struct cursor *c)
{
    if (h->field_count == EDGE_HEAD_FIELDS_MAX) {
        return -TOO_LARGE;
    }
    struct edge_head_field *f = &h->fields[h->field_count];
    f->name = take_token(c);
    if (!f->name.n || !take_text(c, ":")) {
        return -BAD_REQUEST;
    }
    while (c->p < c->end && is_space(*c->p)) {
        c->p++;
    }
    const uint8_t *start = c->p;
    while (c->p < c->end && (*c->p >= ' ' || *c->p == '\t') && *c->p != 0x7f) {
        c->p++;
    }
    const uint8_t *end = c->p;
    while (end > start && is_space(end[-1])) {
        end--;
    }
    f->value = (struct cq_view){start, (size_t)(end - start)};
    h->field_count++;
    return take_text(c, "\r\n") ? 0 : -BAD_REQUEST;
}

/* Fields that say where a request goes or ends: twice is an attack or a mistake. */
static bool
is_unambiguous(const struct edge_head *h)
{
    static const char *const single[] = {"host",   "content-length",    "transfer-encoding",
                                         "origin", "sec-websocket-key", "sec-websocket-version"};
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        if (edge_head_count(h, single[i]) > 1) {
            return false;
        }
    }
    return !edge_head_count(h, "content-length") || !edge_head_count(h, "transfer-encoding");
}

int
edge_head_parse(struct edge_head *h, const uint8_t *p, size_t n)
{
    size_t seen = n > EDGE_HEAD_MAX ? EDGE_HEAD_MAX : n;
    const uint8_t *end = seen ? memmem(p, seen, "\r\n\r\n", 4) : NULL;
    if (!end) {
        if (seen && !is_token_char(p[0])) {
            return -BAD_REQUEST;
        }
        return n >= EDGE_HEAD_MAX ? -TOO_LARGE : 0;
    }
    struct cursor c = {p, end + 2}; /* every line with its end */
    h->field_count = 0;
    int rc = parse_request_line(h, &c);
    while (!rc && c.p < c.end) {
        rc = parse_field(h, &c);
    }
    if (!rc && (!is_unambiguous(h) || (h->minor && !edge_head_count(h, "host")))) {
        rc = -BAD_REQUEST;
    }
    return rc ? rc : (int)(end + 4 - p);
}

bool
edge_head_is(struct cq_view a, const char *text)
{
    return a.n == strlen(text) && (!a.n || memcmp(a.p, text, a.n) == 0);
}

bool
edge_head_is_caseless(struct cq_view a, const char *text)
{
    return a.n == strlen(text) && (!a.n || strncasecmp((const char *)a.p, text, a.n) == 0);
}

struct cq_view
edge_head_field(const struct edge_head *h, const char *name)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (edge_head_is_caseless(h->fields[i].name, name)) {
            return h->fields[i].value;
        }
    }
    return (struct cq_view){0};
}

size_t
edge_head_count(const struct edge_head *h, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        count += edge_head_is_caseless(h->fields[i].name, name);
    }
    return count;
}

static bool
list_has(struct cq_view list, const char *word)
{
    const uint8_t *p = list.p;
    const uint8_t *end = list.p + list.n;
    while (p < end) {
        const uint8_t *comma = memchr(p, ',', (size_t)(end - p));
        const uint8_t *stop = comma ? comma : end;
        struct cq_view entry = {p, (size_t)(stop - p)};
        while (entry.n && is_space(entry.p[0])) {
            entry.p++;
            entry.n--;
        }
        while (entry.n && is_space(entry.p[entry.n - 1])) {
            entry.n--;
        }
        if (edge_head_is_caseless(entry, word)) {
            return true;
        }
        p = comma ? comma + 1 : end;
    }
    return false;
}

bool
edge_head_lists(const struct edge_head *h, const char *name, const char *word)
{
    for (size_t i = 0; i < h->field_count; i++) {
        if (edge_head_is_caseless(h->fields[i].name, name) && list_has(h->fields[i].value, word)) {
            return true;
        }
    }
    return false;
}

bool
edge_head_copy(struct cq_view a, char *out, size_t out_size)
{
    if (a.n >= out_size) {
        return false;
    }
    if (a.n) {
        memcpy(out, a.p, a.n);
    }
    out[a.n] = '\0';
    return true;
}

bool
edge_head_number(struct cq_view v, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        uint64_t digit = (uint64_t)v.p[i] - '0';
        if (digit > 9 || digit > max || n > (max - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    *out = n;
    return v.n > 0;
}

unsigned
edge_head_body(const struct edge_head *h, uint64_t *n)
{
    *n = 0;
    if (edge_head_count(h, "transfer-encoding")) {
        struct cq_view coding = edge_head_field(h, "transfer-encoding");
        return edge_head_is_caseless(coding, "chunked") ? LENGTH_REQUIRED : NOT_IMPLEMENTED;
    }
    struct cq_view length = edge_head_field(h, "content-length");
    return !length.p || edge_head_number(length, INT64_MAX, n) ? 0 : BAD_REQUEST;
}
