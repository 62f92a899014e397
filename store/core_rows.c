/* SPDX-License-Identifier: MPL-2.0
 * What the handlers use: rows and records as the newest change has them, appending, and answers
 * that wait for durability.
 */
#include <string.h>

#include "store/core.h"

enum {
    /* Beyond: stop reading from the bus until the batch is on its way. */
    BATCH_BYTES_MAX = 16 * 1024 * 1024,
    BATCH_RECORDS_MAX = 16384,
};

/* ---- reading ---- */

int
store_core_snapshot(struct store_core *core, store_snapshot_t **s)
{
    if (!core->snapshot) {
        int rc = store_snapshot_open(core->engine, &core->snapshot);
        if (rc) {
            return rc;
        }
    }
    *s = core->snapshot;
    return 0;
}

void
store_core_drop_snapshot(struct store_core *core)
{
    if (core->snapshot) {
        store_snapshot_close(&core->snapshot);
    }
}

int
store_core_row_on_disk(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value)
{
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(ctx, &s);
    return rc ? rc : store_snapshot_row(s, t, key, value);
}

int
store_core_record_on_disk(void *ctx, uint64_t pos, struct cq_view *record)
{
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(ctx, &s);
    return rc ? rc : store_snapshot_record(s, pos, record);
}

int
store_core_row(struct store_core *core,
               enum store_table t,
               const struct store_key *key,
               struct cq_view *value)
{
    struct cq_view k = store_key_view(key);
    if (store_batch_find(core->building, t, k, value) ||
        (core->committing && store_batch_find(core->committing, t, k, value))) {
        return value->p ? 0 : -CQ_E_NOT_FOUND;
    }
    return store_core_row_on_disk(core, t, k, value);
}

/* Rows found on disk that a change under way replaces are left out; the changed ones are given from
 * the batch. */
struct scan {
    struct store_core *core;
    enum store_table table;
    store_row_fn *fn;
    void *ctx;
    bool stopped;
};

static bool
on_scanned_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct scan *s = ctx;
    struct cq_view newer;
    if (store_batch_find(s->core->building, s->table, key, &newer) ||
        (s->core->committing && store_batch_find(s->core->committing, s->table, key, &newer))) {
        return true;
    }
    s->stopped = !s->fn(s->ctx, key, value);
    return !s->stopped;
}

static void
scan_batch(struct scan *s,
           const struct store_batch *b,
           const struct store_batch *newer,
           struct cq_view prefix)
{
    for (size_t i = 0; b && i < b->cold_count && !s->stopped; i++) {
        const struct store_batch_row *row = &b->rows[b->colds[i]];
        struct cq_view key = {b->bytes.data + row->key.offset, row->key.size};
        struct cq_view value = {b->bytes.data + row->value.offset, row->value.size};
        struct cq_view hidden;
        if (row->table != s->table || row->is_delete || key.n < prefix.n ||
            memcmp(key.p, prefix.p, prefix.n) != 0 ||
            (newer && store_batch_find(newer, s->table, key, &hidden))) {
            continue;
        }
        s->stopped = !s->fn(s->ctx, key, value);
    }
}

int
store_core_scan(struct store_core *core,
                enum store_table t,
                const struct store_key *prefix,
                store_row_fn *fn,
                void *ctx)
{
    struct scan s = {core, t, fn, ctx, false};
    struct cq_view p = store_key_view(prefix);
    store_snapshot_t *snapshot = NULL;
    int rc = store_core_snapshot(core, &snapshot);
    if (!rc) {
        rc = store_snapshot_scan(snapshot, t, p, (struct cq_view){0}, on_scanned_row, &s);
    }
    if (!rc) {
        scan_batch(&s, core->building, NULL, p);
        scan_batch(&s, core->committing, core->building, p);
    }
    return rc;
}

int
store_core_chat(struct store_core *core,
                const struct cq_id *chat,
                const struct cq_id *user,
                struct store_chat **out,
                int *member)
{
    int rc = store_projection_chat(core->projection, chat, out);
    if (rc) {
        return rc;
    }
    *member = store_chat_member(*out, user);
    return *member < 0 ? -CQ_E_NOT_FOUND : 0;
}

int
store_core_record(struct store_core *core, uint64_t pos, struct cq_view *record)
{
    *record = store_batch_record(core->building, pos);
    if (!record->n && core->committing) {
        *record = store_batch_record(core->committing, pos);
    }
    if (record->n) {
        return 0;
    }
    return store_core_record_on_disk(core, pos, record);
}

/* ---- changing ---- */

int
store_core_writable(const struct store_core *core)
{
    if (cq_now_mono_ms() < core->refuse_until_mono_ms) {
        return core->refuse_err;
    }
    return core->is_full ? -CQ_E_NO_SPACE : 0;
}

static void
write_record(struct store_core *core, enum cq_rec_kind kind, const void *fields)
{
    struct store_batch *b = core->building;
    size_t begin = store_batch_record_begin(b);
    cq_rec_write(&b->bytes, kind, fields);
    store_batch_record_end(b, begin);
    core->last_pos++;
}

int
store_core_append(struct store_core *core,
                  struct store_chat *chat,
                  enum cq_rec_kind kind,
                  const void *fields,
                  uint64_t *pos)
{
    if (core->building->record_count == 0 && core->commit_time_last) {
        struct cq_rec_commit commit = {core->commit_time_last, core->commit_time_unix_ms,
                                       core->commit_time_first};
        write_record(core, CQ_REC_COMMIT, &commit);
        core->commit_time_last = 0;
    }
    if (chat) {
        int rc = store_projection_apply(core->projection, chat, core->last_pos + 1, kind, fields);
        if (rc) {
            return rc;
        }
    }
    write_record(core, kind, fields);
    core->building->hurries = true;
    if (!core->building->begun_mono_us && core->bus) {
        core->building->begun_mono_us = cq_bus_read_mono_us(core->bus);
    }
    *pos = core->last_pos;
    if (core->building->record_count >= BATCH_RECORDS_MAX ||
        core->building->bytes.size + core->building->answers.size >= BATCH_BYTES_MAX) {
        cq_bus_pause(core->bus, true);
    }
    return 0;
}

void
store_core_put(struct store_core *core,
               enum store_table t,
               const struct store_key *key,
               struct cq_view value)
{
    store_batch_put(core->building, t, store_key_view(key), value, true);
    core->building->hurries = true;
}

/* ---- answering ---- */

struct store_batch *
store_core_pending(struct store_core *core)
{
    return store_batch_is_empty(core->building) ? core->committing : core->building;
}

/* The batch that an answer has to wait for, which it hurries; NULL: none. */
static struct store_batch *
join(struct store_core *core)
{
    struct store_batch *b = store_core_pending(core);
    if (b) {
        b->hurries = true;
    }
    return b;
}

void
store_core_reply(struct store_core *core,
                 const struct cq_bus_from *to,
                 const struct cq_schema *s,
                 const void *in)
{
    struct store_batch *b = join(core);
    if (to->rid == 0) {
        return;
    }
    if (b) {
        store_batch_reply_schema(b, to, s, in);
    } else {
        cq_bus_reply(core->bus, to, s, in);
    }
}

void
store_core_reply_raw(struct store_core *core,
                     const struct cq_bus_from *to,
                     size_t field_count,
                     struct cq_view raw)
{
    struct store_batch *b = join(core);
    if (b) {
        store_batch_reply(b, to, field_count, raw);
    } else {
        cq_bus_reply_raw(core->bus, to, field_count, raw);
    }
}

void
store_core_reply_err(struct store_core *core,
                     const struct cq_bus_from *to,
                     int err,
                     uint64_t detail)
{
    struct store_batch *b = join(core);
    if (to->rid == 0) {
        return;
    }
    if (b) {
        store_batch_reply_err(b, to, err, detail);
    } else {
        cq_bus_reply_err(core->bus, to, err, detail);
    }
}

void
store_core_after(struct store_core *core, store_batch_fn *fn, void *arg)
{
    struct store_batch *b = join(core);
    if (b) {
        store_batch_after(b, fn, arg);
    } else {
        fn(core, arg, 0);
    }
}
