/* SPDX-License-Identifier: MPL-2.0
 * One node for each user who watches or is watched. A pair is two half links, one in each node,
 * that know each other's place, so that a watcher's links are removed in O(1) each without
 * searching the watched user's side. Nodes are named by their index in a table, which makes a half
 * link 8 bytes: a user with 20 friends has 40 of them.
 */
#include "presence/watch.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "presence/list.h"
#include "presence/map.h"

enum state {
    STATE_NONE,     /* not wanted */
    STATE_QUEUED,   /* in the fetch queue, or failed and in the other until retry */
    STATE_FETCHING, /* the store was asked */
    STATE_KNOWN,
};

struct half_link {
    uint32_t peer; /* index of the other node */
    uint32_t back; /* the other half's index in it */
};

struct node {
    struct cq_id id;
    struct half_link *out; /* whom it sees, ascending by id */
    struct half_link *in;  /* who sees it */
    uint32_t index;
    uint32_t out_count, in_count, in_room;
    uint8_t state;
    uint8_t own;    /* enum presence_watch_seen: by its own list; UNKNOWN if not wanted */
    uint8_t listed; /* the same by the newest list of somebody who sees it */
    bool wanted;
    bool doubt;  /* own is being asked for anew */
    bool again;  /* renewed while fetching */
    bool online; /* the last change */
    uint64_t change_time_unix_ms;
    uint64_t changed; /* its number, 0: none */
    struct presence_link queue;
};

struct place {
    struct node *node;
};

struct presence_watch {
    presence_map_t nodes;
    struct place *table; /* by index */
    uint32_t *free;      /* indices not used, those under table_room */
    uint32_t table_room, free_count;
    size_t links;
    uint64_t change_number; /* of the last change of anybody */
    struct presence_link queued;
    struct presence_link failed;
};

presence_watch_t *
presence_watch_new(void)
{
    presence_watch_t *w = cq_alloc(sizeof *w);
    presence_list_init(&w->queued);
    presence_list_init(&w->failed);
    return w;
}

static void
free_node(void *value)
{
    struct node *node = value;
    free(node->out);
    free(node->in);
    free(node);
}

void
presence_watch_destroy(presence_watch_t **w)
{
    if (*w) {
        presence_map_clear(&(*w)->nodes, free_node);
        free((*w)->table);
        free((*w)->free);
        free(*w);
        *w = NULL;
    }
}

static void *
grow(void *array, size_t count, size_t size)
{
    void *grown = realloc(array, count * size);
    if (!grown) {
        abort();
    }
    return grown;
}

static void
add_to_table(presence_watch_t *w, struct node *node)
{
    if (w->free_count == 0) {
        uint32_t room = w->table_room ? w->table_room * 2 : 64;
        w->table = grow(w->table, room, sizeof *w->table);
        w->free = grow(w->free, room, sizeof *w->free);
        for (uint32_t i = room; i > w->table_room; i--) {
            w->free[w->free_count++] = i - 1;
        }
        w->table_room = room;
    }
    node->index = w->free[--w->free_count];
    w->table[node->index].node = node;
}

static struct node *
node_for(presence_watch_t *w, const struct cq_id *id)
{
    struct node *node = presence_map_find(&w->nodes, id);
    if (!node) {
        node = cq_alloc(sizeof *node);
        node->id = *id;
        add_to_table(w, node);
        presence_map_put(&w->nodes, id, node);
    }
    return node;
}

static void
drop_if_idle(presence_watch_t *w, struct node *node)
{
    if (!node->wanted && node->in_count == 0 && node->out_count == 0 &&
        node->state != STATE_FETCHING) {
        presence_list_remove(&node->queue);
        (void)presence_map_take(&w->nodes, &node->id);
        w->free[w->free_count++] = node->index;
        free_node(node);
    }
}

static void
remove_in(presence_watch_t *w, struct node *node, uint32_t i)
{
    struct half_link moved = node->in[--node->in_count];
    if (i != node->in_count) {
        node->in[i] = moved;
        w->table[moved.peer].node->out[moved.back].back = i;
    }
    if (node->in_count == 0) {
        free(node->in);
        node->in = NULL;
        node->in_room = 0;
    }
}

static void
cut_links(presence_watch_t *w, struct node *node)
{
    for (uint32_t i = 0; i < node->out_count; i++) {
        struct node *peer = w->table[node->out[i].peer].node;
        remove_in(w, peer, node->out[i].back);
        if (peer != node) {
            drop_if_idle(w, peer);
        }
    }
    w->links -= node->out_count;
    free(node->out);
    node->out = NULL;
    node->out_count = 0;
}

static uint32_t
add_in(struct node *node, struct half_link half)
{
    if (node->in_count == node->in_room) {
        node->in_room += node->in_room / 4 + 4;
        node->in = grow(node->in, node->in_room, sizeof *node->in);
    }
    node->in[node->in_count] = half;
    return node->in_count++;
}

static void
enqueue(presence_watch_t *w, struct node *node)
{
    presence_list_remove(&node->queue);
    node->state = STATE_QUEUED;
    presence_list_append(&w->queued, &node->queue);
}

static void
wait_for_retry(presence_watch_t *w, struct node *node)
{
    node->state = STATE_QUEUED;
    presence_list_append(&w->failed, &node->queue);
}

bool
presence_watch_want(presence_watch_t *w, const struct cq_id *user)
{
    struct node *node = node_for(w, user);
    node->wanted = true;
    if (node->state == STATE_NONE) {
        enqueue(w, node);
    }
    return node->state == STATE_KNOWN;
}

void
presence_watch_release(presence_watch_t *w, const struct cq_id *user)
{
    struct node *node = presence_map_find(&w->nodes, user);
    if (node) {
        node->wanted = false;
        if (node->own != PRESENCE_WATCH_UNKNOWN) {
            node->listed = node->doubt ? PRESENCE_WATCH_HIDES : node->own;
            node->own = PRESENCE_WATCH_UNKNOWN;
        }
        node->doubt = false;
        cut_links(w, node);
        if (node->state != STATE_FETCHING) {
            presence_list_remove(&node->queue);
            node->state = STATE_NONE;
        }
        drop_if_idle(w, node);
    }
}

void
presence_watch_renew(presence_watch_t *w, const struct cq_id *user)
{
    struct node *node = presence_map_find(&w->nodes, user);
    if (!node) {
        return;
    }
    cut_links(w, node);
    if (node->state == STATE_FETCHING) {
        node->again = true;
    } else if (node->wanted) {
        enqueue(w, node);
    }
}

bool
presence_watch_is_known(const presence_watch_t *w, const struct cq_id *user)
{
    const struct node *node = presence_map_find(&w->nodes, user);
    return node && node->state == STATE_KNOWN;
}

enum presence_watch_seen
presence_watch_own_seen(const presence_watch_t *w, const struct cq_id *user)
{
    const struct node *node = presence_map_find(&w->nodes, user);
    return node ? (enum presence_watch_seen)node->own : PRESENCE_WATCH_UNKNOWN;
}

enum presence_watch_seen
presence_watch_sure_seen(const presence_watch_t *w, const struct cq_id *user)
{
    const struct node *node = presence_map_find(&w->nodes, user);
    return node && !node->doubt ? (enum presence_watch_seen)node->own : PRESENCE_WATCH_UNKNOWN;
}

void
presence_watch_doubt(presence_watch_t *w, const struct cq_id *user)
{
    struct node *node = presence_map_find(&w->nodes, user);
    if (node && node->wanted) {
        node->doubt = true;
    }
}

bool
presence_watch_is_in_doubt(const presence_watch_t *w, const struct cq_id *user)
{
    const struct node *node = presence_map_find(&w->nodes, user);
    return node && node->doubt;
}

static bool
hides(const struct node *node)
{
    return node->doubt || (node->own ? node->own : node->listed) == PRESENCE_WATCH_HIDES;
}

bool
presence_watch_hides(const presence_watch_t *w, const struct cq_id *user)
{
    const struct node *node = presence_map_find(&w->nodes, user);
    return node && hides(node);
}

bool
presence_watch_is_waiting(const presence_watch_t *w)
{
    return !presence_list_is_empty(&w->queued);
}

bool
presence_watch_next(presence_watch_t *w, struct cq_id *user)
{
    struct presence_link *link = presence_list_pop(&w->queued);
    if (!link) {
        return false;
    }
    struct node *node = PRESENCE_LIST_OF(link, struct node, queue);
    node->state = STATE_FETCHING;
    node->again = false;
    *user = node->id;
    return true;
}

static int
compare_ids(const void *a, const void *b)
{
    return cq_id_cmp(a, b);
}

static bool
is_hidden(const struct presence_watch_list *list, const struct cq_id *id)
{
    return list->hidden_count &&
           bsearch(id, list->hidden, list->hidden_count, sizeof *id, compare_ids);
}

static void
link_all(presence_watch_t *w, struct node *node, const struct presence_watch_list *list)
{
    const struct cq_id *ids = list->ids;
    node->out = cq_alloc(list->count * sizeof *node->out);
    for (size_t i = 0; i < list->count; i++) {
        bool is_double = i > 0 && cq_id_eq(&ids[i], &ids[i - 1]);
        if (is_double || cq_id_is_none(&ids[i]) || cq_id_eq(&ids[i], &node->id)) {
            continue;
        }
        struct node *peer = node_for(w, &ids[i]);
        peer->listed = is_hidden(list, &ids[i]) ? PRESENCE_WATCH_HIDES : PRESENCE_WATCH_SHOWS;
        uint32_t back = add_in(peer, (struct half_link){node->index, node->out_count});
        node->out[node->out_count++] = (struct half_link){peer->index, back};
    }
    w->links += node->out_count;
}

static void
sort(struct cq_id *ids, size_t count)
{
    if (count > 1) {
        qsort(ids, count, sizeof *ids, compare_ids);
    }
}

bool
presence_watch_set(presence_watch_t *w,
                   const struct cq_id *user,
                   const struct presence_watch_list *list)
{
    struct node *node = presence_map_find(&w->nodes, user);
    if (!node || node->state != STATE_FETCHING) {
        return false;
    }
    node->state = STATE_NONE;
    if (!node->wanted) {
        drop_if_idle(w, node);
        return false;
    }
    if (node->again) {
        enqueue(w, node);
        return false;
    }
    node->doubt = false;
    node->own = list->hides ? PRESENCE_WATCH_HIDES : PRESENCE_WATCH_SHOWS;
    if (w->links + list->count > PRESENCE_WATCH_LINKS_MAX) {
        wait_for_retry(w, node);
        return false;
    }
    sort(list->ids, list->count);
    sort(list->hidden, list->hidden_count);
    link_all(w, node, list);
    node->state = STATE_KNOWN;
    return true;
}

void
presence_watch_fail(presence_watch_t *w, const struct cq_id *user)
{
    struct node *node = presence_map_find(&w->nodes, user);
    if (node && node->state == STATE_FETCHING) {
        node->state = STATE_NONE;
        if (node->wanted) {
            wait_for_retry(w, node);
        }
        drop_if_idle(w, node);
    }
}

void
presence_watch_retry(presence_watch_t *w)
{
    presence_list_splice(&w->queued, &w->failed);
}

bool
presence_watch_sees(const presence_watch_t *w,
                    const struct cq_id *watcher,
                    const struct cq_id *watched)
{
    const struct node *node = presence_map_find(&w->nodes, watcher);
    uint32_t low = 0;
    uint32_t high = node ? node->out_count : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = cq_id_cmp(&w->table[node->out[middle].peer].node->id, watched);
        if (order == 0) {
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

size_t
presence_watch_count(const presence_watch_t *w, const struct cq_id *watcher)
{
    const struct node *node = presence_map_find(&w->nodes, watcher);
    return node ? node->out_count : 0;
}

void
presence_watch_each(const presence_watch_t *w,
                    const struct cq_id *watcher,
                    presence_watch_fn *fn,
                    void *ctx)
{
    const struct node *node = presence_map_find(&w->nodes, watcher);
    for (uint32_t i = 0; node && i < node->out_count; i++) {
        fn(ctx, &w->table[node->out[i].peer].node->id);
    }
}

size_t
presence_watch_change(presence_watch_t *w,
                      const struct cq_id *watched,
                      const struct presence_watch_change *change,
                      presence_watch_fn *fn,
                      void *ctx)
{
    struct node *node = presence_map_find(&w->nodes, watched);
    if (!node || node->in_count == 0) {
        return 0;
    }
    node->changed = ++w->change_number;
    node->online = change->online;
    node->change_time_unix_ms = change->time_unix_ms;
    for (uint32_t i = 0; i < node->in_count; i++) {
        fn(ctx, &w->table[node->in[i].peer].node->id);
    }
    return node->in_count;
}

uint64_t
presence_watch_change_number(const presence_watch_t *w)
{
    return w->change_number;
}

void
presence_watch_each_change(const presence_watch_t *w,
                           const struct cq_id *watcher,
                           uint64_t after,
                           presence_watch_change_fn *fn,
                           void *ctx)
{
    const struct node *node = presence_map_find(&w->nodes, watcher);
    for (uint32_t i = 0; node && i < node->out_count; i++) {
        const struct node *peer = w->table[node->out[i].peer].node;
        if (peer->changed > after) {
            const struct presence_watch_change change = {
                peer->online, hides(peer) ? 0 : peer->change_time_unix_ms};
            fn(ctx, &peer->id, &change);
        }
    }
}

size_t
presence_watch_links(const presence_watch_t *w)
{
    return w->links;
}
