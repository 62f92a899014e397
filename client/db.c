/* SPDX-License-Identifier: MPL-2.0 */
#include "client/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "client/db_internal.h"

enum {
    SCHEMA_VERSION = 2,
    BUSY_TIMEOUT_MS = 10000,
    RETRY_MS = 20,
    PATH_SIZE = 4096
};

static const char first_schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE chats(chat BLOB PRIMARY KEY, peer BLOB NOT NULL, peer_name TEXT NOT NULL,"
    " open INTEGER NOT NULL, key_version INTEGER NOT NULL, head INTEGER NOT NULL DEFAULT 0,"
    " held INTEGER NOT NULL DEFAULT 0, shown INTEGER NOT NULL DEFAULT 0,"
    " my_read INTEGER NOT NULL DEFAULT 0, acked_delivered INTEGER NOT NULL DEFAULT 0,"
    " acked_read INTEGER NOT NULL DEFAULT 0, dseq_top INTEGER NOT NULL DEFAULT 0,"
    " dseq_done INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE people(user BLOB PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE keys(chat BLOB NOT NULL, version INTEGER NOT NULL, key BLOB NOT NULL,"
    " PRIMARY KEY(chat, version)) WITHOUT ROWID;"
    "CREATE TABLE cursors(chat BLOB NOT NULL, user BLOB NOT NULL, device BLOB NOT NULL,"
    " up_to INTEGER NOT NULL, time INTEGER NOT NULL, PRIMARY KEY(chat, user, device)) WITHOUT "
    "ROWID;"
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, chat BLOB NOT NULL, lost INTEGER NOT NULL,"
    " seq INTEGER NOT NULL, user BLOB NOT NULL, device BLOB NOT NULL, dseq INTEGER NOT NULL,"
    " time INTEGER NOT NULL, unreadable INTEGER NOT NULL, text TEXT NOT NULL);"
    "CREATE UNIQUE INDEX messages_seq ON messages(chat, lost, seq);"
    "CREATE VIRTUAL TABLE messages_fts USING fts5(text, content='messages', content_rowid='id',"
    " tokenize='trigram');"
    "CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, chat BLOB NOT NULL,"
    " dseq INTEGER NOT NULL, prev INTEGER NOT NULL, key_version INTEGER NOT NULL,"
    " nonce BLOB NOT NULL, ciphertext BLOB NOT NULL, text TEXT NOT NULL, created INTEGER NOT NULL,"
    " state INTEGER NOT NULL, error INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX outbox_chat ON outbox(chat, dseq);"
    "PRAGMA user_version = 1;";
/* Version 2: media. descriptor, medium: cq_medium_write. */
static const char media_schema[] = "ALTER TABLE messages ADD COLUMN medium BLOB;"
                                   "ALTER TABLE outbox ADD COLUMN descriptor BLOB;"
                                   "ALTER TABLE outbox ADD COLUMN media BLOB;"
                                   "ALTER TABLE outbox ADD COLUMN file TEXT;"
                                   "PRAGMA user_version = 2;";
static const char *const schemas[SCHEMA_VERSION] = {first_schema, media_schema};

int
cq_db_error(cq_db_t *db)
{
    switch (sqlite3_errcode(db->sql) & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -CQ_E_BUSY;
    case SQLITE_FULL:
        return -CQ_E_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return -CQ_E_CORRUPT;
    default:
        return -CQ_E_IO;
    }
}

static sqlite3_stmt *
find_stmt(cq_db_t *db, const char *sql)
{
    for (int i = 0; i < CQ_DB_STMT_MAX; i++) {
        if (db->cache[i].text == sql) {
            sqlite3_reset(db->cache[i].stmt);
            sqlite3_clear_bindings(db->cache[i].stmt);
            return db->cache[i].stmt;
        }
        if (!db->cache[i].text) {
            if (sqlite3_prepare_v3(db->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, &db->cache[i].stmt,
                                   NULL)) {
                return NULL;
            }
            db->cache[i].text = sql;
            return db->cache[i].stmt;
        }
    }
    return NULL; /* more literals than CQ_DB_STMT_MAX: a unit test walks all of them */
}

sqlite3_stmt *
cq_db_stmt(cq_db_t *db, const char *sql, const char *types, ...)
{
    sqlite3_stmt *st = find_stmt(db, sql);
    va_list ap;
    va_start(ap, types);
    for (int col = 1; st && *types; types++, col++) {
        if (*types == 'i') {
            sqlite3_bind_int64(st, col, (sqlite3_int64)va_arg(ap, uint64_t));
            continue;
        }
        if (*types == 'd') {
            sqlite3_bind_blob(st, col, va_arg(ap, const struct cq_id *)->b, CQ_ID_SIZE,
                              SQLITE_TRANSIENT);
            continue;
        }
        const void *p = va_arg(ap, const void *);
        size_t n = va_arg(ap, size_t);
        if (*types == 't') {
            sqlite3_bind_text64(st, col, p ? p : "", n, SQLITE_TRANSIENT, SQLITE_UTF8);
        } else {
            sqlite3_bind_blob64(st, col, p ? p : "", n, SQLITE_TRANSIENT);
        }
    }
    va_end(ap);
    return st;
}

int
cq_db_step(cq_db_t *db, sqlite3_stmt *st)
{
    int rc = st ? sqlite3_step(st) : SQLITE_ERROR;
    if (rc == SQLITE_ROW) {
        return 1;
    }
    int err = rc == SQLITE_DONE ? 0 : cq_db_error(db);
    if (st) {
        sqlite3_reset(st);
    }
    return err;
}

int
cq_db_run(cq_db_t *db, sqlite3_stmt *st)
{
    int rc = cq_db_step(db, st);
    if (st) {
        sqlite3_reset(st);
    }
    return rc < 0 ? rc : 0;
}

int
cq_db_row(cq_db_t *db, sqlite3_stmt *st)
{
    int rc = cq_db_step(db, st);
    return rc < 0 ? rc : rc == 1 ? 0 : -CQ_E_NOT_FOUND;
}

struct cq_id
cq_db_col_id(sqlite3_stmt *st, int col)
{
    struct cq_id id = {{0}};
    (void)cq_db_col_bytes(st, col, id.b, sizeof id.b);
    return id;
}

uint64_t
cq_db_col_uint(sqlite3_stmt *st, int col)
{
    return (uint64_t)sqlite3_column_int64(st, col);
}

bool
cq_db_col_bytes(sqlite3_stmt *st, int col, void *out, size_t n)
{
    const void *p = sqlite3_column_blob(st, col);
    if (!p || (size_t)sqlite3_column_bytes(st, col) != n) {
        return false;
    }
    memcpy(out, p, n);
    return true;
}

void
cq_db_col_str(sqlite3_stmt *st, int col, char *out, size_t size)
{
    const void *p = sqlite3_column_blob(st, col);
    size_t n = p ? (size_t)sqlite3_column_bytes(st, col) : 0;
    n = n < size ? n : size - 1;
    memcpy(out, p ? p : "", n);
    out[n] = '\0';
}

char *
cq_db_col_dup(sqlite3_stmt *st, int col, size_t *n)
{
    const void *p = sqlite3_column_blob(st, col);
    *n = p ? (size_t)sqlite3_column_bytes(st, col) : 0;
    char *copy = malloc(*n + 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, p ? p : "", *n);
    copy[*n] = '\0';
    return copy;
}

void *
cq_db_grow(void *rows, int count, size_t size)
{
    /* room is a power of two that is reached exactly when the next row would not fit */
    if (count & (count - 1)) {
        return rows;
    }
    void *more = realloc(rows, (size_t)(count ? count * 2 : 1) * size);
    if (!more) {
        abort();
    }
    return more;
}

int
cq_db_begin(cq_db_t *db)
{
    int rc = cq_db_run(db, cq_db_stmt(db, "BEGIN IMMEDIATE", ""));
    db->in_tx = rc == 0;
    return rc;
}

int
cq_db_end(cq_db_t *db, int rc)
{
    if (rc >= 0) {
        int failed = cq_db_run(db, cq_db_stmt(db, "COMMIT", ""));
        rc = failed ? failed : rc;
    }
    if (rc < 0 && !sqlite3_get_autocommit(db->sql)) {
        sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
    }
    db->in_tx = false;
    return rc;
}

bool
cq_db_changed(cq_db_t *db)
{
    sqlite3_stmt *st = cq_db_stmt(db, "PRAGMA data_version", "");
    if (cq_db_step(db, st) != 1) {
        return true;
    }
    int version = sqlite3_column_int(st, 0);
    sqlite3_reset(st);
    bool changed = version != db->data_version;
    db->data_version = version;
    return changed;
}

/* ---- identity: rows of meta ---- */

static int
meta_put(cq_db_t *db, const char *key, const void *p, size_t n)
{
    return cq_db_run(db, cq_db_stmt(db, "INSERT OR REPLACE INTO meta VALUES (?, ?)", "tb", key,
                                    strlen(key), p, n));
}

/* Bytes read, at most size; 0 if missing. */
static int
meta_get(cq_db_t *db, const char *key, void *out, size_t size, size_t *n)
{
    sqlite3_stmt *st =
        cq_db_stmt(db, "SELECT value FROM meta WHERE key = ?", "t", key, strlen(key));
    *n = 0;
    int rc = cq_db_step(db, st);
    if (rc <= 0) {
        return rc;
    }
    size_t have = (size_t)sqlite3_column_bytes(st, 0);
    rc = have > size ? -CQ_E_CORRUPT : 0;
    if (!rc && have) {
        memcpy(out, sqlite3_column_blob(st, 0), have);
        *n = have;
    }
    sqlite3_reset(st);
    return rc;
}

/* Everything of fixed size; missing rows leave zeroes. */
struct meta_field {
    const char *key;
    size_t offset;
    size_t size;
};

#define META(key, member)                                                                    \
    {                                                                                        \
        key, offsetof(struct cq_identity, member), sizeof(((struct cq_identity *)0)->member) \
    }

static const struct meta_field meta_fields[] = {
    META("device", device),
    META("public_key", public_key),
    META("secret_key", secret_key),
    META("user", user),
    META("name", name),
    META("store_key", store_key),
    META("cloned", cloned),
    META("epoch", epoch),
    META("version", version),
    META("servers", servers),
};

int
cq_db_identity_load(cq_db_t *db, struct cq_identity *id)
{
    memset(id, 0, sizeof *id);
    size_t n;
    for (size_t i = 0; i < sizeof meta_fields / sizeof meta_fields[0]; i++) {
        const struct meta_field *f = &meta_fields[i];
        int rc = meta_get(db, f->key, (char *)id + f->offset, f->size, &n);
        if (rc < 0) {
            return rc;
        }
        if (!strcmp(f->key, "store_key")) {
            id->has_store_key = n == CQ_KEY_SIZE;
        }
    }
    id->name[sizeof id->name - 1] = '\0';
    id->servers[sizeof id->servers - 1] = '\0';
    return meta_get(db, "token", id->token, sizeof id->token, &id->token_size);
}

int
cq_db_identity_save(cq_db_t *db, const struct cq_identity *id)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof meta_fields / sizeof meta_fields[0]; i++) {
        const struct meta_field *f = &meta_fields[i];
        if (strcmp(f->key, "store_key") != 0 || id->has_store_key) {
            rc = meta_put(db, f->key, (const char *)id + f->offset, f->size);
        }
    }
    return rc ? rc : meta_put(db, "token", id->token, id->token_size);
}

int
cq_db_version_set(cq_db_t *db, const struct cq_id *epoch, uint64_t version)
{
    int rc = meta_put(db, "epoch", epoch->b, sizeof epoch->b);
    return rc ? rc : meta_put(db, "version", &version, sizeof version);
}

int
cq_db_servers_set(cq_db_t *db, const char *servers)
{
    char room[CQ_DB_SERVERS_MAX] = {0};
    memcpy(room, servers, strnlen(servers, sizeof room - 1));
    return meta_put(db, "servers", room, sizeof room);
}

/* ---- opening ---- */

static int
make_home(const char *home)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof path, "%s", home) >= (int)sizeof path) {
        return -CQ_E_TOO_BIG;
    }
    for (char *p = path + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            if (mkdir(path, 0700) && errno != EEXIST) {
                return -CQ_E_IO;
            }
            *p = '/';
        }
    }
    struct stat st;
    if ((mkdir(path, 0700) && errno != EEXIST) || stat(path, &st) || !S_ISDIR(st.st_mode)) {
        return -CQ_E_IO;
    }
    /* Ours, but open to others: close it. Somebody else's folder: SQLite will say so. */
    if ((st.st_mode & 077) && st.st_uid == geteuid() && chmod(path, 0700)) {
        return -CQ_E_IO;
    }
    return 0;
}

static int
migrate(cq_db_t *db)
{
    sqlite3_stmt *st = cq_db_stmt(db, "PRAGMA user_version", "");
    int rc = cq_db_row(db, st);
    if (rc) {
        return rc;
    }
    int version = sqlite3_column_int(st, 0);
    sqlite3_reset(st);
    if (version > SCHEMA_VERSION) {
        return -CQ_E_NEWER_SCHEMA;
    }
    bool is_new = version == 0;
    for (; version < SCHEMA_VERSION; version++) {
        if (sqlite3_exec(db->sql, schemas[version], NULL, NULL, NULL)) {
            return cq_db_error(db);
        }
    }
    if (!is_new) {
        return 0;
    }
    struct cq_identity id = {0};
    randombytes_buf(id.device.b, sizeof id.device.b);
    crypto_box_keypair(id.public_key, id.secret_key);
    rc = cq_db_identity_save(db, &id);
    sodium_memzero(&id, sizeof id);
    return rc;
}

/* One process creates the tables; the others wait for it and find them. */
static int
prepare(cq_db_t *db)
{
    static const char pragmas[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
        "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;";
    sqlite3_busy_timeout(db->sql, BUSY_TIMEOUT_MS);
    /* Changing the journal mode does not wait for the busy time-out when another process is just
     * making the file. */
    int tries = 0;
    while (sqlite3_exec(db->sql, pragmas, NULL, NULL, NULL)) {
        if (cq_db_error(db) != -CQ_E_BUSY || ++tries > BUSY_TIMEOUT_MS / RETRY_MS) {
            return cq_db_error(db);
        }
        sqlite3_sleep(RETRY_MS);
    }
    int rc = cq_db_begin(db);
    if (rc) {
        return rc;
    }
    rc = cq_db_end(db, migrate(db));
    (void)cq_db_changed(db);
    return rc;
}

/* Made here so that it never exists with the umask's mode; SQLite gives its WAL the same mode. One
 * that exists is not opened: closing any descriptor of a file takes away all locks that the process
 * has on it, those of its other connections as well, and then another process that closes the
 * database believes itself alone and removes the WAL that they go on writing to. */
static int
make_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        int rc = fchmod(fd, 0600) ? -CQ_E_IO : 0;
        close(fd);
        return rc;
    }
    if (errno != EEXIST || lstat(path, &st) || !S_ISREG(st.st_mode)) {
        return -CQ_E_IO;
    }
    return (st.st_mode & 077) && chmod(path, 0600) ? -CQ_E_IO : 0;
}

int
cq_db_open(const char *home, cq_db_t **out)
{
    *out = NULL;
    int rc = sodium_init() < 0 ? -CQ_E_CRYPTO : make_home(home);
    if (rc) {
        return rc;
    }
    char path[PATH_SIZE + 16];
    (void)snprintf(path, sizeof path, "%s/device.db", home);
    rc = make_file(path);
    if (rc) {
        return rc;
    }
    cq_db_t *db = calloc(1, sizeof *db);
    if (!db) {
        abort();
    }
    rc = sqlite3_open_v2(path, &db->sql,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_NOFOLLOW, NULL)
             ? -CQ_E_IO
             : prepare(db);
    if (rc) {
        cq_db_close(&db);
        return rc;
    }
    *out = db;
    return 0;
}

void
cq_db_close(cq_db_t **p)
{
    cq_db_t *db = *p;
    *p = NULL;
    if (!db) {
        return;
    }
    for (int i = 0; i < CQ_DB_STMT_MAX && db->cache[i].text; i++) {
        sqlite3_finalize(db->cache[i].stmt);
    }
    sqlite3_close(db->sql);
    free(db);
}
