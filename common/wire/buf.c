/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/buf.h"

#include <stdlib.h>

void
cq_buf_free(cq_buf_t *b)
{
    free(b->data);
    *b = (cq_buf_t){0};
}

void
cq_buf_grow(cq_buf_t *b, size_t n)
{
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

uint8_t *
cq_buf_take(cq_buf_t *b, size_t *size)
{
    uint8_t *data = b->data;
    *size = b->size;
    *b = (cq_buf_t){0};
    return data;
}
