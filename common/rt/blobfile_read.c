/* SPDX-License-Identifier: MPL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/blobfile.h"
#include "common/rt/check.h"

enum {
    STEP_SIZE = 1 << 20 /* of checking and copying */
};

int
cq_blobfile_read_at(int fd, void *out, size_t n, uint64_t offset)
{
    for (uint8_t *p = out; n;) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0 ? -CQ_E_CORRUPT : -CQ_E_IO;
        }
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

static int
write_error(int err)
{
    return err == ENOSPC || err == EDQUOT || err == EFBIG ? -CQ_E_NO_SPACE : -CQ_E_IO;
}

int
cq_blobfile_write_at(int fd, const void *data, size_t n, uint64_t offset)
{
    for (const uint8_t *p = data; n;) {
        ssize_t put = pwrite(fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return write_error(errno);
        }
        p += put;
        n -= (size_t)put;
        offset += (uint64_t)put;
    }
    return 0;
}

static int
read_header(int fd, const struct cq_id *id, struct cq_blobfile_header *h)
{
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    struct stat st;
    int rc = cq_blobfile_read_at(fd, bytes, sizeof bytes, 0);
    rc = rc ? rc : cq_blobfile_read_header(bytes, h);
    if (rc || fstat(fd, &st)) {
        return rc ? rc : -CQ_E_IO;
    }
    bool is_right = cq_id_eq(&h->id, id) && (uint64_t)st.st_size == cq_blobfile_size(h->length);
    return is_right ? 0 : -CQ_E_CORRUPT;
}

int
cq_blobfile_open(int fd, const struct cq_id *id, struct cq_blobfile *out)
{
    *out = (struct cq_blobfile){.fd = fd};
    int rc = read_header(fd, id, &out->header);
    if (!rc) {
        out->trailer_size = cq_blobfile_trailer_size(out->header.length);
        out->trailer = cq_alloc(out->trailer_size);
        rc = cq_blobfile_read_at(fd, out->trailer, out->trailer_size,
                                 CQ_BLOBFILE_HEADER_SIZE + out->header.length);
    }
    if (!rc) {
        rc = cq_blobfile_check_trailer(&out->header,
                                       (struct cq_view){out->trailer, out->trailer_size});
    }
    if (rc) {
        cq_blobfile_close(out);
    }
    return rc;
}

void
cq_blobfile_close(struct cq_blobfile *f)
{
    if (f->fd >= 0) {
        (void)close(f->fd);
    }
    free(f->trailer);
    *f = (struct cq_blobfile){.fd = -1};
}

const uint8_t *
cq_blobfile_root_of(const struct cq_blobfile *f)
{
    return f->trailer + f->trailer_size - CQ_BLOB_HASH_SIZE;
}

/* mac: NULL in a file of the first form. */
static int
check_piece(const struct cq_blobfile *f, cq_gmac_t *mac, size_t number, struct cq_view piece)
{
    uint8_t tag[CQ_BLOBFILE_TAG_SIZE];
    if (mac) {
        cq_gmac_begin(mac, number);
        cq_gmac_add(mac, piece.p, piece.n);
        cq_gmac_end(mac, tag);
    } else {
        (void)crypto_generichash(tag, sizeof tag, piece.p, piece.n, NULL, 0);
    }
    return memcmp(tag, f->trailer + number * sizeof tag, sizeof tag) ? -CQ_E_CORRUPT : 0;
}

/* Whole pieces, each checked while it is still in the processor's cache. */
static int
read_pieces(const struct cq_blobfile *f, uint64_t first, uint64_t end, uint8_t *out)
{
    cq_gmac_t *mac = f->header.form == CQ_BLOBFILE_KEYED ? cq_gmac_new(f->header.key) : NULL;
    int rc = 0;
    for (uint64_t p = first; !rc && p < end; p += CQ_BLOBFILE_PIECE_SIZE) {
        size_t n = (size_t)(end - p < CQ_BLOBFILE_PIECE_SIZE ? end - p : CQ_BLOBFILE_PIECE_SIZE);
        uint8_t *piece = out + (p - first);
        rc = cq_blobfile_read_at(f->fd, piece, n, CQ_BLOBFILE_HEADER_SIZE + p);
        rc = rc ? rc
                : check_piece(f, mac, (size_t)(p / CQ_BLOBFILE_PIECE_SIZE),
                              (struct cq_view){piece, n});
    }
    cq_gmac_destroy(&mac);
    return rc;
}

int
cq_blobfile_read(const struct cq_blobfile *f, uint64_t offset, size_t n, uint8_t *out, size_t *at)
{
    uint64_t length = f->header.length;
    if (offset > length || n > length - offset) {
        return -CQ_E_BAD_ARG;
    }
    uint64_t first = offset - offset % CQ_BLOBFILE_PIECE_SIZE;
    uint64_t end = offset + n + CQ_BLOBFILE_PIECE_SIZE - 1;
    end -= end % CQ_BLOBFILE_PIECE_SIZE;
    end = end < length ? end : length;
    *at = (size_t)(offset - first);
    return n ? read_pieces(f, first, end, out) : 0;
}

/* All data in steps, each checked; to >= 0: written there, too. */
static int
walk(const struct cq_blobfile *f, int to, cq_blobfile_step_fn *step, void *ctx)
{
    uint8_t *data = cq_alloc(STEP_SIZE + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    uint64_t length = f->header.length;
    int rc = 0;
    for (uint64_t offset = 0; !rc && offset < length;) {
        size_t n = (size_t)(length - offset < STEP_SIZE ? length - offset : STEP_SIZE);
        size_t at = 0;
        rc = cq_blobfile_read(f, offset, n, data, &at);
        if (rc == -CQ_E_IO && to >= 0) {
            rc = -CQ_E_CORRUPT; /* a sector of the source that cannot be read */
        }
        if (!rc && to >= 0) {
            rc = cq_blobfile_write_at(to, data + at, n, CQ_BLOBFILE_HEADER_SIZE + offset);
        }
        if (!rc && step && !step(ctx, n)) {
            rc = -CQ_E_UNAVAILABLE;
        }
        offset += n;
    }
    free(data);
    return rc;
}

int
cq_blobfile_verify(const struct cq_blobfile *f, cq_blobfile_step_fn *step, void *ctx)
{
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return walk(f, -1, step, ctx);
}

static int
write_frame(const struct cq_blobfile *f, int to)
{
    uint8_t header[CQ_BLOBFILE_HEADER_SIZE];
    cq_blobfile_write_header(header, &f->header);
    int rc = cq_blobfile_write_at(to, header, sizeof header, 0);
    return rc ? rc
              : cq_blobfile_write_at(to, f->trailer, f->trailer_size,
                                     CQ_BLOBFILE_HEADER_SIZE + f->header.length);
}

int
cq_blobfile_copy(const struct cq_blobfile *f, int to, cq_blobfile_step_fn *step, void *ctx)
{
    int rc = 0;
    if (ioctl(to, FICLONE, f->fd) != 0) {
        rc = walk(f, to, step, ctx);
        rc = rc ? rc : write_frame(f, to);
    } else if (step && !step(ctx, (size_t)f->header.length)) {
        rc = -CQ_E_UNAVAILABLE;
    }
    return rc || fsync(to) == 0 ? rc : write_error(errno);
}
