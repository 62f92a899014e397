/* SPDX-License-Identifier: MPL-2.0
 * Who comes back with a token costs presence and store an answer each, which messages then wait
 * behind: so only a bounded number of them is under way at a time, the others wait in line, and are
 * called in group by group. Between two groups the services have as long for others as the last one
 * took: a storm goes as fast as they work it off, and takes no more than half of what there is.
 *
 * One is under way from its RESUME until all that it has asked for so far is answered. A service
 * that hangs must not lock the door: after ARRIVE_MS nobody counts any more.
 */
#ifndef EDGE_ARRIVE_H
#define EDGE_ARRIVE_H

#include "edge/session.h"

enum {
    EDGE_ARRIVE_MAX = 32, /* under way at a time */
    EDGE_ARRIVE_MS = 200
};

struct edge_arrivals {
    struct {
        uint64_t number; /* of the session */
        uint64_t since_mono_ms;
    } under_way[EDGE_ARRIVE_MAX];
    size_t count;
    size_t places;               /* left in the group that is called in */
    uint64_t group_mono_ms;      /* when it began */
    uint64_t rest_until_mono_ms; /* nobody is called in before */
    uint64_t *line;              /* numbers of sessions, a ring */
    size_t line_head, line_count, line_room;
};

/* May this session's RESUME begin now? If not, it is put in line: it says so again later. */
bool edge_arrive_ask(struct edge_arrivals *a, edge_session_t *s);
/* It has begun. */
void edge_arrive_begin(struct edge_arrivals *a, const edge_session_t *s, uint64_t now_mono_ms);
/* Once per turn: those who have arrived, gone or hung leave; when all of a group have, and the rest
 * behind it is over, there are places for the next. */
void edge_arrive_look(struct edge_arrivals *a, const edge_sessions_t *t, uint64_t now_mono_ms);
/* The next in line for whom there is a place, or NULL. Not in line any more. Those who come when
 * nobody is in line need no place in a group. */
edge_session_t *edge_arrive_next(struct edge_arrivals *a, const edge_sessions_t *t);
void edge_arrive_free(struct edge_arrivals *a);

#endif
