/* SPDX-License-Identifier: MPL-2.0
 * The META row "complete": up to which log position the rows of each partition's chats are
 * complete. The marker is the least of them; a start that knows all has half as much to apply, and
 * knows where the sweep was.
 */
#ifndef STORE_COMPLETE_H
#define STORE_COMPLETE_H

#include "common/wire/pack.h"
#include "common/wire/read.h"

struct store_complete {
    uint64_t pos[CQ_PARTITION_COUNT];
};

/* All partitions stand at pos. */
void store_complete_init(struct store_complete *c, uint64_t pos);
/* The row may be older than the marker: none stands before pos. */
void store_complete_raise(struct store_complete *c, uint64_t pos);
static inline uint64_t
store_complete_of(const struct store_complete *c, const struct cq_id *chat)
{
    return c->pos[cq_id_partition(chat)];
}
/* A msgpack array: the least, and how far each is beyond it. */
void store_complete_write(cq_buf_t *b, const struct store_complete *c);
/* Of a row of a log whose last position is last_pos. 0, CORRUPT. */
int
store_complete_read(struct cq_view row, uint64_t last_pos, struct store_complete *c) CQ_MUST_CHECK;

#endif
