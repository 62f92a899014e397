/* SPDX-License-Identifier: MPL-2.0
 * Start after a stop, a crash or a failed commit: the rows on disk are complete up to the marker;
 * the log behind it is read once, to know whose records these are, and the store serves. A chat's
 * records are applied when it is first asked for, all others' by and by. Rows carry the position
 * they were last changed by, so what is in them already is skipped. When there is much to apply
 * (after a migration all of it), rows are written in between, so that memory stays bounded.
 */
#include <inttypes.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/checkpoint.h"
#include "store/core.h"
#include "store/readahead.h"
#include "store/record.h"

/* A META row, as the turn's snapshot has it. 0, NOT_FOUND, other. */
static int
meta_row(struct store_core *core, const char *name, struct cq_view *row)
{
    struct store_key key = store_key_text(name);
    return store_core_row_on_disk(core, STORE_TABLE_META, store_key_view(&key), row);
}

/* 0 if absent. */
static int
meta_uint(struct store_core *core, const char *name, uint64_t *value)
{
    struct cq_view row = {0};
    int rc = meta_row(core, name, &row);
    *value = 0;
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    cq_reader_t r = cq_reader_of(row);
    *value = cq_read_uint(&r, UINT64_MAX);
    return r.err ? -CQ_E_CORRUPT : 0;
}

/* Absent before the first sweep, and in databases of before: as complete as the marker says. */
static int
load_complete(struct store_core *core, struct store_complete *complete)
{
    struct cq_view row = {0};
    int rc = meta_row(core, "complete", &row);
    store_complete_init(complete, core->marker);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    if (store_complete_read(row, core->last_pos, complete)) {
        CQ_LOG(WARN, "STORE-COMPLETE-BAD", "advice=%s", "\"check the database: --fsck\"");
        store_complete_init(complete, core->marker);
    }
    return 0;
}

static int
load_epoch(struct store_core *core)
{
    struct cq_view row = {0};
    int rc = meta_row(core, "epoch", &row);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    if (row.n != CQ_ID_SIZE) {
        return -CQ_E_CORRUPT;
    }
    memcpy(core->epoch.b, row.p, CQ_ID_SIZE);
    return 0;
}

int
store_replay_routed(struct store_core *core, uint64_t *pos)
{
    int rc = meta_uint(core, "routed", pos);
    return rc ? rc : *pos > core->durable_pos ? -CQ_E_CORRUPT : 0;
}

enum {
    PART_INTERVALS =
        2, /* rows are written after so many checkpoint intervals: a crash leaves less */
    PART_MIN = 200000,
    SETTLE_CHATS = 8, /* between two looks at the clock */
};

struct replay {
    struct store_core *core;
    struct store_complete complete;
    uint64_t count;
    uint64_t next_pos;
    uint64_t part_records; /* rows are written after so many */
    uint64_t part_end;
    int rc;
};

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct replay *replay = ctx;
    union store_record fields;
    enum cq_rec_kind kind;
    replay->rc = store_record_read(record, &kind, &fields);
    if (replay->rc) {
        CQ_LOG(ERROR, "STORE-REPLAY-READ", "pos=%" PRIu64 " err=%s", pos, cq_err_name(replay->rc));
        return false;
    }
    struct cq_id chat = store_record_chat(kind, &fields);
    if (!cq_id_is_none(&chat) && pos > store_complete_of(&replay->complete, &chat)) {
        store_projection_owe(replay->core->projection, &chat, pos);
    }
    replay->count++;
    replay->next_pos = pos + 1;
    return pos < replay->part_end;
}

/* Writes the rows of everything applied so far. */
static int
write_rows(struct store_core *core, uint64_t applied_pos)
{
    int rc = 0;
    store_core_drop_snapshot(core);
    while (!rc && store_projection_dirty_count(core->projection)) {
        struct store_batch *b = store_batch_new(++core->batch_number, applied_pos + 1);
        const struct store_checkpoint_now now = {
            .interval_records = core->cfg->checkpoint_records, .is_due = true, .in_hurry = true};
        (void)store_checkpoint_add(core->projection, b, &now);
        store_batch_seal(b);
        store_core_drop_snapshot(core); /* the engine may have to open its database again */
        rc = store_engine_commit(core->engine, &b->commit);
        if (!rc) {
            core->marker = b->marker ? b->marker : core->marker;
            store_core_drop_snapshot(core);
            store_projection_committed(core->projection, b);
        }
        store_batch_destroy(&b);
    }
    return rc;
}

int
store_replay_settle(struct store_core *core, uint64_t until_mono_us)
{
    int rc = 0;
    do {
        rc = store_projection_settle(core->projection, SETTLE_CHATS);
    } while (!rc && !store_projection_is_settled(core->projection) &&
             cq_now_mono_us() < until_mono_us);
    store_core_drop_snapshot(core);
    return rc;
}

/* Reads up to the end of the part, or of the log: whose records they are. */
static int
read_part(struct replay *replay)
{
    store_snapshot_t *s = NULL;
    uint64_t first = replay->next_pos;
    replay->part_end = first + replay->part_records;
    int rc = store_core_snapshot(replay->core, &s);
    if (!rc) {
        uint64_t last = replay->core->last_pos;
        store_readahead_t *ahead = store_readahead_start(
            replay->core->engine, first, replay->part_end < last ? replay->part_end : last);
        rc = store_snapshot_log(s, first, on_record, replay);
        store_readahead_stop(&ahead);
    }
    if (rc || replay->rc) {
        return rc ? rc : replay->rc;
    }
    return replay->next_pos > first ? 0 : -CQ_E_CORRUPT;
}

/* Another one follows: this one's rows. If they cannot be written, reading must go on: all of the
 * log in memory, then. */
static int
finish_part(struct replay *replay)
{
    struct store_core *core = replay->core;
    int rc = store_replay_settle(core, UINT64_MAX);
    if (rc) {
        return rc;
    }
    rc = write_rows(core, replay->next_pos - 1);
    store_projection_reset(core->projection); /* a chat is owed something before it is loaded */
    if (rc == -CQ_E_NO_SPACE || rc == -CQ_E_IO) {
        replay->part_records = core->last_pos;
        replay->next_pos = core->marker + 1;
        replay->count = 0;
        rc = 0;
    }
    return rc;
}

/* The log in parts, rows written in between. What the last part holds is applied when it is asked
 * for, or by and by (core.c). */
static int
read_log(struct replay *replay)
{
    struct store_core *core = replay->core;
    int rc = 0;
    replay->next_pos = core->marker + 1;
    while (!rc && replay->next_pos <= core->last_pos) {
        rc = read_part(replay);
        if (!rc && replay->next_pos <= core->last_pos) {
            rc = finish_part(replay);
        }
    }
    store_projection_resume(core->projection);
    store_core_drop_snapshot(core);
    return rc;
}

int
store_replay_run(struct store_core *core)
{
    struct replay replay = {.core = core,
                            .part_records = PART_INTERVALS * core->cfg->checkpoint_records};
    uint64_t start = cq_now_mono_us();
    int rc = load_epoch(core);
    if (!rc) {
        rc = meta_uint(core, "marker", &core->marker);
    }
    if (!rc) {
        rc = load_complete(core, &replay.complete);
    }
    uint64_t least = core->cfg->replay_records_min ? core->cfg->replay_records_min : PART_MIN;
    if (replay.part_records < least) {
        replay.part_records = least;
    }
    if (!rc) {
        rc = read_log(&replay);
    }
    CQ_LOG(INFO, "STORE-REPLAY",
           "marker=%" PRIu64 " records=%" PRIu64 " last_pos=%" PRIu64 " us=%" PRIu64 " err=%s",
           core->marker, replay.count, core->last_pos, cq_now_mono_us() - start, cq_err_name(rc));
    return rc;
}
