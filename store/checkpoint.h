/* SPDX-License-Identifier: MPL-2.0
 * How fast rows are written behind. A round begins when the tables are `interval` records behind
 * the log, and is spread evenly over the next interval / 2 records: then every commit of it carries
 * the same small part. A long interval writes less (a row is written once however often it changed,
 * and a page once for all its rows), a short one restarts faster: a start applies what is behind
 * the marker, at most 1.5 intervals and what one more commit holds.
 *
 * This is also the back-pressure: how many chats a commit writes follows from how many records it
 * holds, so records cannot outrun the rows, nor dirty chats fill memory. A round that is late (the
 * store was killed during the last one) writes more with each record.
 */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include "store/projection.h"

struct store_checkpoint_now {
    uint64_t interval_records;
    uint64_t lag_records; /* behind the marker, those of this batch included */
    bool is_due;          /* begin a round even if the lag is small */
    bool in_hurry;        /* nobody waits for this commit */
};

/* Begins a round if it is time to, and adds a slice of the one under way to the batch, which is
 * about to be sealed. The last slice adds the marker's row. True if a round began. */
bool store_checkpoint_add(store_projection_t *p,
                          struct store_batch *b,
                          const struct store_checkpoint_now *now);

#endif
