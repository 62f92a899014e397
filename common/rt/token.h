/* SPDX-License-Identifier: MPL-2.0
 * Resume tokens: signed by the store's vault, checked by edges with the public key alone.
 * Bytes: msgpack [1, user, device, name, generation, expires_unix_ms] ‖ Ed25519 signature (64) of
 * "chasqui-token-v1" ‖ those bytes.
 *
 * Sealed: 0xc1 ‖ token ‖ keyed BLAKE2b-256 of "chasqui-seal-v1" ‖ token. An edge that has checked a
 * signature (100 µs) seals the token with a key that all edges have from the running store, so that
 * in a storm of reconnects the next one need not check it again (1 µs). A seal of another key is no
 * fault: the signature decides.
 */
#ifndef CQ_RT_TOKEN_H
#define CQ_RT_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

struct cq_token {
    struct cq_id user;
    struct cq_id device;
    char name[CQ_NAME_MAX + 1];
    uint64_t generation; /* tokens of a revoked generation and older ones are refused */
    uint64_t expires_unix_ms;
};

enum {
    CQ_TOKEN_SEAL_KEY_SIZE = 32
};

enum cq_token_proof {
    CQ_TOKEN_BY_SIGNATURE,
    CQ_TOKEN_BY_SEAL
};

/* What an edge checks tokens with. */
struct cq_token_keys {
    uint8_t sign[32]; /* the store's Ed25519 public key */
    uint8_t seal[CQ_TOKEN_SEAL_KEY_SIZE];
    bool has_seal; /* a store of an earlier version gives no key for seals: there are none then */
};

/* secret_key: 64 bytes of libsodium's Ed25519. Appends the token. */
void cq_token_sign(cq_buf_t *out, const struct cq_token *t, const uint8_t secret_key[64]);
/* Appends the token, sealed with keys->seal; an older seal is replaced. Only for a token that was
 * verified, or came from the store. One that has no room for a seal stays without, and so do all if
 * there is no key for seals. */
void cq_token_seal(cq_buf_t *out, struct cq_view token, const struct cq_token_keys *keys);
/* By which proof it is valid, or -CQ_E_BAD_TOKEN: malformed, neither sealed nor signed, expired. *t
 * is filled only then. Never allocates. */
int cq_token_verify(struct cq_view token,
                    const struct cq_token_keys *keys,
                    uint64_t now_unix_ms,
                    struct cq_token *t) CQ_MUST_CHECK;

#endif
