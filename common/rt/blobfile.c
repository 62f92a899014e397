/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/blobfile.h"

#include <string.h>

#include <sodium.h>

enum {
    AT_ID = 8,
    AT_USER = AT_ID + CQ_ID_SIZE,
    AT_LENGTH = AT_USER + CQ_ID_SIZE,
    AT_CREATED = AT_LENGTH + 8,
    AT_EXPIRES = AT_CREATED + 8,
    AT_SYNCED = AT_EXPIRES + 8,
    AT_TENTATIVE = AT_SYNCED + 8,
    AT_KEY = AT_TENTATIVE + 8, /* of a keyed one */
    HEADER_HASH_SIZE = 16,
};

/* By form: how it begins, and where the hash of all before it is. */
static const struct {
    uint8_t magic[AT_ID];
    size_t at_hash;
} forms[] = {
    [CQ_BLOBFILE_HASHED] = {{'C', 'Q', 'B', 'L', 'O', 'B', '1', '\n'}, AT_KEY},
    [CQ_BLOBFILE_KEYED] = {{'C', 'Q', 'B', 'L', 'O', 'B', '2', '\n'},
                           AT_KEY + CQ_BLOBFILE_KEY_SIZE},
};

enum {
    FORM_COUNT = sizeof forms / sizeof forms[0]
};

static void
put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        p[i] = (uint8_t)(v >> (56 - 8 * i));
    }
}

static uint64_t
get_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static void
hash_header(const uint8_t *header, enum cq_blobfile_form form, uint8_t out[HEADER_HASH_SIZE])
{
    (void)crypto_generichash(out, HEADER_HASH_SIZE, header, forms[form].at_hash, NULL, 0);
}

static int
read_form(const uint8_t *header, enum cq_blobfile_form *form)
{
    for (size_t i = 0; i < FORM_COUNT; i++) {
        uint8_t hash[HEADER_HASH_SIZE];
        if (memcmp(header, forms[i].magic, AT_ID) == 0) {
            *form = (enum cq_blobfile_form)i;
            hash_header(header, *form, hash);
            return memcmp(header + forms[i].at_hash, hash, sizeof hash) ? -CQ_E_CORRUPT : 0;
        }
    }
    return -CQ_E_CORRUPT;
}

void
cq_blobfile_write_header(uint8_t out[CQ_BLOBFILE_HEADER_SIZE], const struct cq_blobfile_header *h)
{
    memset(out, 0, CQ_BLOBFILE_HEADER_SIZE);
    memcpy(out, forms[h->form].magic, AT_ID);
    memcpy(out + AT_ID, h->id.b, CQ_ID_SIZE);
    memcpy(out + AT_USER, h->user.b, CQ_ID_SIZE);
    put_u64(out + AT_LENGTH, h->length);
    put_u64(out + AT_CREATED, h->created_unix_ms);
    put_u64(out + AT_EXPIRES, h->expires_unix_ms);
    put_u64(out + AT_SYNCED, h->synced);
    put_u64(out + AT_TENTATIVE, h->tentative_from);
    if (h->form == CQ_BLOBFILE_KEYED) {
        memcpy(out + AT_KEY, h->key, CQ_BLOBFILE_KEY_SIZE);
    }
    hash_header(out, h->form, out + forms[h->form].at_hash);
}

int
cq_blobfile_read_header(const uint8_t in[CQ_BLOBFILE_HEADER_SIZE], struct cq_blobfile_header *h)
{
    *h = (struct cq_blobfile_header){.form = CQ_BLOBFILE_HASHED};
    int rc = read_form(in, &h->form);
    if (rc) {
        return rc;
    }
    if (h->form == CQ_BLOBFILE_KEYED) {
        memcpy(h->key, in + AT_KEY, CQ_BLOBFILE_KEY_SIZE);
    }
    memcpy(h->id.b, in + AT_ID, CQ_ID_SIZE);
    memcpy(h->user.b, in + AT_USER, CQ_ID_SIZE);
    h->length = get_u64(in + AT_LENGTH);
    h->created_unix_ms = get_u64(in + AT_CREATED);
    h->expires_unix_ms = get_u64(in + AT_EXPIRES);
    h->synced = get_u64(in + AT_SYNCED);
    h->tentative_from = get_u64(in + AT_TENTATIVE);
    bool is_sane =
        h->length <= CQ_BLOBFILE_LENGTH_MAX && h->synced <= h->length &&
        (h->tentative_from == CQ_BLOBFILE_NOT_TENTATIVE || h->tentative_from <= h->length);
    return is_sane ? 0 : -CQ_E_CORRUPT;
}

size_t
cq_blobfile_piece_count(uint64_t length)
{
    return (size_t)((length + CQ_BLOBFILE_PIECE_SIZE - 1) / CQ_BLOBFILE_PIECE_SIZE);
}

size_t
cq_blobfile_trailer_size(uint64_t length)
{
    return cq_blobfile_piece_count(length) * CQ_BLOBFILE_TAG_SIZE + CQ_BLOB_HASH_SIZE;
}

uint64_t
cq_blobfile_size(uint64_t length)
{
    return CQ_BLOBFILE_HEADER_SIZE + length + cq_blobfile_trailer_size(length);
}

void
cq_blobfile_root(const struct cq_blobfile_header *h,
                 const uint8_t *tags,
                 uint8_t root[CQ_BLOB_HASH_SIZE])
{
    uint8_t length[8];
    crypto_generichash_state state;
    put_u64(length, h->length);
    (void)crypto_generichash_init(&state, NULL, 0, CQ_BLOB_HASH_SIZE);
    (void)crypto_generichash_update(&state, h->id.b, CQ_ID_SIZE);
    (void)crypto_generichash_update(&state, h->user.b, CQ_ID_SIZE);
    (void)crypto_generichash_update(&state, length, sizeof length);
    if (h->form == CQ_BLOBFILE_KEYED) {
        (void)crypto_generichash_update(&state, h->key, CQ_BLOBFILE_KEY_SIZE);
    }
    (void)crypto_generichash_update(&state, tags,
                                    cq_blobfile_piece_count(h->length) * CQ_BLOBFILE_TAG_SIZE);
    (void)crypto_generichash_final(&state, root, CQ_BLOB_HASH_SIZE);
}

int
cq_blobfile_check_trailer(const struct cq_blobfile_header *h, struct cq_view trailer)
{
    uint8_t root[CQ_BLOB_HASH_SIZE];
    if (trailer.n != cq_blobfile_trailer_size(h->length)) {
        return -CQ_E_CORRUPT;
    }
    cq_blobfile_root(h, trailer.p, root);
    return memcmp(root, trailer.p + trailer.n - sizeof root, sizeof root) ? -CQ_E_CORRUPT : 0;
}
