/* SPDX-License-Identifier: MPL-2.0
 * Blobs come and go meanwhile. A file that is missing is a finding only if the row, read
 * afterwards, still says that it is there: a row says "dead" before its file goes. A file without a
 * row only if it is still there after the row was looked for: a row comes before its file and goes
 * after it.
 */
#include "store/fsck_files.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/blob.h"
#include "store/blob_link.h"
#include "store/key.h"

enum {
    BATCH = 512,
    PENDING_MAX = 64,
};

/* No blob has this length: the answer says only whether the file is there. */
#define PROBE_LENGTH ((uint64_t)INT64_MAX)

struct files {
    struct store_fsck_files *in;
    store_blob_link_t *link;
    struct store_blob_entry batch[BATCH];
    size_t batch_count;
    struct store_key at; /* the next batch begins here */
    bool is_through;
    struct store_blob_question pending[PENDING_MAX]; /* more of what was read in part */
    size_t pending_count;
    struct cq_id ids[CQ_BLOB_LIST_MAX]; /* of the last BLOB_LIST */
    size_t id_count;
    bool is_away; /* blobd does not answer */
};

/* ---- rows ---- */

static bool
read_entry(struct cq_view key, struct cq_view value, struct store_blob_entry *e)
{
    struct store_blob blob;
    if (key.n != 2 + CQ_ID_SIZE || store_blob_read(value, &blob) ||
        blob.state != STORE_BLOB_WHOLE) {
        return false; /* what does not decode is a finding elsewhere */
    }
    memcpy(e->id.b, key.p + 2, CQ_ID_SIZE);
    memcpy(e->hash, blob.hash, sizeof e->hash);
    e->length = blob.length;
    return true;
}

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct files *f = ctx;
    if (f->batch_count == BATCH) {
        f->at.n = 0;
        store_key_add(&f->at, key.p, key.n < STORE_KEY_MAX ? key.n : STORE_KEY_MAX);
        f->is_through = false;
        return false;
    }
    f->batch_count += read_entry(key, value, &f->batch[f->batch_count]);
    return true;
}

static int
next_batch(struct files *f)
{
    const struct cq_view all = {0};
    store_snapshot_t *s = NULL;
    f->batch_count = 0;
    f->is_through = true;
    int rc = store_snapshot_open(f->in->engine, &s);
    rc = rc ? rc
            : store_snapshot_scan(s, STORE_TABLE_BLOB, all, f->at.n ? store_key_view(&f->at) : all,
                                  on_row, f);
    store_snapshot_close(&s);
    return rc;
}

/* Does a row say that this blob is complete, with this hash (NULL: or is there any row)? */
static int
is_in_row(struct files *f, const struct cq_id *id, const uint8_t *hash, bool *is)
{
    struct store_key key = store_key_of(id);
    struct store_blob_entry e;
    struct cq_view row;
    store_snapshot_t *s = NULL;
    int rc = store_snapshot_open(f->in->engine, &s);
    rc = rc ? rc : store_snapshot_row(s, STORE_TABLE_BLOB, store_key_view(&key), &row);
    if (!rc && hash) {
        *is = read_entry(store_key_view(&key), row, &e) && memcmp(e.hash, hash, sizeof e.hash) == 0;
    } else {
        *is = !rc;
    }
    store_snapshot_close(&s);
    return rc == -CQ_E_NOT_FOUND ? 0 : rc;
}

/* ---- findings ---- */

static void
find(struct files *f, enum store_fsck_kind kind, const struct cq_id *id, const char *is)
{
    char where[STORE_FSCK_WHERE_SIZE], hex[CQ_ID_HEX_SIZE];
    (void)snprintf(where, sizeof where, "file of blob=%s", cq_id_hex(id, hex));
    store_fsck_report_find(f->in->report, kind, where, is,
                           kind == STORE_FSCK_BLOB_ORPHAN ? "no file: no row knows it"
                                                          : "the file that its row describes");
}

static int
judge(struct files *f, const struct store_blob_entry *e, int rc)
{
    bool is_known = true;
    int err = is_in_row(f, &e->id, e->hash, &is_known);
    if (!err && is_known) {
        bool is_missing = rc == -CQ_E_NOT_FOUND;
        find(f, is_missing ? STORE_FSCK_BLOB_MISSING : STORE_FSCK_BLOB_DAMAGED, &e->id,
             is_missing       ? "missing"
             : rc == -CQ_E_IO ? "cannot be read"
                              : "of another size or with other bytes");
    }
    return err;
}

static void
say_away(struct files *f)
{
    if (!f->is_away) {
        store_fsck_report_find(f->in->report, STORE_FSCK_BLOB_UNCHECKED, "blobd", "does not answer",
                               "an answer: the files were not looked at");
    }
    f->is_away = true;
}

/* ---- online ---- */

/* Of what is behind the offset. */
static uint64_t
step_bytes(const struct files *f, const struct store_blob_entry *e, uint64_t offset)
{
    if (!f->in->with_data || e->length == PROBE_LENGTH) {
        return 0;
    }
    uint64_t left = e->length - offset;
    return left < CQ_BLOB_CHECK_MAX ? left : CQ_BLOB_CHECK_MAX;
}

static int
on_checked(struct files *f, const struct store_blob_question *q, const struct store_blob_answer *a)
{
    if (q->entry.length == PROBE_LENGTH) {
        if (a->rc != -CQ_E_NOT_FOUND) {
            find(f, STORE_FSCK_BLOB_ORPHAN, &q->entry.id, "a file");
        }
        return 0;
    }
    if (a->rc) {
        return judge(f, &q->entry, a->rc);
    }
    f->in->bytes += q->bytes;
    if (f->in->with_data && a->value < q->entry.length && f->pending_count < PENDING_MAX) {
        struct store_blob_question *more = &f->pending[f->pending_count++];
        *more = *q;
        more->offset = a->value;
        more->bytes = step_bytes(f, &q->entry, a->value);
    }
    return 0;
}

static int
on_answer(void *ctx, const struct store_blob_question *q, const struct store_blob_answer *a)
{
    struct files *f = ctx;
    if (a->rc == -CQ_E_DEADLINE || a->rc == -CQ_E_UNAVAILABLE || a->rc == -CQ_E_BUSY) {
        say_away(f);
        return 0;
    }
    if (q->kind == STORE_BLOB_LINK_CHECK) {
        return on_checked(f, q, a);
    }
    f->id_count = a->id_count;
    if (a->id_count) {
        memcpy(f->ids, a->ids, a->id_count * sizeof *a->ids);
    }
    return a->rc;
}

/* One more step of each that was read in part. */
static int
go_on(struct files *f)
{
    int rc = 0;
    while (!rc && f->pending_count) {
        struct store_blob_question q = f->pending[--f->pending_count];
        rc = store_blob_link_ask(f->link, &q);
    }
    return rc;
}

static int
ask(struct files *f, const struct store_blob_entry *e)
{
    const struct store_blob_question q = {
        .kind = STORE_BLOB_LINK_CHECK, .entry = *e, .bytes = step_bytes(f, e, 0)};
    int rc = go_on(f);
    return rc ? rc : store_blob_link_ask(f->link, &q);
}

static int
drain(struct files *f)
{
    int rc = store_blob_link_wait(f->link);
    while (!rc && f->pending_count && !f->is_away) {
        rc = go_on(f);
        rc = rc ? rc : store_blob_link_wait(f->link);
    }
    return rc;
}

static int
check_rows_online(struct files *f)
{
    int rc = 0;
    do {
        rc = next_batch(f);
        for (size_t i = 0; !rc && i < f->batch_count && !f->is_away; i++) {
            rc = ask(f, &f->batch[i]);
            f->in->count++;
        }
        store_job_say(f->in->job, "files of blobs: %llu", (unsigned long long)f->in->count);
    } while (!rc && !f->is_through && !f->is_away);
    return rc ? rc : drain(f);
}

static int
probe(struct files *f, const struct cq_id *id)
{
    bool is_known = false;
    int rc = is_in_row(f, id, NULL, &is_known);
    const struct store_blob_entry e = {.id = *id, .length = PROBE_LENGTH};
    return rc || is_known ? rc : ask(f, &e);
}

static int
check_folder_online(struct files *f)
{
    struct cq_id after = {{0}};
    int rc = 0;
    do {
        const struct store_blob_question q = {.kind = STORE_BLOB_LINK_LIST, .entry.id = after};
        f->id_count = 0;
        rc = store_blob_link_ask(f->link, &q);
        rc = rc ? rc : drain(f);
        for (size_t i = 0; !rc && i < f->id_count; i++) {
            rc = probe(f, &f->ids[i]);
        }
        after = f->id_count ? f->ids[f->id_count - 1] : after;
        rc = rc ? rc : drain(f);
    } while (!rc && f->id_count && !f->is_away);
    return rc;
}

static int
check_online(struct files *f)
{
    const struct store_blob_question has = {.kind = STORE_BLOB_LINK_HAS};
    uint64_t is_there = 0;
    f->link = store_blob_link_new(f->in->job, on_answer, f);
    int rc = store_blob_link_call(f->link, &has, &is_there);
    rc = rc ? rc : check_rows_online(f);
    if (!rc && !f->is_away && (is_there || f->in->count)) {
        rc = check_folder_online(f);
    }
    store_blob_link_destroy(&f->link);
    return rc;
}

/* ---- offline ---- */

static int
on_file(void *ctx, const struct cq_id *id)
{
    struct files *f = ctx;
    bool is_known = false;
    int rc = is_in_row(f, id, NULL, &is_known);
    if (!rc && !is_known) {
        find(f, STORE_FSCK_BLOB_ORPHAN, id, "a file");
    }
    return rc;
}

static int
check_offline(struct files *f)
{
    int rc = 0;
    do {
        rc = next_batch(f);
        for (size_t i = 0; !rc && i < f->batch_count; i++) {
            const struct store_blob_entry *e = &f->batch[i];
            int err = store_blob_tree_check(f->in->root, e, f->in->with_data);
            f->in->count++;
            f->in->bytes += f->in->with_data ? e->length : 0;
            rc = err ? judge(f, e, err) : 0;
        }
    } while (!rc && !f->is_through);
    return rc ? rc : store_blob_tree_each(f->in->root, on_file, f);
}

int
store_fsck_files_check(struct store_fsck_files *in)
{
    struct files *f = cq_alloc(sizeof *f);
    f->in = in;
    int rc = in->job ? check_online(f) : check_offline(f);
    free(f);
    return rc;
}
