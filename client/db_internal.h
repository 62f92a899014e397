/* SPDX-License-Identifier: MPL-2.0
 * What the db files share: cached statements and their arguments.
 */
#ifndef CLIENT_DB_INTERNAL_H
#define CLIENT_DB_INTERNAL_H

#include <sqlite3.h>

#include "client/db.h"

enum {
    CQ_DB_STMT_MAX = 96
};

struct cq_db {
    sqlite3 *sql;
    struct {
        const char *text; /* the literal's address is the key */
        sqlite3_stmt *stmt;
    } cache[CQ_DB_STMT_MAX];
    int data_version;
    bool in_tx;
};

/* The prepared statement of an SQL literal, reset and bound by `types`: i uint64, d id, b bin
 * (pointer, size_t), t text (pointer, size_t). Values are copied. NULL on error. Valid until the
 * same literal is asked for again. */
sqlite3_stmt *cq_db_stmt(cq_db_t *db, const char *sql, const char *types, ...);
/* Runs a statement without rows. 0 or an error. */
int cq_db_run(cq_db_t *db, sqlite3_stmt *st) CQ_MUST_CHECK;
/* One step: 1 row, 0 no row (statement reset), or an error (reset). */
int cq_db_step(cq_db_t *db, sqlite3_stmt *st) CQ_MUST_CHECK;
/* One row, then reset by the caller with sqlite3_reset: 0, -CQ_E_NOT_FOUND or an error */
int cq_db_row(cq_db_t *db, sqlite3_stmt *st) CQ_MUST_CHECK;
/* The error for the last failure of the connection. */
int cq_db_error(cq_db_t *db);

struct cq_id cq_db_col_id(sqlite3_stmt *st, int col);
uint64_t cq_db_col_uint(sqlite3_stmt *st, int col);
/* Copies a blob of exactly n bytes; false if it has another size. */
bool cq_db_col_bytes(sqlite3_stmt *st, int col, void *out, size_t n);
/* Copies a string into out of that size, cut. */
void cq_db_col_str(sqlite3_stmt *st, int col, char *out, size_t size);
/* Gives a copy with a final NUL; *n is its length. */
char *cq_db_col_dup(sqlite3_stmt *st, int col, size_t *n);

#endif
