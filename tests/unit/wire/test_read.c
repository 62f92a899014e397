/* SPDX-License-Identifier: MPL-2.0
 * The reader against its specification and against hostile bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/pack.h"
#include "common/wire/read.h"

#include "tests/lib/random_message.h"

#define READER(bytes) cq_reader(bytes, sizeof(bytes) - 1)

static void
is_uint(const char *bytes, size_t n, uint64_t max, int err, uint64_t value)
{
    cq_reader_t r = cq_reader(bytes, n);
    uint64_t v = cq_read_uint(&r, max);
    assert_int_equal(r.err, err);
    assert_true(v == value);
    assert_true(cq_reader_at_end(&r));
}

#define IS_UINT(bytes, max, err, value) is_uint(bytes, sizeof(bytes) - 1, max, err, value)

static void
unsigned_numbers(void **state)
{
    (void)state;
    IS_UINT("\x00", 0, 0, 0);
    IS_UINT("\x7f", 127, 0, 127);
    IS_UINT("\xcc\xff", 255, 0, 255);
    IS_UINT("\xcd\x01\x00", 256, 0, 256);
    IS_UINT("\xce\xff\xff\xff\xff", UINT32_MAX, 0, UINT32_MAX);
    IS_UINT("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", UINT64_MAX, 0, UINT64_MAX);
    IS_UINT("\xcf\x00\x00\x00\x00\x00\x00\x00\x05", 5, 0, 5); /* any width is accepted */
    IS_UINT("\x06", 5, -CQ_E_BAD_ARG, 0);
    IS_UINT("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", UINT32_MAX, -CQ_E_BAD_ARG, 0);
    IS_UINT("\xe0", UINT64_MAX, -CQ_E_BAD_ARG, 0);     /* negative */
    IS_UINT("\xd0\x01", UINT64_MAX, -CQ_E_BAD_ARG, 0); /* signed family */
    IS_UINT("\xa1x", UINT64_MAX, -CQ_E_BAD_ARG, 0);
    IS_UINT("", UINT64_MAX, -CQ_E_BAD_FRAME, 0);
    IS_UINT("\xcc", UINT64_MAX, -CQ_E_BAD_FRAME, 0);
    IS_UINT("\xcf\x00\x00\x00", UINT64_MAX, -CQ_E_BAD_FRAME, 0);
}

static void
strings_and_bytes(void **state)
{
    (void)state;
    cq_reader_t r = READER("\xa3"
                           "abc\xd9\x01x\xda\x00\x01y\xdb\x00\x00\x00\x01z");
    assert_int_equal(cq_read_str(&r, 1, 3).n, 3);
    assert_int_equal(cq_read_str(&r, 1, 1).n, 1);
    assert_int_equal(cq_read_str(&r, 1, 1).n, 1);
    assert_memory_equal(cq_read_str(&r, 0, 9).p, "z", 1);
    assert_int_equal(r.err, 0);
    assert_true(cq_reader_at_end(&r));
    r = READER("\xc4\x02\x00\xff\xc5\x00\x01q\xc6\x00\x00\x00\x00");
    assert_memory_equal(cq_read_bin(&r, 2, 2).p, "\x00\xff", 2);
    assert_int_equal(cq_read_bin(&r, 0, 9).n, 1);
    assert_int_equal(cq_read_bin(&r, 0, 9).n, 0);
    assert_int_equal(r.err, 0);
}

static void
is_bad_str(const char *bytes, size_t n, size_t min, size_t max, int err)
{
    cq_reader_t r = cq_reader(bytes, n);
    struct cq_view v = cq_read_str(&r, min, max);
    assert_int_equal(r.err, err);
    assert_int_equal(v.n, 0);
}

static void
bad_strings(void **state)
{
    (void)state;
    is_bad_str("\xa3"
               "abc",
               4, 0, 2, -CQ_E_BAD_ARG);
    is_bad_str("\xa1x", 2, 2, 9, -CQ_E_BAD_ARG);
    is_bad_str("\xa3"
               "ab",
               3, 0, 9, -CQ_E_BAD_FRAME);
    is_bad_str("\xdb\xff\xff\xff\xff", 5, 0, SIZE_MAX, -CQ_E_BAD_FRAME); /* 4 GiB claimed */
    is_bad_str("\xa2"
               "a\0",
               3, 0, 9, -CQ_E_BAD_ARG);
    is_bad_str("\xa2\xc3(", 3, 0, 9, -CQ_E_BAD_ARG);
    is_bad_str("\xc4\x01x", 3, 0, 9, -CQ_E_BAD_ARG); /* bin is no str */
    is_bad_str("\xd9", 1, 0, 9, -CQ_E_BAD_FRAME);
}

static void
arrays(void **state)
{
    (void)state;
    cq_reader_t r = READER("\x92\xdc\x00\x03\xdd\x00\x01\x00\x00");
    assert_int_equal(cq_read_array(&r, 2, 2), 2);
    assert_int_equal(cq_read_array(&r, 0, 9), 3);
    assert_int_equal(cq_read_array(&r, 0, 65536), 65536);
    assert_int_equal(r.err, 0);
    r = READER("\x93");
    assert_int_equal(cq_read_array(&r, 0, 2), 0);
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
    r = READER("\x83"); /* a map */
    assert_int_equal(cq_read_array(&r, 0, 9), 0);
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
    r = READER("\xdd\x00\x00");
    assert_int_equal(cq_read_array(&r, 0, 9), 0);
    assert_int_equal(r.err, -CQ_E_BAD_FRAME);
}

static void
ids_and_booleans(void **state)
{
    (void)state;
    cq_reader_t r = READER("\xc4\x10"
                           "0123456789abcdef\xc0\xc3\xc2\xc0");
    struct cq_id id = cq_read_id(&r);
    assert_memory_equal(id.b, "0123456789abcdef", 16);
    id = cq_read_id_or_nil(&r);
    assert_true(cq_id_is_none(&id));
    assert_true(cq_read_bool(&r));
    assert_false(cq_read_bool(&r));
    assert_int_equal(r.err, 0);
    assert_true(cq_read_nil(&r));
    assert_false(cq_read_nil(&r));
    r = READER("\xc4\x0f"
               "0123456789abcde");
    (void)cq_read_id(&r);
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
    r = READER("\xc0");
    (void)cq_read_id(&r);
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
    r = READER("\x01");
    assert_false(cq_read_bool(&r));
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
}

/* After an error everything is zero, whatever would have followed. */
static void
errors_stick(void **state)
{
    (void)state;
    cq_reader_t r = READER("\xa1x\x05\xc4\x10"
                           "0123456789abcdef");
    (void)cq_read_uint(&r, 9);
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
    assert_true(cq_read_uint(&r, 9) == 0);
    struct cq_id id = cq_read_id(&r);
    assert_true(cq_id_is_none(&id));
    assert_int_equal(cq_read_str(&r, 0, 9).n, 0);
    assert_int_equal(cq_read_any(&r).n, 0);
    assert_int_equal(cq_read_array(&r, 0, 9), 0);
    assert_false(cq_read_bool(&r));
    assert_int_equal(r.err, -CQ_E_BAD_ARG);
}

static void
any_takes(const char *bytes, size_t n, size_t size)
{
    cq_reader_t r = cq_reader(bytes, n);
    struct cq_view v = cq_read_any(&r);
    assert_int_equal(v.n, size);
    assert_int_equal(r.err == 0, size > 0);
}

#define ANY(bytes, size) any_takes(bytes, sizeof(bytes) - 1, size)

static void
any_value(void **state)
{
    (void)state;
    ANY("\x05\x06", 1);
    ANY("\xff", 1);
    ANY("\xc0", 1);
    ANY("\xc1", 0); /* never used */
    ANY("\xca\x00\x00\x00\x00", 5);
    ANY("\xcb\x00\x00\x00\x00\x00\x00\x00\x00", 9);
    ANY("\xd3\x00\x00\x00\x00\x00\x00\x00", 0);
    ANY("\xd4\x01\x02", 3);
    ANY("\xd8\x01"
        "0123456789abcdef",
        18);
    ANY("\xd8\x01"
        "0123456789abcde",
        0);
    ANY("\xc7\x02\x01xy", 5);
    ANY("\xc9\xff\xff\xff\xff\x01", 0);
    ANY("\x82\x01\x02\x03\x04\x05", 5);
    ANY("\xde\x00\x01\x01\x02", 5);
    ANY("\xdf\xff\xff\xff\xff\x01", 0);
    ANY("\x93\x01\x92\x02\x03\x90\x07", 6);
    ANY("\x91\x91\x91\x91\x91\x91\x91\x01", 8);
    ANY("\x91\x91\x91\x91\x91\x91\x91\x91\x01", 0); /* too deep */
    ANY("\xdd\xff\xff\xff\xff", 0);
    ANY("\xdd\x7f\xff\xff\xff\x91\xdd\x7f\xff\xff\xff\x01\x01\x01", 0);
    ANY("", 0);
}

/* Random bytes: never beyond the end, and cut-off values are never accepted whole. */
static void
random_bytes(void **state)
{
    (void)state;
    for (int round = 0; round < 200000; round++) {
        size_t n = random_next() % 24;
        uint8_t *bytes = malloc(n + 1); /* its own block: the sanitizer sees a step over the end */
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (uint8_t)random_next();
        }
        cq_reader_t r = cq_reader(bytes, n);
        struct cq_view v = cq_read_any(&r);
        assert_true(v.n <= n);
        if (v.n > 1) {
            cq_reader_t cut = cq_reader(bytes, v.n - 1);
            assert_int_equal(cq_read_any(&cut).n, 0);
        }
        free(bytes);
    }
}

static void
packed_values_come_back(void **state)
{
    static const uint64_t numbers[] = {0,     127,   128,        255,        256,
                                       65535, 65536, UINT32_MAX, 1ull << 32, UINT64_MAX};
    (void)state;
    cq_buf_t b = {0};
    size_t place = cq_pack_array_begin(&b);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cq_pack_uint(&b, numbers[i]);
    }
    cq_pack_array_end(&b, place, sizeof numbers / sizeof numbers[0]);
    cq_reader_t r = cq_reader(b.data, b.size);
    assert_int_equal(cq_read_array(&r, 10, 10), 10);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_true(cq_read_uint(&r, UINT64_MAX) == numbers[i]);
    }
    assert_true(cq_reader_at_end(&r));
    cq_buf_free(&b);
    char *text = calloc(1, 70000);
    memset(text, 'x', 70000);
    static const size_t sizes[] = {0, 31, 32, 255, 256, 65535, 65536, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cq_buf_clear(&b);
        cq_pack_str(&b, text, sizes[i]);
        cq_pack_bin(&b, text, sizes[i]);
        r = cq_reader(b.data, b.size);
        assert_int_equal(cq_read_str(&r, 0, SIZE_MAX).n, sizes[i]);
        assert_int_equal(cq_read_bin(&r, 0, SIZE_MAX).n, sizes[i]);
        assert_int_equal(r.err, 0);
    }
    free(text);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsigned_numbers),
        cmocka_unit_test(strings_and_bytes),
        cmocka_unit_test(bad_strings),
        cmocka_unit_test(arrays),
        cmocka_unit_test(ids_and_booleans),
        cmocka_unit_test(errors_stick),
        cmocka_unit_test(any_value),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(packed_values_come_back),
    };
    return cmocka_run_group_tests_name("wire.read", tests, NULL, NULL);
}
