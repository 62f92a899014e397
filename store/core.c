/* SPDX-License-Identifier: MPL-2.0 */
#include "store/core.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

enum {
    BATCH_BYTES_MAX =
        16 * 1024 * 1024, /* beyond: stop reading from the bus until the batch is on its way */
    BATCH_RECORDS_MAX = 16384,
    SLICE_ROWS_MIN = 2048, /* rows of write-behind with each commit, at least … */
    SLICE_ROWS_PER_RECORD =
        6, /* … and so many per new record, so that a round is faster than what fills the next */
    MARKER_LAG_MAX =
        500000, /* records to replay after a crash; beyond, slices grow and appends slow down */
    SLICE_ROWS_LATE = 65536,
    FULL_DISK_PAUSE_MS = 1000,
    HISTORY_QUEUE_MAX = 1024,
};

static struct {
    uint64_t commits, records, rows, failed_commits, no_space, dirty_chats, marker_lag, replies;
} counters;

static const struct cq_metric metrics[] = {
    {"chasqui_store_commits_total", "Group commits made durable", CQ_METRIC_COUNTER,
     &counters.commits},
    {"chasqui_store_records_total", "Log records made durable", CQ_METRIC_COUNTER,
     &counters.records},
    {"chasqui_store_rows_total", "Rows written", CQ_METRIC_COUNTER, &counters.rows},
    {"chasqui_store_failed_commits_total", "Commits with unknown outcome", CQ_METRIC_COUNTER,
     &counters.failed_commits},
    {"chasqui_store_no_space_total", "Commits refused for lack of space", CQ_METRIC_COUNTER,
     &counters.no_space},
    {"chasqui_store_dirty_chats", "Chats whose rows are to be written", CQ_METRIC_GAUGE,
     &counters.dirty_chats},
    {"chasqui_store_marker_lag_records", "Records a restart would replay", CQ_METRIC_GAUGE,
     &counters.marker_lag},
    {"chasqui_store_replies_total", "Answers sent after a commit", CQ_METRIC_COUNTER,
     &counters.replies},
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

static void
drop_snapshot(struct store_core *core)
{
    if (core->snapshot) {
        store_snapshot_close(&core->snapshot);
    }
}

static int
row_on_disk(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value)
{
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(ctx, &s);
    return rc ? rc : store_snapshot_row(s, t, key, value);
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
    return row_on_disk(core, t, k, value);
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
    for (size_t i = 0; b && i < b->row_count && b->cold_count && !s->stopped; i++) {
        const struct store_batch_row *row = &b->rows[i];
        struct cq_view key = {b->bytes.data + row->key.offset, row->key.size};
        struct cq_view value = {b->bytes.data + row->value.offset, row->value.size};
        struct cq_view hidden;
        if (!row->is_cold || row->table != s->table || row->is_delete || key.n < prefix.n ||
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
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(core, &s);
    return rc ? rc : store_snapshot_record(s, pos, record);
}

/* ---- changing ---- */

int
store_core_writable(const struct store_core *core)
{
    return core->refuse_until_mono_ms && cq_now_mono_ms() < core->refuse_until_mono_ms
               ? -CQ_E_NO_SPACE
               : 0;
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
    if (core->building->record_count == 0 && core->commit_time_pos) {
        struct cq_rec_commit commit = {core->commit_time_pos, core->commit_time_unix_ms};
        write_record(core, CQ_REC_COMMIT, &commit);
        core->commit_time_pos = 0;
    }
    if (chat) {
        int rc = store_projection_apply(core->projection, chat, core->last_pos + 1, kind, fields);
        if (rc) {
            return rc;
        }
    }
    write_record(core, kind, fields);
    *pos = core->last_pos;
    if (core->building->record_count >= BATCH_RECORDS_MAX ||
        core->building->bytes.size >= BATCH_BYTES_MAX) {
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
}

/* ---- answering ---- */

struct store_batch *
store_core_pending(struct store_core *core)
{
    return store_batch_is_empty(core->building) ? core->committing : core->building;
}

void
store_core_reply(struct store_core *core,
                 const struct cq_bus_from *to,
                 const struct cq_schema *s,
                 const void *in)
{
    struct store_batch *b = store_core_pending(core);
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
    struct store_batch *b = store_core_pending(core);
    if (b) {
        store_batch_reply(b, to, field_count, raw);
    } else {
        cq_bus_reply_raw(core->bus, to, field_count, raw);
    }
}

void
store_core_after(struct store_core *core, store_batch_fn *fn, void *arg)
{
    struct store_batch *b = store_core_pending(core);
    if (b) {
        store_batch_after(b, fn, arg);
    } else {
        fn(core, arg, 0);
    }
}

/* ---- committing ---- */

static void
put_meta(struct store_batch *b, const char *name, uint64_t value)
{
    struct store_key key = store_key_text(name);
    cq_buf_t v = {0};
    cq_pack_uint(&v, value);
    store_batch_put(b, STORE_TABLE_META, store_key_view(&key), (struct cq_view){v.data, v.size},
                    false);
    cq_buf_free(&v);
}

/* Starts a round of write-behind when the tables are far enough behind, and adds a slice of it. */
static void
add_slice(struct store_core *core)
{
    store_projection_t *p = core->projection;
    uint64_t now = cq_now_mono_ms();
    uint64_t lag = core->last_pos - core->marker;
    bool due = core->stopping || lag >= core->cfg->checkpoint_records ||
               now - core->last_round_mono_ms >= core->cfg->checkpoint_idle_ms;
    if (due && !store_projection_in_round(p) && store_projection_dirty_count(p)) {
        store_projection_round(p, core->last_pos);
        core->last_round_mono_ms = now;
    }
    if (store_projection_in_round(p)) {
        size_t rows = SLICE_ROWS_PER_RECORD * core->building->record_count;
        rows = rows > SLICE_ROWS_MIN ? rows : SLICE_ROWS_MIN;
        store_projection_slice(p, core->building, lag > MARKER_LAG_MAX ? SLICE_ROWS_LATE : rows);
    }
    if (core->building->marker) {
        put_meta(core->building, "marker", core->building->marker);
    }
}

static struct store_batch *
next_batch(struct store_core *core)
{
    return store_batch_new(++core->batch_number, core->last_pos + 1);
}

/* Hands what has queued up to the committer, if it is idle. */
static void
commit_what_is_there(struct store_core *core)
{
    if (core->committing) {
        return;
    }
    add_slice(core);
    if (store_batch_is_empty(core->building)) {
        return;
    }
    put_meta(core->building, "routed", store_route_confirmed_pos(core->route));
    struct store_batch *b = core->building;
    store_batch_seal(b);
    core->committing = b;
    core->building = next_batch(core);
    void *job = b;
    int rc = cq_worker_submit(core->committer, &job);
    CQ_ASSERT(rc == 0); /* one at a time: its queue cannot be full */
    cq_bus_pause(core->bus, false);
}

/* Committer actor. */
static void
run_commit(void *ctx, void *job)
{
    const struct store_core *core = ctx;
    struct store_batch *b = job;
    b->rc = store_engine_commit(core->engine, &b->commit);
}

static void
finish_afters(struct store_core *core, const struct store_batch *b, int rc)
{
    for (size_t i = 0; i < b->after_count; i++) {
        b->afters[i].fn(core, b->afters[i].arg, rc);
    }
}

static void
on_durable(struct store_core *core, struct store_batch *b)
{
    counters.commits++;
    counters.records += b->record_count;
    counters.rows += b->row_count;
    counters.replies += b->reply_count;
    core->durable_pos = b->first_pos + b->record_count - 1;
    if (b->marker) {
        core->marker = b->marker;
    }
    if (b->record_count) {
        core->commit_time_pos = core->durable_pos;
        core->commit_time_unix_ms = cq_now_unix_ms();
    }
    store_projection_committed(core->projection, b);
    for (size_t i = 0; i < b->reply_count; i++) {
        const struct store_batch_reply *r = &b->replies[i];
        struct cq_view raw = {b->bytes.data + r->fields.offset, r->fields.size};
        cq_bus_reply_raw(core->bus, &r->to, r->field_count, raw);
    }
    store_route_committed(core->route, b);
    finish_afters(core, b, 0);
    counters.dirty_chats = store_projection_dirty_count(core->projection);
    counters.marker_lag = core->last_pos - core->marker;
}

/* NO_SPACE: nothing has happened, everybody is told. UNKNOWN_OUTCOME: nobody is told anything; they
 * repeat, and the log then says what has happened. */
static void
refuse(struct store_core *core, struct store_batch **batch, int rc)
{
    struct store_batch *b = *batch;
    for (size_t i = 0; rc == -CQ_E_NO_SPACE && i < b->reply_count; i++) {
        cq_bus_reply_err(core->bus, &b->replies[i].to, rc, 0);
    }
    finish_afters(core, b, rc);
    store_batch_destroy(batch);
}

static void
give_up(struct store_core *core, int rc)
{
    CQ_LOG(ERROR, "STORE-COMMIT-GIVEUP", "err=%s", cq_err_name(rc));
    core->exit_code = 1;
    cq_loop_stop(core->loop);
}

/* Memory is ahead of the disk: forget it and start again from what is on disk, as after a crash. */
static void
start_over(struct store_core *core, struct store_batch *failed)
{
    int rc = failed->rc;
    rc == -CQ_E_NO_SPACE ? counters.no_space++ : counters.failed_commits++;
    CQ_LOG(ERROR, "STORE-COMMIT-FAIL", "err=%s records=%zu", cq_err_name(rc), failed->record_count);
    struct store_batch *building = core->building;
    core->building = NULL;
    store_projection_reset(core->projection);
    core->commit_time_pos = 0;
    core->refuse_until_mono_ms = cq_now_mono_ms() + FULL_DISK_PAUSE_MS;
    int opened = rc == -CQ_E_NO_SPACE ? 0 : store_engine_reopen(core->engine);
    if (!opened) {
        core->last_pos = core->durable_pos = store_engine_last_pos(core->engine);
        opened = store_replay_run(core);
    }
    core->building = next_batch(core);
    refuse(core, &failed, rc);
    refuse(core, &building, rc);
    if (opened) {
        give_up(core, opened);
        return;
    }
    store_route_reset(core->route, core->durable_pos);
    cq_bus_pause(core->bus, false);
}

/* Loop thread. */
static void
on_commit_done(void *ctx, void *job)
{
    struct store_core *core = ctx;
    struct store_batch *b = job;
    drop_snapshot(core);
    core->committing = NULL;
    if (b->rc) {
        start_over(core, b);
        return;
    }
    on_durable(core, b);
    store_batch_destroy(&b);
}

/* ---- life ---- */

static void
on_turn(void *ctx)
{
    struct store_core *core = ctx;
    if (!core->route) {
        return; /* still opening */
    }
    store_route_turn(core->route);
    if (!store_batch_is_empty(core->building) || store_projection_in_round(core->projection) ||
        core->stopping) {
        commit_what_is_there(core);
    }
    drop_snapshot(core);
    if (core->stopping && !core->committing && store_batch_is_empty(core->building)) {
        cq_loop_stop(core->loop);
    }
}

static void
on_tick(void *ctx)
{
    struct store_core *core = ctx;
    store_route_tick(core->route);
    if (store_core_writable(core) == 0) {
        commit_what_is_there(core); /* write-behind when idle */
    }
}

static void
on_signal(void *ctx)
{
    struct store_core *core = ctx;
    CQ_LOG(INFO, "STORE-STOP", "last_pos=%" PRIu64, core->last_pos);
    core->stopping = true;
}

void
store_core_tell_edges(struct store_core *core,
                      uint8_t op,
                      const struct cq_schema *s,
                      const void *in)
{
    for (size_t i = 0; i < core->edge_count; i++) {
        cq_bus_event(core->bus, core->edges[i], op, s, in);
    }
}

static void
note_edge(struct store_core *core, const char *name, bool up)
{
    for (size_t i = 0; i < core->edge_count; i++) {
        if (strcmp(core->edges[i], name) == 0) {
            memmove(core->edges[i], core->edges[--core->edge_count], sizeof *core->edges);
            break;
        }
    }
    if (up) {
        core->edges = realloc(core->edges, (core->edge_count + 1) * sizeof *core->edges);
        CQ_ASSERT(core->edges);
        (void)snprintf(core->edges[core->edge_count++], sizeof *core->edges, "%s", name);
    }
}

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    struct store_core *core = ctx;
    (void)incarnation;
    CQ_LOG(INFO, "STORE-PEER", "name=%s up=%d", name, up);
    if (strcmp(role, "presence") == 0) {
        store_route_peer(core->route, up);
    } else if (strcmp(role, "edge") == 0) {
        note_edge(core, name, up);
    }
}

static void
on_registered(void *ctx)
{
    (void)ctx;
    CQ_LOG(INFO, "STORE-REGISTERED", "ok=1");
}

static int
open_vault(struct store_core *core)
{
    struct store_key key = store_key_text("vault");
    uint8_t row[STORE_VAULT_ROW_MAX];
    size_t row_size = 0;
    struct cq_view stored = {0};
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(core, &s);
    if (!rc) {
        rc = store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &stored);
    }
    if (rc && rc != -CQ_E_NOT_FOUND) {
        return rc;
    }
    struct store_vault_cfg cfg = {
        .master_key_path = core->cfg->master_key,
        .key_command = core->cfg->key_command,
        .data_dir = core->cfg->data,
        .is_new = rc == -CQ_E_NOT_FOUND,
        .row = stored,
        .hash_queue_max = (unsigned)core->cfg->hash_queue,
    };
    rc = store_vault_open(core->loop, &cfg, row, &row_size, &core->vault);
    drop_snapshot(core);
    if (!rc && row_size) {
        store_core_put(core, STORE_TABLE_META, &key, (struct cq_view){row, row_size});
    }
    return rc;
}

/* A new database gets its epoch, and it and the vault's row are durable before anybody is answered.
 */
static int
first_commit(struct store_core *core)
{
    if (cq_id_is_none(&core->epoch)) {
        struct store_key key = store_key_text("epoch");
        core->epoch = cq_random_id();
        store_core_put(core, STORE_TABLE_META, &key, (struct cq_view){core->epoch.b, CQ_ID_SIZE});
    }
    if (store_batch_is_empty(core->building)) {
        return 0;
    }
    store_batch_seal(core->building);
    int rc = store_engine_commit(core->engine, &core->building->commit);
    store_batch_destroy(&core->building);
    core->building = next_batch(core);
    return rc;
}

static int
start_actors(struct store_core *core)
{
    const struct cq_worker_cfg committer = {.name = "committer",
                                            .thread_count = 1,
                                            .queue_max = 1,
                                            .run = run_commit,
                                            .done = on_commit_done,
                                            .ctx = core};
    const struct cq_worker_cfg reader = {.name = "reader",
                                         .thread_count = 1,
                                         .queue_max = HISTORY_QUEUE_MAX,
                                         .run = store_history_run,
                                         .done = store_history_done,
                                         .ctx = core};
    core->committer = cq_worker_new(core->loop, &committer);
    core->reader = cq_worker_new(core->loop, &reader);
    return core->committer && core->reader ? 0 : -CQ_E_INTERNAL;
}

static int
open_storage(struct store_core *core)
{
    const struct store_engine_cfg engine = {core->cfg->data, core->cfg->map_bytes,
                                            core->cfg->reserve_bytes};
    const struct store_projection_cfg projection = {row_on_disk, core, core->cfg->chat_cache};
    int rc = store_engine_open(&engine, &core->engine);
    if (rc) {
        return rc;
    }
    core->projection = store_projection_new(&projection);
    core->last_pos = core->durable_pos = store_engine_last_pos(core->engine);
    core->building = next_batch(core);
    rc = open_vault(core);
    if (!rc) {
        rc = store_replay_run(core);
    }
    if (!rc) {
        rc = first_commit(core);
    }
    return rc ? rc : store_device_load(core);
}

int
store_core_open(struct store_core *core, const struct store_core_cfg *cfg)
{
    *core = (struct store_core){
        .cfg = cfg, .loop = cq_loop_new(), .last_round_mono_ms = cq_now_mono_ms()};
    uint64_t routed = 0;
    cq_loop_on_turn(core->loop, on_turn,
                    core); /* before the bus's hook: what it queues leaves in the same turn */
    cq_loop_on_signal(core->loop, on_signal, core);
    int rc = open_storage(core);
    if (!rc) {
        rc = start_actors(core);
    }
    if (rc) {
        return rc;
    }
    rc = store_replay_routed(core, &routed);
    if (rc) {
        return rc;
    }
    core->route = store_route_new(core, routed);
    const struct cq_bus_cfg bus = {.endpoint = cfg->broker,
                                   .name = cfg->name,
                                   .role = "store",
                                   .rows = store_ops_rows,
                                   .row_count = store_ops_row_count,
                                   .on_peer = on_peer,
                                   .on_registered = on_registered,
                                   .ctx = core};
    core->bus = cq_bus_new(core->loop, &bus);
    core->tick = cq_timer_new(core->loop, on_tick, core);
    cq_timer_start(core->tick, 1000, 1000);
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    return core->bus ? 0 : -CQ_E_CONFIG;
}

void
store_core_run(struct store_core *core)
{
    cq_loop_run(core->loop);
}

void
store_core_close(struct store_core *core)
{
    core->stopping = true;
    if (core->tick) {
        cq_timer_destroy(&core->tick);
    }
    if (core->reader) {
        cq_worker_destroy(&core->reader);
    }
    if (core->committer) {
        cq_worker_destroy(&core->committer);
    }
    if (core->vault) {
        store_vault_close(&core->vault);
    }
    drop_snapshot(core);
    if (core->bus) {
        cq_bus_destroy(&core->bus);
    }
    if (core->route) {
        store_route_destroy(&core->route);
    }
    store_account_free(core);
    store_device_free(core);
    store_sync_free(core);
    store_batch_destroy(&core->building);
    store_projection_destroy(&core->projection);
    if (core->engine) {
        store_engine_close(&core->engine);
    }
    free(core->edges);
    cq_loop_destroy(&core->loop);
}
