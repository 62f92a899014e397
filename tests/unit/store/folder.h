/* SPDX-License-Identifier: MPL-2.0
 * A folder for one test, gone afterwards.
 */
#ifndef TESTS_UNIT_STORE_FOLDER_H
#define TESTS_UNIT_STORE_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/rt/check.h"

enum {
    FOLDER_PATH_SIZE = 128
};

static inline void
folder_make(char path[FOLDER_PATH_SIZE])
{
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): one thread */
    (void)snprintf(path, FOLDER_PATH_SIZE, "%.80s/chasqui-store-XXXXXX", base ? base : "/tmp");
    const char *made = mkdtemp(path);
    CQ_ASSERT(made);
}

static inline int
folder_remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void
folder_remove(const char *path)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    (void)nftw(path, folder_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
