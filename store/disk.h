/* SPDX-License-Identifier: MPL-2.0
 * Files of backups and restores: written so that they survive a power cut, hashed as they pass.
 * Hashes are BLAKE2b-256 (STORE_MANIFEST_HASH_SIZE). Errors are CQ_E_NO_SPACE, NOT_FOUND or IO.
 */
#ifndef STORE_DISK_H
#define STORE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"

#include "store/manifest.h"

/* One of ours for errno, which says that something failed: never 0. */
int store_disk_error(int err) CQ_MUST_CHECK;

/* A new file while it is being written. */
typedef struct store_disk_file store_disk_file_t;
/* reserve_bytes: a write that would leave less than this free is refused (NO_SPACE), so that a
 * backup never takes the space that the store itself needs. The file must not exist. */
int
store_disk_create(const char *path, uint64_t reserve_bytes, store_disk_file_t **out) CQ_MUST_CHECK;
/* What is written goes to the disk as it grows: no flood of dirty pages at the end. */
int store_disk_write(store_disk_file_t *f, const void *data, size_t n) CQ_MUST_CHECK;
uint64_t store_disk_bytes(const store_disk_file_t *f);
/* Ends it: on disk when this returns 0. Frees f in any case; *f is NULL afterwards. */
int store_disk_finish(store_disk_file_t **f, uint8_t hash[STORE_MANIFEST_HASH_SIZE]) CQ_MUST_CHECK;
/* Closes it without a promise. NULL inside is fine. */
void store_disk_abandon(store_disk_file_t **f);

/* Reads a file from the disk, not from the cache if that can be helped; each(ctx, data, n) gets all
 * of it and may be NULL; an error of it ends the reading. */
typedef int store_disk_each(void *ctx, const void *data, size_t n);
int store_disk_read(const char *path,
                    store_disk_each *each,
                    void *ctx,
                    uint64_t *bytes,
                    uint8_t hash[STORE_MANIFEST_HASH_SIZE]) CQ_MUST_CHECK;

/* A small file: read whole (TOO_BIG above max), or put in place of what is there, atomically and
 * durably. */
int store_disk_load(const char *path, size_t max, cq_buf_t *out) CQ_MUST_CHECK;
int store_disk_save(const char *path, const void *data, size_t n) CQ_MUST_CHECK;

/* So that files created, renamed or removed in it survive a power cut. */
int store_disk_sync_folder(const char *path) CQ_MUST_CHECK;
/* The folder that holds it: "/a/b" → "/a"; false if out is too small. */
bool store_disk_parent(const char *path, char *out, size_t size);
/* Is nothing there, or an empty folder? 0; BAD_STATE: something is there; IO. */
int store_disk_is_free(const char *path) CQ_MUST_CHECK;
/* Free bytes of the file system of an existing path, and an id of that file system. */
int store_disk_space(const char *path, uint64_t *free_bytes, uint64_t *device) CQ_MUST_CHECK;
/* Removes these files of a folder (names end with NULL); others stay. */
int store_disk_empty(const char *folder, const char *const *names) CQ_MUST_CHECK;
/* Removes a folder with these files in it (names end with NULL); fails if there is more. */
int store_disk_remove(const char *folder, const char *const *names) CQ_MUST_CHECK;

#endif
