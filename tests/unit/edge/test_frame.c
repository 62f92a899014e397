/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "edge/frame.h"

enum {
    ROOM = 70000
};

static const struct edge_frame_limits limits = {65536, 65536, true};
static const struct edge_frame_limits binary_only = {65536, 65536, false};

/* What a stream of bytes yields: the messages one after the other, and how it ended. */
struct outcome {
    uint8_t data[ROOM];
    size_t size;
    size_t messages, controls;
    int rc;
};

static struct outcome
run(const struct edge_frame_limits *l, const uint8_t *bytes, size_t n, size_t step)
{
    struct outcome o = {.size = 0};
    static uint8_t copy[ROOM];
    memcpy(copy, bytes, n);
    struct edge_frame f = {0};
    for (size_t at = 0; at < n && !o.rc; at += step) {
        uint8_t *p = copy + at;
        const uint8_t *end = copy + (at + step < n ? at + step : n);
        struct edge_frame_part part;
        int rc;
        while ((rc = edge_frame_next(&f, l, &p, end, &part)) > 0) {
            assert_true(part.n <= ROOM - o.size);
            memcpy(o.data + o.size, part.data, part.n);
            o.size += part.n;
            o.messages += part.is_message_end;
            o.controls += part.is_frame_end && part.opcode >= EDGE_FRAME_CLOSE;
        }
        o.rc = rc;
        assert_true(rc < 0 || p == end);
    }
    return o;
}

/* In one piece, byte by byte, and in threes: the outcome must not depend on it. */
static struct outcome
run_all(const struct edge_frame_limits *l, const void *bytes, size_t n)
{
    struct outcome whole = run(l, bytes, n, n ? n : 1);
    static const size_t steps[] = {1, 3};
    for (size_t i = 0; i < 2; i++) {
        struct outcome pieces = run(l, bytes, n, steps[i]);
        assert_int_equal(pieces.rc, whole.rc);
        assert_int_equal(pieces.messages, whole.messages);
        assert_int_equal(pieces.controls, whole.controls);
        if (!whole.rc) {
            assert_int_equal(pieces.size, whole.size);
            assert_memory_equal(pieces.data, whole.data, whole.size);
        }
    }
    return whole;
}

#define MASK "\x01\x02\x03\x04"

static void
test_masked_message(void **state)
{
    (void)state;
    uint8_t bytes[] = "\x82\x85" MASK "hello";
    for (size_t i = 0; i < 5; i++) {
        bytes[6 + i] ^= (uint8_t)(1 + i % 4);
    }
    struct outcome o = run_all(&limits, bytes, 11);
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.messages, 1);
    assert_memory_equal(o.data, "hello", 5);
}

static void
test_rules(void **state)
{
    (void)state;
#define CASE(code, text)                    \
    {                                       \
        code, sizeof text - 1, text, #text, \
    }
    static const struct {
        int code;
        size_t n;
        const char *bytes;
        const char *name;
    } cases[] = {
        CASE(1002, "\xc2\x80" MASK),                     /* reserved bits */
        CASE(1002, "\xa2\x80" MASK),                     /* */
        CASE(1002, "\x92\x80" MASK),                     /* */
        CASE(1002, "\x83\x80" MASK),                     /* reserved opcodes */
        CASE(1002, "\x87\x80" MASK),                     /* */
        CASE(1002, "\x8b\x80" MASK),                     /* */
        CASE(1002, "\x8f\x80" MASK),                     /* */
        CASE(1002, "\x82\x00"),                          /* not masked */
        CASE(1002, "\x09\x80" MASK),                     /* a fragmented Ping */
        CASE(1002, "\x89\xfe\x00\x7e" MASK),             /* a Ping of 126 bytes */
        CASE(1002, "\x80\x80" MASK),                     /* continuation of nothing */
        CASE(1002, "\x00\x80" MASK),                     /* */
        CASE(1002, "\x02\x80" MASK "\x82\x80" MASK),     /* a message in a message */
        CASE(1002, "\x01\x80" MASK "\x81\x80" MASK),     /* */
        CASE(1002, "\x82\xfe\x00\x7d" MASK),             /* 125 in two bytes */
        CASE(1002, "\x82\xff\0\0\0\0\0\0\xff\xff" MASK), /* 65535 in eight */
        CASE(1002, "\x82\xff\x80\0\0\0\0\0\0\0" MASK),   /* the top bit */
        CASE(1009, "\x82\xff\0\0\0\0\0\x01\0\x01" MASK), /* one byte too many */
        CASE(1009, "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" MASK),
        CASE(1007, "\x81\x81" MASK "\x81"),                  /* a continuation byte */
        CASE(1007, "\x81\x81" MASK "\xc3"),                  /* cut in a character */
        CASE(0, "\x01\x81" MASK "\xc3\x80\x81" MASK "\xa8"), /* in two frames */
        CASE(0, "\x01\x80" MASK "\x89\x80" MASK "\x80\x80" MASK),
        CASE(0, "\x82\xfe\x00\x7e"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome o = run_all(&limits, cases[i].bytes, cases[i].n);
        if (o.rc != -cases[i].code) {
            fail_msg("%s: %d instead of %d", cases[i].name, -o.rc, cases[i].code);
        }
    }
    assert_int_equal(run_all(&binary_only, "\x81", 1).rc, -1003);
    assert_int_equal(run_all(&binary_only, "\x01", 1).rc, -1003);
}

static void
test_limit_of_fragments_together(void **state)
{
    (void)state;
    struct edge_frame_limits small = {10, 15, true};
    static const char first[] = "\x02\x8a" MASK "0123456789\x00\x85" MASK "01234";
    static const char beyond[] = "\x02\x8a" MASK "0123456789\x00\x86" MASK;
    static const char frame[] = "\x82\x8b" MASK;
    assert_int_equal(run_all(&small, first, sizeof first - 1).rc, 0);
    assert_int_equal(run_all(&small, beyond, sizeof beyond - 1).rc, -1009);
    assert_int_equal(run_all(&small, frame, sizeof frame - 1).rc, -1009);
}

static void
test_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "plain text of more than eight bytes",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9d\x84\x9e",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf"};
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",           "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80",       "\xf5",
        "\xff",         "\xc3\x28",         "\xe2\x82\x28",       "12345678\xfe",
        "\xe2\x28\xa1", "\xf8\x88\x80\x80", "1234567\xc3\xa9\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct edge_utf8 u = {0};
        assert_true(edge_frame_utf8(&u, (const uint8_t *)good[i], strlen(good[i])) && !u.need);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct edge_utf8 u = {0};
        assert_false(edge_frame_utf8(&u, (const uint8_t *)bad[i], strlen(bad[i])) && !u.need);
    }
}

static void
test_close(void **state)
{
    (void)state;
    static const struct {
        const char *payload;
        size_t n;
        int code;
    } cases[] = {
        {"", 0, 0},
        {"\x03", 1, -1002},
        {"\x03\xe8", 2, 1000},
        {"\x03\xe8good bye", 10, 1000},
        {"\x03\xe8\xff", 3, -1007},
        {"\x03\xe8\xc3", 3, -1007},
        {"\x03\xe7", 2, -1002}, /* 999 */
        {"\x03\xec", 2, -1002}, /* 1004 */
        {"\x03\xed", 2, -1002}, /* 1005 */
        {"\x03\xee", 2, -1002}, /* 1006 */
        {"\x03\xef", 2, 1007},
        {"\x03\xf6", 2, 1014},
        {"\x03\xf7", 2, -1002}, /* 1015 */
        {"\x04\x4c", 2, -1002}, /* 1100 */
        {"\x0b\xb7", 2, -1002}, /* 2999 */
        {"\x0b\xb8", 2, 3000},
        {"\x13\x87", 2, 4999},
        {"\x13\x88", 2, -1002}, /* 5000 */
        {"\x00\x00", 2, -1002},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(edge_frame_read_close((const uint8_t *)cases[i].payload, cases[i].n),
                         cases[i].code);
    }
}

static void
test_our_headers(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        size_t size;
        uint8_t bytes[10];
    } cases[] = {
        {0, 2, {0x82, 0}},
        {125, 2, {0x82, 125}},
        {126, 4, {0x82, 126, 0, 126}},
        {65535, 4, {0x82, 126, 255, 255}},
        {65536, 10, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t room[EDGE_FRAME_OUT_HEADER_MAX];
        uint8_t *payload = room + sizeof room;
        assert_int_equal(edge_frame_write_header(payload, EDGE_FRAME_BINARY, cases[i].n),
                         cases[i].size);
        assert_memory_equal(payload - cases[i].size, cases[i].bytes, cases[i].size);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masked_message),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_limit_of_fragments_together),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_our_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
