/* SPDX-License-Identifier: MPL-2.0 */
#include "store/migrate.h"

#include <inttypes.h>

#include "common/rt/log.h"
#include "common/rt/loop.h"
#include "common/wire/pack.h"

#include "store/batch.h"
#include "store/record.h"

enum {
    STEP_RECORDS = 20000, /* the engine wants room for two pages a row */
    SAY_EVERY_MS = 2000
};

static const char *const progress_key = "migrate"; /* META: log position done up to */

struct step {
    struct store_batch *rows; /* a batch without records: sorts and keeps the bytes */
    size_t records_left;
    uint64_t pos; /* done up to */
    int rc;
};

static int
meta_number(store_snapshot_t *s, const char *name, uint64_t *value)
{
    struct store_key key = store_key_text(name);
    struct cq_view row = {0};
    int rc = store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &row);
    *value = 0;
    if (rc == -CQ_E_NOT_FOUND) {
        return 0;
    }
    if (!rc) {
        cq_reader_t r = cq_reader_of(row);
        *value = cq_read_uint(&r, UINT64_MAX);
        rc = r.err ? -CQ_E_CORRUPT : 0;
    }
    return rc;
}

static void
put_number(struct store_batch *b, enum store_table t, const struct store_key *key, uint64_t value)
{
    cq_buf_t v = {0};
    cq_pack_uint(&v, value);
    store_batch_put(b, t, store_key_view(key), (struct cq_view){v.data, v.size}, false);
    cq_buf_free(&v);
}

/* ---- 1 → 2: the table RECEIPT, from the receipts in the log ---- */

/* Version 1 wrote a record only for a cursor that grew, so each is a row. */
static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct step *step = ctx;
    union store_record fields;
    enum cq_rec_kind kind;
    step->rc = store_record_read(record, &kind, &fields);
    if (step->rc) {
        CQ_LOG(ERROR, "STORE-MIGRATE-RECORD", "pos=%" PRIu64 " err=%s", pos, cq_err_name(step->rc));
        return false;
    }
    if (kind == CQ_REC_RECEIPT) {
        const struct cq_rec_receipt *r = &fields.receipt;
        bool is_read = cq_id_is_none(&r->device);
        struct store_key key =
            store_key_receipt(&r->chat, is_read ? STORE_RECEIPT_READ : STORE_RECEIPT_DELIVERED,
                              is_read ? &r->user : &r->device, r->up_to);
        put_number(step->rows, STORE_TABLE_RECEIPT, &key, pos);
    }
    step->pos = pos;
    return --step->records_left > 0;
}

static int
build_receipts(store_engine_t *e, store_snapshot_t *s, struct step *step, bool *is_done)
{
    int rc = store_snapshot_log(s, step->pos + 1, on_record, step);
    *is_done = step->pos == store_engine_last_pos(e);
    return rc ? rc : step->rc;
}

/* ---- 2 → 3 and 3 → 4: other rows of chats and of their indexes ---- */

static const enum store_table chat_tables[] = {STORE_TABLE_CHAT, STORE_TABLE_INDEX,
                                               STORE_TABLE_UNREAD, STORE_TABLE_READ};

struct dropping {
    struct step *step;
    enum store_table table;
};

static bool
on_row_to_drop(void *ctx, struct cq_view key, struct cq_view value)
{
    const struct dropping *d = ctx;
    (void)value;
    store_batch_put(d->step->rows, d->table, key, (struct cq_view){0}, false);
    return --d->step->records_left > 0;
}

/* All of them follow from the log: without them and without the marker, the start that follows
 * applies it from the beginning (replay.c). */
static int
drop_chat_rows(store_engine_t *e, store_snapshot_t *s, struct step *step, bool *is_done)
{
    struct store_key marker = store_key_text("marker");
    struct store_key complete = store_key_text("complete");
    int rc = 0;
    (void)e;
    store_batch_put(step->rows, STORE_TABLE_META, store_key_view(&marker), (struct cq_view){0},
                    false);
    store_batch_put(step->rows, STORE_TABLE_META, store_key_view(&complete), (struct cq_view){0},
                    false);
    for (size_t i = 0; i < sizeof chat_tables / sizeof chat_tables[0] && !rc; i++) {
        struct dropping d = {step, chat_tables[i]};
        if (step->records_left) {
            rc = store_snapshot_scan(s, d.table, (struct cq_view){0}, (struct cq_view){0},
                                     on_row_to_drop, &d);
        }
    }
    *is_done = step->records_left > 0;
    return rc;
}

/* Version 0 is what was written before the first release: the same tables. */
static int
change_nothing(store_engine_t *e, store_snapshot_t *s, struct step *step, bool *is_done)
{
    (void)e;
    (void)s;
    (void)step;
    *is_done = true;
    return 0;
}

/* From version i to i + 1. */
static int (*const migrations[STORE_SCHEMA_VERSION])(store_engine_t *,
                                                     store_snapshot_t *,
                                                     struct step *,
                                                     bool *) = {change_nothing, build_receipts,
                                                                drop_chat_rows, drop_chat_rows};

/* ---- steps ---- */

static int
gather(store_engine_t *e, struct step *step, uint64_t *version)
{
    store_snapshot_t *s = NULL;
    bool is_done = false;
    int rc = store_snapshot_open(e, &s);
    if (!rc) {
        rc = meta_number(s, STORE_META_SCHEMA, version);
    }
    if (!rc) {
        rc = meta_number(s, progress_key, &step->pos);
    }
    if (!rc && *version < STORE_SCHEMA_VERSION) {
        rc = migrations[*version](e, s, step, &is_done);
    }
    store_snapshot_close(&s);
    if (!rc && is_done) {
        ++*version;
    }
    if (!rc) {
        struct store_key schema = store_key_text(STORE_META_SCHEMA);
        struct store_key progress = store_key_text(progress_key);
        put_number(step->rows, STORE_TABLE_META, &schema, *version);
        if (is_done) {
            store_batch_put(step->rows, STORE_TABLE_META, store_key_view(&progress),
                            (struct cq_view){0}, false);
        } else {
            put_number(step->rows, STORE_TABLE_META, &progress, step->pos);
        }
    }
    return rc;
}

int
store_migrate_step(store_engine_t *e, size_t records_max, uint64_t *version)
{
    struct step step = {.rows = store_batch_new(1, store_engine_last_pos(e) + 1),
                        .records_left = records_max};
    int rc = gather(e, &step, version);
    if (!rc) {
        store_batch_seal(step.rows);
        rc = store_engine_commit(e, &step.rows->commit);
    }
    store_batch_destroy(&step.rows);
    return rc;
}

/* Now and then. */
static void
say_how_far(uint64_t version, uint64_t start_ms, uint64_t *said_ms)
{
    uint64_t now = cq_now_mono_ms();
    if (now - *said_ms >= SAY_EVERY_MS) {
        *said_ms = now;
        CQ_LOG(INFO, "STORE-MIGRATE-GOES-ON", "version=%" PRIu64 " ms=%" PRIu64, version,
               now - start_ms);
    }
}

int
store_migrate_run(store_engine_t *e)
{
    uint64_t version = store_engine_schema(e);
    uint64_t start = cq_now_mono_ms();
    uint64_t said = start;
    int rc = 0;
    if (version == STORE_SCHEMA_VERSION) {
        return 0;
    }
    CQ_LOG(INFO, "STORE-MIGRATE", "from=%" PRIu64 " to=%d records=%" PRIu64, version,
           STORE_SCHEMA_VERSION, store_engine_last_pos(e));
    while (!rc && version < STORE_SCHEMA_VERSION) {
        rc = store_migrate_step(e, STEP_RECORDS, &version);
        say_how_far(version, start, &said);
    }
    if (rc) {
        CQ_LOG(ERROR, "STORE-MIGRATE-FAIL",
               "version=%" PRIu64 " err=%s advice=\"nothing is lost: see the reason above, start "
               "again; what is done is kept\"",
               version, cq_err_name(rc));
        return rc;
    }
    CQ_LOG(INFO, "STORE-MIGRATED", "version=%" PRIu64 " ms=%" PRIu64, version,
           cq_now_mono_ms() - start);
    return 0;
}
