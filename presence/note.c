/* SPDX-License-Identifier: MPL-2.0
 * A change is one DELIVER item for each edge, with the sessions of all who see the user: six times
 * fewer bytes than one item for each watcher, and all items of a step leave as one envelope for
 * each edge.
 */
#include "presence/note.h"

#include "common/wire/pack.h"

#include "presence/deliver.h"
#include "presence/lookup.h"

enum {
    TURN_COST_MAX = 20000
}; /* friends looked at for first notes in one turn */

void
presence_note_due(presence_core_t *core, const struct cq_id *user_id)
{
    struct presence_user *user = presence_session_map_user(core->sessions, user_id);
    if (user && !presence_list_has(&user->noted)) {
        presence_list_append(&core->noted, &user->noted);
    }
}

void
presence_note_renew(presence_core_t *core, const struct cq_id *user_id)
{
    struct presence_user *user = presence_session_map_user(core->sessions, user_id);
    if (user) {
        for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
            PRESENCE_LIST_OF(l, struct presence_session, of_user)->note = PRESENCE_NOTE_ALL;
        }
    }
    presence_watch_renew(core->watch, user_id);
}

void
presence_note_pack(cq_buf_t *b, const struct cq_id *user, bool online, uint64_t time_unix_ms)
{
    const struct cq_presence_state state = {*user, online, time_unix_ms};
    cq_schema_write_array(&cq_presence_state_schema, b, &state);
}

/* What the user's sessions are due for, at most. */
static enum presence_note_due
most_due(const struct presence_user *user)
{
    enum presence_note_due due = PRESENCE_NOTE_NONE;
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        uint8_t note = PRESENCE_LIST_OF(l, struct presence_session, of_user)->note;
        due = note > due ? (enum presence_note_due)note : due;
    }
    return due;
}

static void
clear_due(struct presence_user *user)
{
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        PRESENCE_LIST_OF(l, struct presence_session, of_user)->note = PRESENCE_NOTE_NONE;
    }
}

void
presence_note_send(presence_core_t *core,
                   const struct presence_user *user,
                   const struct cq_presence_states *states,
                   bool due_only)
{
    if (states->states.count == 0) {
        return;
    }
    cq_buf_t event = {0};
    cq_frame_push(&event, CQ_OP_PRESENCE_NOTE, &cq_presence_states_schema, states);
    presence_deliver_begin(core, (struct cq_view){event.data, event.size});
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        const struct presence_session *s = PRESENCE_LIST_OF(l, struct presence_session, of_user);
        if (!due_only || s->note != PRESENCE_NOTE_NONE) {
            presence_deliver_add(core, s);
        }
    }
    presence_stats.first_notes_total += presence_deliver_end(core);
    cq_buf_free(&event);
}

struct gather {
    presence_core_t *core;
    cq_buf_t states;
    size_t count;
};

static void
gather_online(void *ctx, const struct cq_id *friend_id)
{
    struct gather *g = ctx;
    uint64_t since_unix_ms = 0;
    if (presence_core_state(g->core, friend_id, &since_unix_ms)) {
        presence_note_pack(&g->states, friend_id, true, since_unix_ms);
        g->count++;
    }
}

static void
tell_first(presence_core_t *core, struct presence_user *user)
{
    enum presence_note_due due = most_due(user);
    if (due == PRESENCE_NOTE_ALL) {
        if (presence_lookup_note(core, &user->id) != 0) {
            presence_list_append(&core->noted, &user->noted); /* no room now: later */
            return;
        }
    } else if (due == PRESENCE_NOTE_ONLINE) {
        struct gather g = {.core = core};
        presence_watch_each(core->watch, &user->id, gather_online, &g);
        const struct cq_presence_states states = {cq_list_of(&g.states, g.count)};
        presence_note_send(core, user, &states, true);
        cq_buf_free(&g.states);
    }
    clear_due(user);
}

bool
presence_note_pump(presence_core_t *core)
{
    size_t cost = 0;
    while (core->lease.ready && cost < TURN_COST_MAX) {
        if (presence_redis_sync_is_busy(core->redis)) {
            return false; /* its answers wake the loop */
        }
        struct presence_link *link = presence_list_pop(&core->noted);
        if (!link) {
            return false;
        }
        struct presence_user *user = PRESENCE_LIST_OF(link, struct presence_user, noted);
        cost += 1 + presence_watch_count(core->watch, &user->id);
        /* If not, it is due again when the list comes. */
        if (presence_watch_is_known(core->watch, &user->id)) {
            tell_first(core, user);
        }
        if (presence_list_has(&user->noted)) {
            return true;
        }
    }
    return core->lease.ready && !presence_list_is_empty(&core->noted);
}

static void
add_watcher(void *ctx, const struct cq_id *watcher)
{
    presence_core_t *core = ctx;
    const struct presence_user *user = presence_session_map_user(core->sessions, watcher);
    if (user) {
        for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
            presence_deliver_add(core, PRESENCE_LIST_OF(l, struct presence_session, of_user));
        }
    }
}

size_t
presence_note_change(void *ctx, const struct cq_id *user, bool online, uint64_t time_unix_ms)
{
    presence_core_t *core = ctx;
    cq_buf_t state = {0};
    cq_buf_t event = {0};
    bool hides = presence_watch_hides(core->watch, user);
    presence_note_pack(&state, user, online, hides ? 0 : time_unix_ms);
    const struct cq_presence_states states = {cq_list_of(&state, 1)};
    cq_frame_push(&event, CQ_OP_PRESENCE_NOTE, &cq_presence_states_schema, &states);
    presence_deliver_begin(core, (struct cq_view){event.data, event.size});
    presence_watch_each_watcher(core->watch, user, add_watcher, core);
    size_t told = presence_deliver_end(core);
    presence_stats.notes_total += told;
    cq_buf_free(&state);
    cq_buf_free(&event);
    return told;
}
