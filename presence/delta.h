/* SPDX-License-Identifier: MPL-2.0
 * Who came online and who left, as friends are told: a grace period before "left", changes gathered
 * until the next tick, and a ceiling on the cost of a tick. Pure: the caller gives the time
 * (monotonic milliseconds).
 *
 * A user is *visible* while online or within the grace period after the last session's end. What
 * friends were told last is kept; who came and went before the tick is not worth a word. A change
 * that exceeds the ceiling waits for a later slice, and may have become void by then, so a storm
 * costs no more than its last state.
 */
#ifndef PRESENCE_DELTA_H
#define PRESENCE_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"

enum {
    PRESENCE_DELTA_SLICES = 10
}; /* cost_max is spread over this many steps */

struct presence_delta_cfg {
    uint64_t grace_ms;
    uint64_t tick_ms;
    size_t cost_max; /* of one tick */
    /* The grace period is over. */
    void (*on_left)(void *ctx, const struct cq_id *user, uint64_t seen_unix_ms);
    /* Tell the friends; time: online since, or last seen. Returns what it cost (sessions told). */
    size_t (*on_change)(void *ctx, const struct cq_id *user, bool online, uint64_t time_unix_ms);
    void *ctx;
};

typedef struct presence_delta presence_delta_t;

presence_delta_t *presence_delta_new(const struct presence_delta_cfg *cfg);
void presence_delta_destroy(presence_delta_t **d);

struct presence_delta_up {
    uint64_t since_unix_ms;
    uint64_t now_ms;
    bool quiet; /* friends learn it another way: nothing is told */
};

/* A session of the user started (the first or another). */
void presence_delta_up(presence_delta_t *d,
                       const struct cq_id *user,
                       const struct presence_delta_up *up);
/* The last one ended. */
void presence_delta_down(presence_delta_t *d,
                         const struct cq_id *user,
                         uint64_t seen_unix_ms,
                         uint64_t now_ms);
/* A user who is not visible was believed online by friends (left while nobody watched): tell them.
 */
void presence_delta_absent(presence_delta_t *d,
                           const struct cq_id *user,
                           uint64_t seen_unix_ms,
                           uint64_t now_ms);
/* What friends were told of the user's times is not right any more: tell them anew. Of a user who
 * is not visible the time is told as 0. */
void presence_delta_retell(presence_delta_t *d, const struct cq_id *user, uint64_t now_ms);
/* Nothing could be heard until now: the grace period of everybody who seems gone starts anew. */
void presence_delta_extend(presence_delta_t *d, uint64_t now_ms);
/* Visible? *since_unix_ms: online since (untouched if not visible). */
bool presence_delta_is_visible(const presence_delta_t *d,
                               const struct cq_id *user,
                               uint64_t *since_unix_ms);
/* Ends the grace of some of those whose time has come. True: there are more. Call it every turn. */
bool presence_delta_leave(presence_delta_t *d, uint64_t now_ms);
/* One step; call it every tick_ms / PRESENCE_DELTA_SLICES. */
void presence_delta_step(presence_delta_t *d, uint64_t now_ms);
/* Is anything left for a step to do, now or later? */
bool presence_delta_is_busy(const presence_delta_t *d);
size_t presence_delta_visible_count(const presence_delta_t *d);
size_t presence_delta_pending(const presence_delta_t *d); /* changes that wait to be told */

#endif
