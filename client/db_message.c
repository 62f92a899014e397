/* SPDX-License-Identifier: MPL-2.0 */
#include <stdlib.h>

#include "client/db_internal.h"

enum {
    SEARCH_WORDS_MAX = 16,
    TRIGRAM = 3
};

#define MESSAGE_COLUMNS "chat, seq, user, device, dseq, time, unreadable, lost, text, medium"

/* After a restore of the server: the same message again is found, another one under its seq is news
 * to a person. */
static int
find_again(cq_db_t *db, const struct cq_stored *m)
{
    int rc = cq_db_run(
        db, cq_db_stmt(db,
                       "UPDATE messages SET lost = 0 WHERE id = (SELECT max(id) FROM messages"
                       " WHERE chat = ? AND seq = ? AND device = ? AND dseq = ?)",
                       "didi", &m->chat, m->seq, &m->device, m->dseq));
    if (rc || sqlite3_changes(db->sql) > 0) {
        return rc ? rc : 1;
    }
    return cq_db_run(
        db, cq_db_stmt(db, "UPDATE chats SET shown = ?2 - 1 WHERE chat = ?1 AND shown >= ?2", "di",
                       &m->chat, m->seq));
}

/* 0: nothing stored under this seq; 1: there is */
static int
stored_already(cq_db_t *db, const struct cq_stored *m)
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT min(lost) FROM messages WHERE chat = ? AND seq = ?",
                                  "di", &m->chat, m->seq);
    int rc = cq_db_row(db, st);
    if (rc) {
        return rc;
    }
    bool none = sqlite3_column_type(st, 0) == SQLITE_NULL;
    bool lost = sqlite3_column_int(st, 0) > 0;
    sqlite3_reset(st);
    if (none) {
        return 0;
    }
    return lost ? find_again(db, m) : 1;
}

int
cq_db_message_put(cq_db_t *db, const struct cq_stored *m)
{
    int rc = stored_already(db, m);
    if (rc) {
        return rc < 0 ? rc : 0;
    }
    rc = cq_db_run(db, cq_db_stmt(db,
                                  "INSERT INTO messages(chat, lost, seq, user, device, dseq, time,"
                                  " unreadable, text, medium)"
                                  " VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
                                  "diddiiitb", &m->chat, m->seq, &m->user, &m->device, m->dseq,
                                  m->time_unix_ms, (uint64_t)m->unreadable, m->text, m->text_size,
                                  m->medium, m->medium_size));
    /* by hand: a trigger that writes to a virtual table is refused with trusted_schema off */
    rc = rc ? rc
            : cq_db_run(db, cq_db_stmt(db, "INSERT INTO messages_fts(rowid, text) VALUES (?, ?)",
                                       "it", (uint64_t)sqlite3_last_insert_rowid(db->sql), m->text,
                                       m->text_size));
    return rc ? rc : 1;
}

int
cq_db_message_advance(cq_db_t *db, const struct cq_id *chat)
{
    struct cq_chat c;
    int rc = cq_db_chat_get(db, chat, &c);
    if (rc) {
        return rc;
    }
    sqlite3_stmt *st = cq_db_stmt(db,
                                  "SELECT seq FROM messages WHERE chat = ? AND lost = 0 AND seq > ?"
                                  " ORDER BY seq",
                                  "di", chat, c.held);
    uint64_t held = c.held;
    while ((rc = cq_db_step(db, st)) == 1 && cq_db_col_uint(st, 0) == held + 1) {
        held++;
    }
    if (st) {
        sqlite3_reset(st);
    }
    if (rc < 0 || held == c.held) {
        return rc < 0 ? rc : 0;
    }
    return cq_db_run(
        db, cq_db_stmt(db, "UPDATE chats SET held = ?2, head = max(head, ?2) WHERE chat = ?1", "di",
                       chat, held));
}

static void
read_message(sqlite3_stmt *st, struct cq_stored *m)
{
    m->chat = cq_db_col_id(st, 0);
    m->seq = cq_db_col_uint(st, 1);
    m->user = cq_db_col_id(st, 2);
    m->device = cq_db_col_id(st, 3);
    m->dseq = cq_db_col_uint(st, 4);
    m->time_unix_ms = cq_db_col_uint(st, 5);
    m->unreadable = sqlite3_column_int(st, 6) != 0;
    m->lost = sqlite3_column_int(st, 7) != 0;
    m->text = cq_db_col_dup(st, 8, &m->text_size);
    m->medium = (const uint8_t *)cq_db_col_dup(st, 9, &m->medium_size);
}

static void
reverse(struct cq_stored *rows, int count)
{
    for (int i = 0; i < count / 2; i++) {
        struct cq_stored t = rows[i];
        rows[i] = rows[count - 1 - i];
        rows[count - 1 - i] = t;
    }
}

static int
many_messages(cq_db_t *db, sqlite3_stmt *st, bool backwards, struct cq_stored **out)
{
    struct cq_stored *rows = NULL;
    int count = 0;
    int rc;
    while ((rc = cq_db_step(db, st)) == 1) {
        rows = cq_db_grow(rows, count, sizeof *rows);
        read_message(st, &rows[count++]);
    }
    if (rc < 0) {
        cq_db_message_free(rows, count);
        *out = NULL;
        return rc;
    }
    if (backwards) {
        reverse(rows, count);
    }
    *out = rows;
    return count;
}

/* 1: the server has lost messages of this chat; 0: it has not */
static int
has_lost(cq_db_t *db, const struct cq_id *chat)
{
    sqlite3_stmt *st =
        cq_db_stmt(db, "SELECT 1 FROM messages WHERE chat = ? AND lost > 0 LIMIT 1", "d", chat);
    int rc = cq_db_step(db, st);
    if (st) {
        sqlite3_reset(st);
    }
    return rc;
}

/* As people saw them: what a restore of the server kept, what it lost, what came after. A seq alone
 * says less, as the lost and the new have the same ones: a message comes behind all those which an
 * earlier restore lost from its seq or a lower one on. A restore is lost's number, a message that
 * the server has is later than all of them. Sorts the whole chat, so it is for chats with lost
 * messages only. */
#define LOST_RUNS                                                                    \
    "WITH r AS MATERIALIZED (SELECT lost AS number, min(seq) AS since FROM messages" \
    " WHERE chat = ?1 AND lost > 0 GROUP BY lost) "
#define HISTORY_ORDER                           \
    "(SELECT coalesce(max(r.number), 0) FROM r" \
    " WHERE r.since <= seq AND (lost = 0 OR r.number < lost))"
#define RANGE_COLUMNS "SELECT " MESSAGE_COLUMNS " FROM messages WHERE chat = ?1 AND seq >= ?2"

int
cq_db_message_range(cq_db_t *db,
                    const struct cq_id *chat,
                    const struct cq_range *range,
                    struct cq_stored **out)
{
    static const char *const queries[2][2] = {
        /* what the server has; the first ones, the last ones */
        {RANGE_COLUMNS " AND seq <= ?3 AND lost = 0 ORDER BY seq LIMIT ?4",
         RANGE_COLUMNS " AND seq <= ?3 AND lost = 0 ORDER BY seq DESC LIMIT ?4"},
        /* with lost ones */
        {LOST_RUNS RANGE_COLUMNS " AND seq <= ?3 ORDER BY " HISTORY_ORDER ", seq LIMIT ?4",
         LOST_RUNS RANGE_COLUMNS " AND seq <= ?3 ORDER BY " HISTORY_ORDER
                                 " DESC, seq DESC LIMIT ?4"},
    };
    uint64_t to = range->to > INT64_MAX ? INT64_MAX : range->to;
    int with_lost = range->with_lost ? has_lost(db, chat) : 0;
    if (with_lost < 0) {
        *out = NULL;
        return with_lost;
    }
    return many_messages(db,
                         cq_db_stmt(db, queries[with_lost][range->last], "diii", chat, range->from,
                                    to, (uint64_t)range->limit),
                         range->last, out);
}

int
cq_db_message_get(cq_db_t *db, const struct cq_id *chat, uint64_t seq, struct cq_stored **out)
{
    struct cq_range range = {.from = seq, .to = seq, .limit = 1};
    int count = cq_db_message_range(db, chat, &range, out);
    return count < 0 ? count : count ? 0 : -CQ_E_NOT_FOUND;
}

int
cq_db_message_unread(cq_db_t *db,
                     const struct cq_chat *chat,
                     const struct cq_id *me,
                     uint64_t *count)
{
    sqlite3_stmt *st =
        cq_db_stmt(db,
                   "SELECT count(*) FROM messages WHERE chat = ? AND lost = 0 AND seq > ?"
                   " AND user <> ?",
                   "did", &chat->chat, chat->my_read, me);
    int rc = cq_db_row(db, st);
    if (!rc) {
        *count = cq_db_col_uint(st, 0);
        sqlite3_reset(st);
    }
    return rc;
}

int
cq_db_message_sent(cq_db_t *db,
                   const struct cq_id *chat,
                   const struct cq_id *device,
                   uint64_t dseq,
                   struct cq_sent *out)
{
    sqlite3_stmt *st =
        cq_db_stmt(db,
                   "SELECT seq, time FROM messages WHERE chat = ? AND lost = 0 AND device = ?"
                   " AND dseq = ? ORDER BY seq DESC LIMIT 1",
                   "ddi", chat, device, dseq);
    int rc = cq_db_row(db, st);
    if (!rc) {
        *out = (struct cq_sent){cq_db_col_uint(st, 0), cq_db_col_uint(st, 1)};
        sqlite3_reset(st);
    }
    return rc;
}

/* ---- search ---- */

static size_t
characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    }
    return count;
}

static void
append(cq_buf_t *b, const char *s)
{
    cq_buf_append(b, s, strlen(s));
}

/* Copies a word; a character of `special` gets `escape` before it. */
static void
append_escaped(cq_buf_t *b, const char *word, size_t n, const char *special, const char *escape)
{
    for (size_t i = 0; i < n; i++) {
        if (strchr(special, word[i])) {
            append(b, escape);
        }
        cq_buf_append(b, &word[i], 1);
    }
}

/* Words of three characters and more go to the trigram index as quoted phrases, all of them; of the
 * others the last one becomes a LIKE pattern on what the index found. */
static void
split_query(const char *text, cq_buf_t *match, cq_buf_t *like)
{
    for (int words = 0; *text && words < SEARCH_WORDS_MAX; words++) {
        text += strspn(text, " \t\n");
        size_t n = strcspn(text, " \t\n");
        if (characters(text, n) >= TRIGRAM) {
            append(match, match->size ? " \"" : "\"");
            append_escaped(match, text, n, "\"", "\"");
            append(match, "\"");
        } else if (n) {
            cq_buf_clear(like);
            append(like, "%");
            append_escaped(like, text, n, "%_\\", "\\");
            append(like, "%");
        }
        text += n;
    }
    if (!like->size) {
        append(like, "%");
    }
}

int
cq_db_message_search(cq_db_t *db,
                     const char *text,
                     const struct cq_id *chat,
                     uint32_t limit,
                     struct cq_stored **out)
{
    static const char with_index[] =
        "SELECT m.chat, m.seq, m.user, m.device, m.dseq, m.time, m.unreadable, m.lost, m.text,"
        " m.medium"
        " FROM messages_fts f JOIN messages m ON m.id = f.rowid WHERE messages_fts MATCH ?1"
        " AND m.text LIKE ?2 ESCAPE '\\' AND (?3 OR m.chat = ?4) ORDER BY m.time DESC, m.seq DESC "
        "LIMIT ?5";
    static const char without[] =
        "SELECT " MESSAGE_COLUMNS " FROM messages WHERE ?1 IS NOT NULL"
        " AND text LIKE ?2 ESCAPE '\\' AND (?3 OR chat = ?4) ORDER BY time DESC, seq DESC LIMIT ?5";
    static const struct cq_id none;
    cq_buf_t match = {0};
    cq_buf_t like = {0};
    split_query(text, &match, &like);
    int rc = many_messages(db,
                           cq_db_stmt(db, match.size ? with_index : without, "ttidi", match.data,
                                      match.size, like.data, like.size, (uint64_t)(chat == NULL),
                                      chat ? chat : &none, (uint64_t)limit),
                           true, out);
    cq_buf_free(&match);
    cq_buf_free(&like);
    return rc;
}

void
cq_db_message_free(struct cq_stored *rows, int count)
{
    for (int i = 0; i < count; i++) {
        /* given by read_message; the member is const for everybody else */
        union {
            const void *given;
            void *own;
        } text = {rows[i].text}, medium = {rows[i].medium};
        free(text.own);
        free(medium.own);
    }
    free(rows);
}
