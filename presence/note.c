/* SPDX-License-Identifier: MPL-2.0
 * A session that comes is told who of its friends is online; then it is told of changes, at most
 * once in a tick: each user has a slice of the tick (by his id), in which all of his friends'
 * changes since the last time leave as one note. So a storm costs a note per session and tick,
 * however many friends flap how often.
 *
 * Notes have a budget (notes-per-s): what is over it waits, and grows no larger by waiting, as a
 * note is made from the state of the moment in which it leaves. Messages never wait for notes:
 * these are made at the end of a turn, a few at a time.
 */
#include "presence/note.h"

#include "common/wire/pack.h"

#include "presence/deliver.h"
#include "presence/lookup.h"

enum {
    BURST_PER_S = 50,      /* what may leave in one turn is this part of a second's budget … */
    BURST_MIN = 20,        /* … but at least so many */
    STATES_PER_TOKEN = 32, /* so many states cost as much as another session */
};

void
presence_note_due(presence_core_t *core, const struct cq_id *user_id)
{
    struct presence_user *user = presence_session_map_user(core->sessions, user_id);
    if (user) {
        presence_list_remove(&user->noted); /* perhaps from a slice */
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
    const struct cq_presence_state state = {*user, online,
                                            presence_not_after(time_unix_ms, cq_now_unix_ms())};
    cq_schema_write_array(&cq_presence_state_schema, b, &state);
}

/* What the user's sessions are due for. */
struct due {
    bool all, online, changes;
};

static struct due
look_at_sessions(const struct presence_user *user)
{
    struct due due = {false, false, false};
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        uint8_t note = PRESENCE_LIST_OF(l, struct presence_session, of_user)->note;
        due.all = due.all || note == PRESENCE_NOTE_ALL;
        due.online = due.online || note == PRESENCE_NOTE_ONLINE;
        due.changes = due.changes || note == PRESENCE_NOTE_NONE;
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

size_t
presence_note_send(presence_core_t *core,
                   const struct presence_user *user,
                   const struct cq_presence_states *states,
                   enum presence_note_to to)
{
    if (states->states.count == 0) {
        return 0;
    }
    cq_buf_t event = {0};
    cq_frame_push(&event, CQ_OP_PRESENCE_NOTE, &cq_presence_states_schema, states);
    presence_deliver_begin(core, (struct cq_view){event.data, event.size});
    for (struct presence_link *l = user->sessions.next; l != &user->sessions; l = l->next) {
        const struct presence_session *s = PRESENCE_LIST_OF(l, struct presence_session, of_user);
        bool is_due = s->note != PRESENCE_NOTE_NONE;
        if (to == PRESENCE_NOTE_TO_ALL || is_due == (to == PRESENCE_NOTE_TO_DUE)) {
            presence_deliver_add(core, s);
        }
    }
    size_t told = presence_deliver_end(core);
    *(to == PRESENCE_NOTE_TO_OTHERS ? &presence_stats.notes_total
                                    : &presence_stats.first_notes_total) += told;
    cq_buf_free(&event);
    return told;
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
gather_change(void *ctx, const struct cq_id *friend_id, const struct presence_watch_change *change)
{
    struct gather *g = ctx;
    presence_note_pack(&g->states, friend_id, change->online, change->time_unix_ms);
    g->count++;
}

/* Sends what was gathered, gives what that costs. */
static double
send_gathered(struct gather *g, const struct presence_user *user, enum presence_note_to to)
{
    const struct cq_presence_states states = {cq_list_of(&g->states, g->count)};
    size_t told = presence_note_send(g->core, user, &states, to);
    presence_stats.states_total += told * g->count;
    cq_buf_free(&g->states);
    return (double)told * (1 + (double)g->count / STATES_PER_TOKEN);
}

static double
tell_changes(presence_core_t *core, struct presence_user *user)
{
    struct gather g = {.core = core};
    presence_watch_each_change(core->watch, &user->id, user->heard, gather_change, &g);
    return send_gathered(&g, user, PRESENCE_NOTE_TO_OTHERS);
}

static double
tell_online(presence_core_t *core, struct presence_user *user)
{
    struct gather g = {.core = core};
    presence_watch_each(core->watch, &user->id, gather_online, &g);
    return send_gathered(&g, user, PRESENCE_NOTE_TO_DUE);
}

/* What it costs, in sessions told. */
static double
tell(presence_core_t *core, struct presence_user *user)
{
    struct due due = look_at_sessions(user);
    double cost = (double)presence_watch_count(core->watch, &user->id) / STATES_PER_TOKEN;
    if (due.all) {
        if (presence_lookup_note(core, &user->id) != 0) {
            presence_list_append(&core->noted, &user->noted); /* no room now: later */
            return cost;
        }
        cost += user->session_count;
    } else {
        cost += due.changes ? tell_changes(core, user) : 0;
        cost += due.online ? tell_online(core, user) : 0;
    }
    user->heard = presence_watch_change_number(core->watch);
    clear_due(user);
    return cost;
}

static void
refill(presence_core_t *core)
{
    uint64_t now_ms = cq_now_mono_ms();
    double per_s = (double)core->cfg->notes_per_s;
    double burst = per_s / BURST_PER_S > BURST_MIN ? per_s / BURST_PER_S : BURST_MIN;
    core->note_tokens += (double)(now_ms - core->note_tokens_mono_ms) * per_s / 1000;
    core->note_tokens = core->note_tokens > burst ? burst : core->note_tokens;
    core->note_tokens_mono_ms = now_ms;
}

bool
presence_note_pump(presence_core_t *core)
{
    if (!core->lease.ready || presence_list_is_empty(&core->noted)) {
        return false;
    }
    refill(core);
    while (core->note_tokens > 0 && !presence_redis_sync_is_busy(core->redis)) {
        struct presence_link *link = presence_list_pop(&core->noted);
        if (!link) {
            return false;
        }
        struct presence_user *user = PRESENCE_LIST_OF(link, struct presence_user, noted);
        /* If not, it is due again when the list comes. */
        if (presence_watch_is_known(core->watch, &user->id)) {
            core->note_tokens -= tell(core, user);
        }
        if (presence_list_has(&user->noted)) {
            return true;
        }
    }
    return true;
}

void
presence_note_slice(presence_core_t *core)
{
    core->slice = (core->slice + 1) % PRESENCE_DELTA_SLICES;
    presence_list_splice(&core->noted, &core->noted_at[core->slice]);
}

bool
presence_note_is_waiting(const presence_core_t *core)
{
    for (size_t i = 0; i < PRESENCE_DELTA_SLICES; i++) {
        if (!presence_list_is_empty(&core->noted_at[i])) {
            return true;
        }
    }
    return false;
}

static void
add_watcher(void *ctx, const struct cq_id *watcher)
{
    presence_core_t *core = ctx;
    struct presence_user *user = presence_session_map_user(core->sessions, watcher);
    if (user && !presence_list_has(&user->noted)) {
        presence_list_append(&core->noted_at[watcher->b[0] % PRESENCE_DELTA_SLICES], &user->noted);
    }
}

size_t
presence_note_change(void *ctx, const struct cq_id *user, bool online, uint64_t time_unix_ms)
{
    presence_core_t *core = ctx;
    const struct presence_watch_change change = {online, time_unix_ms};
    presence_stats.changes_total++;
    return presence_watch_change(core->watch, user, &change, add_watcher, core);
}
