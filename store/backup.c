/* SPDX-License-Identifier: MPL-2.0 */
#include "store/backup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/log.h"

#include "store/backup_blobs.h"
#include "store/blob_tree.h"
#include "store/copy_check.h"
#include "store/core.h"
#include "store/disk.h"
#include "store/fsck_job.h"

enum {
    PATH_SIZE = CQ_JOB_PATH_MAX + 64,
    DIR_MODE = 0700,
    SPARE_BYTES = 16 * 1024 * 1024, /* of the disk, beside the copy */
    WHY_SIZE = 256,
    STAGES = 3, /* of progress: copying, reading back, checking */
};

struct backup {
    store_job_t *job;
    const struct store_core *core; /* its configuration and its engine only */
    char path[PATH_SIZE];
    char partial[PATH_SIZE];
    char parent[PATH_SIZE];
    char file[PATH_SIZE];
    char manifest_path[PATH_SIZE];
    uint64_t reserve_bytes; /* of the target's disk, if the store lives on it too */
    uint64_t expected_bytes;
    uint64_t read_bytes; /* read back */
    uint64_t found;      /* by fsck, in the copy */
    store_disk_file_t *out;
    int write_rc;
    struct store_manifest manifest;
    store_backup_blobs_t *blobs; /* NULL: the database alone */
    struct store_backup_blobs_result saved;
};

/* In a folder that is ours to remove. */
static const char unfinished_manifest[] = STORE_BACKUP_MANIFEST ".new";
static const char *const our_files[] = {STORE_BACKUP_FILE, STORE_BLOB_TREE_LIST,
                                        STORE_BACKUP_MANIFEST, unfinished_manifest, NULL};

static struct store_manifest_part *
part_of(struct backup *b)
{
    return &b->manifest.parts[0];
}

/* ---- where to ---- */

static int
name_paths(struct backup *b)
{
    const char *path = store_job_path(b->job);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    (void)snprintf(b->path, sizeof b->path, "%.*s", (int)n, path);
    (void)snprintf(b->partial, sizeof b->partial, "%.*s" STORE_BACKUP_PARTIAL, (int)n, path);
    int len = snprintf(b->file, sizeof b->file, "%.*s%s/%s", (int)n, path, STORE_BACKUP_PARTIAL,
                       STORE_BACKUP_FILE);
    int other = snprintf(b->manifest_path, sizeof b->manifest_path, "%.*s%s/%s", (int)n, path,
                         STORE_BACKUP_PARTIAL, STORE_BACKUP_MANIFEST);
    if (n < 2 || len >= PATH_SIZE || other >= PATH_SIZE ||
        !store_disk_parent(b->path, b->parent, sizeof b->parent)) {
        store_job_say(b->job, "%s is not a folder to back up into", path);
        return -CQ_E_BAD_ARG;
    }
    return 0;
}

/* Is inner the folder outer, or in it? Both must exist. */
static bool
is_inside(const char *inner, const char *outer)
{
    char *a = realpath(inner, NULL);
    char *b = realpath(outer, NULL);
    size_t n = b ? strlen(b) : 0;
    bool is_in = a && b && strncmp(a, b, n) == 0 && (a[n] == '\0' || a[n] == '/');
    free(a);
    free(b);
    return is_in;
}

static int
remove_partial(const struct backup *b)
{
    int rc = store_blob_tree_remove(b->partial);
    return rc ? rc : store_disk_remove(b->partial, our_files);
}

/* What an unfinished backup has left is removed, but for blobs: those that are whole need not be
 * copied again. Anything else is not ours. */
static int
clear_partial(struct backup *b)
{
    cq_buf_t old = {0};
    if (store_disk_is_free(b->partial) == 0) {
        return 0;
    }
    int rc = store_disk_load(b->manifest_path, STORE_MANIFEST_BYTES_MAX, &old);
    bool is_ours = rc == 0 && store_manifest_is_ours((struct cq_view){old.data, old.size});
    cq_buf_free(&old);
    int left = 0;
    if (is_ours) {
        left = b->blobs ? store_disk_empty(b->partial, our_files) : remove_partial(b);
    }
    if (!is_ours || left) {
        store_job_say(b->job, "%s is in the way and was not left by a backup: move it away",
                      b->partial);
        return -CQ_E_BAD_STATE;
    }
    CQ_LOG(INFO, "STORE-BACKUP-LEFTOVER", "removed=1");
    return 0;
}

static int
check_target(struct backup *b)
{
    struct stat st;
    if (stat(b->parent, &st) != 0 || !S_ISDIR(st.st_mode)) {
        store_job_say(b->job, "there is no folder %s to put it in", b->parent);
        return -CQ_E_NOT_FOUND;
    }
    if (is_inside(b->parent, b->core->cfg->data)) {
        store_job_say(b->job, "%s is inside the database's own folder", b->path);
        return -CQ_E_BAD_ARG;
    }
    int rc = store_disk_is_free(b->path);
    if (rc) {
        store_job_say(b->job, "%s exists already and is not an empty folder", b->path);
        return rc;
    }
    return clear_partial(b);
}

static int
check_space(struct backup *b)
{
    struct store_engine_size size;
    uint64_t free_bytes = 0;
    uint64_t device = 0;
    uint64_t own_free = 0;
    uint64_t own_device = 0;
    int rc = store_engine_size(b->core->engine, &size);
    rc = rc ? rc : store_disk_space(b->parent, &free_bytes, &device);
    rc = rc ? rc : store_disk_space(b->core->cfg->data, &own_free, &own_device);
    if (rc) {
        store_job_say(b->job, "the free space of %s cannot be asked for", b->parent);
        return rc;
    }
    b->expected_bytes = size.used_bytes;
    b->reserve_bytes = device == own_device ? b->core->cfg->reserve_bytes : 0;
    uint64_t needed = size.used_bytes + SPARE_BYTES + b->reserve_bytes;
    if (free_bytes < needed) {
        store_job_say(b->job, "%s has %" PRIu64 " MiB free, %" PRIu64 " are needed", b->parent,
                      free_bytes >> 20, needed >> 20);
        return -CQ_E_NO_SPACE;
    }
    return 0;
}

static int
make_partial(struct backup *b)
{
    cq_buf_t text = {0};
    int rc = mkdir(b->partial, DIR_MODE) == 0 || errno == EEXIST ? 0 : store_disk_error(errno);
    store_manifest_write_unfinished(&text, cq_now_unix_ms());
    rc = rc ? rc : store_disk_save(b->manifest_path, text.data, text.size);
    rc = rc ? rc : store_disk_sync_folder(b->parent);
    cq_buf_free(&text);
    if (rc) {
        store_job_say(b->job, "%s cannot be made: %s", b->partial, cq_err_text(rc));
    }
    return rc;
}

/* ---- the copy ---- */

static bool
on_copied(void *ctx, const void *data, size_t n)
{
    struct backup *b = ctx;
    b->write_rc = store_disk_write(b->out, data, n);
    uint64_t done = store_disk_bytes(b->out);
    uint64_t size = done > b->expected_bytes ? done : b->expected_bytes;
    store_job_progress(b->job, done, STAGES * size);
    return b->write_rc == 0 && !store_job_is_cancelled(b->job);
}

static int
make_copy(struct backup *b)
{
    struct store_manifest_part *part = part_of(b);
    store_job_say(b->job, "copying");
    int rc = store_disk_create(b->file, b->reserve_bytes, &b->out);
    if (rc == 0) {
        rc = store_engine_copy(b->core->engine, on_copied, b);
        rc = b->write_rc ? b->write_rc : rc;
    }
    if (rc == 0) {
        part->bytes = store_disk_bytes(b->out);
        rc = store_disk_finish(&b->out, part->hash);
    }
    store_disk_abandon(&b->out);
    if (rc == -CQ_E_NO_SPACE) {
        store_job_say(b->job, "the disk of %s is full", b->parent);
    } else if (rc) {
        store_job_say(b->job, "the copy failed: %s", cq_err_text(rc));
    }
    return rc;
}

/* ---- is it good? ---- */

static int
on_read_back(void *ctx, const void *data, size_t n)
{
    struct backup *b = ctx;
    (void)data;
    b->read_bytes += n;
    store_job_progress(b->job, part_of(b)->bytes + b->read_bytes, STAGES * part_of(b)->bytes);
    return store_job_is_cancelled(b->job) ? -CQ_E_UNAVAILABLE : 0;
}

static bool
is_cancelled(void *ctx)
{
    const struct backup *b = ctx;
    return store_job_is_cancelled(b->job);
}

static bool
on_check(void *ctx)
{
    return !is_cancelled(ctx);
}

static int
verify(struct backup *b)
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    uint64_t bytes = 0;
    struct store_copy_facts facts;
    char why[WHY_SIZE];
    store_job_say(b->job, "verifying");
    int rc = store_disk_read(b->file, on_read_back, b, &bytes, hash);
    if (rc == 0 &&
        (bytes != part_of(b)->bytes || memcmp(hash, part_of(b)->hash, sizeof hash) != 0)) {
        rc = -CQ_E_CORRUPT;
        store_job_say(b->job, "what %s reads is not what was written to it: is the disk broken?",
                      b->file);
        return rc;
    }
    (void)snprintf(why, sizeof why, "%s", cq_err_text(rc));
    rc = rc ? rc : store_copy_check(b->partial, on_check, b, &facts, why, sizeof why);
    if (rc) {
        store_job_say(b->job, "the copy is not good: %s", why);
        return rc;
    }
    b->manifest.schema = facts.schema;
    b->manifest.epoch = facts.epoch;
    b->manifest.head = facts.head;
    b->manifest.marker = facts.marker;
    return 0;
}

static void
on_examined(void *ctx, const struct store_fsck_progress *p)
{
    struct backup *b = ctx;
    uint64_t bytes = part_of(b)->bytes;
    store_job_progress(b->job, (STAGES - 1) * bytes + bytes / 1000 * p->permille, STAGES * bytes);
}

/* Does everything in the copy follow from its log? What fsck finds is in the database as well: that
 * is no reason to be without a backup, but one to be told. */
static int
examine(struct backup *b)
{
    struct store_fsck_report report;
    store_engine_t *copy = NULL;
    store_job_say(b->job, "checking");
    int rc = store_engine_open_copy(b->partial, &copy);
    if (rc) {
        store_job_say(b->job, "the copy cannot be opened: %s", cq_err_text(rc));
        return rc;
    }
    const struct store_fsck_cfg cfg = {.engine = copy,
                                       .vault = b->core->vault,
                                       .is_cancelled = is_cancelled,
                                       .on_progress = on_examined,
                                       .ctx = b};
    rc = store_fsck_run(&cfg, &report);
    if (rc) {
        store_job_say(b->job, "the copy cannot be checked: %s", cq_err_text(rc));
    } else {
        b->found = report.found;
        store_fsck_job_findings(b->job, &report);
    }
    store_fsck_report_free(&report);
    store_engine_close(&copy);
    return rc;
}

/* ---- the blobs ---- */

static int
save_blobs(struct backup *b)
{
    if (!b->blobs) {
        return 0;
    }
    store_engine_t *copy = NULL;
    int rc = store_engine_open_copy(b->partial, &copy);
    if (rc) {
        store_job_say(b->job, "the copy cannot be opened: %s", cq_err_text(rc));
        return rc;
    }
    const struct store_backup_blobs_cfg cfg = {
        .copy = copy, .folder = b->partial, .progress_base = STAGES * part_of(b)->bytes};
    rc = store_backup_blobs_save(b->blobs, &cfg, &b->manifest.parts[1], &b->saved);
    b->manifest.part_count = 2;
    store_engine_close(&copy);
    return rc;
}

/* ---- the name ---- */

/* "34 MiB" */
struct size_text {
    char s[32];
};

static struct size_text
size_text(uint64_t bytes)
{
    struct size_text t;
    bool is_small = bytes < (uint64_t)10 << 20;
    (void)snprintf(t.s, sizeof t.s, "%" PRIu64 " %s", is_small ? bytes >> 10 : bytes >> 20,
                   is_small ? "KiB" : "MiB");
    return t;
}

static void
say_result(struct backup *b)
{
    char blobs[128] = "WITHOUT BLOBS";
    uint64_t found = b->found + b->saved.lost;
    if (b->blobs) {
        (void)snprintf(blobs, sizeof blobs, "%" PRIu64 " blob%s of %s", b->saved.count,
                       b->saved.count == 1 ? "" : "s", size_text(b->saved.bytes).s);
    }
    uint64_t all = STAGES * part_of(b)->bytes + b->saved.bytes;
    store_job_progress(b->job, all, all);
    store_job_say(b->job, "%s: %s, %" PRIu64 " records, %s, verified, %" PRIu64 " finding%s%s",
                  b->path, size_text(part_of(b)->bytes).s, b->manifest.head, blobs, found,
                  found == 1 ? "" : "s",
                  b->found ? ": the database itself is damaged (docs/operating.md, fsck)"
                  : found  ? ": blobs are missing or damaged (docs/operating.md, blobs)"
                           : "");
}

static int
finish(struct backup *b)
{
    cq_buf_t text = {0};
    store_manifest_write(&text, &b->manifest);
    int rc = store_disk_save(b->manifest_path, text.data, text.size);
    cq_buf_free(&text);
    if (rc == 0 && rename(b->partial, b->path) != 0) {
        rc = store_disk_error(errno);
    }
    rc = rc ? rc : store_disk_sync_folder(b->parent);
    if (rc) {
        store_job_say(b->job, "%s cannot be finished: %s", b->path, cq_err_text(rc));
        return rc;
    }
    say_result(b);
    return 0;
}

static int
run_steps(struct backup *b)
{
    static int (*const steps[])(struct backup *) = {name_paths, check_target, check_space,
                                                    make_partial};
    static int (*const work[])(struct backup *) = {make_copy, verify, examine, save_blobs, finish};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof steps / sizeof steps[0]; i++) {
        rc = steps[i](b);
    }
    bool has_begun = rc == 0;
    for (size_t i = 0; rc == 0 && i < sizeof work / sizeof work[0]; i++) {
        rc = store_job_is_cancelled(b->job) ? -CQ_E_UNAVAILABLE : work[i](b);
    }
    store_backup_blobs_end(&b->blobs);
    if (rc && has_begun && remove_partial(b) != 0) {
        CQ_LOG(WARN, "STORE-BACKUP-LEFT", "advice=\"the unfinished backup could not be removed\"");
    }
    return rc;
}

static int
run(store_job_t *job, bool with_blobs)
{
    struct backup *b = calloc(1, sizeof *b);
    if (!b) {
        return -CQ_E_INTERNAL;
    }
    b->job = job;
    b->core = store_job_ctx(job);
    b->manifest.created_unix_ms = cq_now_unix_ms();
    b->manifest.part_count = 1;
    (void)snprintf(b->manifest.version, sizeof b->manifest.version, "%s", CQ_VERSION);
    *part_of(b) =
        (struct store_manifest_part){.name = STORE_BACKUP_PART, .file = STORE_BACKUP_FILE};
    int rc = with_blobs ? store_backup_blobs_begin(job, &b->blobs) : 0;
    if (rc) {
        store_backup_blobs_end(&b->blobs);
    }
    rc = rc ? rc : run_steps(b);
    free(b);
    return rc;
}

int
store_backup_run(store_job_t *job)
{
    return run(job, true);
}

int
store_backup_database_run(store_job_t *job)
{
    return run(job, false);
}
