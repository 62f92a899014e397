/* SPDX-License-Identifier: MPL-2.0
 * Rows of accounts and devices: pure codecs.
 */
#ifndef STORE_ACCOUNT_H
#define STORE_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

#include "store/vault.h"

struct store_account {
    char name[CQ_NAME_MAX + 1];
    char hash[STORE_HASH_SIZE];
    uint64_t created_unix_ms;
    bool hide_last_seen; /* absent in older rows: false */
};

struct store_device {
    uint8_t key[32]; /* X25519 public */
    char label[CQ_LABEL_MAX + 1];
    uint64_t created_unix_ms;
    uint64_t generation; /* of its tokens; raised by every login after a revocation */
    bool revoked;        /* tokens up to generation are void; a login with the password makes a new
                            generation */
    /* Absent in older rows: 0, false. */
    uint64_t known_pos; /* it knows of the receipts that the log had up to there: audit.c */
    bool retired;       /* a chat has forgotten it: it cannot log in again */
};

/* msgpack arrays in this order of fields; reading gives CORRUPT on anything else. */
void store_account_write(cq_buf_t *b, const struct store_account *a);
int store_account_read(struct cq_view row, struct store_account *a) CQ_MUST_CHECK;
void store_device_write(cq_buf_t *b, const struct store_device *d);
int store_device_read(struct cq_view row, struct store_device *d) CQ_MUST_CHECK;

#endif
