/* SPDX-License-Identifier: MPL-2.0
 * A session: one WebSocket connection, known by a number that is never used twice in a process's
 * life (it starts at a random one, so numbers of an earlier life do not come back). Plain structs
 * owned by the loop thread; the table finds them by number and walks them in the order they came.
 */
#ifndef EDGE_SESSION_H
#define EDGE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/id.h"

#include "edge/outq.h"

enum edge_state {
    EDGE_STATE_CONNECTED,      /* guest: may sign up, log in, resume */
    EDGE_STATE_AUTHENTICATING, /* the store checks the password */
    EDGE_STATE_ANNOUNCING,     /* authenticated, presence does not know it yet */
    EDGE_STATE_READY,
    EDGE_STATE_CLOSING, /* what is queued goes out, then the connection closes; input is ignored */
    EDGE_STATE_COUNT
};

enum edge_event {
    EDGE_EVENT_AUTH,        /* a password went to the store */
    EDGE_EVENT_AUTH_FAILED, /* and was refused, or the store did not answer */
    EDGE_EVENT_AUTH_OK,
    EDGE_EVENT_TOKEN_OK,  /* a resume token was verified here */
    EDGE_EVENT_ANNOUNCED, /* presence knows the session, or there is none */
    EDGE_EVENT_CLOSE,
    EDGE_EVENT_COUNT
};

/* What all sessions hold together, in bytes. */
struct edge_memory {
    size_t queued_bytes;      /* output */
    size_t input_bytes;       /* parts of messages and operations held back, of who is logged in */
    size_t guest_input_bytes; /* and of the others, who must not use up what is there for these */
};

/* Input that had to wait; only while there is some. */
struct edge_input {
    size_t *pool;      /* which bytes of edge_memory it is counted in */
    size_t counted;    /* so many */
    cq_buf_t held;     /* operations that wait until the session may go on, one after the other */
    size_t held_start; /* bytes of `held` done */
    size_t held_count; /* operations left */
};

typedef struct edge_session {
    uint64_t number;
    struct edge_conn *conn; /* NULL once the connection is gone */
    struct edge_session *hash_next;
    struct edge_session *prev, *next; /* all sessions, oldest first */
    struct edge_session *dirty_next,
        **dirty_at; /* those with output of this turn; dirty_at NULL: not one */
    struct edge_input *input;
    struct edge_memory *memory;
    struct edge_outq out;
    struct cq_id user, device;
    uint64_t generation; /* of its token */
    uint64_t address;    /* key of the peer's address for limits */
    uint64_t since_unix_ms;
    uint64_t state_mono_ms; /* when it came into its state */
    uint64_t push_mono_us;  /* when the oldest push that waits was read; 0: none does */
    uint64_t heard_mono_ms, sent_mono_ms, ping_mono_ms, reported_mono_ms;
    uint32_t cost; /* of its unanswered requests */
    uint16_t close_code;
    uint8_t state;
    bool is_paused : 1; /* we stopped reading from it */
    bool wants_ping : 1;
    bool is_logging_out : 1;
    bool is_leaving : 1;   /* drain: no more of its operations are begun */
    bool is_in_line : 1;   /* its RESUME waits, see arrive.h */
    bool is_called : 1;    /* and may begin now */
    bool is_note_owed : 1; /* a PRESENCE_NOTE was dropped: presence must tell it everything again */
} edge_session_t;

/* A place in the walk over all sessions that survives their ends. */
struct edge_cursor {
    edge_session_t *at;
    struct edge_cursor *next;
};

typedef struct edge_sessions {
    edge_session_t **buckets;
    size_t bucket_count; /* power of two */
    size_t count;
    uint64_t next_number;
    edge_session_t *first, *last;
    struct edge_cursor *cursors;
    struct edge_memory memory; /* the table must not move while it has sessions */
} edge_sessions_t;

/* first_number: random. */
void edge_session_table_init(edge_sessions_t *t, uint64_t first_number);
/* Frees the table and all sessions. */
void edge_session_table_free(edge_sessions_t *t);
/* A new session in the table, CONNECTED. Owned by the table. */
edge_session_t *edge_session_new(edge_sessions_t *t, uint64_t now_mono_ms);
/* Takes it out of the table and frees it. */
void edge_session_free(edge_sessions_t *t, edge_session_t *s);
/* The session of this number that is not CLOSING, or NULL. */
edge_session_t *edge_session_find(const edge_sessions_t *t, uint64_t number);

/* Starts a walk at the oldest; ended by edge_session_cursor_end. Sessions that come later are
 * visited too. */
void edge_session_cursor_begin(edge_sessions_t *t, struct edge_cursor *c);
/* The next session or NULL at the end. It may be freed afterwards. */
edge_session_t *edge_session_cursor_next(struct edge_cursor *c);
void edge_session_cursor_end(edge_sessions_t *t, struct edge_cursor *c);

/* The only writer of s->state. False if the table has no such step: nothing changed. */
bool edge_session_event(edge_session_t *s, enum edge_event ev, uint64_t now_mono_ms)
    __attribute__((warn_unused_result));
const char *edge_session_state_name(uint8_t state);
const char *edge_session_event_name(uint8_t ev);
/* Does presence know of it, or is it being told? */
static inline bool
edge_session_is_user(const edge_session_t *s)
{
    return s->state == EDGE_STATE_ANNOUNCING || s->state == EDGE_STATE_READY;
}

/* The session's waiting input, made when it is not there yet; drop frees it. */
struct edge_input *edge_session_input(edge_session_t *s);
void edge_session_input_drop(edge_session_t *s);
/* Where the session's input is counted. */
static inline size_t *
edge_session_input_pool(const edge_session_t *s)
{
    bool is_guest = s->state == EDGE_STATE_CONNECTED || s->state == EDGE_STATE_AUTHENTICATING;
    return is_guest ? &s->memory->guest_input_bytes : &s->memory->input_bytes;
}
/* Brings edge_memory up to date after the input's buffers, or the state, have changed. */
void edge_session_input_count(edge_session_t *s);

/* The list of sessions with output of this turn. */
void edge_session_dirty_add(edge_session_t **list, edge_session_t *s);
void edge_session_dirty_remove(edge_session_t *s);

#endif
