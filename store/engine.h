/* SPDX-License-Identifier: MPL-2.0
 * The storage engine: a durable log and ordered rows. engine_lmdb.c is the embedded one and the
 * only file that includes <lmdb.h>. Sequence numbers, deduplication, cursors and projections are
 * written once, above this.
 *
 * Log: positions 1, 2, 3 … without gaps; a record never changes. Rows: keys of at most 200 bytes
 * whose first two are the partition (big-endian, cq_id_partition); META has no partition. A commit
 * is atomic and durable: all of it or nothing.
 *
 * Caveats: one process per folder (LOCKED otherwise). A snapshot pins pages: open late, close
 * early. One commit at a time, from one thread; snapshots from any thread, each used by one thread
 * at a time.
 */
#ifndef STORE_ENGINE_H
#define STORE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

/* Name in LMDB, and what a row is. Keys are given behind; P is the partition's two bytes. */
#define STORE_TABLES(X)                                                                           \
    X(META, "meta")       /* text key → value of its owner */                                   \
    X(NAME, "name")       /* P of the name's hash, name → user id (16 bytes) */                 \
    X(ACCOUNT, "account") /* P user → account row */                                            \
    X(DEVICE, "device")   /* P user device → device row */                                      \
    X(OWNER, "owner")     /* P device → its user (16 bytes): a device belongs to one account */ \
    X(USER, "user")       /* P user peer → friend row: the founding User table */               \
    X(INDEX, "index") /* P chat first seq(8, big-endian) → positions of a block's messages */   \
    X(CHAT, "chat")   /* P chat → chat row */                                                   \
    X(RECEIPT,                                                                                    \
      "receipt") /* P chat kind id up_to(8, big-endian) → log position: store_key_receipt */    \
    X(UNREAD, "unread_audit")     /* P chat user → first unread, count, last time */            \
    X(READ, "read_audit")         /* P chat sender → read up to, when */                        \
    X(BLOB, "blob")               /* P blob → blob row */                                       \
    X(BLOB_USE, "blob_use")       /* P user → bytes and number of their blobs */                \
    X(BLOB_READER, "blob_reader") /* P blob user → may read it, by a message that refers to it */

enum store_table {
#define X(name, text) STORE_TABLE_##name,
    STORE_TABLES(X)
#undef X
    STORE_TABLE_COUNT
};

enum {
    STORE_KEY_MAX = 200,
    STORE_SCHEMA_VERSION = 4
};

/* A map_bytes that suits most: address space, not disk. The file grows with the data only. */
#define STORE_MAP_DEFAULT (UINT64_C(64) << 30)

/* META keys of the engine itself; nobody else writes them. Values are msgpack unsigned integers. */
#define STORE_META_SCHEMA "schema" /* after opening store/migrate.c raises it, nobody else */
#define STORE_META_FENCE  "fence"

struct store_row {
    enum store_table table;
    struct cq_view key;
    struct cq_view value; /* p NULL: delete the row */
};

struct store_commit {
    uint64_t first_pos; /* position of records[0] */
    const struct cq_view *records;
    size_t record_count;
    struct store_row *rows; /* sorted by (table, key) by the caller; no row twice */
    size_t row_count;
};

typedef struct store_engine store_engine_t;
typedef struct store_snapshot store_snapshot_t;

struct store_engine_cfg {
    const char *dir;        /* created with 0700 if missing */
    uint64_t map_bytes;     /* LMDB's map size: the largest the data can become */
    uint64_t reserve_bytes; /* refuse appends when the file system has less than this left */
    bool read_ahead; /* everything is going to be read in order: a server's reads are random */
};

/* Opens or creates. 0; LOCKED; NEWER_SCHEMA; CORRUPT; IO; NO_SPACE. Each is logged here with a
 * sentence that says what to do. A database that is there but cannot be written (the disk is full,
 * fails or is read-only) is opened for reading, and every commit tries to open it for writing.
 * Every open for writing raises the fence (stored durably): see store_engine_fence. */
int store_engine_open(const struct store_engine_cfg *cfg, store_engine_t **out) CQ_MUST_CHECK;
/* Closes the environment and opens it again from disk: after UNKNOWN_OUTCOME. From the committing
 * thread. Waits for the snapshots of other threads; those opened meanwhile wait for it. The calling
 * thread has none open. On error nothing works until another reopen succeeds. */
int store_engine_reopen(store_engine_t *e) CQ_MUST_CHECK;
void store_engine_close(store_engine_t **e);
/* Both from any thread. */
uint64_t store_engine_fence(const store_engine_t *e);
/* The schema version found at open: STORE_SCHEMA_VERSION in a new database; an older one is to be
 * migrated (store/migrate.c) before anything else is done. */
uint64_t store_engine_schema(const store_engine_t *e);
/* Would the disk and the map take a commit of a few pages? Any thread; false during a reopen. */
bool store_engine_has_room(store_engine_t *e);
/* Last position of the log, 0 if empty. */
uint64_t store_engine_last_pos(store_engine_t *e);

/* Blocks until durable. 0; NO_SPACE (disk or map full: found before writing, nothing has happened);
 * IO (open for reading only, and the disk still takes no writes: nothing has happened);
 * CORRUPT (first_pos does not follow the last one), BAD_ARG (a key of no or more than STORE_KEY_MAX
 * bytes): nothing has happened; UNKNOWN_OUTCOME (a write or sync failed: it may or may not be on
 * disk; or a database that was open for reading only has another last position now that it can be
 * written; nothing more is accepted until reopen). Deleting an absent row is fine. */
int store_engine_commit(store_engine_t *e, const struct store_commit *c) CQ_MUST_CHECK;

int store_snapshot_open(store_engine_t *e, store_snapshot_t **out) CQ_MUST_CHECK;
void store_snapshot_close(store_snapshot_t **s);
/* Views are valid until the snapshot is closed. NOT_FOUND if absent. */
int store_snapshot_row(store_snapshot_t *s,
                       enum store_table t,
                       struct cq_view key,
                       struct cq_view *value) CQ_MUST_CHECK;
int store_snapshot_record(store_snapshot_t *s, uint64_t pos, struct cq_view *record) CQ_MUST_CHECK;
/* Calls fn for each row whose key begins with prefix, ascending from `from` (from.p NULL: from the
 * prefix), until fn returns false. Empty prefix: whole table. */
typedef bool store_row_fn(void *ctx, struct cq_view key, struct cq_view value);
int store_snapshot_scan(store_snapshot_t *s,
                        enum store_table t,
                        struct cq_view prefix,
                        struct cq_view from,
                        store_row_fn *fn,
                        void *ctx) CQ_MUST_CHECK;
/* The same for the log, ascending from pos. */
typedef bool store_record_fn(void *ctx, uint64_t pos, struct cq_view record);
int store_snapshot_log(store_snapshot_t *s, uint64_t from_pos, store_record_fn *fn, void *ctx)
    CQ_MUST_CHECK;

/* ---- copies (engine_lmdb_copy.c) ---- */

struct store_engine_size {
    uint64_t file_bytes; /* of the database file */
    uint64_t used_bytes; /* of it without free pages: what a copy takes, about */
};
/* From any thread. */
int store_engine_size(store_engine_t *e, struct store_engine_size *out) CQ_MUST_CHECK;

/* Gives the bytes of a copy of the database file, in order, to sink; the copy is what is durable
 * now, without free pages (they may hold what was deleted), and opens as a database. Appends go on
 * meanwhile; pages they free stay in the file until the copy is done. Any thread, once at a time;
 * sink is called from it and ends the copy by returning false. 0; UNAVAILABLE (ended by sink, or
 * because the engine is being reopened); CORRUPT, IO (logged). */
typedef bool store_copy_fn(void *ctx, const void *data, size_t n);
int store_engine_copy(store_engine_t *e, store_copy_fn *sink, void *ctx) CQ_MUST_CHECK;

/* Opens a folder that nobody writes (a copy) for looking: snapshots only, nothing on disk is
 * changed, tables that an older schema lacks are empty. 0; NEWER_SCHEMA;
 * CORRUPT; IO. Each is logged. Close with store_engine_close. */
int store_engine_open_copy(const char *dir, store_engine_t **out) CQ_MUST_CHECK;

#endif
