/* SPDX-License-Identifier: MPL-2.0 */
#include "client/medium.h"

#include <string.h>

#include <sodium.h>

#include "common/wire/pack.h"

#include "client/cipher.h"
#include "client/picture.h"

enum {
    KIND_MEDIUM = 2,
    PLAIN_FIELDS = 9,
    KEPT_FIELDS = 11,
};

static const char thumbnail_ad[] = "chasqui-thumbnail";

void
cq_medium_name(const char *name, size_t n, char *out)
{
    size_t at = 0;
    for (size_t i = n; i-- > 0;) {
        if (name[i] == '/' || name[i] == '\\') {
            name += i + 1;
            n -= i + 1;
            break;
        }
    }
    for (size_t i = 0; i < n && at < CQ_MEDIUM_NAME_MAX; i++) {
        unsigned char c = (unsigned char)name[i];
        bool is_bad = c < 0x20 || c == 0x7f || (at == 0 && c == '.');
        out[at++] = name[i];
        if (is_bad) {
            out[at - 1] = '_';
        }
    }
    while (at && !cq_utf8_ok(out, at)) {
        at--; /* a character that was cut */
    }
    out[at] = '\0';
    if (!at) {
        memcpy(out, "file", sizeof "file");
    }
}

static void
take_str(struct cq_view v, char *out)
{
    memcpy(out, v.p, v.n);
    out[v.n] = '\0';
}

static void
write_description(cq_buf_t *b, const struct cq_medium *m)
{
    cq_pack_bin(b, m->key, sizeof m->key);
    cq_pack_str(b, m->type, strlen(m->type));
    cq_pack_str(b, m->name, strlen(m->name));
    cq_pack_uint(b, m->size);
    cq_pack_uint(b, m->width);
    cq_pack_uint(b, m->height);
    cq_pack_uint(b, m->duration_ms);
}

static void
read_description(cq_reader_t *r, struct cq_medium *m)
{
    struct cq_view key = cq_read_bin(r, sizeof m->key, sizeof m->key);
    struct cq_view type = cq_read_str(r, 1, CQ_MEDIUM_TYPE_MAX);
    struct cq_view name = cq_read_str(r, 1, CQ_MEDIUM_NAME_MAX);
    m->size = cq_read_uint(r, INT64_MAX / 2);
    m->width = cq_read_uint(r, UINT32_MAX);
    m->height = cq_read_uint(r, UINT32_MAX);
    m->duration_ms = cq_read_uint(r, INT64_MAX);
    if (!r->err) {
        memcpy(m->key, key.p, key.n);
        take_str(type, m->type);
        cq_medium_name((const char *)name.p, name.n, m->name);
    }
}

void
cq_medium_write_plain(cq_buf_t *b, struct cq_view caption, const struct cq_medium *m)
{
    cq_pack_array(b, PLAIN_FIELDS);
    cq_pack_uint(b, KIND_MEDIUM);
    cq_pack_str(b, (const char *)caption.p, caption.n);
    write_description(b, m);
}

/* It is shown by programs that decode it: so it must be a JPEG, and a small one. */
static void
open_thumbnail(struct cq_medium *m, struct cq_view sealed)
{
    struct cq_picture picture;
    unsigned long long n = 0;
    if (!sealed.n) {
        return;
    }
    m->is_thumbnail_bad = true;
    if (sealed.n < CQ_NONCE_SIZE + CQ_MAC_SIZE || sealed.n > CQ_THUMBNAIL_MAX ||
        crypto_aead_xchacha20poly1305_ietf_decrypt(
            m->thumbnail, &n, NULL, sealed.p + CQ_NONCE_SIZE, sealed.n - CQ_NONCE_SIZE,
            (const uint8_t *)thumbnail_ad, sizeof thumbnail_ad - 1, sealed.p, m->key)) {
        return;
    }
    if (cq_picture_read(m->thumbnail, (size_t)n, &picture) == 0 &&
        picture.type == CQ_PICTURE_JPEG && picture.width <= CQ_MEDIUM_SIDE_MAX &&
        picture.height <= CQ_MEDIUM_SIDE_MAX) {
        m->is_thumbnail_bad = false;
        m->thumbnail_size = (size_t)n;
    }
}

int
cq_medium_read_plain(cq_reader_t *r,
                     size_t count,
                     const struct cq_media *media,
                     struct cq_view *caption,
                     struct cq_medium *out)
{
    memset(out, 0, sizeof *out);
    if (count < PLAIN_FIELDS - 1) {
        return -CQ_E_UNKNOWN_OP;
    }
    *caption = cq_read_str(r, 0, CQ_MEDIUM_CAPTION_MAX);
    read_description(r, out);
    if (r->err || media->length != cq_cipher_length(out->size)) {
        return -CQ_E_UNKNOWN_OP;
    }
    out->blob = media->blob;
    out->length = media->length;
    open_thumbnail(out, media->thumbnail);
    return 0;
}

void
cq_medium_write_media(cq_buf_t *b, const struct cq_medium *m)
{
    uint8_t sealed[CQ_THUMBNAIL_MAX];
    struct cq_media media = {m->blob, m->length, {sealed, 0}};
    if (m->thumbnail_size) {
        unsigned long long n = 0;
        randombytes_buf(sealed, CQ_NONCE_SIZE);
        crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + CQ_NONCE_SIZE, &n, m->thumbnail,
                                                   m->thumbnail_size, (const uint8_t *)thumbnail_ad,
                                                   sizeof thumbnail_ad - 1, NULL, sealed, m->key);
        media.thumbnail.n = CQ_NONCE_SIZE + (size_t)n;
    }
    cq_schema_write_array(&cq_media_schema, b, &media);
}

void
cq_medium_hash(const struct cq_media *media, uint8_t out[CQ_MEDIUM_HASH_SIZE])
{
    crypto_generichash_state state;
    uint8_t length[8];
    for (size_t i = 0; i < sizeof length; i++) {
        length[i] = (uint8_t)(media->length >> (56 - 8 * i));
    }
    crypto_generichash_init(&state, NULL, 0, CQ_MEDIUM_HASH_SIZE);
    crypto_generichash_update(&state, media->blob.b, CQ_ID_SIZE);
    crypto_generichash_update(&state, length, sizeof length);
    crypto_generichash_update(&state, media->thumbnail.p ? media->thumbnail.p : length,
                              media->thumbnail.n);
    crypto_generichash_final(&state, out, CQ_MEDIUM_HASH_SIZE);
}

void
cq_medium_write(cq_buf_t *b, const struct cq_medium *m)
{
    cq_pack_array(b, KEPT_FIELDS);
    cq_pack_id(b, &m->blob);
    cq_pack_uint(b, m->length);
    write_description(b, m);
    cq_pack_bin(b, m->thumbnail, m->thumbnail_size);
    cq_pack_bool(b, m->is_thumbnail_bad);
}

int
cq_medium_read(struct cq_view bytes, struct cq_medium *out)
{
    cq_reader_t r = cq_reader_of(bytes);
    memset(out, 0, sizeof *out);
    (void)cq_read_array(&r, KEPT_FIELDS, KEPT_FIELDS);
    out->blob = cq_read_id_or_nil(&r);
    out->length = cq_read_uint(&r, INT64_MAX);
    read_description(&r, out);
    struct cq_view thumbnail = cq_read_bin(&r, 0, CQ_MEDIUM_JPEG_MAX);
    out->is_thumbnail_bad = cq_read_bool(&r);
    if (r.err || !cq_reader_at_end(&r) || out->length != cq_cipher_length(out->size)) {
        return -CQ_E_CORRUPT;
    }
    memcpy(out->thumbnail, thumbnail.p, thumbnail.n);
    out->thumbnail_size = thumbnail.n;
    return 0;
}
