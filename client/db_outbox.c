/* SPDX-License-Identifier: MPL-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/db_internal.h"

#define OUT_COLUMNS                                                                       \
    "id, chat, dseq, prev, key_version, nonce, ciphertext, text, created, state, error, " \
    "descriptor,"                                                                         \
    " media, file"
/* the states that may still go out */
#define LIVE "state < 3"
static_assert(CQ_OUT_FAILED == 3 && CQ_OUT_UPLOADING == 4, "the statements name states by number");

int
cq_db_out_next(cq_db_t *db, const struct cq_id *chat, uint64_t *dseq, uint64_t *prev)
{
    struct cq_chat c;
    int rc = cq_db_chat_get(db, chat, &c);
    if (rc) {
        return rc;
    }
    sqlite3_stmt *st = cq_db_stmt(
        db, "SELECT coalesce(max(dseq), 0) FROM outbox WHERE chat = ? AND " LIVE, "d", chat);
    rc = cq_db_row(db, st);
    if (rc) {
        return rc;
    }
    uint64_t waiting = cq_db_col_uint(st, 0);
    sqlite3_reset(st);
    /* the last one that was or will be accepted; refused ones leave holes in dseq, which is allowed
     */
    *prev = waiting > c.dseq_done ? waiting : c.dseq_done;
    uint64_t top = c.dseq_top > *prev ? c.dseq_top : *prev;
    *dseq = top + 1;
    return cq_db_run(
        db, cq_db_stmt(db, "UPDATE chats SET dseq_top = ?2 WHERE chat = ?1", "di", chat, *dseq));
}

int
cq_db_out_put(cq_db_t *db, struct cq_out *o)
{
    int rc = cq_db_run(
        db, cq_db_stmt(db,
                       "INSERT INTO outbox(chat, dseq, prev, key_version, nonce, ciphertext,"
                       " text, created, state, descriptor, media, file)"
                       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       "diiibbtiibbt", &o->chat, o->dseq, o->prev, o->key_version, o->nonce,
                       sizeof o->nonce, o->ciphertext, o->ciphertext_size, o->text, o->text_size,
                       o->created_unix_ms, (uint64_t)o->state, o->descriptor, o->descriptor_size,
                       o->media, o->media_size, o->file, o->file_size));
    if (!rc) {
        o->id = (uint64_t)sqlite3_last_insert_rowid(db->sql);
    }
    return rc;
}

static int
read_out(sqlite3_stmt *st, struct cq_out *o)
{
    *o = (struct cq_out){
        .id = cq_db_col_uint(st, 0),
        .chat = cq_db_col_id(st, 1),
        .dseq = cq_db_col_uint(st, 2),
        .prev = cq_db_col_uint(st, 3),
        .key_version = cq_db_col_uint(st, 4),
        .created_unix_ms = cq_db_col_uint(st, 8),
        .state = (enum cq_out_state)sqlite3_column_int(st, 9),
        .error = sqlite3_column_int(st, 10),
    };
    bool ok = cq_db_col_bytes(st, 5, o->nonce, sizeof o->nonce);
    o->ciphertext = (uint8_t *)cq_db_col_dup(st, 6, &o->ciphertext_size);
    o->text = cq_db_col_dup(st, 7, &o->text_size);
    o->descriptor = (uint8_t *)cq_db_col_dup(st, 11, &o->descriptor_size);
    o->media = (uint8_t *)cq_db_col_dup(st, 12, &o->media_size);
    o->file = cq_db_col_dup(st, 13, &o->file_size);
    return ok && o->ciphertext_size <= CQ_CIPHERTEXT_MAX ? 0 : -CQ_E_CORRUPT;
}

static int
many_outs(cq_db_t *db, sqlite3_stmt *st, struct cq_out **out)
{
    struct cq_out *rows = NULL;
    int count = 0;
    int rc;
    while ((rc = cq_db_step(db, st)) == 1) {
        rows = cq_db_grow(rows, count, sizeof *rows);
        rc = read_out(st, &rows[count++]);
        if (rc) {
            sqlite3_reset(st);
            break;
        }
    }
    if (rc < 0) {
        cq_db_out_free(rows, count);
        rows = NULL;
    }
    *out = rows;
    return rc < 0 ? rc : count;
}

int
cq_db_out_list(cq_db_t *db, const struct cq_id *chat, struct cq_out **out)
{
    if (!chat) {
        return many_outs(db, cq_db_stmt(db, "SELECT " OUT_COLUMNS " FROM outbox ORDER BY id", ""),
                         out);
    }
    /* enough for a full window and what follows it; the rest is read when answers have come */
    return many_outs(db,
                     cq_db_stmt(db,
                                "SELECT " OUT_COLUMNS " FROM outbox WHERE chat = ? AND " LIVE
                                " ORDER BY dseq LIMIT 64",
                                "d", chat),
                     out);
}

int
cq_db_out_chats(cq_db_t *db, struct cq_id **out)
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT DISTINCT chat FROM outbox WHERE " LIVE, "");
    struct cq_id *rows = NULL;
    int count = 0;
    int rc;
    while ((rc = cq_db_step(db, st)) == 1) {
        rows = cq_db_grow(rows, count, sizeof *rows);
        rows[count++] = cq_db_col_id(st, 0);
    }
    *out = rows;
    return rc < 0 ? rc : count;
}

int
cq_db_out_get(cq_db_t *db, uint64_t id, struct cq_out *out)
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT " OUT_COLUMNS " FROM outbox WHERE id = ?", "i", id);
    int rc = cq_db_row(db, st);
    if (!rc) {
        rc = read_out(st, out);
        sqlite3_reset(st);
        if (rc) {
            cq_db_out_clear(out);
        }
    }
    return rc;
}

int
cq_db_out_state(cq_db_t *db, uint64_t id, enum cq_out_state state, int error)
{
    return cq_db_run(db, cq_db_stmt(db, "UPDATE outbox SET state = ?2, error = ?3 WHERE id = ?1",
                                    "iii", id, (uint64_t)state, (uint64_t)error));
}

int
cq_db_out_rebuild(cq_db_t *db, const struct cq_out *o)
{
    return cq_db_run(
        db, cq_db_stmt(db,
                       "UPDATE outbox SET dseq = ?2, prev = ?3, key_version = ?4, nonce = ?5,"
                       " ciphertext = ?6, descriptor = ?7, media = ?8, file = '', state = 0,"
                       " error = 0 WHERE id = ?1",
                       "iiiibbbb", o->id, o->dseq, o->prev, o->key_version, o->nonce,
                       sizeof o->nonce, o->ciphertext, o->ciphertext_size, o->descriptor,
                       o->descriptor_size, o->media, o->media_size));
}

int
cq_db_out_delete(cq_db_t *db, uint64_t id)
{
    return cq_db_run(db, cq_db_stmt(db, "DELETE FROM outbox WHERE id = ?", "i", id));
}

int
cq_db_out_waiting(cq_db_t *db, const struct cq_id *chat, uint64_t *count)
{
    sqlite3_stmt *st =
        cq_db_stmt(db, "SELECT count(*) FROM outbox WHERE chat = ? AND state <> 3", "d", chat);
    int rc = cq_db_row(db, st);
    if (!rc) {
        *count = cq_db_col_uint(st, 0);
        sqlite3_reset(st);
    }
    return rc;
}

int
cq_db_out_clear_failed(cq_db_t *db)
{
    int rc = cq_db_run(db, cq_db_stmt(db, "DELETE FROM outbox WHERE state = 3", ""));
    return rc ? rc : sqlite3_changes(db->sql);
}

int
cq_db_out_new_device(cq_db_t *db, int error)
{
    int rc = cq_db_run(db, cq_db_stmt(db, "UPDATE outbox SET state = 3, error = ? WHERE state = 1",
                                      "i", (uint64_t)error));
    /* the old device's numbers say nothing about the new one's */
    return rc ? rc : cq_db_run(db, cq_db_stmt(db, "UPDATE outbox SET dseq = 0 WHERE " LIVE, ""));
}

int
cq_db_out_describe(cq_db_t *db, const struct cq_out *o)
{
    return cq_db_run(db, cq_db_stmt(db, "UPDATE outbox SET descriptor = ?2 WHERE id = ?1", "ib",
                                    o->id, o->descriptor, o->descriptor_size));
}

int
cq_db_out_upload(cq_db_t *db, uint64_t after, struct cq_out *out)
{
    sqlite3_stmt *st =
        cq_db_stmt(db, "SELECT id FROM outbox WHERE state = 4 AND id > ? ORDER BY id", "i", after);
    int rc = cq_db_row(db, st);
    if (rc) {
        return rc;
    }
    uint64_t id = cq_db_col_uint(st, 0);
    sqlite3_reset(st);
    return cq_db_out_get(db, id, out);
}

int
cq_db_out_has_file(cq_db_t *db, const char *file)
{
    sqlite3_stmt *st = cq_db_stmt(db, "SELECT 1 FROM outbox WHERE state = 4 AND file = ?", "t",
                                  file, strlen(file));
    int rc = cq_db_row(db, st);
    if (!rc) {
        sqlite3_reset(st);
    }
    return rc == -CQ_E_NOT_FOUND ? 0 : rc ? rc : 1;
}

void
cq_db_out_clear(struct cq_out *o)
{
    free(o->ciphertext);
    free(o->text);
    free(o->descriptor);
    free(o->media);
    free(o->file);
}

void
cq_db_out_free(struct cq_out *rows, int count)
{
    for (int i = 0; i < count; i++) {
        cq_db_out_clear(&rows[i]);
    }
    free(rows);
}
