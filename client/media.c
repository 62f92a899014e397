/* SPDX-License-Identifier: MPL-2.0
 * The public functions of pictures, files and voice messages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"

#include "client/cipher.h"
#include "client/client_parts.h"
#include "client/probe.h"

enum {
    FILE_NAME_SIZE = 33 /* 16 random bytes in hex */
};

const cq_client_media_t *
cq_client_show_medium(struct cq_shown_medium *out, const uint8_t *medium, size_t n)
{
    if (!n || cq_medium_read((struct cq_view){medium, n}, &out->medium)) {
        return NULL;
    }
    const struct cq_medium *m = &out->medium;
    out->view = (cq_client_media_t){
        .type = m->type,
        .name = m->name,
        .size = m->size,
        .width = m->width,
        .height = m->height,
        .duration_ms = m->duration_ms,
        .thumbnail = m->thumbnail_size ? m->thumbnail : NULL,
        .thumbnail_size = m->thumbnail_size,
        .thumbnail_damaged = m->is_thumbnail_bad,
    };
    return &out->view;
}

/* ---- the threads that move blobs ---- */

static void
on_queued(void *ctx, const struct cq_out *row)
{
    cq_client_flush(ctx, row->dseq ? row : NULL);
}

/* Makes them if need be. */
static int
start_transfer(cq_client_t *c)
{
    const struct cq_transfer_cfg cfg = {
        .home = c->home,
        .servers = c->servers,
        .ca_file = c->ca_file,
        .accepts_any_certificate = c->accepts_any_certificate,
        .events = c->events,
        .on_queued = on_queued,
        .ctx = c,
    };
    pthread_mutex_lock(&c->lock);
    int rc = c->transfer ? 0 : cq_transfer_new(&cfg, &c->transfer);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

int
cq_client_resume_uploads(cq_client_t *c)
{
    struct cq_out row;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_out_upload(c->db, 0, &row);
    pthread_mutex_unlock(&c->lock);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    cq_db_out_clear(&row);
    rc = start_transfer(c);
    if (!rc) {
        cq_transfer_wake(c->transfer);
    }
    return rc;
}

/* ---- sending ---- */

static int
sync_folder(const char *home)
{
    char *path = cq_transfer_path(home, CQ_TRANSFER_OUTGOING, "");
    int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd < 0 || fsync(fd) ? -CQ_E_IO : 0;
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return rc;
}

/* The ciphertext, durable under a name of its own in the home. */
static int
make_outgoing(cq_client_t *c, int source, struct cq_medium *m, char name[FILE_NAME_SIZE])
{
    uint8_t random[(FILE_NAME_SIZE - 1) / 2];
    randombytes_buf(random, sizeof random);
    randombytes_buf(m->key, sizeof m->key);
    (void)sodium_bin2hex(name, FILE_NAME_SIZE, random, sizeof random);
    char *path = cq_transfer_path(c->home, CQ_TRANSFER_OUTGOING, name);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    int rc = fd < 0 ? -CQ_E_IO : cq_cipher_seal(source, m->size, m->key, fd);
    rc = rc == -CQ_E_IO && fd >= 0 ? -CQ_CLIENT_E_FILE : rc;
    rc = rc ? rc : fsync(fd) ? -CQ_E_IO : sync_folder(c->home);
    if (fd >= 0) {
        close(fd);
        if (rc) {
            (void)unlink(path);
        }
    }
    free(path);
    m->length = cq_cipher_length(m->size);
    return rc;
}

static int
put_upload(cq_client_t *c, const char *peer, struct cq_out *o)
{
    struct cq_chat chat;
    int rc = cq_client_may_send(c, peer, &chat);
    o->chat = chat.chat;
    return rc ? rc : cq_db_out_put(c->db, o);
}

static int
check_chat(cq_client_t *c, const char *peer)
{
    struct cq_chat chat;
    pthread_mutex_lock(&c->lock);
    int rc = cq_client_may_send(c, peer, &chat);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static int
queue_upload(cq_client_t *c, const char *peer, struct cq_out *o)
{
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_begin(c->db);
    rc = rc ? rc : cq_db_end(c->db, put_upload(c, peer, o));
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static int
open_file(const char *path, struct cq_medium *m)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -CQ_CLIENT_E_FILE;
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return -CQ_CLIENT_E_FILE;
    }
    m->size = (uint64_t)st.st_size;
    cq_medium_name(path, strlen(path), m->name);
    return fd;
}

/* Everything but the database. */
static int
prepare(cq_client_t *c,
        const char *path,
        struct cq_medium *m,
        char name[FILE_NAME_SIZE],
        const char **warning)
{
    int fd = open_file(path, m);
    if (fd < 0) {
        return fd;
    }
    int rc = cq_probe_file(fd, m, warning);
    rc = rc ? rc : make_outgoing(c, fd, m, name);
    close(fd);
    return rc;
}

int
cq_client_send_file(cq_client_t *c,
                    const char *peer,
                    const char *path,
                    const char *caption,
                    uint64_t *message,
                    const char **warning)
{
    struct cq_medium m = {.size = 0};
    char name[FILE_NAME_SIZE];
    char text[CQ_MEDIUM_CAPTION_MAX + 1];
    cq_buf_t descriptor = {0};
    struct timespec now;
    size_t n = strlen(caption);
    *message = 0;
    *warning = NULL;
    if (n > CQ_MEDIUM_CAPTION_MAX || !cq_utf8_ok(caption, n)) {
        return -CQ_CLIENT_E_TEXT;
    }
    memcpy(text, caption, n + 1);
    int rc = check_chat(c, peer);
    rc = rc ? rc : prepare(c, path, &m, name, warning);
    if (rc) {
        return rc;
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    cq_medium_write(&descriptor, &m);
    sodium_memzero(&m, sizeof m);
    struct cq_out o = {
        .text = text,
        .text_size = n,
        .descriptor = descriptor.data,
        .descriptor_size = descriptor.size,
        .file = name,
        .file_size = strlen(name),
        .created_unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000,
        .state = CQ_OUT_UPLOADING,
    };
    rc = queue_upload(c, peer, &o);
    cq_buf_free(&descriptor);
    if (!rc) {
        *message = o.id;
        cq_client_flush(c, &o);
        rc = cq_client_resume_uploads(c);
    }
    return rc;
}

/* ---- getting ---- */

static int
find_medium(cq_client_t *c, const char *peer, uint64_t seq, struct cq_medium *out)
{
    struct cq_chat chat;
    struct cq_stored *row = NULL;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_chat_by_name(c->db, peer, &chat);
    rc = rc ? rc : cq_db_message_get(c->db, &chat.chat, seq, &row);
    pthread_mutex_unlock(&c->lock);
    if (!rc) {
        struct cq_view bytes = {row->medium, row->medium_size};
        rc = bytes.n ? cq_medium_read(bytes, out) : -CQ_E_NOT_FOUND;
        cq_db_message_free(row, 1);
    }
    return rc;
}

int64_t
cq_client_get(cq_client_t *c, const char *peer, uint64_t seq, const char *path, bool replace)
{
    struct cq_download *d = cq_alloc(sizeof *d);
    int rc = find_medium(c, peer, seq, &d->medium);
    rc = rc ? rc : start_transfer(c);
    if (rc) {
        free(d);
        return rc;
    }
    pthread_mutex_lock(&c->lock);
    uint64_t request = d->request = ++c->next_request;
    pthread_mutex_unlock(&c->lock);
    (void)snprintf(d->peer, sizeof d->peer, "%s", peer);
    d->path = strdup(path);
    CQ_ASSERT(d->path);
    d->replaces = replace;
    cq_transfer_get(c->transfer, &d);
    return (int64_t)request;
}
