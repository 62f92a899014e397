/* SPDX-License-Identifier: MPL-2.0
 * A fault layer under a program, for LD_PRELOAD: what it writes into one folder can fail, stop
 * half-way or kill it, and is recorded so that a power cut can be played afterwards.
 *
 * Environment: CRASH_SHIM_ROOT (absolute path of the folder watched), CRASH_SHIM_CONTROL (a file of
 * CONTROL_BYTES, shared: powercut.py writes what is to happen, this reads it at every call and
 * counts), CRASH_SHIM_JOURNAL (appended to here, read by powercut.py).
 *
 * The journal: before bytes of a watched file are overwritten, the old ones go into it; a sync that
 * has returned is noted. When nothing is owed to the disk any more it is emptied. As it lies in the
 * page cache like the files, it survives a SIGKILL at any moment, and tells which bytes a power cut
 * at that moment could have taken. Nothing of it is synced: real power cuts are not its purpose.
 *
 * O_DSYNC descriptors (LMDB's meta page) are writes that are synced when they return.
 * Not recorded: "lock" and "lock.mdb", which mean nothing after the death of their process.
 */
#include "tests/crash/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    FD_MAX = 1024,
    PATH_SIZE = 512,
};

struct watched {
    bool is_dsync;
    bool is_folder;
    char *path;
};

static struct {
    pthread_mutex_t mutex;
    struct control *control;
    int journal;
    bool owes;           /* writes that are not synced */
    bool must_keep;      /* the journal: a sync has failed, or this was so in the process before */
    unsigned name_count; /* files made in a folder that is not synced */
    char root[PATH_SIZE];
    struct watched *fds[FD_MAX];
} shim = {.mutex = PTHREAD_MUTEX_INITIALIZER, .journal = -1};

static struct {
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*close)(int);
    ssize_t (*pread)(int, void *, size_t, off_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*ftruncate)(int, off_t);
    int (*fadvise)(int, off_t, off_t, int);
    int (*statvfs)(const char *, struct statvfs *);
} real;

/* ---- start ---- */

static void *
find(const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) {
        abort();
    }
    return symbol;
}

static void
map_control(void)
{
    const char *path = getenv("CRASH_SHIM_CONTROL");
    int fd = path ? real.open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *p = mmap(NULL, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real.close(fd);
    if (p != MAP_FAILED) {
        shim.control = p;
        shim.control->pid = (uint64_t)getpid();
    }
}

static void
find_real(void)
{
    if (real.statvfs) {
        return;
    }
    /* ISO C has no conversion from object to function pointers; POSIX has. */
    *(void **)&real.open = find("open");
    *(void **)&real.openat = find("openat");
    *(void **)&real.close = find("close");
    *(void **)&real.pread = find("pread");
    *(void **)&real.pwrite = find("pwrite");
    *(void **)&real.write = find("write");
    *(void **)&real.writev = find("writev");
    *(void **)&real.fsync = find("fsync");
    *(void **)&real.fdatasync = find("fdatasync");
    *(void **)&real.ftruncate = find("ftruncate");
    *(void **)&real.fadvise = find("posix_fadvise");
    *(void **)&real.statvfs = find("statvfs");
}

__attribute__((constructor)) static void
start(void)
{
    find_real();
    const char *root = getenv("CRASH_SHIM_ROOT");
    const char *journal = getenv("CRASH_SHIM_JOURNAL");
    if (!root || strlen(root) >= sizeof shim.root) {
        return;
    }
    memcpy(shim.root, root, strlen(root) + 1);
    map_control();
    if (journal) {
        shim.journal = real.open(journal, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        shim.must_keep = getenv("CRASH_SHIM_KEEP") != NULL;
    }
}

/* ---- what happens at a call ---- */

static _Noreturn void
die(void)
{
    shim.control->is_killed = 1;
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

static void *
die_later(void *arg)
{
    usleep((useconds_t)(uintptr_t)arg);
    die();
}

static void
kill_after(uint64_t us)
{
    pthread_t thread;
    if (us == 0) {
        die();
    }
    if (pthread_create(&thread, NULL, die_later, (void *)(uintptr_t)us) == 0) { /* NOLINT */
        pthread_detach(thread);
    }
}

/* Counts the call and gives the arm that fires at it, as a copy. Under the mutex. */
static struct arm
next_arm(unsigned on)
{
    struct control *c = shim.control;
    struct arm fired = {0};
    if (!c) {
        return fired;
    }
    c->calls++;
    *(on == ON_WRITE ? &c->writes : on == ON_SYNC ? &c->syncs : &c->dsyncs) += 1;
    for (int i = 0; i < ARM_COUNT; i++) {
        struct arm *a = &c->arms[i];
        if (__atomic_load_n(&a->kind, __ATOMIC_ACQUIRE) == ARM_NONE) {
            continue;
        }
        if (!(a->on & on) || (a->countdown > 1 && a->countdown--)) {
            return fired;
        }
        fired = *a;
        c->fired++;
        if (a->times <= 1 || --a->times == 0) {
            __atomic_store_n(&a->kind, ARM_NONE, __ATOMIC_RELEASE);
        }
        return fired;
    }
    return fired;
}

/* ---- journal ---- */

static void
note(const struct record *r, const char *path, const void *old)
{
    struct iovec parts[3] = {
        {(void *)(uintptr_t)r,
         sizeof *r}, /* NOLINT(performance-no-int-to-ptr): iovec has no const */
        {(void *)(uintptr_t)path, r->path_bytes}, /* NOLINT(performance-no-int-to-ptr) */
        {(void *)(uintptr_t)old, r->old_bytes},   /* NOLINT(performance-no-int-to-ptr) */
    };
    if (shim.journal >= 0 && real.writev(shim.journal, parts, 3) < 0) {
        abort(); /* a record less would make the oracle wrong */
    }
}

static void
note_event(enum record_kind kind, const char *path)
{
    struct record r = {.kind = (uint32_t)kind, .path_bytes = (uint32_t)strlen(path)};
    note(&r, path, NULL);
}

/* Empties the journal if everything is on the disk. After a failed sync it is needed until the end:
 * what that sync should have written is lost unless it is written again. */
static void
forget_journal(void)
{
    if (shim.journal >= 0 && !shim.owes && !shim.must_keep && !shim.name_count &&
        real.ftruncate(shim.journal, 0) != 0) {
        abort();
    }
}

/* Puts back what the record's write replaced. */
static void
undo(const struct record *r, const char *path, const uint8_t *old)
{
    int fd = real.open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        abort();
    }
    if (r->kind == REC_WRITE && r->old_bytes &&
        real.pwrite(fd, old, r->old_bytes, (off_t)r->offset) != (ssize_t)r->old_bytes) {
        abort();
    }
    if (real.ftruncate(fd, (off_t)r->old_size) != 0) {
        abort();
    }
    real.close(fd);
}

enum {
    UNDO_MAX = 65536
};

/* The program drops its cache after a failed sync, and reads what the disk has: nothing of what was
 * written since the last sync that did not fail. (Any part of it would be as honest.) */
static void
undo_all(const char *journal)
{
    static size_t starts[UNDO_MAX];
    size_t count = 0;
    struct stat st;
    int fd = real.open(journal, O_RDONLY | O_CLOEXEC);
    uint8_t *all = fd >= 0 && fstat(fd, &st) == 0 ? malloc((size_t)st.st_size + 1) : NULL;
    if (!all || real.pread(fd, all, (size_t)st.st_size, 0) != st.st_size) {
        abort();
    }
    real.close(fd);
    for (size_t at = 0; at + sizeof(struct record) <= (size_t)st.st_size && count < UNDO_MAX;) {
        struct record r;
        memcpy(&r, all + at, sizeof r);
        count = r.kind == REC_SYNC || r.kind == REC_DONE ? 0 : count;
        starts[count] = at;
        count += r.kind == REC_WRITE || r.kind == REC_CUT;
        at += sizeof r + r.path_bytes + r.old_bytes;
    }
    while (count--) {
        struct record r;
        char path[PATH_SIZE] = {0};
        memcpy(&r, all + starts[count], sizeof r);
        memcpy(path, all + starts[count] + sizeof r, r.path_bytes < PATH_SIZE ? r.path_bytes : 0);
        undo(&r, path, all + starts[count] + sizeof r + r.path_bytes);
    }
    free(all);
    shim.owes = shim.must_keep = false;
    forget_journal();
}

/* Keeps the bytes that a write is about to replace. */
static void
note_write(int fd, const struct watched *w, off_t offset, size_t n)
{
    struct stat st;
    if (shim.journal < 0 || fstat(fd, &st) != 0) {
        return;
    }
    /* The descriptor may be write-only: read through one of our own. */
    int in = real.open(w->path, O_RDONLY | O_CLOEXEC);
    void *old = malloc(n ? n : 1);
    ssize_t got = in >= 0 && old ? real.pread(in, old, n, offset) : 0;
    struct record r = {.kind = REC_WRITE,
                       .path_bytes = (uint32_t)strlen(w->path),
                       .offset = (uint64_t)offset,
                       .bytes = n,
                       .old_bytes = got > 0 ? (uint64_t)got : 0,
                       .old_size = (uint64_t)st.st_size};
    note(&r, w->path, old);
    free(old);
    if (in >= 0) {
        real.close(in);
    }
}

/* ---- descriptors ---- */

static struct watched *
watched(int fd)
{
    return fd >= 0 && fd < FD_MAX ? shim.fds[fd] : NULL;
}

static bool
is_watched_path(const char *path)
{
    size_t n = strlen(shim.root);
    const char *name = strrchr(path, '/');
    return n && strncmp(path, shim.root, n) == 0 && (path[n] == '/' || path[n] == '\0') && name &&
           strcmp(name, "/lock") != 0 && strcmp(name, "/lock.mdb") != 0;
}

static void
watch_fd(int fd, const char *path, int flags, bool is_new)
{
    if (fd < 0 || fd >= FD_MAX || !is_watched_path(path)) {
        return;
    }
    struct watched *w = calloc(1, sizeof *w);
    struct stat st;
    if (!w || !(w->path = strdup(path))) {
        abort();
    }
    w->is_dsync = flags & O_DSYNC;
    w->is_folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    pthread_mutex_lock(&shim.mutex);
    shim.fds[fd] = w;
    if (is_new) {
        note_event(REC_CREATE, path);
        shim.name_count++;
    }
    pthread_mutex_unlock(&shim.mutex);
}

static bool
would_create(const char *path, int flags)
{
    return (flags & O_CREAT) && is_watched_path(path) && access(path, F_OK) != 0;
}

/* ---- the calls ---- */

int
open(const char *path, int flags, ...)
{
    find_real(); /* other libraries may start before us */
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    bool is_new = would_create(path, flags);
    int fd = real.open(path, flags, mode);
    watch_fd(fd, path, flags, is_new && fd >= 0);
    return fd;
}

int
open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open(path, flags, mode);
}

int
openat(int dir, const char *path, int flags, ...)
{
    find_real();
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return path[0] == '/' ? open(path, flags, mode) : real.openat(dir, path, flags, mode);
}

int
close(int fd)
{
    find_real();
    pthread_mutex_lock(&shim.mutex);
    struct watched *w = watched(fd);
    if (w) {
        shim.fds[fd] = NULL;
        free(w->path);
        free(w);
    }
    pthread_mutex_unlock(&shim.mutex);
    return real.close(fd);
}

static int
refused(int err)
{
    errno = err;
    return -1;
}

/* The write itself, of the first n bytes. */
static ssize_t
write_some(int fd, const struct iovec *parts, int count, size_t n, off_t offset)
{
    size_t done = 0;
    for (int i = 0; i < count && done < n; i++) {
        size_t part = parts[i].iov_len < n - done ? parts[i].iov_len : n - done;
        ssize_t wrote = real.pwrite(fd, parts[i].iov_base, part, offset + (off_t)done);
        if (wrote < 0) {
            return done ? (ssize_t)done : -1;
        }
        done += (size_t)wrote;
        if ((size_t)wrote < part) {
            break;
        }
    }
    return (ssize_t)done;
}

/* A write to a watched file at a known place. Under the mutex. */
static ssize_t
write_watched(int fd, const struct watched *w, const struct iovec *parts, int count, off_t offset)
{
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        n += parts[i].iov_len;
    }
    struct arm arm = next_arm(w->is_dsync ? ON_DSYNC : ON_WRITE);
    if (arm.kind == ARM_KILL_BEFORE) {
        die();
    }
    if (arm.kind == ARM_FAIL) {
        return refused((int)arm.arg);
    }
    if (shim.control && shim.control->disk_full & FULL_WRITES) {
        return refused(ENOSPC);
    }
    note_write(fd, w, offset, n);
    shim.owes = shim.owes || !w->is_dsync;
    if (arm.kind == ARM_TORN) {
        (void)!write_some(fd, parts, count, arm.arg < n ? arm.arg : n, offset);
        die();
    }
    n = arm.kind == ARM_SHORT && arm.arg < n ? arm.arg : n;
    ssize_t rc = write_some(fd, parts, count, n, offset);
    int err = errno;
    if (w->is_dsync && rc >= 0) {
        note_event(REC_DONE, w->path);
        forget_journal();
    }
    if (arm.kind == ARM_KILL_AFTER) {
        kill_after(arm.arg);
    }
    errno = err;
    return rc;
}

ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    find_real();
    struct iovec part = {(void *)(uintptr_t)bytes, n}; /* NOLINT(performance-no-int-to-ptr) */
    pthread_mutex_lock(&shim.mutex);
    struct watched *w = watched(fd);
    ssize_t rc = w ? write_watched(fd, w, &part, 1, offset) : 0;
    pthread_mutex_unlock(&shim.mutex);
    return w ? rc : real.pwrite(fd, bytes, n, offset);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off_t offset)
{
    return pwrite(fd, bytes, n, offset);
}

/* At the descriptor's own position. Under the mutex. */
static ssize_t
write_on(int fd, const struct watched *w, const struct iovec *parts, int count)
{
    int flags = fcntl(fd, F_GETFL);
    off_t at = lseek(fd, 0, flags >= 0 && flags & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t rc = at < 0 ? -1 : write_watched(fd, w, parts, count, at);
    if (rc > 0) {
        (void)lseek(fd, at + rc, SEEK_SET);
    }
    return rc;
}

ssize_t
write(int fd, const void *bytes, size_t n)
{
    find_real();
    struct iovec part = {(void *)(uintptr_t)bytes, n}; /* NOLINT(performance-no-int-to-ptr) */
    if (!watched(fd)) {
        return real.write(fd, bytes, n);
    }
    pthread_mutex_lock(&shim.mutex);
    ssize_t rc = write_on(fd, watched(fd), &part, 1);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

ssize_t
writev(int fd, const struct iovec *parts, int count)
{
    find_real();
    if (!watched(fd)) {
        return real.writev(fd, parts, count);
    }
    pthread_mutex_lock(&shim.mutex);
    ssize_t rc = write_on(fd, watched(fd), parts, count);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

static int
sync_watched(int fd, const struct watched *w, int (*call)(int))
{
    struct arm arm = next_arm(ON_SYNC);
    if (arm.kind == ARM_KILL_BEFORE || arm.kind == ARM_TORN) {
        die();
    }
    if (arm.kind == ARM_FAIL) {
        shim.must_keep = true;
        note_event(REC_FAILED, w->path);
        return refused((int)arm.arg);
    }
    int rc = call(fd);
    if (rc == 0) {
        note_event(w->is_folder ? REC_FOLDER : REC_SYNC, w->path);
        /* Only one file and one folder are written at a time: nothing else is owed. */
        shim.owes = shim.owes && w->is_folder;
        shim.name_count = w->is_folder ? 0 : shim.name_count;
        forget_journal();
    }
    if (arm.kind == ARM_KILL_AFTER) {
        kill_after(arm.arg);
    }
    return rc;
}

static int
sync_fd(int fd, int (*call)(int))
{
    if (!watched(fd)) {
        return call(fd);
    }
    pthread_mutex_lock(&shim.mutex);
    int rc = sync_watched(fd, watched(fd), call);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

int
fsync(int fd)
{
    find_real();
    return sync_fd(fd, real.fsync);
}

int
fdatasync(int fd)
{
    find_real();
    return sync_fd(fd, real.fdatasync);
}

int
ftruncate(int fd, off_t size)
{
    find_real();
    struct stat st;
    pthread_mutex_lock(&shim.mutex);
    struct watched *w = watched(fd);
    if (w && fstat(fd, &st) == 0) {
        if (size < st.st_size) {
            note_write(fd, w, size, (size_t)(st.st_size - size)); /* what is cut off */
        }
        struct record r = {.kind = REC_CUT,
                           .path_bytes = (uint32_t)strlen(w->path),
                           .bytes = (uint64_t)size,
                           .old_size = (uint64_t)st.st_size};
        note(&r, w->path, NULL);
        shim.owes = true;
    }
    int rc = real.ftruncate(fd, size);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

int
ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int
posix_fadvise(int fd, off_t offset, off_t n, int advice)
{
    find_real();
    pthread_mutex_lock(&shim.mutex);
    if (watched(fd) && advice == POSIX_FADV_DONTNEED && shim.must_keep) {
        undo_all(getenv("CRASH_SHIM_JOURNAL"));
    }
    pthread_mutex_unlock(&shim.mutex);
    return real.fadvise(fd, offset, n, advice);
}

int
posix_fadvise64(int fd, off_t offset, off_t n, int advice)
{
    return posix_fadvise(fd, offset, n, advice);
}

int
statvfs(const char *path, struct statvfs *fs)
{
    find_real();
    int rc = real.statvfs(path, fs);
    if (rc == 0 && shim.control && shim.control->disk_full & FULL_STATVFS &&
        is_watched_path(path)) {
        fs->f_bfree = fs->f_bavail = 0;
    }
    return rc;
}

int
statvfs64(const char *path, struct statvfs64 *fs)
{
    struct statvfs plain;
    int rc = statvfs(path, &plain);
    if (rc == 0) {
        memcpy(fs, &plain, sizeof *fs); /* the same struct where off_t has 64 bits */
    }
    return rc;
}
