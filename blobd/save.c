/* SPDX-License-Identifier: MPL-2.0
 * Copies of blobs for a backup: the store says which and where to, blobd has them on disk, checked,
 * before it answers. A copy is made under another name, synced, read back from the disk and
 * compared with what the store knows of it; only then it gets its name. So whatever a crash leaves
 * with a name is whole, and a good copy that is there already is not made again.
 */
#include "blobd/save.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "blobd/stats.h"

enum {
    RUNNING_MAX = 64, /* the next one is BUSY */
    SPARE_BYTES = 16 << 20,
    FOLDER_MODE = 0700,
    FILE_MODE = 0600,
    SUFFIX_SIZE = 8,
};

struct blobd_saves {
    blobd_t *blobd;
    struct save_job *running;
    size_t count;
};

struct save_job {
    struct blobd_job job; /* first */
    struct cq_bus_from from;
    struct cq_id id;
    uint64_t length;
    uint8_t hash[CQ_BLOB_HASH_SIZE];
    uint64_t bytes; /* BEGIN: to come; SAVE: copied */
    char *path;
    int dir_fd;
    bool is_target_bad; /* what failed was not the blob */
    struct save_job *next;
};

struct blobd_saves *
blobd_save_new(blobd_t *b)
{
    struct blobd_saves *s = cq_alloc(sizeof *s);
    s->blobd = b;
    return s;
}

void
blobd_save_destroy(struct blobd_saves **s)
{
    if (*s) {
        CQ_ASSERT(!(*s)->running);
        free(*s);
        *s = NULL;
    }
}

/* ---- on a disk thread: the folder ---- */

static int
open_folder(struct save_job *j)
{
    j->dir_fd = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_ours = j->dir_fd >= 0 && blobd_volume_contains(j->job.blobd->volume, j->path);
    if (j->dir_fd >= 0 && !is_ours && mkdirat(j->dir_fd, "blobs", FOLDER_MODE) && errno != EEXIST) {
        is_ours = true;
    }
    j->is_target_bad = j->dir_fd < 0 || is_ours;
    return j->is_target_bad ? -CQ_E_IO : 0;
}

/* Can files there share their bytes with ours? Then a backup takes no room. */
static bool
can_share(const struct save_job *j)
{
    static const char probe[] = "blobs/probe";
    int from = blobd_volume_open_probe(j->job.blobd->volume);
    int to = openat(j->dir_fd, probe, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
    bool can = from >= 0 && to >= 0 && ioctl(to, FICLONE, from) == 0;
    if (to >= 0) {
        (void)close(to);
        (void)unlinkat(j->dir_fd, probe, 0);
    }
    if (from >= 0) {
        (void)close(from);
    }
    return can;
}

static bool
has_room(const struct save_job *j, uint64_t bytes)
{
    struct statvfs fs;
    if (fstatvfs(j->dir_fd, &fs)) {
        return false;
    }
    uint64_t needed = bytes + blobd_volume_reserve_on(j->job.blobd->volume, j->dir_fd);
    return (uint64_t)fs.f_bavail * fs.f_frsize >= needed;
}

static void
run_begin(struct blobd_job *job)
{
    struct save_job *j = (struct save_job *)job;
    job->rc = open_folder(j);
    if (!job->rc && !can_share(j) && !has_room(j, j->bytes + SPARE_BYTES)) {
        job->rc = -CQ_E_NO_SPACE;
    }
}

/* ---- on a disk thread: a blob ---- */

static bool
goes_on(void *ctx, size_t bytes)
{
    (void)bytes;
    return !blobd_job_is_stopping(((struct save_job *)ctx)->job.blobd);
}

static bool
is_wanted(const struct save_job *j, const struct cq_blobfile *f)
{
    return f->header.length == j->length &&
           memcmp(cq_blobfile_root_of(f), j->hash, sizeof j->hash) == 0;
}

/* Is what stands there under this name the blob, from its first to its last byte? */
static int
check_copy(struct save_job *j, const char *name)
{
    struct cq_blobfile copy;
    int fd = openat(j->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? -CQ_E_NOT_FOUND : -CQ_E_IO;
    }
    int rc = cq_blobfile_open(fd, &j->id, &copy);
    if (rc) {
        return rc;
    }
    rc = is_wanted(j, &copy) ? cq_blobfile_verify(&copy, goes_on, j) : -CQ_E_CORRUPT;
    cq_blobfile_close(&copy);
    return rc;
}

static int
write_copy(struct save_job *j, const struct cq_blobfile *from, const char *name)
{
    if (!has_room(j, 0)) {
        return -CQ_E_NO_SPACE;
    }
    int fd = openat(j->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return errno == ENOSPC || errno == EDQUOT ? -CQ_E_NO_SPACE : -CQ_E_IO;
    }
    int rc = cq_blobfile_copy(from, fd, goes_on, j);
    j->is_target_bad = rc && rc != -CQ_E_CORRUPT;
    if (close(fd) && !rc) {
        rc = -CQ_E_IO;
    }
    return rc;
}

/* What was read back is not the blob: it is one of the two. */
static int
blame(struct save_job *j, const struct cq_blobfile *from)
{
    int rc = cq_blobfile_verify(from, goes_on, j);
    if (rc == -CQ_E_IO) {
        rc = -CQ_E_CORRUPT; /* it cannot be read: for a backup that is the same */
    }
    j->is_target_bad = !rc;
    return rc ? rc : -CQ_E_IO;
}

static int
copy_to(struct save_job *j, const struct cq_blobfile *from, const char *name)
{
    char fresh[BLOBD_BLOB_NAME_SIZE + SUFFIX_SIZE];
    (void)snprintf(fresh, sizeof fresh, "%s.new", name);
    (void)unlinkat(j->dir_fd, fresh, 0);
    int rc = write_copy(j, from, fresh);
    if (!rc) {
        rc = check_copy(j, fresh);
        rc = rc == -CQ_E_CORRUPT || rc == -CQ_E_IO ? blame(j, from) : rc;
    }
    if (!rc && renameat(j->dir_fd, fresh, j->dir_fd, name)) {
        j->is_target_bad = true;
        rc = -CQ_E_IO;
    }
    if (rc) {
        (void)unlinkat(j->dir_fd, fresh, 0);
    }
    j->bytes = rc ? 0 : cq_blobfile_size(from->header.length);
    return rc;
}

static void
run_save(struct blobd_job *job)
{
    struct save_job *j = (struct save_job *)job;
    char name[BLOBD_BLOB_NAME_SIZE];
    blobd_blob_t *blob;
    job->rc = open_folder(j);
    if (job->rc) {
        return;
    }
    blobd_volume_blob_path(&j->id, name);
    if (check_copy(j, name) == 0) {
        return;
    }
    job->rc = blobd_blob_open(job->blobd->volume, &j->id, &blob);
    if (job->rc) {
        job->rc = job->rc == -CQ_E_IO ? -CQ_E_CORRUPT : job->rc;
        return;
    }
    char *slash = strrchr(name, '/');
    *slash = '\0';
    if (mkdirat(j->dir_fd, name, FOLDER_MODE) && errno != EEXIST) {
        j->is_target_bad = true;
        job->rc = errno == ENOSPC || errno == EDQUOT ? -CQ_E_NO_SPACE : -CQ_E_IO;
    } else {
        *slash = '/';
        job->rc = is_wanted(j, blobd_blob_file(blob)) ? copy_to(j, blobd_blob_file(blob), name)
                                                      : -CQ_E_CORRUPT;
    }
    blobd_blob_close(&blob);
}

/* ---- on the loop ---- */

static void
note_failure(const struct save_job *j)
{
    char hex[CQ_ID_HEX_SIZE], path[256];
    if (j->is_target_bad || j->job.rc == -CQ_E_NO_SPACE) {
        CQ_LOG(WARN, "BLOBD-SAVE-TARGET", "path=%s err=%s hint=%s",
               cq_log_text(j->path, strlen(j->path), path, sizeof path), cq_err_name(j->job.rc),
               "\"is the folder there and writable for blobd, is its disk full or broken?\"");
    } else if (j->job.rc == -CQ_E_CORRUPT) {
        blobd_scrub_damaged(&j->id, j->job.rc);
    } else if (j->job.rc == -CQ_E_NOT_FOUND) {
        blobd_stats.missing_total++;
        CQ_LOG(ERROR, "BLOBD-SAVE-MISSING", "blob=%s", cq_id_hex(&j->id, hex));
    }
}

static void
done(struct blobd_job *job)
{
    struct save_job *j = (struct save_job *)job;
    struct blobd_saves *s = job->blobd->saves;
    struct save_job **at = &s->running;
    while (*at != j) {
        at = &(*at)->next;
    }
    *at = j->next;
    s->count--;
    if (job->rc) {
        note_failure(j);
        cq_bus_reply_err(job->blobd->bus, &j->from, job->rc, 0);
    } else if (job->run == run_begin) {
        const struct cq_empty none = {0};
        cq_bus_reply(job->blobd->bus, &j->from, &cq_empty_schema, &none);
    } else {
        const struct cq_blob_saved m = {j->bytes};
        blobd_stats.saved_total += j->bytes;
        cq_bus_reply(job->blobd->bus, &j->from, &cq_blob_saved_schema, &m);
    }
    if (j->dir_fd >= 0) {
        (void)close(j->dir_fd);
    }
    free(j->path);
    free(j);
}

/* Is it being done already? The bus repeats what takes longer than a second. */
static bool
is_running(const struct blobd_saves *s, const struct cq_bus_from *from)
{
    for (const struct save_job *j = s->running; j; j = j->next) {
        if (j->from.rid == from->rid && strcmp(j->from.src, from->src) == 0) {
            return true;
        }
    }
    return false;
}

static void
start(blobd_t *b, const struct save_job *with, struct cq_view path)
{
    struct blobd_saves *s = b->saves;
    if (is_running(s, &with->from)) {
        return;
    }
    if (s->count >= RUNNING_MAX) {
        cq_bus_reply_err(b->bus, &with->from, -CQ_E_BUSY, 0);
        return;
    }
    struct save_job *j = cq_alloc(sizeof *j);
    *j = *with;
    j->job.blobd = b;
    j->job.done = done;
    j->dir_fd = -1;
    j->path = strndup((const char *)path.p, path.n);
    CQ_ASSERT(j->path);
    j->next = s->running;
    s->running = j;
    s->count++;
    blobd_job_start(&j->job);
}

void
blobd_on_save_begin(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_save_begin m;
    int rc = cq_schema_read(&cq_blob_save_begin_schema, fields, count, &m);
    if (rc || m.path.p[0] != '/') {
        cq_bus_reply_err(b->bus, from, -CQ_E_BAD_ARG, 0);
        return;
    }
    const struct save_job j = {.job = {.run = run_begin}, .from = *from, .bytes = m.bytes};
    start(b, &j, m.path);
}

void
blobd_on_save(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    blobd_t *b = ctx;
    struct cq_blob_save m;
    int rc = cq_schema_read(&cq_blob_save_schema, fields, count, &m);
    if (rc || m.path.p[0] != '/') {
        cq_bus_reply_err(b->bus, from, -CQ_E_BAD_ARG, 0);
        return;
    }
    struct save_job j = {.job = {.run = run_save}, .from = *from, .id = m.id, .length = m.length};
    memcpy(j.hash, m.hash.p, sizeof j.hash);
    start(b, &j, m.path);
}
