/* SPDX-License-Identifier: MPL-2.0 */
#include "store/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"

enum {
    FILE_MODE = 0600,
    CHUNK_BYTES = 1024 * 1024,
    SYNC_EVERY_BYTES = 16 * 1024 * 1024,
    PATH_SIZE = 4096
};

int
store_disk_error(int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return -CQ_E_NO_SPACE;
    case ENOENT:
        return -CQ_E_NOT_FOUND;
    default:
        return -CQ_E_IO;
    }
}

/* ---- a file that grows ---- */

struct store_disk_file {
    int fd;
    uint64_t reserve_bytes;
    uint64_t bytes;
    uint64_t synced_bytes;
    crypto_generichash_state hash;
};

int
store_disk_create(const char *path, uint64_t reserve_bytes, store_disk_file_t **out)
{
    *out = NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0) {
        return store_disk_error(errno);
    }
    store_disk_file_t *f = cq_alloc(sizeof *f);
    f->fd = fd;
    f->reserve_bytes = reserve_bytes;
    (void)crypto_generichash_init(&f->hash, NULL, 0, STORE_MANIFEST_HASH_SIZE);
    *out = f;
    return 0;
}

static int
write_all(int fd, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno != EINTR) {
            return store_disk_error(errno);
        }
        p += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
    return 0;
}

/* Space is looked at and what was written is synced every few chunks. */
static int
sync_some(store_disk_file_t *f)
{
    struct statvfs fs;
    if (f->bytes - f->synced_bytes < SYNC_EVERY_BYTES) {
        return 0;
    }
    if (fdatasync(f->fd) != 0) {
        return store_disk_error(errno);
    }
    f->synced_bytes = f->bytes;
    if (fstatvfs(f->fd, &fs) == 0 &&
        (uint64_t)fs.f_bavail * fs.f_frsize < f->reserve_bytes + SYNC_EVERY_BYTES) {
        return -CQ_E_NO_SPACE;
    }
    return 0;
}

int
store_disk_write(store_disk_file_t *f, const void *data, size_t n)
{
    int rc = write_all(f->fd, data, n);
    if (rc) {
        return rc;
    }
    (void)crypto_generichash_update(&f->hash, data, n);
    f->bytes += n;
    return sync_some(f);
}

uint64_t
store_disk_bytes(const store_disk_file_t *f)
{
    return f->bytes;
}

int
store_disk_finish(store_disk_file_t **file, uint8_t hash[STORE_MANIFEST_HASH_SIZE])
{
    store_disk_file_t *f = *file;
    int rc = fsync(f->fd) ? store_disk_error(errno) : 0;
    if (close(f->fd) != 0 && rc == 0) {
        rc = store_disk_error(errno);
    }
    (void)crypto_generichash_final(&f->hash, hash, STORE_MANIFEST_HASH_SIZE);
    free(f);
    *file = NULL;
    return rc;
}

void
store_disk_abandon(store_disk_file_t **file)
{
    if (*file) {
        close((*file)->fd);
        free(*file);
        *file = NULL;
    }
}

/* ---- reading ---- */

static int
read_chunks(int fd,
            store_disk_each *each,
            void *ctx,
            uint64_t *bytes,
            crypto_generichash_state *hash)
{
    uint8_t *chunk = cq_alloc(CHUNK_BYTES);
    ssize_t n = 0;
    int rc = 0;
    *bytes = 0;
    while (rc == 0 && (n = read(fd, chunk, CHUNK_BYTES)) != 0) {
        if (n < 0) {
            rc = errno == EINTR ? 0 : store_disk_error(errno);
            continue;
        }
        (void)crypto_generichash_update(hash, chunk, (size_t)n);
        *bytes += (uint64_t)n;
        rc = each ? each(ctx, chunk, (size_t)n) : 0;
    }
    free(chunk);
    return rc;
}

int
store_disk_read(const char *path,
                store_disk_each *each,
                void *ctx,
                uint64_t *bytes,
                uint8_t hash[STORE_MANIFEST_HASH_SIZE])
{
    crypto_generichash_state state;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return store_disk_error(errno);
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return -CQ_E_IO;
    }
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    (void)crypto_generichash_init(&state, NULL, 0, STORE_MANIFEST_HASH_SIZE);
    int rc = read_chunks(fd, each, ctx, bytes, &state);
    (void)crypto_generichash_final(&state, hash, STORE_MANIFEST_HASH_SIZE);
    close(fd);
    return rc;
}

struct loading {
    cq_buf_t *out;
    size_t max;
};

static int
load_chunk(void *ctx, const void *data, size_t n)
{
    struct loading *l = ctx;
    if (n > l->max - l->out->size) {
        return -CQ_E_TOO_BIG;
    }
    cq_buf_append(l->out, data, n);
    return 0;
}

int
store_disk_load(const char *path, size_t max, cq_buf_t *out)
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    uint64_t bytes = 0;
    struct loading l = {out, max};
    cq_buf_clear(out);
    return store_disk_read(path, load_chunk, &l, &bytes, hash);
}

int
store_disk_save(const char *path, const void *data, size_t n)
{
    char fresh[PATH_SIZE];
    char parent[PATH_SIZE];
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    store_disk_file_t *f = NULL;
    int len = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (len < 0 || len >= (int)sizeof fresh || !store_disk_parent(path, parent, sizeof parent)) {
        return -CQ_E_BAD_ARG;
    }
    (void)unlink(fresh);
    int rc = store_disk_create(fresh, 0, &f);
    rc = rc ? rc : store_disk_write(f, data, n);
    if (rc) {
        store_disk_abandon(&f);
        return rc;
    }
    rc = store_disk_finish(&f, hash);
    if (rc == 0 && rename(fresh, path) != 0) {
        rc = store_disk_error(errno);
    }
    return rc ? rc : store_disk_sync_folder(parent);
}

/* ---- folders ---- */

int
store_disk_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return store_disk_error(errno);
    }
    int rc = fsync(fd) ? store_disk_error(errno) : 0;
    close(fd);
    return rc;
}

bool
store_disk_parent(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n + 2 > size) {
        return false;
    }
    if (n == 0) {
        out[0] = slash ? '/' : '.';
        out[1] = '\0';
    } else {
        memcpy(out, path, n);
        out[n] = '\0';
    }
    return true;
}

int
store_disk_is_free(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : store_disk_error(errno);
    }
    if (!S_ISDIR(st.st_mode)) {
        return -CQ_E_BAD_STATE;
    }
    DIR *dir = opendir(path);
    if (!dir) {
        return store_disk_error(errno);
    }
    size_t count = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    for (const struct dirent *d; (d = readdir(dir));) {
        count += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    }
    closedir(dir);
    return count ? -CQ_E_BAD_STATE : 0;
}

int
store_disk_space(const char *path, uint64_t *free_bytes, uint64_t *device)
{
    struct statvfs fs;
    struct stat st;
    if (statvfs(path, &fs) != 0 || stat(path, &st) != 0) {
        return store_disk_error(errno);
    }
    *free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *device = st.st_dev;
    return 0;
}

int
store_disk_empty(const char *folder, const char *const *names)
{
    char path[PATH_SIZE];
    for (; *names; names++) {
        int n = snprintf(path, sizeof path, "%s/%s", folder, *names);
        if (n < 0 || n >= (int)sizeof path || (unlink(path) != 0 && errno != ENOENT)) {
            return -CQ_E_IO;
        }
    }
    return 0;
}

int
store_disk_remove(const char *folder, const char *const *names)
{
    int rc = store_disk_empty(folder, names);
    return rc || rmdir(folder) == 0 || errno == ENOENT ? rc : store_disk_error(errno);
}
