/* SPDX-License-Identifier: MPL-2.0
 * Inside the LMDB engine: what engine_lmdb_open.c (folder, lock, schema) and engine_lmdb.c
 * (commits, snapshots) share.
 */
#ifndef STORE_ENGINE_LMDB_H
#define STORE_ENGINE_LMDB_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/engine.h"

struct MDB_env;
struct MDB_txn;

/* In tables[]: not there. Only in a copy of an older schema. */
#define STORE_ENGINE_NO_TABLE UINT_MAX

struct store_engine {
    char *dir;
    uint64_t map_bytes;
    uint64_t reserve_bytes;
    bool read_ahead;
    int lock_fd;
    struct MDB_env *env; /* NULL after a reopen that failed */
    unsigned log;        /* MDB_dbi */
    unsigned tables[STORE_TABLE_COUNT];
    unsigned page_bytes;
    _Atomic uint64_t fence;
    _Atomic uint64_t last_pos;
    uint64_t schema; /* as found at the last open */
    int refusal;     /* 0, or why it is open for reading only; committing thread only */
    bool is_broken;  /* an outcome is unknown; committing thread only */
    bool is_full; /* the last commit was refused for space: logged once; committing thread only */

    pthread_mutex_t mutex; /* the three below, and env against reopen */
    pthread_cond_t changed;
    unsigned snapshot_count;
    bool is_reopening;
};

/* One of ours for an LMDB or errno code; what: the call, for the log (NULL: not logged). */
int store_engine_lmdb_error(int rc, const char *what) CQ_MUST_CHECK;

/* Logs why the folder cannot be used and what to do about it; returns -err. */
int store_engine_lmdb_refuse(const store_engine_t *e, int err, const char *advice) CQ_MUST_CHECK;
/* An engine that has nothing open yet; store_engine_close frees it. */
store_engine_t *store_engine_lmdb_new(const struct store_engine_cfg *cfg);
void store_engine_lmdb_close_env(store_engine_t *e);
/* LMDB's own damage reports go to the log before it ends the process. */
void store_engine_lmdb_watch(struct MDB_env *env);
/* Value of a META key that is an unsigned integer. An LMDB code; MDB_CORRUPTED if it is something
 * else. */
int store_engine_lmdb_number(const store_engine_t *e,
                             struct MDB_txn *txn,
                             const char *key,
                             uint64_t *value) CQ_MUST_CHECK;
/* Last position of the log; CORRUPT if there are gaps. */
int
store_engine_lmdb_last(const store_engine_t *e, struct MDB_txn *txn, uint64_t *pos) CQ_MUST_CHECK;
/* Counts the pages at or above `first` that the free list names. An LMDB code. */
int store_engine_lmdb_count_free(struct MDB_txn *txn, size_t first, size_t *count) CQ_MUST_CHECK;
/* Names of the tables in LMDB, by enum store_table. */
extern const char *const store_engine_lmdb_names[STORE_TABLE_COUNT];

#endif
