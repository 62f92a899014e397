/* SPDX-License-Identifier: MPL-2.0
 * An upload under way. Pieces get their tags as they come, so that nothing is read again at the
 * end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"
#include "common/rt/random.h"

#include "blobd/volume_disk.h"

enum {
    WRITE_BACK_BYTES = 1048576
};

struct blobd_part {
    struct cq_blobfile_header header;
    uint64_t offset;
    cq_gmac_t *mac;      /* of the piece that offset lies in */
    uint8_t *tags;       /* of the full pieces before it, and room for the last and the root */
    bool is_last_tagged; /* the piece that offset lies in is the last one, and there too */
    bool is_broken;      /* the disk took neither the data nor its being cut off */
    int fd;
};

/* The offset is at its beginning. */
static void
begin_piece(blobd_part_t *p)
{
    p->is_last_tagged = false;
    cq_gmac_begin(p->mac, p->offset / CQ_BLOBFILE_PIECE_SIZE);
}

static void
end_piece(blobd_part_t *p, size_t number)
{
    cq_gmac_end(p->mac, p->tags + number * CQ_BLOBFILE_TAG_SIZE);
}

/* Data behind the offset is in the file: takes it into the tags and moves on. */
static void
take(blobd_part_t *p, const uint8_t *data, size_t n)
{
    while (n) {
        size_t room = CQ_BLOBFILE_PIECE_SIZE - (size_t)(p->offset % CQ_BLOBFILE_PIECE_SIZE);
        size_t part = n < room ? n : room;
        cq_gmac_add(p->mac, data, part);
        p->offset += part;
        if (p->offset % CQ_BLOBFILE_PIECE_SIZE == 0) {
            end_piece(p, (size_t)(p->offset / CQ_BLOBFILE_PIECE_SIZE) - 1);
            begin_piece(p);
        }
        data += part;
        n -= part;
    }
}

static blobd_part_t *
new_part(int fd, const struct cq_blobfile_header *h)
{
    blobd_part_t *p = cq_alloc(sizeof *p);
    p->fd = fd;
    p->header = *h;
    p->tags = cq_alloc(cq_blobfile_trailer_size(h->length));
    /* One that was begun in the form before goes on in ours: its tags are not written yet. */
    if (p->header.form != CQ_BLOBFILE_KEYED) {
        p->header.form = CQ_BLOBFILE_KEYED;
        cq_random(p->header.key, sizeof p->header.key);
    }
    p->mac = cq_gmac_new(p->header.key);
    begin_piece(p);
    return p;
}

static int
write_header(const blobd_part_t *p)
{
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    cq_blobfile_write_header(bytes, &p->header);
    return cq_blobfile_write_at(p->fd, bytes, sizeof bytes, 0);
}

int
blobd_part_create(blobd_volume_t *v, const struct cq_blobfile_header *h, blobd_part_t **out)
{
    char name[BLOBD_NAME_SIZE];
    *out = NULL;
    if (blobd_volume_room(v) < h->length) {
        return -CQ_E_NO_SPACE;
    }
    blobd_volume_part_name(name, &h->id);
    int fd = openat(v->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return blobd_volume_change_errno(errno);
    }
    blobd_part_t *p = new_part(fd, h);
    p->header.synced = 0;
    p->header.tentative_from = CQ_BLOBFILE_NOT_TENTATIVE;
    int rc = write_header(p);
    if (!rc && fdatasync(fd)) {
        rc = blobd_volume_errno(errno);
    }
    if (!rc) {
        rc = blobd_volume_sync_folder(v, "uploads");
    }
    if (rc) {
        (void)unlinkat(v->dir_fd, name, 0);
        blobd_part_close(&p);
    }
    *out = p;
    return rc;
}

/* Bytes of data that may be trusted of a file of this size. */
static uint64_t
trusted(const blobd_volume_t *v, const struct cq_blobfile_header *h, uint64_t file_size)
{
    uint64_t data = file_size > CQ_BLOBFILE_HEADER_SIZE ? file_size - CQ_BLOBFILE_HEADER_SIZE : 0;
    data = data < h->length ? data : h->length;
    data = data < h->tentative_from ? data : h->tentative_from;
    return v->is_same_boot || data < h->synced ? data : h->synced;
}

static int
hash_file(blobd_part_t *p, uint64_t up_to)
{
    uint8_t *piece = cq_alloc(CQ_BLOBFILE_PIECE_SIZE);
    int rc = 0;
    while (!rc && p->offset < up_to) {
        uint64_t left = up_to - p->offset;
        size_t n = left < CQ_BLOBFILE_PIECE_SIZE ? (size_t)left : CQ_BLOBFILE_PIECE_SIZE;
        rc = cq_blobfile_read_at(p->fd, piece, n, CQ_BLOBFILE_HEADER_SIZE + p->offset);
        if (!rc) {
            take(p, piece, n);
        }
    }
    free(piece);
    return rc;
}

/* Forgets what is behind `up_to`, in the file and in the tags. */
static int
go_back(blobd_part_t *p, uint64_t up_to)
{
    if (ftruncate(p->fd, (off_t)(CQ_BLOBFILE_HEADER_SIZE + up_to))) {
        return blobd_volume_errno(errno);
    }
    p->header.tentative_from = CQ_BLOBFILE_NOT_TENTATIVE;
    p->header.synced = p->header.synced < up_to ? p->header.synced : up_to;
    p->offset = up_to - up_to % CQ_BLOBFILE_PIECE_SIZE;
    begin_piece(p);
    int rc = hash_file(p, up_to);
    return rc ? rc : write_header(p);
}

/* A sync that failed has perhaps lost what was to be written, and the next one says nothing of it:
 * what no sync before has brought to the disk is void, and sent again. */
static int
forget_unsynced(blobd_part_t *p, int err)
{
    int rc = blobd_volume_errno(err);
    p->is_broken = go_back(p, p->header.synced) != 0;
    return rc;
}

/* What was broken by the disk is put in order before anything else. */
static int
mend(blobd_part_t *p)
{
    int rc = p->is_broken ? go_back(p, p->header.synced) : 0;
    p->is_broken = rc != 0;
    return rc;
}

static int
sync_part(blobd_part_t *p)
{
    return fdatasync(p->fd) == 0 ? 0 : forget_unsynced(p, errno);
}

/* Opens the file of an upload and reads its header. */
static int
open_file(blobd_volume_t *v, const struct cq_id *id, struct cq_blobfile_header *h, int *fd)
{
    char name[BLOBD_NAME_SIZE];
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    blobd_volume_part_name(name, id);
    *fd = openat(v->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0) {
        return blobd_volume_errno(errno);
    }
    int rc = cq_blobfile_read_at(*fd, bytes, sizeof bytes, 0);
    rc = rc ? rc : cq_blobfile_read_header(bytes, h);
    rc = rc || cq_id_eq(&h->id, id) ? rc : -CQ_E_CORRUPT;
    if (rc) {
        (void)close(*fd);
    }
    return rc;
}

bool
blobd_part_is_expired(blobd_volume_t *v, const struct cq_id *id)
{
    struct cq_blobfile_header h = {.expires_unix_ms = UINT64_MAX};
    int fd;
    if (open_file(v, id, &h, &fd)) {
        return false;
    }
    (void)close(fd);
    return h.expires_unix_ms < cq_now_unix_ms();
}

int
blobd_part_settle(blobd_volume_t *v, const struct cq_id *id)
{
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct cq_blobfile_header h = {.length = 0};
    struct stat st;
    int fd;
    int rc = open_file(v, id, &h, &fd);
    if (rc) {
        return rc == -CQ_E_CORRUPT ? 0 : rc; /* whoever asks for it is told */
    }
    rc = fstat(fd, &st) ? -CQ_E_IO : 0;
    uint64_t good = rc ? 0 : trusted(v, &h, (uint64_t)st.st_size);
    if (!rc && ftruncate(fd, (off_t)(CQ_BLOBFILE_HEADER_SIZE + good))) {
        rc = blobd_volume_errno(errno);
    }
    h.tentative_from = CQ_BLOBFILE_NOT_TENTATIVE;
    h.synced = good;
    cq_blobfile_write_header(bytes, &h);
    rc = rc ? rc : cq_blobfile_write_at(fd, bytes, sizeof bytes, 0);
    rc = rc || fsync(fd) == 0 ? rc : blobd_volume_errno(errno);
    (void)close(fd);
    return rc;
}

int
blobd_part_open(blobd_volume_t *v, const struct cq_id *id, blobd_part_t **out)
{
    struct cq_blobfile_header h = {.length = 0};
    struct stat st;
    int fd;
    *out = NULL;
    int rc = open_file(v, id, &h, &fd);
    if (rc) {
        return rc;
    }
    blobd_part_t *p = new_part(fd, &h);
    rc = fstat(fd, &st) ? -CQ_E_IO : 0;
    uint64_t good = rc ? 0 : trusted(v, &h, (uint64_t)st.st_size);
    rc = rc ? rc : hash_file(p, good);
    if (!rc) {
        rc = go_back(p, good);
    }
    if (rc) {
        blobd_part_close(&p);
    }
    *out = p;
    return rc;
}

void
blobd_part_close(blobd_part_t **p)
{
    if (*p) {
        (void)close((*p)->fd);
        cq_gmac_destroy(&(*p)->mac);
        free((*p)->tags);
        free(*p);
        *p = NULL;
    }
}

const struct cq_blobfile_header *
blobd_part_header(const blobd_part_t *p)
{
    return &p->header;
}

uint64_t
blobd_part_offset(const blobd_part_t *p)
{
    return p->offset;
}

int
blobd_part_append(blobd_volume_t *v, blobd_part_t *p, const void *data, size_t n)
{
    if (n > p->header.length - p->offset) {
        return -CQ_E_TOO_BIG;
    }
    if (blobd_volume_room(v) < n) {
        return -CQ_E_NO_SPACE;
    }
    int rc = mend(p);
    if (rc) {
        return rc;
    }
    rc = cq_blobfile_write_at(p->fd, data, n, CQ_BLOBFILE_HEADER_SIZE + p->offset);
    if (rc) {
        /* Half of it may be there: the file's end is what a restart believes. */
        (void)!ftruncate(p->fd, (off_t)(CQ_BLOBFILE_HEADER_SIZE + p->offset));
        return rc;
    }
    /* The disk begins with what is there, so that the sync at the end need not wait for all. */
    uint64_t begun = p->offset - p->offset % WRITE_BACK_BYTES;
    if ((p->offset + n) / WRITE_BACK_BYTES != begun / WRITE_BACK_BYTES) {
        (void)sync_file_range(p->fd, (off_t)(CQ_BLOBFILE_HEADER_SIZE + begun), WRITE_BACK_BYTES,
                              SYNC_FILE_RANGE_WRITE);
    }
    take(p, data, n);
    return 0;
}

int
blobd_part_begin_tentative(blobd_part_t *p)
{
    int rc = mend(p);
    p->header.tentative_from = p->offset;
    rc = rc ? rc : write_header(p);
    return rc ? rc : sync_part(p);
}

int
blobd_part_keep(blobd_part_t *p)
{
    int rc = mend(p);
    rc = rc ? rc : sync_part(p);
    if (rc) {
        return rc;
    }
    p->header.synced = p->offset;
    p->header.tentative_from = CQ_BLOBFILE_NOT_TENTATIVE;
    rc = write_header(p);
    return rc ? rc : sync_part(p);
}

int
blobd_part_cut(blobd_part_t *p)
{
    bool is_tentative = p->header.tentative_from != CQ_BLOBFILE_NOT_TENTATIVE;
    int rc = mend(p);
    return rc ? rc : is_tentative ? go_back(p, p->header.tentative_from) : 0;
}

/* Header as of a complete blob, trailer, sync. */
static int
seal(blobd_part_t *p, uint8_t *root)
{
    size_t pieces = cq_blobfile_piece_count(p->header.length);
    if (p->offset % CQ_BLOBFILE_PIECE_SIZE && !p->is_last_tagged) {
        end_piece(p, pieces - 1);
        p->is_last_tagged = true; /* it may have to be tried again */
    }
    cq_blobfile_root(&p->header, p->tags, root);
    memcpy(p->tags + pieces * CQ_BLOBFILE_TAG_SIZE, root, CQ_BLOB_HASH_SIZE);
    int rc = cq_blobfile_write_at(p->fd, p->tags, cq_blobfile_trailer_size(p->header.length),
                                  CQ_BLOBFILE_HEADER_SIZE + p->header.length);
    /* The header says "all synced" only after it is: a restart believes it. */
    rc = rc ? rc : sync_part(p);
    if (rc) {
        return rc;
    }
    p->header.synced = p->header.length;
    p->header.tentative_from = CQ_BLOBFILE_NOT_TENTATIVE;
    rc = write_header(p);
    return rc || fsync(p->fd) == 0 ? rc : blobd_volume_errno(errno);
}

/* An upload becomes a blob, and is counted as one. */
static int
move_part(blobd_volume_t *v, const struct cq_blobfile_header *h, const char *from, const char *to)
{
    blobd_tally_begin(v->tally);
    uint64_t before_bytes = blobd_volume_look(v, &h->id, false).bytes;
    int rc = renameat(v->dir_fd, from, v->dir_fd, to) ? blobd_volume_change_errno(errno) : 0;
    if (!rc) {
        uint64_t bytes = blobd_volume_look(v, &h->id, false).bytes;
        blobd_tally_add(v->tally, blobd_volume_folder_of(&h->id), before_bytes ? 0 : 1,
                        (int64_t)(bytes - before_bytes));
    }
    blobd_tally_end(v->tally);
    return rc;
}

int
blobd_part_finish(blobd_volume_t *v, blobd_part_t **part, uint8_t *root)
{
    blobd_part_t *p = *part;
    char from[BLOBD_NAME_SIZE], to[BLOBD_NAME_SIZE];
    int rc = mend(p);
    if (rc || p->offset != p->header.length) {
        return rc ? rc : -CQ_E_BAD_STATE;
    }
    rc = seal(p, root);
    rc = rc ? rc : blobd_volume_make_folder(v, &p->header.id);
    if (rc) {
        return rc;
    }
    blobd_volume_part_name(from, &p->header.id);
    blobd_volume_blob_name(to, &p->header.id);
    rc = move_part(v, &p->header, from, to);
    if (rc) {
        return rc;
    }
    blobd_part_close(part);
    *strrchr(to, '/') = '\0';
    rc = blobd_volume_sync_folder(v, to);
    return rc ? rc : blobd_volume_sync_folder(v, "uploads");
}

int
blobd_part_remove(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_part_name(name, id);
    if (unlinkat(v->dir_fd, name, 0) && errno != ENOENT) {
        return blobd_volume_errno(errno);
    }
    return 0;
}
