/* SPDX-License-Identifier: MPL-2.0 */
#include "store/complete.h"

enum {
    FIELDS = 1 + CQ_PARTITION_COUNT
};

void
store_complete_init(struct store_complete *c, uint64_t pos)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        c->pos[i] = pos;
    }
}

void
store_complete_raise(struct store_complete *c, uint64_t pos)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        c->pos[i] = c->pos[i] > pos ? c->pos[i] : pos;
    }
}

void
store_complete_write(cq_buf_t *b, const struct store_complete *c)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        least = c->pos[i] < least ? c->pos[i] : least;
    }
    cq_pack_array(b, FIELDS);
    cq_pack_uint(b, least);
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        cq_pack_uint(b, c->pos[i] - least);
    }
}

int
store_complete_read(struct cq_view row, uint64_t last_pos, struct store_complete *c)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, FIELDS, FIELDS);
    uint64_t least = cq_read_uint(&r, last_pos);
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        c->pos[i] = least + cq_read_uint(&r, last_pos - (r.err ? 0 : least));
    }
    return r.err ? -CQ_E_CORRUPT : 0;
}
