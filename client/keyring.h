/* SPDX-License-Identifier: MPL-2.0
 * The device's cryptography, as docs/protocol.md section 5 says it: messages and key bundles. Pure:
 * no storage, no network.
 */
#ifndef CLIENT_KEYRING_H
#define CLIENT_KEYRING_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/frame.h"

#include "client/medium.h"

/* What a message's ciphertext is bound to. */
struct cq_seal {
    struct cq_id chat;
    struct cq_id user;
    struct cq_id device;
    uint64_t dseq;
    uint64_t key_version;
    const struct cq_media *media; /* its media part; NULL: none */
};

/* A message opened. */
struct cq_opened {
    char *text; /* or caption; with a final NUL (free it) */
    size_t text_size;
    struct cq_medium *medium; /* free it; NULL: a text */
};

/* Encrypts a text of 1 to CQ_TEXT_MAX bytes of UTF-8 under a fresh random nonce; appends the
 * ciphertext. Returns 0 or -CQ_E_BAD_ARG (the text). */
int cq_keyring_encrypt(const struct cq_seal *seal,
                       const uint8_t key[CQ_KEY_SIZE],
                       struct cq_view text,
                       uint8_t nonce[CQ_NONCE_SIZE],
                       cq_buf_t *ciphertext) CQ_MUST_CHECK;

/* The same for a picture, file or voice message with its caption (may be empty), as said in
 * seal->media. -CQ_E_BAD_ARG (the caption). */
int cq_keyring_encrypt_medium(const struct cq_seal *seal,
                              const uint8_t key[CQ_KEY_SIZE],
                              struct cq_view caption,
                              const struct cq_medium *medium,
                              uint8_t nonce[CQ_NONCE_SIZE],
                              cq_buf_t *ciphertext) CQ_MUST_CHECK;

/* Decrypts a message. -CQ_E_CRYPTO: not authentic (its media part included); -CQ_E_UNKNOWN_OP:
 * authentic, of a kind this version does not know. On error nothing is given. */
int cq_keyring_decrypt(const struct cq_message *m,
                       const uint8_t key[CQ_KEY_SIZE],
                       struct cq_opened *out) CQ_MUST_CHECK;

/* Whose bundle it must be, and how to check it. */
struct cq_keyring_owner {
    struct cq_id user;
    struct cq_id device;
    const uint8_t *public_key; /* X25519, 32 bytes */
    const uint8_t *secret_key;
    const uint8_t *store_key; /* Ed25519, pinned */
};

typedef int cq_keyring_key_fn(void *ctx,
                              const struct cq_id *chat,
                              uint64_t version,
                              const uint8_t key[CQ_KEY_SIZE]);

/* Checks the signature, opens the seal and every key, gives each to fn; stops at fn's first error
 * and returns it. -CQ_E_CRYPTO: the signature, the seal or a key is not right (fn may have been
 * called for keys before it). */
int cq_keyring_open(const struct cq_key_bundle *bundle,
                    const struct cq_keyring_owner *owner,
                    cq_keyring_key_fn *fn,
                    void *ctx) CQ_MUST_CHECK;

#endif
