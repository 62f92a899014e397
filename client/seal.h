/* SPDX-License-Identifier: MPL-2.0
 * Makes a row of the outbox into what goes on the wire.
 */
#ifndef CLIENT_SEAL_H
#define CLIENT_SEAL_H

#include "client/db.h"

/* Encrypts the row's text or medium with this version of the chat's key, for its dseq and this
 * device: sets key_version, nonce, ciphertext and media; the row is not written. -CQ_E_NOT_FOUND:
 * the device does not have that key; -CQ_E_BAD_ARG: the text; -CQ_E_CORRUPT: the medium. */
int cq_seal_out(cq_db_t *db,
                const struct cq_id *user,
                const struct cq_id *device,
                uint64_t key_version,
                struct cq_out *o) CQ_MUST_CHECK;

#endif
