/* SPDX-License-Identifier: MPL-2.0 */
#include "client/keyring.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/wire/pack.h"

enum {
    KIND_TEXT = 1,
    KIND_MEDIUM = 2,
    MESSAGE_AD_MAX = 3 * CQ_ID_SIZE + 2 * 8 + CQ_MEDIUM_HASH_SIZE,
    KEY_AD_SIZE = CQ_ID_SIZE + 8,
    DIGEST_SIZE = 32,
};

static const char signed_prefix[] = "chasqui-keys-v1";

static uint8_t *
put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--) {
        p[i] = (uint8_t)v;
        v >>= 8;
    }
    return p + 8;
}

static uint8_t *
put_bytes(uint8_t *p, const void *data, size_t n)
{
    memcpy(p, data, n);
    return p + n;
}

/* Returns its size. */
static size_t
message_ad(const struct cq_seal *s, uint8_t ad[MESSAGE_AD_MAX])
{
    uint8_t *p = put_bytes(ad, s->chat.b, CQ_ID_SIZE);
    p = put_bytes(p, s->user.b, CQ_ID_SIZE);
    p = put_bytes(p, s->device.b, CQ_ID_SIZE);
    p = put_u64(p, s->dseq);
    p = put_u64(p, s->key_version);
    if (s->media) {
        cq_medium_hash(s->media, p);
        p += CQ_MEDIUM_HASH_SIZE;
    }
    return (size_t)(p - ad);
}

/* Takes the plaintext: wipes and frees it. */
static void
seal_plain(const struct cq_seal *seal,
           const uint8_t key[CQ_KEY_SIZE],
           cq_buf_t *plain,
           uint8_t nonce[CQ_NONCE_SIZE],
           cq_buf_t *ciphertext)
{
    uint8_t ad[MESSAGE_AD_MAX];
    size_t ad_size = message_ad(seal, ad);
    randombytes_buf(nonce, CQ_NONCE_SIZE);
    unsigned long long n = 0;
    uint8_t *out = cq_buf_reserve(ciphertext, plain->size + CQ_MAC_SIZE);
    crypto_aead_xchacha20poly1305_ietf_encrypt(out, &n, plain->data, plain->size, ad, ad_size, NULL,
                                               nonce, key);
    ciphertext->size += n;
    sodium_memzero(plain->data, plain->size);
    cq_buf_free(plain);
}

static bool
is_text(struct cq_view text, size_t max)
{
    return text.n <= max && cq_utf8_ok(text.p, text.n) && !(text.n && memchr(text.p, 0, text.n));
}

int
cq_keyring_encrypt(const struct cq_seal *seal,
                   const uint8_t key[CQ_KEY_SIZE],
                   struct cq_view text,
                   uint8_t nonce[CQ_NONCE_SIZE],
                   cq_buf_t *ciphertext)
{
    if (!text.n || !is_text(text, CQ_TEXT_MAX)) {
        return -CQ_E_BAD_ARG;
    }
    cq_buf_t plain = {0};
    cq_pack_array(&plain, 2);
    cq_pack_uint(&plain, KIND_TEXT);
    cq_pack_str(&plain, (const char *)text.p, text.n);
    seal_plain(seal, key, &plain, nonce, ciphertext);
    return 0;
}

int
cq_keyring_encrypt_medium(const struct cq_seal *seal,
                          const uint8_t key[CQ_KEY_SIZE],
                          struct cq_view caption,
                          const struct cq_medium *medium,
                          uint8_t nonce[CQ_NONCE_SIZE],
                          cq_buf_t *ciphertext)
{
    if (!is_text(caption, CQ_MEDIUM_CAPTION_MAX)) {
        return -CQ_E_BAD_ARG;
    }
    cq_buf_t plain = {0};
    cq_medium_write_plain(&plain, caption, medium);
    seal_plain(seal, key, &plain, nonce, ciphertext);
    return 0;
}

static void *
must(void *p)
{
    if (!p) {
        abort();
    }
    return p;
}

static void
take_text(struct cq_view v, struct cq_opened *out)
{
    out->text = must(malloc(v.n + 1));
    memcpy(out->text, v.p, v.n);
    out->text[v.n] = '\0';
    out->text_size = v.n;
}

static int
take_plain(const uint8_t *plain, size_t n, const struct cq_media *media, struct cq_opened *out)
{
    cq_reader_t r = cq_reader(plain, n);
    size_t count = cq_read_array(&r, 1, 16);
    uint64_t kind = cq_read_uint(&r, UINT64_MAX);
    struct cq_view text = {0};
    if (r.err || count < 2) {
        return -CQ_E_UNKNOWN_OP;
    }
    if (kind == KIND_TEXT) {
        text = cq_read_str(&r, 1, CQ_TEXT_MAX);
        if (r.err) {
            return -CQ_E_UNKNOWN_OP;
        }
    } else if (kind == KIND_MEDIUM && media) {
        struct cq_medium *medium = must(malloc(sizeof *medium));
        int rc = cq_medium_read_plain(&r, count - 1, media, &text, medium);
        if (rc) {
            free(medium);
            return rc;
        }
        out->medium = medium;
    } else {
        return -CQ_E_UNKNOWN_OP;
    }
    take_text(text, out);
    return 0;
}

int
cq_keyring_decrypt(const struct cq_message *m,
                   const uint8_t key[CQ_KEY_SIZE],
                   struct cq_opened *out)
{
    struct cq_media media;
    int has_media = cq_media_read(m->media, &media);
    *out = (struct cq_opened){0};
    if (m->ciphertext.n < CQ_MAC_SIZE || m->ciphertext.n > CQ_CIPHERTEXT_MAX ||
        m->nonce.n != CQ_NONCE_SIZE || has_media < 0) {
        return -CQ_E_CRYPTO;
    }
    struct cq_seal seal = {m->chat, m->user,        m->device,
                           m->dseq, m->key_version, has_media ? &media : NULL};
    uint8_t ad[MESSAGE_AD_MAX];
    size_t ad_size = message_ad(&seal, ad);
    cq_buf_t plain = {0};
    unsigned long long n = 0;
    uint8_t *p = cq_buf_reserve(&plain, m->ciphertext.n);
    int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
                 p, &n, NULL, m->ciphertext.p, m->ciphertext.n, ad, ad_size, m->nonce.p, key)
                 ? -CQ_E_CRYPTO
                 : take_plain(p, n, seal.media, out);
    sodium_memzero(p, m->ciphertext.n);
    cq_buf_free(&plain);
    return rc;
}

/* ---- key bundles ---- */

static int
check_signature(const struct cq_key_bundle *b, const struct cq_keyring_owner *o)
{
    enum {
        TEXT_SIZE = sizeof signed_prefix - 1 + (size_t)2 * CQ_ID_SIZE + CQ_KEY_SIZE + CQ_SEAL_SIZE +
                    DIGEST_SIZE
    };
    uint8_t text[TEXT_SIZE];
    if (b->sealed.n != CQ_KEY_SIZE + CQ_SEAL_SIZE || b->signature.n != CQ_SIGN_SIZE) {
        return -CQ_E_CRYPTO;
    }
    uint8_t *p = put_bytes(text, signed_prefix, sizeof signed_prefix - 1);
    p = put_bytes(p, o->user.b, CQ_ID_SIZE);
    p = put_bytes(p, o->device.b, CQ_ID_SIZE);
    p = put_bytes(p, b->sealed.p, b->sealed.n);
    crypto_generichash(p, DIGEST_SIZE, b->keys.items.p, b->keys.items.n, NULL, 0);
    return crypto_sign_verify_detached(b->signature.p, text, sizeof text, o->store_key)
               ? -CQ_E_CRYPTO
               : 0;
}

static int
open_key(const struct cq_key_row *row,
         const uint8_t bundle_key[CQ_KEY_SIZE],
         uint8_t key[CQ_KEY_SIZE])
{
    uint8_t ad[KEY_AD_SIZE];
    put_u64(put_bytes(ad, row->chat.b, CQ_ID_SIZE), row->key_version);
    unsigned long long n = 0;
    if (row->wrapped.n != CQ_KEY_SIZE + CQ_MAC_SIZE || row->nonce.n != CQ_NONCE_SIZE) {
        return -CQ_E_CRYPTO;
    }
    return crypto_aead_xchacha20poly1305_ietf_decrypt(key, &n, NULL, row->wrapped.p, row->wrapped.n,
                                                      ad, sizeof ad, row->nonce.p, bundle_key)
               ? -CQ_E_CRYPTO
               : 0;
}

int
cq_keyring_open(const struct cq_key_bundle *bundle,
                const struct cq_keyring_owner *owner,
                cq_keyring_key_fn *fn,
                void *ctx)
{
    uint8_t bundle_key[CQ_KEY_SIZE];
    uint8_t key[CQ_KEY_SIZE];
    int rc = check_signature(bundle, owner);
    if (!rc && crypto_box_seal_open(bundle_key, bundle->sealed.p, bundle->sealed.n,
                                    owner->public_key, owner->secret_key)) {
        rc = -CQ_E_CRYPTO;
    }
    cq_reader_t r = cq_list_reader(&bundle->keys);
    for (size_t i = 0; !rc && i < bundle->keys.count; i++) {
        struct cq_key_row row;
        rc = cq_schema_read_array(&cq_key_row_schema, &r, &row);
        rc = rc ? rc : open_key(&row, bundle_key, key);
        rc = rc ? rc : fn(ctx, &row.chat, row.key_version, key);
    }
    sodium_memzero(bundle_key, sizeof bundle_key);
    sodium_memzero(key, sizeof key);
    return rc;
}
