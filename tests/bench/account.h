/* SPDX-License-Identifier: MPL-2.0
 * What comes before a measurement: users who have signed up and are friends of one another.
 */
#ifndef BENCH_ACCOUNT_H
#define BENCH_ACCOUNT_H

#include "tests/bench/conn.h"

struct bench_account {
    struct bench_conn conn;
    struct cq_id user;
    struct cq_id device;
    char name[CQ_NAME_MAX + 1];
    uint8_t token[CQ_TOKEN_MAX];
    size_t token_size;
    struct bench_account *friend;
    struct cq_id chat; /* with that friend */
    uint64_t key_version;
    bool ready; /* its step is done */
};

/* Signs up `count` users, several at a time; even ones at port, odd ones at the port behind. Each
 * two are friends afterwards, and all connections are open, without handlers. */
void bench_account_make(struct bench_account *all, size_t count, uint16_t port);

/* The answer to the request `rid`: false if op is something else. Fails on ERR. */
bool bench_account_is_answer(const struct cq_frame_op *op, uint64_t rid);

#endif
