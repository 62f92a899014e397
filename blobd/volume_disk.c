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

#include "blobd/save.h"

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

int
blobd_volume_change_errno(int err)
{
    return err == ENOENT ? -CQ_E_IO : blobd_volume_errno(err);
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

unsigned
blobd_volume_folder_of(const struct cq_id *id)
{
    return (unsigned)id->b[0] << 4 | id->b[1] >> 4;
}

bool
blobd_volume_path(const blobd_volume_t *v, const struct cq_id *id, char *out, size_t out_size)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    int n = v->path ? snprintf(out, out_size, "%s/%s", v->path, name) : -1;
    return n > 0 && (size_t)n < out_size;
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
blobd_volume_make_folder(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    *strrchr(name, '/') = '\0';
    (void)pthread_mutex_lock(&v->making);
    int rc = 0;
    if (mkdirat(v->dir_fd, name, 0700) == 0) {
        rc = blobd_volume_sync_folder(v, "blobs");
        if (rc) {
            (void)unlinkat(v->dir_fd, name, AT_REMOVEDIR);
        }
    } else if (errno != EEXIST) {
        rc = blobd_volume_change_errno(errno);
    }
    (void)pthread_mutex_unlock(&v->making);
    return rc;
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

/* ---- backups ---- */

void
blobd_volume_blob_path(const struct cq_id *id, char out[BLOBD_BLOB_NAME_SIZE])
{
    blobd_volume_blob_name(out, id);
}

bool
blobd_volume_contains(const blobd_volume_t *v, const char *path)
{
    char own_link[64];
    (void)snprintf(own_link, sizeof own_link, "/proc/self/fd/%d", v->dir_fd);
    char *own = realpath(own_link, NULL);
    char *other = realpath(path, NULL);
    size_t n = own ? strlen(own) : 0;
    bool is_in = own && other && strncmp(own, other, n) == 0 && (!other[n] || other[n] == '/');
    free(own);
    free(other);
    return is_in;
}

int
blobd_volume_open_probe(const blobd_volume_t *v)
{
    return openat(v->dir_fd, "boot", O_RDONLY | O_CLOEXEC);
}

uint64_t
blobd_volume_reserve_on(const blobd_volume_t *v, int dir_fd)
{
    struct stat own, other;
    bool is_same =
        fstat(v->dir_fd, &own) == 0 && fstat(dir_fd, &other) == 0 && own.st_dev == other.st_dev;
    return is_same ? v->reserve_bytes : 0;
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
static ssize_t
read_boot(char now[BOOT_ID_MAX])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, now, BOOT_ID_MAX - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    return n;
}

struct settling {
    blobd_volume_t *volume;
    int rc;
};

static void
settle(void *ctx, const struct cq_id *id)
{
    struct settling *s = ctx;
    s->rc = s->rc ? s->rc : blobd_part_settle(s->volume, id);
}

/* Before the boot is noted as ours: the next start must not trust what this machine's last end has
 * left. */
static int
settle_parts(blobd_volume_t *v)
{
    struct settling s = {.volume = v};
    int rc = blobd_volume_each_part(v, settle, &s);
    return rc ? rc : s.rc;
}

static int
note_boot(blobd_volume_t *v)
{
    char now[BOOT_ID_MAX] = "", then[BOOT_ID_MAX] = "";
    ssize_t n = read_boot(now);
    int fd = openat(v->dir_fd, "boot", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return blobd_volume_errno(errno);
    }
    ssize_t had = read(fd, then, sizeof then - 1);
    v->is_same_boot = n > 0 && had == n && memcmp(now, then, (size_t)n) == 0;
    int rc = v->is_same_boot ? 0 : settle_parts(v);
    if (!rc && !v->is_same_boot && n > 0) {
        rc = ftruncate(fd, 0) ? -CQ_E_IO : cq_blobfile_write_at(fd, now, (size_t)n, 0);
        rc = rc || fsync(fd) == 0 ? rc : blobd_volume_errno(errno);
        v->is_same_boot = !rc;
    }
    (void)close(fd);
    return rc;
}

static int
make_folders(blobd_volume_t *v)
{
    static const char *const names[] = {"uploads", "blobs", "orphans"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (mkdirat(v->dir_fd, names[i], 0700) && errno != EEXIST) {
            return blobd_volume_errno(errno);
        }
    }
    /* What the process before us has made and not synced, too. */
    int rc = blobd_volume_sync_folder(v, "blobs");
    return rc ? rc : blobd_volume_sync_folder(v, ".");
}

int
blobd_volume_open(const struct blobd_volume_cfg *cfg, blobd_volume_t **out)
{
    blobd_volume_t *v = cq_alloc(sizeof *v);
    *v = (blobd_volume_t){.lock_fd = -1, .reserve_bytes = cfg->reserve_bytes};
    (void)pthread_mutex_init(&v->making, NULL);
    v->tally = blobd_tally_new();
    bool is_new = mkdir(cfg->dir, 0700) == 0;
    v->dir_fd = open(cfg->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    v->path = realpath(cfg->dir, NULL);
    int rc = v->dir_fd < 0 ? -CQ_E_IO : is_new ? blobd_volume_sync_folder(v, "..") : 0;
    if (rc && is_new) {
        (void)rmdir(cfg->dir); /* or the next start would take it for synced */
    }
    if (!rc) {
        rc = lock(v);
    }
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
    (void)pthread_mutex_destroy(&(*v)->making);
    blobd_tally_destroy(&(*v)->tally);
    free((*v)->path);
    free(*v);
    *v = NULL;
}

/* ---- listing ---- */

static uint64_t
age_s(const struct stat *st)
{
    time_t now = time(NULL);
    return st->st_mtime < now ? (uint64_t)(now - st->st_mtime) : 0;
}

struct blobd_look
blobd_volume_look(const blobd_volume_t *v, const struct cq_id *id, bool is_part)
{
    char name[BLOBD_NAME_SIZE];
    struct stat st;
    is_part ? blobd_volume_part_name(name, id) : blobd_volume_blob_name(name, id);
    if (fstatat(v->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
        return (struct blobd_look){0};
    }
    return (struct blobd_look){age_s(&st), (uint64_t)st.st_size};
}

static void
orphan_name(char out[BLOBD_NAME_SIZE], const struct cq_id *id)
{
    char hex[CQ_ID_HEX_SIZE];
    (void)snprintf(out, BLOBD_NAME_SIZE, "orphans/%s", cq_id_hex(id, hex));
}

uint64_t
blobd_volume_orphan(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    struct stat st;
    orphan_name(name, id);
    int fd = openat(v->dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    uint64_t since_s = fd >= 0 && fstat(fd, &st) == 0 ? age_s(&st) : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return since_s;
}

void
blobd_volume_orphan_forget(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    orphan_name(name, id);
    (void)unlinkat(v->dir_fd, name, 0);
}

void
blobd_volume_note(blobd_volume_t *v, const char *name, const char *text)
{
    char fresh[BLOBD_NAME_SIZE];
    (void)snprintf(fresh, sizeof fresh, "%s.new", name);
    int fd = openat(v->dir_fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return;
    }
    int rc = cq_blobfile_write_at(fd, text, strlen(text), 0);
    (void)close(fd);
    if (rc || renameat(v->dir_fd, fresh, v->dir_fd, name)) {
        (void)unlinkat(v->dir_fd, fresh, 0);
    }
}

void
blobd_volume_read_note(const blobd_volume_t *v, const char *name, char out[BLOBD_NOTE_SIZE])
{
    int fd = openat(v->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? 0 : read(fd, out, BLOBD_NOTE_SIZE - 1);
    out[n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        (void)close(fd);
    }
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
    const struct dirent *entry;
    int err;
    do {
        struct cq_id id;
        errno = 0;
        entry = readdir(dir); /* NOLINT(concurrency-mt-unsafe): nobody else reads this one */
        err = entry ? 0 : errno;
        if (entry && read_id(entry->d_name, &id)) {
            fn(ctx, &id);
        }
    } while (entry);
    (void)closedir(dir);
    return err ? blobd_volume_errno(err) : 0;
}

int
blobd_volume_each_part(blobd_volume_t *v, blobd_volume_fn *fn, void *ctx)
{
    return each(v, "uploads", fn, ctx);
}

int
blobd_volume_each_orphan(blobd_volume_t *v, blobd_volume_fn *fn, void *ctx)
{
    return each(v, "orphans", fn, ctx);
}

int
blobd_volume_each_blob(blobd_volume_t *v, unsigned folder, blobd_volume_fn *fn, void *ctx)
{
    char name[BLOBD_NAME_SIZE];
    (void)snprintf(name, sizeof name, "blobs/%03x", folder % BLOBD_FOLDERS);
    return each(v, name, fn, ctx);
}

/* ---- how many there are ---- */

struct counting {
    const blobd_volume_t *volume;
    struct blobd_total total;
    blobd_volume_fn *fn;
    void *ctx;
};

static void
count_blob(void *ctx, const struct cq_id *id)
{
    struct counting *c = ctx;
    c->total.count++;
    c->total.bytes += blobd_volume_look(c->volume, id, false).bytes;
    c->fn(c->ctx, id);
}

int
blobd_volume_count(blobd_volume_t *v, unsigned folder, blobd_volume_fn *fn, void *ctx)
{
    struct counting counting = {v, {0}, fn, ctx};
    blobd_tally_begin(v->tally);
    int rc = blobd_volume_each_blob(v, folder, count_blob, &counting);
    if (!rc) {
        blobd_tally_set(v->tally, folder, &counting.total);
    }
    blobd_tally_end(v->tally);
    return rc;
}

struct blobd_total
blobd_volume_total(const blobd_volume_t *v)
{
    return blobd_tally_sum(v->tally);
}
