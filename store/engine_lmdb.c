/* SPDX-License-Identifier: MPL-2.0
 * Commits and snapshots. Facts about LMDB 0.9.24 this rests on: a commit writes the pages, syncs,
 * then writes the meta page through an O_DSYNC descriptor, so a commit that returned 0 is on disk
 * and one that failed before the meta page has not happened; after a failure in it the environment
 * refuses all further transactions.
 */
#include "store/engine_lmdb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include <lmdb.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

/* LMDB never writes through these pointers (no MDB_WRITEMAP, no MDB_RESERVE); its struct only lacks
 * the const. */
static MDB_val
val_of(struct cq_view v)
{
    union {
        const uint8_t *from;
        void *to;
    } p = {v.p};
    return (MDB_val){v.n, p.to};
}

static struct cq_view
view_of(MDB_val v)
{
    return (struct cq_view){v.mv_data, v.mv_size};
}

/* ---- commit ---- */

enum {
    SPARE_PAGES = 64,  /* roots, branches and the free list of one commit */
    PAGES_PER_ROW = 2, /* a leaf of its own, and its share of branches and splits */
    NODE_BYTES = 32,   /* header, key and slot of a record */
};

/* Pages of a value that may not fit into a leaf with another one: LMDB then gives it pages of its
 * own. */
static uint64_t
overflow_pages(const store_engine_t *e, size_t n)
{
    return n + NODE_BYTES > e->page_bytes / 2 ? n / e->page_bytes + 2 : 0;
}

/* An upper bound of the pages that a commit takes from the end of the file. */
static uint64_t
pages_needed(const store_engine_t *e, const struct store_commit *c)
{
    uint64_t pages = SPARE_PAGES;
    uint64_t packed_bytes = 0;
    for (size_t i = 0; i < c->record_count; i++) {
        uint64_t own = overflow_pages(e, c->records[i].n);
        pages += own;
        packed_bytes += NODE_BYTES + (own ? 0 : c->records[i].n);
    }
    /* Appending fills leaves at least half. */
    pages += 2 * packed_bytes / e->page_bytes;
    for (size_t i = 0; i < c->row_count; i++) {
        pages += PAGES_PER_ROW + overflow_pages(e, c->rows[i].value.p ? c->rows[i].value.n : 0);
    }
    return pages;
}

static int
check_pages(const store_engine_t *e, uint64_t pages)
{
    MDB_envinfo info;
    struct statvfs fs;
    mdb_env_info(e->env, &info);
    if ((info.me_last_pgno + 1 + pages) * e->page_bytes > info.me_mapsize) {
        return -CQ_E_NO_SPACE;
    }
    /* Not being able to ask is no reason to refuse: a write that fails is handled as well. */
    if (statvfs(e->dir, &fs) == 0 &&
        (uint64_t)fs.f_bavail * fs.f_frsize < e->reserve_bytes + pages * e->page_bytes) {
        return -CQ_E_NO_SPACE;
    }
    return 0;
}

bool
store_engine_has_room(store_engine_t *e)
{
    enum {
        PAGES = 64
    };
    pthread_mutex_lock(&e->mutex); /* no reopen begins meanwhile */
    bool has_room = !e->is_reopening && e->env && check_pages(e, PAGES) == 0;
    pthread_mutex_unlock(&e->mutex);
    return has_room;
}

/* Says once that commits are refused, and once that they work again. */
static void
note_space(store_engine_t *e, bool is_full)
{
    if (is_full && !e->is_full) {
        CQ_LOG(ERROR, "STORE-ENGINE-FULL",
               "last_pos=%" PRIu64
               " advice=\"the disk or the database map is full: make room, or raise its size\"",
               store_engine_last_pos(e));
    } else if (!is_full && e->is_full) {
        CQ_LOG(INFO, "STORE-ENGINE-ROOM", "last_pos=%" PRIu64, store_engine_last_pos(e));
    }
    e->is_full = is_full;
}

static int
check_input(const store_engine_t *e, const struct store_commit *c)
{
    if (c->record_count && c->first_pos != atomic_load(&e->last_pos) + 1) {
        CQ_LOG(ERROR, "STORE-ENGINE-POSITION", "first_pos=%" PRIu64 " last_pos=%" PRIu64,
               c->first_pos, atomic_load(&e->last_pos));
        return -CQ_E_CORRUPT;
    }
    for (size_t i = 0; i < c->row_count; i++) {
        const struct store_row *row = &c->rows[i];
        if (row->key.n == 0 || row->key.n > STORE_KEY_MAX || row->table >= STORE_TABLE_COUNT) {
            return -CQ_E_BAD_ARG;
        }
    }
    return 0;
}

static int
put_records(const store_engine_t *e, MDB_txn *txn, const struct store_commit *c)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, e->log, &cursor);
    if (rc) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < c->record_count; i++) {
        uint64_t pos = c->first_pos + i;
        MDB_val key = {sizeof pos, &pos};
        MDB_val val = val_of(c->records[i]);
        rc = mdb_cursor_put(cursor, &key, &val, MDB_APPEND);
    }
    mdb_cursor_close(cursor);
    return rc;
}

static int
put_row(MDB_cursor *cursor, const struct store_row *row)
{
    MDB_val key = val_of(row->key);
    MDB_val val = val_of(row->value);
    if (row->value.p) {
        return mdb_cursor_put(cursor, &key, &val, 0);
    }
    int rc = mdb_cursor_get(cursor, &key, &val, MDB_SET);
    if (rc == 0) {
        rc = mdb_cursor_del(cursor, 0);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* One cursor a table: sorted rows then mostly find their leaf under it. */
static int
put_rows(const store_engine_t *e, MDB_txn *txn, const struct store_commit *c)
{
    MDB_cursor *cursor = NULL;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->row_count; i++) {
        if (i == 0 || c->rows[i].table != c->rows[i - 1].table) {
            if (cursor) {
                mdb_cursor_close(cursor);
                cursor = NULL;
            }
            rc = mdb_cursor_open(txn, e->tables[c->rows[i].table], &cursor);
        }
        if (rc == 0) {
            rc = put_row(cursor, &c->rows[i]);
        }
    }
    if (cursor) {
        mdb_cursor_close(cursor);
    }
    return rc;
}

/* From here on the outcome of the commit in hand is open. */
static int
break_off(store_engine_t *e, const char *call, int rc)
{
    int err = store_engine_lmdb_error(rc, call);
    CQ_LOG(ERROR, "STORE-ENGINE-UNKNOWN",
           "call=%s err=%s last_pos=%" PRIu64
           " advice=\"writing stops until the database is opened again from disk\"",
           call, cq_err_name(err), store_engine_last_pos(e));
    e->is_broken = true;
    return -CQ_E_UNKNOWN_OUTCOME;
}

static int
write_txn(store_engine_t *e, const struct store_commit *c)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(e->env, NULL, 0, &txn);
    if (rc) {
        return break_off(e, "mdb_txn_begin", rc);
    }
    rc = put_records(e, txn, c);
    if (rc == 0) {
        rc = put_rows(e, txn, c);
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc == MDB_MAP_FULL ? -CQ_E_NO_SPACE : break_off(e, "mdb_put", rc);
    }
    rc = mdb_txn_commit(txn);
    return rc ? break_off(e, "mdb_txn_commit", rc) : 0;
}

/* Open for reading only: does the disk take writes again? */
static int
try_again(store_engine_t *e)
{
    int rc = e->refusal ? store_engine_reopen(e) : 0;
    return rc ? rc : e->refusal;
}

/* What was read while it was open for reading only need not have been on the disk: the commit was
 * made to follow a log that is not there. */
static int
check_last_pos(store_engine_t *e, uint64_t expected)
{
    uint64_t last_pos = store_engine_last_pos(e);
    if (last_pos == expected) {
        return 0;
    }
    CQ_LOG(ERROR, "STORE-ENGINE-OTHER-LOG", "last_pos=%" PRIu64 " expected=%" PRIu64, last_pos,
           expected);
    e->is_broken = true;
    return -CQ_E_UNKNOWN_OUTCOME;
}

int
store_engine_commit(store_engine_t *e, const struct store_commit *c)
{
    if (e->is_broken) {
        return -CQ_E_UNKNOWN_OUTCOME;
    }
    int rc = check_input(e, c);
    if (rc) {
        return rc;
    }
    if (c->record_count == 0 && c->row_count == 0) {
        return 0;
    }
    uint64_t last_pos = store_engine_last_pos(e);
    rc = try_again(e);
    if (rc == 0) {
        rc = check_last_pos(e, last_pos);
    }
    if (rc == 0) {
        rc = check_pages(e, pages_needed(e, c));
    }
    if (rc == 0) {
        rc = write_txn(e, c);
    }
    if (rc == 0) {
        (void)atomic_fetch_add(&e->last_pos, c->record_count);
    }
    note_space(e, rc == -CQ_E_NO_SPACE);
    return rc;
}

/* ---- snapshots ---- */

struct store_snapshot {
    store_engine_t *engine;
    MDB_txn *txn;
};

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

int
store_snapshot_open(store_engine_t *e, store_snapshot_t **out)
{
    *out = NULL;
    pthread_mutex_lock(&e->mutex);
    while (e->is_reopening) {
        pthread_cond_wait(&e->changed, &e->mutex);
    }
    bool is_usable = e->env != NULL;
    e->snapshot_count += is_usable;
    pthread_mutex_unlock(&e->mutex);
    if (!is_usable) {
        return -CQ_E_IO;
    }
    MDB_txn *txn;
    int rc =
        store_engine_lmdb_error(mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    if (rc) {
        release(e);
        return rc;
    }
    store_snapshot_t *s = cq_alloc(sizeof *s);
    s->engine = e;
    s->txn = txn;
    *out = s;
    return 0;
}

void
store_snapshot_close(store_snapshot_t **snapshot)
{
    store_snapshot_t *s = *snapshot;
    if (!s) {
        return;
    }
    mdb_txn_abort(s->txn);
    release(s->engine);
    free(s);
    *snapshot = NULL;
}

int
store_snapshot_row(store_snapshot_t *s,
                   enum store_table t,
                   struct cq_view key,
                   struct cq_view *value)
{
    if (key.n == 0 || key.n > STORE_KEY_MAX) {
        return -CQ_E_BAD_ARG;
    }
    if (s->engine->tables[t] == STORE_ENGINE_NO_TABLE) {
        return -CQ_E_NOT_FOUND;
    }
    MDB_val k = val_of(key), v;
    int rc = mdb_get(s->txn, s->engine->tables[t], &k, &v);
    if (rc == 0) {
        *value = view_of(v);
    }
    return store_engine_lmdb_error(rc, "mdb_get");
}

int
store_snapshot_record(store_snapshot_t *s, uint64_t pos, struct cq_view *record)
{
    MDB_val k = {sizeof pos, &pos}, v;
    int rc = mdb_get(s->txn, s->engine->log, &k, &v);
    if (rc == 0) {
        *record = view_of(v);
    }
    return store_engine_lmdb_error(rc, "mdb_get");
}

/* The later one of prefix and from. */
static struct cq_view
start_of(struct cq_view prefix, struct cq_view from)
{
    if (!from.p || from.n == 0) {
        return prefix;
    }
    if (prefix.n == 0) {
        return from;
    }
    size_t n = prefix.n < from.n ? prefix.n : from.n;
    int order = memcmp(prefix.p, from.p, n);
    return order > 0 || (order == 0 && prefix.n > from.n) ? prefix : from;
}

int
store_snapshot_scan(store_snapshot_t *s,
                    enum store_table t,
                    struct cq_view prefix,
                    struct cq_view from,
                    store_row_fn *fn,
                    void *ctx)
{
    MDB_cursor *cursor;
    if (s->engine->tables[t] == STORE_ENGINE_NO_TABLE) {
        return 0;
    }
    int rc = mdb_cursor_open(s->txn, s->engine->tables[t], &cursor);
    if (rc) {
        return store_engine_lmdb_error(rc, "mdb_cursor_open");
    }
    struct cq_view start = start_of(prefix, from);
    MDB_val key = val_of(start), val;
    rc = mdb_cursor_get(cursor, &key, &val, start.n ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0 && key.mv_size >= prefix.n &&
           (prefix.n == 0 || memcmp(key.mv_data, prefix.p, prefix.n) == 0) &&
           fn(ctx, view_of(key), view_of(val))) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : store_engine_lmdb_error(rc, "mdb_cursor_get");
}

int
store_snapshot_log(store_snapshot_t *s, uint64_t from_pos, store_record_fn *fn, void *ctx)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(s->txn, s->engine->log, &cursor);
    if (rc) {
        return store_engine_lmdb_error(rc, "mdb_cursor_open");
    }
    uint64_t pos = from_pos;
    MDB_val key = {sizeof pos, &pos}, val;
    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    while (rc == 0) {
        if (key.mv_size != sizeof pos) {
            rc = MDB_CORRUPTED;
            break;
        }
        memcpy(&pos, key.mv_data, sizeof pos);
        if (!fn(ctx, pos, view_of(val))) {
            break;
        }
        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : store_engine_lmdb_error(rc, "mdb_cursor_get");
}
