/* SPDX-License-Identifier: MPL-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "common/rt/blobfile.h"
#include "common/rt/random.h"

static struct cq_blobfile_header
sample(void)
{
    return (struct cq_blobfile_header){.form = CQ_BLOBFILE_KEYED,
                                       .key = {7, 8, 9},
                                       .id = {{1, 2, 3}},
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
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE], bytes_again[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = sample(), again;
    for (int form = CQ_BLOBFILE_HASHED; form <= CQ_BLOBFILE_KEYED; form++) {
        h.form = (enum cq_blobfile_form)form;
        cq_blobfile_write_header(bytes, &h);
        assert_int_equal(cq_blobfile_read_header(bytes, &again), 0);
        assert_int_equal(again.form, form);
        assert_true(cq_id_eq(&again.id, &h.id) && cq_id_eq(&again.user, &h.user));
        assert_int_equal(again.length, h.length);
        assert_int_equal(again.synced, h.synced);
        assert_int_equal(again.key[1], form == CQ_BLOBFILE_KEYED ? 8 : 0);
        cq_blobfile_write_header(bytes_again, &again);
        assert_memory_equal(bytes, bytes_again, sizeof bytes);
    }
}

static void
every_changed_byte_is_seen(void **state)
{
    (void)state;
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = sample(), again;
    for (int form = CQ_BLOBFILE_HASHED; form <= CQ_BLOBFILE_KEYED; form++) {
        h.form = (enum cq_blobfile_form)form;
        cq_blobfile_write_header(bytes, &h);
        for (size_t i = 0; i < (form == CQ_BLOBFILE_KEYED ? 112 : 96); i++) {
            bytes[i] ^= 0x03; /* a 1 becomes a 2 */
            assert_int_equal(cq_blobfile_read_header(bytes, &again), -CQ_E_CORRUPT);
            bytes[i] ^= 0x03;
        }
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
    h.user.b[0] ^= 1;
    h.key[0] ^= 1; /* and the key */
    assert_int_equal(cq_blobfile_check_trailer(&h, (struct cq_view){trailer, size}), -CQ_E_CORRUPT);
    free(trailer);
}

/* A file as blobd writes it, or wrote it in the form before. */
static int
make_file(struct cq_blobfile_header *h, const uint8_t *data)
{
    char name[] = "/tmp/chasqui-blobfile-XXXXXX";
    uint8_t header[CQ_BLOBFILE_HEADER_SIZE];
    size_t pieces = cq_blobfile_piece_count(h->length), size = cq_blobfile_trailer_size(h->length);
    uint8_t *trailer = calloc(1, size);
    assert_non_null(trailer);
    cq_gmac_t *mac = cq_gmac_new(h->key);
    for (size_t i = 0; i < pieces; i++) {
        size_t at = i * CQ_BLOBFILE_PIECE_SIZE;
        size_t left = (size_t)h->length - at;
        size_t n = left < CQ_BLOBFILE_PIECE_SIZE ? left : CQ_BLOBFILE_PIECE_SIZE;
        uint8_t *tag = trailer + i * CQ_BLOBFILE_TAG_SIZE;
        if (h->form == CQ_BLOBFILE_KEYED) {
            cq_gmac_begin(mac, i);
            cq_gmac_add(mac, data + at, n);
            cq_gmac_end(mac, tag);
        } else {
            (void)crypto_generichash(tag, CQ_BLOBFILE_TAG_SIZE, data + at, n, NULL, 0);
        }
    }
    cq_gmac_destroy(&mac);
    cq_blobfile_root(h, trailer, trailer + size - CQ_BLOB_HASH_SIZE);
    cq_blobfile_write_header(header, h);
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(cq_blobfile_write_at(fd, header, sizeof header, 0), 0);
    assert_int_equal(cq_blobfile_write_at(fd, data, h->length, sizeof header), 0);
    assert_int_equal(cq_blobfile_write_at(fd, trailer, size, sizeof header + h->length), 0);
    free(trailer);
    return fd;
}

static void
read_all(const struct cq_blobfile *f, const uint8_t *data)
{
    size_t length = (size_t)f->header.length, at;
    uint8_t *out = malloc(length + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    assert_non_null(out);
    for (size_t offset = 0; offset < length; offset += 30000) {
        size_t n = length - offset < 70000 ? length - offset : 70000;
        assert_int_equal(cq_blobfile_read(f, offset, n, out, &at), 0);
        assert_memory_equal(out + at, data + offset, n);
    }
    assert_int_equal(cq_blobfile_verify(f, NULL, NULL), 0);
    free(out);
}

/* Both forms are read, checked piece by piece and copied, the old one as what it is. */
static void
files_of_both_forms(void **state)
{
    (void)state;
    struct cq_blobfile_header h = sample();
    uint8_t *data = malloc(h.length), out[3 * CQ_BLOBFILE_PIECE_SIZE];
    assert_non_null(data);
    cq_random(data, h.length);
    for (int form = CQ_BLOBFILE_HASHED; form <= CQ_BLOBFILE_KEYED; form++) {
        struct cq_blobfile f, copy;
        char name[] = "/tmp/chasqui-blobfile-XXXXXX";
        size_t at;
        h.form = (enum cq_blobfile_form)form;
        assert_int_equal(cq_blobfile_open(make_file(&h, data), &h.id, &f), 0);
        read_all(&f, data);
        int to = mkstemp(name);
        assert_true(to >= 0);
        assert_int_equal(unlink(name), 0);
        assert_int_equal(cq_blobfile_copy(&f, to, NULL, NULL), 0);
        assert_int_equal(cq_blobfile_open(to, &h.id, &copy), 0);
        assert_int_equal(copy.header.form, form);
        assert_memory_equal(cq_blobfile_root_of(&f), cq_blobfile_root_of(&copy), CQ_BLOB_HASH_SIZE);
        read_all(&copy, data);
        uint8_t flipped = data[CQ_BLOBFILE_PIECE_SIZE + 5] ^ 1;
        assert_int_equal(cq_blobfile_write_at(to, &flipped, 1,
                                              CQ_BLOBFILE_HEADER_SIZE + CQ_BLOBFILE_PIECE_SIZE + 5),
                         0);
        assert_int_equal(cq_blobfile_read(&copy, 0, CQ_BLOBFILE_PIECE_SIZE, out, &at), 0);
        assert_int_equal(cq_blobfile_read(&copy, CQ_BLOBFILE_PIECE_SIZE, 1, out, &at),
                         -CQ_E_CORRUPT);
        assert_int_equal(cq_blobfile_verify(&copy, NULL, NULL), -CQ_E_CORRUPT);
        /* The second piece in place of the first is none, although it is whole. */
        assert_int_equal(cq_blobfile_write_at(to, data + CQ_BLOBFILE_PIECE_SIZE,
                                              CQ_BLOBFILE_PIECE_SIZE, CQ_BLOBFILE_HEADER_SIZE),
                         0);
        assert_int_equal(cq_blobfile_read(&copy, 0, 1, out, &at), -CQ_E_CORRUPT);
        cq_blobfile_close(&copy);
        cq_blobfile_close(&f);
    }
    free(data);
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
        cmocka_unit_test(files_of_both_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
