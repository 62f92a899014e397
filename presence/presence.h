/* SPDX-License-Identifier: MPL-2.0
 * chasqui-presence: who is online, where, since when; gives the store's events to all sessions of a
 * user; tells friends who came and left. Memory is the truth, Redis a copy for others and for
 * last-seen. See docs/bus.md and docs/redis.md.
 */
#ifndef PRESENCE_PRESENCE_H
#define PRESENCE_PRESENCE_H

#include <stdint.h>

#include "common/rt/loop.h"

struct presence_cfg {
    char *name;
    char *broker;
    char *redis_socket;
    char *redis_password_file; /* "": none */
    char *log_level;
    uint64_t grace_ms;
    uint64_t online_ttl_s;
    uint64_t tick_ms;
    uint64_t notes_per_s;
};

typedef struct presence_core presence_t;

/* NULL on a bad broker endpoint (logged). cfg is borrowed for its life. */
presence_t *presence_presence_new(cq_loop_t *loop, const struct presence_cfg *cfg);
void presence_presence_destroy(presence_t **p);

#endif
