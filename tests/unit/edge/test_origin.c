/* SPDX-License-Identifier: MPL-2.0
 * Which origins may connect; comma lists.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/origin.h"

static const struct {
    const char *allowed, *origin, *host;
    bool ok;
} cases[] = {
    {"", NULL, "a:1", true},
    {"", "", "a:1", true},
    {"", "http://a:1", "a:1", true},
    {"", "https://A:1", "a:1", true},
    {"", "http://a:2", "a:1", false},
    {"", "http://evil.a:1", "a:1", false},
    {"", "null", "null", false},
    {"", "http://", "", false},
    {"", "http://a", NULL, false},
    {" , ", "http://a", "a", true},
    {"https://x", "https://x", "a", true},
    {"https://x", "https://x.evil", "a", false},
    {"https://x", "https://", "a", false},
    {"https://x", "http://a", "a", false},
    {"https://x , https://y:8", "https://y:8", "a", true},
    {"https://x", NULL, "a", true},
};

static void
test_origins(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (edge_origin_ok(cases[i].allowed, cases[i].origin, cases[i].host) != cases[i].ok) {
            fail_msg("case %zu", i);
        }
    }
}

static void
test_lists(void **state)
{
    (void)state;
    const char *at = " a,, b c ,d\t";
    const char *entry;
    size_t n;
    assert_true(edge_origin_list_next(&at, &entry, &n));
    assert_memory_equal(entry, "a", n);
    assert_true(edge_origin_list_next(&at, &entry, &n));
    assert_int_equal(n, 3);
    assert_memory_equal(entry, "b c", 3);
    assert_true(edge_origin_list_next(&at, &entry, &n));
    assert_int_equal(n, 1);
    assert_false(edge_origin_list_next(&at, &entry, &n));
    assert_true(edge_origin_list_has("foo, chasqui.v1", "chasqui.v1"));
    assert_false(edge_origin_list_has("chasqui.v1x, chasqui.v", "chasqui.v1"));
    assert_false(edge_origin_list_has("", "chasqui.v1"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_origins),
                                       cmocka_unit_test(test_lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
