/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/name.h"
#include "common/wire/read.h"

static bool
name_ok(const char *s)
{
    return cq_name_ok(s, strlen(s));
}

static bool
actor_ok(const char *s)
{
    return cq_actor_name_ok(s, strlen(s));
}

static void
names(void **state)
{
    (void)state;
    assert_true(name_ok("abc"));
    assert_true(name_ok("a.b_c-9"));
    assert_true(name_ok("abcdefghijklmnopqrstuvwxyz012345"));
    assert_false(name_ok("abcdefghijklmnopqrstuvwxyz0123456"));
    assert_false(name_ok("ab"));
    assert_false(name_ok(""));
    assert_false(name_ok("Abc"));
    assert_false(name_ok("a b"));
    assert_false(name_ok("abc\n"));
    assert_false(name_ok("gr\xc3\xbc"
                         "n"));
    assert_false(cq_name_ok("abc\0", 4));
    assert_true(actor_ok("e"));
    assert_true(actor_ok("abcdefghijklmnopqrstuvwxyz01234"));
    assert_false(actor_ok("abcdefghijklmnopqrstuvwxyz012345"));
    assert_false(actor_ok(""));
    assert_false(actor_ok("edge#1"));
}

/* Every byte alone, in the middle of a name. */
static void
every_byte(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char s[3] = {'a', (char)c, 'b'};
        bool expected =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        assert_int_equal(cq_name_ok(s, 3), expected);
        assert_int_equal(cq_actor_name_ok(s, 3), expected);
    }
}

/* Bytes that a sequence with this first byte has, 0 for none. */
static size_t
length_of(uint8_t c)
{
    if (c < 0x80) {
        return 1;
    }
    if (c < 0xc0 || c >= 0xf8) {
        return 0;
    }
    return c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* A decoder written the slow way: the code point, then the rules of RFC 3629. */
static bool
slow_sequence_ok(const uint8_t *s, size_t len)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (size_t k = 1; k < len; k++) {
        if ((s[k] & 0xc0) != 0x80) {
            return false;
        }
        c = c << 6 | (s[k] & 0x3fu);
    }
    return c >= smallest[len] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

static bool
slow_utf8(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = length_of(s[i]);
        if (len == 0 || i + len > n || !slow_sequence_ok(s + i, len)) {
            return false;
        }
        i += len;
    }
    return true;
}

static void
compare(const uint8_t *s, size_t n)
{
    if (cq_utf8_ok(s, n) != slow_utf8(s, n)) {
        fail_msg("%02x %02x %02x %02x", s[0], s[1], s[2], n > 3 ? s[3] : 0);
    }
}

/* All sequences of up to three bytes, and four-byte ones at the bounds. */
static void
utf8_table(void **state)
{
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                    0xa0, 0xbf, 0xc0, 0xc2, 0xf4, 0xff};
    enum {
        EDGES = sizeof edges
    };
    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        const uint8_t s[3] = {(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
        compare(s, 3);
    }
    for (uint32_t v = 0; v < 16 * EDGES * EDGES * EDGES; v++) {
        const uint8_t s[4] = {(uint8_t)(0xf0 + v % 16), edges[v / 16 % EDGES],
                              edges[v / 16 / EDGES % EDGES], edges[v / 16 / EDGES / EDGES]};
        compare(s, 4);
    }
    assert_true(cq_utf8_ok("", 0));
}

static void
errors(void **state)
{
    (void)state;
    assert_string_equal(cq_err_name(-CQ_E_BUSY), "BUSY");
    assert_string_equal(cq_err_name(CQ_E_BUSY), "BUSY");
    assert_string_equal(cq_err_name(9999), "UNKNOWN");
    assert_string_equal(cq_err_text(0), "ok");
    assert_int_equal(cq_err_by_name("UNROUTABLE"), CQ_E_UNROUTABLE);
    assert_int_equal(cq_err_by_name("NOPE"), -1);
}

static void
ids(void **state)
{
    struct cq_id a = {{0}};
    struct cq_id b = {{0, 1}};
    char hex[CQ_ID_HEX_SIZE];
    (void)state;
    assert_true(cq_id_is_none(&a));
    assert_false(cq_id_is_none(&b));
    assert_true(cq_id_cmp(&a, &b) < 0);
    assert_string_equal(cq_id_hex(&b, hex), "00010000000000000000000000000000");
    assert_int_equal(cq_id_partition(&b), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),  cmocka_unit_test(every_byte), cmocka_unit_test(utf8_table),
        cmocka_unit_test(errors), cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests_name("wire.name", tests, NULL, NULL);
}
