/* SPDX-License-Identifier: MPL-2.0
 * A folder with the files of blobs, as blobd keeps them and backups have them: ROOT/blobs/III/ID,
 * III the first three digits of ID; what ends in .new is being made. And the list that comes with
 * them in a backup, ROOT/blobs.list: a line "chasqui-blobs 1", then one line for each blob, ID
 * LENGTH HASH: 32 digits, the bytes of its data, and the 64 digits of its root (blobfile.h).
 *
 * All of it blocks.
 */
#ifndef STORE_BLOB_TREE_H
#define STORE_BLOB_TREE_H

#include <stdio.h>

#include "common/rt/blobfile.h"

enum {
    STORE_BLOB_TREE_LINE_SIZE = 160,
};

#define STORE_BLOB_TREE_LIST  "blobs.list"
#define STORE_BLOB_TREE_TITLE "chasqui-blobs 1\n"

struct store_blob_entry {
    struct cq_id id;
    uint64_t length;
    uint8_t hash[CQ_BLOB_HASH_SIZE];
};

/* Of the list: a line with its newline and NUL; and back: false unless it is exactly such a line.
 */
void store_blob_tree_write_line(const struct store_blob_entry *e,
                                char line[STORE_BLOB_TREE_LINE_SIZE]);
bool store_blob_tree_read_line(const char *line, struct store_blob_entry *e);

/* The open file of a blob; what it is was not looked at. -1 with errno. */
int store_blob_tree_open(const char *root, const struct cq_id *id);
/* Is the file what the entry says? With data: all of it is read. 0; NOT_FOUND; CORRUPT; IO. */
int store_blob_tree_check(const char *root,
                          const struct store_blob_entry *e,
                          bool with_data) CQ_MUST_CHECK;
/* Copies a blob from one tree to another, synced, read back and checked. 0; NOT_FOUND, CORRUPT: the
 * source; NO_SPACE, IO: the target. */
int store_blob_tree_copy(const char *from,
                         const char *to,
                         const struct store_blob_entry *e) CQ_MUST_CHECK;

/* Calls fn with every blob there is; an error of it ends the walk. Names that are not ours are left
 * out. 0 also if there is no tree. */
typedef int store_blob_tree_fn(void *ctx, const struct cq_id *id);
int store_blob_tree_each(const char *root, store_blob_tree_fn *fn, void *ctx) CQ_MUST_CHECK;
/* Removes one blob. 0 also if there is none. */
int store_blob_tree_unlink(const char *root, const struct cq_id *id) CQ_MUST_CHECK;
/* Removes the blobs, what is being made, and the folders; fails if there is something else. */
int store_blob_tree_remove(const char *root) CQ_MUST_CHECK;
/* All folders: the names in them are on the disk afterwards. */
int store_blob_tree_sync(const char *root) CQ_MUST_CHECK;

#endif
