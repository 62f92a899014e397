/* SPDX-License-Identifier: MPL-2.0
 * A growable byte buffer. Growth aborts when memory is gone: everything packed into one is bounded
 * by limits.h before.
 */
#ifndef CQ_WIRE_BUF_H
#define CQ_WIRE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct cq_buf {
    uint8_t *data;
    size_t size; /* bytes used */
    size_t room; /* bytes allocated */
} cq_buf_t;

/* {0} is a valid empty buffer. free leaves it empty and usable. */
void cq_buf_free(cq_buf_t *b);
/* Makes room for at least n more bytes than are used; what cq_buf_reserve does when it must. */
void cq_buf_grow(cq_buf_t *b, size_t n);
/* Gives the bytes to the caller (free with free()); the buffer is empty afterwards. */
uint8_t *cq_buf_take(cq_buf_t *b, size_t *size);

/* Makes room for n more bytes and returns the place where they go; size is unchanged. */
static inline uint8_t *
cq_buf_reserve(cq_buf_t *b, size_t n)
{
    if (b->room - b->size < n) {
        cq_buf_grow(b, n);
    }
    return b->data + b->size;
}

static inline void
cq_buf_append(cq_buf_t *b, const void *data, size_t n)
{
    if (n) {
        memcpy(cq_buf_reserve(b, n), data, n);
        b->size += n;
    }
}

static inline void
cq_buf_clear(cq_buf_t *b)
{
    b->size = 0;
}

#endif
