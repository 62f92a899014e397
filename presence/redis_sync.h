/* SPDX-License-Identifier: MPL-2.0
 * Keeps Redis like the memory: writes who is online (at most once a minute for each user), who left
 * when, and heals it after Redis was away, restarted empty or was flushed. docs/redis.md describes
 * the keys. Loop thread only.
 *
 * Work waits in the session map (users to be written) and in a bounded table (users who left), and
 * goes out at the end of a turn, as much as the connection has room for; the answers wake the loop
 * for the rest.
 */
#ifndef PRESENCE_REDIS_SYNC_H
#define PRESENCE_REDIS_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rt/loop.h"
#include "common/wire/id.h"

#include "presence/lease.h"
#include "presence/redis_link.h"
#include "presence/session_map.h"
#include "presence/watch.h"

typedef struct presence_redis_sync presence_redis_sync_t;

struct presence_redis_sync_cfg {
    const char *path;
    const char *password_file; /* "": none */
    uint64_t online_ttl_s;
    uint64_t incarnation; /* of this presence: the sentinel's value */
    presence_session_map_t *sessions;
    const presence_lease_t *lease; /* names of the edges; sweeps only when ready */
    /* Do friends see the user online? */
    bool (*is_visible)(void *ctx, const struct cq_id *user);
    /* May the user's times stand in Redis? */
    bool (*may_show)(void *ctx, const struct cq_id *user);
    /* Redis had said online, but the user is not: last seen then. */
    void (*on_absent)(void *ctx, const struct cq_id *user, uint64_t seen_unix_ms);
    void *ctx;
};

presence_redis_sync_t *presence_redis_sync_new(cq_loop_t *loop,
                                               const struct presence_redis_sync_cfg *cfg);
void presence_redis_sync_destroy(presence_redis_sync_t **s);

/* The user's sessions changed: write them. */
void presence_redis_sync_dirty(presence_redis_sync_t *s, struct presence_user *user);
/* The user was heard of: write that if the last write is a minute old (half the key's life if that
 * is shorter). */
void presence_redis_sync_seen(presence_redis_sync_t *s, struct presence_user *user);
/* The user left for good. seen: may that be told? UNKNOWN: leave what Redis has. */
void presence_redis_sync_left(presence_redis_sync_t *s,
                              const struct cq_id *user,
                              uint64_t seen_unix_ms,
                              enum presence_watch_seen seen);
/* The user hides when he was last seen: what Redis has of it goes. */
void presence_redis_sync_forget(presence_redis_sync_t *s, const struct cq_id *user);
/* Presence became ready: look for users whom Redis believes online and nobody has announced. */
void presence_redis_sync_ready(presence_redis_sync_t *s);
/* End of a turn: send what there is room for. */
void presence_redis_sync_pump(presence_redis_sync_t *s);

/* Is Redis up, but with so much under way that questions should wait? */
bool presence_redis_sync_is_busy(const presence_redis_sync_t *s);
/* Last-seen times of users: fn gets a list reply with a text or nil for each, or NULL. Errors as in
 * redis_link.h. */
int presence_redis_sync_ask_seen(presence_redis_sync_t *s,
                                 const struct cq_id *users,
                                 size_t count,
                                 presence_redis_link_fn *fn,
                                 void *ctx) CQ_MUST_CHECK;

#endif
