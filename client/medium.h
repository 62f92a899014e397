/* SPDX-License-Identifier: MPL-2.0
 * A picture, file or voice message: what is said of it, as it travels inside a message (protocol.md
 * section 5, kind 2) and as the device keeps it. Pure.
 */
#ifndef CLIENT_MEDIUM_H
#define CLIENT_MEDIUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/frame.h"

enum {
    CQ_MEDIUM_TYPE_MAX = 127,
    CQ_MEDIUM_NAME_MAX = 255,
    CQ_MEDIUM_CAPTION_MAX = 4096,
    CQ_MEDIUM_SIDE_MAX = 320, /* pixels of a thumbnail */
    CQ_MEDIUM_JPEG_MAX = CQ_THUMBNAIL_MAX - CQ_NONCE_SIZE - CQ_MAC_SIZE,
    CQ_MEDIUM_HASH_SIZE = 32,
};

struct cq_medium {
    struct cq_id blob; /* none: not uploaded yet */
    uint64_t length;   /* of the blob */
    uint8_t key[CQ_KEY_SIZE];
    char type[CQ_MEDIUM_TYPE_MAX + 1];
    char name[CQ_MEDIUM_NAME_MAX + 1]; /* safe as a file name: see cq_medium_name */
    uint64_t size;                     /* of the file */
    uint64_t width, height, duration_ms;
    bool is_thumbnail_bad; /* there is one, but it is not what the sender's key made, or no JPEG */
    size_t thumbnail_size;
    uint8_t thumbnail[CQ_MEDIUM_JPEG_MAX];
};

/* A name to show and to use: the last part of a path, no control characters, not hidden, never
 * empty. out has CQ_MEDIUM_NAME_MAX + 1 bytes. */
void cq_medium_name(const char *name, size_t n, char *out);

/* The plaintext of a message of kind 2. */
void cq_medium_write_plain(cq_buf_t *b, struct cq_view caption, const struct cq_medium *m);
/* Reads it behind the kind; `media` is what came beside the ciphertext and was authenticated with
 * it. The thumbnail is opened too. -CQ_E_UNKNOWN_OP: of another form, or at odds with `media`. */
int cq_medium_read_plain(cq_reader_t *r,
                         size_t count,
                         const struct cq_media *media,
                         struct cq_view *caption,
                         struct cq_medium *out) CQ_MUST_CHECK;

/* The media part that goes with it: appends the field's value; the thumbnail is encrypted anew. */
void cq_medium_write_media(cq_buf_t *b, const struct cq_medium *m);
/* What a message's associated data ends with. */
void cq_medium_hash(const struct cq_media *media, uint8_t out[CQ_MEDIUM_HASH_SIZE]);

/* As the device keeps it. -CQ_E_CORRUPT */
void cq_medium_write(cq_buf_t *b, const struct cq_medium *m);
int cq_medium_read(struct cq_view bytes, struct cq_medium *out) CQ_MUST_CHECK;

#endif
