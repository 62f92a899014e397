/* SPDX-License-Identifier: MPL-2.0
 * Life of the store: open (engine, vault, replay, first commit, actors, bus), turns, stop.
 */
#include "store/core.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/blob_link.h"
#include "store/migrate.h"

enum {
    READ_QUEUE_MAX = 1024,
    /* A receipt waits so long for a message to share a commit with. Nobody sees that, and at some
     * hundred messages a second it halves the commits, and the envelopes that follow each. */
    COMPANY_MS = 5,
    SETTLE_US = 2000,
    SETTLE_MAX_US = 10000,
};

/* ---- life ---- */

static void
on_company(void *ctx)
{
    struct store_core *core = ctx;
    core->building->hurries |= core->building->waits;
}

/* Is there something to commit that does not wait for more? */
static bool
is_commit_due(struct store_core *core)
{
    struct store_batch *b = core->building;
    if (store_projection_in_round(core->projection) || core->stopping) {
        return true;
    }
    if (!store_batch_is_empty(b) && !b->hurries && !b->waits && !core->committing) {
        b->waits = true;
        cq_timer_start(core->company, COMPANY_MS, 0);
    }
    return !store_batch_is_empty(b) && b->hurries;
}

static void
on_turn(void *ctx)
{
    struct store_core *core = ctx;
    if (!core->route) {
        return; /* still opening */
    }
    store_route_turn(core->route);
    if (is_commit_due(core)) {
        store_core_commit(core);
    }
    if (!core->committing) {
        store_projection_trim(core->projection);
    }
    store_core_drop_snapshot(core);
    if (core->stopping && !core->committing && store_batch_is_empty(core->building)) {
        cq_loop_stop(core->loop);
    }
}

static void
on_tick(void *ctx)
{
    struct store_core *core = ctx;
    store_route_tick(core->route);
    store_blob_tick(core);
    store_core_check_writes(core);
    if (store_core_writable(core) == 0) {
        store_core_commit(core); /* write-behind when idle */
    }
}

/* Between turns, for about as long as the last one took: whoever wants something meanwhile waits
 * little, and under load it is through before much more has come. */
static void
on_settling(void *ctx)
{
    struct store_core *core = ctx;
    uint64_t now_us = cq_now_mono_us();
    uint64_t turn_us = now_us - core->settled_mono_us;
    turn_us = turn_us < SETTLE_MAX_US ? turn_us : SETTLE_MAX_US;
    int rc = store_replay_settle(core, now_us + (turn_us > SETTLE_US ? turn_us : SETTLE_US));
    core->settled_mono_us = cq_now_mono_us();
    if (rc) {
        store_core_give_up(core, rc);
    } else if (store_projection_is_settled(core->projection)) {
        cq_timer_stop(core->settling);
        CQ_LOG(INFO, "STORE-SETTLED", "chats=%zu", store_projection_count(core->projection));
    }
}

void
store_core_begin_settling(struct store_core *core)
{
    if (core->settling && !store_projection_is_settled(core->projection)) {
        core->settled_mono_us = cq_now_mono_us();
        cq_timer_start(core->settling, 1, 1);
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
        struct cq_store_state state = {core->writes};
        cq_bus_event(core->bus, name, CQ_BUS_STORE_STATE, &cq_store_state_schema, &state);
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
    store_core_drop_snapshot(core);
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
    core->building = store_core_next_batch(core);
    return rc;
}

/* Reader actor. */
static void
on_read(void *ctx, void *arg)
{
    struct store_reading *job = arg;
    job->run(ctx, job);
}

static void
on_read_done(void *ctx, void *arg)
{
    struct store_reading *job = arg;
    job->done(ctx, job, 0);
}

static void
hand_to_reader(void *ctx, void *arg, int rc)
{
    struct store_core *core = ctx;
    struct store_reading *job = arg;
    void *handed = job;
    if (rc || cq_worker_submit(core->reader, &handed)) {
        job->done(core, job, -CQ_E_BUSY);
    }
}

void
store_core_read(struct store_core *core, struct store_reading *job)
{
    store_core_after(core, hand_to_reader, job);
}

static int
start_actors(struct store_core *core)
{
    const struct cq_worker_cfg committer = {.name = "committer",
                                            .thread_count = 1,
                                            .queue_max = 1,
                                            .run = store_core_run_commit,
                                            .done = store_core_on_commit_done,
                                            .ctx = core};
    const struct cq_worker_cfg reader = {.name = "reader",
                                         .thread_count = 1,
                                         .queue_max = READ_QUEUE_MAX,
                                         .run = on_read,
                                         .done = on_read_done,
                                         .ctx = core};
    const struct store_jobs_cfg jobs = {store_job_kinds, store_job_kind_count, core};
    core->committer = cq_worker_new(core->loop, &committer);
    core->reader = cq_worker_new(core->loop, &reader);
    core->jobs = store_jobs_new(core->loop, &jobs);
    return core->committer && core->reader && core->jobs ? 0 : -CQ_E_INTERNAL;
}

static int
open_storage(struct store_core *core)
{
    const struct store_engine_cfg engine = {.dir = core->cfg->data,
                                            .map_bytes = core->cfg->map_bytes,
                                            .reserve_bytes = core->cfg->reserve_bytes};
    const struct store_projection_cfg projection = {
        store_core_row_on_disk, store_core_record_on_disk, core, core->cfg->chat_cache};
    int rc = store_engine_open(&engine, &core->engine);
    if (!rc) {
        rc = store_migrate_run(core->engine);
    }
    if (rc) {
        return rc;
    }
    core->projection = store_projection_new(&projection);
    core->last_pos = core->durable_pos = store_engine_last_pos(core->engine);
    core->building = store_core_next_batch(core);
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
        .cfg = cfg, .loop = cq_loop_new(), .last_round_mono_ms = cq_now_mono_ms(), .writes = true};
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
    core->company = cq_timer_new(core->loop, on_company, core);
    core->settling = cq_timer_new(core->loop, on_settling, core);
    store_core_begin_settling(core);
    store_core_register_metrics();
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
        cq_timer_destroy(&core->company);
        cq_timer_destroy(&core->settling);
    }
    store_jobs_destroy(&core->jobs);
    store_core_drop_snapshot(core); /* a commit under way may have to reopen the database … */
    /* … and what it answers may want the reader. */
    if (core->committer) {
        cq_worker_destroy(&core->committer);
    }
    if (core->reader) {
        cq_worker_destroy(&core->reader);
    }
    if (core->vault) {
        store_vault_close(&core->vault);
    }
    store_core_drop_snapshot(core);
    if (core->bus) {
        cq_bus_destroy(&core->bus);
    }
    store_blob_link_free_all(core);
    if (core->route) {
        store_route_destroy(&core->route);
    }
    store_account_free(core);
    store_device_free(core);
    store_blob_free(core);
    store_batch_destroy(&core->building);
    store_projection_destroy(&core->projection);
    if (core->engine) {
        store_engine_close(&core->engine);
    }
    free(core->edges);
    cq_loop_destroy(&core->loop);
}
