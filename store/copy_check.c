/* SPDX-License-Identifier: MPL-2.0 */
#include "store/copy_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/rt/check.h"

#include "store/key.h"
#include "store/record.h"

enum {
    ASK_EVERY = 4096 /* rows or records */
};

struct check {
    store_snapshot_t *snapshot;
    store_copy_watch *watch;
    void *watch_ctx;
    struct store_copy_facts *facts;
    char *why;
    size_t why_size;
    uint64_t seen;
    uint64_t next_pos;
    enum store_table table;
    struct store_key last_key; /* of the row before */
    int rc;
};

static int __attribute__((format(printf, 2, 3))) damaged(struct check *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(c->why, c->why_size, fmt, args);
    va_end(args);
    return -CQ_E_CORRUPT;
}

static bool
may_go_on(struct check *c)
{
    if (++c->seen % ASK_EVERY == 0 && c->watch && !c->watch(c->watch_ctx)) {
        c->rc = -CQ_E_UNAVAILABLE;
    }
    return c->rc == 0;
}

/* ---- log and tables ---- */

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct check *c = ctx;
    union store_record fields;
    enum cq_rec_kind kind;
    if (pos != c->next_pos) {
        c->rc = damaged(c, "record %" PRIu64 " of the log is missing", c->next_pos);
    } else if (store_record_read(record, &kind, &fields) != 0) {
        c->rc = damaged(c, "record %" PRIu64 " of the log cannot be read", pos);
    }
    c->next_pos++;
    return may_go_on(c);
}

static int
check_log(struct check *c)
{
    c->next_pos = 1;
    int rc = store_snapshot_log(c->snapshot, 1, on_record, c);
    rc = rc ? rc : c->rc;
    if (rc == 0 && c->next_pos - 1 != c->facts->head) {
        rc = damaged(c, "the log ends at %" PRIu64 " instead of %" PRIu64, c->next_pos - 1,
                     c->facts->head);
    }
    return rc;
}

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct check *c = ctx;
    uint64_t sum = 0;
    if (key.n == 0 || key.n > STORE_KEY_MAX) {
        c->rc = damaged(c, "table %d has a key of %zu bytes", (int)c->table, key.n);
        return false;
    }
    size_t n = key.n < c->last_key.n ? key.n : c->last_key.n;
    int order = memcmp(c->last_key.b, key.p, n);
    if (order > 0 || (order == 0 && c->last_key.n >= key.n)) {
        c->rc = damaged(c, "the keys of table %d are out of order", (int)c->table);
    }
    memcpy(c->last_key.b, key.p, key.n);
    c->last_key.n = key.n;
    for (size_t i = 0; i < value.n; i += 512) {
        sum += value.p[i]; /* touches every page */
    }
    (void)sum;
    c->facts->rows++;
    return may_go_on(c);
}

static int
check_tables(struct check *c)
{
    int rc = 0;
    for (int t = 0; t < STORE_TABLE_COUNT && rc == 0; t++) {
        c->table = (enum store_table)t;
        c->last_key.n = 0;
        rc = store_snapshot_scan(c->snapshot, c->table, (struct cq_view){0}, (struct cq_view){0},
                                 on_row, c);
        rc = rc ? rc : c->rc;
    }
    return rc;
}

/* ---- META ---- */

static int
read_meta(struct check *c, const char *name, struct cq_view *row)
{
    struct store_key key = store_key_text(name);
    int rc = store_snapshot_row(c->snapshot, STORE_TABLE_META, store_key_view(&key), row);
    return rc == -CQ_E_NOT_FOUND ? damaged(c, "the row \"%s\" is missing", name) : rc;
}

/* A position; 0 if there is no such row. */
static int
read_position(struct check *c, const char *name, uint64_t *pos)
{
    struct store_key key = store_key_text(name);
    struct cq_view row;
    *pos = 0;
    int rc = store_snapshot_row(c->snapshot, STORE_TABLE_META, store_key_view(&key), &row);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    cq_reader_t r = cq_reader_of(row);
    *pos = cq_read_uint(&r, UINT64_MAX);
    if (r.err || *pos > c->facts->head) {
        return damaged(c, "the position \"%s\" is not in the log", name);
    }
    return 0;
}

static int
check_meta(struct check *c)
{
    struct cq_view row;
    uint64_t routed = 0;
    int rc = read_meta(c, "epoch", &row);
    if (rc == 0 && row.n != CQ_ID_SIZE) {
        rc = damaged(c, "the epoch has %zu bytes", row.n);
    }
    if (rc == 0) {
        memcpy(c->facts->epoch.b, row.p, CQ_ID_SIZE);
        rc = read_meta(c, "vault", &row);
    }
    rc = rc ? rc : read_position(c, "marker", &c->facts->marker);
    return rc ? rc : read_position(c, "routed", &routed);
}

int
store_copy_check(const char *dir,
                 store_copy_watch *watch,
                 void *ctx,
                 struct store_copy_facts *facts,
                 char *why,
                 size_t why_size)
{
    store_engine_t *e = NULL;
    struct check *c = cq_alloc(sizeof *c);
    *c = (struct check){
        .watch = watch, .watch_ctx = ctx, .facts = facts, .why = why, .why_size = why_size};
    *facts = (struct store_copy_facts){0};
    (void)snprintf(why, why_size, "it cannot be opened as a database");
    int rc = store_engine_open_copy(dir, &e);
    if (rc == 0) {
        (void)snprintf(why, why_size, "it cannot be read");
        facts->schema = store_engine_schema(e);
        facts->head = store_engine_last_pos(e);
        rc = store_snapshot_open(e, &c->snapshot);
    }
    rc = rc ? rc : check_meta(c);
    rc = rc ? rc : check_log(c);
    rc = rc ? rc : check_tables(c);
    store_snapshot_close(&c->snapshot);
    store_engine_close(&e);
    free(c);
    return rc;
}
