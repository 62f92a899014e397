/* SPDX-License-Identifier: MPL-2.0
 * States: closed (waits for the back-off timer), connecting, greeting (AUTH and PING sent), up. One
 * function leaves them all: close_and_detach(). Redis answers in order, so unanswered commands are
 * a ring, each with the time it was queued; hiredis calls on_reply once for each, in the same
 * order, also (with NULL) when it frees a connection.
 *
 * Whoever listens on that socket may be anything: hiredis aborts on an answer that nobody asked for
 * and allocates what a list says it holds, so replies are judged as they are made.
 */
#include "presence/redis_link.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hiredis/adapters/libuv.h>
#include <hiredis/async.h>
#include <sodium.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "presence/redis_trouble.h"
#include "presence/stats.h"

enum {
    CHECK_MS = 250,
    REFUSED_LOG_MS = 60000, /* refusals of the same outage are logged this often */
    ERROR_MAX = 128,
    PASSWORD_MAX = 512,
    ELEMENTS_MAX = 65536,          /* of all lists in one reply */
    UNREAD_MAX = 64 * 1024 * 1024, /* bytes of one reply */
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
    char *password_file;
    char error[ERROR_MAX];      /* of the last refused command, or why a connection ended */
    bool is_refused;            /* while on_reply calls back */
    const char *refused_logged; /* the same of refusals */
    uint64_t refused_mono_ms;   /* when that was logged */
    uint64_t refused_count;     /* since then */
    size_t elements;            /* of the reply that is being read */
    enum state state;
    redisAsyncContext *ac; /* not NULL in every state but closed */
    uint64_t state_mono_ms;
    uint64_t checked_mono_ms;
    uint32_t back_off_ms;
    const char *down_logged; /* what was said of this outage: once, and again if it is another */
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

static void
note_refusal(presence_redis_link_t *link, const redisReply *reply)
{
    uint64_t now_ms = cq_now_mono_ms();
    (void)cq_log_text(reply->str, (size_t)reply->len, link->error, sizeof link->error);
    link->refused_count++;
    const char *what = presence_redis_trouble_of(link->error);
    if (link->refused_logged != what || now_ms - link->refused_mono_ms >= REFUSED_LOG_MS) {
        CQ_LOG(WARN, "PRESENCE-REDIS-REFUSED", "error=%s count=%llu do=\"%s\"", link->error,
               (unsigned long long)link->refused_count, what);
        link->refused_logged = what;
        link->refused_mono_ms = now_ms;
        link->refused_count = 0;
    }
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
    link->is_refused = reply && reply->type == REDIS_REPLY_ERROR;
    if (link->is_refused) {
        note_refusal(link, reply);
        reply = NULL;
    }
    presence_stats.redis_errors_total += !reply;
    if (u.fn) {
        u.fn(u.ctx, (const presence_redis_reply_t *)reply);
    }
    link->is_refused = false;
}

/* ---- judging replies while they are made ---- */

static redisReplyObjectFunctions hiredis_makes;

/* A reply begins, or goes on with a list in it. */
static bool
is_expected(const redisReadTask *task)
{
    presence_redis_link_t *link = task->privdata;
    if (!task->parent) {
        link->elements = 0;
    }
    return task->parent || link->count > 0 || task->type == REDIS_REPLY_ERROR;
}

static void *
make_string(const redisReadTask *task, char *text, size_t n)
{
    return is_expected(task) ? hiredis_makes.createString(task, text, n) : NULL;
}

static void *
make_array(const redisReadTask *task, int elements)
{
    presence_redis_link_t *link = task->privdata;
    if (!is_expected(task) || elements < 0 || (size_t)elements > ELEMENTS_MAX - link->elements) {
        return NULL;
    }
    link->elements += (size_t)elements;
    return hiredis_makes.createArray(task, elements);
}

static void *
make_integer(const redisReadTask *task, long long value)
{
    return is_expected(task) ? hiredis_makes.createInteger(task, value) : NULL;
}

static void *
make_nil(const redisReadTask *task)
{
    return is_expected(task) ? hiredis_makes.createNil(task) : NULL;
}

static void
judge_replies(presence_redis_link_t *link, redisReader *reader)
{
    static redisReplyObjectFunctions judges;
    hiredis_makes = *reader->fn;
    judges = (redisReplyObjectFunctions){
        .createString = make_string,
        .createArray = make_array,
        .createInteger = make_integer,
        .createNil = make_nil,
        .freeObject = hiredis_makes.freeObject,
    };
    reader->fn = &judges;
    reader->privdata = link;
}

/* ---- commands ---- */

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

/* ---- connecting ---- */

static void
on_greeted(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_link_t *link = ctx;
    if (link->state != STATE_GREETING) {
        return;
    }
    if (!reply) {
        /* Refused, or the connection broke: hiredis frees it after this call if so. */
        close_and_detach(link, link->is_refused ? "refused" : "no greeting");
        return;
    }
    set_state(link, STATE_UP);
    link->back_off_ms = link->cfg.back_off_min_ms;
    link->down_logged = NULL;
    presence_stats.redis_up = 1;
    presence_stats.redis_connects_total++;
    presence_redis_trouble_set(NULL);
    CQ_LOG(INFO, "PRESENCE-REDIS-UP", "socket=%s", link->path);
    link->cfg.on_state(link->cfg.ctx, true);
}

/* Without a password that Redis wants, or with a wrong one, PING is refused; with one that it does
 * not want, only AUTH is. */
static void
on_authenticated(void *ctx, const presence_redis_reply_t *reply)
{
    presence_redis_link_t *link = ctx;
    if (!reply && link->is_refused && link->state == STATE_GREETING &&
        strstr(link->error, "WRONGPASS")) {
        close_and_detach(link, "refused");
    }
}

/* The first line of the file. Its size, or -1. */
static ssize_t
read_password(const char *path, char *out, size_t out_size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = -1;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) == 0) {
        n = read(fd, out, out_size);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    const char *end = n > 0 ? memchr(out, '\n', (size_t)n) : NULL;
    return end ? end - out : n;
}

static int
queue_password(presence_redis_link_t *link)
{
    char password[PASSWORD_MAX];
    ssize_t n = read_password(link->password_file, password, sizeof password);
    if (n <= 0) {
        CQ_LOG(ERROR, "PRESENCE-REDIS-PASSWORD", "file=%s do=\"%s\"", link->password_file,
               "it must be a file that only this user may use (chmod 0600), and not empty");
        return 0; /* Redis says whether it wants one */
    }
    const struct cq_view words[] = {presence_redis_word("AUTH", 4),
                                    presence_redis_word(password, (size_t)n)};
    int rc =
        queue_command(link, &(struct presence_redis_command){words, 2, on_authenticated, link});
    sodium_memzero(password, sizeof password);
    return rc;
}

static void
keep_error(presence_redis_link_t *link, const redisAsyncContext *ac)
{
    (void)cq_log_text(ac->c.errstr, strnlen(ac->c.errstr, sizeof ac->c.errstr), link->error,
                      sizeof link->error);
}

static void
on_connect(const redisAsyncContext *ac, int status)
{
    presence_redis_link_t *link = ac->data;
    if (!link || link->state != STATE_CONNECTING) {
        return;
    }
    if (status != REDIS_OK) {
        keep_error(link, ac);
        link->ac = NULL; /* hiredis frees it after this call */
        close_and_detach(link, "connect failed");
        return;
    }
    const struct cq_view ping = presence_redis_word("PING", 4);
    const struct presence_redis_command greeting = {&ping, 1, on_greeted, link};
    /* hiredis must not lose its connection from within this call: on failure the connect timeout
     * ends it. */
    int rc = link->password_file[0] ? queue_password(link) : 0;
    if (rc == 0 && queue_command(link, &greeting) == 0) {
        set_state(link, STATE_GREETING);
    }
}

static void
on_disconnect(const redisAsyncContext *ac, int status)
{
    (void)status;
    presence_redis_link_t *link = ac->data;
    if (!link) {
        return;
    }
    bool is_garbage = ac->c.err == REDIS_ERR_PROTOCOL || ac->c.err == REDIS_ERR_OOM;
    keep_error(link, ac);
    link->ac = NULL; /* hiredis frees it after this call */
    close_and_detach(link, is_garbage ? "not Redis' protocol" : "connection lost");
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
    const char *what = presence_redis_trouble_down(why, link->error);
    presence_redis_trouble_set(what);
    if (link->down_logged != what) {
        CQ_LOG(WARN, "PRESENCE-REDIS-DOWN", "socket=%s why=\"%s\" error=%s do=\"%s\"", link->path,
               why, link->error[0] ? link->error : "-", what);
        link->down_logged = what;
    }
    link->error[0] = '\0';
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
        keep_error(link, ac);
        return -CQ_E_UNAVAILABLE;
    }
    if (redisLibuvAttach(ac, cq_loop_uv(link->loop)) != REDIS_OK) {
        memset(&ac->ev, 0, sizeof ac->ev); /* its clean-up would follow a NULL pointer */
        return -CQ_E_UNAVAILABLE;
    }
    ac->data = link;
    judge_replies(link, ac->c.reader);
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
    } else if (link->ac->c.reader->len > UNREAD_MAX) {
        close_and_detach(link, "not Redis' protocol");
    }
}

presence_redis_link_t *
presence_redis_link_new(cq_loop_t *loop, const struct presence_redis_link_cfg *cfg)
{
    presence_redis_link_t *link = cq_alloc(sizeof *link);
    link->loop = loop;
    link->cfg = *cfg;
    link->path = strdup(cfg->path);
    link->password_file = strdup(cfg->password_file);
    CQ_ASSERT(link->path && link->password_file && cfg->outstanding_max > 0);
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
        free((*link)->password_file);
        free(*link);
        *link = NULL;
    }
}

const char *
presence_redis_link_refusal(const presence_redis_link_t *link)
{
    return link->is_refused ? link->error : NULL;
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

bool
presence_redis_link_is_nil(const presence_redis_reply_t *reply)
{
    const redisReply *r = (const redisReply *)reply;
    return r && r->type == REDIS_REPLY_NIL;
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
