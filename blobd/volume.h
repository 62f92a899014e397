/* SPDX-License-Identifier: MPL-2.0
 * Blobs in a folder of a file system. volume_disk.c is the only one so far; another place for blobs
 * (S3) would have the same functions.
 *
 *   DIR/lock                one process per folder
 *   DIR/boot                the machine's boot in which we last ran
 *   DIR/scrub               how far the search for damage is
 *   DIR/orphans/ID          empty; when it was first noticed that nobody knows this blob
 *   DIR/uploads/ID          not complete: never served
 *   DIR/blobs/III/ID        complete, fsynced, never changed again; III: first three digits of ID
 *
 * All functions block (disk). Different parts and blobs may be used by different threads at the
 * same time; one part by one thread at a time.
 */
#ifndef BLOBD_VOLUME_H
#define BLOBD_VOLUME_H

#include <stdbool.h>

#include "common/rt/blobfile.h"

typedef struct blobd_volume blobd_volume_t;
typedef struct blobd_part blobd_part_t; /* an upload under way */
typedef struct blobd_blob blobd_blob_t; /* complete, open for reading */

struct blobd_volume_cfg {
    const char *dir;        /* created with 0700 if missing */
    uint64_t reserve_bytes; /* nothing is accepted that would leave less free than this */
};

/* 0; LOCKED; IO. Logged with a sentence that says what to do. */
int blobd_volume_open(const struct blobd_volume_cfg *cfg, blobd_volume_t **out) CQ_MUST_CHECK;
void blobd_volume_close(blobd_volume_t **v);
/* Bytes that may still be taken; 0 also if nobody knows. */
uint64_t blobd_volume_room(const blobd_volume_t *v);

/* ---- uploads ---- */

/* A new upload: its file is durable. h: id, user, length, times. 0; BAD_STATE (exists); NO_SPACE;
 * IO. */
int blobd_part_create(blobd_volume_t *v,
                      const struct cq_blobfile_header *h,
                      blobd_part_t **out) CQ_MUST_CHECK;
/* Opens one that is on disk. What may not be trusted is cut off: data behind an interrupted
 * tentative write, and after a restart of the machine what had not been synced. Reads all of its
 * data. 0; NOT_FOUND; CORRUPT; IO. */
int blobd_part_open(blobd_volume_t *v, const struct cq_id *id, blobd_part_t **out) CQ_MUST_CHECK;
void blobd_part_close(blobd_part_t **p);
const struct cq_blobfile_header *blobd_part_header(const blobd_part_t *p);
uint64_t blobd_part_offset(const blobd_part_t *p); /* bytes of data there are */
/* Where a function below fails with IO or NO_SPACE because the disk did not take what it was to
 * sync, the offset is back at what has certainly reached the disk: the rest is appended again.
 *
 * Appends. 0; TOO_BIG (beyond the length); NO_SPACE, IO: the offset is as before. */
int blobd_part_append(blobd_volume_t *v, blobd_part_t *p, const void *data, size_t n) CQ_MUST_CHECK;
/* From here on data is void until blobd_part_keep(). */
int blobd_part_begin_tentative(blobd_part_t *p) CQ_MUST_CHECK;
/* All data so far is good and on disk. */
int blobd_part_keep(blobd_part_t *p) CQ_MUST_CHECK;
/* Back to where the tentative data began. */
int blobd_part_cut(blobd_part_t *p) CQ_MUST_CHECK;
/* All data is there: seals it, fsyncs, moves it among the blobs, closes it. On error it stays an
 * upload, unless only the last sync of the folder has failed: *p is NULL then, and blobd_blob_sync
 * has to succeed before anybody is told. root: CQ_BLOB_HASH_SIZE bytes. */
int blobd_part_finish(blobd_volume_t *v, blobd_part_t **p, uint8_t *root) CQ_MUST_CHECK;
/* Its header can be read and says that its time is over. */
bool blobd_part_is_expired(blobd_volume_t *v, const struct cq_id *id);
/* 0 also if there is none. */
int blobd_part_remove(blobd_volume_t *v, const struct cq_id *id) CQ_MUST_CHECK;

/* ---- complete blobs ---- */

/* Its name has reached the disk. For one that is there but whose upload's end was interrupted. */
int blobd_blob_sync(blobd_volume_t *v, const struct cq_id *id) CQ_MUST_CHECK;
/* 0; NOT_FOUND; CORRUPT; IO. */
int blobd_blob_open(blobd_volume_t *v, const struct cq_id *id, blobd_blob_t **out) CQ_MUST_CHECK;
void blobd_blob_close(blobd_blob_t **b);
const struct cq_blobfile *blobd_blob_file(const blobd_blob_t *b);
const struct cq_blobfile_header *blobd_blob_header(const blobd_blob_t *b);
const uint8_t *blobd_blob_root(const blobd_blob_t *b); /* CQ_BLOB_HASH_SIZE bytes */
/* n bytes from offset into out, which has room for n and two pieces more; *at: where in out they
 * begin. Every piece they lie in is checked. 0; BAD_ARG (beyond the end); CORRUPT; IO. From any
 * number of threads. */
int blobd_blob_read(const blobd_blob_t *b, uint64_t offset, size_t n, uint8_t *out, size_t *at)
    CQ_MUST_CHECK;
/* Checks n > 0 bytes from offset where they are; pieces that were checked before, since the blob
 * was opened, are not read again. *good: how many are right, from the offset on. 0 if any is;
 * BAD_ARG, CORRUPT, IO. From any number of threads. */
int blobd_blob_check(const blobd_blob_t *b, uint64_t offset, size_t n, size_t *good) CQ_MUST_CHECK;
/* Where the byte at this offset is: *at in the file of this inode. */
void blobd_blob_place(const blobd_blob_t *b, uint64_t offset, uint64_t *at, uint64_t *inode);
/* The absolute path of a blob's file. False: it has none that fits. */
bool blobd_volume_path(const blobd_volume_t *v, const struct cq_id *id, char *out, size_t out_size);
/* 0 also if there is none. */
int blobd_blob_remove(blobd_volume_t *v, const struct cq_id *id) CQ_MUST_CHECK;

/* ---- all of them ---- */

struct blobd_look {
    uint64_t age_s; /* since it was last written; 0 as well for what is not there */
    uint64_t bytes; /* of the file */
};
/* At the file of an upload or blob. */
struct blobd_look blobd_volume_look(const blobd_volume_t *v, const struct cq_id *id, bool is_part);

/* Notes that nobody knows this blob, if that was not noted before, and returns for how many seconds
 * it is known. forget: somebody knows it, or it is gone. */
uint64_t blobd_volume_orphan(blobd_volume_t *v, const struct cq_id *id);
void blobd_volume_orphan_forget(blobd_volume_t *v, const struct cq_id *id);

/* A small text in the folder, replaced as a whole: how far something is. Not synced: what it says
 * may be older. Reading gives "" if there is none. */
enum {
    BLOBD_NOTE_SIZE = 128
};
void blobd_volume_note(blobd_volume_t *v, const char *name, const char *text);
void blobd_volume_read_note(const blobd_volume_t *v, const char *name, char out[BLOBD_NOTE_SIZE]);

enum {
    BLOBD_FOLDERS = 4096
};
typedef void blobd_volume_fn(void *ctx, const struct cq_id *id);
/* Calls fn with every upload, or every blob of a folder (0 … BLOBD_FOLDERS - 1). Names that are no
 * ids are skipped. */
int blobd_volume_each_part(blobd_volume_t *v, blobd_volume_fn *fn, void *ctx) CQ_MUST_CHECK;
int blobd_volume_each_orphan(blobd_volume_t *v, blobd_volume_fn *fn, void *ctx) CQ_MUST_CHECK;
int blobd_volume_each_blob(blobd_volume_t *v, unsigned folder, blobd_volume_fn *fn, void *ctx)
    CQ_MUST_CHECK;

/* ---- how many there are ---- */

struct blobd_total {
    uint64_t count, bytes; /* complete blobs, and what their files take */
};
/* Counts a folder of blobs, and calls fn with each as above. */
int blobd_volume_count(blobd_volume_t *v, unsigned folder, blobd_volume_fn *fn, void *ctx)
    CQ_MUST_CHECK;
/* Of all folders, as they were counted and with what came and went since: exact once each folder
 * has been counted. Does not block; from any thread. */
struct blobd_total blobd_volume_total(const blobd_volume_t *v);

#endif
