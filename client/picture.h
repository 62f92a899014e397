/* SPDX-License-Identifier: MPL-2.0
 * What the first bytes of a picture say: its type and its pixels, without decoding it. Pure; the
 * bytes are anybody's.
 */
#ifndef CLIENT_PICTURE_H
#define CLIENT_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"

enum cq_picture_type {
    CQ_PICTURE_JPEG,
    CQ_PICTURE_PNG,
    CQ_PICTURE_GIF,
    CQ_PICTURE_WEBP,
};

struct cq_picture {
    enum cq_picture_type type;
    uint32_t width, height; /* as stored: before any rotation; never 0 */
    bool is_animated;       /* as WebP says, whose decoder takes single pictures only */
};

/* -CQ_E_NOT_FOUND: none of these types; -CQ_E_BAD_ARG: one of them, but cut off or broken (out says
 * then what could be read). Where decoders would differ about the pixels it is broken. */
int cq_picture_read(const uint8_t *data, size_t n, struct cq_picture *out) CQ_MUST_CHECK;
/* "image/jpeg" */
const char *cq_picture_type_name(enum cq_picture_type type);

#endif
