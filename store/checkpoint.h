/* SPDX-License-Identifier: MPL-2.0
 * How fast rows are written behind: the sweep goes once round the partitions while `interval`
 * records come, so every commit carries the same small part, and the tables are never more than
 * that behind the log. A long interval writes less (a row is written once however often it changed,
 * and a page once for all its rows), a short one restarts faster: a start reads what is behind
 * the marker.
 *
 * This is also the back-pressure: how many chats a commit writes follows from how many records it
 * holds, so records cannot outrun the rows, nor dirty chats fill memory.
 */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include "store/projection.h"

struct store_checkpoint_now {
    uint64_t interval_records;
    uint64_t lag_records; /* behind the marker, those of this batch included */
    bool is_due;          /* write all that is dirty now, even if there are few records */
    bool in_hurry;        /* nobody waits for this commit */
};

/* Adds a slice to the batch, which is about to be sealed, and the marker's row if it moves. True if
 * a round through everything began or ended. */
bool store_checkpoint_add(store_projection_t *p,
                          struct store_batch *b,
                          const struct store_checkpoint_now *now);

#endif
