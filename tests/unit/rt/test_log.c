/* SPDX-License-Identifier: MPL-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/log.h"

static void
is_text(const char *in, size_t n, const char *expected)
{
    char out[128];
    assert_string_equal(cq_log_text(in, n, out, sizeof out), expected);
}

static void
text_is_escaped(void **state)
{
    (void)state;
    is_text("plain", 5, "plain");
    is_text("", 0, "\"\"");
    is_text("a b", 3, "\"a b\"");
    is_text("a=b", 3, "\"a=b\"");
    is_text("say \"hi\"\\", 9, "\"say \\\"hi\\\"\\\\\"");
    is_text("1\n2\r3\t4", 7, "\"1\\n2\\r3\\t4\"");
    is_text("\0\x1b[31m\x7f", 7, "\"\\x00\\x1b[31m\\x7f\"");
    is_text("gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f");
    is_text("\xe2\x82\xac \xf0\x9f\x98\x80", 8, "\"\xe2\x82\xac \xf0\x9f\x98\x80\"");
    is_text("\xff\xc3", 2, "\"\\xff\\xc3\"");
    is_text("\xc2\x9b", 2, "\"\\xc2\\x9b\"");
    is_text("\xed\xa0\x80", 3, "\"\\xed\\xa0\\x80\"");
}

/* Whatever the size: terminated, within it, closed quotes, no half escape. */
static void
text_is_cut_cleanly(void **state)
{
    static const char in[] = "a\n\"\xff\xe2\x82\xac b";
    char out[64];
    (void)state;
    for (size_t size = 0; size < sizeof out; size++) {
        memset(out, '#', sizeof out);
        (void)cq_log_text(in, sizeof in - 1, out, size);
        size_t n = size ? strlen(out) : 0;
        assert_true(size == 0 || n < size);
        for (size_t i = size; i < sizeof out; i++) {
            assert_int_equal(out[i], '#');
        }
        assert_true(n == 0 || (n >= 2 && out[0] == '"' && out[n - 1] == '"'));
    }
}

static void
levels(void **state)
{
    (void)state;
    assert_int_equal(cq_log_level_by_name("debug"), CQ_LOG_DEBUG);
    assert_int_equal(cq_log_level_by_name("error"), CQ_LOG_ERROR);
    assert_int_equal(cq_log_level_by_name("loud"), -1);
    cq_log_init("part.1", CQ_LOG_WARN);
    assert_false(cq_log_is_on(CQ_LOG_INFO));
    assert_true(cq_log_is_on(CQ_LOG_WARN));
}

static int calls;

static int
expensive(void)
{
    return ++calls;
}

/* Lines as they reach stderr. A pipe in packet mode tells one write(2) from several. */
static void
lines(void **state)
{
    int ends[2];
    char line[4096];
    char big[4000];
    (void)state;
    assert_int_equal(pipe2(ends, O_DIRECT), 0);
    int old = dup(STDERR_FILENO);
    (void)dup2(ends[1], STDERR_FILENO);
    cq_log_init("part.1", CQ_LOG_INFO);
    CQ_LOG(DEBUG, "TEST-LOG-OFF", "n=%d", expensive());
    CQ_LOG(INFO, "TEST-LOG-LINE", "n=%d text=%s", 7, "two\nlines");
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    CQ_LOG(ERROR, "TEST-LOG-BIG", "text=%s", big);
    (void)dup2(old, STDERR_FILENO);
    (void)close(old);
    assert_int_equal(calls, 0);
    ssize_t n = read(ends[0], line, sizeof line - 1);
    assert_true(n > 0);
    line[n] = '\0';
    assert_non_null(strstr(line, "Z level=info part=part.1 id=TEST-LOG-LINE n=7 text=two?lines\n"));
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    n = read(ends[0], line, sizeof line - 1);
    assert_true(n > 100 && n <= 2048);
    assert_int_equal(line[n - 1], '\n');
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(text_is_cut_cleanly),
        cmocka_unit_test(levels),
        cmocka_unit_test(lines),
    };
    return cmocka_run_group_tests_name("rt.log", tests, NULL, NULL);
}
