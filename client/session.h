/* SPDX-License-Identifier: MPL-2.0
 * The network side of a client: a thread with a loop, a connection, and its own view of the
 * database. It takes commands and gives events; what a command asks for is repeated over as many
 * connections as it takes.
 */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include "common/wire/frame.h"

#include "client/events.h"

typedef struct cq_session cq_session_t;

/* Commands that are not operations of the protocol. */
enum {
    CQ_COMMAND_CONNECT = 0x100,
    CQ_COMMAND_SYNC,
    CQ_COMMAND_FLUSH
};

struct cq_command {
    struct cq_command *next;
    unsigned op;                /* enum cq_op_code or CQ_COMMAND_… */
    uint64_t request;           /* 0: no ANSWER */
    char name[CQ_NAME_MAX + 1]; /* SIGNUP, LOGIN, friend operations */
    char password[CQ_PASSWORD_MAX + 1];
    struct cq_id id;  /* REVOKE: device; TYPING, LEDGER, FLUSH: chat */
    uint64_t message; /* FLUSH: outbox row and dseq of a new message, 0: none */
    uint64_t dseq;
    uint64_t seq; /* LEDGER */
    bool on;      /* TYPING; PRIVACY: change it */
    bool hide;    /* PRIVACY: last-seen */
    /* the session's own: */
    bool is_sent;
    uint64_t since_ms;
    uint64_t not_before_ms;
};

struct cq_session_cfg {
    const char *home;
    const char *servers; /* checked before */
    const char *label;
    const char *ca_file; /* see link.h; borrowed until cq_session_new returns */
    bool accepts_any_certificate;
    cq_events_t *events; /* borrowed until cq_session_destroy returns */
};

/* Starts the thread. 0 or an error of the database, -CQ_E_IO (no thread, no loop). */
int cq_session_new(const struct cq_session_cfg *cfg, cq_session_t **out) CQ_MUST_CHECK;
/* Takes *p; any thread. -CQ_E_BUSY with 1,024 unanswered: it is freed. */
int cq_session_submit(cq_session_t *s, struct cq_command **p) CQ_MUST_CHECK;
/* Wipes and frees. */
void cq_command_destroy(struct cq_command **cmd);
/* Closes the connection and joins the thread. */
void cq_session_destroy(cq_session_t **p);

#endif
