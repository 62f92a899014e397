/* SPDX-License-Identifier: MPL-2.0
 * What the files of fsck share: the run, and the chats it has in hand.
 */
#ifndef STORE_FSCK_IMPL_H
#define STORE_FSCK_IMPL_H

#include "store/chat.h"
#include "store/complete.h"
#include "store/fsck.h"
#include "store/key.h"

/* ---- the run (fsck.c) ---- */

/* A chat whose INDEX or RECEIPT rows are to be looked at one by one, and up to where they must be
 * there. */
struct store_fsck_bad {
    struct cq_id chat;
    uint64_t marker, row_head, receipt_pos;
};

struct store_fsck {
    const struct store_fsck_cfg *cfg;
    struct store_fsck_report *report;
    store_snapshot_t *snapshot;
    uint64_t opened_mono_ms;
    int run_delay;     /* cq_run_delay_open's */
    uint64_t delay_ns; /* what it said last */
    uint64_t seen_pos; /* the log's end when it was looked at last, to know how busy the store is */
    uint64_t last_progress_mono_ms;
    uint64_t fence;
    uint64_t marker;                /* as the snapshot has it */
    struct store_complete complete; /* the same */
    uint64_t last_pos;              /* last position that the snapshot has */
    /* For the estimate of progress. */
    uint64_t done_ordinal, group_width, replay_pos;
    struct store_fsck_bad *bad;
    size_t bad_count;
    uint64_t *wrong; /* hashes of the keys of RECEIPT rows that were found wrong */
    size_t wrong_count;
    uint64_t blobs_lost;  /* BLOB rows that are missing or do not decode: found, and what follows
                             from that is not */
    uint64_t media_count; /* messages with a media part, in the log */
    uint64_t end_pos;     /* of the replay under way */
    unsigned countdown;   /* until the clock is looked at */
    int rc;               /* of a callback */
};

/* An open snapshot in f->snapshot that is young enough; views into an older one are void
 * afterwards. 0, UNAVAILABLE, CORRUPT, IO. */
int store_fsck_snapshot(struct store_fsck *f) CQ_MUST_CHECK;
/* A new one in any case: with everything committed until now. */
int store_fsck_fresh(struct store_fsck *f) CQ_MUST_CHECK;
/* Time for another snapshot? Cheap. */
bool store_fsck_is_due(struct store_fsck *f);

/* Rows of a table from a key on, in as many snapshots as it takes. Returning false stops. */
typedef bool store_fsck_row_fn(void *ctx, struct cq_view key, struct cq_view value);
int store_fsck_walk(struct store_fsck *f,
                    enum store_table t,
                    struct cq_view from,
                    store_fsck_row_fn *fn,
                    void *ctx) CQ_MUST_CHECK;
/* A row in the snapshot at hand; false if there is none (errors: f->rc). */
bool store_fsck_row(struct store_fsck *f,
                    enum store_table t,
                    const struct store_key *key,
                    struct cq_view *value);

/* ---- findings (fsck_find.c) ---- */

void store_fsck_find_row(struct store_fsck *f,
                         enum store_fsck_kind kind,
                         enum store_table t,
                         struct cq_view key,
                         const char *is,
                         const char *should);
void store_fsck_find_record(struct store_fsck *f,
                            enum store_fsck_kind kind,
                            uint64_t pos,
                            const char *is,
                            const char *should);
/* Forgets what was found and counted since, but for passes and rows read. */
void store_fsck_find_restore(struct store_fsck *f, const struct store_fsck_report *before);
/* A number with a name in front: "head 7". */
struct store_fsck_text {
    char s[STORE_FSCK_TEXT_SIZE];
};
struct store_fsck_text store_fsck_find_number(const char *what, uint64_t n);
struct store_fsck_text store_fsck_find_id(const char *what, const struct cq_id *id);
/* Is a key of this form: P (which is the first id's partition), ids, and rest_size more bytes? Else
 * it is a finding. */
bool store_fsck_find_key(struct store_fsck *f,
                         enum store_table t,
                         struct cq_view key,
                         size_t id_count,
                         size_t rest_size);

/* ---- the chats in hand (fsck_group.c) ---- */

/* Who sent each message (1: member 0): two bits a message, for the look-ups of ranks. */
struct store_fsck_block {
    uint64_t bits;
    uint64_t before; /* ones in the blocks before */
};

/* Rows as they are in the tables: a list of {table, size of the value, second id, value}. */
struct store_fsck_rows {
    size_t size;
    unsigned count;
    uint8_t bytes[];
};

struct store_fsck_entry {
    struct store_chat chat; /* as the log has it so far; its members also before it has begun */
    struct store_fsck_entry *chained;
    struct store_fsck_rows *rows; /* CHAT, UNREAD, READ; NULL: none, or compared */
    uint64_t row_pos;             /* that the CHAT row names */
    uint64_t row_head;
    uint64_t marker;              /* when the rows were read */
    uint64_t begin_pos;           /* where the chat begins in the log */
    uint64_t friend_pos;          /* the pair's last FRIEND record */
    uint64_t index_count;         /* INDEX rows: full blocks from the first one on */
    uint64_t index_digest;        /* of them */
    uint64_t digest;              /* of the messages in full blocks */
    uint64_t receipt_pos;         /* RECEIPT rows are there up to this position */
    uint64_t receipt_digest;      /* of the rows, in no order */
    uint64_t receipts_due_digest; /* of what the log says of them */
    uint64_t privacy_pos;         /* if the id is a user's: his last PRIVACY record */
    struct store_fsck_block first_block, *blocks;
    size_t block_room;
    size_t bytes; /* of memory, as accounted */
    bool has_row; /* a CHAT row that decodes */
    bool is_row_bad, is_compared, is_behind;
    bool hides_last_seen; /* as that record says */
    bool is_broken;       /* the log itself: nothing more can be said about this chat */
    bool is_detail_due;   /* its INDEX and RECEIPT rows are to be looked at one by one */
    bool is_explained;    /* a finding was the result */
};

struct store_fsck_group {
    struct store_fsck_entry **buckets;
    size_t bucket_count, count, bytes, bytes_max;
    uint64_t first, last;           /* ordinals, both included */
    struct store_complete complete; /* the lowest one when its rows were read */
    bool is_cut;                    /* it grew beyond its bound: to be begun anew up to `last` */
    bool is_closed; /* only chats that are in it already: the look at INDEX rows one by one */
};

/* Order of keys as a number: partition, then the id's first bytes. */
uint64_t store_fsck_group_ordinal(const struct cq_id *id);
uint64_t store_fsck_group_key_ordinal(struct cq_view key);
struct store_key store_fsck_group_key(uint64_t ordinal);

void store_fsck_group_init(struct store_fsck_group *g, uint64_t first, size_t bytes_max);
void store_fsck_group_fini(struct store_fsck_group *g);
struct store_fsck_entry *store_fsck_group_find(struct store_fsck_group *g, const struct cq_id *id);
/* Asks the processor to fetch what find() is going to touch, the entry some time after its bucket;
 * and then what the entry points to (NULL: nothing). */
void store_fsck_group_fetch_bucket(const struct store_fsck_group *g, const struct cq_id *id);
void store_fsck_group_fetch_entry(const struct store_fsck_group *g, const struct cq_id *id);
void store_fsck_group_fetch_parts(const struct store_fsck_entry *e);
struct store_fsck_entry *store_fsck_group_add(struct store_fsck_group *g, const struct cq_id *id);
bool store_fsck_group_has(const struct store_fsck_group *g, const struct cq_id *id);
/* Notes what an entry takes by now, or is going to take (planned). */
void
store_fsck_group_account(struct store_fsck_group *g, struct store_fsck_entry *e, size_t planned);
/* Far beyond its bound? */
bool store_fsck_group_is_full(const struct store_fsck_group *g);
/* Cuts the range so that about half of the memory would do. */
void store_fsck_group_halve(struct store_fsck_group *g);
/* Ends the range at an ordinal: see is_cut. */
void store_fsck_group_cut(struct store_fsck_group *g, uint64_t last);
/* False if there are more rows than any chat can have, or the row is too big. */
bool store_fsck_group_add_row(struct store_fsck_entry *e,
                              enum store_table t,
                              const struct cq_id *user,
                              struct cq_view value);
void store_fsck_group_push(struct store_fsck_entry *e, bool is_member_0);
uint64_t store_fsck_group_rank(const struct store_fsck_entry *e, uint64_t seq);
/* The next digest of an entry's messages, in the log or in INDEX rows. */
uint64_t store_fsck_group_digest(uint64_t digest, const struct store_chat_index *i);
/* A RECEIPT row as a number, to be added up; of its key alone with pos 0. */
uint64_t store_fsck_group_receipt(struct cq_view key, uint64_t pos);
/* The key of a receipt that chat.h asks to be written. */
struct store_key store_fsck_group_receipt_key(const struct cq_id *chat,
                                              const struct store_chat_receipt *r);

/* ---- the steps ---- */

/* fsck_people.c: NAME, ACCOUNT, DEVICE, OWNER, USER. */
int store_fsck_people_check(struct store_fsck *f) CQ_MUST_CHECK;
/* fsck_scan.c: reads the rows of as many chats as fit. Sets g->last. */
int store_fsck_scan_rows(struct store_fsck *f, struct store_fsck_group *g) CQ_MUST_CHECK;
/* fsck_log.c: replays the log for the chats of g and compares. */
int store_fsck_log_replay(struct store_fsck *f, struct store_fsck_group *g) CQ_MUST_CHECK;
/* fsck_blobs.c, after all replays: BLOB, BLOB_READER; fsck_blob_use.c: BLOB_USE. */
int store_fsck_blobs_check(struct store_fsck *f) CQ_MUST_CHECK;
int store_fsck_blob_use_check(struct store_fsck *f) CQ_MUST_CHECK;
/* fsck_compare.c: the rows of a chat where they say they stand; what is left at the end. */
void store_fsck_compare_rows(struct store_fsck *f, struct store_fsck_entry *e);
void store_fsck_compare_rest(struct store_fsck *f, struct store_fsck_entry *e);
/* fsck_detail.c: INDEX and RECEIPT rows one by one, of the chats in f->bad. */
void store_fsck_detail_note(struct store_fsck *f, struct store_fsck_entry *e);
int store_fsck_detail_check(struct store_fsck *f) CQ_MUST_CHECK;
/* A block is full; it is in the chat's tail. */
void store_fsck_detail_block(struct store_fsck *f, struct store_fsck_entry *e, uint64_t pos);
void store_fsck_detail_receipt(struct store_fsck *f,
                               struct store_fsck_entry *e,
                               const struct store_chat_receipt *should);

#endif
