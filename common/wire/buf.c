/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/buf.h"

#include <stdlib.h>
#include <string.h>

void
cq_buf_free(cq_buf_t *b)
{
    free(b->data);
    *b = (cq_buf_t){0};
}

uint8_t *
cq_buf_reserve(cq_buf_t *b, size_t n)
{
    if (b->room - b->size < n) {
        size_t room = b->room ? b->room : 64;
        while (room - b->size < n) {
            room *= 2;
        }
        uint8_t *data = realloc(b->data, room);
        if (!data) {
            abort();
        }
        b->data = data;
        b->room = room;
    }
    return b->data + b->size;
}

void
cq_buf_append(cq_buf_t *b, const void *data, size_t n)
{
    if (n) {
        memcpy(cq_buf_reserve(b, n), data, n);
        b->size += n;
    }
}

uint8_t *
cq_buf_take(cq_buf_t *b, size_t *size)
{
    uint8_t *data = b->data;
    *size = b->size;
    *b = (cq_buf_t){0};
    return data;
}
