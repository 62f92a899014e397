/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/pack.h"

#include "store/account.h"

static struct cq_view
view(const cq_buf_t *b)
{
    return (struct cq_view){b->data, b->size};
}

static void
account_round_trip(void **state)
{
    (void)state;
    struct store_account in = {.created_unix_ms = UINT64_MAX}, out;
    memset(in.name, 'n', CQ_NAME_MAX);
    memset(in.hash, '$', STORE_HASH_SIZE - 1);
    cq_buf_t b = {0};
    store_account_write(&b, &in);
    assert_int_equal(store_account_read(view(&b), &out), 0);
    assert_memory_equal(&in, &out, sizeof in);
    cq_buf_free(&b);
}

static void
account_row_of_before_privacy(void **state)
{
    (void)state;
    struct store_account out = {.hide_last_seen = true};
    cq_buf_t b = {0};
    cq_pack_array(&b, 3);
    cq_pack_str(&b, "ann", 3);
    cq_pack_str(&b, "$x", 2);
    cq_pack_uint(&b, 7);
    assert_int_equal(store_account_read(view(&b), &out), 0);
    assert_false(out.hide_last_seen);
    assert_int_equal(out.created_unix_ms, 7);
    out.hide_last_seen = true;
    cq_buf_clear(&b);
    store_account_write(&b, &out);
    out.hide_last_seen = false;
    assert_int_equal(store_account_read(view(&b), &out), 0);
    assert_true(out.hide_last_seen);
    cq_buf_free(&b);
}

static void
device_round_trip(void **state)
{
    (void)state;
    struct store_device in = {.created_unix_ms = 5,
                              .generation = 7,
                              .revoked = true,
                              .known_pos = UINT64_MAX,
                              .retired = true},
                        out;
    memset(in.key, 0xab, sizeof in.key);
    cq_buf_t b = {0};
    store_device_write(&b, &in); /* no label */
    assert_int_equal(store_device_read(view(&b), &out), 0);
    assert_memory_equal(in.key, out.key, sizeof in.key);
    assert_string_equal(out.label, "");
    assert_true(out.revoked);
    assert_int_equal(out.created_unix_ms, 5);
    assert_int_equal(out.generation, 7);
    assert_true(out.known_pos == UINT64_MAX && out.retired);
    memset(in.label, 'l', CQ_LABEL_MAX);
    in.revoked = false;
    cq_buf_clear(&b);
    store_device_write(&b, &in);
    assert_int_equal(store_device_read(view(&b), &out), 0);
    assert_memory_equal(in.label, out.label, sizeof in.label);
    assert_false(out.revoked);
    cq_buf_free(&b);
}

static void
device_row_of_before_audits(void **state)
{
    (void)state;
    static const uint8_t key[32] = {7};
    struct store_device out = {.known_pos = 1, .retired = true};
    cq_buf_t b = {0};
    cq_pack_array(&b, 5);
    cq_pack_bin(&b, key, sizeof key);
    cq_pack_str(&b, "phone", 5);
    cq_pack_uint(&b, 5);
    cq_pack_uint(&b, 2);
    cq_pack_bool(&b, true);
    assert_int_equal(store_device_read(view(&b), &out), 0);
    assert_true(out.revoked && out.generation == 2);
    assert_true(out.known_pos == 0 && !out.retired);
    cq_buf_free(&b);
}

static void
cut_and_longer_rows_are_corrupt(void **state)
{
    (void)state;
    struct store_account a = {.name = "ana", .hash = "$x"};
    struct store_device d = {.label = "phone"};
    cq_buf_t b = {0};
    for (int kind = 0; kind < 2; kind++) {
        cq_buf_clear(&b);
        if (kind) {
            store_device_write(&b, &d);
        } else {
            store_account_write(&b, &a);
        }
        cq_pack_nil(&b);
        for (size_t n = 0; n <= b.size; n++) {
            struct cq_view v = {b.data, n};
            int rc = kind ? store_device_read(v, &d) : store_account_read(v, &a);
            assert_int_equal(rc, n == b.size - 1 ? 0 : -CQ_E_CORRUPT);
        }
    }
    assert_int_equal(store_account_read((struct cq_view){0}, &a), -CQ_E_CORRUPT);
    assert_int_equal(store_device_read((struct cq_view){0}, &d), -CQ_E_CORRUPT);
    cq_buf_free(&b);
}

static void
bad_names_are_corrupt(void **state)
{
    (void)state;
    struct store_account a = {.name = "ANA", .hash = "$x"}, out;
    cq_buf_t b = {0};
    store_account_write(&b, &a);
    assert_int_equal(store_account_read(view(&b), &out), -CQ_E_CORRUPT);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(account_round_trip),    cmocka_unit_test(account_row_of_before_privacy),
        cmocka_unit_test(device_round_trip),     cmocka_unit_test(cut_and_longer_rows_are_corrupt),
        cmocka_unit_test(bad_names_are_corrupt), cmocka_unit_test(device_row_of_before_audits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
