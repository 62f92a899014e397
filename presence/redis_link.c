/* SPDX-License-Identifier: MPL-2.0
 * States: closed (waits for the back-off timer), connecting, greeting (PING sent), up. One function
 * leaves them all: close_and_detach(). Redis answers in order, so unanswered commands are a ring,
 * each with the time it was queued; hiredis calls on_reply once for each, in the same order, also
 * (with NULL) when it frees a connection.
 */
#include "presence/redis_link.h"

#include <stdlib.h>
#include <string.h>

#include <hiredis/adapters/libuv.h>
#include <hiredis/async.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "presence/stats.h"

enum {
    CHECK_MS = 250
};

enum state {
    STATE_CLOSED,
    STATE_CONNECTING,
    STATE_GREETING,
    STATE_UP
};

struct unanswered {
    presence_redis_link_fn *fn;
    void *ctx;
    uint64_t queued_mono_ms;
};

struct presence_redis_link {
    cq_loop_t *loop;
    struct presence_redis_link_cfg cfg;
    char *path;
    enum state state;
    redisAsyncContext *ac; /* not NULL in every state but closed */
    uint64_t state_mono_ms;
    uint64_t checked_mono_ms;
    uint32_t back_off_ms;
    bool was_logged; /* that Redis is away: once for each outage */
    bool is_ending;
    cq_timer_t *reconnect;
    cq_timer_t *check;
    struct unanswered *ring;
    size_t head, count;
};

static void close_and_detach(presence_redis_link_t *link, const char *why);

static void
set_state(presence_redis_link_t *link, enum state state)
{
    link->state = state;
    link->state_mono_ms = cq_now_mono_ms();
}

/* An error reply (-OOM, -LOADING, …) is a failed command to everybody above. */
static void
on_reply(redisAsyncContext *ac, void *raw_reply, void *privdata)
{
    (void)ac;
    presence_redis_link_t *link = privdata;
    const redisReply *reply = raw_reply;
    if (link->count == 0) {
        return;
    }
    struct unanswered u = link->ring[link->head];
    link->head = (link->head + 1) % link->cfg.outstanding_max;
    link->count--;
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        char text[128];
        CQ_LOG(WARN, "PRESENCE-REDIS-REFUSED", "error=%s",
               cq_log_text(reply->str, (size_t)reply->len, text, sizeof text));
        reply = NULL;
    }
    presence_stats.redis_errors_total += !reply;
    if (u.fn) {
        u.fn(u.ctx, (const presence_redis_reply_t *)reply);
    }
}

static int
queue_command(presence_redis_link_t *link, const struct presence_redis_command *command)
{
    if (link->count >= link->cfg.outstanding_max || command->count > PRESENCE_REDIS_WORDS_MAX) {
        return -CQ_E_BUSY;
    }
    const char *argv[PRESENCE_REDIS_WORDS_MAX];
    size_t sizes[PRESENCE_REDIS_WORDS_MAX];
    for (size_t i = 0; i < command->count; i++) {
        argv[i] = (const char *)command->words[i].p;
        sizes[i] = command->words[i].n;
    }
    int rc = redisAsyncCommandArgv(link->ac, on_reply, link, (int)command->count, argv, sizes);
    if (rc != REDIS_OK) {
        return -CQ_E_UNAVAILABLE;
    }
    size_t tail = (link->head + link->count) % link->cfg.outstanding_max;
    link->ring[tail] = (struct unanswered){command->fn, command->ctx, cq_now_mono_ms()};
    link->count++;
    presence_stats.redis_commands_total++;
    return 0;
}

static void
on_greeted(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_link_t *link = ctx;
    if (link->state != STATE_GREETING) {
        return;
    }
    if (!reply) {
        /* Still loading its data, or the connection broke: hiredis frees it after this call if so.
         */
        close_and_detach(link, "no greeting");
        return;
    }
    set_state(link, STATE_UP);
    link->back_off_ms = link->cfg.back_off_min_ms;
    link->was_logged = false;
    presence_stats.redis_up = 1;
    presence_stats.redis_connects_total++;
    CQ_LOG(INFO, "PRESENCE-REDIS-UP", "socket=%s", link->path);
    link->cfg.on_state(link->cfg.ctx, true);
}

static void
on_connect(const redisAsyncContext *ac, int status)
{
    presence_redis_link_t *link = ac->data;
    if (!link || link->state != STATE_CONNECTING) {
        return;
    }
    if (status != REDIS_OK) {
        link->ac = NULL; /* hiredis frees it after this call */
        close_and_detach(link, "connect failed");
        return;
    }
    const struct cq_view ping = presence_redis_word("PING", 4);
    const struct presence_redis_command greeting = {&ping, 1, on_greeted, link};
    /* hiredis must not lose its connection from within this call: on failure the connect timeout
     * ends it. */
    if (queue_command(link, &greeting) == 0) {
        set_state(link, STATE_GREETING);
    }
}

static void
on_disconnect(const redisAsyncContext *ac, int status)
{
    (void)status;
    presence_redis_link_t *link = ac->data;
    if (link) {
        link->ac = NULL; /* hiredis frees it after this call */
        close_and_detach(link, "connection lost");
    }
}

/* Asks for the next attempt: twice as late as the one before, plus up to a quarter at random. */
static void
schedule_reconnect(presence_redis_link_t *link)
{
    uint64_t wait_ms = link->back_off_ms + cq_random_u64() % (link->back_off_ms / 4 + 1);
    uint32_t next_ms = link->back_off_ms * 2;
    link->back_off_ms = next_ms > link->cfg.back_off_max_ms ? link->cfg.back_off_max_ms : next_ms;
    cq_timer_start(link->reconnect, wait_ms, 0);
}

static void
close_and_detach(presence_redis_link_t *link, const char *why)
{
    enum state was = link->state;
    redisAsyncContext *ac = link->ac;
    link->ac = NULL;
    set_state(link, STATE_CLOSED);
    presence_stats.redis_up = 0;
    if (ac) {
        ac->data = NULL;    /* its connect and disconnect calls are not ours any more … */
        redisAsyncFree(ac); /* … but its reply calls are: they empty the ring */
    }
    if (link->is_ending) {
        return;
    }
    if (!link->was_logged) {
        CQ_LOG(WARN, "PRESENCE-REDIS-DOWN", "socket=%s why=\"%s\"", link->path, why);
        link->was_logged = true;
    }
    schedule_reconnect(link);
    if (was == STATE_UP) {
        link->cfg.on_state(link->cfg.ctx, false);
    }
}

static int
attach(presence_redis_link_t *link)
{
    redisAsyncContext *ac = link->ac;
    if (ac->err) {
        return -CQ_E_UNAVAILABLE;
    }
    if (redisLibuvAttach(ac, cq_loop_uv(link->loop)) != REDIS_OK) {
        memset(&ac->ev, 0, sizeof ac->ev); /* its clean-up would follow a NULL pointer */
        return -CQ_E_UNAVAILABLE;
    }
    ac->data = link;
    redisAsyncSetConnectCallback(ac, on_connect);
    redisAsyncSetDisconnectCallback(ac, on_disconnect);
    return 0;
}

static void
on_reconnect(void *ctx)
{
    presence_redis_link_t *link = ctx;
    if (link->state != STATE_CLOSED) {
        return;
    }
    CQ_ASSERT(link->count == 0);
    link->ac = redisAsyncConnectUnix(link->path);
    set_state(link, STATE_CONNECTING);
    if (!link->ac || attach(link) != 0) {
        close_and_detach(link, "cannot connect");
    }
}

static void
on_check(void *ctx)
{
    presence_redis_link_t *link = ctx;
    uint64_t now_ms = cq_now_mono_ms();
    /* If it was us who stood still (stopped, swapped out), answers may lie unread: judge at the
     * next check. */
    bool was_late = now_ms - link->checked_mono_ms > 5ULL * CHECK_MS;
    link->checked_mono_ms = now_ms;
    if (link->state == STATE_CLOSED || was_late) {
        return;
    }
    bool connect_late = link->state == STATE_CONNECTING &&
                        now_ms - link->state_mono_ms > link->cfg.connect_timeout_ms;
    bool command_late = link->count > 0 && now_ms - link->ring[link->head].queued_mono_ms >
                                               link->cfg.command_timeout_ms;
    if (connect_late || command_late) {
        presence_stats.redis_timeouts_total++;
        close_and_detach(link, connect_late ? "connect timed out" : "no answer in time");
    }
}

presence_redis_link_t *
presence_redis_link_new(cq_loop_t *loop, const struct presence_redis_link_cfg *cfg)
{
    presence_redis_link_t *link = cq_alloc(sizeof *link);
    link->loop = loop;
    link->cfg = *cfg;
    link->path = strdup(cfg->path);
    CQ_ASSERT(link->path && cfg->outstanding_max > 0);
    link->back_off_ms = cfg->back_off_min_ms;
    link->ring = cq_alloc(cfg->outstanding_max * sizeof *link->ring);
    link->reconnect = cq_timer_new(loop, on_reconnect, link);
    link->check = cq_timer_new(loop, on_check, link);
    link->checked_mono_ms = cq_now_mono_ms();
    cq_timer_start(link->reconnect, 0, 0);
    cq_timer_start(link->check, CHECK_MS, CHECK_MS);
    return link;
}

void
presence_redis_link_destroy(presence_redis_link_t **link)
{
    if (*link) {
        (*link)->is_ending = true;
        close_and_detach(*link, "ending");
        cq_timer_destroy(&(*link)->reconnect);
        cq_timer_destroy(&(*link)->check);
        free((*link)->ring);
        free((*link)->path);
        free(*link);
        *link = NULL;
    }
}

bool
presence_redis_link_is_up(const presence_redis_link_t *link)
{
    return link->state == STATE_UP;
}

size_t
presence_redis_link_room(const presence_redis_link_t *link)
{
    return link->state == STATE_UP ? link->cfg.outstanding_max - link->count : 0;
}

int
presence_redis_link_command(presence_redis_link_t *link,
                            const struct presence_redis_command *command)
{
    return link->state == STATE_UP ? queue_command(link, command) : -CQ_E_UNAVAILABLE;
}

struct cq_view
presence_redis_link_text(const presence_redis_reply_t *reply)
{
    const redisReply *r = (const redisReply *)reply;
    if (!r || (r->type != REDIS_REPLY_STRING && r->type != REDIS_REPLY_STATUS)) {
        return (struct cq_view){0};
    }
    return presence_redis_word(r->str, (size_t)r->len);
}

size_t
presence_redis_link_count(const presence_redis_reply_t *reply)
{
    const redisReply *r = (const redisReply *)reply;
    return r && r->type == REDIS_REPLY_ARRAY ? r->elements : 0;
}

const presence_redis_reply_t *
presence_redis_link_at(const presence_redis_reply_t *reply, size_t i)
{
    const redisReply *r = (const redisReply *)reply;
    return i < presence_redis_link_count(reply) ? (const presence_redis_reply_t *)r->element[i]
                                                : NULL;
}
