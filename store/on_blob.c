/* SPDX-License-Identifier: MPL-2.0
 * What blobd and edges ask about blobs.
 *
 * A blob that nothing refers to after a grace period is collected: its row says DEAD durably, then
 * blobd removes the file, then the row goes. So a reference to a collected blob is refused
 * (NO_BLOB), and a crash between the steps repeats the next one. An upload that expired just loses
 * its row: blobd's walk removes files that have none.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/wire/pack.h"

#include "store/blob.h"
#include "store/core.h"

enum {
    SWEEP_ROWS = 1000, /* looked at in one tick */
    COLLECT_MAX = 256, /* given to blobd at once */
    COLLECT_DEADLINE_MS = 10000,
};

struct store_blobs {
    struct store_key at; /* the sweep goes on behind this row; n 0: from the start */
    size_t row_count;    /* of this tick */
    struct cq_id found[SWEEP_ROWS];
    size_t found_count;
    struct cq_id dying[COLLECT_MAX]; /* durable as DEAD, blobd is asked to remove them */
    size_t dying_count;
    bool is_asking;
    bool is_held; /* by a backup: nothing is collected */
    uint64_t rest_until_mono_ms;
};

static struct {
    uint64_t expired, collected, quota;
} counters;

static const struct cq_metric metrics[] = {
    {"chasqui_store_blobs_expired_total", "Uploads that were not completed in time",
     CQ_METRIC_COUNTER, &counters.expired},
    {"chasqui_store_blobs_collected_total", "Blobs collected, nothing referred to them",
     CQ_METRIC_COUNTER, &counters.collected},
    {"chasqui_store_blob_quota_total", "Uploads refused for the user's quota", CQ_METRIC_COUNTER,
     &counters.quota},
};

/* ---- rows ---- */

static int
get_blob(struct store_core *core, const struct cq_id *id, struct store_blob *blob)
{
    struct store_key key = store_key_of(id);
    struct cq_view row;
    int rc = store_core_row(core, STORE_TABLE_BLOB, &key, &row);
    return rc ? rc : store_blob_read(row, blob);
}

static void
put_blob(struct store_core *core, const struct cq_id *id, const struct store_blob *blob)
{
    struct store_key key = store_key_of(id);
    cq_buf_t row = {0};
    store_blob_write(&row, blob);
    store_core_put(core, STORE_TABLE_BLOB, &key, (struct cq_view){row.data, row.size});
    cq_buf_free(&row);
}

static void
delete_blob(struct store_core *core, const struct cq_id *id)
{
    struct store_key key = store_key_of(id);
    store_core_put(core, STORE_TABLE_BLOB, &key, (struct cq_view){0});
}

static int
get_use(struct store_core *core, const struct cq_id *user, struct store_blob_use *use)
{
    struct store_key key = store_key_of(user);
    struct cq_view row;
    *use = (struct store_blob_use){0};
    int rc = store_core_row(core, STORE_TABLE_BLOB_USE, &key, &row);
    return rc == -CQ_E_NOT_FOUND ? 0 : rc ? rc : store_blob_read_use(row, use);
}

static void
put_use(struct store_core *core, const struct cq_id *user, const struct store_blob_use *use)
{
    struct store_key key = store_key_of(user);
    cq_buf_t row = {0};
    if (use->count) {
        store_blob_write_use(&row, use);
    }
    store_core_put(core, STORE_TABLE_BLOB_USE, &key, (struct cq_view){row.data, row.size});
    cq_buf_free(&row);
}

/* Its row goes, and its share of the quota. */
static int
forget_blob(struct store_core *core, const struct cq_id *id, const struct store_blob *blob)
{
    struct store_blob_use use;
    int rc = get_use(core, &blob->user, &use);
    if (rc) {
        return rc;
    }
    use.bytes -= use.bytes < blob->length ? use.bytes : blob->length;
    use.count -= use.count > 0;
    put_use(core, &blob->user, &use);
    delete_blob(core, id);
    return 0;
}

static void
finish(struct store_core *core, const struct cq_bus_from *from, int rc)
{
    if (rc) {
        store_core_reply_err(core, from, rc, 0);
    } else {
        store_core_reply(core, from, &cq_empty_schema, "");
    }
}

/* ---- uploads ---- */

static int
reserve(struct store_core *core, const struct cq_blob_reserve *m)
{
    struct store_blob blob;
    struct store_blob_use use;
    int rc = get_blob(core, &m->id, &blob);
    if (!rc) { /* asked again */
        bool is_same = cq_id_eq(&blob.user, &m->user) && blob.length == m->length;
        return is_same && blob.state == STORE_BLOB_UPLOADING ? 0 : -CQ_E_BAD_STATE;
    }
    rc = rc == -CQ_E_NOT_FOUND ? store_core_writable(core) : rc;
    rc = rc ? rc : get_use(core, &m->user, &use);
    if (rc) {
        return rc;
    }
    bool is_over = m->length > core->cfg->blob_quota_bytes ||
                   use.bytes > core->cfg->blob_quota_bytes - m->length ||
                   use.count >= core->cfg->blob_quota_count;
    if (is_over) {
        counters.quota++;
        return -CQ_E_QUOTA;
    }
    blob = (struct store_blob){.state = STORE_BLOB_UPLOADING,
                               .user = m->user,
                               .length = m->length,
                               .since_unix_ms = cq_now_unix_ms(),
                               .expires_unix_ms = m->expires_unix_ms};
    use.bytes += m->length;
    use.count++;
    put_blob(core, &m->id, &blob);
    put_use(core, &m->user, &use);
    return 0;
}

void
store_on_blob_reserve(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_blob_reserve m;
    int rc = cq_schema_read(&cq_blob_reserve_schema, fields, count, &m);
    finish(core, from, rc ? rc : reserve(core, &m));
}

static int
note_whole(struct store_core *core, const struct cq_blob_whole *m)
{
    struct store_blob blob;
    int rc = get_blob(core, &m->id, &blob);
    if (rc) {
        return rc;
    }
    if (!cq_id_eq(&blob.user, &m->user) || blob.length != m->length ||
        blob.state == STORE_BLOB_DEAD) {
        return -CQ_E_NOT_FOUND;
    }
    if (blob.state == STORE_BLOB_WHOLE) {
        return memcmp(blob.hash, m->hash.p, sizeof blob.hash) ? -CQ_E_BAD_STATE : 0;
    }
    rc = store_core_writable(core);
    if (rc) {
        return rc;
    }
    blob.state = STORE_BLOB_WHOLE;
    blob.since_unix_ms = cq_now_unix_ms();
    memcpy(blob.hash, m->hash.p, sizeof blob.hash);
    put_blob(core, &m->id, &blob);
    return 0;
}

void
store_on_blob_whole(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_blob_whole m;
    int rc = cq_schema_read(&cq_blob_whole_schema, fields, count, &m);
    finish(core, from, rc ? rc : note_whole(core, &m));
}

static int
release(struct store_core *core, const struct cq_blob_ref *m)
{
    struct store_blob blob;
    int rc = get_blob(core, &m->id, &blob);
    if (rc) {
        return rc;
    }
    if (!cq_id_eq(&blob.user, &m->user) || blob.state != STORE_BLOB_UPLOADING) {
        return -CQ_E_BAD_STATE;
    }
    rc = store_core_writable(core);
    return rc ? rc : forget_blob(core, &m->id, &blob);
}

void
store_on_blob_release(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_blob_ref m;
    int rc = cq_schema_read(&cq_blob_ref_schema, fields, count, &m);
    finish(core, from, rc ? rc : release(core, &m));
}

void
store_on_blob_known(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_blob_ids m;
    cq_buf_t unknown = {0}, unfinished = {0};
    size_t unknown_count = 0, unfinished_count = 0;
    int rc = cq_schema_read(&cq_blob_ids_schema, fields, count, &m);
    cq_reader_t r = cq_list_reader(&m.ids);
    for (size_t i = 0; !rc && i < m.ids.count; i++) {
        struct store_blob blob;
        struct cq_id id = cq_read_id(&r);
        rc = r.err ? r.err : get_blob(core, &id, &blob);
        if (rc == -CQ_E_NOT_FOUND) {
            cq_pack_id(&unknown, &id);
            unknown_count++;
            rc = 0;
        } else if (!rc && blob.state == STORE_BLOB_UPLOADING) {
            cq_pack_id(&unfinished, &id);
            unfinished_count++;
        }
    }
    if (rc) {
        store_core_reply_err(core, from, rc, 0);
    } else {
        const struct cq_blob_unknown answer = {cq_list_of(&unknown, unknown_count),
                                               cq_list_of(&unfinished, unfinished_count)};
        store_core_reply(core, from, &cq_blob_unknown_schema, &answer);
    }
    cq_buf_free(&unknown);
    cq_buf_free(&unfinished);
}

/* ---- who may read ---- */

static int
check_reader(struct store_core *core,
             const struct cq_id *user,
             const struct cq_id *id,
             struct store_blob *blob)
{
    int rc = get_blob(core, id, blob);
    if (rc) {
        return rc;
    }
    if (blob->state != STORE_BLOB_WHOLE) {
        return -CQ_E_NOT_FOUND;
    }
    if (cq_id_eq(&blob->user, user)) {
        return 0;
    }
    struct store_key key = store_key_pair(id, user);
    struct cq_view row;
    return store_core_row(core, STORE_TABLE_BLOB_READER, &key, &row);
}

void
store_on_blob_access(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_blob_ref m;
    struct store_blob blob;
    int rc = cq_schema_read(&cq_blob_ref_schema, fields, count, &m);
    rc = rc ? rc : check_reader(core, &m.user, &m.id, &blob);
    if (rc) {
        store_core_reply_err(core, from, rc, 0);
        return;
    }
    const struct cq_blob_meta meta = {blob.length, {blob.hash, sizeof blob.hash}};
    store_core_reply(core, from, &cq_blob_meta_schema, &meta);
}

int
store_blob_may_refer(struct store_core *core,
                     const struct cq_id *user,
                     const struct cq_id *id,
                     uint64_t length)
{
    struct store_blob blob;
    int rc = check_reader(core, user, id, &blob);
    if (rc == -CQ_E_NOT_FOUND || (!rc && blob.length != length)) {
        return -CQ_E_NO_BLOB;
    }
    return rc;
}

int
store_blob_refer(struct store_core *core, const struct store_chat *chat, const struct cq_id *id)
{
    static const uint8_t yes[] = {0xc3};
    struct store_blob blob;
    int rc = get_blob(core, id, &blob);
    if (rc) {
        return rc;
    }
    blob.references++;
    put_blob(core, id, &blob);
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        struct store_key key = store_key_pair(id, &chat->members[i].user);
        store_core_put(core, STORE_TABLE_BLOB_READER, &key, (struct cq_view){yes, sizeof yes});
    }
    return 0;
}

/* ---- collecting ---- */

/* Has its time come? */
static bool
is_due(const struct store_core *core, const struct store_blob *blob)
{
    uint64_t now = cq_now_unix_ms();
    uint64_t grace_ms = core->cfg->blob_grace_s * 1000;
    switch (blob->state) {
    case STORE_BLOB_UPLOADING:
        return blob->expires_unix_ms < now;
    case STORE_BLOB_WHOLE:
        return !blob->references && blob->since_unix_ms + grace_ms <= now;
    default:
        return blob->state == STORE_BLOB_DEAD;
    }
}

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_core *core = ctx;
    struct store_blobs *b = core->blobs;
    struct store_blob blob;
    bool is_id = key.n == 2 + CQ_ID_SIZE;
    b->at.n = 0;
    store_key_add(&b->at, key.p, key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX - 1);
    if (is_id && store_blob_read(value, &blob) == 0 && is_due(core, &blob)) {
        memcpy(b->found[b->found_count++].b, key.p + 2, CQ_ID_SIZE);
    }
    return ++b->row_count < SWEEP_ROWS;
}

/* The next rows of the table, from disk: what is under way is looked at again next time. */
static int
find_some(struct store_core *core)
{
    struct store_blobs *b = core->blobs;
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(core, &s);
    if (rc) {
        return rc;
    }
    if (b->at.n) {
        b->at.b[b->at.n++] = 0; /* behind it */
    }
    b->row_count = b->found_count = 0;
    struct store_key from = b->at;
    rc = store_snapshot_scan(s, STORE_TABLE_BLOB, (struct cq_view){0},
                             from.n ? store_key_view(&from) : (struct cq_view){0}, on_row, core);
    if (b->row_count < SWEEP_ROWS) {
        b->at.n = 0; /* through */
        b->rest_until_mono_ms = cq_now_mono_ms() + core->cfg->blob_sweep_s * 1000;
    }
    return rc;
}

static void
on_collected(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    (void)fields;
    (void)count;
    struct store_core *core = ctx;
    struct store_blobs *b = core->blobs;
    for (size_t i = 0; !err && i < b->dying_count; i++) {
        struct store_blob blob;
        int rc = get_blob(core, &b->dying[i], &blob);
        if (!rc && blob.state == STORE_BLOB_DEAD && !forget_blob(core, &b->dying[i], &blob)) {
            counters.collected++;
        }
    }
    b->dying_count = 0;
    b->is_asking = false;
}

/* The rows say DEAD durably: blobd may remove the files. */
static void
on_dead(void *ctx, void *arg, int rc)
{
    (void)arg;
    struct store_core *core = ctx;
    struct store_blobs *b = core->blobs;
    cq_buf_t list = {0};
    for (size_t i = 0; i < b->dying_count; i++) {
        cq_pack_id(&list, &b->dying[i]);
    }
    const struct cq_blob_ids m = {cq_list_of(&list, b->dying_count)};
    const struct cq_bus_wait wait = {COLLECT_DEADLINE_MS, on_collected, core};
    rc = rc || core->stopping ? -CQ_E_UNAVAILABLE
                              : cq_bus_request(core->bus, "blobd", CQ_BUS_BLOB_COLLECT,
                                               &cq_blob_ids_schema, &m, &wait);
    if (rc) {
        b->dying_count = 0;
        b->is_asking = false;
    }
    cq_buf_free(&list);
}

static void
bury(struct store_core *core, const struct cq_id *id)
{
    struct store_blobs *b = core->blobs;
    struct store_blob blob;
    /* Seen on disk; what is under way may have completed the upload or referred to the blob. */
    if (get_blob(core, id, &blob) || !is_due(core, &blob)) {
        return;
    }
    if (blob.state == STORE_BLOB_UPLOADING) {
        counters.expired += !forget_blob(core, id, &blob);
    } else if (b->dying_count < COLLECT_MAX) {
        if (blob.state != STORE_BLOB_DEAD) {
            blob.state = STORE_BLOB_DEAD;
            blob.since_unix_ms = cq_now_unix_ms();
            put_blob(core, id, &blob);
        }
        b->dying[b->dying_count++] = *id;
    }
}

static struct store_blobs *
blobs_of(struct store_core *core)
{
    if (!core->blobs) {
        core->blobs = cq_alloc(sizeof *core->blobs);
        cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    }
    return core->blobs;
}

size_t
store_blob_hold(struct store_core *core, bool is_held)
{
    struct store_blobs *b = blobs_of(core);
    b->is_held = is_held;
    return b->is_asking ? b->dying_count : 0;
}

void
store_blob_tick(struct store_core *core)
{
    struct store_blobs *b = blobs_of(core);
    if (b->is_asking || b->is_held || cq_now_mono_ms() < b->rest_until_mono_ms ||
        store_core_writable(core) || find_some(core)) {
        return;
    }
    for (size_t i = 0; i < b->found_count; i++) {
        bury(core, &b->found[i]);
    }
    if (b->dying_count) {
        CQ_LOG(INFO, "STORE-BLOB-COLLECT", "blobs=%zu", b->dying_count);
        b->is_asking = true;
        store_core_after(core, on_dead, NULL);
    }
}

void
store_blob_free(struct store_core *core)
{
    free(core->blobs);
    core->blobs = NULL;
}
