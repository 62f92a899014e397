/* SPDX-License-Identifier: MPL-2.0
 * What a blob's file looks like, and reading, checking and copying one. blobd keeps such files,
 * backups hold them, the store's offline checks and restores read them.
 *
 *   header   4,096 bytes: magic, id, user, length, times, how far an upload is; hashed
 *   data     `length` bytes of ciphertext
 *   trailer  a tag of 16 bytes for each piece of 64 KiB of data, then the root: BLAKE2b-256 of what
 *            the blob is (id, user, length, key) and the tags
 *
 * A tag is the GMAC of the piece under a random key that the header has, with the number of the
 * piece as nonce. It is checked at each read, so it has to cost little; nobody who cannot read this
 * disk can make two pieces of one tag. Files of the form before have a BLAKE2b of each piece and no
 * key; they are read and copied as they are.
 *
 * The trailer is written when the data is complete. The root is the blob's ETag. Each read checks
 * the pieces that it touches (blobd may remember for a minute that it did), the scrubber checks
 * all.
 */
#ifndef CQ_RT_BLOBFILE_H
#define CQ_RT_BLOBFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rt/gmac.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/limits.h"
#include "common/wire/read.h"

enum {
    CQ_BLOBFILE_HEADER_SIZE = 4096,
    CQ_BLOBFILE_PIECE_SIZE = 65536,
    CQ_BLOBFILE_TAG_SIZE = 16,
    CQ_BLOBFILE_KEY_SIZE = 16,
};

enum cq_blobfile_form {
    CQ_BLOBFILE_HASHED, /* the first one, with magic CQBLOB1: is not written any more */
    CQ_BLOBFILE_KEYED,  /* CQBLOB2 */
};

#define CQ_BLOBFILE_NOT_TENTATIVE UINT64_MAX
/* No blob is longer, whatever is configured. */
#define CQ_BLOBFILE_LENGTH_MAX (UINT64_C(1) << 40)

struct cq_blobfile_header {
    enum cq_blobfile_form form;
    uint8_t key[CQ_BLOBFILE_KEY_SIZE]; /* of the tags; not in a HASHED one */
    struct cq_id id;
    struct cq_id user; /* who uploads or has uploaded it */
    uint64_t length;   /* bytes of data when complete */
    uint64_t created_unix_ms;
    uint64_t expires_unix_ms; /* of the upload, if it is not complete by then */
    uint64_t synced;          /* so many bytes of data have certainly reached the disk */
    uint64_t tentative_from;  /* what lies behind is unverified: void if we are interrupted.
                                 CQ_BLOBFILE_NOT_TENTATIVE: nothing is */
};

/* ---- the form: bytes in, bytes out (blobfile.c) ---- */

void cq_blobfile_write_header(uint8_t out[CQ_BLOBFILE_HEADER_SIZE],
                              const struct cq_blobfile_header *h);
/* CORRUPT unless it is a header that we wrote. */
int cq_blobfile_read_header(const uint8_t in[CQ_BLOBFILE_HEADER_SIZE],
                            struct cq_blobfile_header *h) CQ_MUST_CHECK;

/* Pieces of `length` bytes of data, the bytes of the trailer behind them, those of the whole file.
 */
size_t cq_blobfile_piece_count(uint64_t length);
size_t cq_blobfile_trailer_size(uint64_t length);
uint64_t cq_blobfile_size(uint64_t length);
/* Root over header and tags. */
void cq_blobfile_root(const struct cq_blobfile_header *h,
                      const uint8_t *tags,
                      uint8_t root[CQ_BLOB_HASH_SIZE]);
/* trailer: cq_blobfile_trailer_size(h->length) bytes. CORRUPT if its root does not fit. */
int cq_blobfile_check_trailer(const struct cq_blobfile_header *h,
                              struct cq_view trailer) CQ_MUST_CHECK;

/* ---- a complete file, open for reading (blobfile_read.c); all of it blocks ---- */

struct cq_blobfile {
    int fd;
    struct cq_blobfile_header header;
    size_t trailer_size;
    uint8_t *trailer;
};

/* All n bytes or an error; a file that is too short is CORRUPT. */
int cq_blobfile_read_at(int fd, void *out, size_t n, uint64_t offset) CQ_MUST_CHECK;
/* All n bytes or an error: NO_SPACE, IO. */
int cq_blobfile_write_at(int fd, const void *data, size_t n, uint64_t offset) CQ_MUST_CHECK;

/* Checks header, size and trailer of what is said to be the blob id. Takes fd, which is closed on
 * an error, too. 0; CORRUPT; IO. */
int cq_blobfile_open(int fd, const struct cq_id *id, struct cq_blobfile *out) CQ_MUST_CHECK;
void cq_blobfile_close(struct cq_blobfile *f);
const uint8_t *cq_blobfile_root_of(const struct cq_blobfile *f); /* CQ_BLOB_HASH_SIZE bytes */
/* n bytes from offset into out, which has room for n and two pieces more; *at: where in out they
 * begin. Every piece they lie in is checked. 0; BAD_ARG (beyond the end); CORRUPT; IO. From any
 * number of threads. */
int cq_blobfile_read(const struct cq_blobfile *f,
                     uint64_t offset,
                     size_t n,
                     uint8_t *out,
                     size_t *at) CQ_MUST_CHECK;

/* Told so many bytes more were worked through; returning false ends the work (UNAVAILABLE). */
typedef bool cq_blobfile_step_fn(void *ctx, size_t bytes);
/* Checks all data, read from the disk and not from the cache if that can be helped. 0; CORRUPT; IO;
 * UNAVAILABLE. step may be NULL. */
int
cq_blobfile_verify(const struct cq_blobfile *f, cq_blobfile_step_fn *step, void *ctx) CQ_MUST_CHECK;
/* Makes the empty file `to` a copy and syncs it: shares the extents where the file system can, else
 * copies, checking each piece. 0; CORRUPT (the source); NO_SPACE, IO (the target); UNAVAILABLE. */
int cq_blobfile_copy(const struct cq_blobfile *f, int to, cq_blobfile_step_fn *step, void *ctx)
    CQ_MUST_CHECK;

#endif
