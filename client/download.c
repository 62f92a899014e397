/* SPDX-License-Identifier: MPL-2.0
 * Downloads. The blob grows in a file of ciphertext (incoming/ID.part) and is verified as it comes.
 * Going on after a break costs a look through that file: what is in it is verified again, so
 * neither a crash nor a power cut needs anything but the file's own bytes. When all is there and
 * right it is decrypted next to where it is to be, and gets its name last. Parts of downloads that
 * nobody goes on with are removed after a month.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"

#include "client/cipher.h"
#include "client/transfer_parts.h"

enum {
    IDLE_MS = 3600000,
    PIECE = 65536,
    PART_LIFE_S = 30 * 86400,
};

struct download {
    struct cq_transfer_side *side;
    const struct cq_download *d;
    char *part;
    int fd;
    uint64_t have;    /* bytes in the part */
    uint64_t resumed; /* those that were there before: they may have been damaged on this disk */
    struct cq_cipher cipher;
};

static void
tell(struct download *w)
{
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_TRANSFER,
        .request = w->d->request,
        .peer = w->d->peer,
        .done = w->have,
        .total = w->d->medium.length,
    };
    cq_transfer_tell(w->side, &e);
}

static int
write_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? -CQ_E_NO_SPACE : -CQ_E_IO;
}

static int
write_at(int fd, const uint8_t *p, size_t n, uint64_t at)
{
    while (n) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return write_error();
        }
        p += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return 0;
}

/* Feeds a cipher with the part's bytes from its beginning. */
static int
read_part(int fd, struct cq_cipher *c, uint64_t *have, cq_cipher_fn *fn, void *ctx)
{
    uint8_t *piece = cq_alloc(PIECE);
    int rc = 0;
    *have = 0;
    for (;;) {
        ssize_t got = pread(fd, piece, PIECE, (off_t)*have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            rc = got ? -CQ_E_IO : 0;
            break;
        }
        rc = cq_cipher_take(c, piece, (size_t)got, fn, ctx);
        *have += (uint64_t)got;
        if (rc) {
            break;
        }
    }
    free(piece);
    return rc;
}

/* What is behind the last good chunk goes; if nothing is good, all. */
static int
cut(struct download *w)
{
    if (!w->cipher.done) {
        cq_cipher_begin(&w->cipher, w->d->medium.key, w->d->medium.size);
    }
    w->have = w->cipher.offset;
    return ftruncate(w->fd, (off_t)w->have) ? -CQ_E_IO : 0;
}

static int
open_part(struct download *w)
{
    char name[2 * CQ_ID_SIZE + 8];
    (void)sodium_bin2hex(name, sizeof name, w->d->medium.blob.b, CQ_ID_SIZE);
    memcpy(name + (size_t)2 * CQ_ID_SIZE, ".part", sizeof ".part");
    w->part = cq_transfer_path(w->side->t->home, CQ_TRANSFER_INCOMING, name);
    w->fd = w->part ? open(w->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (w->fd < 0) {
        return write_error();
    }
    if (flock(w->fd, LOCK_EX | LOCK_NB)) {
        return -CQ_E_LOCKED;
    }
    cq_cipher_begin(&w->cipher, w->d->medium.key, w->d->medium.size);
    int rc = read_part(w->fd, &w->cipher, &w->have, NULL, NULL);
    rc = rc == -CQ_E_CRYPTO ? cut(w) : rc;
    w->resumed = w->have;
    return rc;
}

/* A chunk that was begun by an earlier run and ended by this one does not fit: its first part may
 * be to blame, so it is asked for once more as a whole. */
static int
on_bytes(void *ctx, const uint8_t *data, size_t n)
{
    struct download *w = ctx;
    int rc = write_at(w->fd, data, n, w->have);
    if (rc) {
        return rc;
    }
    w->have += n;
    w->side->failures = 0;
    rc = cq_cipher_take(&w->cipher, data, n, NULL, NULL);
    tell(w);
    return rc;
}

static int
attempt(struct download *w)
{
    struct cq_http_server server;
    int rc = cq_transfer_server(w->side, &server);
    rc = rc ? rc : cq_http_get(w->side->http, &server, &w->d->medium.blob, w->have, on_bytes, w);
    if (rc == -CQ_E_CRYPTO && w->cipher.offset < w->resumed) {
        w->resumed = 0;
        return cut(w);
    }
    return rc ? rc : w->cipher.is_whole ? 1 : -CQ_CLIENT_E_OFFLINE;
}

static int
fetch(struct download *w)
{
    int rc = w->cipher.is_whole;
    while (rc != 1) {
        rc = attempt(w);
        bool is_over = rc == -CQ_E_BAD_TOKEN || rc == -CQ_E_REVOKED || rc == -CQ_E_NO_SPACE ||
                       rc == -CQ_CLIENT_E_NOT_LOGGED_IN || rc == -CQ_CLIENT_E_CLONED ||
                       rc == -CQ_CLIENT_E_UNTRUSTED;
        if (cq_transfer_is_stopping(w->side->t)) {
            return -CQ_E_DEADLINE;
        }
        if (is_over || (rc < 0 && !cq_transfer_is_passing(rc))) {
            return rc;
        }
        if (rc < 0) {
            cq_transfer_wait(w->side, cq_transfer_failed(w->side, rc));
        }
    }
    tell(w);
    return 0;
}

/* Parts that nobody has gone on with for so long. Those in use are locked, ours too. */
static void
tidy(const struct download *w)
{
    char *folder = cq_transfer_path(w->side->t->home, CQ_TRANSFER_INCOMING, "");
    DIR *d = folder ? opendir(folder) : NULL;
    const struct dirent *e;
    while (d && (e = readdir(d))) { /* NOLINT(concurrency-mt-unsafe): nobody else's stream */
        size_t n = strlen(e->d_name);
        struct stat st;
        if (n < 5 || strcmp(e->d_name + n - 5, ".part") != 0) {
            continue;
        }
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        bool is_old = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
                      st.st_mtime < time(NULL) - PART_LIFE_S;
        if (is_old && !flock(fd, LOCK_EX | LOCK_NB)) {
            (void)unlinkat(dirfd(d), e->d_name, 0);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (d) {
        (void)closedir(d);
    }
    free(folder);
}

/* ---- the file that was asked for ---- */

struct target {
    int fd;
    uint64_t at;
};

static int
on_chunk(void *ctx, const uint8_t *data, size_t n)
{
    struct target *t = ctx;
    int rc = write_at(t->fd, data, n, t->at);
    t->at += n;
    return rc;
}

static int
give_name(const char *from, const char *to, bool replaces)
{
    if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, replaces ? 0 : RENAME_NOREPLACE)) {
        return 0;
    }
    if (errno == EINVAL && access(to, F_OK)) { /* a file system that cannot refuse to replace */
        return rename(from, to) ? -CQ_E_IO : 0;
    }
    return errno == EEXIST || errno == EINVAL ? -CQ_CLIENT_E_EXISTS : write_error();
}

static int
decrypt(struct download *w, int fd)
{
    struct target target = {fd, 0};
    struct cq_cipher *c = cq_alloc(sizeof *c);
    cq_cipher_begin(c, w->d->medium.key, w->d->medium.size);
    int rc = read_part(w->fd, c, &w->have, on_chunk, &target);
    rc = rc ? rc : c->is_whole ? 0 : -CQ_E_CRYPTO;
    cq_cipher_end(c);
    free(c);
    return rc ? rc : fsync(fd) ? write_error() : 0;
}

/* The folder a path is in; to be freed. */
static char *
folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    char *out = cq_alloc(n + 2);
    memcpy(out, n ? path : ".", n ? n : 1);
    return out;
}

/* So that its new name survives a power cut, before the part goes. Where a folder cannot be synced,
 * that is so. */
static int
sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 && fsync(fd) && errno != EINVAL ? write_error() : 0;
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* The decrypted file in its folder, which has no name before it is complete: nothing is left of it
 * if we are killed. UNAVAILABLE: that cannot be done there. */
static int
save_nameless(struct download *w, const char *folder)
{
    char link[32];
    int fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -CQ_E_UNAVAILABLE;
    }
    int rc = decrypt(w, fd);
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (!rc && linkat(AT_FDCWD, link, AT_FDCWD, w->d->path, AT_SYMLINK_FOLLOW)) {
        rc = errno == EEXIST ? -CQ_CLIENT_E_EXISTS : -CQ_E_UNAVAILABLE;
    }
    close(fd);
    return rc;
}

static int
save_named(struct download *w)
{
    size_t n = strlen(w->d->path) + 16;
    char *temporary = cq_alloc(n);
    (void)snprintf(temporary, n, "%s.XXXXXX", w->d->path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    int rc = fd < 0 ? write_error() : decrypt(w, fd);
    if (fd >= 0) {
        close(fd);
        rc = rc ? rc : give_name(temporary, w->d->path, w->d->replaces);
        if (rc) {
            (void)unlink(temporary);
        }
    }
    free(temporary);
    return rc;
}

static int
save(struct download *w)
{
    char *folder = folder_of(w->d->path);
    /* A link replaces nothing. */
    bool can_link = !w->d->replaces || access(w->d->path, F_OK);
    int rc = can_link ? save_nameless(w, folder) : -CQ_E_UNAVAILABLE;
    if (rc == -CQ_E_UNAVAILABLE || (rc == -CQ_CLIENT_E_EXISTS && w->d->replaces)) {
        rc = save_named(w);
    }
    rc = rc ? rc : sync_folder(folder);
    free(folder);
    return rc;
}

static void
download(struct cq_transfer_side *side, const struct cq_download *d)
{
    struct download *w = cq_alloc(sizeof *w);
    *w = (struct download){.side = side, .d = d, .fd = -1};
    side->failures = 0;
    int rc = open_part(w);
    tidy(w);
    rc = rc ? rc : fetch(w);
    rc = rc ? rc : save(w);
    if (w->part && (!rc || rc == -CQ_E_CRYPTO)) {
        (void)unlink(w->part);
    }
    if (w->fd >= 0) {
        close(w->fd);
    }
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_ANSWER,
        .request = d->request,
        .peer = d->peer,
        .error = -rc,
        .text = rc ? cq_client_error_text(rc) : NULL,
    };
    cq_events_push(side->t->events, &e);
    cq_cipher_end(&w->cipher);
    free(w->part);
    free(w);
}

static struct cq_download *
take(cq_transfer_t *t)
{
    pthread_mutex_lock(&t->lock);
    struct cq_download *d = t->downloads;
    if (d) {
        t->downloads = d->next;
        if (!t->downloads) {
            t->downloads_last = &t->downloads;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return d;
}

void
cq_download_run(struct cq_transfer_side *side)
{
    while (!cq_transfer_is_stopping(side->t)) {
        struct cq_download *d = take(side->t);
        if (!d) {
            cq_transfer_wait(side, IDLE_MS);
            continue;
        }
        download(side, d);
        sodium_memzero(&d->medium, sizeof d->medium);
        free(d->path);
        free(d);
    }
}
