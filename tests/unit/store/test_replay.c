/* SPDX-License-Identifier: MPL-2.0
 * A start from the log: in one part, which chats get when they are asked for, and in several, with
 * rows written in between. With damage, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"
#include "tests/lib/store_world.h"

enum {
    MESSAGES = 90,
    CHATS = 3
};

static char folder[FOLDER_PATH_SIZE];
static struct store_world world;
static struct store_core *const core = &world.core;
static const unsigned pairs[CHATS][2] = {{1, 2}, {1, 3}, {2, 3}};
static const uint8_t some_text[CQ_MAC_SIZE + 20];

static int
set_up(void **state)
{
    char path[FOLDER_PATH_SIZE + 8];
    char key_path[FOLDER_PATH_SIZE + 16];
    (void)state;
    folder_make(folder);
    (void)snprintf(path, sizeof path, "%s/db", folder);
    (void)snprintf(key_path, sizeof key_path, "%s/master.key", folder);
    store_world_open(&world, path, key_path);
    for (unsigned user = 1; user <= CHATS; user++) {
        store_world_add_user(&world, user);
    }
    for (size_t i = 0; i < CHATS; i++) {
        store_world_befriend(&world, pairs[i][0], pairs[i][1]);
    }
    for (unsigned i = 0; i < MESSAGES; i++) {
        store_world_say(&world, pairs[i % CHATS][0], pairs[i % CHATS][1],
                        (struct cq_view){some_text, sizeof some_text});
    }
    store_world_commit(&world);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    store_world_close(&world);
    folder_remove(folder);
    return 0;
}

static void
forget_and_replay(uint64_t part_records)
{
    store_core_drop_snapshot(core);
    store_projection_reset(core->projection);
    world.cfg.replay_records_min = part_records;
    assert_int_equal(store_replay_run(core), 0);
}

static void
check_heads(uint64_t more)
{
    for (size_t i = 0; i < CHATS; i++) {
        const struct store_chat *c = store_world_chat(&world, pairs[i][0], pairs[i][1]);
        assert_int_equal(c->head, MESSAGES / CHATS + more);
        assert_int_equal(c->members[0].sent + c->members[1].sent, c->head);
    }
}

/* Each part brings further messages of the same chats. */
static void
in_parts(void **state)
{
    static const uint64_t sizes[] = {1, 7, 30, 1000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        forget_and_replay(sizes[i]);
        check_heads(i);
        for (size_t k = 0; k < CHATS; k++) { /* the next seq is the right one */
            store_world_say(&world, pairs[k][0], pairs[k][1],
                            (struct cq_view){some_text, sizeof some_text});
        }
        store_world_commit(&world);
        check_heads(i + 1);
    }
}

/* What the last part wrote is not owed again, and a round writes the rest. */
static void
rows_are_complete_after_a_round(void **state)
{
    (void)state;
    forget_and_replay(30);
    assert_int_equal(store_replay_settle(core, UINT64_MAX), 0);
    store_world_round(&world);
    while (store_projection_in_round(core->projection)) {
        store_world_commit(&world);
    }
    store_core_drop_snapshot(core);
    store_projection_reset(core->projection);
    check_heads(0); /* from the rows alone */
    forget_and_replay(1000);
    assert_true(store_projection_is_settled(core->projection));
}

static void
put_complete(struct cq_view row)
{
    struct store_key key = store_key_text("complete");
    store_core_put(core, STORE_TABLE_META, &key, row);
    store_world_commit(&world);
}

/* The marker alone is enough. */
static void
a_damaged_row_of_completeness(void **state)
{
    (void)state;
    put_complete((struct cq_view){some_text, 3});
    forget_and_replay(1000);
    check_heads(0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_parts),
        TEST(rows_are_complete_after_a_round),
        TEST(a_damaged_row_of_completeness),
    };
    return cmocka_run_group_tests_name("store.replay", tests, NULL, NULL);
}
