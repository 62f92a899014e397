/* SPDX-License-Identifier: MPL-2.0
 * Order matters and is Redis' own (one connection, in order): a user who left is written before the
 * same user's coming again, because left ones are sent first and a user leaves the list of those to
 * be written when the last session ends.
 *
 * The sentinel key is set before anything is written again, so a flush at any moment takes it along
 * and is seen by the next look.
 */
#include "presence/redis_sync.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "presence/redis_trouble.h"
#include "presence/redis_value.h"
#include "presence/stats.h"

enum {
    OUTSTANDING_MAX = 4096,
    RESERVED = 64,    /* places in the pipeline that writing leaves to questions */
    TURN_MAX = 1024,  /* users written in one turn */
    LEFT_MAX = 65536, /* users who left, waiting to be written */
    REFRESH_MS = 60000,
    LOOK_MS = 1000, /* how often the sentinel is read */
    WAIT_LOOKS_MAX = 30,
    SWEEP_COUNT = 500, /* hint for SCAN */
    SWEEP_PAGE_MAX = 4096,
};

/* What Redis has to be told of somebody beside the online key: the last word only, however often it
 * changed while Redis was away. Kept until Redis has said yes. */
struct left {
    presence_redis_sync_t *sync;
    struct cq_id user;
    struct presence_link link; /* in the list: waits to be written */
    uint64_t seen_unix_ms;     /* 0: not to be set */
    bool forget_seen;
    bool is_gone;        /* the online key is to be deleted */
    bool is_again;       /* changed since it was sent, or failed */
    unsigned unanswered; /* commands */
};

/* Steps back from what failed: lets so many looks pass, twice as many each time, until there were
 * many good ones. */
struct back_off {
    unsigned wait, next, good;
};

struct presence_redis_sync {
    struct presence_redis_sync_cfg cfg;
    presence_redis_link_t *link;
    cq_timer_t *look;
    bool is_looking; /* the sentinel was asked for, or set to see whether that works */
    /* Redis refuses to be written to (full, a replica, …): nothing is, until the sentinel can be
     * set; then everything. */
    bool is_refusing;
    struct back_off refused;      /* after a refusal */
    struct back_off stolen;       /* after somebody else's sentinel was found */
    struct presence_link rewrite; /* cursor: all users are being written */
    char incarnation[17];
    char ttl[21];
    uint64_t refresh_ms;        /* REFRESH_MS, or less if keys live shorter */
    struct presence_link dirty; /* of struct presence_user.dirty */
    presence_map_t left;        /* user → struct left */
    struct presence_link lefts; /* the same, oldest first */
    bool is_sweep_owed;         /* some who left were dropped: a sweep will find them */
    bool is_sweeping;           /* from its start until the last page is done */
    bool is_step_asked;         /* its SCAN or MGET is under way */
    uint64_t cursor;
    struct cq_id *page; /* users of the sweep's page whose values were asked for */
    size_t page_count;
};

/* ---- writing ---- */

void
presence_redis_sync_dirty(presence_redis_sync_t *s, struct presence_user *user)
{
    if (!presence_list_has(&user->dirty)) {
        presence_list_append(&s->dirty, &user->dirty);
    }
}

void
presence_redis_sync_seen(presence_redis_sync_t *s, struct presence_user *user)
{
    if (cq_now_mono_ms() - user->written_mono_ms >= s->refresh_ms) {
        presence_redis_sync_dirty(s, user);
    }
}

static void
free_left(presence_redis_sync_t *s, struct left *left)
{
    (void)presence_map_take(&s->left, &left->user);
    presence_list_remove(&left->link);
    free(left);
}

static struct left *
left_for(presence_redis_sync_t *s, const struct cq_id *user)
{
    struct left *left = presence_map_find(&s->left, user);
    if (left) {
        left->is_again = true;
        return left;
    }
    if (s->left.count >= LEFT_MAX && !presence_list_is_empty(&s->lefts)) {
        free_left(s, PRESENCE_LIST_OF(s->lefts.next, struct left, link));
        s->is_sweep_owed = true;
        presence_stats.redis_left_dropped_total++;
    }
    left = cq_alloc(sizeof *left);
    left->sync = s;
    left->user = *user;
    presence_map_put(&s->left, user, left);
    presence_list_append(&s->lefts, &left->link);
    return left;
}

void
presence_redis_sync_left(presence_redis_sync_t *s,
                         const struct cq_id *user,
                         uint64_t seen_unix_ms,
                         enum presence_watch_seen seen)
{
    struct left *left = left_for(s, user);
    left->is_gone = true;
    if (seen != PRESENCE_WATCH_UNKNOWN) {
        left->seen_unix_ms = seen == PRESENCE_WATCH_SHOWS ? seen_unix_ms : 0;
        left->forget_seen = seen == PRESENCE_WATCH_HIDES;
    }
}

void
presence_redis_sync_forget(presence_redis_sync_t *s, const struct cq_id *user)
{
    struct left *left = left_for(s, user);
    left->seen_unix_ms = 0;
    left->forget_seen = true;
}

static struct cq_view
word(const char *text)
{
    return presence_redis_word(text, strlen(text));
}

static void
step_back(struct back_off *b)
{
    b->wait = b->next;
    b->next = b->next < WAIT_LOOKS_MAX / 2 ? b->next * 2 + 1 : WAIT_LOOKS_MAX;
    b->good = 0;
}

static bool
is_waiting(struct back_off *b)
{
    bool is = b->wait > 0;
    b->wait -= is;
    return is;
}

/* True at the moment that it is over. */
static bool
has_recovered(struct back_off *b)
{
    bool is_over = b->next > 0 && ++b->good >= WAIT_LOOKS_MAX;
    if (is_over) {
        *b = (struct back_off){0};
    }
    return is_over;
}

static void
refuse(presence_redis_sync_t *s, const char *error)
{
    if (s->is_refusing) {
        return;
    }
    s->is_refusing = true;
    step_back(&s->refused);
    presence_stats.redis_refusing = 1;
    presence_stats.redis_refusals_total++;
    presence_redis_trouble_set(presence_redis_trouble_of(error));
}

/* Of every command that writes. What a broken connection leaves unknown is written again anyhow. */
static void
on_written(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_sync_t *s = ctx;
    const char *refusal = presence_redis_link_refusal(s->link);
    if (!reply && refusal) {
        refuse(s, refusal);
    }
}

static void
on_left_written(void *ctx, const presence_redis_reply_t *reply)
{
    struct left *left = ctx;
    presence_redis_sync_t *s = left->sync;
    on_written(s, reply);
    left->is_again |= !reply;
    if (--left->unanswered > 0 || presence_list_has(&left->link)) {
        return;
    }
    if (left->is_again) {
        presence_list_append(&s->lefts, &left->link);
    } else {
        free_left(s, left);
    }
}

static int
send_left(struct left *left, const struct cq_view *words, size_t count)
{
    const struct presence_redis_command command = {words, count, on_left_written, left};
    int rc = presence_redis_link_command(left->sync->link, &command);
    left->unanswered += rc == 0;
    return rc;
}

/* It leaves the list if all of it is under way. */
static int
write_left(presence_redis_sync_t *s, struct left *left)
{
    char seen_key[PRESENCE_REDIS_KEY_SIZE];
    char online_key[PRESENCE_REDIS_KEY_SIZE];
    char value[21];
    size_t seen_n = presence_redis_value_key(seen_key, PRESENCE_REDIS_SEEN, &left->user);
    size_t online_n = presence_redis_value_key(online_key, PRESENCE_REDIS_ONLINE, &left->user);
    int value_n = snprintf(value, sizeof value, "%" PRIu64, left->seen_unix_ms);
    const struct cq_view seen = presence_redis_word(seen_key, seen_n);
    const struct cq_view set[] = {word("SET"), seen, presence_redis_word(value, (size_t)value_n)};
    struct cq_view del[3] = {word("DEL")};
    size_t count = 1;
    /* He may be back when it is sent at last: then the key is his new one. */
    if (left->is_gone && !s->cfg.is_visible(s->cfg.ctx, &left->user)) {
        del[count++] = presence_redis_word(online_key, online_n);
    }
    if (left->forget_seen) {
        del[count++] = seen;
    }
    int rc = left->seen_unix_ms ? send_left(left, set, 3) : 0;
    rc = rc || count == 1 ? rc : send_left(left, del, count);
    if (rc == 0) {
        presence_list_remove(&left->link);
        left->is_again = false;
        if (left->unanswered == 0) {
            free_left(s, left);
        }
    }
    return rc;
}

static int
write_online(presence_redis_sync_t *s, struct presence_user *user)
{
    struct presence_redis_session sessions[PRESENCE_REDIS_LISTED_MAX];
    size_t count = 0;
    bool has_times = s->cfg.may_show(s->cfg.ctx, &user->id);
    uint64_t now_unix_ms = cq_now_unix_ms();
    for (struct presence_link *l = user->sessions.next;
         l != &user->sessions && count < PRESENCE_REDIS_LISTED_MAX; l = l->next) {
        const struct presence_session *session =
            PRESENCE_LIST_OF(l, struct presence_session, of_user);
        if (!presence_session_map_is_live(s->cfg.sessions, session)) {
            continue;
        }
        struct presence_redis_session *out = &sessions[count++];
        memcpy(out->edge, s->cfg.lease->edges[session->edge].name, sizeof out->edge);
        out->session = session->number;
        out->device = session->device;
        out->since_unix_ms =
            has_times ? presence_not_after(session->since_unix_ms, now_unix_ms) : 0;
    }
    char key[PRESENCE_REDIS_KEY_SIZE];
    char value[PRESENCE_REDIS_VALUE_SIZE];
    size_t key_n = presence_redis_value_key(key, PRESENCE_REDIS_ONLINE, &user->id);
    uint64_t seen_unix_ms = has_times ? presence_not_after(user->seen_unix_ms, now_unix_ms) : 0;
    size_t value_n = presence_redis_value_write(value, seen_unix_ms, sessions, count);
    const struct cq_view set[] = {word("SET"), presence_redis_word(key, key_n),
                                  presence_redis_word(value, value_n), word("EX"), word(s->ttl)};
    const struct presence_redis_command command = {set, 5, on_written, s};
    int rc = presence_redis_link_command(s->link, &command);
    if (rc == 0) {
        user->written_mono_ms = cq_now_mono_ms();
    }
    return rc;
}

static struct presence_user *
next_to_write(presence_redis_sync_t *s)
{
    struct presence_link *link = presence_list_pop(&s->dirty);
    if (link) {
        return PRESENCE_LIST_OF(link, struct presence_user, dirty);
    }
    return presence_list_has(&s->rewrite)
               ? presence_session_map_walk_next(s->cfg.sessions, &s->rewrite)
               : NULL;
}

static void
write_waiting(presence_redis_sync_t *s)
{
    for (int n = 0; n < TURN_MAX && !s->is_refusing && presence_redis_link_room(s->link) > RESERVED;
         n++) {
        if (!presence_list_is_empty(&s->lefts)) {
            if (write_left(s, PRESENCE_LIST_OF(s->lefts.next, struct left, link)) != 0) {
                return;
            }
            continue;
        }
        struct presence_user *user = next_to_write(s);
        if (!user) {
            return;
        }
        if (write_online(s, user) != 0) {
            presence_redis_sync_dirty(s, user);
            return;
        }
    }
}

bool
presence_redis_sync_is_busy(const presence_redis_sync_t *s)
{
    return presence_redis_link_is_up(s->link) && presence_redis_link_room(s->link) < RESERVED / 2;
}

int
presence_redis_sync_ask_seen(presence_redis_sync_t *s,
                             const struct cq_id *users,
                             size_t count,
                             presence_redis_link_fn *fn,
                             void *ctx)
{
    if (count == 0 || count >= PRESENCE_REDIS_WORDS_MAX || presence_redis_link_room(s->link) == 0) {
        return -CQ_E_UNAVAILABLE;
    }
    char(*keys)[PRESENCE_REDIS_KEY_SIZE] = cq_alloc(count * sizeof *keys);
    struct cq_view *words = cq_alloc((count + 1) * sizeof *words);
    words[0] = word("MGET");
    for (size_t i = 0; i < count; i++) {
        size_t n = presence_redis_value_key(keys[i], PRESENCE_REDIS_SEEN, &users[i]);
        words[i + 1] = presence_redis_word(keys[i], n);
    }
    int rc = presence_redis_link_command(
        s->link, &(struct presence_redis_command){words, count + 1, fn, ctx});
    free(words);
    free(keys);
    return rc;
}

/* ---- healing: the sentinel ---- */

static void
write_everything(presence_redis_sync_t *s)
{
    presence_session_map_walk(s->cfg.sessions, &s->rewrite);
    presence_stats.redis_rewrites_total++;
    CQ_LOG(INFO, "PRESENCE-REDIS-REWRITE", "users=%zu", s->cfg.sessions->users.count);
}

/* The sentinel was set. */
static void
on_marked(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_sync_t *s = ctx;
    s->is_looking = false;
    on_written(s, reply);
    if (!reply) {
        return;
    }
    if (s->is_refusing) {
        CQ_LOG(INFO, "PRESENCE-REDIS-ACCEPTS", "users=%zu left=%zu", s->cfg.sessions->users.count,
               s->left.count);
        s->is_refusing = false;
        s->is_sweep_owed = true;
        presence_stats.redis_refusing = 0;
        presence_redis_trouble_set(NULL);
    }
    write_everything(s);
}

static void
mark(presence_redis_sync_t *s)
{
    const struct cq_view set[] = {word("SET"), word(PRESENCE_REDIS_SENTINEL), word(s->incarnation)};
    const struct presence_redis_command command = {set, 3, on_marked, s};
    s->is_looking = presence_redis_link_command(s->link, &command) == 0;
}

/* Somebody else has written it: if that goes on, do not fight about it. */
static void
on_stolen(presence_redis_sync_t *s)
{
    const char *words = "somebody else writes into this Redis: each presence needs one of its own";
    if (is_waiting(&s->stolen)) {
        return;
    }
    if (s->stolen.next > 0) {
        CQ_LOG(WARN, "PRESENCE-REDIS-SHARED", "do=\"%s\"", words);
        presence_redis_trouble_set(words);
    }
    step_back(&s->stolen);
    mark(s);
}

static void
on_sentinel(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_sync_t *s = ctx;
    s->is_looking = false;
    if (!reply) {
        on_written(s, reply); /* even reading is refused */
        return;
    }
    struct cq_view text = presence_redis_link_text(reply);
    size_t n = strlen(s->incarnation);
    if (presence_redis_link_is_nil(reply)) {
        mark(s);
    } else if (text.n != n || memcmp(text.p, s->incarnation, n) != 0) {
        on_stolen(s);
    } else {
        (void)has_recovered(&s->refused);
        if (has_recovered(&s->stolen)) {
            presence_redis_trouble_set(NULL);
        }
    }
}

static void
on_look(void *ctx)
{
    presence_redis_sync_t *s = ctx;
    if (s->is_looking || !presence_redis_link_is_up(s->link)) {
        return;
    }
    if (s->is_refusing) {
        if (!is_waiting(&s->refused)) {
            mark(s);
        }
        return;
    }
    const struct cq_view get[] = {word("GET"), word(PRESENCE_REDIS_SENTINEL)};
    const struct presence_redis_command command = {get, 2, on_sentinel, s};
    s->is_looking = presence_redis_link_command(s->link, &command) == 0;
}

/* ---- healing: who does Redis believe online, but is not ---- */

static void
on_values(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_sync_t *s = ctx;
    size_t count = presence_redis_link_count(reply);
    for (size_t i = 0; i < s->page_count && i < count; i++) {
        uint64_t heartbeat_unix_ms;
        struct cq_view text = presence_redis_link_text(presence_redis_link_at(reply, i));
        /* Somebody may have come online since the page was read. */
        if (s->cfg.is_visible(s->cfg.ctx, &s->page[i]) ||
            presence_redis_value_read(text, &heartbeat_unix_ms, NULL, 0) < 0) {
            continue;
        }
        heartbeat_unix_ms = presence_not_after(heartbeat_unix_ms, cq_now_unix_ms());
        presence_redis_sync_left(s, &s->page[i], heartbeat_unix_ms,
                                 heartbeat_unix_ms ? PRESENCE_WATCH_SHOWS : PRESENCE_WATCH_UNKNOWN);
        s->cfg.on_absent(s->cfg.ctx, &s->page[i], heartbeat_unix_ms);
    }
    s->is_step_asked = false;
    s->is_sweeping = reply && s->cursor != 0; /* cut off: a new sweep starts when Redis is back */
}

static int
ask_values(presence_redis_sync_t *s)
{
    char(*keys)[PRESENCE_REDIS_KEY_SIZE] = cq_alloc(s->page_count * sizeof *keys);
    struct cq_view *words = cq_alloc((s->page_count + 1) * sizeof *words);
    words[0] = word("MGET");
    for (size_t i = 0; i < s->page_count; i++) {
        size_t n = presence_redis_value_key(keys[i], PRESENCE_REDIS_ONLINE, &s->page[i]);
        words[i + 1] = presence_redis_word(keys[i], n);
    }
    const struct presence_redis_command command = {words, s->page_count + 1, on_values, s};
    int rc = presence_redis_link_command(s->link, &command);
    free(words);
    free(keys);
    return rc;
}

/* A SCAN answer: [cursor, [key, …]]. */
static void
on_page(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_sync_t *s = ctx;
    s->page_count = 0;
    s->is_step_asked = false;
    uint64_t next;
    if (!reply || !presence_redis_value_number(
                      presence_redis_link_text(presence_redis_link_at(reply, 0)), &next)) {
        s->is_sweeping = false; /* a new one starts when Redis is back */
        return;
    }
    const presence_redis_reply_t *keys = presence_redis_link_at(reply, 1);
    for (size_t i = 0; i < presence_redis_link_count(keys) && s->page_count < SWEEP_PAGE_MAX; i++) {
        struct cq_view key = presence_redis_link_text(presence_redis_link_at(keys, i));
        struct cq_id *user = &s->page[s->page_count];
        if (presence_redis_value_key_read(key, PRESENCE_REDIS_ONLINE, user) == 0 &&
            !s->cfg.is_visible(s->cfg.ctx, user)) {
            s->page_count++;
        }
    }
    s->cursor = next;
    if (s->page_count > 0 && ask_values(s) == 0) {
        s->is_step_asked = true;
        return;
    }
    s->is_sweeping = next != 0;
}

static void
sweep_on(presence_redis_sync_t *s)
{
    if (s->is_refusing) {
        return; /* it could not write what it finds */
    }
    if (s->is_sweep_owed && !s->is_sweeping && s->cfg.lease->ready &&
        presence_redis_link_is_up(s->link)) {
        s->is_sweep_owed = false;
        s->is_sweeping = true;
        s->cursor = 0;
    }
    /* Behind those who left in the pipeline: what is known of them is better than what is found. */
    if (!s->is_sweeping || s->is_step_asked || !presence_list_is_empty(&s->lefts)) {
        return;
    }
    char cursor[21];
    char count[21];
    (void)snprintf(cursor, sizeof cursor, "%" PRIu64, s->cursor);
    (void)snprintf(count, sizeof count, "%d", SWEEP_COUNT);
    const struct cq_view scan[] = {word("SCAN"),  word(cursor),
                                   word("MATCH"), word(PRESENCE_REDIS_ONLINE "*"),
                                   word("COUNT"), word(count)};
    const struct presence_redis_command command = {scan, 6, on_page, s};
    s->is_step_asked = presence_redis_link_command(s->link, &command) == 0;
}

void
presence_redis_sync_ready(presence_redis_sync_t *s)
{
    s->is_sweep_owed = true;
}

void
presence_redis_sync_pump(presence_redis_sync_t *s)
{
    write_waiting(s);
    sweep_on(s);
}

static void
on_state(void *ctx, bool up)
{
    presence_redis_sync_t *s = ctx;
    /* It may be another one than it was. */
    s->is_refusing = false;
    presence_stats.redis_refusing = 0;
    if (up) {
        /* What was under way when it broke may be lost. */
        mark(s);
        s->is_sweep_owed = true;
    }
}

/* ---- life ---- */

presence_redis_sync_t *
presence_redis_sync_new(cq_loop_t *loop, const struct presence_redis_sync_cfg *cfg)
{
    presence_redis_sync_t *s = cq_alloc(sizeof *s);
    s->cfg = *cfg;
    presence_list_init(&s->dirty);
    presence_list_init(&s->lefts);
    (void)snprintf(s->incarnation, sizeof s->incarnation, "%016" PRIx64, cfg->incarnation);
    (void)snprintf(s->ttl, sizeof s->ttl, "%" PRIu64, cfg->online_ttl_s);
    uint64_t half_life_ms = cfg->online_ttl_s * 1000 / 2;
    s->refresh_ms = half_life_ms < REFRESH_MS ? half_life_ms : REFRESH_MS;
    s->page = cq_alloc(SWEEP_PAGE_MAX * sizeof *s->page);
    const struct presence_redis_link_cfg link = {
        .path = cfg->path,
        .password_file = cfg->password_file,
        .connect_timeout_ms = 2000,
        .command_timeout_ms = 3000,
        .back_off_min_ms = 100,
        .back_off_max_ms = 3000,
        .outstanding_max = OUTSTANDING_MAX,
        .on_state = on_state,
        .ctx = s,
    };
    s->link = presence_redis_link_new(loop, &link);
    s->look = cq_timer_new(loop, on_look, s);
    cq_timer_start(s->look, LOOK_MS, LOOK_MS);
    return s;
}

void
presence_redis_sync_destroy(presence_redis_sync_t **s)
{
    if (*s) {
        cq_timer_destroy(&(*s)->look);
        presence_redis_link_destroy(&(*s)->link);
        presence_session_map_walk_end(&(*s)->rewrite);
        presence_map_clear(&(*s)->left, free);
        free((*s)->page);
        free(*s);
        *s = NULL;
    }
}
