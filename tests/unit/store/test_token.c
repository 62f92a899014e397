/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "common/rt/token.h"
#include "common/wire/pack.h"

static struct cq_token_keys keys;
static uint8_t secret_key[64];

enum {
    EXPIRES = 1000000
};

static struct cq_view
view(const cq_buf_t *b)
{
    return (struct cq_view){b->data, b->size};
}

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
    assert_int_equal(
        cq_token_verify((struct cq_view){b.data + 6, b.size - 6}, &keys, EXPIRES - 1, &out), 0);
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
    assert_int_equal(cq_token_verify(view(&b), &keys, 0, &out), 0);
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
    assert_int_equal(cq_token_verify(view(&b), &keys, EXPIRES, &out), -CQ_E_BAD_TOKEN);
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
        assert_int_equal(cq_token_verify(view(&b), &keys, 0, &out), -CQ_E_BAD_TOKEN);
        b.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* its own block, so that reading beyond is seen */
        memcpy(cut, b.data, n);
        assert_int_equal(cq_token_verify((struct cq_view){cut, n}, &keys, 0, &out),
                         -CQ_E_BAD_TOKEN);
        free(cut);
    }
    assert_memory_equal(&out, &before, sizeof out);
    assert_int_equal(cq_token_verify((struct cq_view){NULL, 0}, &keys, 0, &out), -CQ_E_BAD_TOKEN);
    cq_buf_free(&b);
}

static void
another_key_is_refused(void **state)
{
    (void)state;
    struct cq_token_keys other;
    uint8_t sk[64];
    crypto_sign_ed25519_keypair(other.sign, sk);
    struct cq_token in = sample(), out;
    cq_buf_t b = {0};
    cq_token_sign(&b, &in, sk);
    assert_int_equal(cq_token_verify(view(&b), &keys, 0, &out), -CQ_E_BAD_TOKEN);
    assert_int_equal(cq_token_verify(view(&b), &other, 0, &out), 0);
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
    return cq_token_verify((struct cq_view){token, body->size + 64}, &keys, 0, &out);
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

/* ---- seals ---- */

/* A token signed with secret_key, and sealed with keys. */
static cq_buf_t
sealed_sample(cq_buf_t *token)
{
    struct cq_token in = sample();
    cq_buf_t sealed = {0};
    cq_token_sign(token, &in, secret_key);
    cq_token_seal(&sealed, view(token), &keys);
    return sealed;
}

static void
a_seal_stands_for_the_signature(void **state)
{
    (void)state;
    struct cq_token out;
    cq_buf_t token = {0}, sealed = sealed_sample(&token);
    assert_int_equal(sealed.size, token.size + 33);
    assert_int_equal(cq_token_verify(view(&sealed), &keys, 0, &out), CQ_TOKEN_BY_SEAL);
    assert_string_equal(out.name, "ana.b-c_9");
    assert_int_equal(cq_token_verify(view(&sealed), &keys, EXPIRES, &out), -CQ_E_BAD_TOKEN);
    /* Really instead of it: the key of signatures is not looked at. */
    struct cq_token_keys unknown = keys;
    randombytes_buf(unknown.sign, sizeof unknown.sign);
    assert_int_equal(cq_token_verify(view(&sealed), &unknown, 0, &out), CQ_TOKEN_BY_SEAL);
    cq_buf_free(&token);
    cq_buf_free(&sealed);
}

static void
without_its_seal_the_signature_decides(void **state)
{
    (void)state;
    struct cq_token out;
    struct cq_token_keys later = keys;
    randombytes_buf(later.seal, sizeof later.seal);
    cq_buf_t token = {0}, sealed = sealed_sample(&token), again = {0};
    assert_int_equal(cq_token_verify(view(&sealed), &later, 0, &out), CQ_TOKEN_BY_SIGNATURE);
    /* Sealed anew it is as long as before. */
    cq_token_seal(&again, view(&sealed), &later);
    assert_int_equal(again.size, sealed.size);
    assert_int_equal(cq_token_verify(view(&again), &later, 0, &out), CQ_TOKEN_BY_SEAL);
    /* Neither of them. */
    randombytes_buf(later.sign, sizeof later.sign);
    assert_int_equal(cq_token_verify(view(&sealed), &later, 0, &out), -CQ_E_BAD_TOKEN);
    cq_buf_free(&token);
    cq_buf_free(&sealed);
    cq_buf_free(&again);
}

/* With a seal or without: no byte of the token itself can be changed. */
static void
a_seal_covers_the_whole_token(void **state)
{
    (void)state;
    struct cq_token out;
    cq_buf_t token = {0}, sealed = sealed_sample(&token);
    for (size_t i = 0; i < sealed.size * 8; i++) {
        sealed.data[i / 8] ^= (uint8_t)(1 << i % 8);
        bool in_seal = i / 8 > token.size;
        assert_int_equal(cq_token_verify(view(&sealed), &keys, 0, &out),
                         in_seal ? CQ_TOKEN_BY_SIGNATURE : -CQ_E_BAD_TOKEN);
        sealed.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t n = 0; n < sealed.size; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, sealed.data, n);
        assert_int_equal(cq_token_verify((struct cq_view){cut, n}, &keys, 0, &out),
                         -CQ_E_BAD_TOKEN);
        free(cut);
    }
    cq_buf_free(&token);
    cq_buf_free(&sealed);
}

static void
the_longest_has_room_for_a_seal(void **state)
{
    (void)state;
    struct cq_token in = sample(), out;
    memset(in.name, 'z', CQ_NAME_MAX);
    in.expires_unix_ms = UINT64_MAX;
    cq_buf_t token = {0}, sealed = {0}, too_long = {0}, same = {0};
    cq_token_sign(&token, &in, secret_key);
    cq_token_seal(&sealed, view(&token), &keys);
    assert_true(sealed.size <= CQ_TOKEN_MAX);
    assert_int_equal(cq_token_verify(view(&sealed), &keys, 0, &out), CQ_TOKEN_BY_SEAL);
    memset(cq_buf_reserve(&too_long, CQ_TOKEN_MAX), 1, CQ_TOKEN_MAX);
    too_long.size = CQ_TOKEN_MAX;
    cq_token_seal(&same, view(&too_long), &keys);
    assert_int_equal(same.size, CQ_TOKEN_MAX);
    cq_buf_free(&token);
    cq_buf_free(&sealed);
    cq_buf_free(&too_long);
    cq_buf_free(&same);
}

/* Least of all those of a key that is all zero. */
static void
without_a_key_there_are_no_seals(void **state)
{
    (void)state;
    struct cq_token out;
    struct cq_token_keys none = {.has_seal = false}, zero = {.has_seal = true};
    memcpy(none.sign, keys.sign, sizeof none.sign);
    cq_buf_t token = {0}, sealed = sealed_sample(&token), by_zero = {0}, again = {0}, old = {0};
    cq_token_seal(&by_zero, view(&token), &zero);
    assert_int_equal(cq_token_verify(view(&by_zero), &zero, 0, &out), CQ_TOKEN_BY_SEAL);
    assert_int_equal(cq_token_verify(view(&by_zero), &none, 0, &out), CQ_TOKEN_BY_SIGNATURE);
    assert_int_equal(cq_token_verify(view(&sealed), &none, 0, &out), CQ_TOKEN_BY_SIGNATURE);
    by_zero.data[by_zero.size - 34] ^= 1; /* the signature's last byte */
    assert_int_equal(cq_token_verify(view(&by_zero), &none, 0, &out), -CQ_E_BAD_TOKEN);
    cq_token_seal(&again, view(&token), &none);
    assert_int_equal(again.size, token.size);
    assert_memory_equal(again.data, token.data, token.size);
    cq_token_seal(&old, view(&sealed), &none);
    assert_int_equal(old.size, token.size);
    cq_buf_free(&token);
    cq_buf_free(&sealed);
    cq_buf_free(&by_zero);
    cq_buf_free(&again);
    cq_buf_free(&old);
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
        cmocka_unit_test(a_seal_stands_for_the_signature),
        cmocka_unit_test(without_its_seal_the_signature_decides),
        cmocka_unit_test(a_seal_covers_the_whole_token),
        cmocka_unit_test(the_longest_has_room_for_a_seal),
        cmocka_unit_test(without_a_key_there_are_no_seals),
    };
    if (sodium_init() < 0) {
        return 1;
    }
    crypto_sign_ed25519_keypair(keys.sign, secret_key);
    randombytes_buf(keys.seal, sizeof keys.seal);
    keys.has_seal = true;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
