/* SPDX-License-Identifier: MPL-2.0
 * Resume tokens: signed by the store's vault, checked by edges with the public key alone.
 * Bytes: msgpack [1, user, device, name, generation, expires_unix_ms] ‖ Ed25519 signature (64) of
 * "chasqui-token-v1" ‖ those bytes.
 */
#ifndef CQ_RT_TOKEN_H
#define CQ_RT_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"

struct cq_token {
    struct cq_id user;
    struct cq_id device;
    char name[CQ_NAME_MAX + 1];
    uint64_t generation; /* tokens of a revoked generation and older ones are refused */
    uint64_t expires_unix_ms;
};

/* secret_key: 64 bytes of libsodium's Ed25519. Appends the token. */
void cq_token_sign(cq_buf_t *out, const struct cq_token *t, const uint8_t secret_key[64]);
/* 0, or -CQ_E_BAD_TOKEN: malformed, wrong signature, expired. *t is filled only on 0. Never
 * allocates. */
int cq_token_verify(const void *data,
                    size_t n,
                    const uint8_t public_key[32],
                    uint64_t now_unix_ms,
                    struct cq_token *t) CQ_MUST_CHECK;

#endif
