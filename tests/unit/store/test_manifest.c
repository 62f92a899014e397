/* SPDX-License-Identifier: MPL-2.0
 * The manifest of a backup: what is written is read, and nothing else is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/manifest.h"

static struct store_manifest
sample(void)
{
    struct store_manifest m = {.created_unix_ms = 1795498281777,
                               .version = "0.1.0",
                               .schema = 2,
                               .epoch = {{1, 2, 0xff}},
                               .head = 12345,
                               .marker = 12000,
                               .part_count = 2};
    m.parts[0] = (struct store_manifest_part){"store", "data.mdb", UINT64_MAX, {1, 0xab}};
    m.parts[1] = (struct store_manifest_part){"blobs", "blobs.list", 0, {2}};
    return m;
}

static struct cq_view
view(const cq_buf_t *b)
{
    return (struct cq_view){b->data, b->size};
}

static int
read_text(const char *text)
{
    struct store_manifest m;
    return store_manifest_read((struct cq_view){(const uint8_t *)text, strlen(text)}, &m);
}

static void
test_comes_back(void **state)
{
    (void)state;
    struct store_manifest m = sample();
    struct store_manifest out;
    cq_buf_t b = {0};
    store_manifest_write(&b, &m);
    assert_int_equal(store_manifest_read(view(&b), &out), 0);
    assert_memory_equal(&m, &out, sizeof m);
    assert_true(store_manifest_is_ours(view(&b)));
    assert_ptr_equal(store_manifest_part_of(&out, "blobs"), &out.parts[1]);
    assert_null(store_manifest_part_of(&out, "nothing"));
    cq_buf_free(&b);
}

static void
test_is_readable_text(void **state)
{
    (void)state;
    struct store_manifest m = sample();
    cq_buf_t b = {0};
    store_manifest_write(&b, &m);
    cq_buf_append(&b, "", 1);
    assert_non_null(strstr((const char *)b.data, "chasqui-backup 1\n"
                                                 "created_unix_ms 1795498281777\n"
                                                 "version 0.1.0\n"
                                                 "schema 2\n"
                                                 "epoch 0102ff00000000000000000000000000\n"
                                                 "head 12345\n"
                                                 "marker 12000\n"
                                                 "part store data.mdb 18446744073709551615 01ab"));
    cq_buf_free(&b);
}

/* Every byte counts: a flipped bit anywhere, and any end but the true one, is found. */
static void
test_damage_is_found(void **state)
{
    (void)state;
    struct store_manifest m = sample();
    struct store_manifest out;
    cq_buf_t b = {0};
    store_manifest_write(&b, &m);
    for (size_t i = 0; i < b.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1 << bit);
            assert_true(store_manifest_read(view(&b), &out) < 0);
            b.data[i] ^= (uint8_t)(1 << bit);
        }
        assert_true(store_manifest_read((struct cq_view){b.data, i}, &out) < 0);
    }
    cq_buf_append(&b, "\n", 1);
    assert_true(store_manifest_read(view(&b), &out) < 0);
    cq_buf_free(&b);
}

static void
test_unfinished_says_so(void **state)
{
    (void)state;
    struct store_manifest out;
    cq_buf_t b = {0};
    store_manifest_write_unfinished(&b, 1795498281777);
    assert_int_equal(store_manifest_read(view(&b), &out), -CQ_E_BAD_STATE);
    assert_true(store_manifest_is_ours(view(&b)));
    cq_buf_free(&b);
}

static void
test_newer_format(void **state)
{
    (void)state;
    assert_int_equal(read_text("chasqui-backup 2\nanything"), -CQ_E_NEWER_SCHEMA);
    assert_int_equal(read_text("chasqui-backup 0\n"), -CQ_E_CORRUPT);
    assert_int_equal(read_text("chasqui-backup 01\n"), -CQ_E_CORRUPT);
    assert_int_equal(read_text("chasqui-backup 99999999999999999999999\n"), -CQ_E_CORRUPT);
    assert_int_equal(read_text("chasqui-backup 18446744073709551616\n"), -CQ_E_CORRUPT);
    assert_int_equal(read_text("chasqui-backup 1"), -CQ_E_CORRUPT);
    assert_int_equal(read_text(""), -CQ_E_CORRUPT);
}

/* A good sum does not make a bad manifest good. */
static void
test_bad_values_with_a_good_sum(void **state)
{
    (void)state;
    struct store_manifest out;
    for (int i = 0; i < 7; i++) {
        struct store_manifest m = sample();
        cq_buf_t b = {0};
        switch (i) {
        case 0:
            (void)snprintf(m.parts[0].file, sizeof m.parts[0].file, "../data.mdb");
            break;
        case 1:
            (void)snprintf(m.parts[0].file, sizeof m.parts[0].file, "..");
            break;
        case 2:
            m.parts[1] = m.parts[0]; /* a part twice */
            break;
        case 3:
            m.part_count = 0;
            break;
        case 5:
            m.version[1] = '\x01';
            break;
        case 4:
            m.marker = m.head + 1;
            break;
        default:
            m.epoch = (struct cq_id){{0}};
            break;
        }
        store_manifest_write(&b, &m);
        assert_int_equal(store_manifest_read(view(&b), &out), -CQ_E_CORRUPT);
        cq_buf_free(&b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),      cmocka_unit_test(test_is_readable_text),
        cmocka_unit_test(test_damage_is_found), cmocka_unit_test(test_unfinished_says_so),
        cmocka_unit_test(test_newer_format),    cmocka_unit_test(test_bad_values_with_a_good_sum),
    };
    return cmocka_run_group_tests_name("store.manifest", tests, NULL, NULL);
}
