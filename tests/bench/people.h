/* SPDX-License-Identifier: MPL-2.0
 * Many people with made-up ids: user i is a friend of the `friends / 2` users on either side of
 * him, in a ring. So chats can be counted through, and every user has the same number of them.
 */
#ifndef BENCH_PEOPLE_H
#define BENCH_PEOPLE_H

#include <stdint.h>

#include "common/wire/id.h"

struct bench_people {
    uint64_t users;
    uint64_t friends; /* of each user: even, less than users */
};

struct bench_pair {
    uint64_t user, peer; /* numbers */
    struct cq_id chat;
};

/* Ends the program with a sentence if the numbers do not fit together. */
void bench_people_check(const struct bench_people *p);
static inline uint64_t
bench_people_chat_count(const struct bench_people *p)
{
    return p->users * p->friends / 2;
}
struct cq_id bench_people_user(uint64_t number);
enum {
    BENCH_PEOPLE_DEVICES = 2, /* of each user, as chasqui-bench-fill makes them */
    BENCH_PEOPLE_UNUSED = 1   /* the one that has not sent anything yet: its dseqs begin with 1 */
};
struct cq_id bench_people_device(uint64_t user, uint64_t number);
/* The two users of chat n, and its id. */
struct bench_pair bench_people_pair(const struct bench_people *p, uint64_t chat);

/* Numbers below `bound`, from a fixed seed: the same in every run. */
uint64_t bench_people_random(uint64_t bound);

#endif
