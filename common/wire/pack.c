/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/pack.h"

#include <msgpack/object.h>
#include <msgpack/pack_define.h>
#include <msgpack/timestamp.h>

/* msgpack-c's own writing routines over our buffer: <msgpack.h> would go through a function pointer
 * for each value, and a message has some forty values on its way. */
/* NOLINTBEGIN(readability-identifier-naming): its names */
#define msgpack_pack_inline_func(name)          static inline int pack##name
#define msgpack_pack_inline_func_cint(name)     static inline int pack##name
#define msgpack_pack_inline_func_fixint(name)   static inline int pack_fix##name
#define msgpack_pack_user                       cq_buf_t *
#define msgpack_pack_append_buffer(b, bytes, n) return (cq_buf_append(b, bytes, n), 0)
#include <msgpack/pack_template.h>
/* NOLINTEND(readability-identifier-naming) */

void
cq_pack_nil(cq_buf_t *b)
{
    (void)pack_nil(b);
}

void
cq_pack_bool(cq_buf_t *b, bool v)
{
    (void)(v ? pack_true(b) : pack_false(b));
}

void
cq_pack_uint(cq_buf_t *b, uint64_t v)
{
    (void)pack_uint64(b, v);
}

void
cq_pack_bin(cq_buf_t *b, const void *data, size_t n)
{
    (void)pack_bin(b, n);
    cq_buf_append(b, data, n);
}

void
cq_pack_str(cq_buf_t *b, const char *s, size_t n)
{
    (void)pack_str(b, n);
    cq_buf_append(b, s, n);
}

void
cq_pack_array(cq_buf_t *b, size_t n)
{
    (void)pack_array(b, n);
}

void
cq_pack_id(cq_buf_t *b, const struct cq_id *id)
{
    if (cq_id_is_none(id)) {
        cq_pack_nil(b);
    } else {
        cq_pack_bin(b, id->b, CQ_ID_SIZE);
    }
}

enum {
    ARRAY32 = 0xdd,
    ARRAY32_SIZE = 5
};

size_t
cq_pack_array_begin(cq_buf_t *b)
{
    static const uint8_t header[ARRAY32_SIZE] = {ARRAY32};
    size_t place = b->size;
    cq_buf_append(b, header, sizeof header);
    return place;
}

void
cq_pack_array_end(cq_buf_t *b, size_t place, size_t n)
{
    uint8_t *p = b->data + place;
    p[1] = (uint8_t)(n >> 24);
    p[2] = (uint8_t)(n >> 16);
    p[3] = (uint8_t)(n >> 8);
    p[4] = (uint8_t)n;
}
