/* SPDX-License-Identifier: MPL-2.0
 * The only file of common/ with OpenSSL calls. libsodium has no GMAC that works on every processor.
 */
#include "common/rt/gmac.h"

#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

enum {
    NONCE_SIZE = 12
};

struct cq_gmac {
    EVP_CIPHER_CTX *ctx;
};

static EVP_CIPHER *cipher; /* looking it up takes longer than many tags; lives as long as we do */
static pthread_once_t is_fetched = PTHREAD_ONCE_INIT;

static void
fetch(void)
{
    cipher = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    CQ_ASSERT(cipher);
}

cq_gmac_t *
cq_gmac_new(const uint8_t key[CQ_GMAC_KEY_SIZE])
{
    (void)pthread_once(&is_fetched, fetch);
    cq_gmac_t *m = cq_alloc(sizeof *m);
    m->ctx = EVP_CIPHER_CTX_new();
    CQ_ASSERT(m->ctx);
    int rc = EVP_EncryptInit_ex2(m->ctx, cipher, key, NULL, NULL);
    CQ_ASSERT(rc == 1);
    return m;
}

void
cq_gmac_destroy(cq_gmac_t **m)
{
    if (*m) {
        EVP_CIPHER_CTX_free((*m)->ctx);
        free(*m);
        *m = NULL;
    }
}

void
cq_gmac_begin(cq_gmac_t *m, uint64_t number)
{
    uint8_t nonce[NONCE_SIZE] = {0};
    for (int i = 0; i < 8; i++) {
        nonce[NONCE_SIZE - 1 - i] = (uint8_t)(number >> (8 * i));
    }
    int rc = EVP_EncryptInit_ex2(m->ctx, NULL, NULL, nonce, NULL);
    CQ_ASSERT(rc == 1);
}

void
cq_gmac_add(cq_gmac_t *m, const void *data, size_t n)
{
    for (const uint8_t *p = data; n;) {
        int part = n < INT_MAX ? (int)n : INT_MAX;
        int none;
        int rc = EVP_EncryptUpdate(m->ctx, NULL, &none, p, part);
        CQ_ASSERT(rc == 1);
        p += part;
        n -= (size_t)part;
    }
}

void
cq_gmac_end(cq_gmac_t *m, uint8_t tag[CQ_GMAC_TAG_SIZE])
{
    uint8_t nothing[CQ_GMAC_TAG_SIZE];
    int none;
    int rc = EVP_EncryptFinal_ex(m->ctx, nothing, &none);
    CQ_ASSERT(rc == 1);
    rc = EVP_CIPHER_CTX_ctrl(m->ctx, EVP_CTRL_AEAD_GET_TAG, CQ_GMAC_TAG_SIZE, tag);
    CQ_ASSERT(rc == 1);
}
