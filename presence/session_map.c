/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/session_map.h"

#include <stdlib.h>

#include "common/rt/check.h"

presence_session_map_t *
presence_session_map_new(void)
{
    presence_session_map_t *map = cq_alloc(sizeof *map);
    presence_list_init(&map->all);
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

struct presence_session *
presence_session_map_find(const presence_session_map_t *map, uint16_t edge, uint64_t number)
{
    struct cq_id key = presence_map_pair(edge, number);
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

static bool
is_full(const presence_session_map_t *map, const struct cq_id *user_id)
{
    const struct presence_user *user = presence_map_find(&map->users, user_id);
    return map->sessions.count >= PRESENCE_SESSIONS_MAX ||
           (user && user->session_count >= PRESENCE_USER_SESSIONS_MAX);
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
        s->number = info->number;
        presence_list_append(&s->user->sessions, &s->of_user);
        presence_list_append(&map->edges[info->edge], &s->of_edge);
        map->edge_counts[info->edge]++;
        struct cq_id key = presence_map_pair(info->edge, info->number);
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
    struct cq_id key = presence_map_pair(session->edge, session->number);
    (void)presence_map_take(&map->sessions, &key);
    presence_list_remove(&session->of_user);
    presence_list_remove(&session->of_edge);
    map->edge_counts[session->edge]--;
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
presence_session_map_remove_edge(presence_session_map_t *map,
                                 uint16_t edge,
                                 void (*fn)(void *ctx, const struct presence_gone *gone),
                                 void *ctx)
{
    struct presence_link *head = &map->edges[edge];
    while (!presence_list_is_empty(head)) {
        struct presence_gone gone;
        struct presence_session *s = PRESENCE_LIST_OF(head->next, struct presence_session, of_edge);
        if (presence_session_map_remove(map, s, &gone)) {
            fn(ctx, &gone);
        }
    }
}
