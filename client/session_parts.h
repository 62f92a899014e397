/* SPDX-License-Identifier: MPL-2.0
 * What the session's files share. session.c: thread and connection; login.c; request.c: frames out
 * and answers; sync.c: keys, state and history; incoming.c: pushes; sending.c: the outbox. All of
 * it runs on the session's thread.
 */
#ifndef CLIENT_SESSION_PARTS_H
#define CLIENT_SESSION_PARTS_H

#include <pthread.h>
#include <uv.h>

#include "client/db.h"
#include "client/link.h"
#include "client/reconnect.h"
#include "client/session.h"

enum {
    CQ_PENDING_MAX = 512,
    CQ_COMMANDS_MAX = 1024,
    CQ_CHAT_RUNS_MAX = 65536,
    CQ_WATCHES_MAX = 1024,
    CQ_TOLD_MAX = 65536,
    CQ_SENDS_MAX = 256,          /* SENDs unanswered over all chats */
    CQ_FETCHES_MAX = 4,          /* HISTORYs unanswered */
    CQ_TICK_MS = 1000,           /* heartbeat, deadlines, changes by other processes */
    CQ_ANSWER_LIMIT_MS = 30000,  /* an answer that takes longer will not come: connect anew */
    CQ_COMMAND_RETRY_MS = 10000, /* a command answered "try again" is tried for so long */
};

enum cq_phase {
    CQ_PHASE_IDLE,    /* not asked to connect, or refused */
    CQ_PHASE_WAIT,    /* until the next attempt */
    CQ_PHASE_CONNECT, /* the WebSocket is being opened */
    CQ_PHASE_AUTH,    /* waiting for WELCOME */
    CQ_PHASE_ONLINE,
};

struct cq_answer {
    int err; /* 0 or the positive error */
    uint64_t retry_after_ms;
    uint64_t detail;
    cq_reader_t fields; /* if err is 0 */
    size_t count;
};

struct cq_pending;
typedef void cq_answer_fn(cq_session_t *s, const struct cq_pending *p, struct cq_answer *a);

struct cq_pending {
    uint64_t rid; /* 0: free slot */
    uint8_t op;
    cq_answer_fn *fn;
    struct cq_id chat; /* SEND, HISTORY */
    uint64_t a;        /* SEND: outbox id; HISTORY: from */
    uint64_t b;        /* SEND: dseq; HISTORY: to */
    struct cq_command *cmd;
    uint64_t since_ms;
};

/* What is only known while connected, per chat that needs it. */
struct cq_chat_run {
    struct cq_id chat;
    bool hold; /* a SEND was not accepted: nothing new until all answers are here and retry_at has
                  come */
    uint64_t retry_at_ms;
    unsigned tries;          /* refusals since the last success */
    unsigned key_tries;      /* syncs for want of a key */
    uint64_t stuck_until_ms; /* HISTORY did not progress; UINT64_MAX: until the next sync */
};

/* An own message whose SENT or FAILED this process owes its application, even if another process of
 * the home sends it. */
struct cq_watch {
    uint64_t id; /* of the outbox row */
    struct cq_id chat;
    uint64_t dseq;
};

/* Up to where this process has told its application about a cursor. */
struct cq_told {
    struct cq_id chat;
    struct cq_id user;
    struct cq_id device;
    uint64_t up_to;
};

struct cq_session { /* NOLINT(clang-analyzer-optin.performance.Padding): by meaning; there is one */
    /* shared with other threads, under lock */
    pthread_mutex_t lock;
    struct cq_command *inbox;
    struct cq_command **inbox_last;
    bool stop;
    unsigned unanswered;
    pthread_t thread;
    uv_async_t wake;
    /* the thread's own */
    uv_loop_t loop;
    uv_timer_t retry; /* next attempt to connect */
    uv_timer_t soon;  /* look at the outbox, the gaps and the acks again */
    uv_timer_t tick;
    uv_prepare_t turn;
    cq_db_t *db;
    cq_link_t *link;
    cq_events_t *events;
    struct cq_identity id;
    char servers[CQ_DB_SERVERS_MAX];
    char label[CQ_LABEL_MAX + 1];
    struct cq_reconnect reconnect;
    char url[CQ_URL_MAX + 1]; /* of this attempt */
    enum cq_phase phase;
    bool is_wanted;              /* stay connected */
    struct cq_command *auth;     /* SIGNUP or LOGIN to do; else RESUME */
    bool is_device_renewed;      /* for this login: not twice */
    struct cq_command *commands; /* not answered, oldest first */
    struct cq_pending pending[CQ_PENDING_MAX];
    unsigned pending_count;
    uint64_t next_rid;
    cq_buf_t out; /* the frame being built: op_count operations behind a 5-byte array header */
    unsigned out_count;
    size_t out_place;
    bool in_tx;
    int tx_error;
    uint64_t sent_ms;
    uint64_t heard_ms;
    uint64_t heartbeat_interval_ms;
    uint64_t heartbeat_limit_ms;
    uint64_t window;
    bool is_syncing;
    bool sync_again;
    bool sync_due;      /* at the next `soon` */
    bool is_first_sync; /* of a new device: receipts are history, not news */
    bool is_synced;     /* once on this connection */
    bool was_caught_up; /* CAUGHT_UP was told since the last change */
    bool ack_pending;
    struct cq_ack_cursor acked[CQ_ACK_MAX]; /* what the unanswered ACK says */
    size_t acked_count;
    unsigned key_rounds;
    bool do_fetch, do_ack, do_send; /* for this turn */
    bool poke;                      /* the database has new messages */
    struct cq_watch watches[CQ_WATCHES_MAX];
    unsigned watch_count;
    struct cq_told *told;
    int told_count;
    struct cq_chat_run *runs;
    int run_count;
};

uint64_t cq_session_now(const cq_session_t *s);

/* ---- session.c ---- */
/* The connection is of no use any more: close, say why, try the next server. */
void cq_session_fail(cq_session_t *s, int error, const char *why);
/* Stop for good: error tells the user what to do. */
void cq_session_give_up(cq_session_t *s, int error, const char *why);
/* The token is void (login.c): forgets it and gives up, unless another process has a new one. */
void cq_session_token_refused(cq_session_t *s, int err);
void cq_session_wait(cq_session_t *s, uint32_t delay_ms);
/* The attempt that is being waited for comes not before delay_ms from now. */
void cq_session_wait_longer(cq_session_t *s, uint64_t delay_ms);
uint64_t cq_session_random(void);
void cq_session_state(cq_session_t *s, enum cq_client_state state, int error, const char *text);
void cq_session_warn(cq_session_t *s, int error, const char *text);
/* ANSWER to a command; takes it. */
void cq_session_answer(cq_session_t *s, struct cq_command *cmd, int error, const char *text);
/* Everything that waits for completeness and is complete. */
void cq_session_caught_up(cq_session_t *s);
/* Opens the turn's transaction on first use. 0 or an error (then the turn fails as a whole). */
int cq_session_tx(cq_session_t *s) CQ_MUST_CHECK;
/* Remembers that a step of the transaction failed. */
void cq_session_tx_fail(cq_session_t *s, int rc);
/* Commits what there is, then says that there may be messages. 0 or an error. */
int cq_session_tx_end(cq_session_t *s) CQ_MUST_CHECK;
void cq_session_soon(cq_session_t *s, uint64_t delay_ms);
struct cq_chat_run *cq_session_run(cq_session_t *s, const struct cq_id *chat);
/* Name of a user for people; hex of the id when unknown. */
const char *cq_session_name(cq_session_t *s, const struct cq_id *user, char out[CQ_ID_HEX_SIZE]);

/* ---- login.c ---- */
/* The WebSocket is open. ctx: the session. */
void cq_session_log_in(void *ctx);

/* ---- request.c ---- */
/* Is there room for one more request? */
bool cq_session_can_ask(const cq_session_t *s);
/* Adds a request to the frame. p: rid and since are set here. */
void cq_session_ask(cq_session_t *s,
                    struct cq_pending *p,
                    const struct cq_schema *schema,
                    const void *in);
void cq_session_tell(cq_session_t *s, uint8_t op, const struct cq_schema *schema, const void *in);
/* Writes the frame that was built. */
void cq_session_write(cq_session_t *s);
void cq_session_on_frame(void *ctx, const void *data, size_t n);
/* Forgets all requests: the connection is gone. Commands become unsent. */
void cq_session_forget(cq_session_t *s);
unsigned cq_session_pending(const cq_session_t *s, uint8_t op, const struct cq_id *chat);
/* Is this error a statement about now only? */
bool cq_session_is_passing(int err);
/* Sends the commands that can be sent. */
void cq_session_commands(cq_session_t *s);

/* ---- sync.c ---- */
void cq_session_sync(cq_session_t *s);
void cq_session_fetch(cq_session_t *s);
void cq_session_ack(cq_session_t *s);

/* ---- incoming.c ---- */
void cq_session_push(cq_session_t *s, const struct cq_frame_op *op);
/* Stores one message of a chat. 0, or -CQ_E_NOT_FOUND: the key is missing and may come with the
 * next sync. */
int cq_session_store(cq_session_t *s, const struct cq_message *m) CQ_MUST_CHECK;
void cq_session_friend_event(cq_session_t *s, const struct cq_friend *f, uint64_t request);
void cq_session_privacy_event(cq_session_t *s, const struct cq_privacy *privacy, uint64_t request);
void cq_session_presence_event(cq_session_t *s,
                               const struct cq_presence_states *states,
                               uint64_t request);
/* Where a cursor comes from: a push is news; SYNC repeats what is known; the first SYNC of a device
 * is no news at all. */
enum cq_cursor_source {
    CQ_CURSOR_PUSHED,
    CQ_CURSOR_SYNCED,
    CQ_CURSOR_OLD
};
void cq_session_cursor(cq_session_t *s,
                       const struct cq_chat *chat,
                       const struct cq_cursor *cursor,
                       enum cq_cursor_source source);

/* ---- sending.c ---- */
void cq_session_flush(cq_session_t *s);
/* Remembers that the application waits for this message. */
void cq_session_watch(cq_session_t *s, const struct cq_watch *watch);
/* A new device: ids, keys, counters; what the outbox holds is encrypted anew. */
int cq_session_new_device(cq_session_t *s) CQ_MUST_CHECK;

#endif
