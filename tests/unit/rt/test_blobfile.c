/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rt/blobfile.h"
#include "common/rt/random.h"

static struct cq_blobfile_header
sample(void)
{
    return (struct cq_blobfile_header){.id = {{1, 2, 3}},
                                       .user = {{4, 5, 6}},
                                       .length = 3 * (uint64_t)CQ_BLOBFILE_PIECE_SIZE + 1,
                                       .created_unix_ms = 1000,
                                       .expires_unix_ms = 2000,
                                       .synced = 77,
                                       .tentative_from = CQ_BLOBFILE_NOT_TENTATIVE};
}

static void
header_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = sample(), again;
    cq_blobfile_write_header(bytes, &h);
    assert_int_equal(cq_blobfile_read_header(bytes, &again), 0);
    assert_memory_equal(&h, &again, sizeof h);
}

static void
every_changed_byte_is_seen(void **state)
{
    (void)state;
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = sample(), again;
    cq_blobfile_write_header(bytes, &h);
    for (size_t i = 0; i < 96; i++) {
        bytes[i] ^= 0x40;
        assert_int_equal(cq_blobfile_read_header(bytes, &again), -CQ_E_CORRUPT);
        bytes[i] ^= 0x40;
    }
}

static void
impossible_values_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = sample(), again;
    h.length = CQ_BLOBFILE_LENGTH_MAX + 1;
    cq_blobfile_write_header(bytes, &h);
    assert_int_equal(cq_blobfile_read_header(bytes, &again), -CQ_E_CORRUPT);
    h = sample();
    h.synced = h.length + 1;
    cq_blobfile_write_header(bytes, &h);
    assert_int_equal(cq_blobfile_read_header(bytes, &again), -CQ_E_CORRUPT);
    h = sample();
    h.tentative_from = h.length + 1;
    cq_blobfile_write_header(bytes, &h);
    assert_int_equal(cq_blobfile_read_header(bytes, &again), -CQ_E_CORRUPT);
}

static void
pieces_are_counted(void **state)
{
    (void)state;
    assert_int_equal(cq_blobfile_piece_count(0), 0);
    assert_int_equal(cq_blobfile_piece_count(1), 1);
    assert_int_equal(cq_blobfile_piece_count(CQ_BLOBFILE_PIECE_SIZE), 1);
    assert_int_equal(cq_blobfile_piece_count(CQ_BLOBFILE_PIECE_SIZE + 1), 2);
    assert_int_equal(cq_blobfile_trailer_size(0), CQ_BLOB_HASH_SIZE);
}

static void
trailer_is_checked(void **state)
{
    (void)state;
    struct cq_blobfile_header h = sample();
    size_t size = cq_blobfile_trailer_size(h.length);
    uint8_t *trailer = calloc(1, size);
    assert_non_null(trailer);
    cq_random(trailer, size);
    cq_blobfile_root(&h, trailer, trailer + size - CQ_BLOB_HASH_SIZE);
    assert_int_equal(cq_blobfile_check_trailer(&h, (struct cq_view){trailer, size}), 0);
    for (size_t i = 0; i < size; i++) {
        trailer[i] ^= 1;
        assert_int_equal(cq_blobfile_check_trailer(&h, (struct cq_view){trailer, size}),
                         -CQ_E_CORRUPT);
        trailer[i] ^= 1;
    }
    assert_int_equal(cq_blobfile_check_trailer(&h, (struct cq_view){trailer, size - 1}),
                     -CQ_E_CORRUPT);
    h.user.b[0] ^= 1; /* whose it is, is part of it */
    assert_int_equal(cq_blobfile_check_trailer(&h, (struct cq_view){trailer, size}), -CQ_E_CORRUPT);
    free(trailer);
}

int
main(void)
{
    cq_secure_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_comes_back),
        cmocka_unit_test(every_changed_byte_is_seen),
        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(pieces_are_counted),
        cmocka_unit_test(trailer_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
