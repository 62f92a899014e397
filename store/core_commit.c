/* SPDX-License-Identifier: MPL-2.0
 * The group commit: what has queued up while the last fsync ran is the next one. And what happens
 * when it fails.
 */
#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/wire/pack.h"

#include "store/checkpoint.h"
#include "store/core.h"

enum {
    PAUSE_MS = 1000,
};

static struct {
    uint64_t commits, records, rows, failed_commits, no_space, dirty_chats, marker_lag, replies,
        writable;
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
    {"chasqui_store_marker_lag_records", "Records a restart would read", CQ_METRIC_GAUGE,
     &counters.marker_lag},
    {"chasqui_store_writable", "1: the disk takes writes, as far as is known", CQ_METRIC_GAUGE,
     &counters.writable},
    {"chasqui_store_replies_total", "Answers sent after a commit", CQ_METRIC_COUNTER,
     &counters.replies},
};

static struct cq_histogram queue_times, commit_times, answer_times;

static const struct cq_histogram_row histograms[] = {
    {"chasqui_store_queue_seconds", "per commit: from reading its oldest request to its begin",
     &queue_times},
    {"chasqui_store_commit_seconds", "per commit: writing and fsync", &commit_times},
    {"chasqui_store_answer_seconds",
     "per commit: from the end of its fsync to its answers and routes being queued", &answer_times},
};

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

static void
add_slice(struct store_core *core)
{
    uint64_t now_ms = cq_now_mono_ms();
    bool is_idle = now_ms - core->last_round_mono_ms >= core->cfg->checkpoint_idle_ms;
    const struct store_checkpoint_now now = {
        .interval_records = core->cfg->checkpoint_records,
        .lag_records = core->last_pos - core->marker,
        .is_due = core->stopping || (is_idle && store_projection_is_settled(core->projection)),
        .in_hurry = core->stopping,
    };
    if (store_checkpoint_add(core->projection, core->building, &now)) {
        core->last_round_mono_ms = now_ms;
    }
}

struct store_batch *
store_core_next_batch(struct store_core *core)
{
    return store_batch_new(++core->batch_number, core->last_pos + 1);
}

/* Hands what has queued up to the committer, if it is idle. */
void
store_core_commit(struct store_core *core)
{
    if (core->committing) {
        return;
    }
    /* Who stops writes everything, but not what takes loading first: that the next start does. */
    bool is_loaded = !core->stopping || store_projection_is_settled(core->projection);
    if (store_core_writable(core) == 0 && is_loaded) {
        add_slice(core);
    }
    if (store_batch_is_empty(core->building)) {
        return;
    }
    put_meta(core->building, "routed", store_route_confirmed_pos(core->route));
    struct store_batch *b = core->building;
    store_batch_seal(b);
    core->committing = b;
    core->building = store_core_next_batch(core);
    void *job = b;
    int rc = cq_worker_submit(core->committer, &job);
    CQ_ASSERT(rc == 0); /* one at a time: its queue cannot be full */
    cq_bus_pause(core->bus, false);
}

/* Committer actor. */
void
store_core_run_commit(void *ctx, void *job)
{
    const struct store_core *core = ctx;
    struct store_batch *b = job;
    b->began_mono_us = cq_now_mono_us();
    b->rc = store_engine_commit(core->engine, &b->commit);
    b->ended_mono_us = cq_now_mono_us();
}

static void
finish_afters(struct store_core *core, const struct store_batch *b, int rc)
{
    for (size_t i = 0; i < b->after_count; i++) {
        b->afters[i].fn(core, b->afters[i].arg, rc);
    }
}

static void
answer(struct store_core *core, const struct store_batch *b, const struct store_batch_reply *r)
{
    struct cq_view raw = {b->answers.data + r->fields.offset, r->fields.size};
    if (r->err) {
        cq_bus_reply_err(core->bus, &r->to, r->err, r->detail);
    } else {
        cq_bus_reply_raw(core->bus, &r->to, r->field_count, raw);
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
    core->is_failing = false;
    if (b->marker) {
        core->marker = b->marker;
    }
    if (b->record_count) {
        core->commit_time_first = core->commit_time_last ? core->commit_time_first : b->first_pos;
        core->commit_time_last = core->durable_pos;
        core->commit_time_unix_ms = cq_now_unix_ms();
    }
    store_projection_committed(core->projection, b);
    for (size_t i = 0; i < b->reply_count; i++) {
        answer(core, b, &b->replies[i]);
    }
    store_route_committed(core->route, b);
    finish_afters(core, b, 0);
    counters.dirty_chats = store_projection_dirty_count(core->projection);
    counters.marker_lag = core->last_pos - core->marker;
    if (b->begun_mono_us) {
        cq_histogram_add_span(&queue_times, b->begun_mono_us, b->began_mono_us);
    }
    cq_histogram_add_span(&commit_times, b->began_mono_us, b->ended_mono_us);
    cq_histogram_add_span(&answer_times, b->ended_mono_us, cq_now_mono_us());
}

/* Is it certain that nothing has happened? */
static bool
is_refusal(int rc)
{
    return rc == -CQ_E_NO_SPACE || rc == -CQ_E_IO;
}

/* A refusal: everybody is told. UNKNOWN_OUTCOME: nobody is told anything; they repeat, and the log
 * then says what has happened. */
static void
refuse(struct store_core *core, struct store_batch **batch, int rc)
{
    struct store_batch *b = *batch;
    for (size_t i = 0; is_refusal(rc) && i < b->reply_count; i++) {
        cq_bus_reply_err(core->bus, &b->replies[i].to, core->refuse_err, 0);
    }
    finish_afters(core, b, rc);
    store_batch_destroy(batch);
}

void
store_core_give_up(struct store_core *core, int rc)
{
    CQ_LOG(ERROR, "STORE-GIVEUP", "err=%s", cq_err_name(rc));
    core->exit_code = 1;
    cq_loop_stop(core->loop);
}

/* Nobody is served during a replay, so the next attempt, which may end in another one, leaves at
 * least as much time to those who read. */
static void
pause_writes(struct store_core *core, uint64_t began_mono_ms)
{
    uint64_t now_ms = cq_now_mono_ms();
    uint64_t took_ms = now_ms - began_mono_ms;
    core->refuse_until_mono_ms = now_ms + (took_ms > PAUSE_MS ? took_ms : PAUSE_MS);
}

/* Memory is ahead of the disk: forget it and start again from what is on disk, as after a crash. */
static void
start_over(struct store_core *core, struct store_batch *failed)
{
    int rc = failed->rc;
    uint64_t began_mono_ms = cq_now_mono_ms();
    rc == -CQ_E_NO_SPACE ? counters.no_space++ : counters.failed_commits++;
    CQ_LOG(ERROR, "STORE-COMMIT-FAIL", "err=%s records=%zu", cq_err_name(rc), failed->record_count);
    struct store_batch *building = core->building;
    core->building = NULL;
    store_projection_reset(core->projection);
    core->commit_time_last = 0;
    core->refuse_err = rc == -CQ_E_NO_SPACE ? rc : -CQ_E_UNAVAILABLE;
    core->is_failing = true;
    int opened = is_refusal(rc) ? 0 : store_engine_reopen(core->engine);
    if (!opened) {
        core->last_pos = core->durable_pos = store_engine_last_pos(core->engine);
        opened = store_replay_run(core);
        opened = opened ? opened : store_device_load(core);
    }
    core->is_full = rc == -CQ_E_NO_SPACE && !store_engine_has_room(core->engine);
    pause_writes(core, began_mono_ms);
    core->building = store_core_next_batch(core);
    refuse(core, &failed, rc);
    refuse(core, &building, rc);
    if (opened) {
        store_core_give_up(core, opened);
        return;
    }
    store_core_begin_settling(core);
    store_route_reset(core->route, core->durable_pos);
    cq_bus_pause(core->bus, false);
}

/* Loop thread. */
void
store_core_on_commit_done(void *ctx, void *job)
{
    struct store_core *core = ctx;
    struct store_batch *b = job;
    store_core_drop_snapshot(core);
    core->committing = NULL;
    if (b->rc) {
        start_over(core, b);
        return;
    }
    on_durable(core, b);
    store_batch_destroy(&b);
}

void
store_core_check_writes(struct store_core *core)
{
    core->is_full = !store_engine_has_room(core->engine);
    struct cq_store_state state = {!core->is_failing && !core->is_full};
    counters.writable = state.writes;
    if (state.writes != core->writes) {
        core->writes = state.writes;
        CQ_LOG(WARN, "STORE-WRITES", "taken=%d", state.writes);
        store_core_tell_edges(core, CQ_BUS_STORE_STATE, &cq_store_state_schema, &state);
    }
}

void
store_core_register_metrics(void)
{
    cq_metric_register(metrics, sizeof metrics / sizeof metrics[0]);
    cq_metric_register_histograms(histograms, sizeof histograms / sizeof histograms[0]);
}
