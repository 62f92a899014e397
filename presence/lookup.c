/* SPDX-License-Identifier: MPL-2.0
 * A job goes through start() again and again until nothing is missing: not ready → waits in
 * `blocked`; list not known → waits in its user's group; friends offline and Redis up → asks Redis.
 * What it says is worked out at the very end, from the memory of that moment, so a note can never
 * overtake a change that was told while Redis was thinking.
 *
 * The bus repeats a request that is not answered within a second; (edge, rid) finds the job that is
 * working on it already.
 */
#include "presence/lookup.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "presence/note.h"
#include "presence/redis_value.h"

enum {
    JOBS_MAX = 16384,
    BYTES_MAX = 33554432,
    WAIT_MAX_MS = 5000, /* for presence to become ready */
    TRIES_MAX = 4,
    BORROWED_MAX = 1024,
    RESUME_MAX = 128, /* questions answered in one turn when presence becomes ready */
};

struct job {
    struct presence_link all;
    struct presence_link waiting; /* in blocked, or in a group */
    presence_core_t *core;
    bool is_note;
    bool is_forgotten; /* nobody waits for the answer */
    bool is_asking;    /* Redis has a question of it */
    bool is_renewed;   /* the list was asked for once more */
    uint8_t tries;
    int edge;
    struct cq_bus_from from;
    struct cq_id user;
    uint64_t born_mono_ms;
    size_t bytes;
    struct cq_id *friends; /* asked for; NULL: all */
    size_t friend_count;
    struct cq_id
        *asked; /* those whose last-seen time Redis was asked for, in the order of the answer */
    uint64_t *seen;
    size_t asked_count;
};

struct group {
    struct cq_id user;
    struct presence_link jobs;
};

struct presence_lookup {
    struct presence_link all;
    struct presence_link blocked;
    struct presence_link resumed; /* were blocked, go on in the turns to come */
    presence_map_t groups;        /* user → struct group */
    presence_map_t by_rid;        /* (edge, rid) → job */
    size_t count, bytes;
    struct cq_id borrowed[BORROWED_MAX]; /* lists wanted for a question only */
    size_t borrowed_count;
};

struct presence_lookup *
presence_lookup_new(void)
{
    struct presence_lookup *l = cq_alloc(sizeof *l);
    presence_list_init(&l->all);
    presence_list_init(&l->blocked);
    presence_list_init(&l->resumed);
    return l;
}

/* ---- jobs ---- */

static struct job *
new_job(presence_core_t *core, const struct cq_id *user, size_t friend_count)
{
    struct presence_lookup *l = core->lookup;
    size_t bytes = sizeof(struct job) + friend_count * sizeof(struct cq_id);
    if (l->count >= JOBS_MAX || l->bytes + bytes > BYTES_MAX) {
        return NULL;
    }
    struct job *job = cq_alloc(sizeof *job);
    job->core = core;
    job->user = *user;
    job->edge = -1;
    job->born_mono_ms = cq_now_mono_ms();
    job->bytes = bytes;
    job->friend_count = friend_count;
    job->friends = friend_count ? cq_alloc(friend_count * sizeof *job->friends) : NULL;
    presence_list_append(&l->all, &job->all);
    l->count++;
    l->bytes += bytes;
    return job;
}

static void
free_answers(struct job *job)
{
    free(job->asked);
    free(job->seen);
    job->asked = NULL;
    job->seen = NULL;
    job->asked_count = 0;
}

static void
forget_rid(struct presence_lookup *l, struct job *job)
{
    if (!job->is_note && !job->is_forgotten) {
        struct cq_id key = presence_map_pair((uint64_t)job->edge, job->from.rid);
        (void)presence_map_take(&l->by_rid, &key);
    }
    job->is_forgotten = true;
}

static void
free_job(struct presence_lookup *l, struct job *job)
{
    forget_rid(l, job);
    presence_list_remove(&job->all);
    presence_list_remove(&job->waiting);
    l->count--;
    l->bytes -= job->bytes;
    free_answers(job);
    free(job->friends);
    free(job);
}

void
presence_lookup_return(presence_core_t *core, const struct cq_id *user)
{
    struct presence_lookup *l = core->lookup;
    if (presence_core_is_visible(core, user)) {
        return;
    }
    if (l->borrowed_count < BORROWED_MAX) {
        l->borrowed[l->borrowed_count++] = *user;
    } else if (!presence_map_find(&l->groups, user)) {
        presence_watch_release(core->watch, user);
    } /* else those who wait for it return it again */
}

static void
fail_job(struct job *job, int err)
{
    presence_core_t *core = job->core;
    if (!job->is_note && !job->is_forgotten) {
        cq_bus_reply_err(core->bus, &job->from, err, 0);
    }
    presence_lookup_return(core, &job->user);
    free_job(core->lookup, job);
}

/* ---- answering ---- */

struct answer {
    struct job *job;
    cq_buf_t states;
    size_t count;
    size_t next_asked;
};

static void
add_state(void *ctx, const struct cq_id *friend_id)
{
    struct answer *a = ctx;
    const struct job *job = a->job;
    uint64_t time_unix_ms = 0;
    /* asked is a part of the friends in the same order; one that was dropped from the list
     * meanwhile is passed over. */
    while (!job->friends && a->next_asked < job->asked_count &&
           cq_id_cmp(&job->asked[a->next_asked], friend_id) < 0) {
        a->next_asked++;
    }
    if (a->next_asked < job->asked_count && cq_id_eq(&job->asked[a->next_asked], friend_id)) {
        time_unix_ms = job->seen[a->next_asked++];
    }
    bool online = presence_core_state(job->core, friend_id, &time_unix_ms);
    presence_note_pack(&a->states, friend_id, online, time_unix_ms);
    a->count++;
}

static void
each_friend(const struct job *job, presence_watch_fn *fn, void *ctx)
{
    if (!job->friends) {
        presence_watch_each(job->core->watch, &job->user, fn, ctx);
    }
    for (size_t i = 0; job->friends && i < job->friend_count; i++) {
        fn(ctx, &job->friends[i]);
    }
}

static void
finish(struct job *job)
{
    presence_core_t *core = job->core;
    struct answer a = {.job = job};
    each_friend(job, add_state, &a);
    const struct cq_presence_states states = {cq_list_of(&a.states, a.count)};
    if (job->is_note) {
        const struct presence_user *user = presence_session_map_user(core->sessions, &job->user);
        if (user) {
            (void)presence_note_send(core, user, &states, PRESENCE_NOTE_TO_ALL);
        }
    } else if (!job->is_forgotten) {
        cq_bus_reply(core->bus, &job->from, &cq_presence_states_schema, &states);
    }
    cq_buf_free(&a.states);
    presence_lookup_return(core, &job->user);
    free_job(core->lookup, job);
}

static void
add_offline(void *ctx, const struct cq_id *friend_id)
{
    struct job *job = ctx;
    if (!presence_core_is_visible(job->core, friend_id)) {
        job->asked[job->asked_count++] = *friend_id;
    }
}

static void start(struct job *job);

static void
on_seen_times(void *ctx, const presence_redis_reply_t *reply)
{
    struct job *job = ctx;
    job->is_asking = false;
    for (size_t i = 0; i < job->asked_count && i < presence_redis_link_count(reply); i++) {
        struct cq_view text = presence_redis_link_text(presence_redis_link_at(reply, i));
        (void)presence_redis_value_number(text, &job->seen[i]);
    }
    start(job);
}

/* True if Redis was asked and the job goes on when it answers. */
static bool
ask_redis(struct job *job)
{
    size_t max =
        job->friends ? job->friend_count : presence_watch_count(job->core->watch, &job->user);
    job->asked = cq_alloc(max * sizeof *job->asked);
    job->seen = cq_alloc(max * sizeof *job->seen);
    each_friend(job, add_offline, job);
    if (presence_redis_sync_ask_seen(job->core->redis, job->asked, job->asked_count, on_seen_times,
                                     job) != 0) {
        return false;
    }
    job->is_asking = true;
    return true;
}

static bool
may_see_all(const struct job *job)
{
    for (size_t i = 0; job->friends && i < job->friend_count; i++) {
        if (!presence_watch_sees(job->core->watch, &job->user, &job->friends[i])) {
            return false;
        }
    }
    return true;
}

static void
wait_for_list(struct job *job)
{
    struct presence_lookup *l = job->core->lookup;
    struct group *group = presence_map_find(&l->groups, &job->user);
    if (!group) {
        group = cq_alloc(sizeof *group);
        group->user = job->user;
        presence_list_init(&group->jobs);
        presence_map_put(&l->groups, &job->user, group);
    }
    presence_list_append(&group->jobs, &job->waiting);
}

/* The store's word of a new friend may be on its way here, behind the question: once, the list is
 * asked for again. */
static bool
look_again(struct job *job)
{
    if (job->is_renewed) {
        return false;
    }
    job->is_renewed = true;
    presence_watch_renew(job->core->watch, &job->user);
    wait_for_list(job);
    return true;
}

static void
start(struct job *job)
{
    presence_core_t *core = job->core;
    /* A list that is not known (any more) brings a new note when it comes. */
    bool is_void = job->is_note
                       ? core->lease.ready && !presence_watch_is_known(core->watch, &job->user)
                       : job->is_forgotten;
    if (is_void) {
        free_job(core->lookup, job);
    } else if (!core->lease.ready) {
        presence_list_append(&core->lookup->blocked, &job->waiting);
    } else if (!presence_watch_want(core->watch, &job->user)) {
        if (++job->tries > TRIES_MAX) {
            fail_job(job, -CQ_E_UNAVAILABLE);
        } else {
            free_answers(job);
            wait_for_list(job);
        }
    } else if (!may_see_all(job)) {
        if (!look_again(job)) {
            fail_job(job, -CQ_E_NOT_FOUND);
        }
    } else if (job->asked || !ask_redis(job)) {
        finish(job);
    }
}

/* ---- events ---- */

/* Takes a group apart; its jobs are in *jobs then. */
static bool
take_group(struct presence_lookup *l, const struct cq_id *user, struct presence_link *jobs)
{
    struct group *group = presence_map_take(&l->groups, user);
    presence_list_init(jobs);
    if (!group) {
        return false;
    }
    struct presence_link *link;
    while ((link = presence_list_pop(&group->jobs))) {
        presence_list_append(jobs, link);
    }
    free(group);
    return true;
}

void
presence_lookup_go_on(presence_core_t *core, const struct cq_id *user)
{
    struct presence_link jobs;
    struct presence_link *link;
    (void)take_group(core->lookup, user, &jobs);
    while ((link = presence_list_pop(&jobs))) {
        start(PRESENCE_LIST_OF(link, struct job, waiting));
    }
}

void
presence_lookup_give_up(presence_core_t *core, const struct cq_id *user)
{
    struct presence_link jobs;
    struct presence_link *link;
    (void)take_group(core->lookup, user, &jobs);
    while ((link = presence_list_pop(&jobs))) {
        fail_job(PRESENCE_LIST_OF(link, struct job, waiting), -CQ_E_UNAVAILABLE);
    }
}

void
presence_lookup_ready(presence_core_t *core)
{
    presence_list_splice(&core->lookup->resumed, &core->lookup->blocked);
}

bool
presence_lookup_resume(presence_core_t *core)
{
    struct presence_link *resumed = &core->lookup->resumed;
    for (int n = 0; n < RESUME_MAX && !presence_list_is_empty(resumed); n++) {
        start(PRESENCE_LIST_OF(presence_list_pop(resumed), struct job, waiting));
    }
    return !presence_list_is_empty(resumed);
}

void
presence_lookup_forget(presence_core_t *core, int edge)
{
    struct presence_lookup *l = core->lookup;
    for (struct presence_link *link = l->all.next, *next; link != &l->all; link = next) {
        next = link->next;
        struct job *job = PRESENCE_LIST_OF(link, struct job, all);
        if (!job->is_note && (edge < 0 || job->edge == edge)) {
            /* Its group may be empty then; it goes when the list comes. */
            forget_rid(l, job);
        }
    }
}

/* Has the oldest of those who wait for presence to become ready waited too long? */
static bool
is_overdue(const struct presence_lookup *l, uint64_t now_ms)
{
    struct presence_link *oldest = l->blocked.next;
    return oldest != &l->blocked &&
           now_ms - PRESENCE_LIST_OF(oldest, struct job, waiting)->born_mono_ms >= WAIT_MAX_MS;
}

void
presence_lookup_tidy(presence_core_t *core)
{
    struct presence_lookup *l = core->lookup;
    uint64_t now_ms = cq_now_mono_ms();
    struct presence_link *link;
    while (is_overdue(l, now_ms) && (link = presence_list_pop(&l->blocked))) {
        fail_job(PRESENCE_LIST_OF(link, struct job, waiting), -CQ_E_UNAVAILABLE);
    }
    size_t count = l->borrowed_count;
    l->borrowed_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (presence_map_find(&l->groups, &l->borrowed[i]) ||
            presence_watch_is_in_doubt(core->watch, &l->borrowed[i])) {
            l->borrowed[l->borrowed_count++] = l->borrowed[i]; /* waited for, again */
        } else if (!presence_core_is_visible(core, &l->borrowed[i])) {
            presence_watch_release(core->watch, &l->borrowed[i]);
        }
    }
    presence_stats.lookups_pending = l->count;
}

int
presence_lookup_note(presence_core_t *core, const struct cq_id *user)
{
    struct job *job = new_job(core, user, 0);
    if (!job) {
        return -CQ_E_BUSY;
    }
    job->is_note = true;
    start(job);
    return 0;
}

static int
take_question(presence_core_t *core,
              const struct cq_bus_from *from,
              const struct cq_lookup *in,
              int edge)
{
    struct cq_id key = presence_map_pair((uint64_t)edge, from->rid);
    if (presence_map_find(&core->lookup->by_rid, &key)) {
        return 0; /* repeated */
    }
    struct job *job = new_job(core, &in->user, in->users.count);
    if (!job) {
        presence_stats.lookups_refused_total++;
        return -CQ_E_BUSY;
    }
    job->edge = edge;
    job->from = *from;
    presence_map_put(&core->lookup->by_rid, &key, job);
    cq_reader_t r = cq_list_reader(&in->users);
    for (size_t i = 0; i < in->users.count; i++) {
        job->friends[i] = cq_read_id(&r);
    }
    if (r.err) {
        free_job(core->lookup, job);
        return -CQ_E_BAD_ARG;
    }
    start(job);
    return 0;
}

void
presence_on_lookup(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    presence_core_t *core = ctx;
    struct cq_lookup in;
    if (from->rid == 0) {
        return;
    }
    presence_stats.lookups_total++;
    int edge = presence_lease_find(&core->lease, from->src);
    int rc = cq_schema_read(&cq_lookup_schema, fields, count, &in);
    if (rc == 0) {
        rc = edge < 0 ? -CQ_E_UNAVAILABLE : take_question(core, from, &in, edge);
    } else {
        presence_stats.bad_items_total++;
    }
    if (rc) {
        cq_bus_reply_err(core->bus, from, rc, 0);
    }
}

static void
free_group(void *value)
{
    free(value);
}

void
presence_lookup_destroy(struct presence_lookup **l)
{
    if (*l) {
        struct presence_link *link;
        while ((link = presence_list_pop(&(*l)->all))) {
            free_job(*l, PRESENCE_LIST_OF(link, struct job, all));
        }
        presence_map_clear(&(*l)->groups, free_group);
        presence_map_clear(&(*l)->by_rid, NULL);
        free(*l);
        *l = NULL;
    }
}
