/* SPDX-License-Identifier: MPL-2.0
 * Reads all blobs, again and again, to find damage before a user does: so many bytes a second. How
 * far it is and when it was last through is noted on disk, so that a restart does not begin anew.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "blobd/core.h"
#include "blobd/ids.h"
#include "blobd/stats.h"

enum {
    STEP_SIZE = 1 << 20
};

#define NOTE "scrub"

struct blobd_scrub {
    blobd_t *blobd;
    bool is_waiting; /* for a job */
    bool is_listed;
    unsigned folder;
    struct blobd_ids list; /* of this folder */
    size_t at;             /* list.ids[at] is being read */
    uint64_t offset;       /* in it */
    int64_t budget_bytes;  /* of this second; below 0: taken in advance */
    uint64_t ended_unix_s; /* the last walk */
    uint64_t rest_until_mono_ms;
};

struct scrub_job {
    struct blobd_job job; /* first */
    struct blobd_scrub *scrub;
    size_t bytes; /* read */
    bool is_end;
};

static void step(struct blobd_scrub *s);

static void
read_note(struct blobd_scrub *s)
{
    char text[BLOBD_NOTE_SIZE];
    blobd_volume_read_note(s->blobd->volume, NOTE, text);
    unsigned folder = 0;
    /* A note that is damaged costs a walk. NOLINTNEXTLINE(cert-err34-c) */
    if (sscanf(text, "folder %u ended_unix_s %" SCNu64, &folder, &s->ended_unix_s) == 2) {
        s->folder = folder < BLOBD_FOLDERS ? folder : 0;
    }
    blobd_stats.scrub_end_s = s->ended_unix_s;
}

struct blobd_scrub *
blobd_scrub_new(blobd_t *b)
{
    struct blobd_scrub *s = cq_alloc(sizeof *s);
    s->blobd = b;
    read_note(s);
    return s;
}

void
blobd_scrub_destroy(struct blobd_scrub **s)
{
    if (*s) {
        blobd_ids_free(&(*s)->list);
        free(*s);
        *s = NULL;
    }
}

static void
start(struct blobd_scrub *s, blobd_job_fn *run, blobd_job_fn *done)
{
    struct scrub_job *j = cq_alloc(sizeof *j);
    j->job = (struct blobd_job){.blobd = s->blobd, .run = run, .done = done};
    j->scrub = s;
    s->is_waiting = true;
    blobd_job_start(&j->job);
}

/* ---- a folder ---- */

static void
run_list(struct blobd_job *job)
{
    struct blobd_scrub *s = ((struct scrub_job *)job)->scrub;
    char text[BLOBD_NOTE_SIZE];
    job->rc = blobd_volume_each_blob(job->blobd->volume, s->folder, blobd_ids_add, &s->list);
    if (s->list.count) {
        (void)snprintf(text, sizeof text, "folder %u ended_unix_s %" PRIu64 "\n", s->folder,
                       s->ended_unix_s);
        blobd_volume_note(job->blobd->volume, NOTE, text);
    }
}

static void
done_list(struct blobd_job *job)
{
    struct blobd_scrub *s = ((struct scrub_job *)job)->scrub;
    bool goes_on = !job->blobd->is_stopping;
    s->is_waiting = false;
    s->is_listed = true;
    free(job);
    if (goes_on) {
        step(s);
    }
}

static void
run_end(struct blobd_job *job)
{
    const struct blobd_scrub *s = ((struct scrub_job *)job)->scrub;
    char text[BLOBD_NOTE_SIZE];
    (void)snprintf(text, sizeof text, "folder 0 ended_unix_s %" PRIu64 "\n", s->ended_unix_s);
    blobd_volume_note(job->blobd->volume, NOTE, text);
}

static void
done_end(struct blobd_job *job)
{
    ((struct scrub_job *)job)->scrub->is_waiting = false;
    free(job);
}

static void
next_folder(struct blobd_scrub *s)
{
    s->list.count = s->at = 0;
    s->is_listed = false;
    if (++s->folder < BLOBD_FOLDERS) {
        start(s, run_list, done_list);
        return;
    }
    s->folder = 0;
    s->ended_unix_s = cq_now_unix_ms() / 1000;
    s->rest_until_mono_ms = cq_now_mono_ms() + 1000 * s->blobd->cfg->sweep_s;
    blobd_stats.scrub_end_s = s->ended_unix_s;
    start(s, run_end, done_end);
}

/* ---- a blob ---- */

int
blobd_scrub_read(blobd_volume_t *v, struct blobd_scrub_piece *p)
{
    blobd_blob_t *blob;
    int rc = blobd_blob_open(v, &p->id, &blob);
    if (rc) {
        return rc;
    }
    p->length = blobd_blob_header(blob)->length;
    memcpy(p->root, blobd_blob_root(blob), sizeof p->root);
    uint64_t left = p->offset < p->length ? p->length - p->offset : 0;
    p->size = left < p->size ? (size_t)left : p->size;
    size_t at;
    uint8_t *data = p->size ? malloc(p->size + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE) : NULL;
    if (p->size) {
        rc = data ? blobd_blob_read(blob, p->offset, p->size, data, &at) : -CQ_E_BUSY;
    }
    free(data);
    blobd_blob_close(&blob);
    return rc;
}

void
blobd_scrub_damaged(const struct cq_id *id, int rc)
{
    char hex[CQ_ID_HEX_SIZE];
    blobd_stats.damaged_total++;
    CQ_LOG(ERROR, "BLOBD-SCRUB-DAMAGED", "blob=%s err=%s hint=%s", cq_id_hex(id, hex),
           cq_err_name(rc), "\"restore this file from a backup\"");
}

static void
run_scrub(struct blobd_job *job)
{
    struct scrub_job *j = (struct scrub_job *)job;
    struct blobd_scrub *s = j->scrub;
    struct blobd_scrub_piece p = {.id = s->list.ids[s->at], .offset = s->offset, .size = STEP_SIZE};
    job->rc = blobd_scrub_read(job->blobd->volume, &p);
    j->bytes = job->rc ? 0 : p.size;
    j->is_end = s->offset + p.size >= p.length;
}

static void
done_scrub(struct blobd_job *job)
{
    struct scrub_job *j = (struct scrub_job *)job;
    struct blobd_scrub *s = j->scrub;
    bool goes_on = !job->blobd->is_stopping;
    s->is_waiting = false;
    /* NOT_FOUND: collected meanwhile. */
    if (job->rc == -CQ_E_CORRUPT || job->rc == -CQ_E_IO) {
        blobd_scrub_damaged(&s->list.ids[s->at], job->rc);
    }
    blobd_stats.scrubbed_total += j->bytes;
    /* A small file costs a seek: it counts as a piece. */
    s->budget_bytes -=
        (int64_t)(j->bytes > CQ_BLOBFILE_PIECE_SIZE ? j->bytes : CQ_BLOBFILE_PIECE_SIZE);
    s->offset += j->bytes;
    if (job->rc || j->is_end) {
        s->at++;
        s->offset = 0;
    }
    free(job);
    if (goes_on) {
        step(s);
    }
}

/* ---- the walk ---- */

static void
step(struct blobd_scrub *s)
{
    if (!s->blobd->cfg->scrub_bytes_per_s || s->is_waiting) {
        return;
    }
    if (!s->is_listed) {
        start(s, run_list, done_list);
    } else if (s->at < s->list.count) {
        if (s->budget_bytes > 0) {
            start(s, run_scrub, done_scrub);
        }
    } else {
        next_folder(s);
    }
}

bool
blobd_scrub_take(struct blobd_scrub *s, uint64_t bytes)
{
    if (s->budget_bytes <= 0) {
        return false;
    }
    s->budget_bytes -= (int64_t)bytes;
    return true;
}

void
blobd_scrub_tick(struct blobd_scrub *s)
{
    uint64_t rate = s->blobd->cfg->scrub_bytes_per_s;
    rate = rate ? rate : BLOBD_CHECK_RATE; /* off: but somebody may ask for a check */
    s->budget_bytes += (int64_t)rate;
    s->budget_bytes = s->budget_bytes < (int64_t)rate ? s->budget_bytes : (int64_t)rate;
    if (cq_now_mono_ms() >= s->rest_until_mono_ms) {
        step(s);
    }
}
