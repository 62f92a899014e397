/* SPDX-License-Identifier: MPL-2.0 */
#include "store/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/backup.h"
#include "store/backup_blobs.h"
#include "store/copy_check.h"
#include "store/disk.h"
#include "store/key.h"
#include "store/restore_blobs.h"

enum {
    PATH_SIZE = 4096 + 64,
    DIR_MODE = 0700,
    WHY_SIZE = 256,
    SPARE_BYTES = 16 * 1024 * 1024
};

#define SUFFIX ".restoring"

struct restore {
    const struct store_core_cfg *cfg;
    const char *backup;
    char target[PATH_SIZE];
    char fresh[PATH_SIZE];
    char parent[PATH_SIZE];
    char source[PATH_SIZE];
    char file[PATH_SIZE];
    char lock_file[PATH_SIZE];
    struct store_manifest manifest;
    store_disk_file_t *out;
    char blobs_target[PATH_SIZE];
    char blobs_fresh[PATH_SIZE];
    bool has_blobs; /* there are some, and they are wanted */
    struct store_restore_blobs blobs;
};

/* What a restore makes on its way. */
static const char *const our_files[] = {STORE_BACKUP_FILE, "lock.mdb", "lock", NULL};

static int
refuse(const struct restore *r, int rc, const char *advice)
{
    char backup[PATH_SIZE];
    char target[PATH_SIZE];
    char text[512];
    CQ_LOG(ERROR, "STORE-RESTORE-REFUSED", "backup=%s data=%s err=%s advice=%s",
           cq_log_text(r->backup, strlen(r->backup), backup, sizeof backup),
           cq_log_text(r->target, strlen(r->target), target, sizeof target), cq_err_name(rc),
           cq_log_text(advice, strlen(advice), text, sizeof text));
    return rc;
}

/* ---- where from, where to ---- */

static int
name_paths(struct restore *r)
{
    size_t n = strlen(r->cfg->data);
    while (n > 1 && r->cfg->data[n - 1] == '/') {
        n--;
    }
    int len = (int)n;
    int longest = snprintf(r->file, sizeof r->file, "%.*s" SUFFIX "/%s", len, r->cfg->data,
                           STORE_BACKUP_FILE);
    int other = snprintf(r->source, sizeof r->source, "%s/%s", r->backup, STORE_BACKUP_FILE);
    (void)snprintf(r->target, sizeof r->target, "%.*s", len, r->cfg->data);
    (void)snprintf(r->fresh, sizeof r->fresh, "%.*s" SUFFIX, len, r->cfg->data);
    (void)snprintf(r->lock_file, sizeof r->lock_file, "%.*s" SUFFIX "/lock.mdb", len, r->cfg->data);
    if (longest >= PATH_SIZE || other >= PATH_SIZE ||
        !store_disk_parent(r->target, r->parent, sizeof r->parent)) {
        return refuse(r, -CQ_E_BAD_ARG, "the path is too long");
    }
    return 0;
}

static int
read_manifest(struct restore *r)
{
    char path[PATH_SIZE];
    cq_buf_t text = {0};
    (void)snprintf(path, sizeof path, "%s/%s", r->backup, STORE_BACKUP_MANIFEST);
    int rc = store_disk_load(path, STORE_MANIFEST_BYTES_MAX, &text);
    if (rc) {
        cq_buf_free(&text);
        return refuse(r, rc, "there is no manifest in it: this is not a backup");
    }
    rc = store_manifest_read((struct cq_view){text.data, text.size}, &r->manifest);
    cq_buf_free(&text);
    if (rc == -CQ_E_BAD_STATE) {
        return refuse(r, rc, "this backup was not finished: use another one");
    }
    if (rc == -CQ_E_NEWER_SCHEMA || (rc == 0 && r->manifest.schema > STORE_SCHEMA_VERSION)) {
        return refuse(r, -CQ_E_NEWER_SCHEMA,
                      "made by a newer version: restore it with that one, or a newer one");
    }
    if (rc) {
        return refuse(r, rc, "the manifest is damaged: use another backup");
    }
    const struct store_manifest_part *part =
        store_manifest_part_of(&r->manifest, STORE_BACKUP_PART);
    if (!part || strcmp(part->file, STORE_BACKUP_FILE) != 0) {
        return refuse(r, -CQ_E_CORRUPT, "the manifest names no database: use another backup");
    }
    return 0;
}

static int
check_target(struct restore *r)
{
    uint64_t free_bytes = 0;
    uint64_t device = 0;
    int rc = store_disk_is_free(r->target);
    if (rc) {
        return refuse(r, rc, "there is a database, or something else, already: move it away first");
    }
    rc = store_disk_space(r->parent, &free_bytes, &device);
    if (rc) {
        return refuse(r, rc, "the folder above the database's is missing: create it");
    }
    uint64_t needed = r->manifest.parts[0].bytes + SPARE_BYTES;
    return free_bytes < needed ? refuse(r, -CQ_E_NO_SPACE, "not enough free space") : 0;
}

static int
make_folder(struct restore *r)
{
    if (store_disk_is_free(r->fresh) != 0 && store_disk_remove(r->fresh, our_files) != 0) {
        return refuse(r, -CQ_E_BAD_STATE, "the folder DIR" SUFFIX " is in the way: move it away");
    }
    if (mkdir(r->fresh, DIR_MODE) != 0 && errno != EEXIST) {
        return refuse(r, store_disk_error(errno), "the folder DIR" SUFFIX " cannot be created");
    }
    return 0;
}

/* ---- the copy ---- */

static int
on_chunk(void *ctx, const void *data, size_t n)
{
    struct restore *r = ctx;
    return store_disk_write(r->out, data, n);
}

static int
copy(struct restore *r)
{
    const struct store_manifest_part *part =
        store_manifest_part_of(&r->manifest, STORE_BACKUP_PART);
    uint8_t read_hash[STORE_MANIFEST_HASH_SIZE];
    uint8_t written_hash[STORE_MANIFEST_HASH_SIZE];
    uint64_t bytes = 0;
    int rc = store_disk_create(r->file, 0, &r->out);
    rc = rc ? rc : store_disk_read(r->source, on_chunk, r, &bytes, read_hash);
    if (rc == 0) {
        rc = store_disk_finish(&r->out, written_hash);
    }
    store_disk_abandon(&r->out);
    if (rc) {
        return refuse(r, rc, "the database of the backup cannot be copied");
    }
    if (bytes != part->bytes || memcmp(read_hash, part->hash, sizeof read_hash) != 0) {
        return refuse(r, -CQ_E_CORRUPT, "the backup is damaged: use another one");
    }
    return 0;
}

static int
check_copy(struct restore *r)
{
    struct store_copy_facts facts;
    char why[WHY_SIZE];
    int rc = store_copy_check(r->fresh, NULL, NULL, &facts, why, sizeof why);
    if (rc) {
        return refuse(r, rc, why);
    }
    if (facts.head != r->manifest.head || facts.marker != r->manifest.marker ||
        facts.schema != r->manifest.schema || !cq_id_eq(&facts.epoch, &r->manifest.epoch)) {
        return refuse(r, -CQ_E_CORRUPT, "the manifest belongs to another backup");
    }
    return 0;
}

/* ---- key and epoch ---- */

/* Opens the vault as the store would, and nothing else. */
static int
check_key(const struct store_core_cfg *cfg, store_engine_t *engine)
{
    struct store_key key = store_key_text("vault");
    struct store_vault_cfg vault_cfg = {.master_key_path = cfg->master_key,
                                        .key_command = cfg->key_command,
                                        .data_dir = cfg->data,
                                        .hash_queue_max = 1};
    uint8_t row[STORE_VAULT_ROW_MAX];
    size_t row_size = 0;
    store_snapshot_t *s = NULL;
    store_vault_t *vault = NULL;
    cq_loop_t *loop = cq_loop_new();
    int rc = store_snapshot_open(engine, &s);
    rc = rc ? rc : store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &vault_cfg.row);
    rc = rc ? rc : store_vault_open(loop, &vault_cfg, row, &row_size, &vault);
    store_snapshot_close(&s);
    if (vault) {
        store_vault_close(&vault);
    }
    cq_loop_destroy(&loop);
    return rc;
}

static int
set_epoch(store_engine_t *engine, const struct cq_id *epoch)
{
    struct store_key key = store_key_text("epoch");
    struct store_row row = {STORE_TABLE_META, store_key_view(&key), {epoch->b, CQ_ID_SIZE}};
    const struct store_commit commit = {.rows = &row, .row_count = 1};
    return store_engine_commit(engine, &commit);
}

/* A history that has lost its end is another history. */
static int
begin_history(struct restore *r)
{
    const struct store_engine_cfg cfg = {.dir = r->fresh, .map_bytes = r->cfg->map_bytes};
    struct cq_id epoch = cq_random_id();
    store_engine_t *engine = NULL;
    int rc = store_engine_open(&cfg, &engine);
    if (rc) {
        return rc; /* logged there */
    }
    rc = check_key(r->cfg, engine);
    if (rc) {
        rc = refuse(r, rc,
                    "the master key does not open this backup: give the one it was made with");
    } else if ((rc = set_epoch(engine, &epoch)) != 0) {
        rc = refuse(r, rc, "the new epoch cannot be written");
    }
    store_engine_close(&engine);
    return rc;
}

/* ---- blobs ---- */

static int
copy_blobs(struct restore *r)
{
    const struct store_manifest_part *part =
        store_manifest_part_of(&r->manifest, STORE_BACKUP_BLOBS);
    size_t n = r->cfg->blobs ? strlen(r->cfg->blobs) : 0;
    if (!part || !n) {
        CQ_LOG(WARN, "STORE-RESTORE-NO-BLOBS", "advice=%s",
               part
                   ? "\"the backup has blobs: give --blobs DIR to restore them, too\""
                   : "\"this backup was made without blobs: messages refer to what is not there\"");
        return 0;
    }
    while (n > 1 && r->cfg->blobs[n - 1] == '/') {
        n--;
    }
    (void)snprintf(r->blobs_target, sizeof r->blobs_target, "%.*s", (int)n, r->cfg->blobs);
    (void)snprintf(r->blobs_fresh, sizeof r->blobs_fresh, "%.*s" SUFFIX, (int)n, r->cfg->blobs);
    r->blobs = (struct store_restore_blobs){
        .backup = r->backup, .target = r->blobs_target, .fresh = r->blobs_fresh, .part = part};
    if (store_disk_is_free(r->blobs_target)) {
        return refuse(r, -CQ_E_BAD_STATE,
                      "there are blobs, or something else, already: move the folder away first");
    }
    r->has_blobs = true;
    int rc = store_restore_blobs_copy(&r->blobs);
    return rc ? refuse(r, rc, r->blobs.why) : 0;
}

/* Before the database has its name: a database without its blobs must not look restored. */
static int
finish_blobs(struct restore *r)
{
    int rc = r->has_blobs ? store_restore_blobs_finish(&r->blobs) : 0;
    if (rc) {
        return refuse(r, rc, r->blobs.why);
    }
    if (r->has_blobs) {
        CQ_LOG(INFO, "STORE-RESTORE-BLOBS", "blobs=%" PRIu64 " bytes=%" PRIu64, r->blobs.count,
               r->blobs.bytes);
    }
    return 0;
}

/* ---- the name ---- */

static int
finish(struct restore *r)
{
    (void)unlink(r->lock_file); /* LMDB makes it anew */
    int rc = store_disk_sync_folder(r->fresh);
    if (rc == 0 && rename(r->fresh, r->target) != 0) {
        rc = store_disk_error(errno);
    }
    rc = rc ? rc : store_disk_sync_folder(r->parent);
    if (rc) {
        return refuse(r, rc, "the folder cannot be given its name");
    }
    CQ_LOG(INFO, "STORE-RESTORE-DONE",
           "head=%" PRIu64 " created_unix_ms=%" PRIu64 " schema=%" PRIu64, r->manifest.head,
           r->manifest.created_unix_ms, r->manifest.schema);
    return 0;
}

int
store_restore_run(const struct store_core_cfg *cfg, const char *backup)
{
    static int (*const steps[])(struct restore *) = {name_paths, read_manifest, check_target,
                                                     make_folder};
    static int (*const work[])(struct restore *) = {copy,       check_copy,   begin_history,
                                                    copy_blobs, finish_blobs, finish};
    struct restore *r = calloc(1, sizeof *r);
    int rc = r ? 0 : -CQ_E_INTERNAL;
    if (rc) {
        return rc;
    }
    r->cfg = cfg;
    r->backup = backup;
    for (size_t i = 0; rc == 0 && i < sizeof steps / sizeof steps[0]; i++) {
        rc = steps[i](r);
    }
    bool has_begun = rc == 0;
    for (size_t i = 0; rc == 0 && i < sizeof work / sizeof work[0]; i++) {
        rc = work[i](r);
    }
    if (rc && has_begun && store_disk_remove(r->fresh, our_files) != 0) {
        CQ_LOG(WARN, "STORE-RESTORE-LEFT",
               "advice=\"DIR" SUFFIX " could not be removed: remove it\"");
    }
    if (rc && r->has_blobs && store_restore_blobs_remove(r->blobs_fresh) != 0) {
        CQ_LOG(WARN, "STORE-RESTORE-BLOBS-LEFT", "advice=\"remove BLOBS" SUFFIX "\"");
    }
    free(r);
    return rc;
}
