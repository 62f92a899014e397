/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/cipher.h"
#include "client/medium.h"
#include "client/picture.h"

enum {
    SIZE_MAX_TESTED = 3 * CQ_CIPHER_CHUNK + 5
};

static uint8_t plain[SIZE_MAX_TESTED];
static uint8_t sealed[SIZE_MAX_TESTED + 1024];
static uint8_t opened[SIZE_MAX_TESTED];
static size_t opened_size;
static const uint8_t key[CQ_KEY_SIZE] = {1, 2, 3};

static int
on_chunk(void *ctx, const uint8_t *data, size_t n)
{
    (void)ctx;
    memcpy(opened + opened_size, data, n);
    opened_size += n;
    return 0;
}

/* The blob of the first `size` bytes of plain; returns its length. */
static size_t
seal(size_t size)
{
    FILE *in = tmpfile();
    FILE *out = tmpfile();
    assert_true(in && out);
    assert_int_equal(write(fileno(in), plain, size), size);
    assert_int_equal(lseek(fileno(in), 0, SEEK_SET), 0);
    assert_int_equal(cq_cipher_seal(fileno(in), size, key, fileno(out)), 0);
    ssize_t n = pread(fileno(out), sealed, sizeof sealed, 0);
    (void)fclose(in);
    (void)fclose(out);
    assert_int_equal(n, cq_cipher_length(size));
    return (size_t)n;
}

static struct cq_cipher *
begin(size_t size)
{
    struct cq_cipher *c = malloc(sizeof *c);
    assert_non_null(c);
    cq_cipher_begin(c, key, size);
    opened_size = 0;
    return c;
}

static const size_t sizes[] = {0,
                               1,
                               1000,
                               CQ_CIPHER_CHUNK - 1,
                               CQ_CIPHER_CHUNK,
                               CQ_CIPHER_CHUNK + 1,
                               3 * CQ_CIPHER_CHUNK,
                               SIZE_MAX_TESTED};

static void
test_round_trip(void **state)
{
    static const size_t steps[] = {1, 1000, CQ_CIPHER_CHUNK, sizeof sealed};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = seal(sizes[i]);
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            struct cq_cipher *c = begin(sizes[i]);
            for (size_t at = 0; at < n; at += steps[k]) {
                size_t take = steps[k] < n - at ? steps[k] : n - at;
                assert_false(c->is_whole);
                assert_int_equal(cq_cipher_take(c, sealed + at, take, on_chunk, NULL), 0);
            }
            assert_true(c->is_whole);
            assert_int_equal(c->offset, n);
            assert_int_equal(opened_size, sizes[i]);
            assert_memory_equal(opened, plain, sizes[i]);
            assert_int_equal(cq_cipher_take(c, sealed, 1, on_chunk, NULL), -CQ_E_CRYPTO);
            free(c);
        }
    }
}

/* Any bit anywhere is noticed at its chunk; with the right bytes it goes on from there. */
static void
test_damage(void **state)
{
    (void)state;
    size_t n = seal(SIZE_MAX_TESTED);
    static const size_t places[] = {0, 23, 24, 100, 65536 + 41, 65536 + 60, 3 * 65553 + 24};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct cq_cipher *c = begin(SIZE_MAX_TESTED);
        sealed[places[i]] ^= 0x10;
        assert_int_equal(cq_cipher_take(c, sealed, n, on_chunk, NULL), -CQ_E_CRYPTO);
        assert_false(c->is_whole);
        size_t chunk = places[i] < 24 ? 0 : (places[i] - 24) / 65553;
        assert_int_equal(c->done, chunk * CQ_CIPHER_CHUNK);
        assert_memory_equal(opened, plain, opened_size);
        sealed[places[i]] ^= 0x10;
        if (places[i] >= 24) { /* the header itself cannot be told from the first chunk */
            assert_int_equal(c->offset, 24 + chunk * 65553);
            assert_int_equal(cq_cipher_take(c, sealed + c->offset, n - c->offset, on_chunk, NULL),
                             0);
            assert_true(c->is_whole);
            assert_memory_equal(opened, plain, SIZE_MAX_TESTED);
        }
        free(c);
    }
}

static void
test_cut_and_reordered(void **state)
{
    (void)state;
    (void)seal(3 * CQ_CIPHER_CHUNK);
    struct cq_cipher *c = begin(2 * CQ_CIPHER_CHUNK); /* said to be shorter: no final chunk there */
    assert_int_equal(cq_cipher_take(c, sealed, 24 + 2 * 65553, on_chunk, NULL), -CQ_E_CRYPTO);
    free(c);
    c = begin(3 * CQ_CIPHER_CHUNK);
    assert_int_equal(cq_cipher_take(c, sealed, 24 + 2 * 65553, on_chunk, NULL), 0);
    assert_false(c->is_whole);
    assert_int_equal(cq_cipher_take(c, sealed + 24, 65553, on_chunk, NULL), -CQ_E_CRYPTO);
    free(c);
    c = begin(3 * CQ_CIPHER_CHUNK);
    c->key[0] ^= 1;
    assert_int_equal(cq_cipher_take(c, sealed, sizeof sealed, on_chunk, NULL), -CQ_E_CRYPTO);
    free(c);
}

static void
test_the_file_changes_meanwhile(void **state)
{
    (void)state;
    FILE *in = tmpfile();
    FILE *out = tmpfile();
    assert_true(in && out);
    assert_int_equal(write(fileno(in), plain, 1000), 1000);
    assert_int_equal(lseek(fileno(in), 0, SEEK_SET), 0);
    assert_int_equal(cq_cipher_seal(fileno(in), 1001, key, fileno(out)), -CQ_E_IO);
    assert_int_equal(lseek(fileno(in), 0, SEEK_SET), 0);
    assert_int_equal(cq_cipher_seal(fileno(in), 999, key, fileno(out)), -CQ_E_IO);
    (void)fclose(in);
    (void)fclose(out);
}

static void
test_names(void **state)
{
    static const struct {
        const char *in, *out;
    } names[] = {{"cat.jpg", "cat.jpg"},
                 {"/tmp/a/cat.jpg", "cat.jpg"},
                 {"../../etc/passwd", "passwd"},
                 {"C:\\x\\y.doc", "y.doc"},
                 {".bashrc", "_bashrc"},
                 {"..", "_."},
                 {"", "file"},
                 {"a/", "file"},
                 {"a\nb\x7f", "a_b_"},
                 {"größe.txt", "größe.txt"}};
    char out[CQ_MEDIUM_NAME_MAX + 1];
    char longest[400];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cq_medium_name(names[i].in, strlen(names[i].in), out);
        assert_string_equal(out, names[i].out);
    }
    memset(longest, 'x', sizeof longest);
    memcpy(longest + 254, "ö", 2); /* cut in the middle of a character */
    cq_medium_name(longest, sizeof longest, out);
    assert_int_equal(strlen(out), 254);
}

#define JPEG  "\xff\xd8\xff\xe0\0\4xx"
#define FRAME "\xff\xc0\0\13\10\0\7\0\x9\1\1\x11\0"
#define SOS   "\xff\xda\0\10\1\1\0\0\x3f\0"

static void
test_picture_sizes(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        int rc;
        uint32_t width, height;
    } rows[] = {
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\0\2", 24, 0, 256, 2},
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff", 24, 0, UINT32_MAX,
         UINT32_MAX},
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\0", 23, -CQ_E_BAD_ARG, 0, 0},
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\2", 24, -CQ_E_BAD_ARG, 0, 0},
        {"GIF89a\x05\0\x06\0\0\0", 12, 0, 5, 6},
        {JPEG FRAME SOS, 31, 0, 9, 7},
        {JPEG FRAME, 21, -CQ_E_BAD_ARG, 0, 0},
        {JPEG SOS FRAME, 31, -CQ_E_BAD_ARG, 0, 0},
        {JPEG FRAME FRAME SOS, 44, -CQ_E_BAD_ARG, 0, 0},
        {JPEG "\xff" FRAME "\xff\xff" SOS, 34, 0, 9, 7},          /* filling */
        {JPEG "x" FRAME SOS, 32, -CQ_E_BAD_ARG, 0, 0},            /* garbage */
        {JPEG "\xff\x01\0\2" FRAME SOS, 35, -CQ_E_BAD_ARG, 0, 0}, /* bare, or is it? */
        {JPEG "\xff\xd0\0\2" FRAME SOS, 35, -CQ_E_BAD_ARG, 0, 0},
        {JPEG "\xff\xd8\0\2" FRAME SOS, 35, -CQ_E_BAD_ARG, 0, 0},
        {JPEG "\xff\0\0\2" FRAME SOS, 35, -CQ_E_BAD_ARG, 0, 0},
        {"\xff\xd8\xff\xe0\xff\xffxx\xff\xc0\0\13", 12, -CQ_E_BAD_ARG, 0, 0},
        {"\xff\xd8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, -CQ_E_BAD_ARG, 0, 0},
        {"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\xff\0\0\x0f\0\0", 30, 0, 256, 16},
        {"RIFF\0\0\0\0WEBPxxxx\0\0\0\0\0\0\0\0\xff\0\0\x0f\0\0", 30, -CQ_E_BAD_ARG, 0, 0},
        {"RIFF\0\0\0\0WAVEfmt ", 16, -CQ_E_NOT_FOUND, 0, 0},
        {"hello", 5, -CQ_E_NOT_FOUND, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cq_picture p;
        int rc = cq_picture_read((const uint8_t *)rows[i].bytes, rows[i].n, &p);
        assert_int_equal(rc, rows[i].rc);
        if (!rc) {
            assert_int_equal(p.width, rows[i].width);
            assert_int_equal(p.height, rows[i].height);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_cut_and_reordered),
        cmocka_unit_test(test_the_file_changes_meanwhile),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_picture_sizes),
    };
    if (sodium_init() < 0) {
        return EXIT_FAILURE;
    }
    randombytes_buf(plain, sizeof plain);
    return cmocka_run_group_tests_name("client.cipher", tests, NULL, NULL);
}
