/* SPDX-License-Identifier: MPL-2.0
 * Rate limits: token buckets of all kinds in one bounded table. A bucket is one time stamp (GCRA):
 * when it would be full again. Full buckets need no entry, so an idle session has none. When the
 * table is full the fullest bucket of a neighbourhood makes room: a limit may then be too kind,
 * never too strict.
 */
#ifndef EDGE_LIMITER_H
#define EDGE_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* EDGE_RATE(NAME, key in the configuration, per second, burst, "what is counted") */
#define EDGE_RATES(X)                                                                \
    X(ACCEPT, "accept", 2000, 20000, "connections per address")                      \
    X(LOGIN, "login", 20, 100, "password logins and sign-ups per address")           \
    X(RESUME, "resume", 2000, 20000, "token logins per address")                     \
    X(SEND, "send", 200, 400, "messages per session")                                \
    X(FRIEND, "friend", 10, 100, "friend operations per session")                    \
    X(ACCOUNT, "account", 5, 50, "device and logout operations per session")         \
    X(QUERY, "query", 100, 1000, "sync, history, chat and key requests per session") \
    X(SIGNAL, "signal", 200, 2000, "acks, typing, presence and ping per session")

enum edge_rate {
#define EDGE_RATE(name, key, rate, burst, doc) EDGE_RATE_##name,
    EDGE_RATES(EDGE_RATE)
#undef EDGE_RATE
    EDGE_RATE_COUNT
};

typedef struct edge_limiter edge_limiter_t;

struct edge_limit {
    uint64_t per_s; /* 0: no limit */
    uint64_t burst;
};

/* limits: EDGE_RATE_COUNT of them, copied. entries_max: power of two. */
edge_limiter_t *edge_limiter_new(const struct edge_limit *limits, size_t entries_max);
void edge_limiter_destroy(edge_limiter_t **l);
/* Takes a token of the bucket (rate, key). Returns 0, or after how many ms (at least 1) there will
 * be one. */
uint64_t
edge_limiter_take(edge_limiter_t *l, enum edge_rate rate, uint64_t key, uint64_t now_mono_us);
size_t edge_limiter_entries(const edge_limiter_t *l);

#endif
