/* SPDX-License-Identifier: MPL-2.0
 * The chats in memory: the ones changed since their rows were written (dirty) and a bounded number
 * of others, over the tables CHAT, INDEX, RECEIPT, UNREAD and READ. Rows are written behind: a
 * sweep goes round and round the partitions and takes what is dirty in key order, a bounded slice
 * with each commit (checkpoint.h says how much), and the marker says up to which log position the
 * tables are complete (design §4).
 *
 * Loop thread only.
 */
#ifndef STORE_PROJECTION_H
#define STORE_PROJECTION_H

#include "store/batch.h"
#include "store/chat.h"
#include "store/complete.h"

typedef struct store_projection store_projection_t;

struct store_projection_cfg {
    /* Reads a row of CHAT or INDEX as it is on disk now. 0, NOT_FOUND, other. */
    int (*row)(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value);
    /* Reads a record of the log; only for what is owed. 0, other. */
    int (*record)(void *ctx, uint64_t pos, struct cq_view *record);
    void *ctx;
    size_t cache_max; /* clean chats kept in memory */
};

store_projection_t *store_projection_new(const struct store_projection_cfg *cfg);
void store_projection_destroy(store_projection_t **p);
/* Forgets everything in memory: the truth is on disk (after a failed commit). */
void store_projection_reset(store_projection_t *p);

/* After a start: the log's record at pos (ascending) is this chat's and may not be in its row. It
 * is applied when the chat is loaded. */
void store_projection_owe(store_projection_t *p, const struct cq_id *chat, uint64_t pos);
/* All that is owed has been said, and nothing else has happened: the sweep goes on where it was. */
void store_projection_resume(store_projection_t *p);
/* Loads up to so many of the chats that are owed something. 0; CORRUPT, IO: as loading it would
 * say; the sweep does not get past it either. */
int store_projection_settle(store_projection_t *p, size_t chats) CQ_MUST_CHECK;
bool store_projection_is_settled(const store_projection_t *p);

/* The chat, loaded if need be; view until the next turn. 0; NOT_FOUND (*chat NULL); CORRUPT, IO. */
int store_projection_chat(store_projection_t *p,
                          const struct cq_id *id,
                          struct store_chat **chat) CQ_MUST_CHECK;
/* Is it open? Does not load it, unless it is owed something: for lists over many chats of which
 * nothing else is wanted. Errors as above. */
int
store_projection_is_open(store_projection_t *p, const struct cq_id *id, bool *open) CQ_MUST_CHECK;
/* The same as store_projection_chat, or a new empty one for a chat that begins. */
int store_projection_begin(store_projection_t *p,
                           const struct cq_id *id,
                           struct store_chat **chat) CQ_MUST_CHECK;
/* Applies a record to the chat and marks it dirty. See store_chat_apply. */
int store_projection_apply(store_projection_t *p,
                           struct store_chat *c,
                           uint64_t pos,
                           enum cq_rec_kind kind,
                           const void *fields) CQ_MUST_CHECK;
/* Index entry of a message, from the tail or the table. 0, NOT_FOUND, other. */
int store_projection_index(store_projection_t *p,
                           struct store_chat *c,
                           uint64_t seq,
                           struct store_chat_index *out) CQ_MUST_CHECK;

size_t store_projection_dirty_count(const store_projection_t *p);
size_t store_projection_count(const store_projection_t *p); /* chats in memory */

/* Starts a round if something is dirty and none is under way: it is through when the sweep has come
 * to every partition, so when all that is dirty now has been written. */
void store_projection_round(store_projection_t *p);
bool store_projection_in_round(const store_projection_t *p);

enum {
    STORE_SLICE_PARTITION = 1 << 20 /* the parts that make a partition */
};

/* Up to where the tables are complete, if everything up to head has been applied and all slices so
 * far are durable. */
void
store_projection_complete(const store_projection_t *p, uint64_t head, struct store_complete *out);
/* The partition that the sweep is at. */
size_t store_projection_partition(const store_projection_t *p);

struct store_slice {
    int64_t parts; /* go on by so much; what is not used up by weight_max is kept, within limits */
    size_t weight_max; /* chats, a block of index or receipt rows counting like a chat */
};

/* Adds the rows of the sweep's next chats to a batch, and sets batch->marker to where it is then
 * (0: not known). Once per batch, after all its records. True if the last partition was passed. */
bool store_projection_slice(store_projection_t *p,
                            struct store_batch *batch,
                            const struct store_slice *slice);
/* The batch is durable: its chats' index tails are in the table. Also drops clean chats beyond
 * cache_max. */
void store_projection_committed(store_projection_t *p, const struct store_batch *batch);
/* Drops some of them when there are no commits: where nobody writes, or nobody can, chats are
 * loaded all the same. At the end of a turn. */
void store_projection_trim(store_projection_t *p);

#endif
