/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/people.h"

#include "common/rt/random.h"

#include "tests/bench/measure.h"

enum {
    KIND_USER = 1,
    KIND_DEVICE = 2
};

void
bench_people_check(const struct bench_people *p)
{
    if (p->friends == 0 || p->friends % 2 || p->friends >= p->users) {
        bench_measure_fail("friends must be even and fewer than users");
    }
}

static uint64_t
mix(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9U;
    n = (n ^ n >> 27) * 0x94d049bb133111ebU;
    return n ^ n >> 31;
}

static struct cq_id
make_id(uint64_t kind, uint64_t number)
{
    struct cq_id id;
    uint64_t parts[2] = {mix(number * 4 + kind), number * 4 + kind};
    memcpy(id.b, parts, sizeof id.b);
    return id;
}

struct cq_id
bench_people_user(uint64_t number)
{
    return make_id(KIND_USER, number);
}

struct cq_id
bench_people_device(uint64_t user, uint64_t number)
{
    return make_id(KIND_DEVICE, user * 64 + number);
}

struct bench_pair
bench_people_pair(const struct bench_people *p, uint64_t chat)
{
    uint64_t half = p->friends / 2;
    struct bench_pair pair = {.user = chat / half};
    pair.peer = (pair.user + 1 + chat % half) % p->users;
    struct cq_id user = bench_people_user(pair.user);
    struct cq_id peer = bench_people_user(pair.peer);
    pair.chat = cq_chat_id(&user, &peer);
    return pair;
}

uint64_t
bench_people_random(uint64_t bound)
{
    static uint64_t state = 88172645463325252U;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % bound;
}
