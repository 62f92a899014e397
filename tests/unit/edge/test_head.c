/* SPDX-License-Identifier: MPL-2.0
 * Request heads, PROXY headers, addresses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "edge/head.h"
#include "edge/proxy.h"

static int
parse(const char *text, struct edge_head *h)
{
    /* Before its end a head is never taken for complete. */
    for (size_t n = 0; n + 1 < strlen(text); n++) {
        int rc = edge_head_parse(h, (const uint8_t *)text, n);
        assert_true(rc <= 0 || (size_t)rc <= n);
    }
    return edge_head_parse(h, (const uint8_t *)text, strlen(text));
}

static void
test_a_request(void **state)
{
    (void)state;
    struct edge_head h;
    static const char text[] = "GET /ws?a=b HTTP/1.1\r\nHost:  x:80 \r\nConnection: keep-alive , "
                               "Upgrade\r\nX:\r\nconnection: foo\r\n\r\nrest";
    assert_int_equal(parse(text, &h), sizeof text - 1 - 4);
    assert_true(edge_head_is(h.method, "GET"));
    assert_true(edge_head_is(h.target, "/ws?a=b"));
    assert_true(edge_head_is(h.path, "/ws"));
    assert_int_equal(h.minor, 1);
    assert_true(edge_head_is(edge_head_field(&h, "host"), "x:80"));
    assert_true(edge_head_is(edge_head_field(&h, "x"), ""));
    assert_null(edge_head_field(&h, "y").p);
    assert_int_equal(edge_head_count(&h, "connection"), 2);
    assert_true(edge_head_lists(&h, "connection", "upgrade"));
    assert_true(edge_head_lists(&h, "connection", "foo"));
    assert_false(edge_head_lists(&h, "connection", "keep"));
    char out[4];
    assert_false(edge_head_copy(edge_head_field(&h, "host"), out, sizeof out));
    assert_true(edge_head_copy(edge_head_field(&h, "x"), out, sizeof out));
}

static void
test_what_is_no_request(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *text;
    } cases[] = {
        {400, "\r\n\r\n"},
        {400, " GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n"},
        {400, "GET /\r\n\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/1.2\r\nHost: x\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n"},
        {400,
         "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"},
        {400, "\x16\x03\x01"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct edge_head h;
        int rc = edge_head_parse(&h, (const uint8_t *)cases[i].text, strlen(cases[i].text));
        if (rc != -cases[i].status) {
            fail_msg("case %zu: %d", i, rc);
        }
    }
    struct edge_head h;
    assert_true(parse("GET / HTTP/1.0\r\n\r\n", &h) > 0);
    static uint8_t large[EDGE_HEAD_MAX + 1];
    memset(large, 'a', sizeof large);
    assert_int_equal(edge_head_parse(&h, large, EDGE_HEAD_MAX - 1), 0);
    assert_int_equal(edge_head_parse(&h, large, sizeof large), -431);
    char many[2048] = "GET / HTTP/1.1\r\nHost: x\r\n";
    for (int i = 0; i < EDGE_HEAD_FIELDS_MAX; i++) {
        strcat(many, "A: b\r\n");
    }
    strcat(many, "\r\n");
    assert_int_equal(edge_head_parse(&h, (const uint8_t *)many, strlen(many)), -431);
}

/* ---- PROXY ---- */

/* Reads as a connection does: never more than the parser asks for. */
static int
read_proxy(const char *bytes, size_t n, struct edge_proxy *out, size_t *used)
{
    *used = 0;
    int need;
    while ((need = edge_proxy_parse((const uint8_t *)bytes, *used, out)) > 0) {
        if (*used + (size_t)need > n) {
            return need;
        }
        *used += (size_t)need;
        assert_true(*used <= EDGE_PROXY_MAX);
    }
    return need;
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"

static void
test_proxy_headers(void **state)
{
    (void)state;
#define CASE(rc, from, text)            \
    {                                   \
        rc, from, sizeof text - 1, text \
    }
    static const struct {
        int rc; /* 0: a header; 1: more is needed; -1: none */
        const char *from;
        size_t n;
        const char *bytes;
    } cases[] = {
        CASE(0, "1.2.3.4", "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"),
        CASE(0, "2001:db8::1", "PROXY TCP6 2001:db8::1 ::1 1000 80\r\n"),
        CASE(0, NULL, "PROXY UNKNOWN\r\n"),
        CASE(0, NULL, "PROXY UNKNOWN anything at all\r\n"),
        CASE(-1, NULL, "PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n"),
        CASE(-1, NULL, "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 90\r\n"),
        CASE(-1, NULL, "PROXY TCP4 1.2.3 5.6.7.8 1000 80\r\n"),
        CASE(-1, NULL, "PROXY TCP4 1.2.3.4 5.6.7.8 1000 66000\r\n"),
        CASE(-1, NULL, "PROXY UDP4 1.2.3.4 5.6.7.8 1000 80\r\n"),
        CASE(-1, NULL, "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n"),
        CASE(1, NULL, "PROXY TCP4 1.2.3.4"),
        CASE(-1, NULL, "GET / HTTP/1.1\r\n"),
        CASE(1, NULL, "PRO"),
        CASE(0, "1.2.3.4", V2 "\x21\x11\0\x0c\1\2\3\4\5\6\7\10\1\1\0\x50"),
        CASE(0, "1.2.3.4", V2 "\x21\x11\0\x10\1\2\3\4\5\6\7\10\1\1\0\x50\3\0\1x"),
        CASE(0, "::ff",
             V2 "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff"
                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\0\x50"),
        CASE(0, NULL, V2 "\x20\0\0\0"),
        CASE(0, NULL, V2 "\x21\0\0\0"),
        CASE(-1, NULL, V2 "\x21\x11\0\x0b\1\2\3\4\5\6\7\10\1\1\0"),
        CASE(-1, NULL, V2 "\x21\x12\0\x0c\1\2\3\4\5\6\7\10\1\1\0\x50"),
        CASE(-1, NULL, V2 "\x11\x11\0\x0c\1\2\3\4\5\6\7\10\1\1\0\x50"),
        CASE(-1, NULL, V2 "\x22\x11\0\x0c\1\2\3\4\5\6\7\10\1\1\0\x50"),
        CASE(-1, NULL, V2 "\x21\x11\xff\xff"),
        CASE(1, NULL, V2 "\x21\x11\0\x0c\1\2"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct edge_proxy p = {0};
        size_t used;
        int rc = read_proxy(cases[i].bytes, cases[i].n, &p, &used);
        if ((rc > 0) != (cases[i].rc > 0) || (rc < 0) != (cases[i].rc < 0)) {
            fail_msg("case %zu: %d", i, rc);
        }
        if (rc == 0) {
            char text[EDGE_IP_TEXT_MAX];
            assert_int_equal(used, cases[i].n);
            assert_int_equal(p.is_local, !cases[i].from);
            assert_true(p.is_local || strcmp(edge_ip_text(&p.from, text), cases[i].from) == 0);
        }
    }
}

/* ---- addresses ---- */

static void
test_networks(void **state)
{
    (void)state;
    const char *bad;
    size_t bad_n;
    edge_ip_list_t *list =
        edge_ip_list_new("10.0.0.0/8, 192.0.2.7,2001:db8::/33 , ::1", &bad, &bad_n);
    assert_non_null(list);
    static const struct {
        const char *text;
        bool is_in;
    } cases[] = {
        {"10.255.0.1", true},
        {"11.0.0.1", false},
        {"192.0.2.7", true},
        {"192.0.2.8", false},
        {"::1", true},
        {"::2", false},
        {"2001:db8:7fff::", true},
        {"2001:db8:8000::", false},
        {"::ffff:10.0.0.1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct edge_ip ip;
        assert_true(edge_ip_parse(cases[i].text, strlen(cases[i].text), &ip));
        assert_int_equal(edge_ip_list_has(list, &ip), cases[i].is_in);
    }
    edge_ip_list_destroy(&list);
    static const char *const wrong[] = {"10.0.0", "10.0.0.0/33", "::/129",
                                        "host",   "1.2.3.4/",    "1.2.3.4/8x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_null(edge_ip_list_new(wrong[i], &bad, &bad_n));
        assert_int_equal(bad_n, strlen(wrong[i]));
    }
    list = edge_ip_list_new("", &bad, &bad_n);
    assert_non_null(list);
    struct edge_ip ip;
    assert_true(edge_ip_parse("127.0.0.5", 9, &ip) && edge_ip_is_loopback(&ip));
    assert_false(edge_ip_list_has(list, &ip));
    edge_ip_list_destroy(&list);
}

static void
test_counts_per_address(void **state)
{
    (void)state;
    enum {
        KEYS = 1000
    };
    edge_ip_count_t *c = edge_ip_count_new();
    for (size_t round = 1; round <= 3; round++) {
        for (uint64_t key = 0; key < KEYS; key++) {
            assert_int_equal(edge_ip_count_add(c, key * 0x100000000u), round);
        }
    }
    assert_int_equal(edge_ip_count_keys(c), KEYS);
    for (uint64_t key = 0; key < KEYS; key += 2) {
        for (int i = 0; i < 3; i++) {
            edge_ip_count_remove(c, key * 0x100000000u);
        }
    }
    assert_int_equal(edge_ip_count_keys(c), KEYS / 2);
    for (uint64_t key = 0; key < KEYS; key++) {
        assert_int_equal(edge_ip_count_add(c, key * 0x100000000u), key % 2 ? 4 : 1);
    }
    edge_ip_count_destroy(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request),          cmocka_unit_test(test_what_is_no_request),
        cmocka_unit_test(test_proxy_headers),      cmocka_unit_test(test_networks),
        cmocka_unit_test(test_counts_per_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
