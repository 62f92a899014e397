/* SPDX-License-Identifier: MPL-2.0
 * A small database to check: users 1 … 6; chats 1-2, 1-3, 2-3 with messages and receipts, 4-5
 * without; 6 has asked 1; 4 hides when he was last seen. Blobs 1 to 3 are 1's, 4 is 4's; blob 1 was
 * sent to 2, 2 as well, who sent it to 3 and back.
 */
#ifndef TESTS_UNIT_STORE_FSCK_WORLD_H
#define TESTS_UNIT_STORE_FSCK_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"
#include "store/fsck.h"
#include "tests/lib/store_world.h"

enum {
    FSCK_ROUNDS = 25 /* more than two blocks of messages in chat 1-2 */
};

static char folder[FOLDER_PATH_SIZE];
static char dir[FOLDER_PATH_SIZE + 8];
static char key_path[FOLDER_PATH_SIZE + 16];
static struct store_world world;

static const uint8_t some_text[CQ_MAC_SIZE + 20];
static const struct cq_view text = {some_text, sizeof some_text};

static inline void
talk(struct store_world *w, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        store_world_say(w, 1, 2, text);
        store_world_say(w, 2, 1, text);
        store_world_say(w, 1, 2, text);
        store_world_receive(w, 2, 1, i % 2);
        store_world_say(w, 1, 3, text);
        store_world_read(w, 3, 1, 0);
        store_world_say(w, 3, 1, text);
        store_world_say(w, 1, 3, text);
        store_world_read(w, 2, 1, 1);
        if (i % 3 == 2) {
            store_world_commit(w);
        }
    }
    store_world_say(w, 2, 3, text);
    store_world_commit(w);
}

static inline void
build(struct store_world *w)
{
    store_world_open(w, dir, key_path);
    for (uint64_t i = 1; i <= 6; i++) {
        store_world_add_user(w, i);
    }
    store_world_commit(w);
    store_world_befriend(w, 1, 2);
    store_world_befriend(w, 1, 3);
    store_world_befriend(w, 2, 3);
    store_world_befriend(w, 4, 5);
    store_world_ask(w, 6, 1);
    store_world_hide(w, 4, true);
    talk(w, FSCK_ROUNDS);
    for (uint64_t n = 1; n <= 3; n++) {
        store_world_add_blob(w, 1, n, 1000);
    }
    store_world_add_blob(w, 4, 4, 1000);
    store_world_show(w, 1, 2, text, 1);
    store_world_show(w, 1, 2, text, 2);
    store_world_show(w, 2, 3, text, 2); /* handed on */
    store_world_show(w, 2, 1, text, 2); /* and back */
    store_world_flush(w);
}

static inline int
set_up(void **state)
{
    (void)state;
    folder_make(folder);
    (void)snprintf(dir, sizeof dir, "%s/db", folder);
    (void)snprintf(key_path, sizeof key_path, "%s/master.key", folder);
    build(&world);
    return 0;
}

static inline int
tear_down(void **state)
{
    (void)state;
    store_world_close(&world);
    folder_remove(folder);
    return 0;
}

static struct store_fsck_report report;

static inline int
run_with(size_t state_bytes_max)
{
    struct store_fsck_cfg cfg = {
        .engine = world.core.engine, .vault = world.core.vault, .state_bytes_max = state_bytes_max};
    store_fsck_report_free(&report);
    return store_fsck_run(&cfg, &report);
}

static inline void
show(void)
{
    if (report.found) {
        store_fsck_print(stderr, &report);
    }
}

static inline void
expect_clean(void)
{
    assert_int_equal(run_with(0), 0);
    show();
    assert_int_equal(report.found, 0);
    assert_int_equal(store_fsck_exit_code(0, &report), 0);
}

#endif
