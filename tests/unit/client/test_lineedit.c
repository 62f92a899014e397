/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/lineedit.h"

/* Types s; the last event. */
static enum lineedit_event
type(lineedit_t *e, const char *s)
{
    enum lineedit_event event = LINEEDIT_NOTHING;
    for (; *s; s++) {
        event = lineedit_feed(e, (unsigned char)*s);
    }
    return event;
}

static void
expect(const lineedit_t *e, const char *text, size_t cursor)
{
    size_t n;
    size_t at;
    const char *got = lineedit_text(e, &n, &at);
    assert_int_equal(n, strlen(text));
    if (n) {
        assert_memory_equal(got, text, n);
    }
    assert_int_equal(at, cursor);
}

static void
test_editing(void **state)
{
    (void)state;
    lineedit_t *e = lineedit_new_detached(64);
    assert_int_equal(type(e, "hé☕"), LINEEDIT_CHANGED);
    expect(e, "hé☕", 6);
    type(e, "\033[D\033[D");
    expect(e, "hé☕", 1);
    type(e, "x\177"); /* a character, and away with it */
    expect(e, "hé☕", 1);
    type(e, "\033[3~");
    expect(e, "h☕", 1);
    type(e, "\005\010");
    expect(e, "h", 1);
    type(e, " two words\027");
    expect(e, "h two ", 6);
    type(e, "\001\013");
    expect(e, "", 0);
    assert_int_equal(type(e, "\004"), LINEEDIT_END);
    assert_int_equal(type(e, "\003"), LINEEDIT_END);
    lineedit_destroy(&e);
}

static void
test_lines_and_history(void **state)
{
    (void)state;
    lineedit_t *e = lineedit_new_detached(64);
    cq_buf_t line = {0};
    assert_int_equal(type(e, "one\r"), LINEEDIT_LINE);
    lineedit_take(e, &line);
    assert_memory_equal(line.data, "one", 3);
    assert_true(lineedit_is_empty(e));
    type(e, "two\r");
    lineedit_take(e, &line);
    type(e, "\033[A\033[A\033[A");
    expect(e, "one", 3);
    type(e, "\033[B");
    expect(e, "two", 3);
    type(e, "\033[B\033[B");
    expect(e, "", 0);
    cq_buf_free(&line);
    lineedit_destroy(&e);
}

static void
test_paste_and_limits(void **state)
{
    (void)state;
    lineedit_t *e = lineedit_new_detached(8);
    assert_int_equal(type(e, "\033[200~a\rb\033[201~"), LINEEDIT_NOTHING);
    expect(e, "a\nb", 3);
    type(e, "123456789");
    expect(e, "a\nb12345", 8);
    /* sequences that nobody knows, also endless ones, leave no trace */
    type(e, "\033[99;99R\033x\033[1111111111111111111111");
    type(e, "\025");
    lineedit_destroy(&e);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_editing),
        cmocka_unit_test(test_lines_and_history),
        cmocka_unit_test(test_paste_and_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
