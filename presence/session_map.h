/* SPDX-License-Identifier: MPL-2.0
 * Who has a session where: user → sessions, (edge, number) → session, edge → sessions. Memory only;
 * the truth about "now". Everything O(1): the sessions of an edge that is down are dead at once,
 * and are removed in pieces.
 */
#ifndef PRESENCE_SESSION_MAP_H
#define PRESENCE_SESSION_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"

#include "presence/list.h"
#include "presence/map.h"

enum {
    PRESENCE_EDGE_MAX = 256,          /* live edges */
    PRESENCE_SESSIONS_MAX = 8000000,  /* sessions in all */
    PRESENCE_USER_SESSIONS_MAX = 256, /* sessions of one user */
};

/* What a session has still to be told about its friends. */
enum presence_note_due {
    PRESENCE_NOTE_NONE,
    PRESENCE_NOTE_ONLINE, /* who is online: it knows nothing yet */
    PRESENCE_NOTE_ALL,    /* everybody's state: what it knows may be stale */
};

struct presence_user {
    struct cq_id id;
    struct presence_link sessions; /* of struct presence_session.of_user */
    uint32_t session_count;
    uint64_t seen_unix_ms;      /* last heard of */
    uint64_t written_mono_ms;   /* when the Redis key was last written, 0: never */
    struct presence_link all;   /* in the map's list of users */
    struct presence_link dirty; /* waits to be written to Redis */
    struct presence_link noted; /* waits for a note of its friends */
    uint64_t heard;             /* the last change of friends that its sessions were told of */
};

struct presence_session {
    struct presence_user *user;
    struct presence_link of_user;
    struct presence_link of_edge;
    uint64_t number; /* the edge's own */
    struct cq_id device;
    uint64_t since_unix_ms;
    uint32_t generation; /* of the edge */
    uint16_t edge;
    uint8_t note; /* enum presence_note_due */
};

/* A time of the wall clock, but not in the future: clocks of edges, and our own, may have been
 * wrong when it was taken. */
static inline uint64_t
presence_not_after(uint64_t unix_ms, uint64_t now_unix_ms)
{
    return unix_ms < now_unix_ms ? unix_ms : now_unix_ms;
}

/* A user whose last session has ended. */
struct presence_gone {
    struct cq_id user;
    uint64_t seen_unix_ms;
};

typedef struct presence_session_map {
    presence_map_t users;
    presence_map_t sessions;
    struct presence_link all;                      /* every user */
    struct presence_link edges[PRESENCE_EDGE_MAX]; /* sessions of an edge */
    size_t edge_counts[PRESENCE_EDGE_MAX];
    uint32_t generations[PRESENCE_EDGE_MAX]; /* how often it went down */
    struct presence_link dead;               /* sessions to be removed */
    size_t dead_count;
} presence_session_map_t;

presence_session_map_t *presence_session_map_new(void);
void presence_session_map_destroy(presence_session_map_t **map);

/* A walk over all users, in pieces: users may come and go in between; whoever comes is at the end.
 * The cursor is zero at first, and after the last user; end it before that to leave off. */
void presence_session_map_walk(presence_session_map_t *map, struct presence_link *cursor);
struct presence_user *presence_session_map_walk_next(presence_session_map_t *map,
                                                     struct presence_link *cursor);
void presence_session_map_walk_end(struct presence_link *cursor);

struct presence_session_info {
    uint16_t edge; /* < PRESENCE_EDGE_MAX */
    uint64_t number;
    struct cq_id user, device;
    uint64_t since_unix_ms;
};

/* Adds a session or updates it (a number that belonged to another user moves; *gone is that user if
 * it was its last, else zero). *session: valid until removed. -CQ_E_BUSY at a limit: nothing
 * changed. */
int presence_session_map_add(presence_session_map_t *map,
                             const struct presence_session_info *info,
                             struct presence_session **session,
                             struct presence_gone *gone) CQ_MUST_CHECK;
struct presence_session *
presence_session_map_find(const presence_session_map_t *map, uint16_t edge, uint64_t number);
struct presence_user *presence_session_map_user(const presence_session_map_t *map,
                                                const struct cq_id *user);
/* Removes a session (freed). True if it was its user's last: the user is freed too and described in
 * *gone. */
bool presence_session_map_remove(presence_session_map_t *map,
                                 struct presence_session *session,
                                 struct presence_gone *gone);
/* An edge is down: its sessions are dead. They are not found any more, but their users have them
 * until they are reaped. */
void presence_session_map_edge_down(presence_session_map_t *map, uint16_t edge);

static inline bool
presence_session_map_is_live(const presence_session_map_t *map, const struct presence_session *s)
{
    return s->generation == map->generations[s->edge];
}

/* Removes up to max dead sessions. fn for each: if it was the user's last, gone is not NULL and
 * user is. True if some are left. */
typedef void presence_session_map_reap_fn(void *ctx,
                                          struct presence_user *user,
                                          const struct presence_gone *gone);
bool presence_session_map_reap(presence_session_map_t *map,
                               size_t max,
                               presence_session_map_reap_fn *fn,
                               void *ctx);

#endif
