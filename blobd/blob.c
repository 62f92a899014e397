/* SPDX-License-Identifier: MPL-2.0
 * A complete blob, read piece by piece, each piece checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"

#include "blobd/volume_disk.h"

struct blobd_blob {
    int fd;
    struct blobd_header header;
    size_t trailer_size;
    uint8_t *trailer;
};

static int
read_header(int fd, const struct cq_id *id, struct blobd_header *h)
{
    uint8_t bytes[BLOBD_HEADER_SIZE];
    struct stat st;
    int rc = blobd_volume_read_at(fd, bytes, sizeof bytes, 0);
    rc = rc ? rc : blobd_format_read_header(bytes, h);
    if (rc || fstat(fd, &st)) {
        return rc ? rc : -CQ_E_IO;
    }
    uint64_t size = BLOBD_HEADER_SIZE + h->length + blobd_format_trailer_size(h->length);
    return cq_id_eq(&h->id, id) && (uint64_t)st.st_size == size ? 0 : -CQ_E_CORRUPT;
}

int
blobd_blob_open(blobd_volume_t *v, const struct cq_id *id, blobd_blob_t **out)
{
    char name[BLOBD_NAME_SIZE];
    struct blobd_header h;
    *out = NULL;
    blobd_volume_blob_name(name, id);
    int fd = openat(v->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return blobd_volume_errno(errno);
    }
    int rc = read_header(fd, id, &h);
    if (rc) {
        (void)close(fd);
        return rc;
    }
    blobd_blob_t *b = cq_alloc(sizeof *b);
    *b = (blobd_blob_t){.fd = fd, .header = h};
    b->trailer_size = blobd_format_trailer_size(h.length);
    b->trailer = cq_alloc(b->trailer_size);
    rc = blobd_volume_read_at(fd, b->trailer, b->trailer_size, BLOBD_HEADER_SIZE + h.length);
    rc = rc ? rc : blobd_format_check_trailer(&h, (struct cq_view){b->trailer, b->trailer_size});
    if (rc) {
        blobd_blob_close(&b);
    }
    *out = b;
    return rc;
}

void
blobd_blob_close(blobd_blob_t **b)
{
    if (*b) {
        (void)close((*b)->fd);
        free((*b)->trailer);
        free(*b);
        *b = NULL;
    }
}

const struct blobd_header *
blobd_blob_header(const blobd_blob_t *b)
{
    return &b->header;
}

const uint8_t *
blobd_blob_root(const blobd_blob_t *b)
{
    return b->trailer + b->trailer_size - CQ_BLOB_HASH_SIZE;
}

int
blobd_blob_read(const blobd_blob_t *b, uint64_t offset, size_t n, uint8_t *out, size_t *at)
{
    if (offset > b->header.length || n > b->header.length - offset) {
        return -CQ_E_BAD_ARG;
    }
    uint64_t first = offset - offset % BLOBD_PIECE_SIZE;
    uint64_t end = offset + n + BLOBD_PIECE_SIZE - 1;
    end -= end % BLOBD_PIECE_SIZE;
    end = end < b->header.length ? end : b->header.length;
    *at = (size_t)(offset - first);
    int rc =
        n ? blobd_volume_read_at(b->fd, out, (size_t)(end - first), BLOBD_HEADER_SIZE + first) : 0;
    for (uint64_t p = first; n && !rc && p < end; p += BLOBD_PIECE_SIZE) {
        uint8_t hash[BLOBD_PIECE_HASH_SIZE];
        size_t size = (size_t)(end - p < BLOBD_PIECE_SIZE ? end - p : BLOBD_PIECE_SIZE);
        (void)crypto_generichash(hash, sizeof hash, out + (p - first), size, NULL, 0);
        const uint8_t *should = b->trailer + p / BLOBD_PIECE_SIZE * BLOBD_PIECE_HASH_SIZE;
        rc = memcmp(hash, should, sizeof hash) ? -CQ_E_CORRUPT : 0;
    }
    return rc;
}

int
blobd_blob_remove(blobd_volume_t *v, const struct cq_id *id)
{
    char name[BLOBD_NAME_SIZE];
    blobd_volume_blob_name(name, id);
    if (unlinkat(v->dir_fd, name, 0)) {
        return errno == ENOENT ? 0 : blobd_volume_errno(errno);
    }
    *strrchr(name, '/') = '\0';
    return blobd_volume_sync_folder(v, name);
}
