/* SPDX-License-Identifier: MPL-2.0
 * Inside the LMDB engine: what engine_lmdb_open.c (folder, lock, schema) and engine_lmdb.c
 * (commits, snapshots) share.
 */
#ifndef STORE_ENGINE_LMDB_H
#define STORE_ENGINE_LMDB_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/engine.h"

struct MDB_env;
struct MDB_txn;

struct store_engine {
    char *dir;
    uint64_t map_bytes;
    uint64_t reserve_bytes;
    int lock_fd;
    struct MDB_env *env; /* NULL after a reopen that failed */
    unsigned log;        /* MDB_dbi */
    unsigned tables[STORE_TABLE_COUNT];
    unsigned page_bytes;
    _Atomic uint64_t fence;
    _Atomic uint64_t last_pos;
    uint64_t schema; /* as found at the last open */
    bool is_broken;  /* an outcome is unknown; committing thread only */
    bool is_full; /* the last commit was refused for space: logged once; committing thread only */

    pthread_mutex_t mutex; /* the three below, and env against reopen */
    pthread_cond_t changed;
    unsigned snapshot_count;
    bool is_reopening;
};

/* One of ours for an LMDB or errno code; what: the call, for the log (NULL: not logged). */
int store_engine_lmdb_error(int rc, const char *what) CQ_MUST_CHECK;

#endif
