/* SPDX-License-Identifier: MPL-2.0 */
#include <stdlib.h>

#include "client/db_internal.h"

#define CHAT_COLUMNS                                                                         \
    "chat, peer, peer_name, open, key_version, head, held, shown, my_read, acked_delivered," \
    " acked_read, dseq_top, dseq_done"

static void
read_chat(sqlite3_stmt *st, struct cq_chat *c)
{
    c->chat = cq_db_col_id(st, 0);
    c->peer = cq_db_col_id(st, 1);
    cq_db_col_str(st, 2, c->peer_name, sizeof c->peer_name);
    c->open = sqlite3_column_int(st, 3) != 0;
    c->key_version = cq_db_col_uint(st, 4);
    c->head = cq_db_col_uint(st, 5);
    c->held = cq_db_col_uint(st, 6);
    c->shown = cq_db_col_uint(st, 7);
    c->my_read = cq_db_col_uint(st, 8);
    c->acked_delivered = cq_db_col_uint(st, 9);
    c->acked_read = cq_db_col_uint(st, 10);
    c->dseq_top = cq_db_col_uint(st, 11);
    c->dseq_done = cq_db_col_uint(st, 12);
}

static int
one_chat(cq_db_t *db, sqlite3_stmt *st, struct cq_chat *out)
{
    int rc = cq_db_row(db, st);
    if (!rc) {
        read_chat(st, out);
        sqlite3_reset(st);
    }
    return rc;
}

int
cq_db_chat_get(cq_db_t *db, const struct cq_id *chat, struct cq_chat *out)
{
    return one_chat(
        db, cq_db_stmt(db, "SELECT " CHAT_COLUMNS " FROM chats WHERE chat = ?", "d", chat), out);
}

int
cq_db_chat_by_name(cq_db_t *db, const char *name, struct cq_chat *out)
{
    return one_chat(db,
                    cq_db_stmt(db, "SELECT " CHAT_COLUMNS " FROM chats WHERE peer_name = ?", "t",
                               name, strlen(name)),
                    out);
}

static int
many_chats(cq_db_t *db, sqlite3_stmt *st, struct cq_chat **out)
{
    struct cq_chat *rows = NULL;
    int count = 0;
    int rc;
    while ((rc = cq_db_step(db, st)) == 1) {
        rows = cq_db_grow(rows, count, sizeof *rows);
        read_chat(st, &rows[count++]);
    }
    if (rc < 0) {
        free(rows);
        rows = NULL;
    }
    *out = rows;
    return rc < 0 ? rc : count;
}

int
cq_db_chat_all(cq_db_t *db, struct cq_chat **out)
{
    return many_chats(db, cq_db_stmt(db, "SELECT " CHAT_COLUMNS " FROM chats", ""), out);
}

int
cq_db_chat_behind(cq_db_t *db, struct cq_chat **out)
{
    return many_chats(
        db, cq_db_stmt(db, "SELECT " CHAT_COLUMNS " FROM chats WHERE held < head", ""), out);
}

int
cq_db_chat_unacked(cq_db_t *db, const struct cq_id *device, struct cq_chat **out)
{
    return many_chats(
        db,
        cq_db_stmt(db,
                   "SELECT " CHAT_COLUMNS " FROM chats WHERE my_read > acked_read"
                   " OR held >= acked_delivered + 256 OR (held > acked_delivered AND EXISTS"
                   " (SELECT 1 FROM messages m WHERE m.chat = chats.chat AND m.lost = 0"
                   " AND m.seq > acked_delivered AND m.seq <= held AND m.device <> ?))",
                   "d", device),
        out);
}

int
cq_db_chat_sync(cq_db_t *db, const struct cq_sync_chat *row)
{
    /* A chat that is new here: what the user has read elsewhere is not news on this device. */
    int rc = cq_db_run(
        db,
        cq_db_stmt(db,
                   "INSERT OR IGNORE INTO chats(chat, peer, peer_name, open, key_version, shown)"
                   " VALUES (?, ?, ?, ?, ?, ?)",
                   "ddtiii", &row->chat, &row->peer, row->peer_name.p, row->peer_name.n,
                   (uint64_t)row->open, row->key_version, row->read));
    if (rc) {
        return rc;
    }
    rc = cq_db_run(
        db,
        cq_db_stmt(db,
                   "UPDATE chats SET peer_name = ?2, open = ?3, key_version = max(key_version, ?4),"
                   " head = max(head, ?5), my_read = max(my_read, ?6), acked_read = ?6,"
                   " acked_delivered = ?7, dseq_done = max(dseq_done, ?8) WHERE chat = ?1",
                   "dtiiiiii", &row->chat, row->peer_name.p, row->peer_name.n, (uint64_t)row->open,
                   row->key_version, row->head, row->read, row->delivered, row->last_dseq));
    return rc ? rc
              : cq_db_person_put(db, &row->peer, (const char *)row->peer_name.p, row->peer_name.n);
}

int
cq_db_chat_reset(cq_db_t *db)
{
    int rc = cq_db_run(db, cq_db_stmt(db, "DELETE FROM cursors", ""));
    /* one new number for all, so that several restores may each lose the same seq */
    rc = rc ? rc
            : cq_db_run(db,
                        cq_db_stmt(db,
                                   "UPDATE messages SET lost = (SELECT max(lost) + 1 FROM messages)"
                                   " WHERE lost = 0",
                                   ""));
    return rc ? rc
              : cq_db_run(db, cq_db_stmt(db,
                                         "UPDATE chats SET head = 0, held = 0, my_read = 0,"
                                         " acked_delivered = 0, acked_read = 0, dseq_done = 0",
                                         ""));
}

int
cq_db_chat_new_device(cq_db_t *db)
{
    return cq_db_run(db, cq_db_stmt(db, "UPDATE chats SET dseq_top = 0, dseq_done = 0", ""));
}

int
cq_db_chat_head(cq_db_t *db, const struct cq_id *chat, uint64_t seq)
{
    return cq_db_run(db, cq_db_stmt(db, "UPDATE chats SET head = ?2 WHERE chat = ?1 AND head < ?2",
                                    "di", chat, seq));
}

int
cq_db_chat_read(cq_db_t *db, const struct cq_id *chat, uint64_t up_to)
{
    return cq_db_run(
        db,
        cq_db_stmt(
            db,
            "UPDATE chats SET my_read = min(?2, held) WHERE chat = ?1 AND my_read < min(?2, held)",
            "di", chat, up_to));
}

int
cq_db_chat_acked(cq_db_t *db, const struct cq_id *chat, uint64_t delivered, uint64_t read)
{
    return cq_db_run(db, cq_db_stmt(db,
                                    "UPDATE chats SET acked_delivered = max(acked_delivered, ?2),"
                                    " acked_read = max(acked_read, ?3),"
                                    " my_read = max(my_read, ?3) WHERE chat = ?1",
                                    "dii", chat, delivered, read));
}

int
cq_db_chat_shown(cq_db_t *db, const struct cq_id *chat, uint64_t up_to)
{
    return cq_db_run(db,
                     cq_db_stmt(db, "UPDATE chats SET shown = ?2 WHERE chat = ?1 AND shown < ?2",
                                "di", chat, up_to));
}

int
cq_db_chat_done(cq_db_t *db, const struct cq_id *chat, uint64_t dseq)
{
    return cq_db_run(
        db, cq_db_stmt(db, "UPDATE chats SET dseq_done = ?2 WHERE chat = ?1 AND dseq_done < ?2",
                       "di", chat, dseq));
}

/* ---- keys ---- */

int
cq_db_key_put(cq_db_t *db,
              const struct cq_id *chat,
              uint64_t version,
              const uint8_t key[CQ_KEY_SIZE])
{
    return cq_db_run(db, cq_db_stmt(db, "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", "dib", chat,
                                    version, key, (size_t)CQ_KEY_SIZE));
}

int
cq_db_key_get(cq_db_t *db, const struct cq_id *chat, uint64_t version, uint8_t key[CQ_KEY_SIZE])
{
    sqlite3_stmt *st =
        cq_db_stmt(db, "SELECT key FROM keys WHERE chat = ? AND version = ?", "di", chat, version);
    int rc = cq_db_row(db, st);
    if (!rc) {
        rc = cq_db_col_bytes(st, 0, key, CQ_KEY_SIZE) ? 0 : -CQ_E_CORRUPT;
        sqlite3_reset(st);
    }
    return rc;
}

int
cq_db_key_have(cq_db_t *db, struct cq_key_have **out)
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT chat, max(version) FROM keys GROUP BY chat", "");
    struct cq_key_have *rows = NULL;
    int count = 0;
    int rc;
    while ((rc = cq_db_step(db, st)) == 1) {
        rows = cq_db_grow(rows, count, sizeof *rows);
        rows[count++] = (struct cq_key_have){cq_db_col_id(st, 0), cq_db_col_uint(st, 1)};
    }
    *out = rows;
    return rc < 0 ? rc : count;
}

/* ---- cursors and people ---- */

int
cq_db_cursor_put(cq_db_t *db, const struct cq_id *chat, const struct cq_cursor *c)
{
    int rc = cq_db_run(
        db, cq_db_stmt(db,
                       "INSERT INTO cursors VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE"
                       " SET up_to = ?4, time = ?5 WHERE up_to < ?4",
                       "dddii", chat, &c->user, &c->device, c->up_to, c->time_unix_ms));
    return rc ? rc : c->up_to > 0 && sqlite3_changes(db->sql) > 0;
}

int
cq_db_cursor_get(cq_db_t *db,
                 const struct cq_id *chat,
                 const struct cq_id *user,
                 uint64_t *delivered,
                 uint64_t *read)
{
    static const struct cq_id none;
    sqlite3_stmt *st =
        cq_db_stmt(db,
                   "SELECT coalesce(max(up_to), 0), coalesce(max(CASE WHEN device = ?3"
                   " THEN up_to ELSE 0 END), 0) FROM cursors WHERE chat = ?1 AND user = ?2",
                   "ddd", chat, user, &none);
    int rc = cq_db_row(db, st);
    if (!rc) {
        *delivered = cq_db_col_uint(st, 0); /* read implies delivered */
        *read = cq_db_col_uint(st, 1);
        sqlite3_reset(st);
    }
    return rc;
}

int
cq_db_person_put(cq_db_t *db, const struct cq_id *user, const char *name, size_t n)
{
    return cq_db_run(
        db, cq_db_stmt(db, "INSERT OR REPLACE INTO people VALUES (?, ?)", "dt", user, name, n));
}

int
cq_db_person_name(cq_db_t *db, const struct cq_id *user, char name[CQ_NAME_MAX + 1])
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT name FROM people WHERE user = ?", "d", user);
    int rc = cq_db_row(db, st);
    if (!rc) {
        cq_db_col_str(st, 0, name, CQ_NAME_MAX + 1);
        sqlite3_reset(st);
    }
    return rc;
}
