/* SPDX-License-Identifier: MPL-2.0
 * libsodium for everybody: start, random, ids, hashes.
 */
#ifndef CQ_RT_RANDOM_H
#define CQ_RT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"

/* sodium_init, and no core dumps with secrets in them (PR_SET_DUMPABLE 0, RLIMIT_CORE 0). Aborts on
 * failure. Call first in main. */
void cq_secure_start(void);
void cq_random(void *out, size_t n);
uint64_t cq_random_u64(void);
struct cq_id cq_random_id(void);
/* SipHash-2-4 under a key that this process made up: for tables of keys that strangers choose.
 * Loop thread. */
uint64_t cq_hash(const void *p, size_t n);
/* chat id of two users: BLAKE2b-128 of "chasqui-chat" and both ids, smaller first. */
struct cq_id cq_chat_id(const struct cq_id *a, const struct cq_id *b);

#endif
