/* SPDX-License-Identifier: MPL-2.0
 * Complete blobs in the folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/check.h"

#include "blobd/volume_disk.h"

struct blobd_blob {
    struct cq_blobfile file;
    uint64_t inode;
    uint8_t *checked; /* of each piece: 1 if it was right; threads write it, so it is atomic */
};

int
blobd_blob_open(blobd_volume_t *v, const struct cq_id *id, blobd_blob_t **out)
{
    char name[BLOBD_NAME_SIZE];
    struct cq_blobfile file;
    *out = NULL;
    blobd_volume_blob_name(name, id);
    int fd = openat(v->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return blobd_volume_errno(errno);
    }
    struct stat st;
    uint64_t inode = fstat(fd, &st) ? 0 : st.st_ino;
    int rc = cq_blobfile_open(fd, id, &file);
    if (!rc) {
        *out = cq_alloc(sizeof **out);
        (*out)->file = file;
        (*out)->inode = inode;
        (*out)->checked = cq_alloc(cq_blobfile_piece_count(file.header.length) + 1);
    }
    return rc;
}

void
blobd_blob_close(blobd_blob_t **b)
{
    if (*b) {
        cq_blobfile_close(&(*b)->file);
        free((*b)->checked);
        free(*b);
        *b = NULL;
    }
}

const struct cq_blobfile *
blobd_blob_file(const blobd_blob_t *b)
{
    return &b->file;
}

const struct cq_blobfile_header *
blobd_blob_header(const blobd_blob_t *b)
{
    return &b->file.header;
}

const uint8_t *
blobd_blob_root(const blobd_blob_t *b)
{
    return cq_blobfile_root_of(&b->file);
}

int
blobd_blob_read(const blobd_blob_t *b, uint64_t offset, size_t n, uint8_t *out, size_t *at)
{
    return cq_blobfile_read(&b->file, offset, n, out, at);
}

static int
check_piece(const blobd_blob_t *b, uint64_t first, uint8_t *out)
{
    uint8_t *checked = &b->checked[first / CQ_BLOBFILE_PIECE_SIZE];
    if (__atomic_load_n(checked, __ATOMIC_RELAXED)) {
        return 0;
    }
    uint64_t left = b->file.header.length - first;
    size_t n = left < CQ_BLOBFILE_PIECE_SIZE ? (size_t)left : (size_t)CQ_BLOBFILE_PIECE_SIZE;
    size_t at;
    int rc = cq_blobfile_read(&b->file, first, n, out, &at);
    if (!rc) {
        __atomic_store_n(checked, 1, __ATOMIC_RELAXED);
    }
    return rc;
}

int
blobd_blob_check(const blobd_blob_t *b, uint64_t offset, size_t n, size_t *good)
{
    *good = 0;
    if (!n || offset > b->file.header.length || n > b->file.header.length - offset) {
        return -CQ_E_BAD_ARG;
    }
    uint8_t *out = malloc(3 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    int rc = out ? 0 : -CQ_E_BUSY;
    while (!rc && *good < n) {
        uint64_t at = offset + *good;
        uint64_t first = at - at % CQ_BLOBFILE_PIECE_SIZE;
        rc = check_piece(b, first, out);
        size_t to_end = (size_t)(first + CQ_BLOBFILE_PIECE_SIZE - at);
        if (!rc) {
            *good += n - *good < to_end ? n - *good : to_end;
        }
    }
    free(out);
    return *good ? 0 : rc;
}

void
blobd_blob_place(const blobd_blob_t *b, uint64_t offset, uint64_t *at, uint64_t *inode)
{
    *at = CQ_BLOBFILE_HEADER_SIZE + offset;
    *inode = b->inode;
}

int
blobd_blob_sync(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    *strrchr(name, '/') = '\0';
    return blobd_volume_sync_folder(v, name);
}

int
blobd_blob_remove(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    blobd_tally_begin(v->tally);
    uint64_t bytes = blobd_volume_look(v, id, false).bytes;
    int err = unlinkat(v->dir_fd, name, 0) ? errno : 0;
    if (!err) {
        blobd_tally_add(v->tally, blobd_volume_folder_of(id), -1, -(int64_t)bytes);
    }
    blobd_tally_end(v->tally);
    if (err) {
        return err == ENOENT ? 0 : blobd_volume_errno(err);
    }
    return blobd_blob_sync(v, id);
}
