/* SPDX-License-Identifier: MPL-2.0
 * The chasqui client library: one device of one user.
 *
 * A client keeps everything it knows in one folder ("home"): the device's keys, the messages it
 * holds (decrypted), and the outbox. cq_client_send() writes to the outbox on disk before it
 * returns, so a message typed while offline, or right before a crash, goes out exactly once, later,
 * by this process or by the next one that connects with the same home. Several processes may use
 * one home at the same time.
 *
 * The network lives on a thread of the library's own. Events wait in a queue and are delivered by
 * cq_client_dispatch() on the thread that calls it, when the file descriptor cq_client_fd() is
 * readable. Nothing is ever called from another thread.
 *
 * Threads: all functions may be called from any thread, also at once, but cq_client_dispatch() and
 * cq_client_close() from one thread only. An event function may call any function but those two.
 *
 * Strings are UTF-8 and end with NUL. Times are Unix milliseconds of the server's clock. Functions
 * that return int give 0 or more on success and the negative of an error number (enum
 * cq_client_error or the protocol's errors) on failure.
 */
#ifndef CHASQUI_CLIENT_H
#define CHASQUI_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cq_client cq_client_t;

/* Errors that only a client has; all others are those of the protocol (docs/protocol.md), 1 to 99.
 */
enum cq_client_error {
    CQ_CLIENT_E_NOT_LOGGED_IN =
        100, /* no account in this home yet, or logged out: sign up or log in */
    CQ_CLIENT_E_OTHER_USER = 101, /* this home belongs to another user: use another home */
    CQ_CLIENT_E_STORE_KEY = 102,  /* the server shows another key than before: do not trust it */
    CQ_CLIENT_E_CLONED =
        103, /* this device is a copy of another one: log in again as a new device */
    CQ_CLIENT_E_BAD_URL = 104, /* a server address is not ws://HOST[:PORT][/PATH] or wss://… */
    CQ_CLIENT_E_TEXT = 105,    /* a text must be 1 to 16,384 bytes of UTF-8 without NUL */
    CQ_CLIENT_E_OFFLINE = 106, /* no connection to a server */
    CQ_CLIENT_E_FILE = 107, /* the file cannot be read, is no regular file, or changed meanwhile */
    CQ_CLIENT_E_EXISTS = 108, /* there is a file of this name already */
    CQ_CLIENT_E_UNTRUSTED =
        109, /* the server's certificate is not trusted (ca_file), or is for another name */
};

/* Name ("NOT_FOUND") and sentence of an error of either kind, with either sign. Never NULL. */
const char *cq_client_error_name(int error);
const char *cq_client_error_text(int error);

enum cq_client_state {
    CQ_CLIENT_IDLE,       /* not connecting: not asked to, or no account, or refused for good */
    CQ_CLIENT_CONNECTING, /* connecting, logging in, or waiting to try again */
    CQ_CLIENT_ONLINE,     /* logged in; the outbox is going out */
    CQ_CLIENT_CAUGHT_UP,  /* and every message of every chat up to now is on this device */
};

enum cq_client_event_type {
    CQ_CLIENT_EVENT_STATE,   /* state changed: state, error (0: none), text (server URL, or why not)
                              */
    CQ_CLIENT_EVENT_MESSAGE, /* a message: peer, from, seq, time, text, media, own, own_device,
                                unreadable */
    CQ_CLIENT_EVENT_SENT,    /* one of ours is durable on the server: peer, message, seq, time */
    CQ_CLIENT_EVENT_FAILED,  /* one of ours was refused for good: peer, message, error */
    CQ_CLIENT_EVENT_RECEIPT, /* peer, from, receipt (below), seq: up to and including, time, own */
    CQ_CLIENT_EVENT_FRIEND,  /* a friendship changed, or a row of cq_client_friends: peer, relation,
                                blocked, open */
    CQ_CLIENT_EVENT_PRESENCE, /* peer, online, time: since when, or last seen (0: unknown) */
    CQ_CLIENT_EVENT_TYPING,   /* peer, online: true while typing */
    CQ_CLIENT_EVENT_DEVICE,  /* a row of cq_client_devices: id, text: label, time: created, revoked,
                                own_device */
    CQ_CLIENT_EVENT_PROOF,   /* a step of a message's life, a row of cq_client_proof: proof (below),
                                peer, from, seq, time (0: not yet), own, own_device, revoked */
    CQ_CLIENT_EVENT_ANSWER,  /* the end of a request: request, error (0: done), text: what failed */
    CQ_CLIENT_EVENT_PRIVACY, /* hide_last_seen: as it is now; changed on another device, or the row
                                of cq_client_privacy */
    CQ_CLIENT_EVENT_TRANSFER, /* a blob under way: peer; message (own, going up) or request
                                 (cq_client_get); done, total: bytes of ciphertext */
    CQ_CLIENT_EVENT_WARNING,  /* text; error: something to tell the user, e.g. CQ_CLIENT_E_CLONED */
};

enum cq_client_receipt {
    CQ_CLIENT_DELIVERED, /* a device of `from` holds everything up to seq */
    CQ_CLIENT_READ,      /* `from` has read everything up to seq */
};

/* The steps of a message's life, in the order in which they come. */
enum cq_client_proof {
    CQ_CLIENT_PROOF_ACCEPTED,  /* by the server, from this device: from, id, position in its log */
    CQ_CLIENT_PROOF_DURABLE,   /* fsynced; time 0: it is, but the server did not log when */
    CQ_CLIENT_PROOF_DELIVERED, /* one for each other device of both users: from (whose), id, text
                                  (its label, one's own only) */
    CQ_CLIENT_PROOF_READ,      /* by the other user: from */
};

enum cq_client_relation {
    CQ_CLIENT_STRANGER,
    CQ_CLIENT_ASKED,     /* you asked, no answer yet */
    CQ_CLIENT_REQUESTED, /* you were asked */
    CQ_CLIENT_FRIEND,
    CQ_CLIENT_REMOVED, /* were friends: the chat can be read, not written */
};

/* A picture, file or voice message; the message's text is its caption, maybe empty. */
typedef struct cq_client_media {
    const char *type; /* as the sender says it: "image/jpeg" */
    const char *name; /* can be used as a file name; show it as harmless text */
    uint64_t size;    /* bytes */
    uint64_t width;   /* pixels, 0: unknown or none */
    uint64_t height;
    uint64_t duration_ms;           /* of sound, 0: unknown or none */
    const unsigned char *thumbnail; /* a JPEG of at most 320 x 320 pixels; NULL: none */
    size_t thumbnail_size;
    bool thumbnail_damaged; /* there is one, but it is not authentic or no such JPEG */
} cq_client_media_t;

/* One event. Pointers are valid during the call. Members that a type does not name are zero. */
typedef struct cq_client_event {
    enum cq_client_event_type type;
    uint64_t request; /* ANSWER, and rows that belong to an answer: what the request function
                         returned; else 0 */
    int error;        /* positive error number, 0: none */
    enum cq_client_state state;
    const char *peer; /* name of the chat's other user */
    const char *from; /* name of the user who wrote, read or received */
    const char *text;
    size_t text_size;
    const char *id;   /* device id, 32 hex digits */
    uint64_t message; /* local number of an own message, as cq_client_send gave it */
    uint64_t seq;
    uint64_t time_unix_ms;
    enum cq_client_receipt receipt;
    enum cq_client_relation relation;
    enum cq_client_proof proof;
    uint64_t position; /* in the server's log */
    bool own;          /* from this user */
    bool own_device;   /* from this device */
    bool unreadable; /* cannot be decrypted, or of a kind this version does not know; text is empty
                      */
    bool online;
    bool blocked; /* you block this user */
    bool open;    /* both may send now */
    bool revoked;
    bool hide_last_seen;            /* friends see whether this user is online, but no times */
    const cq_client_media_t *media; /* NULL: a text */
    uint64_t done;
    uint64_t total;
} cq_client_event_t;

typedef void cq_client_event_fn(void *ctx, const cq_client_event_t *event);

typedef struct cq_client_config {
    const char *home; /* folder, created with mode 0700 if missing; required */
    const char
        *servers; /* "ws://a:8080/ws,ws://b:8080/ws"; NULL: those used last, else the default */
    const char *label;   /* what the list of devices shows for this one; NULL: the host's name */
    const char *ca_file; /* wss: PEM file of certificate authorities that are trusted beside the
                            system's (SSL_CERT_FILE is heeded too); NULL: none */
    bool accept_any_certificate; /* wss: no verification at all: whoever is in between can read
                                    passwords and pretend to be the server */
    bool messages; /* deliver MESSAGE events (each message once per home, whoever shows it first) */
    cq_client_event_fn *on_event;
    void *ctx;
} cq_client_config_t;

#define CQ_CLIENT_DEFAULT_SERVERS "ws://127.0.0.1:8080/ws,ws://127.0.0.1:8081/ws"

/* Opens the home; does not connect. *client is NULL on error: CQ_CLIENT_E_BAD_URL, or the
 * protocol's IO, CORRUPT, NEWER_SCHEMA (written by a newer version), LOCKED. */
int cq_client_open(const cq_client_config_t *config, cq_client_t **client);
/* Disconnects, stops the thread, frees everything. *p is NULL afterwards. */
void cq_client_close(cq_client_t **p);

/* Readable when cq_client_dispatch() has something to do. Only poll it. */
int cq_client_fd(const cq_client_t *client);
/* Delivers what waits. Returns how many events, or a negative error of the home's database. */
int cq_client_dispatch(cq_client_t *client);

/* Name of the logged-in user, "" if none; the same pointer for the client's life. */
const char *cq_client_user(const cq_client_t *client);
/* The servers in use, as given. */
const char *cq_client_servers(const cq_client_t *client);
/* Id of this device, 32 hex digits. */
const char *cq_client_device(const cq_client_t *client);

/* ---- connecting ---- */

/* Create an account, or log in with a password, and stay connected. The password is copied and
 * wiped after use. Answered by ANSWER. Returns the request's number (> 0), or
 * CQ_CLIENT_E_OTHER_USER, BAD_NAME, BAD_PASSWORD at once. */
int64_t cq_client_signup(cq_client_t *client, const char *name, const char *password);
int64_t cq_client_login(cq_client_t *client, const char *name, const char *password);
/* Connect with what the home knows, and stay connected, with back-off, on any of the servers.
 * CQ_CLIENT_E_NOT_LOGGED_IN. */
int cq_client_connect(cq_client_t *client);

/* ---- requests: each returns a number (> 0) at once and ends with one ANSWER event; rows come
 * before it ---- */

enum cq_client_action {
    CQ_CLIENT_ADD,
    CQ_CLIENT_ACCEPT,
    CQ_CLIENT_DECLINE,
    CQ_CLIENT_CANCEL,
    CQ_CLIENT_REMOVE,
    CQ_CLIENT_BLOCK,
    CQ_CLIENT_UNBLOCK,
};

/* The new relation comes as a FRIEND event. BAD_NAME at once. */
int64_t cq_client_friend(cq_client_t *client, enum cq_client_action action, const char *name);
int64_t cq_client_friends(cq_client_t *client);  /* rows: FRIEND */
int64_t cq_client_presence(cq_client_t *client); /* rows: PRESENCE of all friends */
int64_t cq_client_devices(cq_client_t *client);  /* rows: DEVICE */
int64_t cq_client_revoke(cq_client_t *client,
                         const char *device_id); /* BAD_ARG at once if not 32 hex digits */
enum cq_client_last_seen {
    CQ_CLIENT_LAST_SEEN_ASK, /* change nothing */
    CQ_CLIENT_LAST_SEEN_SHOW,
    CQ_CLIENT_LAST_SEEN_HIDE,
};

/* What friends may see of this user, on all devices. Row: PRIVACY, as it is afterwards. BAD_ARG. */
int64_t cq_client_privacy(cq_client_t *client, enum cq_client_last_seen last_seen);
/* Makes this device's tokens void and forgets them; messages stay in the home. */
int64_t cq_client_logout(cq_client_t *client);
/* Ask what is new and fetch it. ANSWER comes when every chat is complete on this device. */
int64_t cq_client_sync(cq_client_t *client);

/* ---- messages ---- */

/* Encrypts and queues a text, durably; works offline. *message is its local number. SENT or FAILED
 * tells the rest. CQ_CLIENT_E_TEXT; NOT_FOUND: no chat with that name on this device (sync first);
 * CHAT_CLOSED; NOT_LOGGED_IN; CLONED. */
int cq_client_send(cq_client_t *client,
                   const char *peer,
                   const char *text,
                   size_t text_size,
                   uint64_t *message);
/* Encrypts a file into the home and queues it as a message, durably; works offline, and the file
 * may go afterwards. Pictures get a thumbnail, sounds their duration. The message goes out when the
 * blob is complete on the server, which may take several processes of this home: TRANSFER says how
 * far it is, SENT or FAILED the end. caption: may be "", at most 4,096 bytes. *warning: why a
 * picture has no thumbnail, or NULL. Blocks while it reads and encrypts. FILE, and as
 * cq_client_send. */
int cq_client_send_file(cq_client_t *client,
                        const char *peer,
                        const char *path,
                        const char *caption,
                        uint64_t *message,
                        const char **warning);
/* Fetches what a message names into a file (mode 0600), which appears when it is complete and
 * verified. What was fetched before, by any process of this home, is not fetched again. TRANSFER
 * says how far it is, ANSWER the end: EXISTS (unless replace), NOT_FOUND: not on the server (any
 * more), CRYPTO: not what the sender sent. Tries until it is done or the client is closed.
 * NOT_FOUND at once: no such message on this device, or a text. */
int64_t
cq_client_get(cq_client_t *client, const char *peer, uint64_t seq, const char *path, bool replace);
/* Tell the other side that the user is typing, or has stopped. Lost when offline. */
int cq_client_typing(cq_client_t *client, const char *peer, bool on);
/* The user has read everything up to seq (0: up to what this device holds). Kept and sent later
 * when offline. */
int cq_client_read(cq_client_t *client, const char *peer, uint64_t seq);

/* The life of a message, from the server. Rows: PROOF. NOT_FOUND at once: no chat with that name on
 * this device (sync first); as the answer: no such message. */
int64_t cq_client_proof(cq_client_t *client, const char *peer, uint64_t seq);

/* ---- what the device holds: answered from the disk, rows are given to fn before the function
 * returns ---- */

typedef struct cq_client_chat {
    const char *peer;
    bool open;
    uint64_t head;   /* the last seq that is known */
    uint64_t held;   /* everything up to here is on this device */
    uint64_t unread; /* other people's messages after the read cursor */
    uint64_t my_read;
    uint64_t peer_delivered; /* on at least one of the peer's devices */
    uint64_t peer_read;
    uint64_t waiting;  /* own messages in the outbox */
    uint64_t last_seq; /* the last message, 0: none */
    uint64_t last_time_unix_ms;
    bool last_own;
    bool last_unreadable;
    const char *last_text; /* "" if none */
    const cq_client_media_t *last_media;
} cq_client_chat_t;

typedef struct cq_client_message {
    const char *peer;
    const char *from;
    uint64_t seq;
    uint64_t time_unix_ms;
    const char *text;
    size_t text_size;
    bool own;
    bool unreadable;
    bool not_on_server;             /* the server was restored from a backup that lacks it */
    bool delivered;                 /* own: on a device of the peer */
    bool read;                      /* own: read by the peer; others': read by you */
    const cq_client_media_t *media; /* NULL: a text */
} cq_client_message_t;

typedef struct cq_client_waiting {
    uint64_t message; /* local number */
    const char *peer;
    const char *text;
    size_t text_size;
    uint64_t time_unix_ms; /* of this device's clock, when it was queued */
    int error;             /* refused for good, 0: waiting */
    const cq_client_media_t *media;
} cq_client_waiting_t;

typedef void cq_client_chat_fn(void *ctx, const cq_client_chat_t *chat);
typedef void cq_client_message_fn(void *ctx, const cq_client_message_t *message);
typedef void cq_client_waiting_fn(void *ctx, const cq_client_waiting_t *waiting);

/* All chats, the most recent first. */
int cq_client_chats(cq_client_t *client, cq_client_chat_fn *fn, void *ctx);
/* The last `limit` messages of a chat below seq `before` (0: the end), ascending. NOT_FOUND. */
int cq_client_history(cq_client_t *client,
                      const char *peer,
                      uint64_t before,
                      uint32_t limit,
                      cq_client_message_fn *fn,
                      void *ctx);
/* Messages that contain every word of text, newest last, at most limit. peer NULL: all chats. */
int cq_client_search(cq_client_t *client,
                     const char *text,
                     const char *peer,
                     uint32_t limit,
                     cq_client_message_fn *fn,
                     void *ctx);
/* One message. NOT_FOUND. */
int cq_client_message(cq_client_t *client,
                      const char *peer,
                      uint64_t seq,
                      cq_client_message_fn *fn,
                      void *ctx);
/* Own messages that are not on the server: waiting, and refused ones. */
int cq_client_outbox(cq_client_t *client, cq_client_waiting_fn *fn, void *ctx);
/* Forget refused messages. Returns how many. */
int cq_client_outbox_clear(cq_client_t *client);

#ifdef __cplusplus
}
#endif

#endif
