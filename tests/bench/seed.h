/* SPDX-License-Identifier: MPL-2.0
 * The people that chasqui-bench-seed has put into a store, and their devices' tokens.
 *
 * File: the header, then for each user, and for each of the user's devices, a record: user (16),
 * device (16), size of the token (2, little-endian), token. Users are in order, a user's devices
 * are neighbours.
 */
#ifndef BENCH_SEED_H
#define BENCH_SEED_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"
#include "common/wire/limits.h"

enum {
    BENCH_SEED_ID = 0x73716301,
    BENCH_SEED_RECORD_FIXED = 2 * CQ_ID_SIZE + 2
};

struct bench_seed_header {
    uint32_t id; /* BENCH_SEED_ID */
    uint32_t users, devices, friends;
};

struct bench_seed_session {
    struct cq_id user, device;
    const uint8_t *token;
    size_t token_size;
};

struct bench_seed {
    struct bench_seed_header header;
    struct bench_seed_session *sessions; /* users × devices: user u, device d at u × devices + d */
    uint8_t *bytes;
};

/* Reads the file; ends the program if it is not one. */
void bench_seed_load(struct bench_seed *seed, const char *path);
void bench_seed_free(struct bench_seed *seed);

#endif
