/* SPDX-License-Identifier: MPL-2.0
 * Sessions by number: a chained hash table (numbers are spread by a multiplication: they ascend)
 * and a list in order of arrival. Walks keep their place in a cursor that the table moves on when
 * the session under it goes.
 */
#include "edge/session.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    BUCKETS_MIN = 64
};

static const struct step {
    uint8_t from, event, to;
} steps[] = {
    {EDGE_STATE_CONNECTED, EDGE_EVENT_AUTH, EDGE_STATE_AUTHENTICATING},
    {EDGE_STATE_CONNECTED, EDGE_EVENT_TOKEN_OK, EDGE_STATE_ANNOUNCING},
    {EDGE_STATE_CONNECTED, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_AUTH_FAILED, EDGE_STATE_CONNECTED},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_AUTH_OK, EDGE_STATE_ANNOUNCING},
    {EDGE_STATE_AUTHENTICATING, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_ANNOUNCING, EDGE_EVENT_ANNOUNCED, EDGE_STATE_READY},
    {EDGE_STATE_ANNOUNCING, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
    {EDGE_STATE_READY, EDGE_EVENT_CLOSE, EDGE_STATE_CLOSING},
};

static const char *const state_names[EDGE_STATE_COUNT] = {
    [EDGE_STATE_CONNECTED] = "CONNECTED",   [EDGE_STATE_AUTHENTICATING] = "AUTHENTICATING",
    [EDGE_STATE_ANNOUNCING] = "ANNOUNCING", [EDGE_STATE_READY] = "READY",
    [EDGE_STATE_CLOSING] = "CLOSING",
};

static const char *const event_names[EDGE_EVENT_COUNT] = {
    [EDGE_EVENT_AUTH] = "AUTH",           [EDGE_EVENT_AUTH_FAILED] = "AUTH_FAILED",
    [EDGE_EVENT_AUTH_OK] = "AUTH_OK",     [EDGE_EVENT_TOKEN_OK] = "TOKEN_OK",
    [EDGE_EVENT_ANNOUNCED] = "ANNOUNCED", [EDGE_EVENT_CLOSE] = "CLOSE",
};

bool
edge_session_event(edge_session_t *s, enum edge_event ev, uint64_t now_mono_ms)
{
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (steps[i].from == s->state && steps[i].event == ev) {
            s->state = steps[i].to;
            s->state_mono_ms = now_mono_ms;
            edge_session_input_count(s);
            return true;
        }
    }
    return false;
}

const char *
edge_session_state_name(uint8_t state)
{
    return state < EDGE_STATE_COUNT ? state_names[state] : "?";
}

const char *
edge_session_event_name(uint8_t ev)
{
    return ev < EDGE_EVENT_COUNT ? event_names[ev] : "?";
}

static size_t
bucket_of(const edge_sessions_t *t, uint64_t number)
{
    return (size_t)((number * 0x9e3779b97f4a7c15u) >> 32) & (t->bucket_count - 1);
}

void
edge_session_table_init(edge_sessions_t *t, uint64_t first_number)
{
    *t = (edge_sessions_t){.bucket_count = BUCKETS_MIN, .next_number = first_number};
    t->buckets = cq_alloc(BUCKETS_MIN * sizeof(edge_session_t *));
}

static void
free_session(edge_session_t *s)
{
    edge_session_dirty_remove(s);
    edge_session_input_drop(s);
    edge_outq_free(&s->out);
    free(s);
}

void
edge_session_table_free(edge_sessions_t *t)
{
    edge_session_t *s = t->first;
    while (s) {
        edge_session_t *next = s->next;
        free_session(s);
        s = next;
    }
    free(t->buckets);
    *t = (edge_sessions_t){0};
}

static void
grow(edge_sessions_t *t)
{
    free(t->buckets);
    t->bucket_count *= 2;
    t->buckets = cq_alloc(t->bucket_count * sizeof(edge_session_t *));
    for (edge_session_t *s = t->first; s; s = s->next) {
        edge_session_t **b = &t->buckets[bucket_of(t, s->number)];
        s->hash_next = *b;
        *b = s;
    }
}

edge_session_t *
edge_session_new(edge_sessions_t *t, uint64_t now_mono_ms)
{
    if (t->count >= t->bucket_count) {
        grow(t);
    }
    edge_session_t *s = cq_alloc(sizeof *s);
    s->number = t->next_number++;
    s->memory = &t->memory;
    s->out.total = &t->memory.queued_bytes;
    s->state_mono_ms = s->heard_mono_ms = s->sent_mono_ms = s->reported_mono_ms = now_mono_ms;
    edge_session_t **b = &t->buckets[bucket_of(t, s->number)];
    s->hash_next = *b;
    *b = s;
    s->prev = t->last;
    if (t->last) {
        t->last->next = s;
    } else {
        t->first = s;
    }
    t->last = s;
    for (struct edge_cursor *c = t->cursors; c; c = c->next) {
        if (!c->at) {
            c->at = s;
        }
    }
    t->count++;
    return s;
}

static void
unlink_session(edge_sessions_t *t, edge_session_t *s)
{
    edge_session_t **b = &t->buckets[bucket_of(t, s->number)];
    while (*b != s) {
        b = &(*b)->hash_next;
    }
    *b = s->hash_next;
    for (struct edge_cursor *c = t->cursors; c; c = c->next) {
        if (c->at == s) {
            c->at = s->next;
        }
    }
    if (s->prev) {
        s->prev->next = s->next;
    } else {
        t->first = s->next;
    }
    if (s->next) {
        s->next->prev = s->prev;
    } else {
        t->last = s->prev;
    }
    t->count--;
}

void
edge_session_free(edge_sessions_t *t, edge_session_t *s)
{
    unlink_session(t, s);
    free_session(s);
}

edge_session_t *
edge_session_find(const edge_sessions_t *t, uint64_t number)
{
    edge_session_t *s = t->buckets[bucket_of(t, number)];
    while (s && s->number != number) {
        s = s->hash_next;
    }
    return s && s->state != EDGE_STATE_CLOSING ? s : NULL;
}

void
edge_session_cursor_begin(edge_sessions_t *t, struct edge_cursor *c)
{
    c->at = t->first;
    c->next = t->cursors;
    t->cursors = c;
}

edge_session_t *
edge_session_cursor_next(struct edge_cursor *c)
{
    edge_session_t *s = c->at;
    if (s) {
        c->at = s->next;
    }
    return s;
}

void
edge_session_cursor_end(edge_sessions_t *t, struct edge_cursor *c)
{
    struct edge_cursor **at = &t->cursors;
    while (*at && *at != c) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = c->next;
    }
    *c = (struct edge_cursor){0};
}

struct edge_input *
edge_session_input(edge_session_t *s)
{
    if (!s->input) {
        s->input = cq_alloc(sizeof *s->input);
        s->input->pool = edge_session_input_pool(s);
    }
    return s->input;
}

void
edge_session_input_drop(edge_session_t *s)
{
    if (s->input) {
        *s->input->pool -= s->input->counted;
        cq_buf_free(&s->input->held);
        free(s->input);
        s->input = NULL;
    }
}

void
edge_session_input_count(edge_session_t *s)
{
    struct edge_input *in = s->input;
    if (in) {
        *in->pool -= in->counted;
        in->pool = edge_session_input_pool(s);
        in->counted = in->held.room;
        *in->pool += in->counted;
    }
}

void
edge_session_dirty_add(edge_session_t **list, edge_session_t *s)
{
    if (s->dirty_at) {
        return;
    }
    s->dirty_next = *list;
    s->dirty_at = list;
    if (s->dirty_next) {
        s->dirty_next->dirty_at = &s->dirty_next;
    }
    *list = s;
}

void
edge_session_dirty_remove(edge_session_t *s)
{
    if (!s->dirty_at) {
        return;
    }
    *s->dirty_at = s->dirty_next;
    if (s->dirty_next) {
        s->dirty_next->dirty_at = s->dirty_at;
    }
    s->dirty_next = NULL;
    s->dirty_at = NULL;
}
