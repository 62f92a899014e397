/* SPDX-License-Identifier: MPL-2.0 */
#include "store/blob_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "store/disk.h"

enum {
    FOLDERS = 4096,
    PATH_SIZE = 4200,
    DIR_MODE = 0700,
    FILE_MODE = 0600,
    ID_DIGITS = 2 * CQ_ID_SIZE,
    HASH_DIGITS = 2 * CQ_BLOB_HASH_SIZE,
};

/* ---- the list ---- */

void
store_blob_tree_write_line(const struct store_blob_entry *e, char line[STORE_BLOB_TREE_LINE_SIZE])
{
    char id[CQ_ID_HEX_SIZE], hash[HASH_DIGITS + 1];
    (void)sodium_bin2hex(hash, sizeof hash, e->hash, sizeof e->hash);
    (void)snprintf(line, STORE_BLOB_TREE_LINE_SIZE, "%s %" PRIu64 " %s\n", cq_id_hex(&e->id, id),
                   e->length, hash);
}

static bool
read_hex(const char *text, size_t digits, uint8_t *out)
{
    return strspn(text, "0123456789abcdef") == digits &&
           sodium_hex2bin(out, digits / 2, text, digits, NULL, NULL, NULL) == 0;
}

bool
store_blob_tree_read_line(const char *line, struct store_blob_entry *e)
{
    char again[STORE_BLOB_TREE_LINE_SIZE];
    size_t n = strnlen(line, STORE_BLOB_TREE_LINE_SIZE);
    if (n < ID_DIGITS + 1 + 1 + 1 + HASH_DIGITS + 1 || n >= STORE_BLOB_TREE_LINE_SIZE) {
        return false;
    }
    e->length = 0;
    for (const char *p = line + ID_DIGITS + 1; *p >= '0' && *p <= '9'; p++) {
        e->length =
            e->length > CQ_BLOBFILE_LENGTH_MAX ? e->length : e->length * 10 + (uint64_t)(*p - '0');
    }
    if (!read_hex(line, ID_DIGITS, e->id.b) ||
        !read_hex(line + n - 1 - HASH_DIGITS, HASH_DIGITS, e->hash) ||
        e->length > CQ_BLOBFILE_LENGTH_MAX) {
        return false;
    }
    store_blob_tree_write_line(e, again);
    return strcmp(line, again) == 0;
}

/* ---- names ---- */

static int
name_folder(char out[PATH_SIZE], const char *root, unsigned folder)
{
    int n = snprintf(out, PATH_SIZE, "%s/blobs/%03x", root, folder % FOLDERS);
    return n < PATH_SIZE ? 0 : -CQ_E_BAD_ARG;
}

static int
name_blob(char out[PATH_SIZE], const char *root, const struct cq_id *id, const char *suffix)
{
    char hex[CQ_ID_HEX_SIZE];
    (void)cq_id_hex(id, hex);
    int n = snprintf(out, PATH_SIZE, "%s/blobs/%.3s/%s%s", root, hex, hex, suffix);
    return n < PATH_SIZE ? 0 : -CQ_E_BAD_ARG;
}

/* An id, or one that is being made (is_new). */
static bool
read_name(const char *name, struct cq_id *id, bool *is_new)
{
    size_t n = strlen(name);
    *is_new = n == ID_DIGITS + 4 && strcmp(name + ID_DIGITS, ".new") == 0;
    char digits[ID_DIGITS + 1];
    (void)snprintf(digits, sizeof digits, "%.*s", ID_DIGITS, name);
    return (n == ID_DIGITS || *is_new) && read_hex(digits, ID_DIGITS, id->b);
}

/* ---- one blob ---- */

int
store_blob_tree_open(const char *root, const struct cq_id *id)
{
    char path[PATH_SIZE];
    if (name_blob(path, root, id, "")) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* The file, if it is what the entry says as far as header and trailer tell. */
static int
open_blob(const char *root, const struct store_blob_entry *e, struct cq_blobfile *f)
{
    int fd = store_blob_tree_open(root, &e->id);
    if (fd < 0) {
        return errno == ENOENT ? -CQ_E_NOT_FOUND : -CQ_E_IO;
    }
    int rc = cq_blobfile_open(fd, &e->id, f);
    if (rc) {
        return rc;
    }
    if (f->header.length != e->length ||
        memcmp(cq_blobfile_root_of(f), e->hash, sizeof e->hash) != 0) {
        cq_blobfile_close(f);
        return -CQ_E_CORRUPT;
    }
    return 0;
}

int
store_blob_tree_check(const char *root, const struct store_blob_entry *e, bool with_data)
{
    struct cq_blobfile f;
    int rc = open_blob(root, e, &f);
    if (rc) {
        return rc;
    }
    rc = with_data ? cq_blobfile_verify(&f, NULL, NULL) : 0;
    cq_blobfile_close(&f);
    return rc;
}

static int
write_copy(const struct cq_blobfile *from, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return errno == ENOSPC || errno == EDQUOT ? -CQ_E_NO_SPACE : -CQ_E_IO;
    }
    int rc = cq_blobfile_copy(from, fd, NULL, NULL);
    return close(fd) == 0 || rc ? rc : -CQ_E_IO;
}

int
store_blob_tree_copy(const char *from, const char *to, const struct store_blob_entry *e)
{
    char path[PATH_SIZE];
    struct cq_blobfile source;
    int rc = name_blob(path, to, &e->id, "");
    rc = rc ? rc : open_blob(from, e, &source);
    if (rc) {
        return rc == -CQ_E_IO ? -CQ_E_CORRUPT : rc;
    }
    char *slash = strrchr(path, '/');
    *slash = '\0';
    rc = mkdir(path, DIR_MODE) == 0 || errno == EEXIST ? 0 : store_disk_error(errno);
    rc = rc == -CQ_E_NOT_FOUND ? -CQ_E_IO : rc;
    *slash = '/';
    rc = rc ? rc : write_copy(&source, path);
    cq_blobfile_close(&source);
    if (!rc) {
        /* Shared extents were not read yet, others not from the disk. */
        rc = store_blob_tree_check(to, e, true);
    }
    return rc;
}

int
store_blob_tree_unlink(const char *root, const struct cq_id *id)
{
    char path[PATH_SIZE];
    int rc = name_blob(path, root, id, "");
    return rc || unlink(path) == 0 || errno == ENOENT ? rc : store_disk_error(errno);
}

/* ---- all of them ---- */

struct walk {
    store_blob_tree_fn *fn; /* NULL: remove what is ours */
    void *ctx;
    int rc;
};

static void
visit(struct walk *w, int dir_fd, const char *name)
{
    struct cq_id id;
    bool is_new;
    if (!read_name(name, &id, &is_new)) {
        return;
    }
    if (!w->fn) {
        w->rc = unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT ? 0 : store_disk_error(errno);
    } else if (!is_new) {
        w->rc = w->fn(w->ctx, &id);
    }
}

static int
walk_folder(struct walk *w, const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return errno == ENOENT ? 0 : store_disk_error(errno);
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    for (const struct dirent *d; !w->rc && (d = readdir(dir));) {
        visit(w, dirfd(dir), d->d_name);
    }
    (void)closedir(dir);
    return w->rc;
}

int
store_blob_tree_each(const char *root, store_blob_tree_fn *fn, void *ctx)
{
    char path[PATH_SIZE];
    struct walk w = {.fn = fn, .ctx = ctx};
    int rc = 0;
    for (unsigned i = 0; !rc && i < FOLDERS; i++) {
        rc = name_folder(path, root, i);
        rc = rc ? rc : walk_folder(&w, path);
    }
    return rc;
}

static int
remove_folder(const char *path)
{
    return rmdir(path) == 0 || errno == ENOENT ? 0 : store_disk_error(errno);
}

int
store_blob_tree_remove(const char *root)
{
    char path[PATH_SIZE];
    struct walk w = {0};
    int rc = 0;
    for (unsigned i = 0; !rc && i < FOLDERS; i++) {
        rc = name_folder(path, root, i);
        rc = rc ? rc : walk_folder(&w, path);
        rc = rc ? rc : remove_folder(path);
    }
    if (!rc) {
        (void)snprintf(path, sizeof path, "%s/blobs/probe", root); /* of blobd's look at the disk */
        (void)unlink(path);
        (void)snprintf(path, sizeof path, "%s/blobs", root);
        rc = remove_folder(path);
    }
    return rc;
}

int
store_blob_tree_sync(const char *root)
{
    char path[PATH_SIZE];
    int rc = 0;
    for (unsigned i = 0; !rc && i < FOLDERS; i++) {
        rc = name_folder(path, root, i);
        rc = rc ? rc : store_disk_sync_folder(path);
        rc = rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    if (!rc) {
        (void)snprintf(path, sizeof path, "%s/blobs", root);
        rc = store_disk_sync_folder(path);
    }
    return rc ? rc : store_disk_sync_folder(root);
}
