/* SPDX-License-Identifier: MPL-2.0
 * Walks over everything on disk, again and again, the first time at the start: removes what the
 * store does not know, finishes what it takes for unfinished, and counts.
 *
 * A file without a row in the store is an orphan: uploads are reserved there before they exist
 * here. An upload that the store does not know has expired, as its header says then. What else it
 * does not know comes from before a restore of an older backup, or the store has been started with
 * another database by mistake: it lives for a grace period, an upload's counted from when it was
 * last written, a blob's from when a walk first finds it unknown, which is noted on disk; whoever
 * puts the right database back in time has lost nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/wire/pack.h"

#include "blobd/ids.h"
#include "blobd/stats.h"
#include "blobd/upload.h"

enum {
    STORE_DEADLINE_MS = 8000,
    UPLOADS_FOLDER = BLOBD_FOLDERS, /* the last stops of a walk */
    ORPHANS_FOLDER,
};

enum phase {
    PHASE_REST,
    PHASE_LIST,
    PHASE_ASK,
    PHASE_REMOVE,
    PHASE_NEXT
};

struct blobd_sweep {
    blobd_t *blobd;
    enum phase phase;
    bool is_waiting;    /* for a job or an answer */
    bool is_incomplete; /* a folder of this walk could not be listed */
    unsigned folder;
    uint64_t rest_until_mono_ms;
    struct blobd_ids list; /* of this folder */
    size_t asked;          /* of the list: the store was asked about them */
    size_t asked_first;    /* of the last question */
    bool is_answered;
    struct cq_id *orphans;
    size_t orphan_count;
};

struct sweep_job {
    struct blobd_job job; /* first */
    struct blobd_sweep *sweep;
    size_t removed;
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
    return s;
}

void
blobd_sweep_destroy(struct blobd_sweep **s)
{
    if (*s) {
        blobd_ids_free(&(*s)->list);
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
run_list(struct blobd_job *job)
{
    struct blobd_sweep *s = ((struct sweep_job *)job)->sweep;
    blobd_volume_t *v = job->blobd->volume;
    switch (s->folder) {
    case UPLOADS_FOLDER:
        job->rc = blobd_volume_each_part(v, blobd_ids_add, &s->list);
        return;
    case ORPHANS_FOLDER:
        job->rc = blobd_volume_each_orphan(v, blobd_ids_add, &s->list);
        return;
    default:
        job->rc = blobd_volume_count(v, s->folder, blobd_ids_add, &s->list);
    }
}

static void
done_list(struct blobd_job *job)
{
    struct blobd_sweep *s = ((struct sweep_job *)job)->sweep;
    bool goes_on = take_back(job);
    if (job->rc && goes_on) {
        CQ_LOG(ERROR, "BLOBD-SWEEP-LIST", "folder=%03x err=%s", s->folder, cq_err_name(job->rc));
        s->is_incomplete = true;
    }
    free(job);
    s->phase = s->list.count ? PHASE_ASK : PHASE_NEXT;
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
        job->rc = blobd_blob_sync(job->blobd->volume, &j->id);
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
    if (s->folder >= UPLOADS_FOLDER) {
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
    s->is_answered = !err;
    s->phase = PHASE_REMOVE;
    step(s);
}

static void
ask_store(struct blobd_sweep *s)
{
    cq_buf_t list = {0};
    size_t count = 0;
    s->asked_first = s->asked;
    for (; s->asked < s->list.count && count < CQ_BLOB_LIST_MAX; s->asked++, count++) {
        cq_pack_id(&list, &s->list.ids[s->asked]);
    }
    const struct cq_blob_ids m = {cq_list_of(&list, count)};
    const struct cq_bus_wait wait = {STORE_DEADLINE_MS, on_unknown, s};
    s->is_waiting = true;
    int rc =
        cq_bus_request(s->blobd->bus, "store", CQ_BUS_BLOB_KNOWN, &cq_blob_ids_schema, &m, &wait);
    cq_buf_free(&list);
    if (rc) {
        s->is_waiting = false;
        s->phase = PHASE_NEXT;
    }
}

/* ---- remove orphans ---- */

static void
remove_part(struct sweep_job *j, const struct cq_id *id)
{
    blobd_volume_t *v = j->job.blobd->volume;
    if (blobd_part_is_expired(v, id) ||
        blobd_volume_look(v, id, true).age_s >= j->job.blobd->cfg->orphan_grace_s) {
        j->removed += !blobd_part_remove(v, id);
    }
}

static void
remove_blob(struct sweep_job *j, const struct cq_id *id)
{
    blobd_volume_t *v = j->job.blobd->volume;
    if (blobd_volume_orphan(v, id) < j->job.blobd->cfg->orphan_grace_s) {
        return;
    }
    if (!blobd_blob_remove(v, id)) {
        blobd_volume_orphan_forget(v, id);
        j->removed++;
    }
}

static bool
is_orphan(const struct blobd_sweep *s, const struct cq_id *id)
{
    for (size_t i = 0; i < s->orphan_count; i++) {
        if (cq_id_eq(&s->orphans[i], id)) {
            return true;
        }
    }
    return false;
}

/* Notes of blobs that the store knows by now, or that are gone. */
static void
forget_notes(struct blobd_sweep *s, blobd_volume_t *v)
{
    for (size_t i = s->asked_first; s->is_answered && i < s->asked; i++) {
        bool is_there = blobd_volume_look(v, &s->list.ids[i], false).bytes > 0;
        if (!is_there || !is_orphan(s, &s->list.ids[i])) {
            blobd_volume_orphan_forget(v, &s->list.ids[i]);
        }
    }
}

static void
run_remove(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    struct blobd_sweep *s = j->sweep;
    if (s->folder == ORPHANS_FOLDER) {
        forget_notes(s, job->blobd->volume);
        return;
    }
    for (size_t i = 0; i < s->orphan_count; i++) {
        s->folder == UPLOADS_FOLDER ? remove_part(j, &s->orphans[i])
                                    : remove_blob(j, &s->orphans[i]);
    }
}

static void
count_removed(const struct sweep_job *j)
{
    const struct blobd_sweep *s = j->sweep;
    bool is_uploads = s->folder == UPLOADS_FOLDER;
    is_uploads ? (blobd_stats.expired_total += j->removed)
               : (blobd_stats.orphans_total += j->removed);
    if (j->removed) {
        CQ_LOG(INFO, "BLOBD-SWEEP-ORPHANS", "removed=%zu uploads=%d", j->removed, is_uploads);
    }
}

static void
done_remove(struct blobd_job *job)
{
    struct sweep_job *j = (struct sweep_job *)job;
    struct blobd_sweep *s = j->sweep;
    bool goes_on = take_back(job);
    for (size_t i = 0; s->folder < UPLOADS_FOLDER && i < s->orphan_count; i++) {
        blobd_read_forget(job->blobd->reads, &s->orphans[i]);
    }
    count_removed(j);
    free(job);
    free(s->orphans);
    s->orphans = NULL;
    s->orphan_count = 0;
    s->phase = s->asked < s->list.count ? PHASE_ASK : PHASE_NEXT;
    if (goes_on) {
        step(s);
    }
}

/* ---- the walk ---- */

static void
end_walk(struct blobd_sweep *s)
{
    s->folder = 0;
    s->phase = PHASE_REST;
    s->rest_until_mono_ms = cq_now_mono_ms() + 1000 * s->blobd->cfg->sweep_s;
    if (!s->is_incomplete) {
        blobd_stats.is_counted = 1;
    }
    s->is_incomplete = false;
    blobd_stats_count(s->blobd->volume);
}

static void
next_folder(struct blobd_sweep *s)
{
    s->list.count = s->asked = 0;
    if (s->folder == ORPHANS_FOLDER) {
        end_walk(s);
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
    case PHASE_NEXT:
        next_folder(s);
        break;
    }
}

void
blobd_sweep_tick(struct blobd_sweep *s)
{
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
