/* SPDX-License-Identifier: MPL-2.0
 * Formats: https://github.com/msgpack/msgpack/blob/master/spec.md
 * Any width of an integer or length is accepted, as the specification asks of readers.
 */
#include "common/wire/read.h"

static void
fail(cq_reader_t *r, int err)
{
    if (!r->err) {
        r->err = -err;
    }
    r->p = r->end;
}

/* n bytes, big-endian; n <= 8. */
static inline uint64_t
take_be(cq_reader_t *r, size_t n)
{
    if ((size_t)(r->end - r->p) < n) {
        fail(r, CQ_E_BAD_FRAME);
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | r->p[i];
    }
    r->p += n;
    return v;
}

static struct cq_view
take_bytes(cq_reader_t *r, uint64_t n, size_t min, size_t max)
{
    if (r->err) {
        return (struct cq_view){0};
    }
    if (n > (uint64_t)(r->end - r->p)) {
        fail(r, CQ_E_BAD_FRAME);
        return (struct cq_view){0};
    }
    if (n < min || n > max) {
        fail(r, CQ_E_BAD_ARG);
        return (struct cq_view){0};
    }
    struct cq_view v = {r->p, (size_t)n};
    r->p += n;
    return v;
}

uint64_t
cq_read_uint(cq_reader_t *r, uint64_t max)
{
    uint64_t tag = take_be(r, 1);
    uint64_t v = 0;
    if (tag <= 0x7f) {
        v = tag;
    } else if (tag >= 0xcc && tag <= 0xcf) {
        v = take_be(r, (size_t)1 << (tag - 0xcc));
    } else {
        fail(r, CQ_E_BAD_ARG);
    }
    if (v > max) {
        fail(r, CQ_E_BAD_ARG);
        v = 0;
    }
    return v;
}

bool
cq_read_bool(cq_reader_t *r)
{
    uint64_t tag = take_be(r, 1);
    if (!r->err && tag != 0xc2 && tag != 0xc3) {
        fail(r, CQ_E_BAD_ARG);
    }
    return !r->err && tag == 0xc3;
}

struct cq_view
cq_read_bin(cq_reader_t *r, size_t min, size_t max)
{
    uint64_t tag = take_be(r, 1);
    uint64_t n = 0;
    if (tag >= 0xc4 && tag <= 0xc6) {
        n = take_be(r, (size_t)1 << (tag - 0xc4));
    } else {
        fail(r, CQ_E_BAD_ARG);
    }
    return take_bytes(r, n, min, max);
}

struct cq_view
cq_read_str(cq_reader_t *r, size_t min, size_t max)
{
    uint64_t tag = take_be(r, 1);
    uint64_t n = 0;
    if (tag >= 0xa0 && tag <= 0xbf) {
        n = tag & 0x1f;
    } else if (tag >= 0xd9 && tag <= 0xdb) {
        n = take_be(r, (size_t)1 << (tag - 0xd9));
    } else {
        fail(r, CQ_E_BAD_ARG);
    }
    struct cq_view v = take_bytes(r, n, min, max);
    if (v.n && (memchr(v.p, 0, v.n) || !cq_utf8_ok(v.p, v.n))) {
        fail(r, CQ_E_BAD_ARG);
        v = (struct cq_view){0};
    }
    return v;
}

size_t
cq_read_array(cq_reader_t *r, size_t min, size_t max)
{
    uint64_t tag = take_be(r, 1);
    uint64_t n = 0;
    if (tag >= 0x90 && tag <= 0x9f) {
        n = tag & 0x0f;
    } else if (tag == 0xdc || tag == 0xdd) {
        n = take_be(r, tag == 0xdc ? 2 : 4);
    } else {
        fail(r, CQ_E_BAD_ARG);
    }
    if (!r->err && (n < min || n > max)) {
        fail(r, CQ_E_BAD_ARG);
    }
    return r->err ? 0 : (size_t)n;
}

bool
cq_read_nil(cq_reader_t *r)
{
    if (r->p < r->end && *r->p == 0xc0) {
        r->p++;
        return true;
    }
    return false;
}

struct cq_id
cq_read_id(cq_reader_t *r)
{
    struct cq_id id = {0};
    struct cq_view v = cq_read_bin(r, CQ_ID_SIZE, CQ_ID_SIZE);
    if (v.n) {
        memcpy(id.b, v.p, CQ_ID_SIZE);
    }
    return id;
}

struct cq_id
cq_read_id_or_nil(cq_reader_t *r)
{
    return cq_read_nil(r) ? (struct cq_id){0} : cq_read_id(r);
}

/* Bytes of payload after the tag (and its length bytes, which are consumed); sets *items for arrays
 * and maps. */
static uint64_t
payload_of(cq_reader_t *r, uint64_t tag, uint64_t *items)
{
    static const uint8_t fixed[] = {
        /* 0xca float 32 … 0xd3 int 64 */ 4,
        8,
        1,
        2,
        4,
        8,
        1,
        2,
        4,
        8,
        /* 0xd4 fixext 1 … 16, with the type byte */ 2,
        3,
        5,
        9,
        17,
    };
    *items = 0;
    if (tag <= 0x7f || tag >= 0xe0 || (tag >= 0xc0 && tag <= 0xc3 && tag != 0xc1)) {
        return 0;
    }
    if (tag <= 0x8f) {
        *items = 2 * (tag & 0x0f);
        return 0;
    }
    if (tag <= 0x9f) {
        *items = tag & 0x0f;
        return 0;
    }
    if (tag <= 0xbf) {
        return tag & 0x1f;
    }
    if (tag >= 0xc4 && tag <= 0xc6) {
        return take_be(r, (size_t)1 << (tag - 0xc4));
    }
    if (tag >= 0xc7 && tag <= 0xc9) {
        return take_be(r, (size_t)1 << (tag - 0xc7)) + 1;
    }
    if (tag >= 0xca && tag <= 0xd8) {
        return fixed[tag - 0xca];
    }
    if (tag >= 0xd9 && tag <= 0xdb) {
        return take_be(r, (size_t)1 << (tag - 0xd9));
    }
    if (tag >= 0xdc && tag <= 0xdf) {
        *items = take_be(r, tag & 1 ? 4 : 2) * (tag >= 0xde ? 2 : 1);
        return 0;
    }
    fail(r, CQ_E_BAD_FRAME); /* 0xc1 is never used */
    return 0;
}

/* Steps over a value of one of the two kinds that nearly all values have: a small number, a short
 * bin. Everything is walked over several times on its way, so this counts. */
static inline bool
skip_common(cq_reader_t *r)
{
    size_t n = (size_t)(r->end - r->p);
    if (n && r->p[0] <= 0x7f) {
        r->p++;
        return true;
    }
    if (n >= 2 && r->p[0] == 0xc4 && n - 2 >= r->p[1]) {
        r->p += 2 + (size_t)r->p[1];
        return true;
    }
    return false;
}

struct cq_view
cq_read_any(cq_reader_t *r)
{
    const uint8_t *start = r->p;
    uint64_t left[CQ_DEPTH_MAX]; /* values still to come, per open array */
    int depth = 0;
    left[0] = 1;
    while (depth >= 0 && !r->err) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        if (skip_common(r)) {
            continue;
        }
        uint64_t items = 0;
        uint64_t tag = take_be(r, 1);
        uint64_t bytes = payload_of(r, tag, &items);
        (void)take_bytes(r, bytes, 0, SIZE_MAX);
        if (items && ++depth == CQ_DEPTH_MAX) {
            fail(r, CQ_E_BAD_FRAME);
        } else if (items) {
            left[depth] = items;
        }
    }
    return r->err ? (struct cq_view){0} : (struct cq_view){start, (size_t)(r->p - start)};
}

/* Bytes of the UTF-8 sequence that starts at s (n > 0 bytes left), or 0. Table 3-7 of the Unicode
 * Standard. */
static size_t
utf8_sequence(const uint8_t *s, size_t n)
{
    uint8_t c = s[0];
    if (c < 0x80) {
        return 1;
    }
    size_t len = c >= 0xc2 && c <= 0xdf   ? 2
                 : (c & 0xf0) == 0xe0     ? 3
                 : c >= 0xf0 && c <= 0xf4 ? 4
                                          : 0;
    if (len == 0 || len > n) {
        return 0;
    }
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return len;
}

bool
cq_utf8_ok(const void *s, size_t n)
{
    const uint8_t *p = s;
    while (n) {
        size_t len = utf8_sequence(p, n);
        if (len == 0) {
            return false;
        }
        p += len;
        n -= len;
    }
    return true;
}
