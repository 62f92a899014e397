/* SPDX-License-Identifier: MPL-2.0 */
#include "store/backup_blobs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/rt/check.h"

#include "store/blob.h"
#include "store/blob_link.h"
#include "store/disk.h"
#include "store/key.h"

enum {
    PATH_SIZE = CQ_JOB_PATH_MAX + 128,
    SETTLE_MS = 20000,
    HOLD_PAUSE_NS = 50 * 1000 * 1000,
    LOST_MAX = 100000, /* beyond that it is no backup of blobs */
};

struct store_backup_blobs {
    store_job_t *job;
    store_blob_link_t *link;
    const struct store_backup_blobs_cfg *cfg;
    store_snapshot_t *snapshot; /* of the copy */
    struct store_backup_blobs_result result;
    uint64_t total_count, total_bytes, done_bytes;
    struct cq_id *lost;
    size_t lost_room;
    store_disk_file_t *list;
    bool is_settled;
    int rc; /* of a callback */
};

/* ---- answers ---- */

static int
note_lost(store_backup_blobs_t *b, const struct cq_id *id, const char *what)
{
    char hex[CQ_ID_HEX_SIZE];
    store_job_find(b->job, "blob %s is %s: not in the backup", cq_id_hex(id, hex), what);
    if (b->result.lost == LOST_MAX) {
        store_job_say(b->job,
                      "more than %d blobs are missing or damaged: is blobd's folder the "
                      "right one? See fsck",
                      LOST_MAX);
        return -CQ_E_CORRUPT;
    }
    if (b->result.lost == b->lost_room) {
        b->lost_room = b->lost_room ? 2 * b->lost_room : 64;
        b->lost = realloc(b->lost, b->lost_room * sizeof *b->lost);
        CQ_ASSERT(b->lost);
    }
    b->lost[b->result.lost++] = *id;
    return 0;
}

static int
on_answer(void *ctx, const struct store_blob_question *q, const struct store_blob_answer *a)
{
    store_backup_blobs_t *b = ctx;
    b->done_bytes += cq_blobfile_size(q->entry.length);
    store_job_progress(b->job, b->cfg->progress_base + b->done_bytes,
                       b->cfg->progress_base + b->total_bytes);
    switch (a->rc) {
    case 0:
        b->result.count++;
        b->result.bytes += cq_blobfile_size(q->entry.length);
        b->result.copied_bytes += a->value;
        return 0;
    case -CQ_E_NOT_FOUND:
        return note_lost(b, &q->entry.id, "missing");
    case -CQ_E_CORRUPT:
        return note_lost(b, &q->entry.id, "damaged");
    case -CQ_E_NO_SPACE:
        store_job_say(b->job, "the disk of %s is full", b->cfg->folder);
        return a->rc;
    case -CQ_E_DEADLINE:
    case -CQ_E_UNAVAILABLE:
        store_job_say(b->job, "blobd does not answer any more: start it and back up again");
        return a->rc;
    default:
        store_job_say(b->job, "blobd cannot write into %s (%s): see its log", b->cfg->folder,
                      cq_err_name(a->rc));
        return a->rc;
    }
}

/* ---- begin and end ---- */

int
store_backup_blobs_begin(store_job_t *job, store_backup_blobs_t **out)
{
    const struct store_blob_question hold = {.kind = STORE_BLOB_LINK_HOLD};
    const struct timespec pause = {.tv_nsec = HOLD_PAUSE_NS};
    store_backup_blobs_t *b = cq_alloc(sizeof *b);
    uint64_t dying = 0;
    int rc;
    b->job = job;
    b->link = store_blob_link_new(job, on_answer, b);
    b->is_settled = true;
    *out = b;
    while ((rc = store_blob_link_call(b->link, &hold, &dying)) == 0 && dying) {
        (void)nanosleep(&pause, NULL);
        if (store_job_is_cancelled(job)) {
            return -CQ_E_UNAVAILABLE;
        }
    }
    return rc;
}

void
store_backup_blobs_end(store_backup_blobs_t **blobs)
{
    const struct store_blob_question free_them = {.kind = STORE_BLOB_LINK_FREE};
    store_backup_blobs_t *b = *blobs;
    if (!b) {
        return;
    }
    if (!b->is_settled) {
        store_blob_link_settle(b->link, SETTLE_MS);
    }
    store_blob_link_tell(b->link, &free_them);
    store_blob_link_destroy(&b->link);
    store_disk_abandon(&b->list);
    free(b->lost);
    free(b);
    *blobs = NULL;
}

/* ---- the rows of the copy ---- */

typedef int entry_fn(store_backup_blobs_t *b, const struct store_blob_entry *e);

struct scan {
    store_backup_blobs_t *b;
    entry_fn *fn;
};

/* Complete blobs only; rows that cannot be read are fsck's business. */
static bool
read_entry(struct cq_view key, struct cq_view value, struct store_blob_entry *e)
{
    struct store_blob blob;
    if (key.n != 2 + CQ_ID_SIZE || store_blob_read(value, &blob) ||
        blob.state != STORE_BLOB_WHOLE) {
        return false;
    }
    memcpy(e->id.b, key.p + 2, CQ_ID_SIZE);
    memcpy(e->hash, blob.hash, sizeof e->hash);
    e->length = blob.length;
    return true;
}

static bool
on_row(void *ctx, struct cq_view key, struct cq_view value)
{
    const struct scan *s = ctx;
    struct store_blob_entry e;
    if (read_entry(key, value, &e)) {
        s->b->rc = s->fn(s->b, &e);
    }
    return s->b->rc == 0;
}

static int
each_entry(store_backup_blobs_t *b, entry_fn *fn)
{
    const struct cq_view all = {0};
    struct scan s = {b, fn};
    b->rc = 0;
    int rc = store_snapshot_scan(b->snapshot, STORE_TABLE_BLOB, all, all, on_row, &s);
    return rc ? rc : b->rc;
}

/* ---- the steps ---- */

static int
count(store_backup_blobs_t *b, const struct store_blob_entry *e)
{
    b->total_count++;
    b->total_bytes += cq_blobfile_size(e->length);
    return 0;
}

static int
ask_for_room(store_backup_blobs_t *b)
{
    const struct store_blob_question q = {
        .kind = STORE_BLOB_LINK_BEGIN, .path = b->cfg->folder, .bytes = b->total_bytes};
    uint64_t none;
    int rc = store_blob_link_call(b->link, &q, &none);
    if (rc == -CQ_E_NO_SPACE) {
        store_job_say(b->job, "no room for %" PRIu64 " MiB of blobs at %s", b->total_bytes >> 20,
                      b->cfg->folder);
    } else if (rc == -CQ_E_DEADLINE || rc == -CQ_E_UNAVAILABLE) {
        store_job_say(b->job, "blobd does not answer: start it, or back up the database alone "
                              "(--no-blobs)");
    } else if (rc) {
        store_job_say(b->job,
                      "blobd cannot write into %s (%s): it must be on the same machine, "
                      "with the same rights, and not be asked to write into its own folder",
                      b->cfg->folder, cq_err_name(rc));
    }
    return rc;
}

static int
save(store_backup_blobs_t *b, const struct store_blob_entry *e)
{
    const struct store_blob_question q = {
        .kind = STORE_BLOB_LINK_SAVE, .path = b->cfg->folder, .entry = *e};
    return store_blob_link_ask(b->link, &q);
}

/* What an earlier attempt has left and this copy of the database does not know. */
static int
drop_stranger(void *ctx, const struct cq_id *id)
{
    store_backup_blobs_t *b = ctx;
    struct store_key key = store_key_of(id);
    struct store_blob_entry e;
    struct cq_view row;
    int rc = store_snapshot_row(b->snapshot, STORE_TABLE_BLOB, store_key_view(&key), &row);
    bool is_known = !rc && read_entry(store_key_view(&key), row, &e);
    return is_known                       ? 0
           : !rc || rc == -CQ_E_NOT_FOUND ? store_blob_tree_unlink(b->cfg->folder, id)
                                          : rc;
}

static int
compare(const void *a, const void *b)
{
    return cq_id_cmp(a, b);
}

static int
list(store_backup_blobs_t *b, const struct store_blob_entry *e)
{
    char line[STORE_BLOB_TREE_LINE_SIZE];
    if (b->result.lost && bsearch(&e->id, b->lost, b->result.lost, sizeof *b->lost, compare)) {
        return 0;
    }
    store_blob_tree_write_line(e, line);
    return store_disk_write(b->list, line, strlen(line));
}

static int
write_list(store_backup_blobs_t *b, struct store_manifest_part *part)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/" STORE_BLOB_TREE_LIST, b->cfg->folder);
    *part = (struct store_manifest_part){.name = STORE_BACKUP_BLOBS, .file = STORE_BLOB_TREE_LIST};
    if (b->result.lost) {
        qsort(b->lost, b->result.lost, sizeof *b->lost, compare);
    }
    int rc = store_disk_create(path, 0, &b->list);
    if (!rc) {
        rc = store_disk_write(b->list, STORE_BLOB_TREE_TITLE, strlen(STORE_BLOB_TREE_TITLE));
    }
    rc = rc ? rc : each_entry(b, list);
    if (!rc) {
        part->bytes = store_disk_bytes(b->list);
        rc = store_disk_finish(&b->list, part->hash);
    }
    if (rc) {
        store_job_say(b->job, "the list of blobs cannot be written: %s", cq_err_text(rc));
    }
    return rc;
}

static int
copy_all(store_backup_blobs_t *b)
{
    int rc = ask_for_room(b);
    if (rc) {
        return rc;
    }
    store_job_say(b->job, "blobs: %" PRIu64, b->total_count);
    b->is_settled = false;
    rc = each_entry(b, save);
    rc = rc ? rc : store_blob_link_wait(b->link);
    if (rc) {
        return rc;
    }
    b->is_settled = true;
    rc = store_blob_tree_each(b->cfg->folder, drop_stranger, b);
    rc = rc ? rc : store_blob_tree_sync(b->cfg->folder);
    if (rc) {
        store_job_say(b->job, "%s cannot be finished: %s", b->cfg->folder, cq_err_text(rc));
    }
    return rc;
}

int
store_backup_blobs_save(store_backup_blobs_t *b,
                        const struct store_backup_blobs_cfg *cfg,
                        struct store_manifest_part *part,
                        struct store_backup_blobs_result *result)
{
    b->cfg = cfg;
    int rc = store_snapshot_open(cfg->copy, &b->snapshot);
    rc = rc ? rc : each_entry(b, count);
    if (rc) {
        store_job_say(b->job, "the copy's table of blobs cannot be read: %s", cq_err_text(rc));
    }
    if (!rc && b->total_count) {
        rc = copy_all(b);
    } else if (!rc) {
        rc = store_blob_tree_remove(cfg->folder); /* of an earlier attempt */
    }
    rc = rc ? rc : write_list(b, part);
    store_snapshot_close(&b->snapshot);
    *result = b->result;
    return rc;
}
