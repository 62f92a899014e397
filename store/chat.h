/* SPDX-License-Identifier: MPL-2.0
 * A chat's state, and what each log record does to it. Pure: no storage, no bus, no clock.
 *
 * This is where sequence numbers, deduplication and cursors live, once, for every engine:
 *   - seq counts a chat's messages from 1 without gaps;
 *   - a device's send is accepted only behind its last accepted one (prev), and its last CQ_WINDOW
 * answers are kept;
 *   - cursors (delivered per device, read per user) are set by max();
 *   - a device that was logged out for good may be forgotten, with its answers: it never sends
 * again.
 *
 * store_chat_apply() is the only way to change it, for live requests and for replay alike. A record
 * at or below last_pos is skipped, so a replay adds nothing twice.
 */
#ifndef STORE_CHAT_H
#define STORE_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/frame.h"

enum {
    STORE_CHAT_MEMBERS = 2,
    STORE_CHAT_DEVICES_MAX = 64,
    /* Messages in a row of INDEX: seqs 1 … 32, 33 … 64 and so on. Only full blocks get a row, which
     * never changes again; the one that is filling up is part of the CHAT row. */
    STORE_CHAT_BLOCK = 32
};

/* Where a message is, and how many of the messages 1 … seq are member 0's (so counting a range
 * takes two look-ups). */
struct store_chat_index {
    uint64_t pos;
    uint64_t rank;
};

/* A cursor moved: see store_key_receipt. */
struct store_chat_receipt {
    struct cq_id id; /* the device, or the user who read */
    uint64_t up_to;
    uint64_t pos;
    bool is_read;
};

/* A full block as its row has it. */
struct store_chat_block {
    uint64_t rank;    /* messages of member 0 before the block */
    uint32_t senders; /* bit i: the block's message i (from 0) is member 0's */
    uint64_t pos[STORE_CHAT_BLOCK];
};

struct store_chat_answer {
    uint64_t dseq;
    uint64_t seq;
};

struct store_chat_device {
    struct cq_id device;
    uint8_t member;
    uint8_t answer_count;
    uint8_t answer_room;   /* 0, 4, 8, CQ_WINDOW: most devices say little in a chat */
    uint8_t answer_newest; /* its place in answers, a ring when it is full: see store_chat_answer */
    uint64_t delivered;    /* holds everything up to */
    uint64_t delivered_time_unix_ms;
    uint64_t last_dseq;
    struct store_chat_answer *answers; /* owned */
};

enum {
    /* What a device takes at most. */
    STORE_CHAT_DEVICE_BYTES =
        sizeof(struct store_chat_device) + CQ_WINDOW * sizeof(struct store_chat_answer)
};

struct store_chat_member {
    struct cq_id user;
    uint64_t sent; /* messages of this member */
    uint64_t read; /* has read up to */
    uint64_t read_time_unix_ms;
    uint64_t others_read; /* other people's messages among 1 … read */
    /* The Unread_Audit row of (user, chat): exists while count > 0. */
    uint64_t first_unread;
    uint64_t unread_count;
    uint64_t unread_time_unix_ms; /* of the last one */
    /* The Read_Audit row of (sender = this user, chat): exists from the peer's reading until all
     * of the user's devices know it, which a KNOWN record says. */
    bool read_audit;
    uint64_t read_audit_pos;
};

struct store_chat {
    struct cq_id id;
    uint64_t last_pos;    /* log position of the last record applied */
    uint64_t changed_pos; /* … of the last one that devices have to be told of: SYNC's version */
    uint64_t head;        /* last seq */
    bool open;
    uint64_t key_version;
    struct store_chat_member members[STORE_CHAT_MEMBERS]; /* ascending by user id */
    struct store_chat_device *devices;
    size_t device_count;
    /* The index of seqs tail_first … head. It begins with a block: those before are in the table.
     */
    uint64_t tail_first;
    uint64_t tail_rank; /* messages of member 0 before it */
    struct store_chat_index *tail;
    size_t tail_count, tail_room;
    /* Receipt rows not yet in the table, ascending by position. */
    struct store_chat_receipt *receipts;
    size_t receipt_count, receipt_room;
};

void store_chat_init(struct store_chat *c, const struct cq_id *id);
void store_chat_fini(struct store_chat *c);
/* Room for so many answers, at most CQ_WINDOW. */
void store_chat_grow_answers(struct store_chat_device *d, size_t count);

/* Member number of a user, or -1. */
int store_chat_member(const struct store_chat *c, const struct cq_id *user);
/* NULL if the device has neither sent nor acknowledged anything here. */
const struct store_chat_device *store_chat_device(const struct store_chat *c,
                                                  const struct cq_id *device);

/* The device's i-th newest answer, i < answer_count. */
static inline const struct store_chat_answer *
store_chat_answer(const struct store_chat_device *d, size_t i)
{
    return &d->answers[(d->answer_newest + CQ_WINDOW - i) % CQ_WINDOW];
}

/* What a SEND of this device would do. */
enum store_chat_verdict {
    STORE_CHAT_ACCEPT,       /* append it as head + 1 */
    STORE_CHAT_REPEAT,       /* taken before as *seq, if the bytes are the same */
    STORE_CHAT_CONFLICT,     /* dseq used or passed, answer no longer known: DSEQ_CONFLICT */
    STORE_CHAT_OUT_OF_ORDER, /* prev is not the last accepted dseq */
};
enum store_chat_verdict store_chat_judge(const struct store_chat *c,
                                         const struct cq_id *device,
                                         uint64_t dseq,
                                         uint64_t prev,
                                         uint64_t *seq);

/* The look-up that apply needs for a read cursor behind the head: the index entry of a seq that is
 * not in the tail. */
struct store_chat_lookup {
    int (*fn)(void *ctx, const struct cq_id *chat, uint64_t seq, struct store_chat_index *out);
    void *ctx;
};

/* Applies a record of this chat at pos; fields point to the decoded struct of the kind. 0;
 * -CQ_E_CORRUPT if the record cannot follow this state (never for a record that was validated); the
 * look-up's error. On error the chat is unchanged. */
int store_chat_apply(struct store_chat *c,
                     uint64_t pos,
                     enum cq_rec_kind kind,
                     const void *fields,
                     const struct store_chat_lookup *lookup) CQ_MUST_CHECK;

/* Index entry from the tail; false if it is in the table (or beyond the head). */
bool store_chat_tail(const struct store_chat *c, uint64_t seq, struct store_chat_index *out);
/* The blocks that end at or before seq are in the table: forget them. */
void store_chat_trim(struct store_chat *c, uint64_t seq);
/* The same for the receipt rows up to and including a log position. */
void store_chat_trim_receipts(struct store_chat *c, uint64_t pos);

/* First seq of the block that a message is in. */
static inline uint64_t
store_chat_block_first(uint64_t seq)
{
    return seq - (seq - 1) % STORE_CHAT_BLOCK;
}

/* The rows. CHAT: everything, with the index of the block that is filling up; UNREAD and READ: the
 * founding tables, msgpack arrays [last_pos, first_unread, count, last_time] and [last_pos,
 * read_up_to, time]. */
void store_chat_write(cq_buf_t *b, const struct store_chat *c);
int store_chat_read(struct cq_view row,
                    struct store_chat *c) CQ_MUST_CHECK; /* into a fresh chat; CORRUPT */
/* Of the same row, only this. */
int store_chat_read_open(struct cq_view row, bool *open) CQ_MUST_CHECK;
void store_chat_write_unread(cq_buf_t *b, const struct store_chat *c, int member);
void store_chat_write_read(cq_buf_t *b, const struct store_chat *c, int member);
/* INDEX: the full block that begins at seq `first`, which is in the tail. */
void store_chat_write_block(cq_buf_t *b, const struct store_chat *c, uint64_t first);
int store_chat_read_block(struct cq_view row, struct store_chat_block *block) CQ_MUST_CHECK;
/* The entry of a block's message i (from 0). */
struct store_chat_index store_chat_block_entry(const struct store_chat_block *block, unsigned i);

#endif
