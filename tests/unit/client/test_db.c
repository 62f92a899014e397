/* SPDX-License-Identifier: MPL-2.0 */
#include <inttypes.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/db.h"

struct fixture {
    char home[64];
    cq_db_t *db;
    struct cq_id chat, me, peer, device;
};

static int
set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->home, "/tmp/chasqui-db-XXXXXX");
    if (!f || !mkdtemp(f->home) || cq_db_open(f->home, &f->db)) {
        return -1;
    }
    memset(f->chat.b, 'c', 16);
    memset(f->me.b, 'm', 16);
    memset(f->peer.b, 'p', 16);
    memset(f->device.b, 'd', 16);
    struct cq_sync_chat row = {.chat = f->chat,
                               .peer = f->peer,
                               .peer_name = {(const uint8_t *)"peer", 4},
                               .open = true,
                               .key_version = 1};
    *state = f;
    return cq_db_chat_sync(f->db, &row);
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;
    char path[128];
    cq_db_close(&f->db);
    static const char *const files[] = {"device.db", "device.db-wal", "device.db-shm"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", f->home, files[i]);
        unlink(path);
    }
    rmdir(f->home);
    free(f);
    return 0;
}

static int
put(struct fixture *f, uint64_t seq, uint64_t dseq, const char *text)
{
    struct cq_stored m = {.chat = f->chat,
                          .seq = seq,
                          .user = f->peer,
                          .device = f->device,
                          .dseq = dseq,
                          .time_unix_ms = 1000 + seq,
                          .text = text,
                          .text_size = strlen(text)};
    return cq_db_message_put(f->db, &m);
}

static struct cq_chat
get(struct fixture *f)
{
    struct cq_chat c;
    assert_int_equal(cq_db_chat_get(f->db, &f->chat, &c), 0);
    return c;
}

static void
test_private_files(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/device.db", f->home);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(f->home, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void
test_identity(void **state)
{
    struct fixture *f = *state;
    struct cq_identity a;
    struct cq_identity b;
    assert_int_equal(cq_db_identity_load(f->db, &a), 0);
    assert_false(cq_id_is_none(&a.device));
    assert_true(cq_id_is_none(&a.user));
    assert_false(a.has_store_key);
    strcpy(a.name, "alice");
    memset(a.token, 7, 100);
    a.token_size = 100;
    memset(a.store_key, 9, 32);
    a.has_store_key = true;
    a.version = 1234567890123;
    assert_int_equal(cq_db_identity_save(f->db, &a), 0);
    cq_db_close(&f->db);
    assert_int_equal(cq_db_open(f->home, &f->db), 0);
    assert_int_equal(cq_db_identity_load(f->db, &b), 0);
    assert_memory_equal(&a, &b, sizeof a);
}

static void
test_newer_database_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[128];
    sqlite3 *sql;
    (void)snprintf(path, sizeof path, "%s/device.db", f->home);
    cq_db_close(&f->db);
    assert_int_equal(sqlite3_open(path, &sql), SQLITE_OK);
    assert_int_equal(sqlite3_exec(sql, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(sql);
    assert_int_equal(cq_db_open(f->home, &f->db), -CQ_E_NEWER_SCHEMA);
    assert_null(f->db);
}

static void
test_garbage_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/device.db", f->home);
    cq_db_close(&f->db);
    FILE *file = fopen(path, "w");
    for (int i = 0; i < 5000; i++) {
        (void)fputs("not a database ", file);
    }
    (void)fclose(file);
    assert_int_equal(cq_db_open(f->home, &f->db), -CQ_E_CORRUPT);
    assert_int_equal(cq_db_open("/proc/none/home", &f->db), -CQ_E_IO);
}

static void
test_held_is_contiguous(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(put(f, 1, 1, "one"), 1);
    assert_int_equal(put(f, 1, 1, "one"), 0);
    assert_int_equal(put(f, 3, 3, "three"), 1);
    assert_int_equal(cq_db_message_advance(f->db, &f->chat), 0);
    assert_int_equal(get(f).held, 1);
    assert_int_equal(put(f, 2, 2, "two"), 1);
    assert_int_equal(cq_db_message_advance(f->db, &f->chat), 0);
    assert_int_equal(get(f).held, 3);
    assert_int_equal(get(f).head, 3);
}

static void
test_cursors_only_grow(void **state)
{
    struct fixture *f = *state;
    struct cq_cursor c = {f->peer, f->device, 5, 50};
    uint64_t delivered;
    uint64_t read;
    assert_int_equal(cq_db_cursor_put(f->db, &f->chat, &c), 1);
    assert_int_equal(cq_db_cursor_put(f->db, &f->chat, &c), 0);
    c.up_to = 4;
    assert_int_equal(cq_db_cursor_put(f->db, &f->chat, &c), 0);
    struct cq_cursor r = {.user = f->peer, .up_to = 3};
    assert_int_equal(cq_db_cursor_put(f->db, &f->chat, &r), 1);
    assert_int_equal(cq_db_cursor_get(f->db, &f->chat, &f->peer, &delivered, &read), 0);
    assert_int_equal(delivered, 5);
    assert_int_equal(read, 3);
    r.up_to = 9; /* read implies delivered */
    assert_int_equal(cq_db_cursor_put(f->db, &f->chat, &r), 1);
    assert_int_equal(cq_db_cursor_get(f->db, &f->chat, &f->peer, &delivered, &read), 0);
    assert_int_equal(delivered, 9);
    put(f, 1, 1, "x");
    assert_int_equal(cq_db_message_advance(f->db, &f->chat), 0);
    assert_int_equal(cq_db_chat_read(f->db, &f->chat, 100), 0); /* not more than is here */
    assert_int_equal(get(f).my_read, 1);
    assert_int_equal(cq_db_chat_read(f->db, &f->chat, 0), 0);
    assert_int_equal(get(f).my_read, 1);
}

static void
test_outbox_numbers(void **state)
{
    struct fixture *f = *state;
    struct cq_out rows[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        uint8_t byte = (uint8_t)i;
        rows[i] = (struct cq_out){.chat = f->chat,
                                  .ciphertext = &byte,
                                  .ciphertext_size = 1,
                                  .text = (char[]){"t"},
                                  .text_size = 1};
        assert_int_equal(cq_db_out_next(f->db, &f->chat, &rows[i].dseq, &rows[i].prev), 0);
        assert_int_equal(rows[i].dseq, i + 1);
        assert_int_equal(rows[i].prev, i);
        assert_int_equal(cq_db_out_put(f->db, &rows[i]), 0);
    }
    /* the last one is refused for good: its number is never used again, and prev skips it */
    assert_int_equal(cq_db_out_state(f->db, rows[2].id, CQ_OUT_FAILED, CQ_E_CHAT_CLOSED), 0);
    uint64_t dseq;
    uint64_t prev;
    assert_int_equal(cq_db_out_next(f->db, &f->chat, &dseq, &prev), 0);
    assert_int_equal(dseq, 4);
    assert_int_equal(prev, 2);
    /* everything is sent: prev is what the server has accepted */
    assert_int_equal(cq_db_out_delete(f->db, rows[0].id), 0);
    assert_int_equal(cq_db_out_delete(f->db, rows[1].id), 0);
    assert_int_equal(cq_db_chat_done(f->db, &f->chat, 2), 0);
    assert_int_equal(cq_db_out_next(f->db, &f->chat, &dseq, &prev), 0);
    assert_int_equal(dseq, 5);
    assert_int_equal(prev, 2);
    struct cq_out *list = NULL;
    assert_int_equal(cq_db_out_list(f->db, &f->chat, &list), 0);
    cq_db_out_free(list, 0);
    assert_int_equal(cq_db_out_list(f->db, NULL, &list), 1);
    assert_int_equal(list[0].error, CQ_E_CHAT_CLOSED);
    cq_db_out_free(list, 1);
    assert_int_equal(cq_db_out_clear_failed(f->db), 1);
}

/* Two processes take numbers at the same time: a transaction each, no number twice. */
static void
test_two_connections(void **state)
{
    struct fixture *f = *state;
    cq_db_t *other = NULL;
    assert_int_equal(cq_db_open(f->home, &other), 0);
    (void)cq_db_changed(f->db);
    assert_false(cq_db_changed(f->db));
    uint64_t last = 0;
    for (int i = 0; i < 20; i++) {
        cq_db_t *db = i % 2 ? f->db : other;
        uint64_t dseq;
        uint64_t prev;
        assert_int_equal(cq_db_begin(db), 0);
        int rc = cq_db_out_next(db, &f->chat, &dseq, &prev);
        assert_int_equal(cq_db_end(db, rc), 0);
        assert_int_equal(dseq, last + 1);
        last = dseq;
    }
    assert_true(cq_db_changed(f->db));
    assert_int_equal(cq_db_begin(other), 0);
    assert_int_equal(cq_db_end(other, -CQ_E_IO), -CQ_E_IO); /* rolled back, and usable again */
    assert_int_equal(cq_db_begin(f->db), 0);
    assert_int_equal(cq_db_end(f->db, 0), 0);
    cq_db_close(&other);
}

static int
search(struct fixture *f, const char *text)
{
    struct cq_stored *rows = NULL;
    int count = cq_db_message_search(f->db, text, NULL, 100, &rows);
    cq_db_message_free(rows, count > 0 ? count : 0);
    return count;
}

static void
test_search(void **state)
{
    struct fixture *f = *state;
    put(f, 1, 1, "The quick brown Fox");
    put(f, 2, 2, "a FOX and a hound: 100% \"quoted\"");
    put(f, 3, 3, "你好世界");
    put(f, 4, 4, "ok");
    assert_int_equal(search(f, "fox"), 2);
    assert_int_equal(search(f, "quick fox"), 1);
    assert_int_equal(search(f, "fox ox"), 2);
    assert_int_equal(search(f, "fox zz"), 0);
    assert_int_equal(search(f, "ui"), 1);
    assert_int_equal(search(f, "你好世"), 1);
    assert_int_equal(search(f, "好世"), 1);
    assert_int_equal(search(f, "ok"), 1);
    assert_int_equal(search(f, "0%"), 1);
    assert_int_equal(search(f, "\"quoted\""), 1);
    assert_int_equal(search(f, "fox AND hound"), 1); /* words, not operators; "and" is there */
    assert_int_equal(search(f, "* OR NEAR(x)"), 0);
    assert_int_equal(search(f, "100%"), 1);
    assert_int_equal(search(f, "text:fox"), 0);
}

/* seqs in the order of the history, ! behind those that the server has lost */
static void
history_of(struct fixture *f, uint32_t limit, bool last, char text[128])
{
    struct cq_range range = {1, INT64_MAX, limit, last, true};
    struct cq_stored *rows = NULL;
    int count = cq_db_message_range(f->db, &f->chat, &range, &rows);
    size_t used = 0;
    assert_true(count >= 0 && count <= 30);
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        used += (size_t)snprintf(text + used, 128 - used, "%s%" PRIu64 "%s", used ? " " : "",
                                 rows[i].seq, rows[i].lost ? "!" : "");
    }
    cq_db_message_free(rows, count);
}

/* Forwards, backwards, and the last two. */
static void
assert_history(struct fixture *f, const char *wanted)
{
    char text[128];
    history_of(f, 100, false, text);
    assert_string_equal(text, wanted);
    history_of(f, 100, true, text);
    assert_string_equal(text, wanted);
    history_of(f, 2, true, text);
    assert_string_equal(text, wanted + strlen(wanted) - strlen(text));
    assert_non_null(strchr(text, ' '));
}

/* The server was restored from a backup that has seq 1 and 2, and has gone on with another 3. */
static void
test_restored_server(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 1; i <= 4; i++) {
        put(f, i, i, "old");
    }
    assert_int_equal(cq_db_message_advance(f->db, &f->chat), 0);
    assert_int_equal(cq_db_chat_shown(f->db, &f->chat, 4), 0);
    assert_int_equal(cq_db_chat_reset(f->db), 0);
    assert_int_equal(get(f).held, 0);
    assert_int_equal(put(f, 1, 1, "old"), 0);
    assert_int_equal(put(f, 2, 2, "old"), 0);
    assert_int_equal(put(f, 3, 77, "new"), 1);
    assert_int_equal(cq_db_message_advance(f->db, &f->chat), 0);
    assert_int_equal(get(f).held, 3);
    assert_int_equal(get(f).shown, 2); /* the new third one is news */
    assert_history(f, "1 2 3! 4! 3");
    assert_int_equal(put(f, 4, 78, "new"), 1);
    assert_history(f, "1 2 3! 4! 3 4");
    assert_int_equal(cq_db_chat_reset(f->db), 0); /* and once more */
    assert_int_equal(put(f, 1, 1, "old"), 0);
    assert_int_equal(put(f, 2, 2, "old"), 0);
    assert_int_equal(put(f, 3, 77, "new"), 0);
    assert_int_equal(put(f, 4, 79, "newer"), 1);
    assert_history(f, "1 2 3! 4! 3 4! 4");
}

/* The second restore goes back further than the first; a device that had not read all before it
 * fetches the rest. */
static void
test_restored_further_back(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 3; i <= 6; i++) {
        put(f, i, i, "old");
    }
    assert_int_equal(cq_db_chat_reset(f->db), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        assert_int_equal(put(f, i, i, "old"), i < 3 ? 1 : 0);
    }
    assert_int_equal(put(f, 6, 66, "new"), 1);
    assert_int_equal(put(f, 7, 67, "new"), 1);
    assert_history(f, "1 2 3 4 5 6! 6 7");
    assert_int_equal(cq_db_chat_reset(f->db), 0);
    for (uint64_t i = 1; i <= 4; i++) {
        assert_int_equal(put(f, i, i, "old"), 0);
    }
    assert_int_equal(put(f, 5, 85, "newest"), 1);
    assert_int_equal(put(f, 6, 86, "newest"), 1);
    assert_history(f, "1 2 3 4 5! 6! 6! 7! 5 6");
}

/* Another process opens the database, looks for message 1, and closes it, as commands do. */
static int
look_from_outside(const char *home)
{
    struct cq_id chat;
    struct cq_stored *row = NULL;
    cq_db_t *db = NULL;
    memset(chat.b, 'c', 16);
    int rc = cq_db_open(home, &db);
    rc = rc ? rc : cq_db_message_get(db, &chat, 1, &row);
    cq_db_message_free(row, rc ? 0 : 1);
    cq_db_close(&db);
    return rc == 0 ? 10 : rc == -CQ_E_NOT_FOUND ? 11 : 12;
}

/* Does it find the message? */
static bool
another_process_sees_it(const char *home)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/proc/self/exe", "test_db", home, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 10 || WEXITSTATUS(status) == 11);
    return WEXITSTATUS(status) == 10;
}

/* What this process writes afterwards is in the database for all: the other one must not have
 * believed that it was the last, and taken the WAL with it. */
static void
test_another_process_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    cq_db_t *second = NULL;
    assert_int_equal(cq_db_open(f->home, &second), 0);
    assert_false(another_process_sees_it(f->home));
    assert_int_equal(put(f, 1, 1, "kept"), 1);
    assert_true(another_process_sees_it(f->home));
    cq_db_close(&second);
}

/* A database of the first version, which knew texts only. */
static void
test_first_version_is_brought_up(void **state)
{
    struct fixture *f = *state;
    char path[128];
    sqlite3 *sql = NULL;
    struct cq_stored *row = NULL;
    assert_int_equal(put(f, 1, 1, "old"), 1);
    cq_db_close(&f->db);
    (void)snprintf(path, sizeof path, "%s/device.db", f->home);
    assert_int_equal(sqlite3_open(path, &sql), SQLITE_OK);
    assert_int_equal(sqlite3_exec(sql,
                                  "ALTER TABLE messages DROP COLUMN medium;"
                                  "ALTER TABLE outbox DROP COLUMN descriptor;"
                                  "ALTER TABLE outbox DROP COLUMN media;"
                                  "ALTER TABLE outbox DROP COLUMN file; PRAGMA user_version = 1;",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(sql);
    assert_int_equal(cq_db_open(f->home, &f->db), 0);
    assert_int_equal(cq_db_message_get(f->db, &f->chat, 1, &row), 0);
    assert_string_equal(row->text, "old");
    assert_int_equal(row->medium_size, 0);
    cq_db_message_free(row, 1);
    struct cq_stored m = {.chat = f->chat,
                          .seq = 2,
                          .user = f->peer,
                          .device = f->device,
                          .dseq = 2,
                          .text = "",
                          .medium = (const uint8_t *)"abc",
                          .medium_size = 3};
    assert_int_equal(cq_db_message_put(f->db, &m), 1);
    assert_int_equal(cq_db_message_get(f->db, &f->chat, 2, &row), 0);
    assert_int_equal(row->medium_size, 3);
    cq_db_message_free(row, 1);
}

/* An upload is in the outbox, but does not go out before it is sealed; clearing spares it. */
static void
test_uploads(void **state)
{
    struct fixture *f = *state;
    struct cq_out row;
    struct cq_out *rows = NULL;
    uint64_t waiting = 0;
    char text[] = "caption";
    char file[] = "abc";
    uint8_t descriptor[] = {1, 2, 3};
    struct cq_out o = {.chat = f->chat,
                       .text = text,
                       .text_size = 7,
                       .descriptor = descriptor,
                       .descriptor_size = 3,
                       .file = file,
                       .file_size = 3,
                       .state = CQ_OUT_UPLOADING};
    assert_int_equal(cq_db_out_upload(f->db, 0, &row), -CQ_E_NOT_FOUND);
    assert_int_equal(cq_db_out_put(f->db, &o), 0);
    assert_int_equal(cq_db_out_list(f->db, &f->chat, &rows), 0);
    assert_int_equal(cq_db_out_waiting(f->db, &f->chat, &waiting), 0);
    assert_int_equal(waiting, 1);
    assert_int_equal(cq_db_out_clear_failed(f->db), 0);
    assert_int_equal(cq_db_out_has_file(f->db, "abc"), 1);
    assert_int_equal(cq_db_out_has_file(f->db, "abd"), 0);
    assert_int_equal(cq_db_out_upload(f->db, 0, &row), 0);
    assert_int_equal(row.id, o.id);
    assert_string_equal(row.file, "abc");
    assert_memory_equal(row.descriptor, descriptor, 3);
    assert_int_equal(cq_db_out_next(f->db, &f->chat, &row.dseq, &row.prev), 0);
    assert_int_equal(row.dseq, 1);
    assert_int_equal(cq_db_out_rebuild(f->db, &row), 0);
    assert_int_equal(cq_db_out_upload(f->db, 0, &o), -CQ_E_NOT_FOUND);
    assert_int_equal(cq_db_out_list(f->db, &f->chat, &rows), 1);
    assert_int_equal(rows[0].state, CQ_OUT_QUEUED);
    cq_db_out_free(rows, 1);
    cq_db_out_clear(&row);
}

int
main(int argc, char **argv)
{
    if (argc == 2) {
        return look_from_outside(argv[1]);
    }
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_private_files),
        TEST(test_identity),
        TEST(test_newer_database_is_refused),
        TEST(test_garbage_is_refused),
        TEST(test_held_is_contiguous),
        TEST(test_cursors_only_grow),
        TEST(test_outbox_numbers),
        TEST(test_two_connections),
        TEST(test_search),
        TEST(test_restored_server),
        TEST(test_restored_further_back),
        TEST(test_another_process_comes_and_goes),
        TEST(test_first_version_is_brought_up),
        TEST(test_uploads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
