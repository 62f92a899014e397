/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "common/rt/token.h"
#include "common/wire/pack.h"

static uint8_t public_key[32], secret_key[64];

enum {
    EXPIRES = 1000000
};

static struct cq_token
sample(void)
{
    struct cq_token t = {.name = "ana.b-c_9", .generation = UINT64_MAX, .expires_unix_ms = EXPIRES};
    randombytes_buf(&t.user, sizeof t.user);
    randombytes_buf(&t.device, sizeof t.device);
    return t;
}

static void
what_is_signed_verifies(void **state)
{
    (void)state;
    struct cq_token in = sample(), out;
    cq_buf_t b = {0};
    cq_buf_append(&b, "before", 6);
    cq_token_sign(&b, &in, secret_key);
    assert_memory_equal(b.data, "before", 6);
    assert_int_equal(cq_token_verify(b.data + 6, b.size - 6, public_key, EXPIRES - 1, &out), 0);
    assert_true(cq_id_eq(&in.user, &out.user));
    assert_true(cq_id_eq(&in.device, &out.device));
    assert_string_equal(in.name, out.name);
    assert_true(out.generation == UINT64_MAX);
    assert_true(out.expires_unix_ms == EXPIRES);
    cq_buf_free(&b);
}

static void
longest_fits_the_limit(void **state)
{
    (void)state;
    struct cq_token in = sample(), out;
    memset(in.name, 'z', CQ_NAME_MAX);
    in.expires_unix_ms = UINT64_MAX;
    cq_buf_t b = {0};
    cq_token_sign(&b, &in, secret_key);
    assert_true(b.size <= CQ_TOKEN_MAX);
    assert_int_equal(cq_token_verify(b.data, b.size, public_key, 0, &out), 0);
    assert_int_equal(strlen(out.name), CQ_NAME_MAX);
    cq_buf_free(&b);
}

static void
expiry_is_exact(void **state)
{
    (void)state;
    struct cq_token in = sample(), out;
    cq_buf_t b = {0};
    cq_token_sign(&b, &in, secret_key);
    assert_int_equal(cq_token_verify(b.data, b.size, public_key, EXPIRES, &out), -CQ_E_BAD_TOKEN);
    cq_buf_free(&b);
}

static void
every_flipped_bit_and_every_cut_is_refused(void **state)
{
    (void)state;
    struct cq_token in = sample(), out;
    memset(&out, 7, sizeof out);
    struct cq_token before = out;
    cq_buf_t b = {0};
    cq_token_sign(&b, &in, secret_key);
    for (size_t i = 0; i < b.size * 8; i++) {
        b.data[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(cq_token_verify(b.data, b.size, public_key, 0, &out), -CQ_E_BAD_TOKEN);
        b.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* its own block, so that reading beyond is seen */
        memcpy(cut, b.data, n);
        assert_int_equal(cq_token_verify(cut, n, public_key, 0, &out), -CQ_E_BAD_TOKEN);
        free(cut);
    }
    assert_memory_equal(&out, &before, sizeof out);
    assert_int_equal(cq_token_verify(NULL, 0, public_key, 0, &out), -CQ_E_BAD_TOKEN);
    cq_buf_free(&b);
}

static void
another_key_is_refused(void **state)
{
    (void)state;
    uint8_t pk[32], sk[64];
    crypto_sign_ed25519_keypair(pk, sk);
    struct cq_token in = sample(), out;
    cq_buf_t b = {0};
    cq_token_sign(&b, &in, sk);
    assert_int_equal(cq_token_verify(b.data, b.size, public_key, 0, &out), -CQ_E_BAD_TOKEN);
    assert_int_equal(cq_token_verify(b.data, b.size, pk, 0, &out), 0);
    cq_buf_free(&b);
}

/* Signs arbitrary bytes like a token, with and without the context. */
static int
verify_signed(const cq_buf_t *body, const char *context)
{
    uint8_t text[600], token[600];
    struct cq_token out;
    size_t n = strlen(context);
    memcpy(text, context, n); /* NOLINT(bugprone-not-null-terminated-result): bytes */
    memcpy(text + n, body->data, body->size);
    memcpy(token, body->data, body->size);
    crypto_sign_ed25519_detached(token + body->size, NULL, text, n + body->size, secret_key);
    return cq_token_verify(token, body->size + 64, public_key, 0, &out);
}

static void
pack_body(cq_buf_t *b, uint64_t version, size_t fields, const char *name)
{
    struct cq_id id = {{1}};
    cq_buf_clear(b);
    cq_pack_array(b, fields);
    cq_pack_uint(b, version);
    cq_pack_bin(b, &id, sizeof id);
    cq_pack_bin(b, &id, sizeof id);
    cq_pack_str(b, name, strlen(name));
    cq_pack_uint(b, 1);
    cq_pack_uint(b, EXPIRES);
}

static void
signed_but_not_a_token(void **state)
{
    (void)state;
    static const char good[] = "chasqui-token-v1";
    cq_buf_t b = {0};
    pack_body(&b, 1, 6, "ana");
    assert_int_equal(verify_signed(&b, good), 0);
    assert_int_equal(verify_signed(&b, "chasqui-keys-v1"), -CQ_E_BAD_TOKEN);
    assert_int_equal(verify_signed(&b, ""), -CQ_E_BAD_TOKEN);
    pack_body(&b, 0, 6, "ana");
    assert_int_equal(verify_signed(&b, good), -CQ_E_BAD_TOKEN);
    pack_body(&b, 2, 6, "ana");
    assert_int_equal(verify_signed(&b, good), -CQ_E_BAD_TOKEN);
    pack_body(&b, 1, 7, "ana");
    assert_int_equal(verify_signed(&b, good), -CQ_E_BAD_TOKEN);
    pack_body(&b, 1, 6, "Ana!");
    assert_int_equal(verify_signed(&b, good), -CQ_E_BAD_TOKEN);
    pack_body(&b, 1, 6, "ana");
    cq_pack_nil(&b);
    assert_int_equal(verify_signed(&b, good), -CQ_E_BAD_TOKEN);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_signed_verifies),
        cmocka_unit_test(longest_fits_the_limit),
        cmocka_unit_test(expiry_is_exact),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_refused),
        cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(signed_but_not_a_token),
    };
    if (sodium_init() < 0) {
        return 1;
    }
    crypto_sign_ed25519_keypair(public_key, secret_key);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
