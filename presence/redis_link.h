/* SPDX-License-Identifier: MPL-2.0
 * The connection to Redis: the one file pair that wraps hiredis (asynchronous, on the loop).
 * Connects and reconnects by itself with back-off; connect and command timeouts are made here
 * because hiredis 0.14 has none. Commands of one turn leave in one write. Loop thread only.
 */
#ifndef PRESENCE_REDIS_LINK_H
#define PRESENCE_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rt/loop.h"
#include "common/wire/err.h"
#include "common/wire/read.h"

typedef struct presence_redis_link presence_redis_link_t;
typedef struct presence_redis_reply presence_redis_reply_t;

/* reply: borrowed for the call; NULL if the command failed or its outcome is unknown: see
 * presence_redis_link_refusal(). */
typedef void presence_redis_link_fn(void *ctx, const presence_redis_reply_t *reply);

struct presence_redis_link_cfg {
    const char *path;          /* unix socket; copied */
    const char *password_file; /* read for every connection; "": none; copied */
    uint32_t connect_timeout_ms;
    uint32_t command_timeout_ms; /* the oldest unanswered command may take this long, then the
                                    connection is given up */
    uint32_t back_off_min_ms, back_off_max_ms;
    uint32_t outstanding_max;
    void (*on_state)(void *ctx, bool up); /* up: Redis has answered on a new connection */
    void *ctx;
};

presence_redis_link_t *presence_redis_link_new(cq_loop_t *loop,
                                               const struct presence_redis_link_cfg *cfg);
/* Unanswered commands get NULL; on_state is not called. */
void presence_redis_link_destroy(presence_redis_link_t **link);
/* Within fn: did Redis refuse the command (then nothing was done)? The error, "OOM …", else NULL.
 */
const char *presence_redis_link_refusal(const presence_redis_link_t *link);
bool presence_redis_link_is_up(const presence_redis_link_t *link);
/* How many commands may be queued now; 0 when down. */
size_t presence_redis_link_room(const presence_redis_link_t *link);

struct presence_redis_command {
    const struct cq_view *words; /* borrowed for the call */
    size_t count;
    presence_redis_link_fn
        *fn; /* called exactly once, never from within the call; NULL: nobody cares */
    void *ctx;
};

enum {
    PRESENCE_REDIS_WORDS_MAX = 4200
};

/* 0; -CQ_E_UNAVAILABLE when down; -CQ_E_BUSY without room. fn is called only after 0. */
int presence_redis_link_command(presence_redis_link_t *link,
                                const struct presence_redis_command *command) CQ_MUST_CHECK;

static inline struct cq_view
presence_redis_word(const char *text, size_t n)
{
    return (struct cq_view){(const uint8_t *)text, n};
}

/* Text of a string or status reply; an empty view with p NULL for anything else (nil, list). */
struct cq_view presence_redis_link_text(const presence_redis_reply_t *reply);
/* Is there an answer that says there is nothing? */
bool presence_redis_link_is_nil(const presence_redis_reply_t *reply);
/* Members of a list; 0 for anything else. */
size_t presence_redis_link_count(const presence_redis_reply_t *reply);
const presence_redis_reply_t *presence_redis_link_at(const presence_redis_reply_t *reply, size_t i);

#endif
