/* SPDX-License-Identifier: MPL-2.0
 * Start after a stop, a crash or a failed commit: the rows on disk are complete up to the marker;
 * the log behind it is applied again in memory. Rows carry the position they were last changed by,
 * so what is in them already is skipped. When there is much to apply (after a migration all of it),
 * rows are written in between, so that memory stays bounded.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/checkpoint.h"
#include "store/core.h"
#include "store/heap.h"
#include "store/record.h"

/* META row of a number; 0 if absent. */
static int
meta_uint(struct store_core *core, const char *name, uint64_t *value)
{
    struct store_key key = store_key_text(name);
    struct cq_view row = {0};
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(core, &s);
    if (!rc) {
        rc = store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &row);
    }
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

static int
load_epoch(struct store_core *core)
{
    struct store_key key = store_key_text("epoch");
    struct cq_view row = {0};
    store_snapshot_t *s = NULL;
    int rc = store_core_snapshot(core, &s);
    if (!rc) {
        rc = store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &row);
    }
    if (rc == -CQ_E_NOT_FOUND) {
        return 0;
    }
    if (!rc && row.n != CQ_ID_SIZE) {
        return -CQ_E_CORRUPT;
    }
    if (!rc) {
        memcpy(core->epoch.b, row.p, CQ_ID_SIZE);
    }
    return rc;
}

int
store_replay_routed(struct store_core *core, uint64_t *pos)
{
    int rc = meta_uint(core, "routed", pos);
    return rc ? rc : *pos > core->durable_pos ? -CQ_E_CORRUPT : 0;
}

/* The chat that a record belongs to; none for COMMIT, PRIVACY and friendships without a chat yet.
 */
static struct cq_id
chat_of(enum cq_rec_kind kind, const void *fields)
{
    switch (kind) {
    case CQ_REC_MESSAGE:
        return ((const struct cq_rec_message *)fields)->chat;
    case CQ_REC_RECEIPT:
        return ((const struct cq_rec_receipt *)fields)->chat;
    case CQ_REC_READ:
        return ((const struct cq_rec_read *)fields)->chat;
    case CQ_REC_FRIEND:
        return ((const struct cq_rec_friend *)fields)->chat;
    case CQ_REC_KNOWN:
        return ((const struct cq_rec_known *)fields)->chat;
    case CQ_REC_FORGET:
        return ((const struct cq_rec_forget *)fields)->chat;
    case CQ_REC_COMMIT:
    case CQ_REC_PRIVACY:
        break;
    }
    return (struct cq_id){0};
}

enum {
    PART_INTERVALS =
        2, /* rows are written after so many checkpoint intervals: a crash leaves less */
    PART_MIN = 200000,
    PRELOAD_ROOM = 65536,
    CHAT_BYTES = 1200, /* of one in memory, as a rule */
};

struct replay {
    struct store_core *core;
    uint64_t count;
    uint64_t next_pos;
    uint64_t part_records; /* rows are written after so many */
    uint64_t part_end;
    int rc;
};

static int
apply(struct store_core *core, uint64_t pos, struct cq_view record)
{
    union store_record fields;
    enum cq_rec_kind kind;
    int rc = store_record_read(record, &kind, &fields);
    if (rc) {
        return rc;
    }
    struct cq_id id = chat_of(kind, &fields);
    if (cq_id_is_none(&id)) {
        return 0;
    }
    struct store_chat *chat = NULL;
    rc = kind == CQ_REC_FRIEND ? store_projection_begin(core->projection, &id, &chat)
                               : store_projection_chat(core->projection, &id, &chat);
    return rc ? rc : store_projection_apply(core->projection, chat, pos, kind, &fields);
}

static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct replay *replay = ctx;
    replay->rc = apply(replay->core, pos, record);
    if (replay->rc) {
        CQ_LOG(ERROR, "STORE-REPLAY-FAIL", "pos=%" PRIu64 " err=%s", pos, cq_err_name(replay->rc));
        return false;
    }
    replay->count++;
    replay->next_pos = pos + 1;
    return pos < replay->part_end;
}

/* ---- the chats of a part, before it is applied ---- */

/* Loaded in the order of their rows, they share pages; in the log's order each is a page of its
 * own, somewhere. */
struct wanted {
    uint64_t order; /* the key's first bytes */
    struct cq_id chat;
};

struct preload {
    uint64_t end;
    struct wanted *list;
    size_t count, room;
};

static void
want(struct preload *p, const struct cq_id *chat)
{
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : PRELOAD_ROOM;
        p->list = realloc(p->list, p->room * sizeof *p->list);
        CQ_ASSERT(p->list);
    }
    struct store_key key = store_key_of(chat);
    uint64_t order = 0;
    for (size_t i = 0; i < sizeof order; i++) {
        order = order << 8 | key.b[i];
    }
    p->list[p->count++] = (struct wanted){order, *chat};
}

static bool
want_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct preload *p = ctx;
    union store_record fields;
    enum cq_rec_kind kind;
    if (store_record_read(record, &kind, &fields)) {
        return false; /* on_record says so */
    }
    struct cq_id id = chat_of(kind, &fields);
    if (kind != CQ_REC_FRIEND && !cq_id_is_none(&id)) {
        want(p, &id);
    }
    return pos < p->end;
}

static int
compare_wanted(const void *left, const void *right)
{
    const struct wanted *a = left;
    const struct wanted *b = right;
    return (a->order > b->order) - (a->order < b->order);
}

/* Sorted, each once. */
static void
sort_wanted(struct preload *p)
{
    size_t kept = 0;
    if (p->count) {
        qsort(p->list, p->count, sizeof *p->list, compare_wanted);
    }
    for (size_t i = 0; i < p->count; i++) {
        if (!kept || !cq_id_eq(&p->list[kept - 1].chat, &p->list[i].chat)) {
            p->list[kept++] = p->list[i];
        }
    }
    p->count = kept;
}

static void
preload(struct store_core *core, store_snapshot_t *s, uint64_t first, uint64_t end)
{
    struct preload p = {.end = end};
    int rc = store_snapshot_log(s, first, want_record, &p);
    sort_wanted(&p);
    store_heap_t *heap = rc ? NULL : store_heap_expect(p.count * CHAT_BYTES);
    for (size_t i = 0; !rc && i < p.count; i++) {
        struct store_chat *chat = NULL;
        /* A chat that begins in this part is not there yet; other errors come up again. */
        (void)!store_projection_chat(core->projection, &p.list[i].chat, &chat);
    }
    free(p.list);
    store_heap_settle(&heap);
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

/* Everything up to the end of the part, or of the log. */
static int
apply_part(struct replay *replay)
{
    store_snapshot_t *s = NULL;
    uint64_t first = replay->next_pos;
    replay->part_end = first + replay->part_records;
    int rc = store_core_snapshot(replay->core, &s);
    if (!rc) {
        preload(replay->core, s, first, replay->part_end);
        rc = store_snapshot_log(s, first, on_record, replay);
    }
    if (rc || replay->rc) {
        return rc ? rc : replay->rc;
    }
    return replay->next_pos > first ? 0 : -CQ_E_CORRUPT;
}

/* The log in parts, rows written in between. */
static int
apply_log(struct replay *replay)
{
    struct store_core *core = replay->core;
    int rc = 0;
    replay->next_pos = core->marker + 1;
    while (!rc && replay->next_pos <= core->last_pos) {
        rc = apply_part(replay);
        if (!rc && replay->next_pos <= core->last_pos) {
            rc = write_rows(core, replay->next_pos - 1);
        }
        if (rc == -CQ_E_NO_SPACE ||
            rc == -CQ_E_IO) { /* reading must go on: all of it in memory, then */
            store_projection_reset(core->projection);
            replay->part_records = core->last_pos;
            replay->next_pos = core->marker + 1;
            rc = 0;
        }
    }
    store_core_drop_snapshot(core);
    store_projection_resume(core->projection);
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
    if (replay.part_records < PART_MIN) {
        replay.part_records = PART_MIN;
    }
    if (!rc) {
        rc = apply_log(&replay);
    }
    CQ_LOG(INFO, "STORE-REPLAY",
           "marker=%" PRIu64 " records=%" PRIu64 " last_pos=%" PRIu64 " us=%" PRIu64 " err=%s",
           core->marker, replay.count, core->last_pos, cq_now_mono_us() - start, cq_err_name(rc));
    return rc;
}
