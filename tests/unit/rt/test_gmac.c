/* SPDX-License-Identifier: MPL-2.0
 * The tags here were made by hand: AES-128-ECB of `openssl enc` and multiplications in GF(2^128).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rt/gmac.h"

enum {
    SIZE = 1000
};

static const uint8_t of_nothing[CQ_GMAC_TAG_SIZE] = {
    0x58, 0xe2, 0xfc, 0xce, 0xfa, 0x7e, 0x30, 0x61, 0x36, 0x7f, 0x1d, 0x57, 0xa4, 0xe7, 0x45, 0x5a};
static const uint8_t of_data[CQ_GMAC_TAG_SIZE] = {0x7c, 0x90, 0x83, 0xc4, 0x5b, 0x33, 0x5a, 0x08,
                                                  0x29, 0xaa, 0x64, 0x71, 0x8f, 0xc5, 0x49, 0x17};
static const uint64_t number = 0x0102030405060708;

static cq_gmac_t *
make(uint8_t data[SIZE])
{
    uint8_t key[CQ_GMAC_KEY_SIZE];
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = (uint8_t)(i % 251);
    }
    return cq_gmac_new(key);
}

static void
known_tags(void **state)
{
    (void)state;
    static const uint8_t zeros[CQ_GMAC_KEY_SIZE];
    uint8_t data[SIZE], tag[CQ_GMAC_TAG_SIZE];
    cq_gmac_t *m = cq_gmac_new(zeros);
    cq_gmac_begin(m, 0);
    cq_gmac_end(m, tag);
    assert_memory_equal(tag, of_nothing, sizeof tag);
    cq_gmac_destroy(&m);
    assert_null(m);
    m = make(data);
    cq_gmac_begin(m, number);
    cq_gmac_add(m, data, SIZE);
    cq_gmac_end(m, tag);
    assert_memory_equal(tag, of_data, sizeof tag);
    cq_gmac_destroy(&m);
}

static void
parts_of_any_size(void **state)
{
    (void)state;
    uint8_t data[SIZE], tag[CQ_GMAC_TAG_SIZE];
    cq_gmac_t *m = make(data);
    for (size_t part = 1; part <= SIZE; part += 7) {
        cq_gmac_begin(m, 3); /* begun, not ended, forgotten */
        cq_gmac_add(m, data, 5);
        cq_gmac_begin(m, number);
        for (size_t at = 0; at < SIZE; at += part) {
            cq_gmac_add(m, data + at, SIZE - at < part ? SIZE - at : part);
        }
        cq_gmac_end(m, tag);
        assert_memory_equal(tag, of_data, sizeof tag);
    }
    cq_gmac_destroy(&m);
}

static void
another_number_is_another_tag(void **state)
{
    (void)state;
    uint8_t data[SIZE], tag[CQ_GMAC_TAG_SIZE];
    cq_gmac_t *m = make(data);
    cq_gmac_begin(m, number + 1);
    cq_gmac_add(m, data, SIZE);
    cq_gmac_end(m, tag);
    assert_memory_not_equal(tag, of_data, sizeof tag);
    cq_gmac_destroy(&m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_tags),
        cmocka_unit_test(parts_of_any_size),
        cmocka_unit_test(another_number_is_another_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
