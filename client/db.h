/* SPDX-License-Identifier: MPL-2.0
 * The device's storage: one SQLite database "device.db" in the home. db.c opens it and keeps the
 * identity, db_chat.c chats, keys, people and cursors, db_message.c messages and search,
 * db_outbox.c the outbox. Only these include <sqlite3.h>.
 *
 * Durability: WAL with synchronous=FULL, so a committed transaction survives a power cut. Several
 * connections, in one or more processes, may be open at once; writers wait for each other up to 10
 * s. A connection is not thread-safe.
 *
 * All int functions: 0 (or what they say) or -CQ_E_IO, -CQ_E_CORRUPT, -CQ_E_NO_SPACE, -CQ_E_BUSY
 * (logged nowhere: the caller tells the user).
 */
#ifndef CLIENT_DB_H
#define CLIENT_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/frame.h"
#include "common/wire/id.h"
#include "common/wire/limits.h"

typedef struct cq_db cq_db_t;

enum {
    CQ_DB_SERVERS_MAX = 1024
};

struct cq_identity {
    struct cq_id device;
    uint8_t public_key[CQ_KEY_SIZE];
    uint8_t secret_key[CQ_KEY_SIZE];
    struct cq_id user; /* none: nobody has logged in yet */
    char name[CQ_NAME_MAX + 1];
    uint8_t token[CQ_TOKEN_MAX];
    size_t token_size; /* 0: logged out */
    uint8_t store_key[CQ_KEY_SIZE];
    bool has_store_key;
    bool cloned; /* DSEQ_CONFLICT was seen: a new device is made at the next login */
    struct cq_id epoch;
    uint64_t version;
    char servers[CQ_DB_SERVERS_MAX];
};

/* ---- db.c ---- */
/* Creates the home (0700), the database (0600) and the device's identity when missing.
 * -CQ_E_NEWER_SCHEMA. */
int cq_db_open(const char *home, cq_db_t **out) CQ_MUST_CHECK;
void cq_db_close(cq_db_t **p);
/* IMMEDIATE transaction. end commits when rc >= 0, else rolls back; returns rc or the commit's
 * error. */
int cq_db_begin(cq_db_t *db) CQ_MUST_CHECK;
int cq_db_end(cq_db_t *db, int rc) CQ_MUST_CHECK;
/* Has another connection changed the database since the last call? */
bool cq_db_changed(cq_db_t *db);
int cq_db_identity_load(cq_db_t *db, struct cq_identity *id) CQ_MUST_CHECK;
int cq_db_identity_save(cq_db_t *db, const struct cq_identity *id) CQ_MUST_CHECK;
int cq_db_version_set(cq_db_t *db, const struct cq_id *epoch, uint64_t version) CQ_MUST_CHECK;
int cq_db_servers_set(cq_db_t *db, const char *servers) CQ_MUST_CHECK;

/* Grows an array so that index `count` exists; rows of `size` bytes. */
void *cq_db_grow(void *rows, int count, size_t size);

/* ---- db_chat.c ---- */
struct cq_chat {
    struct cq_id chat;
    struct cq_id peer;
    char peer_name[CQ_NAME_MAX + 1];
    bool open;
    uint64_t key_version;     /* the one to send with */
    uint64_t head;            /* highest seq known to exist */
    uint64_t held;            /* highest contiguous seq on this device */
    uint64_t shown;           /* highest seq given to a person as an event */
    uint64_t my_read;         /* the user has read up to */
    uint64_t acked_delivered; /* what the server knows of held and my_read */
    uint64_t acked_read;
    uint64_t dseq_top;  /* highest dseq ever given out */
    uint64_t dseq_done; /* last dseq the server is known to have accepted */
};

/* 0, or -CQ_E_NOT_FOUND */
int cq_db_chat_get(cq_db_t *db, const struct cq_id *chat, struct cq_chat *out) CQ_MUST_CHECK;
int cq_db_chat_by_name(cq_db_t *db, const char *name, struct cq_chat *out) CQ_MUST_CHECK;
/* All chats: gives an array (free it) and returns its length. */
int cq_db_chat_all(cq_db_t *db, struct cq_chat **out) CQ_MUST_CHECK;
/* Chats where held < head, or an ACK is due (held > acked_delivered or my_read > acked_read);
 * gives, as above. */
int cq_db_chat_behind(cq_db_t *db, struct cq_chat **out) CQ_MUST_CHECK;
int cq_db_chat_unacked(cq_db_t *db, const struct cq_id *device, struct cq_chat **out) CQ_MUST_CHECK;
/* Takes over what SYNC says about a chat (not its cursors). */
int cq_db_chat_sync(cq_db_t *db, const struct cq_sync_chat *row) CQ_MUST_CHECK;
/* Before the rows of a SYNC with reset: everything the server said before is void, held starts from
 * 0, and all messages count as lost until the server brings them again. */
int cq_db_chat_reset(cq_db_t *db) CQ_MUST_CHECK;
/* A new device: counters of sends start again. */
int cq_db_chat_new_device(cq_db_t *db) CQ_MUST_CHECK;
int cq_db_chat_head(cq_db_t *db, const struct cq_id *chat, uint64_t seq) CQ_MUST_CHECK;
int cq_db_chat_read(cq_db_t *db, const struct cq_id *chat, uint64_t up_to) CQ_MUST_CHECK;
int cq_db_chat_acked(cq_db_t *db, const struct cq_id *chat, uint64_t delivered, uint64_t read)
    CQ_MUST_CHECK;
int cq_db_chat_shown(cq_db_t *db, const struct cq_id *chat, uint64_t up_to) CQ_MUST_CHECK;
int cq_db_chat_done(cq_db_t *db, const struct cq_id *chat, uint64_t dseq) CQ_MUST_CHECK;
int cq_db_key_put(cq_db_t *db,
                  const struct cq_id *chat,
                  uint64_t version,
                  const uint8_t key[CQ_KEY_SIZE]) CQ_MUST_CHECK;
/* 0, or -CQ_E_NOT_FOUND */
int cq_db_key_get(cq_db_t *db, const struct cq_id *chat, uint64_t version, uint8_t key[CQ_KEY_SIZE])
    CQ_MUST_CHECK;
/* Newest key version held of every chat; gives an array and returns its length. */
int cq_db_key_have(cq_db_t *db, struct cq_key_have **out) CQ_MUST_CHECK;
/* 1 if the cursor grew, else 0. device none: read. */
int cq_db_cursor_put(cq_db_t *db,
                     const struct cq_id *chat,
                     const struct cq_cursor *cursor) CQ_MUST_CHECK;
/* Highest delivered (any device) and read cursor of a user. */
int cq_db_cursor_get(cq_db_t *db,
                     const struct cq_id *chat,
                     const struct cq_id *user,
                     uint64_t *delivered,
                     uint64_t *read) CQ_MUST_CHECK;
int
cq_db_person_put(cq_db_t *db, const struct cq_id *user, const char *name, size_t n) CQ_MUST_CHECK;
/* 0, or -CQ_E_NOT_FOUND */
int
cq_db_person_name(cq_db_t *db, const struct cq_id *user, char name[CQ_NAME_MAX + 1]) CQ_MUST_CHECK;

/* ---- db_message.c ---- */
struct cq_stored {
    struct cq_id chat;
    uint64_t seq;
    struct cq_id user;
    struct cq_id device;
    uint64_t dseq;
    uint64_t time_unix_ms;
    bool unreadable;
    bool lost;        /* not on the server any more */
    const char *text; /* or caption; NUL-terminated; given with the row, freed with it */
    size_t text_size;
    const uint8_t *medium; /* see cq_medium_write; the same */
    size_t medium_size;    /* 0: a text */
};

/* Stores a message; 1 if it is new, 0 if the device has it (a lost one is found again). */
int cq_db_message_put(cq_db_t *db, const struct cq_stored *m) CQ_MUST_CHECK;
/* Moves held forward over what is stored without a gap. */
int cq_db_message_advance(cq_db_t *db, const struct cq_id *chat) CQ_MUST_CHECK;
/* Up to limit messages with from <= seq <= to, ascending; last: the last ones instead of the first.
 * Gives an array. With lost ones: as people saw them, that is what a restore of the server lost
 * comes behind what it kept and before what is new. */
struct cq_range {
    uint64_t from;
    uint64_t to;
    uint32_t limit;
    bool last;
    bool with_lost;
};
int cq_db_message_range(cq_db_t *db,
                        const struct cq_id *chat,
                        const struct cq_range *range,
                        struct cq_stored **out) CQ_MUST_CHECK;
/* One message: 0, or -CQ_E_NOT_FOUND. Gives *out (cq_db_message_free with 1). */
int cq_db_message_get(cq_db_t *db, const struct cq_id *chat, uint64_t seq, struct cq_stored **out)
    CQ_MUST_CHECK;
int cq_db_message_unread(cq_db_t *db,
                         const struct cq_chat *chat,
                         const struct cq_id *me,
                         uint64_t *count) CQ_MUST_CHECK;
/* The own message sent as (chat, device, dseq): 0, or -CQ_E_NOT_FOUND */
int cq_db_message_sent(cq_db_t *db,
                       const struct cq_id *chat,
                       const struct cq_id *device,
                       uint64_t dseq,
                       struct cq_sent *out) CQ_MUST_CHECK;
/* Every word of text must be in the message. chat NULL: all. Newest `limit`, ascending by time.
 * Gives an array. */
int cq_db_message_search(cq_db_t *db,
                         const char *text,
                         const struct cq_id *chat,
                         uint32_t limit,
                         struct cq_stored **out) CQ_MUST_CHECK;
void cq_db_message_free(struct cq_stored *rows, int count);

/* ---- db_outbox.c ---- */
enum cq_out_state {
    CQ_OUT_QUEUED = 0,    /* never sent: may be rebuilt */
    CQ_OUT_UNKNOWN = 1,   /* sent, the answer is not known: only the same bytes may follow */
    CQ_OUT_REFUSED = 2,   /* answered OUT_OF_ORDER: not accepted, may be rebuilt */
    CQ_OUT_FAILED = 3,    /* refused for good; kept to be shown */
    CQ_OUT_UPLOADING = 4, /* its blob is not complete on the server: not encrypted, no dseq yet */
};

struct cq_out {
    uint64_t id; /* local number */
    struct cq_id chat;
    uint64_t dseq;
    uint64_t prev;
    uint64_t key_version;
    uint8_t nonce[CQ_NONCE_SIZE];
    uint8_t *ciphertext;
    size_t ciphertext_size;
    char *text; /* or caption */
    size_t text_size;
    uint8_t *descriptor; /* of a medium: see cq_medium_write */
    size_t descriptor_size;
    uint8_t *media; /* its field of SEND, once it is encrypted */
    size_t media_size;
    char *file; /* UPLOADING: name of the encrypted file in the home's folder "outgoing" */
    size_t file_size;
    uint64_t created_unix_ms;
    enum cq_out_state state;
    int error;
};

/* Inserts; sets o->id. The caller has a transaction and has set dseq and prev from cq_db_out_next.
 */
int cq_db_out_put(cq_db_t *db, struct cq_out *o) CQ_MUST_CHECK;
/* Takes the next dseq of the chat and says its prev. In a transaction. */
int
cq_db_out_next(cq_db_t *db, const struct cq_id *chat, uint64_t *dseq, uint64_t *prev) CQ_MUST_CHECK;
/* The chat's live rows (not FAILED), ascending by dseq; chat NULL: all rows of all chats. Gives an
 * array. */
int cq_db_out_list(cq_db_t *db, const struct cq_id *chat, struct cq_out **out) CQ_MUST_CHECK;
/* Chats with live rows: gives an array of ids. */
int cq_db_out_chats(cq_db_t *db, struct cq_id **out) CQ_MUST_CHECK;
int cq_db_out_get(cq_db_t *db, uint64_t id, struct cq_out *out) CQ_MUST_CHECK;
int cq_db_out_state(cq_db_t *db, uint64_t id, enum cq_out_state state, int error) CQ_MUST_CHECK;
/* Writes everything that encryption makes, prev and the descriptor; the state becomes QUEUED and
 * there is no file any more. */
int cq_db_out_rebuild(cq_db_t *db, const struct cq_out *o) CQ_MUST_CHECK;
int cq_db_out_delete(cq_db_t *db, uint64_t id) CQ_MUST_CHECK;
int cq_db_out_waiting(cq_db_t *db, const struct cq_id *chat, uint64_t *count) CQ_MUST_CHECK;
int cq_db_out_clear_failed(cq_db_t *db) CQ_MUST_CHECK;
/* A new device: rows that the old one may have sent (UNKNOWN) fail with this error; the caller
 * rebuilds the others. */
int cq_db_out_new_device(cq_db_t *db, int error) CQ_MUST_CHECK;
/* UPLOADING: the server's blob, as part of the descriptor. */
int cq_db_out_describe(cq_db_t *db, const struct cq_out *o) CQ_MUST_CHECK;
/* The oldest UPLOADING row behind this id: 0, or -CQ_E_NOT_FOUND. */
int cq_db_out_upload(cq_db_t *db, uint64_t after, struct cq_out *out) CQ_MUST_CHECK;
/* 1: a row that is UPLOADING has this file, else 0. */
int cq_db_out_has_file(cq_db_t *db, const char *file) CQ_MUST_CHECK;
/* Frees what the row points to. */
void cq_db_out_clear(struct cq_out *o);
void cq_db_out_free(struct cq_out *rows, int count);

#endif
