/* SPDX-License-Identifier: MPL-2.0
 * A file as a blob: libsodium's secretstream in chunks, as docs/protocol.md section 5 says it.
 * Every chunk is verified before it is used, in order; a stream that lacks its final chunk is not
 * whole.
 */
#ifndef CLIENT_CIPHER_H
#define CLIENT_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sodium.h>

#include "common/wire/err.h"
#include "common/wire/limits.h"

enum {
    CQ_CIPHER_CHUNK = 65536,
    CQ_CIPHER_EXTRA = 17,  /* of each chunk: tag and MAC */
    CQ_CIPHER_HEADER = 24, /* before the first one */
};

/* Bytes of the blob of a file of this size, at most INT64_MAX / 2. */
uint64_t cq_cipher_length(uint64_t size);

/* Encrypts the next `size` bytes of `in` to `out`. -CQ_E_IO: reading or writing failed, or the file
 * has another size by now; what was written then is of no use. */
int cq_cipher_seal(int in, uint64_t size, const uint8_t key[CQ_KEY_SIZE], int out) CQ_MUST_CHECK;

/* Takes a blob piece by piece. */
struct cq_cipher {
    crypto_secretstream_xchacha20poly1305_state state;
    uint8_t key[CQ_KEY_SIZE];
    uint64_t size;   /* of the file */
    uint64_t done;   /* bytes of the file verified */
    uint64_t offset; /* of the blob: everything before it is verified */
    bool has_header;
    bool is_whole; /* the final chunk was verified */
    size_t held;   /* bytes of `piece`, behind offset */
    uint8_t piece[CQ_CIPHER_CHUNK + CQ_CIPHER_EXTRA];
};

/* Gets each verified chunk of the file, in order. Returns 0, or what take returns. */
typedef int cq_cipher_fn(void *ctx, const uint8_t *data, size_t n);

void cq_cipher_begin(struct cq_cipher *c, const uint8_t key[CQ_KEY_SIZE], uint64_t size);
/* fn NULL: verify only. -CQ_E_CRYPTO: the chunk at c->offset is not right, or there is more than
 * the blob may have; the bytes held of it are dropped, so that it can be given again. */
int cq_cipher_take(struct cq_cipher *c, const uint8_t *data, size_t n, cq_cipher_fn *fn, void *ctx)
    CQ_MUST_CHECK;
/* Wipes. */
void cq_cipher_end(struct cq_cipher *c);

#endif
