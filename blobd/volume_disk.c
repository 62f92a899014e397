/* SPDX-License-Identifier: MPL-2.0
 * The folder itself: opening, locking, naming, listing, space.
 */
#include "blobd/volume_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

enum {
    BOOT_ID_MAX = 64
};

int
blobd_volume_errno(int err)
{
    switch (err) {
    case ENOENT:
        return -CQ_E_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
        return -CQ_E_NO_SPACE;
    case EEXIST:
        return -CQ_E_BAD_STATE;
    default:
        return -CQ_E_IO;
    }
}

void
blobd_volume_part_name(char out[BLOBD_NAME_SIZE], const struct cq_id *id)
{
    char hex[CQ_ID_HEX_SIZE];
    (void)snprintf(out, BLOBD_NAME_SIZE, "uploads/%s", cq_id_hex(id, hex));
}

void
blobd_volume_blob_name(char out[BLOBD_NAME_SIZE], const struct cq_id *id)
{
    char hex[CQ_ID_HEX_SIZE];
    (void)cq_id_hex(id, hex);
    (void)snprintf(out, BLOBD_NAME_SIZE, "blobs/%.3s/%s", hex, hex);
}

int
blobd_volume_sync_folder(const blobd_volume_t *v, const char *name)
{
    int fd = openat(v->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? blobd_volume_errno(errno) : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return rc;
}

int
blobd_volume_make_folder(const blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    *strrchr(name, '/') = '\0';
    if (mkdirat(v->dir_fd, name, 0700) == 0) {
        return blobd_volume_sync_folder(v, "blobs");
    }
    return errno == EEXIST ? 0 : blobd_volume_errno(errno);
}

uint64_t
blobd_volume_room(const blobd_volume_t *v)
{
    struct statvfs fs;
    if (fstatvfs(v->dir_fd, &fs)) {
        return 0;
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return free_bytes > v->reserve_bytes ? free_bytes - v->reserve_bytes : 0;
}

/* ---- opening ---- */

static int
lock(blobd_volume_t *v)
{
    v->lock_fd = openat(v->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (v->lock_fd < 0) {
        return blobd_volume_errno(errno);
    }
    return flock(v->lock_fd, LOCK_EX | LOCK_NB) ? -CQ_E_LOCKED : 0;
}

/* What was written but not synced survives our own death, not that of the machine. */
static int
note_boot(blobd_volume_t *v)
{
    char now[BOOT_ID_MAX] = "", then[BOOT_ID_MAX] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, now, sizeof now - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    fd = openat(v->dir_fd, "boot", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return blobd_volume_errno(errno);
    }
    ssize_t had = read(fd, then, sizeof then - 1);
    v->is_same_boot = n > 0 && had == n && memcmp(now, then, (size_t)n) == 0;
    int rc = 0;
    if (!v->is_same_boot) {
        rc = ftruncate(fd, 0) ? -CQ_E_IO : 0;
        rc = rc || n <= 0 ? rc : cq_blobfile_write_at(fd, now, (size_t)n, 0);
    }
    (void)close(fd);
    return rc;
}

static int
make_folders(blobd_volume_t *v)
{
    static const char *const names[] = {"uploads", "blobs"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (mkdirat(v->dir_fd, names[i], 0700) && errno != EEXIST) {
            return blobd_volume_errno(errno);
        }
    }
    return blobd_volume_sync_folder(v, ".");
}

int
blobd_volume_open(const struct blobd_volume_cfg *cfg, blobd_volume_t **out)
{
    blobd_volume_t *v = cq_alloc(sizeof *v);
    *v = (blobd_volume_t){.lock_fd = -1, .reserve_bytes = cfg->reserve_bytes};
    (void)mkdir(cfg->dir, 0700);
    v->dir_fd = open(cfg->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = v->dir_fd < 0 ? -CQ_E_IO : lock(v);
    if (!rc) {
        rc = make_folders(v);
    }
    if (!rc) {
        rc = note_boot(v);
    }
    if (rc) {
        char dir[256];
        CQ_LOG(ERROR, "BLOBD-VOLUME-OPEN", "dir=%s err=%s hint=%s",
               cq_log_text(cfg->dir, strlen(cfg->dir), dir, sizeof dir), cq_err_name(rc),
               rc == -CQ_E_LOCKED
                   ? "\"another chasqui-blobd has this folder: stop it or use another\""
                   : "\"is the folder there, writable, on a disk that works?\"");
        blobd_volume_close(&v);
    }
    *out = v;
    return rc;
}

void
blobd_volume_close(blobd_volume_t **v)
{
    if (!*v) {
        return;
    }
    if ((*v)->lock_fd >= 0) {
        (void)close((*v)->lock_fd);
    }
    if ((*v)->dir_fd >= 0) {
        (void)close((*v)->dir_fd);
    }
    free(*v);
    *v = NULL;
}

/* ---- listing ---- */

uint64_t
blobd_volume_age_s(const blobd_volume_t *v, const struct cq_id *id, bool is_part)
{
    char name[BLOBD_NAME_SIZE];
    struct stat st;
    is_part ? blobd_volume_part_name(name, id) : blobd_volume_blob_name(name, id);
    time_t now = time(NULL);
    bool is_past = fstatat(v->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime < now;
    return is_past ? (uint64_t)(now - st.st_mtime) : 0;
}

static int
digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
read_id(const char *name, struct cq_id *id)
{
    if (strlen(name) != 2 * (size_t)CQ_ID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < CQ_ID_SIZE; i++) {
        int high = digit(name[2 * i]), low = digit(name[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        id->b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static int
each(const blobd_volume_t *v, const char *folder, blobd_volume_fn *fn, void *ctx)
{
    int fd = openat(v->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : blobd_volume_errno(errno);
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)close(fd);
        return -CQ_E_IO;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else reads this one */
    for (const struct dirent *entry; (entry = readdir(dir));) {
        struct cq_id id;
        if (read_id(entry->d_name, &id)) {
            fn(ctx, &id);
        }
    }
    (void)closedir(dir);
    return 0;
}

int
blobd_volume_each_part(blobd_volume_t *v, blobd_volume_fn *fn, void *ctx)
{
    return each(v, "uploads", fn, ctx);
}

int
blobd_volume_each_blob(blobd_volume_t *v, unsigned folder, blobd_volume_fn *fn, void *ctx)
{
    char name[BLOBD_NAME_SIZE];
    (void)snprintf(name, sizeof name, "blobs/%03x", folder % BLOBD_FOLDERS);
    return each(v, name, fn, ctx);
}
