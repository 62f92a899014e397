/* SPDX-License-Identifier: MPL-2.0
 * Everything is judged as early as the bytes allow: the first byte, the second, the length, and
 * text byte by byte, so that a peer that breaks the rules is told so at once and nothing is kept
 * for it.
 */
#include "edge/frame.h"

#include <string.h>

enum {
    FIN = 0x80,
    RESERVED = 0x70,
    OPCODE = 0x0f,
    MASKED = 0x80,
    LENGTH = 0x7f,
    LENGTH16 = 126,
    LENGTH64 = 127,
    MASK_SIZE = 4,
    CONTROL = 8,
    CODE_APPLICATIONS = 3000,
    CODE_END = 5000
};

/* ---- UTF-8 (RFC 3629) ---- */

/* Lead bytes, with what may follow them. */
static const struct lead {
    uint8_t first, last, need, lo, hi;
} leads[] = {
    {0xc2, 0xdf, 1, 0x80, 0xbf}, {0xe0, 0xe0, 2, 0xa0, 0xbf}, {0xe1, 0xec, 2, 0x80, 0xbf},
    {0xed, 0xed, 2, 0x80, 0x9f}, {0xee, 0xef, 2, 0x80, 0xbf}, {0xf0, 0xf0, 3, 0x90, 0xbf},
    {0xf1, 0xf3, 3, 0x80, 0xbf}, {0xf4, 0xf4, 3, 0x80, 0x8f},
};

static bool
take_lead(struct edge_utf8 *u, uint8_t b)
{
    for (size_t i = 0; i < sizeof leads / sizeof leads[0]; i++) {
        if (b >= leads[i].first && b <= leads[i].last) {
            *u = (struct edge_utf8){leads[i].need, leads[i].lo, leads[i].hi};
            return true;
        }
    }
    return false;
}

bool
edge_frame_utf8(struct edge_utf8 *u, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    while (p < end) {
        uint64_t eight;
        if (!u->need && end - p >= 8 &&
            (memcpy(&eight, p, sizeof eight), !(eight & 0x8080808080808080u))) {
            p += 8;
        } else if (u->need) {
            if (*p < u->lo || *p > u->hi) {
                return false;
            }
            *u = (struct edge_utf8){(uint8_t)(u->need - 1), 0x80, 0xbf};
            p++;
        } else {
            if (*p >= 0x80 && !take_lead(u, *p)) {
                return false;
            }
            p++;
        }
    }
    return true;
}

/* ---- headers ---- */

static bool
is_control(uint8_t opcode)
{
    return opcode & CONTROL;
}

static int
check_first(struct edge_frame *f, const struct edge_frame_limits *limits)
{
    uint8_t b = f->header[0];
    uint8_t opcode = b & OPCODE;
    f->opcode = opcode;
    f->is_final = b & FIN;
    if (b & RESERVED || (opcode > EDGE_FRAME_BINARY && opcode < EDGE_FRAME_CLOSE) ||
        opcode > EDGE_FRAME_PONG) {
        return -EDGE_FRAME_E_PROTOCOL;
    }
    if (is_control(opcode)) {
        return f->is_final ? 0 : -EDGE_FRAME_E_PROTOCOL;
    }
    /* A continuation needs a message under way, anything else needs none. */
    if ((opcode == EDGE_FRAME_CONTINUATION) != (f->message != 0)) {
        return -EDGE_FRAME_E_PROTOCOL;
    }
    return opcode == EDGE_FRAME_TEXT && !limits->takes_text ? -EDGE_FRAME_E_KIND : 0;
}

static int
check_second(const struct edge_frame *f)
{
    uint8_t b = f->header[1];
    if (!(b & MASKED) || (is_control(f->opcode) && (b & LENGTH) > EDGE_FRAME_CONTROL_MAX)) {
        return -EDGE_FRAME_E_PROTOCOL;
    }
    return 0;
}

static size_t
length_size(const struct edge_frame *f)
{
    uint8_t length = f->header[1] & LENGTH;
    return length == LENGTH16 ? 2 : length == LENGTH64 ? 8 : 0;
}

static int
check_length(struct edge_frame *f, const struct edge_frame_limits *limits)
{
    size_t size = length_size(f);
    uint64_t n = size ? 0 : f->header[1] & LENGTH;
    for (size_t i = 0; i < size; i++) {
        n = n << 8 | f->header[2 + i];
    }
    bool is_longer_than_needed = (size == 2 && n < LENGTH16) || (size == 8 && n <= UINT16_MAX);
    if (is_longer_than_needed || n >> 63) {
        return -EDGE_FRAME_E_PROTOCOL;
    }
    if (!is_control(f->opcode) &&
        (n > limits->frame_max_bytes || n > limits->message_max_bytes - f->message_bytes)) {
        return -EDGE_FRAME_E_TOO_BIG;
    }
    f->left = n;
    return 0;
}

/* What a new message brings with it, and what each of its frames adds. */
static int
begin_payload(struct edge_frame *f)
{
    f->is_payload = true;
    f->mask_at = 0;
    if (is_control(f->opcode)) {
        return 0;
    }
    if (f->opcode != EDGE_FRAME_CONTINUATION) {
        f->message = f->opcode;
        f->fragments = 0;
        f->utf8 = (struct edge_utf8){0};
    }
    f->message_bytes += f->left;
    return ++f->fragments == EDGE_FRAME_FRAGMENTS_MAX ? -EDGE_FRAME_E_TOO_BIG : 0;
}

/* Takes bytes of the header. 1: it is complete; 0: more is needed; negative: refused. */
static int
take_header(struct edge_frame *f,
            const struct edge_frame_limits *limits,
            uint8_t **at,
            const uint8_t *end)
{
    while (*at < end) {
        f->header[f->header_size++] = *(*at)++;
        size_t have = f->header_size;
        int rc = 0;
        if (have == 1) {
            rc = check_first(f, limits);
        } else if (have == 2) {
            rc = check_second(f);
        }
        if (!rc && have >= 2 && have == 2 + length_size(f)) {
            rc = check_length(f, limits);
        }
        if (!rc && have > 2 && have == 2 + length_size(f) + MASK_SIZE) {
            rc = begin_payload(f);
            return rc ? rc : 1;
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* ---- payload ---- */

static void
unmask(struct edge_frame *f, uint8_t *p, size_t n)
{
    const uint8_t *mask = f->header + f->header_size - MASK_SIZE;
    uint8_t turned[8];
    for (size_t i = 0; i < sizeof turned; i++) {
        turned[i] = mask[(f->mask_at + i) % MASK_SIZE];
    }
    uint64_t eight;
    memcpy(&eight, turned, sizeof eight);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, sizeof word);
        word ^= eight;
        memcpy(p + i, &word, sizeof word);
    }
    for (; i < n; i++) {
        p[i] ^= turned[i % MASK_SIZE];
    }
    f->mask_at = (uint8_t)((f->mask_at + n) % MASK_SIZE);
}

static int
check_text(struct edge_frame *f, const struct edge_frame_part *part)
{
    if (part->opcode == EDGE_FRAME_TEXT && (!edge_frame_utf8(&f->utf8, part->data, part->n) ||
                                            (part->is_message_end && f->utf8.need))) {
        return -EDGE_FRAME_E_UTF8;
    }
    return 0;
}

int
edge_frame_next(struct edge_frame *f,
                const struct edge_frame_limits *limits,
                uint8_t **at,
                const uint8_t *end,
                struct edge_frame_part *part)
{
    if (!f->is_payload) {
        int rc = take_header(f, limits, at, end);
        if (rc <= 0) {
            return rc;
        }
    }
    size_t n = (size_t)(end - *at);
    n = n > f->left ? (size_t)f->left : n;
    if (!n && f->left) {
        return 0;
    }
    bool control = is_control(f->opcode);
    *part = (struct edge_frame_part){
        .opcode = control ? f->opcode : f->message,
        .is_frame_end = n == f->left,
        .is_message_end = n == f->left && f->is_final && !control,
        .data = *at,
        .n = n,
    };
    unmask(f, part->data, n);
    *at += n;
    f->left -= n;
    if (part->is_frame_end) {
        f->is_payload = false;
        f->header_size = 0;
    }
    int rc = check_text(f, part);
    if (part->is_message_end) {
        f->message = 0;
        f->message_bytes = 0;
    }
    return rc ? rc : 1;
}

/* ---- ours ---- */

size_t
edge_frame_write_header(uint8_t *payload, enum edge_frame_opcode opcode, uint64_t n)
{
    size_t length = n < LENGTH16 ? 0 : n <= UINT16_MAX ? 2 : 8;
    uint8_t *p = payload - length - 2;
    p[0] = (uint8_t)(FIN | opcode);
    p[1] = (uint8_t)(length == 0 ? n : length == 2 ? LENGTH16 : LENGTH64);
    for (size_t i = 0; i < length; i++) {
        p[2 + i] = (uint8_t)(n >> (8 * (length - 1 - i)));
    }
    return length + 2;
}

/* Codes that may be on the wire: those that are registered, and those left to libraries and
 * applications. */
static bool
is_code(unsigned code)
{
    static const uint16_t registered[] = {1000, 1001, 1002, 1003, 1007, 1008,
                                          1009, 1010, 1011, 1012, 1013, 1014};
    for (size_t i = 0; i < sizeof registered / sizeof registered[0]; i++) {
        if (registered[i] == code) {
            return true;
        }
    }
    return code >= CODE_APPLICATIONS && code < CODE_END;
}

int
edge_frame_read_close(const uint8_t *payload, size_t n)
{
    if (!n) {
        return 0;
    }
    unsigned code = n < 2 ? 0 : (unsigned)payload[0] << 8 | payload[1];
    if (!is_code(code)) {
        return -EDGE_FRAME_E_PROTOCOL;
    }
    struct edge_utf8 u = {0};
    return edge_frame_utf8(&u, payload + 2, n - 2) && !u.need ? (int)code : -EDGE_FRAME_E_UTF8;
}
