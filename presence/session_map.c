/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/session_map.h"

#include <stdlib.h>

#include "common/rt/check.h"

presence_session_map_t *
presence_session_map_new(void)
{
    presence_session_map_t *map = cq_alloc(sizeof *map);
    presence_list_init(&map->all);
    presence_list_init(&map->dead);
    for (size_t i = 0; i < PRESENCE_EDGE_MAX; i++) {
        presence_list_init(&map->edges[i]);
    }
    return map;
}

void
presence_session_map_destroy(presence_session_map_t **map)
{
    if (*map) {
        presence_map_clear(&(*map)->sessions, free);
        presence_map_clear(&(*map)->users, free);
        free(*map);
        *map = NULL;
    }
}

static struct cq_id
key_of(uint16_t edge, uint32_t generation, uint64_t number)
{
    return presence_map_pair((uint64_t)generation << 16 | edge, number);
}

struct presence_session *
presence_session_map_find(const presence_session_map_t *map, uint16_t edge, uint64_t number)
{
    struct cq_id key = key_of(edge, map->generations[edge], number);
    return presence_map_find(&map->sessions, &key);
}

struct presence_user *
presence_session_map_user(const presence_session_map_t *map, const struct cq_id *user)
{
    return presence_map_find(&map->users, user);
}

/* The cursor stands in the list itself, in front of the next user. */
void
presence_session_map_walk(presence_session_map_t *map, struct presence_link *cursor)
{
    presence_list_remove(cursor);
    presence_list_append(map->all.next, cursor);
}

struct presence_user *
presence_session_map_walk_next(presence_session_map_t *map, struct presence_link *cursor)
{
    struct presence_link *next = cursor->next;
    presence_list_remove(cursor);
    if (!next || next == &map->all) {
        return NULL;
    }
    presence_list_append(next->next, cursor);
    return PRESENCE_LIST_OF(next, struct presence_user, all);
}

void
presence_session_map_walk_end(struct presence_link *cursor)
{
    presence_list_remove(cursor);
}

static struct presence_user *
user_for(presence_session_map_t *map, const struct cq_id *id)
{
    struct presence_user *user = presence_map_find(&map->users, id);
    if (!user) {
        user = cq_alloc(sizeof *user);
        user->id = *id;
        presence_list_init(&user->sessions);
        presence_list_append(&map->all, &user->all);
        presence_map_put(&map->users, id, user);
    }
    return user;
}

/* Dead sessions do not count: an edge that is back at once announces them all again. But there is
 * an end to them, too. */
static bool
has_too_many(const presence_session_map_t *map, const struct presence_user *user)
{
    unsigned live = 0;
    if (user->session_count < PRESENCE_USER_SESSIONS_MAX) {
        return false;
    }
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        live += presence_session_map_is_live(map,
                                             PRESENCE_LIST_OF(l, struct presence_session, of_user));
    }
    return live >= PRESENCE_USER_SESSIONS_MAX ||
           user->session_count >= 4 * PRESENCE_USER_SESSIONS_MAX;
}

static bool
is_full(const presence_session_map_t *map, const struct cq_id *user_id)
{
    const struct presence_user *user = presence_map_find(&map->users, user_id);
    return map->sessions.count >= PRESENCE_SESSIONS_MAX || (user && has_too_many(map, user));
}

int
presence_session_map_add(presence_session_map_t *map,
                         const struct presence_session_info *info,
                         struct presence_session **session,
                         struct presence_gone *gone)
{
    *gone = (struct presence_gone){0};
    struct presence_session *s = presence_session_map_find(map, info->edge, info->number);
    if (!s || !cq_id_eq(&s->user->id, &info->user)) {
        if (is_full(map, &info->user)) {
            return -CQ_E_BUSY;
        }
        if (s) {
            (void)presence_session_map_remove(map, s, gone);
        }
        s = cq_alloc(sizeof *s);
        s->user = user_for(map, &info->user);
        s->user->session_count++;
        s->edge = info->edge;
        s->generation = map->generations[info->edge];
        s->number = info->number;
        presence_list_append(&s->user->sessions, &s->of_user);
        presence_list_append(&map->edges[info->edge], &s->of_edge);
        map->edge_counts[info->edge]++;
        struct cq_id key = key_of(s->edge, s->generation, s->number);
        presence_map_put(&map->sessions, &key, s);
    }
    s->device = info->device;
    s->since_unix_ms = info->since_unix_ms;
    *session = s;
    return 0;
}

bool
presence_session_map_remove(presence_session_map_t *map,
                            struct presence_session *session,
                            struct presence_gone *gone)
{
    struct presence_user *user = session->user;
    struct cq_id key = key_of(session->edge, session->generation, session->number);
    (void)presence_map_take(&map->sessions, &key);
    presence_list_remove(&session->of_user);
    presence_list_remove(&session->of_edge);
    *(presence_session_map_is_live(map, session) ? &map->edge_counts[session->edge]
                                                 : &map->dead_count) -= 1;
    free(session);
    if (--user->session_count > 0) {
        return false;
    }
    *gone = (struct presence_gone){user->id, user->seen_unix_ms};
    (void)presence_map_take(&map->users, &user->id);
    presence_list_remove(&user->all);
    presence_list_remove(&user->dirty);
    presence_list_remove(&user->noted);
    free(user);
    return true;
}

void
presence_session_map_edge_down(presence_session_map_t *map, uint16_t edge)
{
    map->generations[edge]++;
    map->dead_count += map->edge_counts[edge];
    map->edge_counts[edge] = 0;
    presence_list_splice(&map->dead, &map->edges[edge]);
}

bool
presence_session_map_reap(presence_session_map_t *map,
                          size_t max,
                          presence_session_map_reap_fn *fn,
                          void *ctx)
{
    for (size_t n = 0; n < max && map->dead_count > 0; n++) {
        struct presence_gone gone;
        struct presence_session *s =
            PRESENCE_LIST_OF(map->dead.next, struct presence_session, of_edge);
        struct presence_user *user = s->user;
        bool was_last = presence_session_map_remove(map, s, &gone);
        fn(ctx, was_last ? NULL : user, was_last ? &gone : NULL);
    }
    return map->dead_count > 0;
}
