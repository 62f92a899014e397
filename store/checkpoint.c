/* SPDX-License-Identifier: MPL-2.0 */
#include "store/checkpoint.h"

#include "common/wire/pack.h"

enum {
    SLICE_MIN = 256,    /* chats: a round ends in time when there are few records, too … */
    SLICE_HURRY = 8192, /* … and soon when nobody waits */
    LATE_PART = 8,      /* a round that is late goes through in 1/8 of an interval */
};

/* So many chats that the round is through when the marker is 1.5 intervals behind. */
static size_t
slice_of(const store_projection_t *p,
         const struct store_batch *b,
         const struct store_checkpoint_now *now)
{
    uint64_t limit = now->interval_records + now->interval_records / 2;
    uint64_t least = now->interval_records / LATE_PART + 1;
    size_t chats = store_projection_round_size(p) * b->record_count / least;
    if (now->lag_records < limit) {
        size_t even = store_projection_round_left(p) * b->record_count / (limit - now->lag_records);
        chats = even < chats ? even : chats;
    }
    size_t min = now->in_hurry ? SLICE_HURRY : SLICE_MIN;
    return chats + 1 > min ? chats + 1 : min;
}

bool
store_checkpoint_add(store_projection_t *p,
                     struct store_batch *b,
                     const struct store_checkpoint_now *now)
{
    bool is_due = now->is_due || now->lag_records >= now->interval_records;
    bool begins = is_due && !store_projection_in_round(p) && store_projection_dirty_count(p);
    if (begins) {
        store_projection_round(p, b->first_pos + b->record_count - 1);
    }
    if (store_projection_in_round(p)) {
        store_projection_slice(p, b, slice_of(p, b, now));
    }
    if (b->marker) {
        struct store_key key = store_key_text("marker");
        cq_pack_uint(store_batch_row_begin(b, STORE_TABLE_META, store_key_view(&key)), b->marker);
        store_batch_row_end(b);
    }
    return begins;
}
