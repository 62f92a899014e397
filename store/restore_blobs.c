/* SPDX-License-Identifier: MPL-2.0 */
#include "store/restore_blobs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/blob_tree.h"
#include "store/disk.h"

enum {
    PATH_SIZE = 4200,
    DIR_MODE = 0700,
    SPARE_BYTES = 16 * 1024 * 1024,
};

static int
fail(struct store_restore_blobs *r, int rc, const char *why)
{
    (void)snprintf(r->why, sizeof r->why, "%s", why);
    return rc;
}

/* ---- the list ---- */

static int
check_list(struct store_restore_blobs *r, char path[PATH_SIZE])
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    uint64_t bytes = 0;
    if (strcmp(r->part->file, STORE_BLOB_TREE_LIST) != 0) {
        return fail(r, -CQ_E_CORRUPT, "the manifest names another list of blobs");
    }
    (void)snprintf(path, PATH_SIZE, "%s/" STORE_BLOB_TREE_LIST, r->backup);
    int rc = store_disk_read(path, NULL, NULL, &bytes, hash);
    if (rc) {
        return fail(r, -CQ_E_CORRUPT, "the backup's list of blobs cannot be read");
    }
    bool is_same = bytes == r->part->bytes && memcmp(hash, r->part->hash, sizeof hash) == 0;
    return is_same ? 0 : fail(r, -CQ_E_CORRUPT, "the backup's list of blobs is damaged");
}

typedef int line_fn(struct store_restore_blobs *r, const struct store_blob_entry *e);

static int
read_lines(struct store_restore_blobs *r, FILE *list, line_fn *fn)
{
    char line[STORE_BLOB_TREE_LINE_SIZE];
    struct store_blob_entry e;
    int rc = 0;
    rewind(list);
    if (!fgets(line, sizeof line, list) || strcmp(line, STORE_BLOB_TREE_TITLE) != 0) {
        return fail(r, -CQ_E_CORRUPT, "the list of blobs is of another version");
    }
    while (!rc && fgets(line, sizeof line, list)) {
        rc = store_blob_tree_read_line(line, &e) ? fn(r, &e)
                                                 : fail(r, -CQ_E_CORRUPT,
                                                        "a line of the list of "
                                                        "blobs is damaged");
    }
    return rc || !ferror(list) ? rc : fail(r, -CQ_E_IO, "the list of blobs cannot be read");
}

/* ---- the copy ---- */

static int
count(struct store_restore_blobs *r, const struct store_blob_entry *e)
{
    r->count++;
    r->bytes += cq_blobfile_size(e->length);
    return 0;
}

static int
copy(struct store_restore_blobs *r, const struct store_blob_entry *e)
{
    char hex[CQ_ID_HEX_SIZE];
    int rc = store_blob_tree_copy(r->backup, r->fresh, e);
    if (rc) {
        (void)snprintf(r->why, sizeof r->why, "blob %s %s", cq_id_hex(&e->id, hex),
                       rc == -CQ_E_NOT_FOUND  ? "is missing in the backup: use another one"
                       : rc == -CQ_E_CORRUPT  ? "is damaged in the backup: use another one"
                       : rc == -CQ_E_NO_SPACE ? "does not fit: the disk is full"
                                              : "cannot be written: is the disk broken?");
        rc = rc == -CQ_E_NOT_FOUND ? -CQ_E_CORRUPT : rc;
    }
    return rc;
}

static int
make_folder(struct store_restore_blobs *r)
{
    char path[PATH_SIZE];
    uint64_t free_bytes = 0, device = 0;
    if (store_disk_is_free(r->target)) {
        return fail(r, -CQ_E_BAD_STATE,
                    "there are blobs, or something else, already: move the folder away first");
    }
    if (store_disk_is_free(r->fresh) && store_restore_blobs_remove(r->fresh)) {
        return fail(r, -CQ_E_BAD_STATE,
                    "what a restore has left (.restoring) is in the way: move it away");
    }
    (void)snprintf(path, sizeof path, "%s/blobs", r->fresh);
    if ((mkdir(r->fresh, DIR_MODE) && errno != EEXIST) ||
        (mkdir(path, DIR_MODE) && errno != EEXIST)) {
        return fail(r, store_disk_error(errno), "the folder of blobs cannot be created");
    }
    if (store_disk_space(r->fresh, &free_bytes, &device) || free_bytes < r->bytes + SPARE_BYTES) {
        return fail(r, -CQ_E_NO_SPACE, "not enough free space for the blobs");
    }
    return 0;
}

int
store_restore_blobs_copy(struct store_restore_blobs *r)
{
    char path[PATH_SIZE];
    int rc = check_list(r, path);
    if (rc) {
        return rc;
    }
    FILE *list = fopen(path, "re");
    if (!list) {
        return fail(r, -CQ_E_IO, "the backup's list of blobs cannot be read");
    }
    rc = read_lines(r, list, count);
    rc = rc ? rc : make_folder(r);
    rc = rc ? rc : read_lines(r, list, copy);
    (void)fclose(list);
    if (!rc && store_blob_tree_sync(r->fresh)) {
        rc = fail(r, -CQ_E_IO, "the folders of blobs cannot be synced: is the disk broken?");
    }
    return rc;
}

int
store_restore_blobs_finish(struct store_restore_blobs *r)
{
    char parent[PATH_SIZE];
    int rc = store_disk_parent(r->target, parent, sizeof parent) ? 0 : -CQ_E_BAD_ARG;
    if (!rc && rename(r->fresh, r->target)) {
        rc = store_disk_error(errno);
    }
    rc = rc ? rc : store_disk_sync_folder(parent);
    return rc ? fail(r, rc, "the folder of blobs cannot be given its name") : 0;
}

int
store_restore_blobs_remove(const char *fresh)
{
    static const char *const none[] = {NULL};
    int rc = store_blob_tree_remove(fresh);
    return rc ? rc : store_disk_remove(fresh, none);
}
