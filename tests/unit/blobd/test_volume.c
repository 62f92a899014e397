/* SPDX-License-Identifier: MPL-2.0
 * Uploads and blobs in a real folder, and what is left of them when we or the machine die at the
 * worst moment: the folder is changed behind blobd's back as that death would leave it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "blobd/volume.h"

/* Of the C library, with failures of our choice: the n-th call from now fails. */
static int fail_sync_in, fail_cut_in;

static bool
is_due(int *countdown)
{
    return *countdown && --*countdown == 0;
}

/* … or a write, after some of its bytes. */
static int fail_write_in, write_errno;
static size_t torn_bytes;

ssize_t
pwrite(int fd, const void *data, size_t n, off_t offset)
{
    if (is_due(&fail_write_in)) {
        if (torn_bytes) {
            (void)!syscall(SYS_pwrite64, fd, data, torn_bytes, offset);
        }
        errno = write_errno;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, n, offset);
}

int
fdatasync(int fd)
{
    if (is_due(&fail_sync_in)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int
fsync(int fd)
{
    if (is_due(&fail_sync_in)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int
ftruncate(int fd, off_t size)
{
    if (is_due(&fail_cut_in)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_ftruncate, fd, size);
}

enum {
    SIZE = 2 * CQ_BLOBFILE_PIECE_SIZE + 1234
};

struct world {
    char dir[64];
    blobd_volume_t *volume;
    struct cq_blobfile_header header;
    uint8_t data[SIZE];
};

static void
open_volume(struct world *w)
{
    const struct blobd_volume_cfg cfg = {w->dir, 0};
    assert_int_equal(blobd_volume_open(&cfg, &w->volume), 0);
}

static int
set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/chasqui-blobs-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    cq_random(w->data, sizeof w->data);
    w->header = (struct cq_blobfile_header){.id = cq_random_id(),
                                            .user = cq_random_id(),
                                            .length = SIZE,
                                            .created_unix_ms = 1,
                                            .expires_unix_ms = 2};
    open_volume(w);
    *state = w;
    return 0;
}

static int
tear_down(void **state)
{
    struct world *w = *state;
    char command[128];
    blobd_volume_close(&w->volume);
    (void)snprintf(command, sizeof command, "rm -rf -- '%s'", w->dir);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe,cert-env33-c) */
    free(w);
    return 0;
}

static blobd_part_t *
begin(struct world *w, size_t n)
{
    blobd_part_t *p;
    assert_int_equal(blobd_part_create(w->volume, &w->header, &p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, w->data, n), 0);
    return p;
}

static void
path_of(const struct world *w, char *out, size_t size, bool is_part)
{
    char hex[CQ_ID_HEX_SIZE];
    (void)cq_id_hex(&w->header.id, hex);
    is_part ? (void)snprintf(out, size, "%s/uploads/%s", w->dir, hex)
            : (void)snprintf(out, size, "%s/blobs/%.3s/%s", w->dir, hex, hex);
}

static void
finish_and_check(struct world *w, blobd_part_t **p)
{
    uint8_t root[CQ_BLOB_HASH_SIZE];
    uint64_t have = blobd_part_offset(*p);
    assert_int_equal(blobd_part_append(w->volume, *p, w->data + have, SIZE - have), 0);
    assert_int_equal(blobd_part_finish(w->volume, p, root), 0);
    assert_null(*p);
    blobd_blob_t *b;
    assert_int_equal(blobd_blob_open(w->volume, &w->header.id, &b), 0);
    assert_memory_equal(blobd_blob_root(b), root, sizeof root);
    uint8_t *out = malloc(SIZE + 2 * (size_t)CQ_BLOBFILE_PIECE_SIZE);
    assert_non_null(out);
    for (size_t offset = 0; offset < SIZE; offset += 9999) {
        size_t n = SIZE - offset < 20000 ? SIZE - offset : 20000, at;
        assert_int_equal(blobd_blob_read(b, offset, n, out, &at), 0);
        assert_memory_equal(out + at, w->data + offset, n);
    }
    size_t at;
    assert_int_equal(blobd_blob_read(b, SIZE, 1, out, &at), -CQ_E_BAD_ARG);
    free(out);
    blobd_blob_close(&b);
}

static void
an_upload_becomes_a_blob(void **state)
{
    struct world *w = *state;
    blobd_part_t *p = begin(w, 1000);
    blobd_blob_t *b;
    assert_int_equal(blobd_blob_open(w->volume, &w->header.id, &b), -CQ_E_NOT_FOUND);
    finish_and_check(w, &p);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), -CQ_E_NOT_FOUND);
    assert_int_equal(blobd_blob_remove(w->volume, &w->header.id), 0);
    assert_int_equal(blobd_blob_remove(w->volume, &w->header.id), 0);
    assert_int_equal(blobd_blob_open(w->volume, &w->header.id, &b), -CQ_E_NOT_FOUND);
}

static void
it_is_created_once(void **state)
{
    struct world *w = *state;
    blobd_part_t *p = begin(w, 10), *again;
    assert_int_equal(blobd_part_create(w->volume, &w->header, &again), -CQ_E_BAD_STATE);
    assert_int_equal(blobd_part_append(w->volume, p, w->data, SIZE), -CQ_E_TOO_BIG);
    uint8_t root[CQ_BLOB_HASH_SIZE];
    assert_int_equal(blobd_part_finish(w->volume, &p, root), -CQ_E_BAD_STATE);
    blobd_part_close(&p);
}

/* Our own death: the file has what was written, wherever it was cut. */
static void
we_die(void **state)
{
    struct world *w = *state;
    for (size_t cut = 0; cut < SIZE; cut += 23456) {
        blobd_part_t *p = begin(w, cut);
        blobd_part_close(&p);
        blobd_volume_close(&w->volume);
        open_volume(w);
        assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
        assert_int_equal(blobd_part_offset(p), cut);
        finish_and_check(w, &p);
        w->header.id = cq_random_id();
    }
}

/* An upload that was begun in the form before ours. */
static void
the_form_before_goes_on(void **state)
{
    struct world *w = *state;
    uint8_t bytes[CQ_BLOBFILE_HEADER_SIZE];
    char path[256];
    blobd_part_t *p = begin(w, 70000);
    assert_int_equal(blobd_part_keep(p), 0);
    struct cq_blobfile_header h = *blobd_part_header(p);
    assert_int_equal(h.form, CQ_BLOBFILE_KEYED);
    blobd_part_close(&p);
    h.form = CQ_BLOBFILE_HASHED;
    cq_blobfile_write_header(bytes, &h);
    path_of(w, path, sizeof path, true);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(cq_blobfile_write_at(fd, bytes, sizeof bytes, 0), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), 70000);
    blobd_part_close(&p); /* what was made of it is read again */
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_header(p)->form, CQ_BLOBFILE_KEYED);
    finish_and_check(w, &p);
}

/* The machine's: only what was synced may be believed, as the rest may be zeros. */
static void
the_machine_dies(void **state)
{
    struct world *w = *state;
    blobd_part_t *p = begin(w, 70000);
    assert_int_equal(blobd_part_keep(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, w->data + 70000, 10000), 0);
    blobd_part_close(&p);
    blobd_volume_close(&w->volume);
    char boot[128], path[256];
    (void)snprintf(boot, sizeof boot, "%s/boot", w->dir);
    assert_int_equal(truncate(boot, 0), 0);
    path_of(w, path, sizeof path, true);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    static const uint8_t zeros[10000];
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, CQ_BLOBFILE_HEADER_SIZE + 70000),
                     sizeof zeros);
    assert_int_equal(close(fd), 0);
    open_volume(w);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), 70000);
    finish_and_check(w, &p);
}

/* … and then we do, twice, before anybody asks for the upload. */
static void
the_machine_dies_and_we_start_twice(void **state)
{
    struct world *w = *state;
    blobd_part_t *p = begin(w, 70000);
    assert_int_equal(blobd_part_keep(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, w->data + 70000, 10000), 0);
    blobd_part_close(&p);
    blobd_volume_close(&w->volume);
    char boot[128];
    (void)snprintf(boot, sizeof boot, "%s/boot", w->dir);
    assert_int_equal(truncate(boot, 0), 0);
    for (int i = 0; i < 2; i++) {
        open_volume(w);
        blobd_volume_close(&w->volume);
    }
    open_volume(w);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), 70000);
    finish_and_check(w, &p);
}

/* A failed sync may have dropped what was to be written, and the next one would not say so. */
static void
a_failed_sync_takes_back(void **state)
{
    struct world *w = *state;
    uint8_t root[CQ_BLOB_HASH_SIZE];
    for (int cut = 0; cut < 2; cut++) {
        w->header.id = cq_random_id();
        blobd_part_t *p = begin(w, 70000);
        assert_int_equal(blobd_part_keep(p), 0);
        assert_int_equal(blobd_part_append(w->volume, p, w->data + 70000, SIZE - 70000), 0);
        fail_sync_in = 1;
        fail_cut_in = cut;
        assert_int_equal(blobd_part_finish(w->volume, &p, root), -CQ_E_IO);
        assert_non_null(p);
        if (cut) { /* not even cut off: it is tried again */
            assert_int_equal(blobd_part_finish(w->volume, &p, root), -CQ_E_BAD_STATE);
        }
        assert_int_equal(blobd_part_offset(p), 70000);
        finish_and_check(w, &p);
    }
    w->header.id = cq_random_id();
    blobd_part_t *p = begin(w, 1000);
    fail_sync_in = 1;
    assert_int_equal(blobd_part_keep(p), -CQ_E_IO);
    assert_int_equal(blobd_part_offset(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, w->data, 1000), 0);
    fail_sync_in = 1;
    assert_int_equal(blobd_part_begin_tentative(p), -CQ_E_IO);
    assert_int_equal(blobd_part_offset(p), 0);
    finish_and_check(w, &p);
}

/* Every sync of an upload's life fails once: nothing is called complete before its name is on disk.
 */
static void
each_sync_fails(void **state)
{
    struct world *w = *state;
    uint8_t root[CQ_BLOB_HASH_SIZE];
    bool failed = true;
    for (int n = 1; failed; n++) {
        w->header.id = cq_random_id();
        blobd_part_t *p = begin(w, SIZE);
        blobd_blob_t *b;
        fail_sync_in = n;
        int rc = blobd_part_finish(w->volume, &p, root);
        failed = rc != 0;
        if (!failed) {
            assert_true(n > 4);
        } else if (p) {
            assert_int_equal(blobd_blob_open(w->volume, &w->header.id, &b), -CQ_E_NOT_FOUND);
            finish_and_check(w, &p);
        }
        fail_sync_in = 0;
        assert_int_equal(blobd_blob_open(w->volume, &w->header.id, &b), 0);
        assert_int_equal(blobd_blob_sync(w->volume, &w->header.id), 0);
        blobd_blob_close(&b);
    }
}

/* A full or broken disk, whatever of the write has reached it: it goes on where it was. */
static void
a_write_fails(void **state)
{
    static const struct {
        int error, rc;
        size_t torn;
    } faults[] = {{ENOSPC, -CQ_E_NO_SPACE, 0},
                  {EDQUOT, -CQ_E_NO_SPACE, 100},
                  {EIO, -CQ_E_IO, 0},
                  {EIO, -CQ_E_IO, 7777},
                  {EROFS, -CQ_E_IO, 0}};
    struct world *w = *state;
    uint8_t root[CQ_BLOB_HASH_SIZE];
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        w->header.id = cq_random_id();
        blobd_part_t *p = begin(w, 70000);
        write_errno = faults[i].error;
        torn_bytes = faults[i].torn;
        fail_write_in = 1;
        assert_int_equal(blobd_part_append(w->volume, p, w->data + 70000, 10000), faults[i].rc);
        assert_int_equal(blobd_part_offset(p), 70000);
        /* … and our own death behind it. */
        blobd_part_close(&p);
        assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
        assert_int_equal(blobd_part_offset(p), 70000);
        assert_int_equal(blobd_part_append(w->volume, p, w->data + 70000, SIZE - 70000), 0);
        for (int n = 1; n <= 2; n++) { /* the trailer, the header */
            fail_write_in = n;
            torn_bytes = 0;
            assert_int_equal(blobd_part_finish(w->volume, &p, root), faults[i].rc);
            assert_non_null(p);
        }
        finish_and_check(w, &p);
    }
}

static void
a_folder_that_vanishes(void **state)
{
    struct world *w = *state;
    char from[128], to[128];
    blobd_part_t *p;
    (void)snprintf(from, sizeof from, "%s/uploads", w->dir);
    (void)snprintf(to, sizeof to, "%s/gone", w->dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(blobd_part_create(w->volume, &w->header, &p), -CQ_E_IO);
    assert_int_equal(rename(to, from), 0);
    p = begin(w, SIZE);
    uint8_t root[CQ_BLOB_HASH_SIZE];
    (void)snprintf(from, sizeof from, "%s/blobs", w->dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(blobd_part_finish(w->volume, &p, root), -CQ_E_IO);
    assert_non_null(p);
    assert_int_equal(rename(to, from), 0);
    finish_and_check(w, &p);
}

static void
count_one(void *ctx, const struct cq_id *id)
{
    (void)id;
    ++*(size_t *)ctx;
}

static void
an_orphan_is_noted(void **state)
{
    struct world *w = *state;
    char hex[CQ_ID_HEX_SIZE], path[128];
    size_t count = 0;
    assert_int_equal(blobd_volume_orphan(w->volume, &w->header.id), 0);
    (void)snprintf(path, sizeof path, "%s/orphans/%s", w->dir, cq_id_hex(&w->header.id, hex));
    const struct timespec ago[2] = {{.tv_sec = time(NULL) - 1000}, {.tv_sec = time(NULL) - 1000}};
    assert_int_equal(utimensat(AT_FDCWD, path, ago, 0), 0);
    uint64_t age_s = blobd_volume_orphan(w->volume, &w->header.id);
    assert_true(age_s >= 999 && age_s < 1100);
    assert_int_equal(blobd_volume_each_orphan(w->volume, count_one, &count), 0);
    assert_int_equal(count, 1);
    blobd_volume_orphan_forget(w->volume, &w->header.id);
    assert_int_equal(blobd_volume_orphan(w->volume, &w->header.id), 0);
}

static void
tentative_data_is_void(void **state)
{
    struct world *w = *state;
    blobd_volume_close(&w->volume); /* a new folder trusts nothing: it does not know its boot */
    open_volume(w);
    blobd_part_t *p = begin(w, CQ_BLOBFILE_PIECE_SIZE + 10);
    assert_int_equal(blobd_part_begin_tentative(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, "wrong", 5), 0);
    assert_int_equal(blobd_part_cut(p), 0);
    assert_int_equal(blobd_part_offset(p), CQ_BLOBFILE_PIECE_SIZE + 10);
    assert_int_equal(blobd_part_begin_tentative(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, "wrong", 5), 0);
    blobd_part_close(&p); /* we die before anybody says whether it is right */
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), CQ_BLOBFILE_PIECE_SIZE + 10);
    assert_int_equal(blobd_part_begin_tentative(p), 0);
    assert_int_equal(blobd_part_append(w->volume, p, w->data + CQ_BLOBFILE_PIECE_SIZE + 10,
                                       CQ_BLOBFILE_PIECE_SIZE),
                     0);
    assert_int_equal(blobd_part_keep(p), 0);
    blobd_part_close(&p);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), 2 * CQ_BLOBFILE_PIECE_SIZE + 10);
    finish_and_check(w, &p);
}

/* Sealed, but the rename has not happened: it goes on as an upload whose data is all there. */
static void
death_before_the_rename(void **state)
{
    struct world *w = *state;
    char from[256], to[256];
    blobd_part_t *p = begin(w, SIZE);
    uint8_t root[CQ_BLOB_HASH_SIZE], second[CQ_BLOB_HASH_SIZE];
    assert_int_equal(blobd_part_finish(w->volume, &p, root), 0);
    path_of(w, from, sizeof from, false);
    path_of(w, to, sizeof to, true);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(blobd_part_open(w->volume, &w->header.id, &p), 0);
    assert_int_equal(blobd_part_offset(p), SIZE);
    assert_int_equal(blobd_part_finish(w->volume, &p, second), 0);
    assert_memory_equal(root, second, sizeof root);
}

static void
a_folder_has_one_owner(void **state)
{
    struct world *w = *state;
    const struct blobd_volume_cfg cfg = {w->dir, 0};
    blobd_volume_t *second;
    assert_int_equal(blobd_volume_open(&cfg, &second), -CQ_E_LOCKED);
    assert_null(second);
}

static void
a_new_folder_is_made(void **state)
{
    struct world *w = *state;
    blobd_volume_t *v;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/new", w->dir);
    const struct blobd_volume_cfg cfg = {path, 0};
    for (int i = 0; i < 2; i++) { /* and the second time it is there */
        assert_int_equal(blobd_volume_open(&cfg, &v), 0);
        blobd_volume_close(&v);
    }
    (void)snprintf(path, sizeof path, "%s/none/new", w->dir);
    assert_int_equal(blobd_volume_open(&cfg, &v), -CQ_E_IO);
}

static void
no_room(void **state)
{
    struct world *w = *state;
    blobd_part_t *p;
    blobd_volume_close(&w->volume);
    const struct blobd_volume_cfg cfg = {w->dir, UINT64_MAX};
    assert_int_equal(blobd_volume_open(&cfg, &w->volume), 0);
    assert_int_equal(blobd_volume_room(w->volume), 0);
    assert_int_equal(blobd_part_create(w->volume, &w->header, &p), -CQ_E_NO_SPACE);
    assert_null(p);
}

static void
everything_is_listed(void **state)
{
    struct world *w = *state;
    char path[256];
    size_t count = 0;
    blobd_part_t *p = begin(w, SIZE);
    (void)snprintf(path, sizeof path, "%s/uploads/not-an-id", w->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(blobd_volume_each_part(w->volume, count_one, &count), 0);
    assert_int_equal(count, 1);
    finish_and_check(w, &p);
    count = 0;
    for (unsigned i = 0; i < BLOBD_FOLDERS; i++) {
        assert_int_equal(blobd_volume_each_blob(w->volume, i, count_one, &count), 0);
    }
    assert_int_equal(count, 1);
}

static void
pass_over(void *ctx, const struct cq_id *id)
{
    (void)ctx;
    (void)id;
}

static void
upload(struct world *w)
{
    uint8_t root[CQ_BLOB_HASH_SIZE];
    blobd_part_t *p = begin(w, SIZE);
    assert_int_equal(blobd_part_finish(w->volume, &p, root), 0);
}

static void
assert_total(const struct world *w, uint64_t count)
{
    struct blobd_total total = blobd_volume_total(w->volume);
    assert_int_equal(total.count, count);
    assert_int_equal(total.bytes, count * cq_blobfile_size(SIZE));
}

/* Before its folder is counted and after it; found by the count, removed, and removed uncounted. */
static void
the_count_holds(void **state)
{
    struct world *w = *state;
    upload(w);
    assert_total(w, 1);
    blobd_volume_close(&w->volume);
    open_volume(w);
    assert_total(w, 0);
    for (unsigned folder = 0; folder < BLOBD_FOLDERS; folder++) {
        assert_int_equal(blobd_volume_count(w->volume, folder, pass_over, NULL), 0);
    }
    assert_total(w, 1);
    struct cq_id first = w->header.id;
    w->header.id = cq_random_id();
    upload(w);
    assert_total(w, 2);
    assert_int_equal(blobd_blob_remove(w->volume, &first), 0);
    assert_int_equal(blobd_blob_remove(w->volume, &first), 0);
    assert_total(w, 1);
    blobd_volume_close(&w->volume);
    open_volume(w);
    assert_int_equal(blobd_blob_remove(w->volume, &w->header.id), 0);
    assert_total(w, 0);
}

static void *
count_again_and_again(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < 300; i++) {
        assert_int_equal(blobd_volume_count(w->volume, 0x123, pass_over, NULL), 0);
    }
    return NULL;
}

/* All in one folder, which another thread is counting meanwhile. */
static void
the_count_holds_while_blobs_come_and_go(void **state)
{
    enum {
        BLOBS = 20
    };
    struct world *w = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, count_again_and_again, w), 0);
    for (int i = 0; i < BLOBS; i++) {
        w->header.id = cq_random_id();
        w->header.id.b[0] = 0x12;
        w->header.id.b[1] = 0x30;
        upload(w);
        if (i % 4 == 0) {
            assert_int_equal(blobd_blob_remove(w->volume, &w->header.id), 0);
        }
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_total(w, BLOBS - BLOBS / 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    cq_secure_start();
    cq_log_init("test", CQ_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(an_upload_becomes_a_blob),
        TEST(it_is_created_once),
        TEST(we_die),
        TEST(the_form_before_goes_on),
        TEST(the_machine_dies),
        TEST(the_machine_dies_and_we_start_twice),
        TEST(a_failed_sync_takes_back),
        TEST(each_sync_fails),
        TEST(a_write_fails),
        TEST(a_folder_that_vanishes),
        TEST(an_orphan_is_noted),
        TEST(tentative_data_is_void),
        TEST(death_before_the_rename),
        TEST(a_folder_has_one_owner),
        TEST(a_new_folder_is_made),
        TEST(no_room),
        TEST(everything_is_listed),
        TEST(the_count_holds),
        TEST(the_count_holds_while_blobs_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
