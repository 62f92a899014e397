/* SPDX-License-Identifier: MPL-2.0 */
#include "store/fsck_offline.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/backup.h"
#include "store/blob_tree.h"
#include "store/fsck_files.h"
#include "store/key.h"

enum {
    EXIT_CANNOT = 2,
    PATH_SIZE = 4200
};

static int
refuse(const char *why)
{
    (void)fprintf(stderr, "chasqui-store: --fsck: %s\n", why);
    return EXIT_CANNOT;
}

static bool
has_file(const char *dir, const char *name)
{
    char path[PATH_SIZE];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0;
}

/* The vault of the database; *vault stays NULL if the database says nothing about one, which is a
 * finding. */
static int
open_vault(store_engine_t *engine,
           cq_loop_t *loop,
           const struct store_core_cfg *cfg,
           store_vault_t **vault)
{
    struct store_key key = store_key_text("vault");
    struct cq_view row = {0};
    store_snapshot_t *s = NULL;
    uint8_t new_row[STORE_VAULT_ROW_MAX];
    size_t new_row_size = 0;
    int rc = store_snapshot_open(engine, &s);
    if (!rc) {
        rc = store_snapshot_row(s, STORE_TABLE_META, store_key_view(&key), &row);
    }
    if (!rc) {
        /* No password is checked here: the smallest hash will do. */
        const struct store_vault_cfg vault_cfg = {.master_key_path = cfg->master_key,
                                                  .key_command = cfg->key_command,
                                                  .data_dir = cfg->data,
                                                  .row = row,
                                                  .hash_opslimit = 1,
                                                  .hash_memlimit = 8192};
        rc = store_vault_open(loop, &vault_cfg, new_row, &new_row_size, vault);
    }
    store_snapshot_close(&s);
    return rc == -CQ_E_NOT_FOUND ? 0 : rc;
}

static void
on_progress(void *ctx, const struct store_fsck_progress *p)
{
    (void)ctx;
    (void)fprintf(stderr, "\r%3u.%u %%  pass %u, %llu records, %llu rows, %llu findings ",
                  p->permille / 10, p->permille % 10, p->pass, (unsigned long long)p->records,
                  (unsigned long long)p->rows, (unsigned long long)p->found);
}

/* The folder of blobs to look at, NULL: none. A backup has its own. */
static const char *
blobs_of(const struct store_core_cfg *cfg)
{
    if (cfg->blobs && cfg->blobs[0]) {
        return cfg->blobs;
    }
    return has_file(cfg->data, STORE_BLOB_TREE_LIST) ? cfg->data : NULL;
}

static int
check_files(store_engine_t *engine, const char *root, struct store_fsck_report *report)
{
    struct store_fsck_files files = {
        .engine = engine, .root = root, .with_data = true, .report = report};
    int rc = store_fsck_files_check(&files);
    (void)printf("%llu files of blobs, %llu bytes read\n", (unsigned long long)files.count,
                 (unsigned long long)files.bytes);
    return rc;
}

static int
check(store_engine_t *engine, const store_vault_t *vault, const char *blobs)
{
    struct store_fsck_report report;
    bool is_terminal = isatty(STDERR_FILENO) == 1;
    const struct store_fsck_cfg cfg = {
        .engine = engine, .vault = vault, .on_progress = is_terminal ? on_progress : NULL};
    int rc = store_fsck_run(&cfg, &report);
    if (is_terminal) {
        (void)fputs("\r\033[K", stderr);
    }
    if (!rc && blobs) {
        rc = check_files(engine, blobs, &report);
    }
    store_fsck_print(stdout, &report);
    int exit_code = store_fsck_exit_code(rc, &report);
    store_fsck_report_free(&report);
    if (rc) {
        (void)fprintf(stderr, "chasqui-store: --fsck: the database cannot be read: %s\n",
                      cq_err_name(rc));
    }
    return exit_code;
}

int
store_fsck_offline_run(const struct store_core_cfg *cfg)
{
    const struct store_engine_cfg engine_cfg = {
        .dir = cfg->data, .map_bytes = cfg->map_bytes, .read_ahead = true};
    store_engine_t *engine = NULL;
    store_vault_t *vault = NULL;
    int exit_code = EXIT_CANNOT;
    if (!has_file(cfg->data, STORE_BACKUP_FILE)) {
        return refuse("there is no database in this folder");
    }
    bool is_backup = has_file(cfg->data, STORE_BACKUP_MANIFEST);
    if (is_backup && cfg->blobs && cfg->blobs[0]) {
        return refuse("this is a backup, with blobs of its own: leave --blobs away");
    }
    /* A backup must stay as it is: opening it as a database would write into it. */
    int rc = is_backup ? store_engine_open_copy(cfg->data, &engine)
                       : store_engine_open(&engine_cfg, &engine);
    if (rc) {
        return refuse(rc == -CQ_E_LOCKED
                          ? "a store has this database open: use chasquictl fsck, or stop it"
                          : "the database does not open: see above");
    }
    cq_loop_t *loop = cq_loop_new();
    if (store_engine_schema(engine) != STORE_SCHEMA_VERSION) {
        exit_code = refuse("written by an earlier version: start the store once, it brings the "
                           "database up to date");
    } else if (open_vault(engine, loop, cfg, &vault)) {
        exit_code = refuse("the master key does not open this database: see above");
    } else {
        exit_code = check(engine, vault, blobs_of(cfg));
    }
    store_vault_close(&vault);
    store_engine_close(&engine);
    cq_loop_destroy(&loop);
    return exit_code;
}
