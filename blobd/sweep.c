/* SPDX-License-Identifier: MPL-2.0
 * Walks over everything on disk, again and again: removes what the store does not know, finishes
 * what it takes for unfinished, and reads the rest to find damage before a user does.
 *
 * A file without a row in the store is an orphan: uploads are reserved there before they exist
 * here. Orphans come from uploads that expired and from a store restored from an older backup; they
 * live for a grace period, counted from when the file was last written.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "blobd/stats.h"
#include "blobd/upload.h"

enum {
    STORE_DEADLINE_MS = 8000,
    SCRUB_STEP = 1 << 20,
    UPLOADS_FOLDER = BLOBD_FOLDERS /* the last stop of a walk */
};

enum phase {
    PHASE_REST,
    PHASE_LIST,
    PHASE_ASK,
    PHASE_REMOVE,
    PHASE_SCRUB
};

struct blobd_sweep {
    blobd_t *blobd;
    enum phase phase;
    bool is_waiting; /* for a job or an answer */
    unsigned folder;
    uint64_t rest_until_mono_ms;
    uint64_t budget_bytes; /* of scrubbing in this second */
    struct cq_id *ids;     /* of this folder */
    size_t id_count, id_room;
    size_t asked; /* ids the store was asked about */
    size_t scrubbed;
    struct cq_id *orphans;
    size_t orphan_count;
};

struct sweep_job {
    struct blobd_job job; /* first */
    struct blobd_sweep *sweep;
    struct cq_id id;
    uint64_t offset; /* of scrubbing */
    size_t removed;
    bool is_end;
    struct cq_id *ids;
    size_t id_count;
    struct cq_bus_from from;
};

static void step(struct blobd_sweep *s);

struct blobd_sweep *
blobd_sweep_new(blobd_t *b)
{
    struct blobd_sweep *s = cq_alloc(sizeof *s);
    s->blobd = b;
    s->rest_until_mono_ms = cq_now_mono_ms() + 1000 * b->cfg->sweep_s;
    return s;
}

void
blobd_sweep_destroy(struct blobd_sweep **s)
{
    if (*s) {
        free((*s)->ids);
        free((*s)->orphans);
        free(*s);
        *s = NULL;
    }
}

static void
start(struct blobd_sweep *s, blobd_job_fn *run, blobd_job_fn *done, const struct sweep_job *with)
{
    struct sweep_job *j = cq_alloc(sizeof *j);
    *j = *with;
    j->job = (struct blobd_job){.blobd = s->blobd, .run = run, .done = done};
    j->sweep = s;
    s->is_waiting = true;
    blobd_job_start(&j->job);
}

/* Takes the job back; false: everything ends. */
static bool
take_back(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    j->sweep->is_waiting = false;
    return !job->blobd->is_stopping;
}

/* ---- list ---- */

static void
add_id(void *ctx, const struct cq_id *id)
{
    struct blobd_sweep *s = ctx;
    if (s->id_count == s->id_room) {
        s->id_room = s->id_room ? 2 * s->id_room : 256;
        s->ids = realloc(s->ids, s->id_room * sizeof *s->ids);
        CQ_ASSERT(s->ids);
    }
    s->ids[s->id_count++] = *id;
}

static void
run_list(struct blobd_job *job)
{
    struct blobd_sweep *s = ((struct sweep_job *)job)->sweep;
    job->rc = s->folder == UPLOADS_FOLDER
                  ? blobd_volume_each_part(job->blobd->volume, add_id, s)
                  : blobd_volume_each_blob(job->blobd->volume, s->folder, add_id, s);
}

static void
done_list(struct blobd_job *job)
{
    struct blobd_sweep *s = ((struct sweep_job *)job)->sweep;
    bool goes_on = take_back(job);
    free(job);
    s->phase = s->id_count ? PHASE_ASK : PHASE_SCRUB;
    if (goes_on) {
        step(s);
    }
}

/* ---- ask the store ---- */

static void
on_whole_told(void *ctx, int err)
{
    (void)ctx;
    (void)err; /* the next walk asks again */
}

struct finish_job {
    struct blobd_job job; /* first */
    struct cq_id id, user;
    uint64_t length;
    uint8_t root[CQ_BLOB_HASH_SIZE];
};

static void
run_look(struct blobd_job *job)
{
    struct finish_job *j = (struct finish_job *)job;
    blobd_blob_t *blob;
    job->rc = blobd_blob_open(job->blobd->volume, &j->id, &blob);
    if (!job->rc) {
        j->user = blobd_blob_header(blob)->user;
        j->length = blobd_blob_header(blob)->length;
        memcpy(j->root, blobd_blob_root(blob), sizeof j->root);
        blobd_blob_close(&blob);
    }
}

static void
done_look(struct blobd_job *job)
{
    struct finish_job *j = (struct finish_job *)job;
    if (!job->rc && !job->blobd->is_stopping) {
        const struct cq_blob_whole m = {j->user, j->id, j->length, {j->root, sizeof j->root}};
        blobd_upload_tell_whole(job->blobd, &m, on_whole_told, NULL);
    }
    free(job);
}

static void
finish(struct blobd_sweep *s, const struct cq_id *id)
{
    if (s->folder == UPLOADS_FOLDER) {
        return; /* an upload under way: nothing to say yet */
    }
    struct finish_job *j = cq_alloc(sizeof *j);
    j->job = (struct blobd_job){.blobd = s->blobd, .run = run_look, .done = done_look};
    j->id = *id;
    blobd_job_start(&j->job);
}

static int
take_unknown(struct blobd_sweep *s, cq_reader_t *fields, size_t count)
{
    struct cq_blob_unknown m;
    int rc = cq_schema_read(&cq_blob_unknown_schema, fields, count, &m);
    if (rc) {
        return rc;
    }
    cq_reader_t r = cq_list_reader(&m.unfinished);
    for (size_t i = 0; i < m.unfinished.count && !r.err; i++) {
        struct cq_id id = cq_read_id(&r);
        if (!r.err) {
            finish(s, &id);
        }
    }
    r = cq_list_reader(&m.unknown);
    s->orphans = cq_alloc(m.unknown.count * sizeof *s->orphans);
    for (size_t i = 0; i < m.unknown.count && !r.err; i++) {
        struct cq_id id = cq_read_id(&r);
        if (!r.err && !blobd_upload_is_open(s->blobd->uploads, &id)) {
            s->orphans[s->orphan_count++] = id;
        }
    }
    return r.err;
}

static void
on_unknown(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    struct blobd_sweep *s = ctx;
    s->is_waiting = false;
    if (!err) {
        err = take_unknown(s, fields, count);
    }
    if (err) {
        CQ_LOG(INFO, "BLOBD-SWEEP-LATER", "err=%s", cq_err_name(err));
        s->orphan_count = 0;
    }
    s->phase = PHASE_REMOVE;
    step(s);
}

static void
ask_store(struct blobd_sweep *s)
{
    cq_buf_t list = {0};
    size_t count = 0;
    for (; s->asked < s->id_count && count < CQ_BLOB_LIST_MAX; s->asked++, count++) {
        cq_pack_id(&list, &s->ids[s->asked]);
    }
    const struct cq_blob_ids m = {cq_list_of(&list, count)};
    const struct cq_bus_wait wait = {STORE_DEADLINE_MS, on_unknown, s};
    s->is_waiting = true;
    int rc =
        cq_bus_request(s->blobd->bus, "store", CQ_BUS_BLOB_KNOWN, &cq_blob_ids_schema, &m, &wait);
    cq_buf_free(&list);
    if (rc) {
        s->is_waiting = false;
        s->phase = PHASE_SCRUB;
    }
}

/* ---- remove orphans ---- */

static void
run_remove(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    struct blobd_sweep *s = j->sweep;
    uint64_t grace_s = job->blobd->cfg->orphan_grace_s;
    for (size_t i = 0; i < s->orphan_count; i++) {
        bool is_part = s->folder == UPLOADS_FOLDER;
        if (blobd_volume_age_s(job->blobd->volume, &s->orphans[i], is_part) < grace_s) {
            continue;
        }
        int rc = is_part ? blobd_part_remove(job->blobd->volume, &s->orphans[i])
                         : blobd_blob_remove(job->blobd->volume, &s->orphans[i]);
        j->removed += !rc;
    }
}

static void
done_remove(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    struct blobd_sweep *s = j->sweep;
    bool goes_on = take_back(job);
    for (size_t i = 0; i < s->orphan_count; i++) {
        blobd_read_forget(job->blobd->reads, &s->orphans[i]);
    }
    s->folder == UPLOADS_FOLDER ? (blobd_stats.expired_total += j->removed)
                                : (blobd_stats.orphans_total += j->removed);
    if (j->removed) {
        CQ_LOG(INFO, "BLOBD-SWEEP-ORPHANS", "removed=%zu uploads=%d", j->removed,
               s->folder == UPLOADS_FOLDER);
    }
    free(job);
    free(s->orphans);
    s->orphans = NULL;
    s->orphan_count = 0;
    s->phase = s->asked < s->id_count ? PHASE_ASK : PHASE_SCRUB;
    if (goes_on) {
        step(s);
    }
}

/* ---- scrub ---- */

static void
run_scrub(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    blobd_blob_t *blob;
    job->rc = blobd_blob_open(job->blobd->volume, &j->id, &blob);
    if (job->rc) {
        return;
    }
    uint64_t left = blobd_blob_header(blob)->length - j->offset;
    size_t n = left < SCRUB_STEP ? (size_t)left : SCRUB_STEP, at;
    uint8_t *data = malloc(n + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    job->rc = data ? blobd_blob_read(blob, j->offset, n, data, &at) : -CQ_E_BUSY;
    j->offset += n;
    j->is_end = n == left;
    free(data);
    blobd_blob_close(&blob);
}

static void
done_scrub(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    struct blobd_sweep *s = j->sweep;
    bool goes_on = take_back(job);
    if (job->rc == -CQ_E_CORRUPT) {
        char hex[CQ_ID_HEX_SIZE];
        blobd_stats.damaged_total++;
        CQ_LOG(ERROR, "BLOBD-SCRUB-DAMAGED", "blob=%s hint=%s", cq_id_hex(&j->id, hex),
               "\"restore this file from a backup\"");
    }
    blobd_stats.scrubbed_total += SCRUB_STEP;
    s->budget_bytes -= s->budget_bytes < SCRUB_STEP ? s->budget_bytes : SCRUB_STEP;
    if (job->rc || j->is_end) {
        s->scrubbed++;
        free(job);
    } else if (goes_on) {
        struct sweep_job again = *j;
        free(job);
        start(s, run_scrub, done_scrub, &again);
        return;
    } else {
        free(job);
    }
    if (goes_on) {
        step(s);
    }
}

/* True if a job was started or the budget is used up. */
static bool
scrub(struct blobd_sweep *s)
{
    bool is_on = s->blobd->cfg->scrub_bytes_per_s > 0 && s->folder != UPLOADS_FOLDER;
    if (!is_on || s->scrubbed >= s->id_count) {
        return false;
    }
    if (s->budget_bytes) {
        const struct sweep_job j = {.id = s->ids[s->scrubbed]};
        start(s, run_scrub, done_scrub, &j);
    }
    return true;
}

/* ---- the walk ---- */

static void
next_folder(struct blobd_sweep *s)
{
    s->id_count = s->asked = s->scrubbed = 0;
    if (s->folder == UPLOADS_FOLDER) {
        s->folder = 0;
        s->phase = PHASE_REST;
        s->rest_until_mono_ms = cq_now_mono_ms() + 1000 * s->blobd->cfg->sweep_s;
        return;
    }
    s->folder++;
    s->phase = PHASE_LIST;
    const struct sweep_job j = {0};
    start(s, run_list, done_list, &j);
}

static void
step(struct blobd_sweep *s)
{
    const struct sweep_job j = {0};
    switch (s->phase) {
    case PHASE_REST:
        if (cq_now_mono_ms() >= s->rest_until_mono_ms) {
            s->phase = PHASE_LIST;
            start(s, run_list, done_list, &j);
        }
        break;
    case PHASE_LIST:
        break;
    case PHASE_ASK:
        ask_store(s);
        break;
    case PHASE_REMOVE:
        start(s, run_remove, done_remove, &j);
        break;
    case PHASE_SCRUB:
        if (!scrub(s)) {
            next_folder(s);
        }
        break;
    }
}

void
blobd_sweep_tick(struct blobd_sweep *s)
{
    s->budget_bytes = s->blobd->cfg->scrub_bytes_per_s;
    if (!s->is_waiting) {
        step(s);
    }
}

/* ---- what the store wants removed ---- */

static void
run_collect(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    for (size_t i = 0; i < j->id_count && !job->rc; i++) {
        job->rc = blobd_blob_remove(job->blobd->volume, &j->ids[i]);
    }
}

static void
done_collect(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    cq_bus_t *bus = job->blobd->bus;
    for (size_t i = 0; i < j->id_count; i++) {
        blobd_read_forget(job->blobd->reads, &j->ids[i]);
    }
    if (job->rc) {
        cq_bus_reply_err(bus, &j->from, job->rc, 0);
    } else {
        const struct cq_empty none = {0};
        blobd_stats.collected_total += j->id_count;
        cq_bus_reply(bus, &j->from, &cq_empty_schema, &none);
    }
    free(j->ids);
    free(j);
}

void
blobd_on_collect(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_ids m;
    int rc = cq_schema_read(&cq_blob_ids_schema, fields, count, &m);
    struct sweep_job *j = cq_alloc(sizeof *j);
    *j = (struct sweep_job){.job = {.blobd = b, .run = run_collect, .done = done_collect},
                            .from = *from};
    j->ids = cq_alloc(m.ids.count * sizeof *j->ids);
    cq_reader_t r = cq_list_reader(&m.ids);
    for (; !rc && j->id_count < m.ids.count && !r.err; j->id_count++) {
        j->ids[j->id_count] = cq_read_id(&r);
    }
    if (rc || r.err) {
        cq_bus_reply_err(b->bus, from, -CQ_E_BAD_ARG, 0);
        free(j->ids);
        free(j);
        return;
    }
    blobd_job_start(&j->job);
}
