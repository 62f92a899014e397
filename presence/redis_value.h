/* SPDX-License-Identifier: MPL-2.0
 * What stands in Redis, as text. docs/redis.md describes it for everybody who reads it.
 *   chasqui:online:<user, 32 hex>  HEARTBEAT;EDGE/SESSION/DEVICE/SINCE;EDGE/SESSION/DEVICE/SINCE…
 *   chasqui:seen:<user, 32 hex>    UNIX_MS
 */
#ifndef PRESENCE_REDIS_VALUE_H
#define PRESENCE_REDIS_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/read.h"

#define PRESENCE_REDIS_ONLINE   "chasqui:online:"
#define PRESENCE_REDIS_SEEN     "chasqui:seen:"
#define PRESENCE_REDIS_SENTINEL "chasqui:presence:incarnation"

enum {
    PRESENCE_REDIS_KEY_SIZE = 64,
    PRESENCE_REDIS_LISTED_MAX = 64, /* sessions in one value; more are left out */
    /* one session: name, two numbers of 20 digits, 32 hex digits, separators */
    PRESENCE_REDIS_VALUE_SIZE =
        24 + PRESENCE_REDIS_LISTED_MAX * (CQ_ACTOR_NAME_MAX + 2 * 20 + 32 + 4),
};

struct presence_redis_session {
    char edge[CQ_ACTOR_NAME_MAX + 1];
    uint64_t session;
    struct cq_id device;
    uint64_t since_unix_ms;
};

/* Prefix and id as a key into out. Returns its length. */
size_t presence_redis_value_key(char out[PRESENCE_REDIS_KEY_SIZE],
                                const char *prefix,
                                const struct cq_id *user);
/* The id in a key of that prefix. -CQ_E_BAD_ARG if it is not one. */
int presence_redis_value_key_read(struct cq_view key,
                                  const char *prefix,
                                  struct cq_id *user) CQ_MUST_CHECK;

/* Text of a value with at most PRESENCE_REDIS_LISTED_MAX sessions. Returns its length. */
size_t presence_redis_value_write(char out[PRESENCE_REDIS_VALUE_SIZE],
                                  uint64_t heartbeat_unix_ms,
                                  const struct presence_redis_session *sessions,
                                  size_t count);
/* Reads a value somebody wrote: heartbeat and at most max sessions. Number of sessions, or
 * -CQ_E_CORRUPT. */
int presence_redis_value_read(struct cq_view value,
                              uint64_t *heartbeat_unix_ms,
                              struct presence_redis_session *sessions,
                              size_t max) CQ_MUST_CHECK;
/* A decimal number and nothing else. */
bool presence_redis_value_number(struct cq_view text, uint64_t *number);

#endif
