/* SPDX-License-Identifier: MPL-2.0
 * A question is made by the job, goes to the loop (store_job_ask), from there over the bus, and
 * comes back through the link's list of answers. The loop owns it in between; whoever of the two is
 * last frees the link.
 */
#include "store/blob_link.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/rt/check.h"

enum {
    WINDOW = 16, /* questions under way */
    LOOK_MS = 100,
    DEADLINE_MS = 60000, /* and more for what takes long: */
    BYTES_PER_MS = 1000,
};

struct store_blob_link_question {
    struct store_job_ask ask; /* first */
    struct store_blob_link *link;
    struct store_core *core;
    struct store_blob_question q;
    struct store_blob_answer a;
    char *path; /* a copy: the job may end before the loop has come to it */
    struct store_blob_link_question *next;       /* of the answers */
    struct store_blob_link_question *prev_asked; /* of the core's: under way on the bus */
    struct store_blob_link_question *next_asked;
};

struct store_blob_link {
    store_job_t *job;
    store_blob_answer_fn *on_answer;
    void *ctx;
    struct store_blob_link_question *call; /* whose answer is wanted by store_blob_link_call */
    uint64_t *call_value;
    pthread_mutex_t mutex; /* all below */
    pthread_cond_t answered;
    struct store_blob_link_question *answers;
    unsigned under_way;
    bool is_left; /* by the job */
};

/* ---- both threads ---- */

static void
free_question(struct store_blob_link_question *q)
{
    free(q->a.ids);
    free(q->path);
    free(q);
}

static void
free_link(store_blob_link_t *link)
{
    while (link->answers) {
        struct store_blob_link_question *q = link->answers;
        link->answers = q->next;
        free_question(q);
    }
    (void)pthread_mutex_destroy(&link->mutex);
    (void)pthread_cond_destroy(&link->answered);
    free(link);
}

/* ---- loop thread ---- */

static void
leave_core(struct store_blob_link_question *q)
{
    if (q->prev_asked) {
        q->prev_asked->next_asked = q->next_asked;
    } else if (q->core->blob_questions == q) {
        q->core->blob_questions = q->next_asked;
    }
    if (q->next_asked) {
        q->next_asked->prev_asked = q->prev_asked;
    }
    q->prev_asked = q->next_asked = NULL;
}

static void
enter_core(struct store_blob_link_question *q)
{
    q->next_asked = q->core->blob_questions;
    if (q->next_asked) {
        q->next_asked->prev_asked = q;
    }
    q->core->blob_questions = q;
}

/* Back to the job. */
static void
answer(struct store_blob_link_question *q, int rc)
{
    store_blob_link_t *link = q->link;
    q->a.rc = rc;
    (void)pthread_mutex_lock(&link->mutex);
    link->under_way--;
    bool is_last = link->is_left && !link->under_way;
    q->next = link->answers;
    link->answers = q;
    (void)pthread_cond_signal(&link->answered);
    (void)pthread_mutex_unlock(&link->mutex);
    if (is_last) {
        free_link(link);
    }
}

static int
read_ids(struct store_blob_link_question *q, cq_reader_t *fields, size_t count)
{
    struct cq_blob_ids m;
    int rc = cq_schema_read(&cq_blob_ids_schema, fields, count, &m);
    if (rc) {
        return rc;
    }
    q->a.ids = cq_alloc((m.ids.count + 1) * sizeof *q->a.ids);
    cq_reader_t r = cq_list_reader(&m.ids);
    for (; q->a.id_count < m.ids.count && !r.err; q->a.id_count++) {
        q->a.ids[q->a.id_count] = cq_read_id(&r);
    }
    return r.err;
}

static void
on_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct store_blob_link_question *q = ctx;
    struct cq_blob_offset m = {0}; /* BLOB_SAVED looks the same */
    (void)detail;
    leave_core(q);
    if (!err && q->q.kind == STORE_BLOB_LINK_LIST) {
        err = read_ids(q, fields, count);
    } else if (!err && q->q.kind != STORE_BLOB_LINK_BEGIN) {
        err = cq_schema_read(&cq_blob_offset_schema, fields, count, &m);
        q->a.value = m.offset;
    }
    answer(q, err);
}

static struct cq_view
view_text(const char *text)
{
    return (struct cq_view){(const uint8_t *)text, strlen(text)};
}

static int
request(struct store_blob_link_question *q,
        uint8_t op,
        const struct cq_schema *schema,
        const void *in)
{
    uint64_t extra_ms = q->q.kind == STORE_BLOB_LINK_SAVE ? q->q.entry.length / BYTES_PER_MS : 0;
    const struct cq_bus_wait wait = {DEADLINE_MS + extra_ms, on_reply, q};
    int rc = cq_bus_request(q->core->bus, "blobd", op, schema, in, &wait);
    if (!rc) {
        enter_core(q);
    }
    return rc;
}

static int
ask_blobd(struct store_blob_link_question *q)
{
    const struct store_blob_entry *e = &q->q.entry;
    const struct cq_view hash = {e->hash, sizeof e->hash};
    switch (q->q.kind) {
    case STORE_BLOB_LINK_BEGIN: {
        const struct cq_blob_save_begin m = {view_text(q->path), q->q.bytes};
        return request(q, CQ_BUS_BLOB_SAVE_BEGIN, &cq_blob_save_begin_schema, &m);
    }
    case STORE_BLOB_LINK_SAVE: {
        const struct cq_blob_save m = {view_text(q->path), e->id, e->length, hash};
        return request(q, CQ_BUS_BLOB_SAVE, &cq_blob_save_schema, &m);
    }
    case STORE_BLOB_LINK_CHECK: {
        const struct cq_blob_check m = {e->id, e->length, hash, q->q.offset, q->q.bytes};
        return request(q, CQ_BUS_BLOB_CHECK, &cq_blob_check_schema, &m);
    }
    case STORE_BLOB_LINK_LIST: {
        const struct cq_blob_list m = {e->id};
        return request(q, CQ_BUS_BLOB_LIST, &cq_blob_list_schema, &m);
    }
    case STORE_BLOB_LINK_HOLD:
    case STORE_BLOB_LINK_FREE:
    case STORE_BLOB_LINK_HAS:
        break;
    }
    return -CQ_E_INTERNAL;
}

static void
on_question(struct store_job_ask *ask, void *ctx)
{
    struct store_blob_link_question *q = (struct store_blob_link_question *)ask;
    q->core = ctx;
    bool is_hold = q->q.kind == STORE_BLOB_LINK_HOLD;
    if (is_hold || q->q.kind == STORE_BLOB_LINK_FREE) {
        q->a.value = store_blob_hold(q->core, is_hold);
        answer(q, 0);
        return;
    }
    if (q->q.kind == STORE_BLOB_LINK_HAS) {
        q->a.value = cq_bus_has(q->core->bus, "blobd");
        answer(q, 0);
        return;
    }
    int rc = q->core->stopping ? -CQ_E_UNAVAILABLE : ask_blobd(q);
    if (rc) {
        answer(q, rc);
    }
}

void
store_blob_link_free_all(struct store_core *core)
{
    while (core->blob_questions) {
        struct store_blob_link_question *q = core->blob_questions;
        leave_core(q);
        answer(q, -CQ_E_UNAVAILABLE);
    }
}

/* ---- job actor ---- */

store_blob_link_t *
store_blob_link_new(store_job_t *job, store_blob_answer_fn *on_answer, void *ctx)
{
    store_blob_link_t *link = cq_alloc(sizeof *link);
    pthread_condattr_t attr;
    int failed = pthread_condattr_init(&attr);
    failed |= pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    failed |= pthread_cond_init(&link->answered, &attr);
    failed |= pthread_mutex_init(&link->mutex, NULL);
    CQ_ASSERT(!failed);
    (void)pthread_condattr_destroy(&attr);
    link->job = job;
    link->on_answer = on_answer;
    link->ctx = ctx;
    return link;
}

void
store_blob_link_destroy(store_blob_link_t **link_p)
{
    store_blob_link_t *link = *link_p;
    if (!link) {
        return;
    }
    (void)pthread_mutex_lock(&link->mutex);
    link->is_left = true;
    bool is_last = !link->under_way;
    (void)pthread_mutex_unlock(&link->mutex);
    if (is_last) {
        free_link(link);
    }
    *link_p = NULL;
}

/* The mutex is held. */
static void
wait_a_moment(store_blob_link_t *link)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_cond_timedwait(&link->answered, &link->mutex, &until);
}

/* An answer is told, or is what a call waits for. */
static int
hand_out(store_blob_link_t *link, struct store_blob_link_question *q)
{
    int rc = 0;
    if (link->call == q) {
        rc = q->a.rc;
        *link->call_value = q->a.value;
        link->call = NULL;
    } else {
        rc = link->on_answer(link->ctx, &q->q, &q->a);
    }
    free_question(q);
    return rc;
}

/* Until at most so many are under way. */
static int
collect(store_blob_link_t *link, unsigned under_way_max)
{
    int rc = 0;
    (void)pthread_mutex_lock(&link->mutex);
    while (!rc && (link->answers || link->under_way > under_way_max)) {
        struct store_blob_link_question *q = link->answers;
        if (q) {
            link->answers = q->next;
            (void)pthread_mutex_unlock(&link->mutex);
            rc = hand_out(link, q);
            (void)pthread_mutex_lock(&link->mutex);
        } else if (store_job_is_cancelled(link->job)) {
            rc = -CQ_E_UNAVAILABLE;
        } else {
            wait_a_moment(link);
        }
    }
    (void)pthread_mutex_unlock(&link->mutex);
    return rc;
}

static struct store_blob_link_question *
send_question(store_blob_link_t *link, const struct store_blob_question *question)
{
    struct store_blob_link_question *q = cq_alloc(sizeof *q);
    *q = (struct store_blob_link_question){.ask = {on_question}, .link = link, .q = *question};
    q->path = question->path ? strdup(question->path) : NULL;
    CQ_ASSERT(!question->path || q->path);
    (void)pthread_mutex_lock(&link->mutex);
    link->under_way++;
    (void)pthread_mutex_unlock(&link->mutex);
    return q;
}

int
store_blob_link_ask(store_blob_link_t *link, const struct store_blob_question *question)
{
    int rc = collect(link, WINDOW - 1);
    if (!rc) {
        store_job_ask(&send_question(link, question)->ask);
    }
    return rc;
}

int
store_blob_link_wait(store_blob_link_t *link)
{
    return collect(link, 0);
}

int
store_blob_link_call(store_blob_link_t *link,
                     const struct store_blob_question *question,
                     uint64_t *value)
{
    struct store_blob_link_question *q = send_question(link, question);
    link->call = q;
    link->call_value = value;
    store_job_ask(&q->ask);
    return collect(link, 0);
}

void
store_blob_link_tell(store_blob_link_t *link, const struct store_blob_question *question)
{
    store_job_ask(&send_question(link, question)->ask);
}

void
store_blob_link_settle(store_blob_link_t *link, uint64_t ms)
{
    uint64_t end = cq_now_mono_ms() + ms;
    link->call = NULL;
    (void)pthread_mutex_lock(&link->mutex);
    while (link->under_way && cq_now_mono_ms() < end) {
        wait_a_moment(link);
    }
    (void)pthread_mutex_unlock(&link->mutex);
}
