/* SPDX-License-Identifier: MPL-2.0
 * What the fault layer and powercut.py say to each other: the control page and the journal. Numbers
 * here and there must be the same.
 */
#ifndef TESTS_CRASH_SHIM_H
#define TESTS_CRASH_SHIM_H

#include <stdint.h>

enum {
    CONTROL_BYTES = 4096,
    ARM_COUNT = 4,
};

/* What may happen at a call. */
enum arm_kind {
    ARM_NONE,
    ARM_KILL_BEFORE,
    ARM_KILL_AFTER, /* arg: microseconds later */
    ARM_TORN,       /* arg: so many bytes are written, then SIGKILL */
    ARM_FAIL,       /* arg: errno */
    ARM_SHORT,      /* arg: so many bytes are written, and the call says so */
};

/* Kinds of calls, as a mask in struct arm. */
enum {
    ON_WRITE = 1, /* through an ordinary descriptor */
    ON_SYNC = 2,
    ON_DSYNC = 4, /* a write through an O_DSYNC descriptor */
};

/* All 64 bits, so that the other side needs no knowledge of padding. `kind` is written last there
 * and read first here. */
struct arm {
    uint64_t kind, on, countdown, arg, times;
};

struct control {
    uint64_t pid, calls, writes, syncs, dsyncs, fired, disk_full, is_killed;
    struct arm
        arms[ARM_COUNT]; /* the first that is not ARM_NONE counts; used up, it becomes that */
};

/* disk_full, as a mask. */
enum {
    FULL_WRITES = 1, /* ENOSPC */
    FULL_STATVFS = 2,
};

enum record_kind {
    REC_WRITE = 1,
    REC_DONE,   /* the O_DSYNC write before it has returned */
    REC_SYNC,   /* everything of this file is on the disk */
    REC_FAILED, /* a sync failed: the kernel forgets that these pages are dirty */
    REC_CREATE,
    REC_FOLDER, /* the folder itself was synced: its names are on the disk */
    REC_CUT,    /* ftruncate */
};

struct record {
    uint32_t kind;
    uint32_t path_bytes;
    uint64_t offset;
    uint64_t bytes;     /* of data written or cut to */
    uint64_t old_bytes; /* that follow the path */
    uint64_t old_size;  /* of the file */
};

#endif
