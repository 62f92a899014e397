/* SPDX-License-Identifier: MPL-2.0
 * The parts of the blob daemon, for its own files. The loop thread owns everything here; jobs carry
 * what the disk threads need and come back.
 */
#ifndef BLOBD_CORE_H
#define BLOBD_CORE_H

#include <stdatomic.h>

#include "common/rt/bus.h"
#include "common/rt/worker.h"

#include "blobd/blobd.h"
#include "blobd/volume.h"

struct blobd_uploads; /* upload.c */
struct blobd_reads;   /* on_read.c */
struct blobd_sweep;   /* sweep.c */
struct blobd_scrub;   /* scrub.c */
struct blobd_checks;  /* on_check.c */
struct blobd_saves;   /* save.c */

struct blobd {
    const struct blobd_cfg *cfg;
    cq_loop_t *loop;
    cq_bus_t *bus;
    blobd_volume_t *volume;
    cq_worker_t *disk;
    cq_timer_t *tick; /* 1 s */
    struct blobd_uploads *uploads;
    struct blobd_reads *reads;
    struct blobd_sweep *sweep;
    struct blobd_scrub *scrub;
    struct blobd_checks *checks;
    struct blobd_saves *saves;
    atomic_bool is_stopping; /* read by disk threads, too */
};

/* ---- jobs on the disk threads (job.c) ---- */

struct blobd_job;
typedef void blobd_job_fn(struct blobd_job *job);

/* What a job needs; each kind of job has a struct that begins with this. */
struct blobd_job {
    blobd_t *blobd;
    blobd_job_fn *run;  /* on a disk thread: may block; touches only what is the job's */
    blobd_job_fn *done; /* on the loop thread: takes the job back */
    struct blobd_job *next;
    int rc;
};

/* Takes the job. It waits in a queue if the threads are busy. While stopping it is done at once
 * with UNAVAILABLE. */
void blobd_job_start(struct blobd_job *job);
/* Ends all jobs: those under way are waited for, the others fail. */
void blobd_job_stop(blobd_t *b);
cq_worker_t *blobd_job_worker(blobd_t *b);
/* On a disk thread: should a long job end early? */
bool blobd_job_is_stopping(const blobd_t *b);

/* ---- uploads (upload.c, on_upload.c) ---- */

struct blobd_uploads *blobd_upload_table_new(blobd_t *b);
void blobd_upload_table_destroy(struct blobd_uploads **u);
/* Is this upload open? Then it is not for the sweep. */
bool blobd_upload_is_open(const struct blobd_uploads *u, const struct cq_id *id);
/* Closes files of uploads that nobody has touched for a while. */
void blobd_upload_tidy(struct blobd_uploads *u);
/* Uploads with a file open; at the bound new ones are BUSY. */
size_t blobd_upload_count(const struct blobd_uploads *u);

cq_bus_handler blobd_on_create, blobd_on_state, blobd_on_begin, blobd_on_write, blobd_on_end,
    blobd_on_drop;

/* Tells the store that a blob is complete and on disk; fn when it is durable there. Safe to repeat.
 */
typedef void blobd_whole_fn(void *ctx, int err);
void
blobd_upload_tell_whole(blobd_t *b, const struct cq_blob_whole *m, blobd_whole_fn *fn, void *ctx);

/* ---- reading (on_read.c) ---- */

struct blobd_reads *blobd_read_new(blobd_t *b);
void blobd_read_destroy(struct blobd_reads **r);
void blobd_read_tidy(struct blobd_reads *r);
/* It is being removed. */
void blobd_read_forget(struct blobd_reads *r, const struct cq_id *id);
cq_bus_handler blobd_on_read, blobd_on_place;

/* ---- what is on disk and should not be (sweep.c) ---- */

struct blobd_sweep *blobd_sweep_new(blobd_t *b);
void blobd_sweep_destroy(struct blobd_sweep **s);
void blobd_sweep_tick(struct blobd_sweep *s);
cq_bus_handler blobd_on_collect;

/* ---- what is damaged (scrub.c) ---- */

enum {
    BLOBD_CHECK_RATE = 8 << 20 /* bytes a second that are checked for others if scrubbing is off */
};

struct blobd_scrub *blobd_scrub_new(blobd_t *b);
void blobd_scrub_destroy(struct blobd_scrub **s);
void blobd_scrub_tick(struct blobd_scrub *s);
/* May so many bytes be read for a check in this second? Then they are off its budget. */
bool blobd_scrub_take(struct blobd_scrub *s, uint64_t bytes);

/* In: id, offset, size (0: only header and trailer are looked at). Out: length, root, and size:
 * what was checked. Disk thread. 0; NOT_FOUND; CORRUPT; IO; BUSY. */
struct blobd_scrub_piece {
    struct cq_id id;
    uint64_t offset, length;
    size_t size;
    uint8_t root[CQ_BLOB_HASH_SIZE];
};
int blobd_scrub_read(blobd_volume_t *v, struct blobd_scrub_piece *p) CQ_MUST_CHECK;
/* Counts and logs it. Loop thread. */
void blobd_scrub_damaged(const struct cq_id *id, int rc);

/* ---- what fsck asks (on_check.c) ---- */

struct blobd_checks *blobd_check_new(blobd_t *b);
void blobd_check_destroy(struct blobd_checks **c);
void blobd_check_tick(struct blobd_checks *c);
cq_bus_handler blobd_on_check, blobd_on_list;

/* ---- backups (save.c) ---- */

struct blobd_saves *blobd_save_new(blobd_t *b);
void blobd_save_destroy(struct blobd_saves **s);
cq_bus_handler blobd_on_save_begin, blobd_on_save;

#endif
