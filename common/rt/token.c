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

enum {
    CONTEXT_SIZE = sizeof context - 1,
    VERSION = 1,
    FIELD_COUNT = 6
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
    CQ_ASSERT(n + CQ_SIGN_SIZE <= CQ_TOKEN_MAX);
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

int
cq_token_verify(const void *data,
                size_t n,
                const uint8_t public_key[32],
                uint64_t now_unix_ms,
                struct cq_token *t)
{
    if (!data || n <= CQ_SIGN_SIZE || n > CQ_TOKEN_MAX) {
        return -CQ_E_BAD_TOKEN;
    }
    /* The signature first: nobody's bytes but the store's reach the reader. */
    struct cq_view body = {data, n - CQ_SIGN_SIZE};
    uint8_t text[CONTEXT_SIZE + CQ_TOKEN_MAX];
    size_t text_size = signed_text(text, body.p, body.n);
    struct cq_token out;
    if (crypto_sign_ed25519_verify_detached(body.p + body.n, text, text_size, public_key) != 0 ||
        read_body(body, &out) != 0 || out.expires_unix_ms <= now_unix_ms) {
        return -CQ_E_BAD_TOKEN;
    }
    *t = out;
    return 0;
}
