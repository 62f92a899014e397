/* SPDX-License-Identifier: MPL-2.0
 * Sessions are known by their numbers, so those that end need not be taken out.
 */
#include "edge/arrive.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    LINE_ROOM_MIN = 64
};

static void
put_in_line(struct edge_arrivals *a, uint64_t number)
{
    if (a->line_count == a->line_room) {
        size_t room = a->line_room ? 2 * a->line_room : LINE_ROOM_MIN;
        uint64_t *line = cq_alloc(room * sizeof *line);
        for (size_t i = 0; i < a->line_count; i++) {
            line[i] = a->line[(a->line_head + i) % a->line_room];
        }
        free(a->line);
        a->line = line;
        a->line_room = room;
        a->line_head = 0;
    }
    a->line[(a->line_head + a->line_count++) % a->line_room] = number;
}

bool
edge_arrive_ask(struct edge_arrivals *a, edge_session_t *s)
{
    if (s->is_called || (a->count < EDGE_ARRIVE_MAX && !a->line_count)) {
        s->is_called = false;
        return true;
    }
    s->is_in_line = true;
    put_in_line(a, s->number);
    return false;
}

void
edge_arrive_begin(struct edge_arrivals *a, const edge_session_t *s, uint64_t now_mono_ms)
{
    a->group_mono_ms = a->count ? a->group_mono_ms : now_mono_ms;
    if (a->count < EDGE_ARRIVE_MAX) {
        a->under_way[a->count].number = s->number;
        a->under_way[a->count++].since_mono_ms = now_mono_ms;
    }
}

static bool
is_under_way(const edge_session_t *s)
{
    return s && (s->state == EDGE_STATE_ANNOUNCING || (s->state == EDGE_STATE_READY && s->cost));
}

void
edge_arrive_look(struct edge_arrivals *a, const edge_sessions_t *t, uint64_t now_mono_ms)
{
    size_t kept = 0;
    for (size_t i = 0; i < a->count; i++) {
        const edge_session_t *s = edge_session_find(t, a->under_way[i].number);
        if (is_under_way(s) && now_mono_ms - a->under_way[i].since_mono_ms < EDGE_ARRIVE_MS) {
            a->under_way[kept++] = a->under_way[i];
        }
    }
    if (a->count && !kept) {
        uint64_t took_ms = now_mono_ms - a->group_mono_ms;
        a->rest_until_mono_ms = now_mono_ms + (took_ms < EDGE_ARRIVE_MS ? took_ms : EDGE_ARRIVE_MS);
        a->places = 0;
    }
    a->count = kept;
    if (!kept && !a->places && now_mono_ms >= a->rest_until_mono_ms) {
        a->places = EDGE_ARRIVE_MAX;
    }
}

edge_session_t *
edge_arrive_next(struct edge_arrivals *a, const edge_sessions_t *t)
{
    while (a->line_count && a->places && a->count < EDGE_ARRIVE_MAX) {
        edge_session_t *s = edge_session_find(t, a->line[a->line_head]);
        a->line_head = (a->line_head + 1) % a->line_room;
        a->line_count--;
        if (s && s->is_in_line) {
            s->is_in_line = false;
            s->is_called = true;
            a->places--;
            return s;
        }
    }
    return NULL;
}

void
edge_arrive_free(struct edge_arrivals *a)
{
    free(a->line);
    *a = (struct edge_arrivals){0};
}
