/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/pack.h"

#include <msgpack.h>

static int
write_to_buf(void *data, const char *bytes, size_t n)
{
    cq_buf_append(data, bytes, n);
    return 0;
}

static msgpack_packer
packer(cq_buf_t *b)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, b, write_to_buf);
    return pk;
}

void
cq_pack_nil(cq_buf_t *b)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_nil(&pk);
}

void
cq_pack_bool(cq_buf_t *b, bool v)
{
    msgpack_packer pk = packer(b);
    if (v) {
        msgpack_pack_true(&pk);
    } else {
        msgpack_pack_false(&pk);
    }
}

void
cq_pack_uint(cq_buf_t *b, uint64_t v)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_uint64(&pk, v);
}

void
cq_pack_bin(cq_buf_t *b, const void *data, size_t n)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_bin(&pk, n);
    cq_buf_append(b, data, n);
}

void
cq_pack_str(cq_buf_t *b, const char *s, size_t n)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_str(&pk, n);
    cq_buf_append(b, s, n);
}

void
cq_pack_array(cq_buf_t *b, size_t n)
{
    msgpack_packer pk = packer(b);
    msgpack_pack_array(&pk, n);
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
