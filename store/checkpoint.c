/* SPDX-License-Identifier: MPL-2.0 */
#include "store/checkpoint.h"

#include "common/wire/pack.h"

enum {
    WEIGHT_MIN = 256, /* chats: room for a heavy partition, and for a round with few records … */
    WEIGHT_HURRY = 8192, /* … which is soon through when nobody waits */
    LATE_PART = 16,      /* for each such part of an interval that a sweep is late … */
    LATE_TIMES_MAX = 4,  /* … it goes one time faster, up to this */
    TIMES_MIN = 2,
    COMPLETE_EVERY = 16, /* partitions: that row is a few pages */
};

/* How many times as fast as usual. Late is who has been killed again and again, or was refused. */
static uint64_t
times_of(const struct store_checkpoint_now *now)
{
    uint64_t part = now->interval_records / LATE_PART + 1;
    uint64_t late = now->lag_records > now->interval_records
                        ? (now->lag_records - now->interval_records) / part
                        : 0;
    return late < LATE_TIMES_MAX ? 1 + late : LATE_TIMES_MAX;
}

static struct store_slice
slice_of(const struct store_batch *b, const struct store_checkpoint_now *now)
{
    int64_t once = (int64_t)CQ_PARTITION_COUNT * STORE_SLICE_PARTITION;
    uint64_t records = b->record_count;
    uint64_t times = times_of(now);
    records *= times;
    struct store_slice slice = {.parts = once, .weight_max = WEIGHT_HURRY};
    if (!now->in_hurry) {
        /* A record adds at most little more than one chat's weight, so the sweep cannot be outrun.
         */
        times = times > TIMES_MIN ? times : TIMES_MIN;
        slice.weight_max = WEIGHT_MIN + times * b->record_count;
    }
    if (records < now->interval_records) {
        slice.parts = (int64_t)((uint64_t)once * records / now->interval_records);
    }
    return slice;
}

static void
put_complete(const store_projection_t *p, struct store_batch *b)
{
    struct store_key key = store_key_text("complete");
    struct store_complete complete;
    store_projection_complete(p, b->first_pos + b->record_count - 1, &complete);
    store_complete_write(store_batch_row_begin(b, STORE_TABLE_META, store_key_view(&key)),
                         &complete);
    store_batch_row_end(b);
}

bool
store_checkpoint_add(store_projection_t *p,
                     struct store_batch *b,
                     const struct store_checkpoint_now *now)
{
    bool begins = now->is_due && !store_projection_in_round(p) && store_projection_dirty_count(p);
    if (begins) {
        store_projection_round(p);
    }
    const struct store_slice slice = slice_of(b, now);
    size_t before = store_projection_partition(p) / COMPLETE_EVERY;
    bool is_through = store_projection_slice(p, b, &slice);
    if (b->marker) {
        struct store_key key = store_key_text("marker");
        cq_pack_uint(store_batch_row_begin(b, STORE_TABLE_META, store_key_view(&key)), b->marker);
        store_batch_row_end(b);
    }
    if (b->marker && store_projection_partition(p) / COMPLETE_EVERY != before) {
        put_complete(p, b);
    }
    return begins || is_through;
}
