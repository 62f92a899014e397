/* SPDX-License-Identifier: MPL-2.0
 * Uploads: what edges ask, what the disk threads do about it, what is answered.
 *
 * Order of things that must survive a crash at any point:
 *   create: the store has reserved (quota), then the file is there, then the edge is told; without
 * a file the store releases it, as nobody else knows the id; complete: sealed and fsynced among the
 * blobs, then the store knows it durably, then the edge is told. Whoever asks for the state of an
 * upload whose end was interrupted gets it finished.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "blobd/stats.h"
#include "blobd/upload.h"

enum {
    STORE_DEADLINE_MS = 8000
};

/* ---- on a disk thread ---- */

static int run_create(struct blobd_ask *ask);
static int run_state(struct blobd_ask *ask);
static int run_begin(struct blobd_ask *ask);
static int run_write(struct blobd_ask *ask);
static int run_end(struct blobd_ask *ask);
static int run_drop(struct blobd_ask *ask);

static const struct {
    int (*run)(struct blobd_ask *ask);
    bool needs_part; /* opened before; asked by its uploader */
    bool any_user;   /* who asks has shown the transfer's number */
} kinds[BLOBD_ASK_COUNT] = {
    [BLOBD_ASK_CREATE] = {run_create, false, false}, [BLOBD_ASK_STATE] = {run_state, true, false},
    [BLOBD_ASK_BEGIN] = {run_begin, true, false},    [BLOBD_ASK_WRITE] = {run_write, true, true},
    [BLOBD_ASK_END] = {run_end, true, true},         [BLOBD_ASK_DROP] = {run_drop, true, false},
};

static bool
is_complete(const blobd_part_t *p)
{
    return blobd_part_offset(p) == blobd_part_header(p)->length;
}

static uint64_t
kept_offset(const blobd_part_t *p)
{
    uint64_t tentative = blobd_part_header(p)->tentative_from;
    return tentative < blobd_part_offset(p) ? tentative : blobd_part_offset(p);
}

/* Is it complete already? Then header and root say what it is. */
static int
look_among_blobs(struct blobd_ask *ask, const struct cq_id *id)
{
    blobd_blob_t *blob;
    int rc = blobd_blob_open(ask->job.blobd->volume, id, &blob);
    if (rc) {
        return rc;
    }
    /* Perhaps we died, or the disk failed, between its move to here and the sync of that. */
    rc = blobd_blob_sync(ask->job.blobd->volume, id);
    if (rc) {
        blobd_blob_close(&blob);
        return rc;
    }
    ask->header = *blobd_blob_header(blob);
    memcpy(ask->root, blobd_blob_root(blob), sizeof ask->root);
    blobd_blob_close(&blob);
    if (!kinds[ask->kind].any_user && !cq_id_eq(&ask->header.user, &ask->user)) {
        return -CQ_E_NOT_FOUND;
    }
    bool is_elsewhere = ask->kind == BLOBD_ASK_BEGIN && ask->offset != ask->header.length;
    ask->offset = ask->header.length;
    ask->is_whole = true;
    return is_elsewhere ? -CQ_E_BLOB_OFFSET : 0;
}

static int
finish(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    ask->header = *blobd_part_header(u->part);
    int rc = blobd_part_finish(ask->job.blobd->volume, &u->part, ask->root);
    if (!u->part) {
        ask->is_whole = true; /* even if the folder's sync failed: asked again, it is looked up */
        ask->offset = ask->header.length;
    }
    return rc;
}

static int
run_create(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    int rc = 0;
    if (!u->part) {
        rc = blobd_part_create(ask->job.blobd->volume, &ask->header, &u->part);
        ask->flag = rc && rc != -CQ_E_BAD_STATE;
    }
    if (rc == -CQ_E_BAD_STATE) {
        rc = blobd_part_open(ask->job.blobd->volume, &u->id, &u->part);
    }
    if (rc) {
        return rc;
    }
    const struct cq_blobfile_header *h = blobd_part_header(u->part);
    if (!cq_id_eq(&h->user, &ask->user) || h->length != ask->header.length) {
        return -CQ_E_NOT_FOUND;
    }
    ask->header = *h;
    ask->offset = kept_offset(u->part);
    return is_complete(u->part) ? finish(ask) : 0;
}

static int
run_state(struct blobd_ask *ask)
{
    const blobd_part_t *p = ask->upload->part;
    bool is_open_end = blobd_part_header(p)->tentative_from != CQ_BLOBFILE_NOT_TENTATIVE;
    if (is_complete(p) && !is_open_end) {
        return finish(ask);
    }
    ask->header = *blobd_part_header(p);
    ask->offset = kept_offset(p);
    return 0;
}

static int
run_begin(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    if (u->transfer != ask->transfer) {
        int rc = blobd_part_cut(u->part); /* what the transfer before left unverified */
        if (rc) {
            return rc;
        }
        u->transfer = 0;
        if (blobd_part_offset(u->part) != ask->offset) {
            ask->offset = blobd_part_offset(u->part);
            return -CQ_E_BLOB_OFFSET;
        }
        rc = ask->flag ? blobd_part_begin_tentative(u->part) : 0;
        if (rc) {
            return rc;
        }
        u->transfer = ask->transfer;
    }
    ask->offset = blobd_part_offset(u->part);
    return 0;
}

static int
run_write(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    if (u->transfer != ask->transfer) {
        return -CQ_E_BAD_STATE;
    }
    uint64_t have = blobd_part_offset(u->part);
    /* Repeated by the bus: it has it. Ahead of it: one before was refused. */
    int rc = 0;
    if (ask->offset > have || (ask->offset < have && ask->offset + ask->size > have)) {
        rc = -CQ_E_BLOB_OFFSET;
    } else if (ask->offset == have) {
        rc = blobd_part_append(ask->job.blobd->volume, u->part, ask->data, ask->size);
    }
    ask->offset = blobd_part_offset(u->part);
    return rc;
}

static int
run_end(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    if (u->transfer == ask->transfer) {
        /* What is complete is synced when it is sealed, and what is cut off then is nothing. */
        bool is_sealed = ask->flag && is_complete(u->part);
        int rc = is_sealed ? 0 : ask->flag ? blobd_part_keep(u->part) : blobd_part_cut(u->part);
        if (rc) {
            return rc;
        }
        u->transfer = 0;
    }
    ask->header = *blobd_part_header(u->part);
    ask->offset = kept_offset(u->part);
    return is_complete(u->part) && ask->flag ? finish(ask) : 0;
}

static int
run_drop(struct blobd_ask *ask)
{
    struct blobd_upload *u = ask->upload;
    ask->header = *blobd_part_header(u->part);
    blobd_part_close(&u->part);
    return blobd_part_remove(ask->job.blobd->volume, &u->id);
}

void
blobd_on_upload_run(struct blobd_job *job)
{
    struct blobd_ask *ask = (struct blobd_ask *)job;
    struct blobd_upload *u = ask->upload;
    if (kinds[ask->kind].needs_part) {
        if (!u->part) {
            job->rc = blobd_part_open(job->blobd->volume, &u->id, &u->part);
        }
        if (job->rc == -CQ_E_NOT_FOUND) {
            job->rc = look_among_blobs(ask, &u->id);
            return;
        }
        if (!job->rc && !kinds[ask->kind].any_user &&
            !cq_id_eq(&blobd_part_header(u->part)->user, &ask->user)) {
            job->rc = -CQ_E_NOT_FOUND;
        }
        if (job->rc) {
            return;
        }
    }
    job->rc = kinds[ask->kind].run(ask);
}

/* ---- answers, on the loop ---- */

static void
note_failure(const struct blobd_ask *ask, int rc)
{
    char hex[CQ_ID_HEX_SIZE];
    if (rc == -CQ_E_CORRUPT || rc == -CQ_E_IO) {
        CQ_LOG(ERROR, "BLOBD-UPLOAD-FAIL", "blob=%s err=%s", cq_id_hex(&ask->header.id, hex),
               cq_err_name(rc));
    }
}

static void
answer(struct blobd_ask *ask, int rc)
{
    cq_bus_t *bus = ask->job.blobd->bus;
    if (rc) {
        note_failure(ask, rc);
        cq_bus_reply_err(bus, &ask->from, rc, ask->offset);
    } else if (ask->kind == BLOBD_ASK_DROP) {
        const struct cq_empty none = {0};
        cq_bus_reply(bus, &ask->from, &cq_empty_schema, &none);
    } else if (ask->kind <= BLOBD_ASK_STATE) {
        const struct cq_blob_state m = {ask->offset, ask->header.length,
                                        ask->header.expires_unix_ms, ask->is_whole};
        cq_bus_reply(bus, &ask->from, &cq_blob_state_schema, &m);
    } else if (ask->kind < BLOBD_ASK_DROP) {
        const struct cq_blob_offset m = {ask->offset};
        cq_bus_reply(bus, &ask->from, &cq_blob_offset_schema, &m);
    }
    free(ask);
}

static void
on_whole_told(void *ctx, int err)
{
    answer(ctx, err);
}

static void
on_released(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    (void)fields;
    (void)count;
    struct blobd_ask *ask = ctx;
    answer(ask, ask->job.rc ? ask->job.rc : err == -CQ_E_NOT_FOUND ? 0 : err);
}

static void
release(struct blobd_ask *ask)
{
    const struct cq_blob_ref m = {ask->user, ask->header.id};
    const struct cq_bus_wait wait = {STORE_DEADLINE_MS, on_released, ask};
    int rc = cq_bus_request(ask->job.blobd->bus, "store", CQ_BUS_BLOB_RELEASE, &cq_blob_ref_schema,
                            &m, &wait);
    if (rc) {
        answer(ask, ask->job.rc ? ask->job.rc : rc);
    }
}

void
blobd_on_upload_done(struct blobd_ask *ask)
{
    int rc = ask->job.rc;
    if (!rc && ask->is_whole && ask->kind == BLOBD_ASK_DROP) {
        answer(ask, -CQ_E_BAD_STATE); /* complete: no upload any more, the store decides */
    } else if (!rc && ask->is_whole) {
        const struct cq_blob_whole m = {
            ask->header.user, ask->header.id, ask->header.length, {ask->root, sizeof ask->root}};
        blobd_upload_tell_whole(ask->job.blobd, &m, on_whole_told, ask);
    } else if (rc ? ask->kind == BLOBD_ASK_CREATE && ask->flag : ask->kind == BLOBD_ASK_DROP) {
        release(ask);
    } else {
        blobd_stats.bytes_in_total += !rc && ask->kind == BLOBD_ASK_WRITE ? ask->size : 0;
        answer(ask, rc);
    }
}

struct told {
    blobd_whole_fn *fn;
    void *ctx;
};

static void
on_told(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    (void)fields;
    (void)count;
    struct told told = *(struct told *)ctx;
    free(ctx);
    blobd_stats.whole_total += !err;
    told.fn(told.ctx, err);
}

void
blobd_upload_tell_whole(blobd_t *b, const struct cq_blob_whole *m, blobd_whole_fn *fn, void *ctx)
{
    struct told *told = cq_alloc(sizeof *told);
    *told = (struct told){fn, ctx};
    const struct cq_bus_wait wait = {STORE_DEADLINE_MS, on_told, told};
    int rc = cq_bus_request(b->bus, "store", CQ_BUS_BLOB_WHOLE, &cq_blob_whole_schema, m, &wait);
    if (rc) {
        free(told);
        fn(ctx, rc);
    }
}

/* ---- requests ---- */

static struct blobd_ask *
new_ask(enum blobd_ask_kind kind, const struct cq_bus_from *from, const struct cq_id *user)
{
    struct blobd_ask *ask = cq_alloc(sizeof *ask);
    ask->kind = kind;
    ask->from = *from;
    ask->user = *user;
    return ask;
}

static void
ask_upload(blobd_t *b, const struct cq_id *id, struct blobd_ask *ask)
{
    ask->job.blobd = b;
    ask->header.id = *id;
    int rc = blobd_upload_ask(b, id, ask);
    if (!rc) {
        return;
    }
    ask->job.rc = rc;
    ask->offset = 0;
    free(ask->data);
    ask->data = NULL;
    /* (Open: asked for again, and made before.) */
    if (ask->kind == BLOBD_ASK_CREATE && !blobd_upload_is_open(b->uploads, id)) {
        release(ask);
    } else {
        answer(ask, rc);
    }
}

static void
on_reserved(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    (void)fields;
    (void)count;
    struct blobd_ask *ask = ctx;
    if (err) {
        answer(ask, err);
        return;
    }
    blobd_stats.uploads_total++;
    struct cq_id id = ask->header.id;
    ask_upload(ask->job.blobd, &id, ask);
}

void
blobd_on_create(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_create m;
    int rc = cq_schema_read(&cq_blob_create_schema, fields, count, &m);
    if (!rc && m.length > b->cfg->length_max) {
        rc = -CQ_E_TOO_BIG;
    }
    if (!rc && blobd_volume_room(b->volume) < m.length) {
        rc = -CQ_E_NO_SPACE;
    }
    if (rc) {
        cq_bus_reply_err(b->bus, from, rc, rc == -CQ_E_TOO_BIG ? b->cfg->length_max : 0);
        return;
    }
    uint64_t now = cq_now_unix_ms();
    struct blobd_ask *ask = new_ask(BLOBD_ASK_CREATE, from, &m.user);
    ask->job.blobd = b;
    ask->header = (struct cq_blobfile_header){
        .id = m.id,
        .user = m.user,
        .length = m.length,
        .created_unix_ms = now,
        .expires_unix_ms = now + b->cfg->upload_life_s * 1000,
        .tentative_from = CQ_BLOBFILE_NOT_TENTATIVE,
    };
    const struct cq_blob_reserve r = {m.user, m.id, m.length, ask->header.expires_unix_ms};
    const struct cq_bus_wait wait = {STORE_DEADLINE_MS, on_reserved, ask};
    rc = cq_bus_request(b->bus, "store", CQ_BUS_BLOB_RESERVE, &cq_blob_reserve_schema, &r, &wait);
    if (rc) {
        answer(ask, rc);
    }
}

static void
ask_ref(blobd_t *b,
        enum blobd_ask_kind kind,
        const struct cq_bus_from *from,
        cq_reader_t *fields,
        size_t count)
{
    struct cq_blob_ref m;
    int rc = cq_schema_read(&cq_blob_ref_schema, fields, count, &m);
    if (rc) {
        cq_bus_reply_err(b->bus, from, rc, 0);
        return;
    }
    ask_upload(b, &m.id, new_ask(kind, from, &m.user));
}

void
blobd_on_state(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    ask_ref(ctx, BLOBD_ASK_STATE, from, fields, count);
}

void
blobd_on_drop(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    ask_ref(ctx, BLOBD_ASK_DROP, from, fields, count);
}

void
blobd_on_begin(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_begin m;
    int rc = cq_schema_read(&cq_blob_begin_schema, fields, count, &m);
    if (rc || !m.transfer) {
        cq_bus_reply_err(b->bus, from, rc ? rc : -CQ_E_BAD_ARG, 0);
        return;
    }
    struct blobd_ask *ask = new_ask(BLOBD_ASK_BEGIN, from, &m.user);
    ask->transfer = m.transfer;
    ask->offset = m.offset;
    ask->flag = m.tentative;
    ask_upload(b, &m.id, ask);
}

void
blobd_on_write(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    static const struct cq_id nobody;
    blobd_t *b = ctx;
    struct cq_blob_write m;
    int rc = cq_schema_read(&cq_blob_write_schema, fields, count, &m);
    if (rc || !m.transfer) {
        cq_bus_reply_err(b->bus, from, rc ? rc : -CQ_E_BAD_ARG, 0);
        return;
    }
    struct blobd_ask *ask = new_ask(BLOBD_ASK_WRITE, from, &nobody);
    ask->transfer = m.transfer;
    ask->offset = m.offset;
    ask->size = m.bytes.n;
    ask->data = cq_alloc(m.bytes.n);
    memcpy(ask->data, m.bytes.p, m.bytes.n);
    ask_upload(b, &m.id, ask);
}

void
blobd_on_end(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    static const struct cq_id nobody;
    blobd_t *b = ctx;
    struct cq_blob_end m;
    int rc = cq_schema_read(&cq_blob_end_schema, fields, count, &m);
    if (rc || !m.transfer) {
        cq_bus_reply_err(b->bus, from, rc ? rc : -CQ_E_BAD_ARG, 0);
        return;
    }
    struct blobd_ask *ask = new_ask(BLOBD_ASK_END, from, &nobody);
    ask->transfer = m.transfer;
    ask->flag = m.keep;
    ask_upload(b, &m.id, ask);
}
