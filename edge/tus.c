/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/tus.h"

#include <string.h>
#include <strings.h>

#include "edge/head.h"

enum {
    PREFIX_SIZE = 6, /* of "/blob/" */
    KEYS_MAX = 64,   /* of Upload-Metadata */
    METADATA_VALUE_MAX = 4096,
};

static int
hex_digit(uint8_t b)
{
    if (b >= '0' && b <= '9') {
        return b - '0';
    }
    return b >= 'a' && b <= 'f' ? b - 'a' + 10 : -1;
}

bool
edge_tus_path(struct cq_view path, struct cq_id *id)
{
    if (path.n != PREFIX_SIZE + 2 * CQ_ID_SIZE || memcmp(path.p, "/blob/", PREFIX_SIZE) != 0) {
        return false;
    }
    for (size_t i = 0; i < CQ_ID_SIZE; i++) {
        int high = hex_digit(path.p[PREFIX_SIZE + 2 * i]);
        int low = hex_digit(path.p[PREFIX_SIZE + 2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        id->b[i] = (uint8_t)(high << 4 | low);
    }
    return !cq_id_is_none(id);
}

/* ---- base64 ---- */

static int
base64_digit(uint8_t b)
{
    if (b >= 'A' && b <= 'Z') {
        return b - 'A';
    }
    if (b >= 'a' && b <= 'z') {
        return b - 'a' + 26;
    }
    if (b >= '0' && b <= '9') {
        return b - '0' + 52;
    }
    if (b == '+' || b == '-') {
        return 62;
    }
    return b == '/' || b == '_' ? 63 : -1;
}

int
edge_tus_base64(struct cq_view text, uint8_t *out, size_t room)
{
    size_t digits = text.n;
    while (digits && text.n - digits < 2 && text.p[digits - 1] == '=') {
        digits--;
    }
    bool is_padded = digits != text.n;
    if (digits % 4 == 1 || (is_padded && text.n % 4) || digits / 4 * 3 + 2 > INT32_MAX) {
        return -CQ_E_BAD_ARG;
    }
    uint32_t bits = 0;
    size_t n = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = base64_digit(text.p[i]);
        if (digit < 0) {
            return -CQ_E_BAD_ARG;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 == 0) {
            continue; /* six bits are no byte yet */
        }
        if (n == room) {
            return -CQ_E_BAD_ARG;
        }
        unsigned left = (unsigned)(6 - 2 * (i % 4)); /* bits behind this byte */
        out[n++] = (uint8_t)(bits >> left);
    }
    /* What is behind the last byte must be 0: one text for one value. */
    unsigned over = digits % 4 == 2 ? 15 : digits % 4 == 3 ? 3 : 0;
    return bits & over ? -CQ_E_BAD_ARG : (int)n;
}

int
edge_tus_bearer(struct cq_view field, uint8_t *out, size_t room)
{
    static const char scheme[] = "Bearer ";
    size_t skip = sizeof scheme - 1;
    if (field.n <= skip || strncasecmp((const char *)field.p, scheme, skip) != 0) {
        return -CQ_E_BAD_TOKEN;
    }
    int n = edge_tus_base64((struct cq_view){field.p + skip, field.n - skip}, out, room);
    return n < 0 ? -CQ_E_BAD_TOKEN : n;
}

/* ---- lists ---- */

static struct cq_view
trim(struct cq_view v)
{
    while (v.n && (v.p[0] == ' ' || v.p[0] == '\t')) {
        v.p++;
        v.n--;
    }
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t')) {
        v.n--;
    }
    return v;
}

/* Splits off what is before `mark` (all, if there is none), without blanks around it. False: there
 * is nothing left. */
static bool
split(struct cq_view *rest, char mark, struct cq_view *out)
{
    if (!rest->p) {
        return false;
    }
    const uint8_t *end = rest->n ? memchr(rest->p, mark, rest->n) : NULL;
    size_t n = end ? (size_t)(end - rest->p) : rest->n;
    *out = trim((struct cq_view){rest->p, n});
    *rest = end ? (struct cq_view){end + 1, rest->n - n - 1} : (struct cq_view){0};
    return true;
}

static bool
has_key(const struct cq_view *keys, size_t count, struct cq_view key)
{
    for (size_t i = 0; i < count; i++) {
        if (keys[i].n == key.n && memcmp(keys[i].p, key.p, key.n) == 0) {
            return true;
        }
    }
    return false;
}

bool
edge_tus_metadata_ok(struct cq_view field)
{
    struct cq_view keys[KEYS_MAX], pair;
    size_t count = 0;
    while (split(&field, ',', &pair)) {
        struct cq_view key = {0};
        uint8_t value[METADATA_VALUE_MAX];
        (void)split(&pair, ' ', &key);
        bool ok = key.n && count < KEYS_MAX && !has_key(keys, count, key);
        if (!ok || edge_tus_base64(trim(pair), value, sizeof value) < 0) {
            return false;
        }
        keys[count++] = key;
    }
    return count > 0;
}

int
edge_tus_checksum(struct cq_view field, struct edge_tus_checksum *out)
{
    struct cq_view name = {0};
    if (!split(&field, ' ', &name) || !name.n ||
        !edge_head_copy(name, out->hash, sizeof out->hash)) {
        return -CQ_E_BAD_ARG;
    }
    int n = edge_tus_base64(trim(field), out->digest, sizeof out->digest);
    out->size = n > 0 ? (size_t)n : 0;
    return n > 0 ? 0 : -CQ_E_BAD_ARG;
}

/* ---- downloads ---- */

void
edge_tus_range(struct cq_view field, struct edge_tus_range *r)
{
    static const char unit[] = "bytes=";
    size_t skip = sizeof unit - 1;
    struct cq_view first = {0};
    *r = (struct edge_tus_range){.last = UINT64_MAX};
    if (field.n <= skip || strncasecmp((const char *)field.p, unit, skip) != 0) {
        return;
    }
    struct cq_view last = {field.p + skip, field.n - skip};
    if (!memchr(last.p, '-', last.n) || !split(&last, '-', &first)) {
        return;
    }
    last = trim(last);
    r->is_suffix = !first.n;
    bool is_first = !first.n || edge_head_number(first, INT64_MAX, &r->first);
    bool is_last = last.n ? edge_head_number(last, INT64_MAX, &r->last) : !r->is_suffix;
    r->is_one = is_first && is_last && (r->is_suffix || r->first <= r->last);
}

bool
edge_tus_range_of(const struct edge_tus_range *r, uint64_t length, uint64_t *from, uint64_t *n)
{
    if (r->is_suffix) {
        *n = r->last < length ? r->last : length;
        *from = length - *n;
    } else {
        uint64_t end = r->last < length ? r->last + 1 : length;
        *from = r->first;
        *n = r->first < end ? end - r->first : 0;
    }
    return *n > 0;
}

bool
edge_tus_etag_listed(struct cq_view list, const char *etag)
{
    struct cq_view entry;
    if (edge_head_is(list, "*")) {
        return true;
    }
    while (split(&list, ',', &entry)) {
        bool is_weak = entry.n > 2 && entry.p[0] == 'W' && entry.p[1] == '/';
        struct cq_view tag = is_weak ? (struct cq_view){entry.p + 2, entry.n - 2} : entry;
        if (edge_head_is(tag, etag)) {
            return true;
        }
    }
    return false;
}
