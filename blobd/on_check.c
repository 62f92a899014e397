/* SPDX-License-Identifier: MPL-2.0
 * What the store's fsck asks: is this blob what the row says, and which blobs are there at all?
 * Data is read at the speed of scrubbing: what does not fit into this second waits for the next.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

#include "blobd/core.h"
#include "blobd/ids.h"

enum {
    WAITING_MAX = 64, /* the next one is BUSY */
};

struct check {
    struct blobd_job job; /* first */
    struct cq_bus_from from;
    struct blobd_scrub_piece piece;
    uint64_t length;
    uint8_t hash[CQ_BLOB_HASH_SIZE];
    struct check *next;
};

struct blobd_checks {
    blobd_t *blobd;
    struct check *waiting, **tail;
    size_t count;
};

struct blobd_checks *
blobd_check_new(blobd_t *b)
{
    struct blobd_checks *c = cq_alloc(sizeof *c);
    c->blobd = b;
    c->tail = &c->waiting;
    return c;
}

void
blobd_check_destroy(struct blobd_checks **checks)
{
    struct blobd_checks *c = *checks;
    while (c && c->waiting) {
        struct check *next = c->waiting->next;
        free(c->waiting);
        c->waiting = next;
    }
    free(c);
    *checks = NULL;
}

static void
run(struct blobd_job *job)
{
    struct check *c = (struct check *)job;
    job->rc = blobd_scrub_read(job->blobd->volume, &c->piece);
    bool is_same = job->rc || (c->piece.length == c->length &&
                               memcmp(c->piece.root, c->hash, sizeof c->hash) == 0);
    job->rc = is_same ? job->rc : -CQ_E_CORRUPT;
}

static void
done(struct blobd_job *job)
{
    struct check *c = (struct check *)job;
    if (job->rc) {
        if (job->rc == -CQ_E_CORRUPT || job->rc == -CQ_E_IO) {
            blobd_scrub_damaged(&c->piece.id, job->rc);
        }
        cq_bus_reply_err(job->blobd->bus, &c->from, job->rc, 0);
    } else {
        const struct cq_blob_offset m = {c->piece.offset + c->piece.size};
        cq_bus_reply(job->blobd->bus, &c->from, &cq_blob_offset_schema, &m);
    }
    free(c);
}

void
blobd_check_tick(struct blobd_checks *c)
{
    while (c->waiting && blobd_scrub_take(c->blobd->scrub, c->waiting->piece.size)) {
        struct check *check = c->waiting;
        c->waiting = check->next;
        c->tail = c->waiting ? c->tail : &c->waiting;
        c->count--;
        blobd_job_start(&check->job);
    }
}

static bool
is_waiting(const struct blobd_checks *c, const struct cq_bus_from *from)
{
    for (const struct check *w = c->waiting; w; w = w->next) {
        if (w->from.rid == from->rid && strcmp(w->from.src, from->src) == 0) {
            return true;
        }
    }
    return false;
}

static void
enqueue(struct blobd_checks *c, const struct cq_bus_from *from, const struct cq_blob_check *m)
{
    struct check *check = cq_alloc(sizeof *check);
    *check = (struct check){.job = {.blobd = c->blobd, .run = run, .done = done},
                            .from = *from,
                            .piece = {.id = m->id, .offset = m->offset, .size = (size_t)m->size},
                            .length = m->length};
    memcpy(check->hash, m->hash.p, sizeof check->hash);
    if (!m->size) {
        blobd_job_start(&check->job); /* two small reads: not worth waiting */
        return;
    }
    *c->tail = check;
    c->tail = &check->next;
    c->count++;
    blobd_check_tick(c);
}

void
blobd_on_check(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_check m;
    int rc = cq_schema_read(&cq_blob_check_schema, fields, count, &m);
    if (!rc && is_waiting(b->checks, from)) {
        return; /* repeated by the bus */
    }
    rc = rc || b->checks->count < WAITING_MAX ? rc : -CQ_E_BUSY;
    if (rc) {
        cq_bus_reply_err(b->bus, from, rc, 0);
        return;
    }
    enqueue(b->checks, from, &m);
}

/* ---- which ones are there ---- */

struct list_job {
    struct blobd_job job; /* first */
    struct cq_bus_from from;
    struct cq_id after;
    struct blobd_ids list; /* behind it, of whole folders */
};

static void
add(void *ctx, const struct cq_id *id)
{
    struct list_job *j = ctx;
    if (cq_id_is_none(&j->after) || cq_id_cmp(id, &j->after) > 0) {
        blobd_ids_add(&j->list, id);
    }
}

static int
compare(const void *a, const void *b)
{
    return cq_id_cmp(a, b);
}

/* Folders are named by the first digits of the ids in them. */
static void
run_list(struct blobd_job *job)
{
    struct list_job *j = (struct list_job *)job;
    unsigned folder = (unsigned)j->after.b[0] << 4 | j->after.b[1] >> 4;
    while (!job->rc && folder < BLOBD_FOLDERS && j->list.count < CQ_BLOB_LIST_MAX) {
        job->rc = blobd_volume_each_blob(job->blobd->volume, folder++, add, j);
    }
    if (j->list.count) {
        qsort(j->list.ids, j->list.count, sizeof *j->list.ids, compare);
    }
}

static void
done_list(struct blobd_job *job)
{
    struct list_job *j = (struct list_job *)job;
    cq_buf_t list = {0};
    size_t count = j->list.count < CQ_BLOB_LIST_MAX ? j->list.count : CQ_BLOB_LIST_MAX;
    for (size_t i = 0; i < count; i++) {
        cq_pack_id(&list, &j->list.ids[i]);
    }
    if (job->rc) {
        cq_bus_reply_err(job->blobd->bus, &j->from, job->rc, 0);
    } else {
        const struct cq_blob_ids m = {cq_list_of(&list, count)};
        cq_bus_reply(job->blobd->bus, &j->from, &cq_blob_ids_schema, &m);
    }
    cq_buf_free(&list);
    blobd_ids_free(&j->list);
    free(j);
}

void
blobd_on_list(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_list m;
    int rc = cq_schema_read(&cq_blob_list_schema, fields, count, &m);
    if (rc) {
        cq_bus_reply_err(b->bus, from, rc, 0);
        return;
    }
    struct list_job *j = cq_alloc(sizeof *j);
    *j = (struct list_job){
        .job = {.blobd = b, .run = run_list, .done = done_list}, .from = *from, .after = m.after};
    blobd_job_start(&j->job);
}
