/* SPDX-License-Identifier: MPL-2.0 */
#include "client/seal.h"

#include <stdlib.h>

#include <sodium.h>

#include "client/keyring.h"

/* The media part as it goes on the wire, and its decoded form, which borrows those bytes. */
static int
make_media(struct cq_out *o, const struct cq_medium *medium, struct cq_media *media)
{
    cq_buf_t b = {0};
    cq_medium_write_media(&b, medium);
    free(o->media);
    o->media = cq_buf_take(&b, &o->media_size);
    return cq_media_read((struct cq_view){o->media, o->media_size}, media) == 1 ? 0 : -CQ_E_CORRUPT;
}

static int
encrypt_medium(struct cq_seal *seal,
               const uint8_t key[CQ_KEY_SIZE],
               struct cq_out *o,
               cq_buf_t *out)
{
    struct cq_medium medium;
    struct cq_media media;
    struct cq_view caption = {(const uint8_t *)o->text, o->text_size};
    int rc = cq_medium_read((struct cq_view){o->descriptor, o->descriptor_size}, &medium);
    rc = rc ? rc : make_media(o, &medium, &media);
    if (!rc) {
        seal->media = &media;
        rc = cq_keyring_encrypt_medium(seal, key, caption, &medium, o->nonce, out);
        seal->media = NULL;
    }
    sodium_memzero(&medium, sizeof medium);
    return rc;
}

int
cq_seal_out(cq_db_t *db,
            const struct cq_id *user,
            const struct cq_id *device,
            uint64_t key_version,
            struct cq_out *o)
{
    uint8_t key[CQ_KEY_SIZE];
    int rc = cq_db_key_get(db, &o->chat, key_version, key);
    if (rc) {
        return rc;
    }
    struct cq_seal seal = {o->chat, *user, *device, o->dseq, key_version, NULL};
    struct cq_view text = {(const uint8_t *)o->text, o->text_size};
    cq_buf_t out = {0};
    rc = o->descriptor_size ? encrypt_medium(&seal, key, o, &out)
                            : cq_keyring_encrypt(&seal, key, text, o->nonce, &out);
    sodium_memzero(key, sizeof key);
    if (!rc) {
        free(o->ciphertext);
        o->key_version = key_version;
        o->ciphertext = cq_buf_take(&out, &o->ciphertext_size);
    }
    cq_buf_free(&out);
    return rc;
}
