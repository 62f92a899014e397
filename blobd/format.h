/* SPDX-License-Identifier: MPL-2.0
 * What a blob's file looks like. Pure: bytes in, bytes out.
 *
 *   header   4,096 bytes: magic, id, user, length, times, how far an upload is; hashed
 *   data     `length` bytes of ciphertext
 *   trailer  a 16-byte BLAKE2b for each 64 KiB of data, then the root: BLAKE2b-256 of all before
 *
 * The trailer is written when the data is complete. The root is the blob's ETag. Each read checks
 * the pieces that it touches, the scrubber checks all.
 */
#ifndef BLOBD_FORMAT_H
#define BLOBD_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/limits.h"
#include "common/wire/read.h"

enum {
    BLOBD_HEADER_SIZE = 4096,
    BLOBD_PIECE_SIZE = 65536,
    BLOBD_PIECE_HASH_SIZE = 16,
};

#define BLOBD_NOT_TENTATIVE UINT64_MAX
/* No blob is longer, whatever is configured. */
#define BLOBD_LENGTH_MAX (UINT64_C(1) << 40)

struct blobd_header {
    struct cq_id id;
    struct cq_id user; /* who uploads or has uploaded it */
    uint64_t length;   /* bytes of data when complete */
    uint64_t created_unix_ms;
    uint64_t expires_unix_ms; /* of the upload, if it is not complete by then */
    uint64_t synced;          /* so many bytes of data have certainly reached the disk */
    uint64_t tentative_from;  /* what lies behind is unverified: void if we are interrupted.
                                 BLOBD_NOT_TENTATIVE: nothing is */
};

void blobd_format_write_header(uint8_t out[BLOBD_HEADER_SIZE], const struct blobd_header *h);
/* CORRUPT unless it is a header that we wrote. */
int blobd_format_read_header(const uint8_t in[BLOBD_HEADER_SIZE],
                             struct blobd_header *h) CQ_MUST_CHECK;

/* Pieces of `length` bytes of data, and the bytes of the trailer behind them. */
size_t blobd_format_piece_count(uint64_t length);
size_t blobd_format_trailer_size(uint64_t length);
/* Root over header and piece hashes. */
void blobd_format_root(const struct blobd_header *h,
                       const uint8_t *hashes,
                       uint8_t root[CQ_BLOB_HASH_SIZE]);
/* trailer: blobd_format_trailer_size(h->length) bytes. CORRUPT if its root does not fit. */
int blobd_format_check_trailer(const struct blobd_header *h, struct cq_view trailer) CQ_MUST_CHECK;

#endif
