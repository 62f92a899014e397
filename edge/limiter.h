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

/* EDGE_RATE(NAME, key in the configuration, counted by, per second, burst, "what is counted"). By
 * USER: over all of a user's sessions on this edge; whoever has not logged in counts by session. By
 * NAME: the account that somebody tries to log in to, whoever it is. */
#define EDGE_RATES(X)                                                                    \
    X(ACCEPT, "accept", ADDRESS, 2000, 20000, "connections per address")                 \
    X(SIGNUP, "signup", ADDRESS, 20, 100, "sign-ups per address")                        \
    X(LOGIN, "login", ADDRESS, 20, 100, "password logins per address")                   \
    X(LOGIN_NAME, "login-name", NAME, 1, 30, "password logins per account name")         \
    X(RESUME, "resume", ADDRESS, 2000, 20000, "token logins per address")                \
    X(SEND, "send", USER, 200, 400, "messages per user")                                 \
    X(FRIEND, "friend", USER, 10, 100, "friend operations per user")                     \
    X(ACCOUNT, "account", USER, 5, 50, "device, privacy and logout operations per user") \
    X(HISTORY, "history", USER, 100, 1000, "history requests per user")                  \
    X(QUERY, "query", USER, 100, 1000, "sync, chat, friend and key lists per user")      \
    X(SIGNAL, "signal", SESSION, 200, 2000, "acks, typing, presence, ping per session")  \
    X(CONTROL, "control", SESSION, 50, 500, "WebSocket Pings per session")               \
    X(UPLOAD, "upload", USER, 10, 500, "uploads begun per user")                         \
    X(UPLOAD_ADDRESS, "upload-address", ADDRESS, 100, 5000, "uploads begun per address") \
    X(BLOB, "blob", USER, 100, 2000, "other requests about blobs per user")              \
    X(HTTP, "http", ADDRESS, 500, 5000, "other HTTP requests per address")

enum edge_rate_scope {
    EDGE_RATE_BY_ADDRESS,
    EDGE_RATE_BY_NAME,
    EDGE_RATE_BY_USER,
    EDGE_RATE_BY_SESSION
};

enum edge_rate {
#define EDGE_RATE(name, key, scope, rate, burst, doc) EDGE_RATE_##name,
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
