/* SPDX-License-Identifier: MPL-2.0
 * Reading complete blobs. A few stay open, as a download asks many times for the same one.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "blobd/core.h"
#include "blobd/stats.h"

enum {
    BUCKETS = 1024,
    OPEN_MAX = 512,
    IDLE_MS = 30000,
    RECHECK_MS = 60000, /* what was checked so long ago is opened and checked anew */
    READS_MAX = 2048    /* under way; the next one is BUSY */
};

struct open_blob {
    struct cq_id id;
    blobd_blob_t *blob;
    unsigned user_count; /* jobs that read it */
    uint64_t opened_mono_ms, used_mono_ms;
    bool is_gone; /* removed meanwhile: closed by the last reader */
    struct open_blob *next;
};

struct blobd_reads {
    blobd_t *blobd;
    size_t open_count;
    size_t read_count;
    struct open_blob *buckets[BUCKETS];
};

struct read_job {
    struct blobd_job job; /* first */
    struct cq_bus_from from;
    struct cq_id id;
    struct open_blob *open; /* NULL: blob is opened by the job */
    blobd_blob_t *blob;
    uint64_t offset;
    size_t size, at;
    bool is_place; /* checked, not read: size is what was right */
    uint8_t *data;
};

struct blobd_reads *
blobd_read_new(blobd_t *b)
{
    struct blobd_reads *r = cq_alloc(sizeof *r);
    r->blobd = b;
    return r;
}

static struct open_blob **
place_of(struct blobd_reads *r, const struct cq_id *id)
{
    struct open_blob **at = &r->buckets[cq_id_hash(id) % BUCKETS];
    while (*at && ((*at)->is_gone || !cq_id_eq(&(*at)->id, id))) {
        at = &(*at)->next;
    }
    return at;
}

static void
close_at(struct blobd_reads *r, struct open_blob **at)
{
    struct open_blob *open = *at;
    *at = open->next;
    r->open_count--;
    blobd_blob_close(&open->blob);
    free(open);
}

/* Closes what is idle for this long and has no reader. */
static void
close_idle(struct blobd_reads *r, uint64_t idle_ms)
{
    uint64_t now = cq_now_mono_ms();
    for (size_t i = 0; i < BUCKETS; i++) {
        struct open_blob **at = &r->buckets[i];
        while (*at) {
            bool is_idle = (*at)->is_gone || now - (*at)->used_mono_ms >= idle_ms ||
                           now - (*at)->opened_mono_ms >= RECHECK_MS;
            if (!(*at)->user_count && is_idle) {
                close_at(r, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
}

void
blobd_read_tidy(struct blobd_reads *r)
{
    close_idle(r, IDLE_MS);
}

void
blobd_read_destroy(struct blobd_reads **r)
{
    if (*r) {
        close_idle(*r, 0);
        CQ_ASSERT((*r)->open_count == 0);
        free(*r);
        *r = NULL;
    }
}

void
blobd_read_forget(struct blobd_reads *r, const struct cq_id *id)
{
    struct open_blob *open = *place_of(r, id);
    if (open) {
        open->is_gone = true;
    }
}

/* ---- on a disk thread ---- */

static void
run(struct blobd_job *job)
{
    struct read_job *r = (struct read_job *)job;
    if (!r->blob) {
        job->rc = blobd_blob_open(job->blobd->volume, &r->id, &r->blob);
    }
    if (job->rc) {
        return;
    }
    uint64_t length = blobd_blob_header(r->blob)->length;
    if (r->offset > length) {
        job->rc = -CQ_E_BAD_ARG;
        return;
    }
    r->size = length - r->offset < r->size ? (size_t)(length - r->offset) : r->size;
    if (r->is_place) {
        job->rc = blobd_blob_check(r->blob, r->offset, r->size, &r->size);
        return;
    }
    r->data = malloc(r->size + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    job->rc = r->data ? blobd_blob_read(r->blob, r->offset, r->size, r->data, &r->at) : -CQ_E_BUSY;
}

/* ---- on the loop ---- */

/* Keeps what the job has opened, if there is room. */
static void
keep_open(struct blobd_reads *reads, struct read_job *r)
{
    struct open_blob **at = place_of(reads, &r->id);
    if (*at || reads->open_count >= OPEN_MAX || r->job.rc) {
        blobd_blob_close(&r->blob);
        return;
    }
    uint64_t now = cq_now_mono_ms();
    struct open_blob *open = cq_alloc(sizeof *open);
    *open = (struct open_blob){
        .id = r->id, .blob = r->blob, .opened_mono_ms = now, .used_mono_ms = now};
    *at = open;
    reads->open_count++;
}

static void
answer_place(const struct read_job *r)
{
    blobd_t *b = r->job.blobd;
    char path[CQ_BLOB_PATH_MAX];
    uint64_t at, inode;
    if (!blobd_volume_path(b->volume, &r->id, path, sizeof path)) {
        cq_bus_reply_err(b->bus, &r->from, -CQ_E_BAD_STATE, 0);
        return;
    }
    blobd_blob_place(r->blob, r->offset, &at, &inode);
    const struct cq_blob_placed m = {r->size, at, inode, {(const uint8_t *)path, strlen(path)}};
    cq_bus_reply(b->bus, &r->from, &cq_blob_placed_schema, &m);
    blobd_stats.bytes_out_total += r->size;
}

static void
answer(struct read_job *r)
{
    cq_bus_t *bus = r->job.blobd->bus;
    char hex[CQ_ID_HEX_SIZE];
    if (r->job.rc == -CQ_E_CORRUPT || r->job.rc == -CQ_E_IO) {
        blobd_stats.damaged_total++;
        CQ_LOG(ERROR, "BLOBD-READ-DAMAGED", "blob=%s offset=%llu err=%s", cq_id_hex(&r->id, hex),
               (unsigned long long)r->offset, cq_err_name(r->job.rc));
    }
    /* Edges ask the store first: it was collected at this moment, or the file is lost. */
    if (r->job.rc == -CQ_E_NOT_FOUND) {
        blobd_stats.missing_total++;
        CQ_LOG(WARN, "BLOBD-READ-MISSING", "blob=%s", cq_id_hex(&r->id, hex));
    }
    if (r->job.rc) {
        cq_bus_reply_err(bus, &r->from, r->job.rc, 0);
        return;
    }
    if (r->is_place) {
        answer_place(r);
        return;
    }
    const struct cq_blob_bytes m = {blobd_blob_header(r->blob)->length, {r->data + r->at, r->size}};
    cq_bus_reply(bus, &r->from, &cq_blob_bytes_schema, &m);
    blobd_stats.bytes_out_total += r->size;
}

static void
done(struct blobd_job *job)
{
    struct read_job *r = (struct read_job *)job;
    struct blobd_reads *reads = job->blobd->reads;
    reads->read_count--;
    answer(r);
    if (r->open) {
        r->open->user_count--;
        r->open->used_mono_ms = cq_now_mono_ms();
    } else if (r->blob) {
        keep_open(reads, r);
    }
    free(r->data);
    free(r);
}

/* what: as it was asked; rc: of reading that. */
static void
begin(blobd_t *b, const struct cq_bus_from *from, const struct read_job *what, int rc)
{
    struct blobd_reads *reads = b->reads;
    if (!rc && reads->read_count >= READS_MAX) {
        rc = -CQ_E_BUSY;
    }
    if (rc) {
        cq_bus_reply_err(b->bus, from, rc, 0);
        return;
    }
    struct read_job *r = cq_alloc(sizeof *r);
    *r = *what;
    r->job = (struct blobd_job){.blobd = b, .run = run, .done = done};
    r->from = *from;
    r->open = *place_of(reads, &r->id);
    if (r->open) {
        r->open->user_count++;
        r->blob = r->open->blob;
    }
    reads->read_count++;
    blobd_job_start(&r->job);
}

void
blobd_on_read(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct cq_blob_read m;
    int rc = cq_schema_read(&cq_blob_read_schema, fields, count, &m);
    struct read_job what = {.is_place = false};
    if (!rc) {
        what.id = m.id;
        what.offset = m.offset;
        what.size = (size_t)m.size;
    }
    begin(ctx, from, &what, rc);
}

void
blobd_on_place(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct cq_blob_place m;
    int rc = cq_schema_read(&cq_blob_place_schema, fields, count, &m);
    struct read_job what = {.is_place = true};
    if (!rc) {
        what.id = m.id;
        what.offset = m.offset;
        what.size = (size_t)m.size;
    }
    begin(ctx, from, &what, rc);
}
