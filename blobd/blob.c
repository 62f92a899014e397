/* SPDX-License-Identifier: MPL-2.0
 * Complete blobs in the folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/rt/check.h"

#include "blobd/volume_disk.h"

struct blobd_blob {
    struct cq_blobfile file;
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
    int rc = cq_blobfile_open(fd, id, &file);
    if (!rc) {
        *out = cq_alloc(sizeof **out);
        (*out)->file = file;
    }
    return rc;
}

void
blobd_blob_close(blobd_blob_t **b)
{
    if (*b) {
        cq_blobfile_close(&(*b)->file);
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
    if (unlinkat(v->dir_fd, name, 0)) {
        return errno == ENOENT ? 0 : blobd_volume_errno(errno);
    }
    return blobd_blob_sync(v, id);
}
