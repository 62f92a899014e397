/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/reconnect.h"

static int
parse(const char *s, struct cq_url *u)
{
    return cq_url_parse(s, strlen(s), u);
}

static void
test_urls(void **state)
{
    (void)state;
    struct cq_url u;
    assert_int_equal(parse("ws://127.0.0.1:8080/ws", &u), 0);
    assert_string_equal(u.host, "127.0.0.1");
    assert_int_equal(u.port, 8080);
    assert_string_equal(u.path, "/ws");
    assert_false(u.is_tls);
    assert_int_equal(parse("wss://chat.example.org", &u), 0);
    assert_string_equal(u.host, "chat.example.org");
    assert_int_equal(u.port, 443);
    assert_string_equal(u.path, "/ws");
    assert_true(u.is_tls);
    assert_int_equal(parse("ws://[::1]:9/a/b?c=d", &u), 0);
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 9);
    assert_string_equal(u.path, "/a/b?c=d");
    assert_int_equal(parse("ws://[::1]/", &u), 0);
    assert_int_equal(u.port, 80);
    assert_string_equal(u.path, "/");
    static const char *const bad[] = {"",           "ws:",        "ws://",        "http://a/",
                                      "ws:///ws",   "ws://a:/ws", "ws://a:0/",    "ws://a:65536/",
                                      "ws://a:8x/", "ws://[::1",  "ws://[::1]x/", "ws://u@h/",
                                      "ws://a b/",  "ws://a/#f",  "ws://a\n/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_true(parse(bad[i], &u) < 0);
    }
    char longest[CQ_URL_MAX + 2];
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "ws://", 5);
    assert_int_equal(cq_url_parse(longest, CQ_URL_MAX, &u), 0);
    assert_true(cq_url_parse(longest, CQ_URL_MAX + 1, &u) < 0);
}

static void
test_list(void **state)
{
    (void)state;
    struct cq_reconnect r;
    assert_int_equal(cq_reconnect_init(&r, "ws://a/,ws://b/,ws://c/", 4), 0);
    assert_int_equal(r.count, 3);
    assert_int_equal(r.next, 1);
    assert_true(cq_reconnect_init(&r, "", 0) < 0);
    assert_true(cq_reconnect_init(&r, "ws://a/,,ws://b/", 0) < 0);
    assert_true(cq_reconnect_init(&r, "ws://a/,nonsense", 0) < 0);
    char many[512] = "ws://a/";
    for (int i = 1; i <= CQ_URL_COUNT_MAX; i++) {
        memcpy(many + strlen(many), ",ws://a/", sizeof ",ws://a/");
    }
    assert_true(cq_reconnect_init(&r, many, 0) < 0);
}

static void
test_back_off(void **state)
{
    (void)state;
    struct cq_reconnect r;
    assert_int_equal(cq_reconnect_init(&r, "ws://a/,ws://b/", 0), 0);
    struct cq_attempt a = cq_reconnect_next(&r, 1);
    assert_int_equal(a.delay_ms, 0);
    assert_string_equal(a.url->host, "a");
    a = cq_reconnect_next(&r, UINT64_MAX);
    assert_string_equal(a.url->host, "b");
    assert_true(a.delay_ms <= CQ_RECONNECT_FIRST_MS / 5);
    uint32_t last = 0;
    for (int round = 1; round < 40; round++) {
        a = cq_reconnect_next(&r, 0); /* the shortest delay of this round */
        assert_true(a.delay_ms >= last && a.delay_ms <= CQ_RECONNECT_MAX_MS);
        last = a.delay_ms;
        a = cq_reconnect_next(&r, (uint64_t)round * 7919);
        assert_true(a.delay_ms >= last && a.delay_ms <= CQ_RECONNECT_MAX_MS);
    }
    assert_int_equal(last, CQ_RECONNECT_MAX_MS / 2);
    cq_reconnect_succeeded(&r);
    assert_int_equal(cq_reconnect_next(&r, 5).delay_ms, 5);
    cq_reconnect_succeeded(&r);
    for (uint64_t random = 0; random < 10000; random += 7) {
        assert_true(cq_reconnect_next(&r, random).delay_ms <= CQ_RECONNECT_SPREAD_MS);
        cq_reconnect_succeeded(&r);
    }
}

/* All who were on one server lose it together: they must not all go to the same other one. */
static void
test_the_lost_go_everywhere(void **state)
{
    (void)state;
    unsigned went[4] = {0};
    for (uint64_t random = 0; random < 30000; random += 7) {
        struct cq_reconnect r;
        assert_int_equal(cq_reconnect_init(&r, "ws://a/,ws://b/,ws://c/,ws://d/", 1), 0);
        assert_string_equal(cq_reconnect_next(&r, 0).url->text, "ws://b/");
        cq_reconnect_succeeded(&r);
        went[cq_reconnect_next(&r, random).url->host[0] - 'a']++;
    }
    assert_int_equal(went[1], 0);
    for (int i = 0; i < 4; i++) {
        assert_true(i == 1 || went[i] > 1000);
    }
}

static void
test_what_a_server_names_comes_first(void **state)
{
    (void)state;
    for (uint64_t random = 0; random < 30000; random += 7) {
        struct cq_reconnect r;
        assert_int_equal(cq_reconnect_init(&r, "ws://a/,ws://b/,ws://c/,ws://d/", 1), 0);
        (void)cq_reconnect_next(&r, 0);
        cq_reconnect_succeeded(&r);
        cq_reconnect_prefer(&r, "ws://d/", 7);
        assert_string_equal(cq_reconnect_next(&r, random).url->text, "ws://d/");
    }
}

static void
test_jitter_spreads(void **state)
{
    (void)state;
    uint32_t lowest = UINT32_MAX;
    uint32_t highest = 0;
    for (uint64_t random = 0; random < 1000; random++) {
        struct cq_reconnect r;
        assert_int_equal(cq_reconnect_init(&r, "ws://a/", 0), 0);
        r.failures = 5;
        uint32_t delay = cq_reconnect_next(&r, random * 104729).delay_ms;
        lowest = delay < lowest ? delay : lowest;
        highest = delay > highest ? delay : highest;
    }
    assert_true(highest > lowest + lowest / 2);
}

static void
test_go_away(void **state)
{
    (void)state;
    struct cq_reconnect r;
    assert_int_equal(cq_reconnect_init(&r, "ws://a/,ws://b/,ws://c/", 0), 0);
    cq_reconnect_prefer(&r, "ws://c/", 7);
    assert_string_equal(cq_reconnect_next(&r, 0).url->host, "c");
    cq_reconnect_prefer(&r, "ws://evil/", 10);
    assert_string_equal(cq_reconnect_next(&r, 0).url->host, "a");
    assert_int_equal(cq_reconnect_wait(100, 0, 12345), 100);
    for (uint64_t i = 0; i < 100; i++) {
        uint32_t wait = cq_reconnect_wait(100, 50, i * 31);
        assert_in_range(wait, 100, 150);
    }
    assert_in_range(cq_reconnect_wait(UINT32_MAX, UINT32_MAX, UINT64_MAX), 0, 300000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_back_off),
        cmocka_unit_test(test_jitter_spreads),
        cmocka_unit_test(test_the_lost_go_everywhere),
        cmocka_unit_test(test_what_a_server_names_comes_first),
        cmocka_unit_test(test_go_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
