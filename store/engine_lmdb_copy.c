/* SPDX-License-Identifier: MPL-2.0
 * Copies of a live database, and looking into them.
 *
 * LMDB writes a copy to a descriptor and cannot be interrupted. So it writes into a pipe, on a
 * thread of its own, and whoever wants the copy reads the other end: that gives progress, a hash of
 * what passes, and an end at any time (the pipe is closed and LMDB's write fails with EPIPE;
 * SIGPIPE is ignored by the loop and blocked on this thread).
 *
 * The copy leaves free pages out (MDB_CP_COMPACT): they may hold rows that were deleted, wrapped
 * keys among them, and a deleted key must not live on in a backup.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/engine_lmdb.h"

enum {
    PIPE_BYTES = 1024 * 1024,
    CHUNK_BYTES = 1024 * 1024
};

/* ---- holding the environment ---- */

static int
hold(store_engine_t *e)
{
    pthread_mutex_lock(&e->mutex);
    while (e->is_reopening) {
        pthread_cond_wait(&e->changed, &e->mutex);
    }
    bool is_usable = e->env != NULL;
    e->snapshot_count += is_usable;
    pthread_mutex_unlock(&e->mutex);
    return is_usable ? 0 : -CQ_E_IO;
}

static void
release(store_engine_t *e)
{
    pthread_mutex_lock(&e->mutex);
    CQ_ASSERT(e->snapshot_count > 0);
    if (--e->snapshot_count == 0) {
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->mutex);
}

/* Somebody waits for all snapshots to be closed. */
static bool
is_wanted_back(store_engine_t *e)
{
    pthread_mutex_lock(&e->mutex);
    bool is_wanted = e->is_reopening;
    pthread_mutex_unlock(&e->mutex);
    return is_wanted;
}

/* ---- size ---- */

int
store_engine_size(store_engine_t *e, struct store_engine_size *out)
{
    MDB_txn *txn;
    MDB_envinfo info;
    size_t free_count = 0;
    int rc = hold(e);
    if (rc) {
        return rc;
    }
    rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0) {
        mdb_env_info(e->env, &info);
        rc = store_engine_lmdb_count_free(txn, 0, &free_count);
        mdb_txn_abort(txn);
    }
    if (rc == 0) {
        out->file_bytes = (info.me_last_pgno + 1) * e->page_bytes;
        out->used_bytes = out->file_bytes - free_count * e->page_bytes;
    }
    release(e);
    return store_engine_lmdb_error(rc, "size");
}

/* ---- copy ---- */

struct copying {
    store_engine_t *engine;
    int write_fd;
    int rc; /* LMDB's */
};

static void *
write_copy(void *arg)
{
    struct copying *c = arg;
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    c->rc = mdb_env_copyfd2(c->engine->env, c->write_fd, MDB_CP_COMPACT);
    close(c->write_fd);
    return NULL;
}

/* Reads until the end of the copy (0) or until it is to end. */
static int
drain(store_engine_t *e, int fd, store_copy_fn *sink, void *ctx)
{
    uint8_t *chunk = cq_alloc(CHUNK_BYTES);
    int rc = 0;
    ssize_t n = 0;
    do {
        n = read(fd, chunk, CHUNK_BYTES);
        if (n > 0 && (!sink(ctx, chunk, (size_t)n) || is_wanted_back(e))) {
            rc = -CQ_E_UNAVAILABLE;
        }
    } while (rc == 0 && (n > 0 || (n < 0 && errno == EINTR)));
    free(chunk);
    return rc ? rc : n < 0 ? -CQ_E_IO : 0;
}

static int
copy_held(store_engine_t *e, store_copy_fn *sink, void *ctx)
{
    int fds[2];
    pthread_t thread;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return -CQ_E_IO;
    }
    (void)fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES); /* as much as we may have */
    struct copying c = {.engine = e, .write_fd = fds[1]};
    if (pthread_create(&thread, NULL, write_copy, &c) != 0) {
        close(fds[0]);
        close(fds[1]);
        return -CQ_E_IO;
    }
    int rc = drain(e, fds[0], sink, ctx);
    close(fds[0]);
    (void)pthread_join(thread, NULL);
    return rc ? rc : store_engine_lmdb_error(c.rc, "mdb_env_copyfd2");
}

int
store_engine_copy(store_engine_t *e, store_copy_fn *sink, void *ctx)
{
    int rc = hold(e);
    if (rc == 0) {
        rc = copy_held(e, sink, ctx);
        release(e);
    }
    return rc;
}

/* ---- looking into a copy ---- */

/* A page behind the end of a mapped file kills the process that touches it. */
static int
check_length(const store_engine_t *e)
{
    MDB_envinfo info;
    mdb_filehandle_t fd;
    struct stat st;
    mdb_env_info(e->env, &info);
    if (mdb_env_get_fd(e->env, &fd) != 0 || fstat(fd, &st) != 0) {
        return store_engine_lmdb_refuse(e, CQ_E_IO, "the copy cannot be examined");
    }
    if ((uint64_t)st.st_size < (info.me_last_pgno + 1) * e->page_bytes) {
        return store_engine_lmdb_refuse(e, CQ_E_CORRUPT, "the copy is cut off");
    }
    return 0;
}

static int
find_tables(store_engine_t *e, MDB_txn *txn)
{
    MDB_dbi dbi = 0;
    int rc = mdb_dbi_open(txn, "log", MDB_INTEGERKEY, &dbi);
    e->log = dbi;
    for (size_t i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++) {
        rc = mdb_dbi_open(txn, store_engine_lmdb_names[i], 0, &dbi);
        e->tables[i] = rc == MDB_NOTFOUND && i != STORE_TABLE_META ? STORE_ENGINE_NO_TABLE : dbi;
        rc = rc == MDB_NOTFOUND && i != STORE_TABLE_META ? 0 : rc;
    }
    return rc == 0 ? 0 : store_engine_lmdb_refuse(e, CQ_E_CORRUPT, "the copy is not our database");
}

static int
look(store_engine_t *e)
{
    MDB_txn *txn;
    uint64_t last_pos = 0;
    uint64_t fence = 0;
    int rc =
        store_engine_lmdb_error(mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    if (rc) {
        return rc;
    }
    rc = find_tables(e, txn);
    if (rc == 0 && store_engine_lmdb_number(e, txn, STORE_META_SCHEMA, &e->schema) != 0) {
        rc = store_engine_lmdb_refuse(e, CQ_E_CORRUPT, "the copy has no schema version");
    }
    if (rc == 0 && e->schema > STORE_SCHEMA_VERSION) {
        rc = store_engine_lmdb_refuse(e, CQ_E_NEWER_SCHEMA,
                                      "written by a newer version: use that one, or newer");
    }
    if (rc == 0 && store_engine_lmdb_number(e, txn, STORE_META_FENCE, &fence) != 0) {
        rc = store_engine_lmdb_refuse(e, CQ_E_CORRUPT, "the copy has no fence");
    }
    if (rc == 0) {
        rc = store_engine_lmdb_last(e, txn, &last_pos);
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    atomic_store(&e->fence, fence);
    atomic_store(&e->last_pos, last_pos);
    return store_engine_lmdb_error(mdb_txn_commit(txn), "mdb_txn_commit"); /* keeps the handles */
}

static int
open_to_look(store_engine_t *e)
{
    MDB_stat st;
    int rc = mdb_env_create(&e->env);
    if (rc) {
        e->env = NULL;
        return store_engine_lmdb_error(rc, "mdb_env_create");
    }
    store_engine_lmdb_watch(e->env);
    rc = mdb_env_set_maxdbs(e->env, STORE_TABLE_COUNT + 1);
    if (rc == 0) {
        rc = mdb_env_open(e->env, e->dir, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0);
    }
    if (rc) {
        return store_engine_lmdb_refuse(e, -store_engine_lmdb_error(rc, "mdb_env_open"),
                                        "the copy cannot be opened");
    }
    mdb_env_stat(e->env, &st);
    e->page_bytes = st.ms_psize;
    rc = check_length(e);
    return rc ? rc : look(e);
}

int
store_engine_open_copy(const char *dir, store_engine_t **out)
{
    const struct store_engine_cfg cfg = {.dir = dir};
    store_engine_t *e = store_engine_lmdb_new(&cfg);
    int rc = open_to_look(e);
    if (rc) {
        store_engine_close(&e);
    }
    *out = e;
    return rc;
}
