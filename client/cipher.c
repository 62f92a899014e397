/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cipher.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static_assert(CQ_CIPHER_EXTRA == crypto_secretstream_xchacha20poly1305_ABYTES,
              "protocol.md says 17");
static_assert(CQ_CIPHER_HEADER == crypto_secretstream_xchacha20poly1305_HEADERBYTES,
              "protocol.md says 24");

uint64_t
cq_cipher_length(uint64_t size)
{
    uint64_t chunks = size ? (size + CQ_CIPHER_CHUNK - 1) / CQ_CIPHER_CHUNK : 1;
    return CQ_CIPHER_HEADER + size + chunks * CQ_CIPHER_EXTRA;
}

static int
write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return errno == ENOSPC || errno == EDQUOT ? -CQ_E_NO_SPACE : -CQ_E_IO;
        }
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Exactly n bytes. */
static int
read_all(int fd, uint8_t *p, size_t n)
{
    while (n) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return -CQ_E_IO;
        }
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

struct room {
    uint8_t plain[CQ_CIPHER_CHUNK];
    uint8_t sealed[CQ_CIPHER_CHUNK + CQ_CIPHER_EXTRA];
};

int
cq_cipher_seal(int in, uint64_t size, const uint8_t key[CQ_KEY_SIZE], int out)
{
    crypto_secretstream_xchacha20poly1305_state state;
    uint8_t header[CQ_CIPHER_HEADER];
    struct room *room = malloc(sizeof *room);
    if (!room) {
        abort();
    }
    crypto_secretstream_xchacha20poly1305_init_push(&state, header, key);
    int rc = write_all(out, header, sizeof header);
    bool is_last = false;
    while (!rc && !is_last) {
        size_t n = size < CQ_CIPHER_CHUNK ? (size_t)size : CQ_CIPHER_CHUNK;
        unsigned long long sealed = 0;
        size -= n;
        is_last = size == 0;
        rc = read_all(in, room->plain, n);
        if (!rc) {
            crypto_secretstream_xchacha20poly1305_push(
                &state, room->sealed, &sealed, room->plain, n, NULL, 0,
                is_last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL
                        : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
            rc = write_all(out, room->sealed, (size_t)sealed);
        }
    }
    uint8_t more;
    if (!rc && read(in, &more, 1) != 0) {
        rc = -CQ_E_IO; /* it grew meanwhile */
    }
    sodium_memzero(&state, sizeof state);
    sodium_memzero(room, sizeof *room);
    free(room);
    return rc;
}

void
cq_cipher_begin(struct cq_cipher *c, const uint8_t key[CQ_KEY_SIZE], uint64_t size)
{
    *c = (struct cq_cipher){.size = size};
    memcpy(c->key, key, CQ_KEY_SIZE);
}

void
cq_cipher_end(struct cq_cipher *c)
{
    sodium_memzero(c, sizeof *c);
}

/* Bytes that the next piece has: the header, or a chunk. */
static size_t
wanted(const struct cq_cipher *c)
{
    if (!c->has_header) {
        return CQ_CIPHER_HEADER;
    }
    uint64_t left = c->size - c->done;
    return (size_t)(left < CQ_CIPHER_CHUNK ? left : CQ_CIPHER_CHUNK) + CQ_CIPHER_EXTRA;
}

static int
open_piece(struct cq_cipher *c, cq_cipher_fn *fn, void *ctx)
{
    uint8_t plain[CQ_CIPHER_CHUNK];
    unsigned long long n = 0;
    uint8_t tag = 0;
    size_t held = c->held;
    c->held = 0;
    if (!c->has_header) {
        c->has_header = true;
        c->offset += held;
        return crypto_secretstream_xchacha20poly1305_init_pull(&c->state, c->piece, c->key)
                   ? -CQ_E_CRYPTO
                   : 0;
    }
    if (crypto_secretstream_xchacha20poly1305_pull(&c->state, plain, &n, &tag, c->piece, held, NULL,
                                                   0)) {
        return -CQ_E_CRYPTO; /* the state is as before */
    }
    bool is_last = c->done + n == c->size;
    bool is_final = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    int rc = is_last == is_final ? 0 : -CQ_E_CRYPTO;
    if (!rc && fn && n) {
        rc = fn(ctx, plain, (size_t)n);
    }
    sodium_memzero(plain, sizeof plain);
    if (!rc) {
        c->done += n;
        c->offset += held;
        c->is_whole = is_last;
    }
    return rc;
}

int
cq_cipher_take(struct cq_cipher *c, const uint8_t *data, size_t n, cq_cipher_fn *fn, void *ctx)
{
    int rc = 0;
    while (n && !rc) {
        if (c->is_whole) {
            return -CQ_E_CRYPTO;
        }
        size_t piece = wanted(c);
        size_t take = piece - c->held < n ? piece - c->held : n;
        memcpy(c->piece + c->held, data, take);
        c->held += take;
        data += take;
        n -= take;
        if (c->held == piece) {
            rc = open_piece(c, fn, ctx);
        }
    }
    return rc;
}
