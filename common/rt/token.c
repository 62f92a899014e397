/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/token.h"

#include <string.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/wire/name.h"
#include "common/wire/pack.h"
#include "common/wire/read.h"

/* The context keeps a signature of the same key over anything else from being taken for a token. */
static const char context[] = "chasqui-token-v1";
static const char seal_context[] = "chasqui-seal-v1";

enum {
    CONTEXT_SIZE = sizeof context - 1,
    VERSION = 1,
    FIELD_COUNT = 6,
    SEALED = 0xc1, /* no msgpack begins with it, so no token does */
    SEAL_SIZE = 32,
    SEALED_EXTRA = 1 + SEAL_SIZE
};

/* What is signed: the context and the body. n is at most CQ_TOKEN_MAX. */
static size_t
signed_text(uint8_t text[CONTEXT_SIZE + CQ_TOKEN_MAX], const uint8_t *body, size_t n)
{
    memcpy(text, context, CONTEXT_SIZE);
    memcpy(text + CONTEXT_SIZE, body, n);
    return CONTEXT_SIZE + n;
}

void
cq_token_sign(cq_buf_t *out, const struct cq_token *t, const uint8_t secret_key[64])
{
    size_t start = out->size;
    cq_pack_array(out, FIELD_COUNT);
    cq_pack_uint(out, VERSION);
    cq_pack_bin(out, t->user.b, CQ_ID_SIZE);
    cq_pack_bin(out, t->device.b, CQ_ID_SIZE);
    cq_pack_str(out, t->name, strnlen(t->name, CQ_NAME_MAX));
    cq_pack_uint(out, t->generation);
    cq_pack_uint(out, t->expires_unix_ms);

    size_t n = out->size - start;
    CQ_ASSERT(n + CQ_SIGN_SIZE + SEALED_EXTRA <= CQ_TOKEN_MAX);
    uint8_t text[CONTEXT_SIZE + CQ_TOKEN_MAX];
    size_t text_size = signed_text(text, out->data + start, n);
    uint8_t *signature = cq_buf_reserve(out, CQ_SIGN_SIZE);
    crypto_sign_ed25519_detached(signature, NULL, text, text_size, secret_key);
    out->size += CQ_SIGN_SIZE;
}

static int
read_body(struct cq_view body, struct cq_token *t)
{
    cq_reader_t r = cq_reader_of(body);
    cq_read_array(&r, FIELD_COUNT, FIELD_COUNT);
    uint64_t version = cq_read_uint(&r, VERSION);
    struct cq_token out = {.user = cq_read_id(&r)};
    out.device = cq_read_id(&r);
    struct cq_view name = cq_read_str(&r, CQ_NAME_MIN, CQ_NAME_MAX);
    out.generation = cq_read_uint(&r, UINT64_MAX);
    out.expires_unix_ms = cq_read_uint(&r, UINT64_MAX);
    if (r.err || version != VERSION || !cq_reader_at_end(&r) ||
        !cq_name_ok((const char *)name.p, name.n)) {
        return -CQ_E_BAD_TOKEN;
    }
    memcpy(out.name, name.p, name.n);
    *t = out;
    return 0;
}

/* The token without its seal, if it has one: `seal` is then what stands behind it, else NULL. */
static struct cq_view
unsealed(struct cq_view token, const uint8_t **seal)
{
    *seal = NULL;
    if (token.n <= SEALED_EXTRA || token.p[0] != SEALED) {
        return token;
    }
    struct cq_view inner = {token.p + 1, token.n - SEALED_EXTRA};
    *seal = inner.p + inner.n;
    return inner;
}

static void
make_seal(uint8_t seal[SEAL_SIZE], struct cq_view token, const uint8_t *key)
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, key, CQ_TOKEN_SEAL_KEY_SIZE, SEAL_SIZE);
    crypto_generichash_update(&state, (const uint8_t *)seal_context, sizeof seal_context - 1);
    crypto_generichash_update(&state, token.p, token.n);
    crypto_generichash_final(&state, seal, SEAL_SIZE);
}

void
cq_token_seal(cq_buf_t *out, struct cq_view token, const struct cq_token_keys *keys)
{
    const uint8_t *old;
    struct cq_view inner = unsealed(token, &old);
    if (!keys->has_seal || inner.n > CQ_TOKEN_MAX - SEALED_EXTRA) {
        cq_buf_append(out, inner.p, inner.n);
        return;
    }
    uint8_t mark = SEALED, seal[SEAL_SIZE];
    make_seal(seal, inner, keys->seal);
    cq_buf_append(out, &mark, sizeof mark);
    cq_buf_append(out, inner.p, inner.n);
    cq_buf_append(out, seal, sizeof seal);
}

static bool
is_sealed(struct cq_view token, const uint8_t *seal, const uint8_t *key)
{
    uint8_t ours[SEAL_SIZE];
    make_seal(ours, token, key);
    return sodium_memcmp(ours, seal, sizeof ours) == 0;
}

static bool
is_signed(struct cq_view body, const uint8_t *key)
{
    uint8_t text[CONTEXT_SIZE + CQ_TOKEN_MAX];
    size_t text_size = signed_text(text, body.p, body.n);
    return crypto_sign_ed25519_verify_detached(body.p + body.n, text, text_size, key) == 0;
}

int
cq_token_verify(struct cq_view token,
                const struct cq_token_keys *keys,
                uint64_t now_unix_ms,
                struct cq_token *t)
{
    if (!token.p || token.n > CQ_TOKEN_MAX) {
        return -CQ_E_BAD_TOKEN;
    }
    const uint8_t *seal;
    struct cq_view inner = unsealed(token, &seal);
    if (inner.n <= CQ_SIGN_SIZE) {
        return -CQ_E_BAD_TOKEN;
    }
    /* A proof first: nobody's bytes but the store's reach the reader. */
    struct cq_view body = {inner.p, inner.n - CQ_SIGN_SIZE};
    bool by_seal = seal && keys->has_seal && is_sealed(inner, seal, keys->seal);
    struct cq_token out;
    if ((!by_seal && !is_signed(body, keys->sign)) || read_body(body, &out) != 0 ||
        out.expires_unix_ms <= now_unix_ms) {
        return -CQ_E_BAD_TOKEN;
    }
    *t = out;
    return by_seal ? CQ_TOKEN_BY_SEAL : CQ_TOKEN_BY_SIGNATURE;
}
