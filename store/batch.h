/* SPDX-License-Identifier: MPL-2.0
 * A group commit under construction: records, rows, and what is to happen when it is durable.
 * Everything that queued up while the last fsync ran becomes the next one; nothing waits for more
 * but receipts, a little.
 */
#ifndef STORE_BATCH_H
#define STORE_BATCH_H

#include "common/rt/bus.h"

#include "store/engine.h"
#include "store/key.h"

/* Called on the loop thread when the batch is durable (rc 0) or was refused (NO_SPACE). After
 * UNKNOWN_OUTCOME it is called with that code to release arg; nothing is answered then: the
 * requester repeats. */
typedef void store_batch_fn(void *ctx, void *arg, int rc);

struct store_batch_span {
    size_t offset;
    size_t size;
};

struct store_batch_row {
    enum store_table table;
    struct store_batch_span key;
    struct store_batch_span value;
    bool is_delete;
};

struct store_batch_reply {
    struct cq_bus_from to;
    int err; /* not 0: an error is answered, with its detail; else fields */
    uint64_t detail;
    struct store_batch_span fields;
    size_t field_count;
};

struct store_batch_after {
    store_batch_fn *fn;
    void *arg;
};

/* Index and receipt rows of a chat that this batch writes: trimmed when durable. */
struct store_batch_flush {
    void *entry; /* of the projection */
    uint64_t seq;
    uint64_t pos; /* of receipts */
};

struct store_batch {
    uint64_t number;    /* 1, 2, 3 … per process */
    uint64_t first_pos; /* of the first record */
    uint64_t marker;    /* projections are complete up to here once this is durable; 0: unchanged */
    cq_buf_t bytes; /* spans of records and rows point in here; the committer reads it: fixed once
                       sealed */
    cq_buf_t
        answers; /* fields of replies: answers are added while the batch is being committed, too */
    struct store_batch_span *records;
    size_t record_count, record_room;
    struct store_batch_row *rows;
    size_t row_count, row_room;
    uint32_t *colds; /* numbers of the cold rows */
    size_t cold_count, cold_room;
    uint32_t *cold_slots;   /* hash table by table and key: a cold row's number + 1, 0: free */
    size_t cold_slot_count; /* a power of two */
    size_t table_rows[STORE_TABLE_COUNT]; /* rows of each table */
    struct store_batch_reply *replies;
    size_t reply_count, reply_room;
    struct store_batch_after *afters;
    size_t after_count, after_room;
    struct store_batch_flush *flushes;
    size_t flush_count, flush_room;
    /* Filled by store_batch_seal for the committer, which sets rc. */
    struct store_commit commit;
    bool hurries;           /* somebody waits for it, and not just for a receipt */
    bool waits;             /* for company: see core.c */
    uint64_t begun_mono_us; /* when its first record's request was read; 0: it has none */
    uint64_t began_mono_us, ended_mono_us; /* of the commit; set by the committer */
    struct cq_view *sealed_records;        /* what commit.records points to, owned */
    int rc;
};

struct store_batch *store_batch_new(uint64_t number, uint64_t first_pos);
void store_batch_destroy(struct store_batch **b);

/* Has anything to write? */
static inline bool
store_batch_is_empty(const struct store_batch *b)
{
    return b->record_count == 0 && b->row_count == 0;
}

/* Starts a record: append to b->bytes, then call end. */
size_t store_batch_record_begin(struct store_batch *b);
void store_batch_record_end(struct store_batch *b, size_t begin);
struct cq_view store_batch_record(const struct store_batch *b, uint64_t pos);

/* Put (value.p NULL: delete) a row. A cold row is read back by others before the commit is done
 * (see store_batch_find) and replaces an earlier one of the same key in this batch; other rows must
 * be unique. */
void store_batch_put(struct store_batch *b,
                     enum store_table t,
                     struct cq_view key,
                     struct cq_view value,
                     bool is_cold);
/* The same for a row that is not cold, without copies: append its value to what begin returns, then
 * call end. Nothing else may be added in between. */
cq_buf_t *store_batch_row_begin(struct store_batch *b, enum store_table t, struct cq_view key);
void store_batch_row_end(struct store_batch *b);
/* The newest cold row of this key: true if there is one; *value has p NULL if it was deleted. */
bool store_batch_find(const struct store_batch *b,
                      enum store_table t,
                      struct cq_view key,
                      struct cq_view *value);

/* Answer when durable. Fields are copied. */
void store_batch_reply(struct store_batch *b,
                       const struct cq_bus_from *to,
                       size_t field_count,
                       struct cq_view raw);
void store_batch_reply_schema(struct store_batch *b,
                              const struct cq_bus_from *to,
                              const struct cq_schema *s,
                              const void *in);
void store_batch_reply_err(struct store_batch *b,
                           const struct cq_bus_from *to,
                           int err,
                           uint64_t detail);
void store_batch_after(struct store_batch *b, store_batch_fn *fn, void *arg);
void store_batch_flush(struct store_batch *b, void *entry, uint64_t seq, uint64_t pos);

/* Sorts the rows and fills b->commit with views. Nothing may be added afterwards. */
void store_batch_seal(struct store_batch *b);

#endif
