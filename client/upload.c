/* SPDX-License-Identifier: MPL-2.0
 * Uploads: the rows of the outbox that wait for their blob, one after the other.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "client/seal.h"
#include "client/transfer_parts.h"

enum {
    IDLE_MS = 3600000,
    OTHERS_MS = 2000, /* another process has it: look again */
    ORPHAN_S = 3600,  /* files that no row has, left by a crash */
    CREATE_TRIES = 3, /* an upload that the server does not know any more is begun again */
};

struct upload {
    struct cq_transfer_side *side;
    struct cq_out *row;
    struct cq_medium medium;
    int fd;
    char peer[CQ_NAME_MAX + 1];
    uint64_t offset; /* known to be on the server */
};

static void
on_progress(void *ctx, uint64_t done)
{
    struct upload *u = ctx;
    cq_client_event_t e = {
        .type = CQ_CLIENT_EVENT_TRANSFER,
        .peer = u->peer,
        .message = u->row->id,
        .done = done,
        .total = u->medium.length,
    };
    cq_transfer_tell(u->side, &e);
}

/* The descriptor with the blob's id, in the row and on the disk. */
static int
remember_blob(struct upload *u)
{
    cq_buf_t b = {0};
    cq_medium_write(&b, &u->medium);
    free(u->row->descriptor);
    u->row->descriptor = cq_buf_take(&b, &u->row->descriptor_size);
    return cq_db_out_describe(u->side->db, u->row);
}

/* Where to go on: begins the upload when there is none. */
static int
find_offset(struct upload *u, const struct cq_http_server *server)
{
    int rc = -CQ_E_NOT_FOUND;
    uint64_t before = u->offset;
    if (!cq_id_is_none(&u->medium.blob)) {
        rc = cq_http_offset(u->side->http, server, &u->medium.blob, &u->offset);
    }
    if (rc == -CQ_E_NOT_FOUND) { /* none yet, or it has expired */
        u->offset = 0;
        rc = cq_http_create(u->side->http, server, u->medium.length, &u->medium.blob);
        return rc ? rc : remember_blob(u);
    }
    if (!rc && u->offset > u->medium.length) {
        rc = -CQ_E_BAD_FRAME;
    }
    if (!rc && u->offset > before) {
        u->side->failures = 0;
    }
    return rc;
}

/* From here on it is a message like any other. */
static int
queue_in_tx(struct upload *u)
{
    cq_db_t *db = u->side->db;
    struct cq_chat chat;
    struct cq_out now;
    int rc = cq_db_out_get(db, u->row->id, &now);
    if (rc) {
        return rc;
    }
    bool is_ours = now.state == CQ_OUT_UPLOADING;
    cq_db_out_clear(&now);
    if (!is_ours) {
        return -CQ_E_NOT_FOUND;
    }
    rc = cq_db_chat_get(db, &u->row->chat, &chat);
    rc = rc ? rc : chat.open ? 0 : -CQ_E_CHAT_CLOSED;
    rc = rc ? rc : cq_db_out_next(db, &u->row->chat, &u->row->dseq, &u->row->prev);
    if (rc) {
        return rc;
    }
    rc = cq_seal_out(db, &u->side->id.user, &u->side->id.device, chat.key_version, u->row);
    if (rc == -CQ_E_NOT_FOUND) {
        return -CQ_E_UNAVAILABLE; /* the key comes with a sync */
    }
    return rc ? rc : cq_db_out_rebuild(db, u->row);
}

static int
queue(struct upload *u)
{
    int rc = cq_db_begin(u->side->db);
    return rc ? rc : cq_db_end(u->side->db, queue_in_tx(u));
}

/* One attempt over one connection: asks how far it is, sends the rest. 1: it is complete. */
static int
attempt(struct upload *u)
{
    struct cq_http_server server;
    int rc = cq_transfer_server(u->side, &server);
    rc = rc ? rc : find_offset(u, &server);
    if (!rc && u->offset < u->medium.length) {
        on_progress(u, u->offset);
        struct cq_http_part part = {u->fd, u->offset, u->medium.length, on_progress, u};
        rc = cq_http_upload(u->side->http, &server, &u->medium.blob, &part);
        u->offset = rc ? u->offset : u->medium.length;
    }
    return rc ? rc : u->offset == u->medium.length;
}

static int
transfer(struct upload *u)
{
    int creations = 0;
    for (;;) {
        bool is_new = cq_id_is_none(&u->medium.blob);
        int rc = attempt(u);
        if (rc == 1) {
            on_progress(u, u->medium.length);
            return queue(u);
        }
        if (rc == -CQ_E_NOT_FOUND && !is_new && ++creations < CREATE_TRIES) {
            u->medium.blob = (struct cq_id){{0}};
        } else if (!cq_transfer_is_passing(rc)) {
            return rc;
        } else {
            cq_transfer_wait(u->side, cq_transfer_failed(u->side, rc));
        }
        if (cq_transfer_is_stopping(u->side->t)) {
            return -CQ_E_DEADLINE;
        }
    }
}

static int
open_source(struct upload *u, const char *path)
{
    struct stat st;
    int rc =
        cq_medium_read((struct cq_view){u->row->descriptor, u->row->descriptor_size}, &u->medium);
    if (rc) {
        return rc;
    }
    u->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (u->fd < 0 || fstat(u->fd, &st)) {
        return -CQ_E_IO;
    }
    if ((uint64_t)st.st_size != u->medium.length) {
        return -CQ_E_CORRUPT;
    }
    return flock(u->fd, LOCK_EX | LOCK_NB) ? -CQ_E_LOCKED : 0;
}

/* 0: the row needs nothing more; else what stands in the way now. */
static int
upload(struct cq_transfer_side *side, struct cq_out *row)
{
    struct upload u = {.side = side, .row = row, .fd = -1};
    struct cq_chat chat;
    char *path = cq_transfer_path(side->t->home, CQ_TRANSFER_OUTGOING, row->file);
    if (!path) {
        return -CQ_E_IO;
    }
    if (!cq_db_chat_get(side->db, &row->chat, &chat)) {
        memcpy(u.peer, chat.peer_name, sizeof u.peer);
    }
    int rc = open_source(&u, path);
    rc = rc ? rc : transfer(&u);
    sodium_memzero(&u.medium, sizeof u.medium);
    bool is_refused = rc && rc != -CQ_E_DEADLINE && !cq_transfer_is_passing(rc);
    if (is_refused) {
        row->dseq = 0;
        (void)!cq_db_out_state(side->db, row->id, CQ_OUT_FAILED, -rc);
    }
    if (!rc || is_refused) {
        (void)unlink(path);
        side->t->on_queued(side->t->ctx, row);
    }
    if (u.fd >= 0) {
        close(u.fd);
    }
    free(path);
    return is_refused ? 0 : rc;
}

/* ---- what a crash has left ---- */

static void
sweep(struct cq_transfer_side *side)
{
    char *folder = cq_transfer_path(side->t->home, CQ_TRANSFER_OUTGOING, "");
    DIR *dir = folder ? opendir(folder) : NULL;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        bool is_old = e->d_name[0] != '.' && !fstatat(dirfd(dir), e->d_name, &st, 0) &&
                      st.st_mtime + ORPHAN_S < time(NULL);
        if (is_old && cq_db_out_has_file(side->db, e->d_name) == 0) {
            (void)unlinkat(dirfd(dir), e->d_name, 0);
        }
    }
    if (dir) {
        closedir(dir);
    }
    free(folder);
}

void
cq_upload_run(struct cq_transfer_side *side)
{
    sweep(side);
    while (!cq_transfer_is_stopping(side->t)) {
        uint64_t delay_ms = IDLE_MS;
        struct cq_out row;
        uint64_t after = 0;
        while (!cq_transfer_is_stopping(side->t) && !cq_db_out_upload(side->db, after, &row)) {
            after = row.id;
            delay_ms = upload(side, &row) ? OTHERS_MS : delay_ms;
            cq_db_out_clear(&row);
        }
        cq_transfer_wait(side, delay_ms);
    }
}
