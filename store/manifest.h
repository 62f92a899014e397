/* SPDX-License-Identifier: MPL-2.0
 * The manifest of a backup: a small text file that says what the backup is and how to tell that it
 * is whole. Lines in this order, each ended by one newline:
 *
 *   chasqui-backup 1
 *   created_unix_ms N
 *   version V            of the program that made it
 *   schema N             of the tables
 *   epoch HEX            of the store's history (32 digits)
 *   head N               last position of the log
 *   marker N             rows of chats are complete up to here; the log behind it is replayed
 *   part NAME FILE BYTES HASH    one or more: a file of the backup, its BLAKE2b-256 (64 digits)
 *   sum HASH             BLAKE2b-256 of all bytes before this line
 *
 * The store is the part "store". Other services add parts of their own; a service with many files
 * adds one part that lists them.
 */
#ifndef STORE_MANIFEST_H
#define STORE_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

enum {
    STORE_MANIFEST_HASH_SIZE = 32,
    STORE_MANIFEST_VERSION_MAX = 31,
    STORE_MANIFEST_NAME_MAX = 31,
    STORE_MANIFEST_FILE_MAX = 127,
    STORE_MANIFEST_PARTS_MAX = 16,
    STORE_MANIFEST_BYTES_MAX = 16384,
};

struct store_manifest_part {
    char name[STORE_MANIFEST_NAME_MAX + 1];
    char file[STORE_MANIFEST_FILE_MAX + 1]; /* of the backup's folder; a-z 0-9 . _ - */
    uint64_t bytes;
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
};

struct store_manifest {
    uint64_t created_unix_ms;
    char version[STORE_MANIFEST_VERSION_MAX + 1];
    uint64_t schema;
    struct cq_id epoch;
    uint64_t head;
    uint64_t marker;
    size_t part_count;
    struct store_manifest_part parts[STORE_MANIFEST_PARTS_MAX];
};

void store_manifest_write(cq_buf_t *b, const struct store_manifest *m);
/* 0; CORRUPT; NEWER_SCHEMA (a format of a newer version); BAD_STATE: of a backup that was not
 * finished. */
int store_manifest_read(struct cq_view bytes, struct store_manifest *m) CQ_MUST_CHECK;
/* What stands in place of the manifest until the backup is whole. */
void store_manifest_write_unfinished(cq_buf_t *b, uint64_t begun_unix_ms);
/* Does it begin as a manifest, finished or not? */
bool store_manifest_is_ours(struct cq_view bytes);
/* NULL if there is none. */
const struct store_manifest_part *store_manifest_part_of(const struct store_manifest *m,
                                                         const char *name);

#endif
