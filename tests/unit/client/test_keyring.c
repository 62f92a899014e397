/* SPDX-License-Identifier: MPL-2.0
 * What the keyring makes and takes, against the same built from libsodium's calls here, as
 * docs/protocol.md section 5 says it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "common/wire/pack.h"

#include "client/cipher.h"
#include "client/keyring.h"

struct world {
    struct cq_seal seal;
    uint8_t key[32];
    uint8_t nonce[24];
    uint8_t ad[64];
};

static struct world
make_world(void)
{
    struct world w = {.seal = {.dseq = 0x0102030405060708, .key_version = 9}};
    memset(w.seal.chat.b, 'c', 16);
    memset(w.seal.user.b, 'u', 16);
    memset(w.seal.device.b, 'd', 16);
    memset(w.key, 'k', sizeof w.key);
    static const uint8_t numbers[16] = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9};
    memset(w.ad, 'c', 16);
    memset(w.ad + 16, 'u', 16);
    memset(w.ad + 32, 'd', 16);
    memcpy(w.ad + 48, numbers, 16);
    return w;
}

static struct cq_message
message_of(const struct world *w, const cq_buf_t *ciphertext)
{
    return (struct cq_message){
        .chat = w->seal.chat,
        .user = w->seal.user,
        .device = w->seal.device,
        .dseq = w->seal.dseq,
        .key_version = w->seal.key_version,
        .nonce = {w->nonce, 24},
        .ciphertext = {ciphertext->data, ciphertext->size},
    };
}

static struct cq_view
view(const char *s)
{
    return (struct cq_view){(const uint8_t *)s, strlen(s)};
}

static void
test_encrypt_as_the_page_says(void **state)
{
    (void)state;
    struct world w = make_world();
    cq_buf_t out = {0};
    assert_int_equal(cq_keyring_encrypt(&w.seal, w.key, view("hi ☕"), w.nonce, &out), 0);
    uint8_t plain[64];
    unsigned long long n = 0;
    assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(plain, &n, NULL, out.data, out.size,
                                                                w.ad, sizeof w.ad, w.nonce, w.key),
                     0);
    static const uint8_t expected[] = {0x92, 0x01, 0xa6, 'h', 'i', ' ', 0xe2, 0x98, 0x95};
    assert_int_equal(n, sizeof expected);
    assert_memory_equal(plain, expected, sizeof expected);
    uint8_t first[24];
    memcpy(first, w.nonce, 24);
    assert_int_equal(cq_keyring_encrypt(&w.seal, w.key, view("hi ☕"), w.nonce, &out), 0);
    assert_memory_not_equal(first, w.nonce, 24);
    cq_buf_free(&out);
}

static void
test_texts_that_are_none(void **state)
{
    (void)state;
    struct world w = make_world();
    cq_buf_t out = {0};
    char *big = malloc(CQ_TEXT_MAX + 1);
    memset(big, 'x', CQ_TEXT_MAX + 1);
    struct cq_view texts[] = {{(const uint8_t *)big, CQ_TEXT_MAX + 1},
                              {(const uint8_t *)big, 0},
                              view("\xff"),
                              {(const uint8_t *)"a\0b", 3}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(cq_keyring_encrypt(&w.seal, w.key, texts[i], w.nonce, &out),
                         -CQ_E_BAD_ARG);
    }
    assert_int_equal(cq_keyring_encrypt(&w.seal, w.key,
                                        (struct cq_view){(const uint8_t *)big, CQ_TEXT_MAX},
                                        w.nonce, &out),
                     0);
    assert_true(out.size <= CQ_CIPHERTEXT_MAX);
    free(big);
    cq_buf_free(&out);
}

static void
seal_bytes(struct world *w, const void *plain, size_t n, cq_buf_t *out)
{
    unsigned long long size = 0;
    cq_buf_clear(out);
    uint8_t *p = cq_buf_reserve(out, n + 16);
    crypto_aead_xchacha20poly1305_ietf_encrypt(p, &size, plain, n, w->ad, sizeof w->ad, NULL,
                                               w->nonce, w->key);
    out->size = size;
}

static void
test_decrypt(void **state)
{
    (void)state;
    struct world w = make_world();
    cq_buf_t ct = {0};
    struct cq_opened opened;
    seal_bytes(&w, "\x93\x01\xa2ok\x07", 6,
               &ct); /* a later version's field at the end is ignored */
    struct cq_message m = message_of(&w, &ct);
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), 0);
    assert_string_equal(opened.text, "ok");
    assert_int_equal(opened.text_size, 2);
    assert_null(opened.medium);
    free(opened.text);
    static const struct {
        const char *bytes;
        size_t n;
    } other[] = {{"\x92\x02\xa2ok", 5},   {"\x91\x01", 2},     {"\xa2ok", 3},
                 {"\x92\x01\xa1\xff", 4}, {"\x92\x01\xa0", 3}, {"\xc1", 1}};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        seal_bytes(&w, other[i].bytes, other[i].n, &ct);
        m = message_of(&w, &ct);
        assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), -CQ_E_UNKNOWN_OP);
        assert_null(opened.text);
    }
    cq_buf_free(&ct);
}

/* Every field that the ciphertext is bound to, changed by one bit: not authentic. */
static void
test_bound_to_its_place(void **state)
{
    (void)state;
    struct world w = make_world();
    cq_buf_t ct = {0};
    struct cq_opened opened;
    assert_int_equal(cq_keyring_encrypt(&w.seal, w.key, view("bound"), w.nonce, &ct), 0);
    for (int i = 0; i < 7; i++) {
        struct cq_message m = message_of(&w, &ct);
        uint8_t key[32];
        memcpy(key, w.key, 32);
        m.chat.b[15] ^= i == 0;
        m.user.b[0] ^= i == 1;
        m.device.b[7] ^= i == 2;
        m.dseq ^= i == 3;
        m.key_version ^= i == 4;
        key[3] ^= i == 5;
        m.ciphertext.n -= i == 6;
        assert_int_equal(cq_keyring_decrypt(&m, key, &opened), -CQ_E_CRYPTO);
    }
    struct cq_message m = message_of(&w, &ct);
    m.ciphertext.n = 3;
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), -CQ_E_CRYPTO);
    cq_buf_free(&ct);
}

/* ---- pictures and files ---- */

/* A JPEG's beginning: enough for those who look at its size only. */
static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 120, 0, 160, 1, 1,
                               0x11, 0,    0xff, 0xda, 0, 8,  1, 1, 0,   0, 63,  0};

static struct cq_medium
make_medium(void)
{
    struct cq_medium m = {.blob = {{9}},
                          .length = cq_cipher_length(70000),
                          .type = "image/jpeg",
                          .name = "cat.jpg",
                          .size = 70000,
                          .width = 640,
                          .height = 480,
                          .thumbnail_size = sizeof jpeg};
    memset(m.key, 7, sizeof m.key);
    memcpy(m.thumbnail, jpeg, sizeof jpeg);
    return m;
}

/* The message of a medium; its bytes are in the two buffers. */
static struct cq_message
seal_medium(struct world *w, const struct cq_medium *medium, cq_buf_t *part, cq_buf_t *ct)
{
    struct cq_media media;
    cq_medium_write_media(part, medium);
    assert_int_equal(cq_media_read((struct cq_view){part->data, part->size}, &media), 1);
    w->seal.media = &media;
    assert_int_equal(
        cq_keyring_encrypt_medium(&w->seal, w->key, view("look"), medium, w->nonce, ct), 0);
    w->seal.media = NULL;
    struct cq_message m = message_of(w, ct);
    m.media = (struct cq_view){part->data, part->size};
    return m;
}

static void
test_medium(void **state)
{
    (void)state;
    struct world w = make_world();
    struct cq_medium medium = make_medium();
    cq_buf_t part = {0};
    cq_buf_t ct = {0};
    struct cq_opened opened;
    struct cq_message m = seal_medium(&w, &medium, &part, &ct);
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), 0);
    assert_string_equal(opened.text, "look");
    assert_non_null(opened.medium);
    assert_memory_equal(opened.medium, &medium, sizeof medium);
    free(opened.text);
    free(opened.medium);
    /* every byte of the media part counts: the server can exchange nothing */
    for (size_t i = 0; i < part.size; i++) {
        part.data[i] ^= 1;
        assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), -CQ_E_CRYPTO);
        part.data[i] ^= 1;
    }
    m.media = (struct cq_view){0};
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), -CQ_E_CRYPTO);
    cq_buf_free(&part);
    cq_buf_free(&ct);
}

/* The sender's own doing: a thumbnail that is none, a length that is not the file's. */
static void
test_bad_medium(void **state)
{
    (void)state;
    struct world w = make_world();
    cq_buf_t part = {0};
    cq_buf_t ct = {0};
    struct cq_opened opened;
    struct cq_medium medium = make_medium();
    medium.thumbnail[7] = 0x7f; /* 32,000 pixels high: not shown */
    struct cq_message m = seal_medium(&w, &medium, &part, &ct);
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), 0);
    assert_true(opened.medium->is_thumbnail_bad);
    assert_int_equal(opened.medium->thumbnail_size, 0);
    free(opened.text);
    free(opened.medium);
    medium = make_medium();
    medium.length++;
    cq_buf_clear(&part);
    cq_buf_clear(&ct);
    m = seal_medium(&w, &medium, &part, &ct);
    assert_int_equal(cq_keyring_decrypt(&m, w.key, &opened), -CQ_E_UNKNOWN_OP);
    assert_null(opened.medium);
    cq_buf_free(&part);
    cq_buf_free(&ct);
}

/* ---- key bundles ---- */

struct bundle_world {
    struct cq_keyring_owner owner;
    uint8_t public_key[32], secret_key[32], store_key[32], store_secret[64];
    uint8_t bundle_key[32], sealed[80], signature[64];
    cq_buf_t rows;
    struct cq_key_bundle bundle;
};

static void
sign_bundle(struct bundle_world *b)
{
    uint8_t text[15 + 16 + 16 + 80 + 32];
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes, not a string */
    memcpy(text, "chasqui-keys-v1", 15);
    memcpy(text + 15, b->owner.user.b, 16);
    memcpy(text + 31, b->owner.device.b, 16);
    memcpy(text + 47, b->sealed, 80);
    crypto_generichash(text + 127, 32, b->rows.data, b->rows.size, NULL, 0);
    crypto_sign_detached(b->signature, NULL, text, sizeof text, b->store_secret);
}

static void
add_key(struct bundle_world *b, uint8_t chat_byte, uint8_t version, uint8_t key_byte)
{
    uint8_t ad[24] = {0};
    uint8_t key[32];
    uint8_t wrapped[48];
    uint8_t nonce[24];
    struct cq_key_row row = {
        .key_version = version, .nonce = {nonce, 24}, .wrapped = {wrapped, 48}};
    memset(row.chat.b, chat_byte, 16);
    memset(ad, chat_byte, 16);
    ad[23] = version;
    memset(key, key_byte, 32);
    randombytes_buf(nonce, 24);
    crypto_aead_xchacha20poly1305_ietf_encrypt(wrapped, NULL, key, 32, ad, 24, NULL, nonce,
                                               b->bundle_key);
    cq_schema_write_array(&cq_key_row_schema, &b->rows, &row);
}

static void
make_bundle(struct bundle_world *b)
{
    memset(b, 0, sizeof *b);
    crypto_box_keypair(b->public_key, b->secret_key);
    crypto_sign_keypair(b->store_key, b->store_secret);
    randombytes_buf(b->bundle_key, 32);
    memset(b->owner.user.b, 1, 16);
    memset(b->owner.device.b, 2, 16);
    b->owner.public_key = b->public_key;
    b->owner.secret_key = b->secret_key;
    b->owner.store_key = b->store_key;
    crypto_box_seal(b->sealed, b->bundle_key, 32, b->public_key);
    add_key(b, 'A', 1, 'a');
    add_key(b, 'B', 3, 'b');
    sign_bundle(b);
    b->bundle =
        (struct cq_key_bundle){{b->sealed, 80}, {b->signature, 64}, false, cq_list_of(&b->rows, 2)};
}

static int
take_key(void *ctx, const struct cq_id *chat, uint64_t version, const uint8_t key[CQ_KEY_SIZE])
{
    char *seen = ctx;
    size_t n = strlen(seen);
    seen[n] = (char)chat->b[0];
    seen[n + 1] = (char)('0' + version);
    seen[n + 2] = (char)key[31];
    return 0;
}

static void
test_bundle(void **state)
{
    (void)state;
    struct bundle_world b;
    char seen[32] = "";
    make_bundle(&b);
    assert_int_equal(cq_keyring_open(&b.bundle, &b.owner, take_key, seen), 0);
    assert_string_equal(seen, "A1aB3b");
    cq_buf_free(&b.rows);
}

static void
test_bundle_of_somebody_else(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++) {
        struct bundle_world b;
        char seen[32] = "";
        make_bundle(&b);
        b.owner.user.b[3] ^= i == 0;
        b.owner.device.b[3] ^= i == 1;
        b.store_key[0] ^= i == 2;
        b.sealed[5] ^= i == 3;
        b.rows.data[b.rows.size - 1] ^= i == 4;
        b.signature[10] ^= i == 5;
        b.bundle.sealed.n -= i == 6;
        assert_int_equal(cq_keyring_open(&b.bundle, &b.owner, take_key, seen), -CQ_E_CRYPTO);
        assert_string_equal(seen, "");
        cq_buf_free(&b.rows);
    }
}

static void
test_bundle_with_a_bad_key(void **state)
{
    (void)state;
    struct bundle_world b;
    char seen[32] = "";
    make_bundle(&b);
    b.rows.data[b.rows.size - 1] ^= 1;
    sign_bundle(&b); /* signed, yet the second key does not open */
    assert_int_equal(cq_keyring_open(&b.bundle, &b.owner, take_key, seen), -CQ_E_CRYPTO);
    assert_string_equal(seen, "A1a");
    cq_buf_free(&b.rows);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encrypt_as_the_page_says),
        cmocka_unit_test(test_texts_that_are_none),
        cmocka_unit_test(test_decrypt),
        cmocka_unit_test(test_bound_to_its_place),
        cmocka_unit_test(test_medium),
        cmocka_unit_test(test_bad_medium),
        cmocka_unit_test(test_bundle),
        cmocka_unit_test(test_bundle_of_somebody_else),
        cmocka_unit_test(test_bundle_with_a_bad_key),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
