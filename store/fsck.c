/* SPDX-License-Identifier: MPL-2.0
 * The run: short snapshots, progress, the values of the store itself, and the order of the steps.
 */
#include "store/fsck.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"
#include "common/rt/rundelay.h"

#include "store/fsck_impl.h"

enum {
    PROGRESS_MS = 200,
    CLOCK_EVERY = 256, /* steps */
    PEOPLE_PERMILLE = 100,
    STATE_MIN_BYTES = 4096,
    GENTLE_NICE = 19,
    RECORDS_PER_MS = 200, /* that the store appends while it is at work, about */
    NS_PER_MS = 1000000,
    MS_PER_S = 1000,
};

/* ---- snapshots ---- */

static bool
on_last(void *ctx, uint64_t pos, struct cq_view record)
{
    struct store_fsck *f = ctx;
    (void)record;
    f->last_pos = pos;
    return true;
}

/* False if there is none, or it cannot be: no row is measured by it then. */
static bool
read_complete(struct store_fsck *f)
{
    struct store_key key = store_key_text("complete");
    struct cq_view row;
    return store_fsck_row(f, STORE_TABLE_META, &key, &row) &&
           !store_complete_read(row, f->last_pos, &f->complete);
}

/* A META row that is a number; false if it is absent or something else. */
static bool
meta_number(struct store_fsck *f, const char *name, uint64_t *value)
{
    struct store_key key = store_key_text(name);
    struct cq_view row;
    if (!store_fsck_row(f, STORE_TABLE_META, &key, &row)) {
        return false;
    }
    cq_reader_t r = cq_reader_of(row);
    *value = cq_read_uint(&r, UINT64_MAX);
    return !r.err && cq_reader_at_end(&r);
}

static void
tell_progress(struct store_fsck *f)
{
    uint64_t now = cq_now_mono_ms();
    if (!f->cfg->on_progress || now - f->last_progress_mono_ms < PROGRESS_MS) {
        return;
    }
    f->last_progress_mono_ms = now;
    const struct store_fsck_report *r = f->report;
    double share = (double)f->done_ordinal / (double)UINT64_MAX;
    if (f->last_pos && r->passes) {
        uint64_t at = f->replay_pos < f->last_pos ? f->replay_pos : f->last_pos;
        share += (double)f->group_width / (double)UINT64_MAX * (double)at / (double)f->last_pos;
    }
    share = share > 1 ? 1 : share;
    struct store_fsck_progress p = {
        .permille = r->passes ? PEOPLE_PERMILLE + (unsigned)(share * (1000 - PEOPLE_PERMILLE)) : 0,
        .pass = r->passes,
        .records = r->records,
        .rows = r->rows,
        .found = r->found,
        .last_pos = f->last_pos,
    };
    f->cfg->on_progress(f->cfg->ctx, &p);
}

/* A low priority alone does not give way enough: whoever waits for the disk leaves the processor to
 * fsck, and finds caches, memory and the other half of his processor busy when he comes back. So
 * it rests as long as others were at work meanwhile: the time in which it had to wait for a
 * processor itself, and what the records took that were appended. Beside nobody it never does. */
static uint64_t
pause_ms(struct store_fsck *f)
{
    uint64_t worked_ms = cq_now_mono_ms() - f->opened_mono_ms;
    uint64_t before_pos = f->seen_pos, before_ns = f->delay_ns;
    f->seen_pos = store_engine_last_pos(f->cfg->engine);
    uint64_t ms = (f->seen_pos - before_pos) / RECORDS_PER_MS;
    if (f->run_delay >= 0 && !cq_run_delay_ns(f->run_delay, &f->delay_ns)) {
        ms += (f->delay_ns - before_ns) / NS_PER_MS;
    }
    return ms < worked_ms ? ms : worked_ms;
}

static void
pause_between(struct store_fsck *f)
{
    if (!f->cfg->is_gentle || !f->opened_mono_ms) {
        return;
    }
    uint64_t ms = pause_ms(f);
    const struct timespec pause = {.tv_sec = (time_t)(ms / MS_PER_S),
                                   .tv_nsec = (long)(ms % MS_PER_S * NS_PER_MS)};
    (void)nanosleep(&pause, NULL);
}

int
store_fsck_fresh(struct store_fsck *f)
{
    store_snapshot_close(&f->snapshot);
    tell_progress(f);
    pause_between(f);
    if ((f->cfg->is_cancelled && f->cfg->is_cancelled(f->cfg->ctx)) ||
        store_engine_fence(f->cfg->engine) != f->fence) {
        return -CQ_E_UNAVAILABLE;
    }
    int rc = store_snapshot_open(f->cfg->engine, &f->snapshot);
    if (rc) {
        return rc;
    }
    f->opened_mono_ms = cq_now_mono_ms();
    f->countdown = CLOCK_EVERY;
    /* A commit is in the log before the engine's own number says so. */
    rc = store_snapshot_log(f->snapshot, f->last_pos + 1, on_last, f);
    f->rc = 0;
    /* A marker that cannot be is a finding of its own; no row is measured by it. */
    uint64_t marker = 0;
    bool is_sane = meta_number(f, "marker", &marker) && marker <= f->last_pos;
    f->marker = is_sane ? marker : 0;
    if (!read_complete(f)) {
        store_complete_init(&f->complete, f->marker);
    }
    store_complete_raise(&f->complete, f->marker);
    return rc ? rc : f->rc;
}

int
store_fsck_snapshot(struct store_fsck *f)
{
    bool is_old = cq_now_mono_ms() - f->opened_mono_ms >= f->cfg->snapshot_ms_max;
    return f->snapshot && !is_old ? 0 : store_fsck_fresh(f);
}

bool
store_fsck_is_due(struct store_fsck *f)
{
    if (--f->countdown) {
        return false;
    }
    f->countdown = CLOCK_EVERY;
    return cq_now_mono_ms() - f->opened_mono_ms >= f->cfg->snapshot_ms_max;
}

bool
store_fsck_row(struct store_fsck *f,
               enum store_table t,
               const struct store_key *key,
               struct cq_view *value)
{
    int rc = store_snapshot_row(f->snapshot, t, store_key_view(key), value);
    if (rc && rc != -CQ_E_NOT_FOUND) {
        f->rc = rc;
    }
    return rc == 0;
}

struct walk {
    struct store_fsck *f;
    store_fsck_row_fn *fn;
    void *ctx;
    struct store_key next; /* where the next snapshot goes on */
    bool is_resumed, is_stopped;
};

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct walk *w = ctx;
    if (store_fsck_is_due(w->f)) {
        /* LMDB's own keys are bounded by more than ours; a longer one was reported or is going to
         * be. */
        w->next.n = 0;
        store_key_add(&w->next, key.p, key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX);
        w->is_resumed = true;
        return false;
    }
    w->f->report->rows++;
    w->is_stopped = !w->fn(w->ctx, key, value) || w->f->rc;
    return !w->is_stopped;
}

int
store_fsck_walk(struct store_fsck *f,
                enum store_table t,
                struct cq_view from,
                store_fsck_row_fn *fn,
                void *ctx)
{
    struct walk w = {.f = f, .fn = fn, .ctx = ctx};
    if (from.n) {
        store_key_add(&w.next, from.p, from.n);
    }
    int rc = 0;
    do {
        w.is_resumed = false;
        rc = store_fsck_snapshot(f);
        if (!rc) {
            rc = store_snapshot_scan(f->snapshot, t, (struct cq_view){0}, store_key_view(&w.next),
                                     on_row, &w);
        }
        rc = rc ? rc : f->rc;
    } while (!rc && w.is_resumed && !w.is_stopped);
    return rc;
}

/* ---- META ---- */

static void
check_number(struct store_fsck *f, const char *name, uint64_t max, bool must_exist)
{
    struct store_key key = store_key_text(name);
    struct cq_view row;
    uint64_t value = 0;
    if (!store_fsck_row(f, STORE_TABLE_META, &key, &row)) {
        if (must_exist) {
            store_fsck_find_row(f, STORE_FSCK_META, STORE_TABLE_META, store_key_view(&key),
                                "missing", "a number");
        }
    } else if (!meta_number(f, name, &value)) {
        store_fsck_find_row(f, STORE_FSCK_META, STORE_TABLE_META, store_key_view(&key),
                            "not a number", "a number");
    } else if (value > max) {
        store_fsck_find_row(f, STORE_FSCK_META, STORE_TABLE_META, store_key_view(&key),
                            store_fsck_find_number("value", value).s,
                            store_fsck_find_number("at most", max).s);
    }
}

static void
check_bytes(struct store_fsck *f, const char *name, size_t min, size_t max)
{
    struct store_key key = store_key_text(name);
    struct cq_view row = {0};
    bool exists = store_fsck_row(f, STORE_TABLE_META, &key, &row);
    if (!exists || row.n < min || row.n > max) {
        store_fsck_find_row(f, STORE_FSCK_META, STORE_TABLE_META, store_key_view(&key),
                            exists ? store_fsck_find_number("bytes", row.n).s : "missing",
                            store_fsck_find_number("bytes", min).s);
    }
}

static void
check_complete(struct store_fsck *f)
{
    struct store_key key = store_key_text("complete");
    struct cq_view row;
    if (store_fsck_row(f, STORE_TABLE_META, &key, &row) && !read_complete(f)) {
        store_fsck_find_row(f, STORE_FSCK_META, STORE_TABLE_META, store_key_view(&key),
                            "does not decode", "positions of the log");
    }
}

static int
check_meta(struct store_fsck *f)
{
    int rc = store_fsck_fresh(f);
    if (rc) {
        return rc;
    }
    check_number(f, STORE_META_SCHEMA, STORE_SCHEMA_VERSION, true);
    check_number(f, STORE_META_FENCE, store_engine_fence(f->cfg->engine), true);
    check_number(f, "marker", f->last_pos, false);
    check_complete(f);
    check_number(f, "routed", f->last_pos, false);
    check_bytes(f, "epoch", CQ_ID_SIZE, CQ_ID_SIZE);
    check_bytes(f, "vault", 1, STORE_VAULT_ROW_MAX);
    return f->rc;
}

/* ---- the order ---- */

/* One group of chats from `first` on. *last: where it ends; it is made smaller as long as its chats
 * turn out to need more memory than their rows let expect, and then begun anew, its findings too.
 */
static int
check_group(struct store_fsck *f, uint64_t first, uint64_t *last)
{
    const struct store_fsck_report before = *f->report;
    struct store_fsck_group g;
    bool is_again = false;
    int rc = 0;
    *last = UINT64_MAX;
    do {
        store_fsck_group_init(&g, first, f->cfg->state_bytes_max);
        g.last = *last;
        f->done_ordinal = first;
        f->replay_pos = 0;
        f->report->passes++;
        rc = store_fsck_scan_rows(f, &g);
        if (!rc && !g.is_cut) {
            rc = store_fsck_log_replay(f, &g);
        }
        *last = g.last;
        is_again = !rc && g.is_cut;
        store_fsck_group_fini(&g);
        if (is_again) {
            store_fsck_find_restore(f, &before);
        }
    } while (is_again);
    return rc;
}

static int
check_chats(struct store_fsck *f)
{
    uint64_t last = 0;
    int rc = 0;
    for (uint64_t first = 0; !rc; first = last + 1) {
        rc = check_group(f, first, &last);
        if (last == UINT64_MAX) {
            break;
        }
    }
    return rc;
}

static int
check_all(struct store_fsck *f)
{
    int rc = check_meta(f);
    if (!rc) {
        rc = store_fsck_people_check(f);
    }
    if (!rc) {
        rc = check_chats(f);
    }
    if (!rc) {
        rc = store_fsck_detail_check(f);
    }
    if (!rc) {
        rc = store_fsck_blobs_check(f);
    }
    return rc;
}

int
store_fsck_run(const struct store_fsck_cfg *cfg_given, struct store_fsck_report *report)
{
    struct store_fsck_cfg cfg = *cfg_given;
    cfg.state_bytes_max = cfg.state_bytes_max ? cfg.state_bytes_max : STORE_FSCK_STATE_PRESET_BYTES;
    cfg.state_bytes_max =
        cfg.state_bytes_max > STATE_MIN_BYTES ? cfg.state_bytes_max : STATE_MIN_BYTES;
    cfg.findings_max = cfg.findings_max ? cfg.findings_max : STORE_FSCK_FINDINGS_PRESET;
    cfg.snapshot_ms_max = cfg.snapshot_ms_max ? cfg.snapshot_ms_max : STORE_FSCK_SNAPSHOT_PRESET_MS;
    *report = (struct store_fsck_report){.findings_max = cfg.findings_max};
    struct store_fsck f = {
        .cfg = &cfg, .report = report, .fence = store_engine_fence(cfg.engine), .countdown = 1};
    f.run_delay = cfg.is_gentle ? cq_run_delay_open() : -1;
    uint64_t start = cq_now_mono_ms();
    if (cfg.is_gentle) {
        /* Of this thread: Linux knows no other processes. A refusal only makes it less gentle. */
        (void)setpriority(PRIO_PROCESS, 0, GENTLE_NICE);
    }
    f.last_pos = f.seen_pos = store_engine_last_pos(cfg.engine);
    int rc = check_all(&f);
    store_snapshot_close(&f.snapshot);
    if (f.run_delay >= 0) {
        (void)close(f.run_delay);
    }
    free(f.bad);
    free(f.wrong);
    report->last_pos = f.last_pos;
    report->took_ms = cq_now_mono_ms() - start;
    (void)malloc_trim(0);
    return rc;
}
