/* SPDX-License-Identifier: MPL-2.0
 * fsck: does everything in the database follow from the log, and from each other? Reads only, in
 * short snapshots, so that it can run inside a store at work.
 *
 * How: the log is immutable and every row of a chat says by which position it was last changed. So
 * the rows of a number of chats are read first (each chat's in one snapshot), and then the log is
 * replayed for these chats, with the rules of chat.h; when the replay stands at the position that a
 * chat's rows name, they are compared. Rows behind the log are fine as long as what they lack is
 * above the marker. INDEX rows, which never change, are compared by a running digest; chats where
 * it differs are looked at row by row in a pass of their own. As many chats are taken at once as
 * the memory bound allows, so a big database costs several passes over the log.
 *
 * Rows of blobs: references and readers are counted again from the log's media parts, uses from the
 * rows. What blobd has on its disk is looked at by fsck_files.h.
 *
 * Accounts, names, devices, owners and friend rows are written through: each row is checked against
 * those it names within one snapshot, and friend rows against the record that changed them last.
 *
 * What it cannot see: a message's ciphertext is known to its readers only.
 */
#ifndef STORE_FSCK_H
#define STORE_FSCK_H

#include <stdbool.h>
#include <stdio.h>

#include "store/engine.h"
#include "store/vault.h"

/* A kind of finding: its name in reports, and what it means. */
#define STORE_FSCK_KINDS(X)                                                                        \
    X(LOG_POSITION, "log-position", "positions of the log are missing")                            \
    X(LOG_RECORD, "log-record", "a record does not decode or cannot follow")                       \
    X(LOG_CHAT, "log-chat", "a record of a chat that has not begun")                               \
    X(LOG_MEMBER, "log-member", "a record by someone who is not a member, or whose device is not") \
    X(LOG_SEQ_GAP, "log-seq-gap", "sequence numbers of a chat are missing")                        \
    X(LOG_SEQ_TWICE, "log-seq-twice", "a sequence number was given twice")                         \
    X(LOG_DSEQ, "log-dseq", "a device's counter went back: a message was taken twice")             \
    X(LOG_CURSOR_BACK, "log-cursor-back", "a receipt went back")                                   \
    X(LOG_CURSOR_ABOVE, "log-cursor-above", "a receipt is above the chat's head")                  \
    X(LOG_FRIEND, "log-friend", "a friendship's record is not of its chat")                        \
    X(LOG_COMMIT, "log-commit", "a commit's time is not of an earlier commit")                     \
    X(ROW_KEY, "row-key", "a key is malformed or in another partition")                            \
    X(ROW_VALUE, "row-value", "a row does not decode")                                             \
    X(ROW_MISSING, "row-missing", "a row is missing")                                              \
    X(ROW_EXTRA, "row-extra", "a row should not be there")                                         \
    X(ROW_WRONG, "row-wrong", "a row is not what the log says")                                    \
    X(ROW_BEHIND, "row-behind", "a row is older than the marker says")                             \
    X(FRIEND_SIDES, "friend-sides", "the two rows of a friendship do not agree")                   \
    X(KEY, "key", "a chat key does not unwrap with the master key")                                \
    X(REFERENCE, "reference", "a row names another one that says something else")                  \
    X(META, "meta", "a value of the store itself is impossible")                                   \
    X(BLOB_MISSING, "blob-missing", "the file of a blob is missing")                               \
    X(BLOB_DAMAGED, "blob-damaged", "the file of a blob has another size or other bytes")          \
    X(BLOB_ORPHAN, "blob-orphan", "a file that no row knows: blobd removes it in a while")         \
    X(BLOB_UNCHECKED, "blob-unchecked", "the files of blobs could not be looked at")

enum store_fsck_kind {
#define X(name, word, text) STORE_FSCK_##name,
    STORE_FSCK_KINDS(X)
#undef X
    STORE_FSCK_KIND_COUNT
};

enum {
    STORE_FSCK_WHERE_SIZE = 160,
    STORE_FSCK_TEXT_SIZE = 112,
    STORE_FSCK_FINDINGS_PRESET = 100,
    STORE_FSCK_SNAPSHOT_PRESET_MS = 200,
};
#define STORE_FSCK_STATE_PRESET_BYTES ((size_t)480 << 20)

struct store_fsck_finding {
    enum store_fsck_kind kind;
    char where[STORE_FSCK_WHERE_SIZE]; /* "log pos=7", "unread_audit chat=… user=…" */
    char is[STORE_FSCK_TEXT_SIZE];
    char should[STORE_FSCK_TEXT_SIZE];
};

struct store_fsck_progress {
    unsigned permille; /* of the whole, an estimate */
    unsigned pass;     /* over the log, from 1; 0: accounts and friends */
    uint64_t records, rows, found;
    uint64_t last_pos; /* of the log, so far */
};

struct store_fsck_cfg {
    store_engine_t *engine;
    const store_vault_t *vault; /* NULL: keys are not unwrapped */
    size_t state_bytes_max;     /* of chats in memory, roughly; 0: preset */
    size_t findings_max;        /* kept in the report, the others are only counted; 0: preset */
    unsigned snapshot_ms_max;   /* age of a snapshot; 0: preset */
    bool is_gentle; /* gives way to others: pauses, and the calling thread gets, and keeps, a low
                       priority */
    bool (*is_cancelled)(void *ctx); /* asked every snapshot; NULL: it cannot be */
    void (*on_progress)(void *ctx,
                        const struct store_fsck_progress *p); /* about 5 a second; NULL */
    void *ctx;
};

struct store_fsck_report {
    uint64_t found; /* all findings */
    uint64_t counts[STORE_FSCK_KIND_COUNT];
    struct store_fsck_finding *findings; /* the first findings_max */
    size_t finding_count, finding_room, findings_max;
    uint64_t records, messages, chats, users, rows; /* looked at */
    uint64_t last_pos;                              /* the log was read up to */
    unsigned passes;
    uint64_t took_ms;
};

/* Checks everything. 0: it ran through, see report->found; UNAVAILABLE: cancelled, or the database
 * was reopened meanwhile; CORRUPT, IO: it cannot be read at all. *report is filled in any case
 * (free it with store_fsck_report_free). Blocks for long: never call it on the loop's thread. */
int store_fsck_run(const struct store_fsck_cfg *cfg,
                   struct store_fsck_report *report) CQ_MUST_CHECK;
/* Adds a finding: counted, and kept if there is room. */
void store_fsck_report_find(struct store_fsck_report *report,
                            enum store_fsck_kind kind,
                            const char *where,
                            const char *is,
                            const char *should);
void store_fsck_report_free(struct store_fsck_report *report);
/* The word of a kind, and what it means. */
const char *store_fsck_kind_word(enum store_fsck_kind kind);
const char *store_fsck_kind_text(enum store_fsck_kind kind);
/* The report for people. */
void store_fsck_print(FILE *to, const struct store_fsck_report *report);
/* 0 clean, 1 findings, 2 it could not run (rc of store_fsck_run). */
int store_fsck_exit_code(int rc, const struct store_fsck_report *report);

#endif
