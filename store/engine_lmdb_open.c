/* SPDX-License-Identifier: MPL-2.0
 * The folder: DIR/lock (flock, the pid of the holder), DIR/data.mdb and DIR/lock.mdb (LMDB's).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "store/engine_lmdb.h"

enum {
    DIR_MODE = 0700,
    FILE_MODE = 0600,
    READERS_MAX = 256,
    PATH_SIZE = 4096,
    TAIL_BYTES = 256 * 1024 * 1024, /* read ahead at open: what a replay is going to want */
};

static_assert(sizeof(size_t) == sizeof(uint64_t), "positions are MDB_INTEGERKEY keys");

int
store_engine_lmdb_error(int rc, const char *what)
{
    static const struct {
        int code;
        int err;
    } codes[] = {
        {0, 0},
        {MDB_NOTFOUND, CQ_E_NOT_FOUND},
        {MDB_MAP_FULL, CQ_E_NO_SPACE},
        {ENOSPC, CQ_E_NO_SPACE},
        {EDQUOT, CQ_E_NO_SPACE},
        {MDB_CORRUPTED, CQ_E_CORRUPT},
        {MDB_PAGE_NOTFOUND, CQ_E_CORRUPT},
        {MDB_INVALID, CQ_E_CORRUPT},
        {MDB_VERSION_MISMATCH, CQ_E_CORRUPT},
        {MDB_INCOMPATIBLE, CQ_E_CORRUPT},
        {MDB_READERS_FULL, CQ_E_BUSY},
    };
    int err = CQ_E_IO;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == rc) {
            err = codes[i].err;
        }
    }
    if (what && err != 0 && err != CQ_E_NOT_FOUND) {
        char text[128];
        const char *reason = mdb_strerror(rc);
        CQ_LOG(ERROR, "STORE-ENGINE-FAILED", "call=%s err=%s reason=%s", what, cq_err_name(err),
               cq_log_text(reason, strlen(reason), text, sizeof text));
    }
    return -err;
}

int
store_engine_lmdb_refuse(const store_engine_t *e, int err, const char *advice)
{
    char dir[PATH_SIZE];
    char text[512];
    CQ_LOG(ERROR, "STORE-ENGINE-REFUSED", "dir=%s err=%s advice=%s",
           cq_log_text(e->dir, strlen(e->dir), dir, sizeof dir), cq_err_name(err),
           cq_log_text(advice, strlen(advice), text, sizeof text));
    return -err;
}

/* ---- folder and lock ---- */

static int
path_in(const store_engine_t *e, const char *name, char path[PATH_SIZE])
{
    int n = snprintf(path, PATH_SIZE, "%s/%s", e->dir, name);
    return n < 0 || n >= PATH_SIZE ? store_engine_lmdb_refuse(e, CQ_E_IO, "the path is too long")
                                   : 0;
}

/* So that a file or folder created in it survives a power cut. */
static int
sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -CQ_E_IO;
    }
    int rc = fsync(fd);
    close(fd);
    return rc ? -CQ_E_IO : 0;
}

static int
make_folder(const store_engine_t *e)
{
    struct stat st;
    if (mkdir(e->dir, DIR_MODE) == 0) {
        char parent[PATH_SIZE];
        int rc = path_in(e, "..", parent);
        if (rc == 0 && sync_folder(parent) != 0) {
            rc = store_engine_lmdb_refuse(e, CQ_E_IO, "the folder above cannot be synced");
        }
        return rc;
    }
    if (errno != EEXIST) {
        int err = errno == ENOSPC || errno == EDQUOT ? CQ_E_NO_SPACE : CQ_E_IO;
        return store_engine_lmdb_refuse(
            e, err, "the folder cannot be created: create it, or the one above it");
    }
    if (stat(e->dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return store_engine_lmdb_refuse(e, CQ_E_IO, "this is not a folder: move it away");
    }
    if (st.st_mode & 077) {
        CQ_LOG(WARN, "STORE-ENGINE-MODE",
               "advice=\"the data folder is open to others: chmod 0700\"");
    }
    return 0;
}

static int
say_locked(const store_engine_t *e, int fd)
{
    char pid[16] = {0};
    char advice[160];
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    (void)snprintf(advice, sizeof advice,
                   "process %s has this folder open: stop it, or use another folder",
                   pid[0] ? pid : "(unknown)");
    return store_engine_lmdb_refuse(e, CQ_E_LOCKED, advice);
}

static int
take_lock(store_engine_t *e)
{
    char path[PATH_SIZE];
    int rc = path_in(e, "lock", path);
    if (rc) {
        return rc;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0) {
        int err = errno == ENOSPC || errno == EDQUOT ? CQ_E_NO_SPACE : CQ_E_IO;
        return store_engine_lmdb_refuse(
            e, err, "the file \"lock\" cannot be opened: check owner, mode and space");
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK
                 ? say_locked(e, fd)
                 : store_engine_lmdb_refuse(e, CQ_E_IO, "the file system does not lock files");
        close(fd);
        return rc;
    }
    /* The pid is a courtesy to whoever finds the folder locked; a full disk must not stop us here.
     */
    char pid[16];
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        CQ_LOG(WARN, "STORE-ENGINE-PID", "errno=%d", errno);
    }
    e->lock_fd = fd;
    return 0;
}

/* ---- damage ---- */

/* LMDB checks its own invariants with assertions that end the process; say what it means before. */
static void
on_assert(MDB_env *env, const char *msg)
{
    (void)env;
    char text[256];
    CQ_LOG(ERROR, "STORE-ENGINE-DAMAGED",
           "reason=%s advice=\"the database file is damaged: restore a backup\"",
           cq_log_text(msg, strlen(msg), text, sizeof text));
}

void
store_engine_lmdb_watch(MDB_env *env)
{
    mdb_env_set_assert(env, on_assert);
}

int
store_engine_lmdb_count_free(MDB_txn *txn, size_t first, size_t *count)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc) {
        return rc;
    }
    MDB_val key, val;
    *count = 0;
    while ((rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT)) == 0) {
        size_t n = 0;
        if (val.mv_size >= sizeof n) {
            memcpy(&n, val.mv_data, sizeof n);
        }
        if (n > val.mv_size / sizeof n - 1) {
            rc = MDB_CORRUPTED;
            break;
        }
        for (size_t i = 1; i <= n; i++) {
            size_t page;
            memcpy(&page, (const char *)val.mv_data + i * sizeof page, sizeof page);
            *count += page >= first;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* A file that ends before its last page was cut off, unless all that is missing is free: touching a
 * page behind the end of a mapped file kills the process. So the gap is filled with a hole, which
 * LMDB knows how to refuse, and only free pages may be in it. */
static int
check_length(store_engine_t *e)
{
    MDB_envinfo info;
    mdb_filehandle_t fd;
    struct stat st;
    mdb_env_info(e->env, &info);
    if (mdb_env_get_fd(e->env, &fd) != 0 || fstat(fd, &st) != 0) {
        return store_engine_lmdb_refuse(e, CQ_E_IO, "the database file cannot be examined");
    }
    size_t page_count = info.me_last_pgno + 1;
    size_t held = (size_t)st.st_size / e->page_bytes;
    if (held >= page_count) {
        (void)posix_fadvise(fd, st.st_size > TAIL_BYTES ? st.st_size - TAIL_BYTES : 0, 0,
                            POSIX_FADV_WILLNEED);
        return 0;
    }
    size_t free_count = 0;
    MDB_txn *txn;
    int rc = ftruncate(fd, (off_t)(page_count * e->page_bytes)) ? errno : 0;
    if (rc == 0 && (rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn)) == 0) {
        rc = store_engine_lmdb_count_free(txn, held, &free_count);
        mdb_txn_abort(txn);
    }
    if (rc || free_count < page_count - held) {
        (void)!ftruncate(fd, st.st_size); /* as we found it */
        return store_engine_lmdb_refuse(e, CQ_E_CORRUPT,
                                        "the database file is cut off: restore a backup");
    }
    return 0;
}

/* ---- schema ---- */

int
store_engine_lmdb_number(const store_engine_t *e, MDB_txn *txn, const char *key, uint64_t *value)
{
    char text[16];
    MDB_val k = {strlen(key), text}, v;
    memcpy(text, key, k.mv_size);
    int rc = mdb_get(txn, e->tables[STORE_TABLE_META], &k, &v);
    if (rc) {
        return rc;
    }
    cq_reader_t r = cq_reader(v.mv_data, v.mv_size);
    *value = cq_read_uint(&r, UINT64_MAX);
    return r.err || !cq_reader_at_end(&r) ? MDB_CORRUPTED : 0;
}

static int
put_number(const store_engine_t *e, MDB_txn *txn, const char *key, uint64_t value)
{
    char text[16];
    cq_buf_t b = {0};
    cq_pack_uint(&b, value);
    MDB_val k = {strlen(key), text}, v = {b.size, b.data};
    memcpy(text, key, k.mv_size);
    int rc = mdb_put(txn, e->tables[STORE_TABLE_META], &k, &v, 0);
    cq_buf_free(&b);
    return rc;
}

static int
check_schema(store_engine_t *e, MDB_txn *txn, bool is_new)
{
    uint64_t version = STORE_SCHEMA_VERSION;
    int rc = store_engine_lmdb_number(e, txn, STORE_META_SCHEMA, &version);
    if (rc == MDB_NOTFOUND && is_new) {
        rc = 0;
    } else if (rc == MDB_NOTFOUND) {
        rc = MDB_CORRUPTED;
    }
    if (rc) {
        return store_engine_lmdb_refuse(e, -store_engine_lmdb_error(rc, NULL),
                                        "no schema version: not our database");
    }
    if (version > STORE_SCHEMA_VERSION) {
        return store_engine_lmdb_refuse(e, CQ_E_NEWER_SCHEMA,
                                        "written by a newer version: run that one, or newer");
    }
    e->schema = version;
    rc = is_new ? put_number(e, txn, STORE_META_SCHEMA, version) : 0;
    return store_engine_lmdb_error(rc, "schema");
}

/* ---- environment ---- */

const char *const store_engine_lmdb_names[STORE_TABLE_COUNT] = {
#define X(name, text) text,
    STORE_TABLES(X)
#undef X
};

static int
open_tables(store_engine_t *e, MDB_txn *txn, unsigned create)
{
    MDB_dbi dbi = 0;
    int rc = mdb_dbi_open(txn, "log", create | MDB_INTEGERKEY, &dbi);
    e->log = dbi;
    for (size_t i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++) {
        rc = mdb_dbi_open(txn, store_engine_lmdb_names[i], create, &dbi);
        e->tables[i] = dbi;
    }
    return store_engine_lmdb_error(rc, "mdb_dbi_open");
}

/* As positions have no gaps, it is also the number of records. */
int
store_engine_lmdb_last(const store_engine_t *e, MDB_txn *txn, uint64_t *last_pos)
{
    MDB_cursor *cursor;
    MDB_stat st;
    MDB_val key, val;
    int rc = mdb_cursor_open(txn, e->log, &cursor);
    if (rc) {
        return store_engine_lmdb_error(rc, "mdb_cursor_open");
    }
    *last_pos = 0;
    rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);
    if (rc == 0 && key.mv_size == sizeof *last_pos) {
        memcpy(last_pos, key.mv_data, sizeof *last_pos);
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND) {
        rc = 0;
    }
    if (rc == 0 && (rc = mdb_stat(txn, e->log, &st)) == 0 && st.ms_entries != *last_pos) {
        return store_engine_lmdb_refuse(e, CQ_E_CORRUPT,
                                        "records of the log are missing: restore a backup");
    }
    return store_engine_lmdb_error(rc, "mdb_stat");
}

/* The opening transaction: tables, schema, fence. */
static int
start(store_engine_t *e)
{
    MDB_txn *txn;
    MDB_envinfo info;
    mdb_env_info(e->env, &info);
    int rc = store_engine_lmdb_error(mdb_txn_begin(e->env, NULL, 0, &txn), "mdb_txn_begin");
    if (rc) {
        return rc;
    }
    uint64_t fence = 0;
    uint64_t last_pos = 0;
    if ((rc = open_tables(e, txn, MDB_CREATE)) == 0 &&
        (rc = check_schema(e, txn, info.me_last_txnid == 0)) == 0 &&
        (rc = store_engine_lmdb_last(e, txn, &last_pos)) == 0) {
        int code = store_engine_lmdb_number(e, txn, STORE_META_FENCE, &fence);
        if (code == 0 || code == MDB_NOTFOUND) {
            code = put_number(e, txn, STORE_META_FENCE, ++fence);
        }
        rc = store_engine_lmdb_error(code, "fence");
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = store_engine_lmdb_error(mdb_txn_commit(txn), "mdb_txn_commit");
    if (rc == 0) {
        atomic_store(&e->fence, fence);
        atomic_store(&e->last_pos, last_pos);
    }
    return rc;
}

/* The same for a database that cannot be written: the fence stays what it was. */
static int
look(store_engine_t *e)
{
    MDB_txn *txn;
    uint64_t fence = 0;
    uint64_t last_pos = 0;
    int rc =
        store_engine_lmdb_error(mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    if (rc) {
        return rc;
    }
    if ((rc = open_tables(e, txn, 0)) == 0 && (rc = check_schema(e, txn, false)) == 0 &&
        (rc = store_engine_lmdb_last(e, txn, &last_pos)) == 0) {
        rc = store_engine_lmdb_error(store_engine_lmdb_number(e, txn, STORE_META_FENCE, &fence),
                                     "fence");
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = store_engine_lmdb_error(mdb_txn_commit(txn), "mdb_txn_commit"); /* keeps the tables open */
    if (rc == 0) {
        atomic_store(&e->fence, fence);
        atomic_store(&e->last_pos, last_pos);
    }
    return rc;
}

void
store_engine_lmdb_close_env(store_engine_t *e)
{
    if (e->env) {
        mdb_env_close(e->env);
        e->env = NULL;
    }
}

/* What a database that can be written needs beyond being opened. */
static int
begin(store_engine_t *e)
{
    int rc = check_length(e);
    if (rc == 0) {
        rc = start(e);
    }
    if (rc == 0 && sync_folder(e->dir) != 0) {
        rc = store_engine_lmdb_refuse(e, CQ_E_IO, "the folder cannot be synced");
    }
    return rc;
}

/* flags: 0 or MDB_RDONLY */
static int
open_env_as(store_engine_t *e, unsigned flags)
{
    MDB_stat st;
    int dead = 0;
    int rc = mdb_env_create(&e->env);
    if (rc) {
        e->env = NULL;
        return store_engine_lmdb_error(rc, "mdb_env_create");
    }
    store_engine_lmdb_watch(e->env);
    if ((rc = mdb_env_set_mapsize(e->env, e->map_bytes)) == 0 &&
        (rc = mdb_env_set_maxdbs(e->env, STORE_TABLE_COUNT + 1)) == 0 &&
        (rc = mdb_env_set_maxreaders(e->env, READERS_MAX)) == 0) {
        /* Random reads of a file larger than memory: reading ahead would throw good pages out. */
        rc = mdb_env_open(e->env, e->dir, flags | MDB_NOTLS | (e->read_ahead ? 0 : MDB_NORDAHEAD),
                          FILE_MODE);
    }
    if (rc) {
        int err = -store_engine_lmdb_error(rc, "mdb_env_open");
        rc = store_engine_lmdb_refuse(e, err,
                                      err == CQ_E_CORRUPT
                                          ? "data.mdb is not a database: restore a backup"
                                          : "the database cannot be opened: see the reason above");
    } else {
        mdb_env_stat(e->env, &st);
        e->page_bytes = st.ms_psize;
        rc = store_engine_lmdb_error(mdb_reader_check(e->env, &dead), "mdb_reader_check");
    }
    if (rc == 0) {
        rc = flags & MDB_RDONLY ? look(e) : begin(e);
    }
    if (rc) {
        store_engine_lmdb_close_env(e);
    }
    return rc;
}

store_engine_t *
store_engine_lmdb_new(const struct store_engine_cfg *cfg)
{
    store_engine_t *e = cq_alloc(sizeof *e);
    e->dir = strdup(cfg->dir);
    CQ_ASSERT(e->dir);
    e->map_bytes = cfg->map_bytes;
    e->reserve_bytes = cfg->reserve_bytes;
    e->read_ahead = cfg->read_ahead;
    e->lock_fd = -1;
    int failed = pthread_mutex_init(&e->mutex, NULL);
    failed |= pthread_cond_init(&e->changed, NULL);
    CQ_ASSERT(failed == 0);
    return e;
}

/* After a failed write or sync the kernel may show pages that never reached the disk; what is read
 * next must come from there. */
static void
forget_cache(const store_engine_t *e)
{
    char path[PATH_SIZE];
    int fd = path_in(e, "data.mdb", path) == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

/* A disk that takes no writes, full or failed, can still be read. */
static int
open_to_read(store_engine_t *e, int refusal)
{
    forget_cache(e);
    if (open_env_as(e, MDB_RDONLY) != 0) {
        return refusal;
    }
    CQ_LOG(ERROR, "STORE-ENGINE-READONLY",
           "err=%s last_pos=%" PRIu64 " advice=\"the disk takes no writes: messages are "
           "refused until it does, what is there can be read\"",
           cq_err_name(refusal), store_engine_last_pos(e));
    e->refusal = refusal;
    return 0;
}

static int
open_env(store_engine_t *e)
{
    int rc = open_env_as(e, 0);
    e->refusal = 0;
    return rc == -CQ_E_NO_SPACE || rc == -CQ_E_IO ? open_to_read(e, rc) : rc;
}

int
store_engine_open(const struct store_engine_cfg *cfg, store_engine_t **out)
{
    store_engine_t *e = store_engine_lmdb_new(cfg);
    *out = NULL;
    int rc = make_folder(e);
    if (rc == 0 && (rc = take_lock(e)) == 0) {
        rc = open_env(e);
    }
    if (rc) {
        store_engine_close(&e);
        return rc;
    }
    CQ_LOG(INFO, "STORE-ENGINE-OPEN", "last_pos=%" PRIu64 " fence=%" PRIu64,
           store_engine_last_pos(e), store_engine_fence(e));
    *out = e;
    return 0;
}

int
store_engine_reopen(store_engine_t *e)
{
    pthread_mutex_lock(&e->mutex);
    e->is_reopening = true;
    while (e->snapshot_count) {
        pthread_cond_wait(&e->changed, &e->mutex);
    }
    pthread_mutex_unlock(&e->mutex);
    store_engine_lmdb_close_env(e);
    forget_cache(e);
    int rc = open_env(e);
    e->is_broken = rc != 0;
    CQ_LOG(INFO, "STORE-ENGINE-REOPEN", "err=%s last_pos=%" PRIu64,
           cq_err_name(rc ? rc : e->refusal), store_engine_last_pos(e));
    pthread_mutex_lock(&e->mutex);
    e->is_reopening = false;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    return rc;
}

void
store_engine_close(store_engine_t **engine)
{
    store_engine_t *e = *engine;
    if (!e) {
        return;
    }
    CQ_ASSERT(e->snapshot_count == 0);
    store_engine_lmdb_close_env(e);
    if (e->lock_fd >= 0) {
        close(e->lock_fd);
    }
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->mutex);
    free(e->dir);
    free(e);
    *engine = NULL;
}

uint64_t
store_engine_fence(const store_engine_t *e)
{
    return atomic_load(&e->fence);
}

uint64_t
store_engine_schema(const store_engine_t *e)
{
    return e->schema;
}

uint64_t
store_engine_last_pos(store_engine_t *e)
{
    return atomic_load(&e->last_pos);
}
