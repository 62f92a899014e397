/* SPDX-License-Identifier: MPL-2.0 */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/output.h"

static void
expect_safe(const char *s, size_t n, size_t columns, const char *expected)
{
    char *got = out_safe(s, n, columns);
    assert_string_equal(got, expected);
    free(got);
}

#define SAFE(s, expected) expect_safe((s), sizeof(s) - 1, 0, expected)

static void
test_escapes(void **state)
{
    (void)state;
    SAFE("plain ☕ 你好 ünï", "plain ☕ 你好 ünï");
    SAFE("\x1b[2J\x1b]0;t\x07", "\\x1b[2J\\x1b]0;t\\x07");
    SAFE("a\nb\tc\rd", "a ⏎ b    c\\x0dd");
    SAFE("\xc2\x9b"
         "31m",
         "\\x9b31m"); /* C1 CSI */
    SAFE("\x7f", "\\x7f");
    SAFE("\xe2\x80\xae"
         "evil\xe2\x81\xa9",
         "\\u{202e}evil\\u{2069}");
    SAFE("\xef\xbb\xbf", "\\u{feff}");
    SAFE("\xff\xc3(", "\\xff\\xc3(");
    SAFE("\xe2\x98", "\\xe2\\x98");
}

/* No byte sequence gets a control character through. */
static void
test_no_control_survives(void **state)
{
    (void)state;
    unsigned seed = 12345;
    for (int round = 0; round < 20000; round++) {
        char bytes[12];
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1103515245u + 12345u;
            bytes[i] = (char)(seed >> 16);
        }
        char *safe = out_safe(bytes, sizeof bytes, round % 7);
        for (const char *p = safe; *p; p++) {
            assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
            assert_false((unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0);
        }
        free(safe);
    }
}

static void
test_width(void **state)
{
    (void)state;
    assert_int_equal(out_width("abc", 3), 3);
    assert_int_equal(out_width("ü", 2), 1);
    assert_int_equal(out_width("你好", 6), 4);
    expect_safe("abcdef", 6, 6, "abcdef");
    expect_safe("abcdefg", 7, 6, "abcde…");
    expect_safe("你好你好", 12, 5, "你好…");
}

static void
test_json(void **state)
{
    (void)state;
    cq_buf_t b = {0};
    json_begin(&b, "t");
    json_text(&b, "s", "q\" b\\ n\n \x1b \xff ☕", strlen("q\" b\\ n\n \x1b \xff ☕"));
    json_uint(&b, "u", UINT64_MAX);
    json_bool(&b, "b", true);
    json_null(&b, "n");
    cq_buf_append(&b, "", 1);
    assert_string_equal((const char *)b.data, "{\"type\":\"t\",\"s\":\"q\\\" b\\\\ n\\u000a "
                                              "\\u001b \\ufffd ☕\",\"u\":18446744073709551615,"
                                              "\"b\":true,\"n\":null");
    cq_buf_free(&b);
}

static void
test_times(void **state)
{
    (void)state;
    char s[64];
    const uint64_t now = 1700000000000; /* 2023-11-14 22:13:20 UTC */
    assert_string_equal(out_ago(now - 5000, now, s, sizeof s), "just now");
    assert_string_equal(out_ago(now + 5000, now, s, sizeof s), "just now");
    assert_string_equal(out_ago(now - 5 * UINT64_C(60000), now, s, sizeof s), "5 min ago");
    assert_string_equal(out_ago(now - 2 * UINT64_C(3600000), now, s, sizeof s), "today 20:13");
    assert_string_equal(out_ago(now - 24 * UINT64_C(3600000), now, s, sizeof s), "yesterday 22:13");
    assert_string_equal(out_ago(now - 3 * 86400000ull, now, s, sizeof s), "11 Nov 22:13");
    assert_string_equal(out_ago(now - 400 * 86400000ull, now, s, sizeof s), "2022-10-10");
    assert_string_equal(out_clock(now, now, s, sizeof s), "22:13:20");
    assert_string_equal(out_stamp(now + 7, now, s, sizeof s), "22:13:20.007");
    assert_string_equal(out_after(now, now, s, sizeof s), "0 ms");
    assert_string_equal(out_after(now, now + 999, s, sizeof s), "999 ms");
    assert_string_equal(out_after(now, now + 1240, s, sizeof s), "1.24 s");
    assert_string_equal(out_after(now, now + 200999, s, sizeof s), "3 min 20 s");
    assert_string_equal(out_after(now, now + 5 * 3600000 + 600000, s, sizeof s), "5 h 10 min");
    assert_string_equal(out_after(now, now + 12 * 86400000ull + 3 * 3600000, s, sizeof s),
                        "12 d 3 h");
    assert_string_equal(out_after(now, now - 1, s, sizeof s), "earlier");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes), cmocka_unit_test(test_no_control_survives),
        cmocka_unit_test(test_width),   cmocka_unit_test(test_json),
        cmocka_unit_test(test_times),
    };
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    (void)setenv("TZ", "UTC", 1);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    if (!setlocale(LC_CTYPE, "C.UTF-8")) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
