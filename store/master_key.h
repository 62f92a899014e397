/* SPDX-License-Identifier: MPL-2.0
 * Where the master key comes from: a file of its own, or a command's output. 64 hex digits and at
 * most one newline.
 */
#ifndef STORE_MASTER_KEY_H
#define STORE_MASTER_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/err.h"

enum {
    STORE_MASTER_KEY_SIZE = 32
};

/* Reads the file at path: a regular one, ours, closed to group and others, not in data_dir. If it
 * is missing and may_create, makes it with a random key, on disk before this returns; its folder is
 * made (0700) if only that is missing. 0 or CONFIG, logged with what to do. key (locked memory of
 * the caller) is filled only on 0. */
int store_master_key_from_file(const char *path,
                               const char *data_dir,
                               bool may_create,
                               uint8_t key[STORE_MASTER_KEY_SIZE]) CQ_MUST_CHECK;
/* Runs command with /bin/sh and reads the key from its standard output. 0 or CONFIG, logged. */
int store_master_key_from_command(const char *command,
                                  uint8_t key[STORE_MASTER_KEY_SIZE]) CQ_MUST_CHECK;

#endif
