/* SPDX-License-Identifier: MPL-2.0
 * Rows of blobs: pure codecs. blobd has the bytes, the store says which blobs there are, whose they
 * are, who may read them, and when one may go.
 */
#ifndef STORE_BLOB_H
#define STORE_BLOB_H

#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

/* A blob's life goes down this list; its row is deleted at the end. */
enum store_blob_state {
    STORE_BLOB_UPLOADING = 1, /* reserved; blobd has none, some or all of its bytes */
    STORE_BLOB_WHOLE = 2,     /* complete and on disk; messages may refer to it */
    STORE_BLOB_DEAD = 3,      /* nothing refers to it nor ever will: blobd is to remove it */
};

struct store_blob {
    uint64_t state;    /* enum store_blob_state */
    struct cq_id user; /* the uploader: it counts against their quota */
    uint64_t length;
    uint64_t since_unix_ms;          /* of this state */
    uint64_t expires_unix_ms;        /* UPLOADING: gone if not complete by then */
    uint64_t references;             /* messages that refer to it */
    uint8_t hash[CQ_BLOB_HASH_SIZE]; /* zeros until it is whole */
};

/* What a user's blobs take, uploads under way included. */
struct store_blob_use {
    uint64_t bytes;
    uint64_t count;
};

/* msgpack arrays in this order of fields; reading gives CORRUPT on anything else. */
void store_blob_write(cq_buf_t *b, const struct store_blob *blob);
int store_blob_read(struct cq_view row, struct store_blob *blob) CQ_MUST_CHECK;
void store_blob_write_use(cq_buf_t *b, const struct store_blob_use *use);
int store_blob_read_use(struct cq_view row, struct store_blob_use *use) CQ_MUST_CHECK;

#endif
