/* SPDX-License-Identifier: MPL-2.0
 * What follows on the loop thread when a commit fails: memory is what is on disk, and whoever reads
 * gets his time. With a clock and a replay that take as long as the test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"
#include "tests/lib/store_world.h"

enum {
    PAUSE_MS = 1000
};

static char folder[FOLDER_PATH_SIZE];
static struct store_world world;
static struct store_core *const core = &world.core;

static struct {
    uint64_t now_mono_ms;
    uint64_t replay_ms;
    unsigned replays;
    bool is_full;
    unsigned errors;
    struct error {
        uint64_t rid;
        int err;
        uint64_t detail;
    } error; /* the last one */
} fake;

/* The linker chooses these names.
 * NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming) */
uint64_t __wrap_cq_now_mono_ms(void);
int __real_store_replay_run(struct store_core *c);
int __wrap_store_replay_run(struct store_core *c);
bool __wrap_store_engine_has_room(store_engine_t *e);
void __wrap_store_route_reset(store_route_t *r, uint64_t pos);
void __wrap_store_route_committed(store_route_t *r, const struct store_batch *b);
void __wrap_cq_bus_pause(cq_bus_t *bus, bool paused);
void __wrap_cq_bus_reply_err(cq_bus_t *bus, const struct cq_bus_from *to, int err, uint64_t detail);

uint64_t
__wrap_cq_now_mono_ms(void)
{
    return fake.now_mono_ms;
}

int
__wrap_store_replay_run(struct store_core *c)
{
    fake.now_mono_ms += fake.replay_ms;
    fake.replays++;
    return __real_store_replay_run(c);
}

bool
__wrap_store_engine_has_room(store_engine_t *e)
{
    (void)e;
    return !fake.is_full;
}

/* There is no bus in this world. */
void
__wrap_store_route_reset(store_route_t *r, uint64_t pos)
{
    (void)r;
    (void)pos;
}

void
__wrap_store_route_committed(store_route_t *r, const struct store_batch *b)
{
    (void)r;
    (void)b;
}

void
__wrap_cq_bus_pause(cq_bus_t *bus, bool paused)
{
    (void)bus;
    (void)paused;
}

void
__wrap_cq_bus_reply_err(cq_bus_t *bus, const struct cq_bus_from *to, int err, uint64_t detail)
{
    (void)bus;
    fake.errors++;
    fake.error = (struct error){to->rid, err, detail};
}
/* NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming) */

static const uint8_t some_text[CQ_MAC_SIZE + 20];
static const struct cq_view text = {some_text, sizeof some_text};

static int
set_up(void **state)
{
    char path[FOLDER_PATH_SIZE + 8];
    char key_path[FOLDER_PATH_SIZE + 16];
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.now_mono_ms = 1000000;
    folder_make(folder);
    (void)snprintf(path, sizeof path, "%s/db", folder);
    (void)snprintf(key_path, sizeof key_path, "%s/master.key", folder);
    store_world_open(&world, path, key_path);
    core->writes = true;
    store_world_add_user(&world, 1);
    store_world_add_user(&world, 2);
    store_world_befriend(&world, 1, 2);
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

/* The commit of what has queued up, as refused by the engine. */
static void
fail_commit(int rc)
{
    struct store_batch *b = store_world_commit_begin(&world);
    assert_non_null(b);
    b->rc = rc;
    store_core_on_commit_done(core, b);
}

/* ---- pauses ---- */

static void
a_pause_is_as_long_as_the_replay_took(void **state)
{
    static const uint64_t took_ms[] = {0, PAUSE_MS - 1, PAUSE_MS + 1, 60000};
    (void)state;
    for (size_t i = 0; i < sizeof took_ms / sizeof took_ms[0]; i++) {
        uint64_t pause_ms = took_ms[i] > PAUSE_MS ? took_ms[i] : PAUSE_MS;
        fake.replay_ms = took_ms[i];
        store_world_say(&world, 1, 2, text);
        fail_commit(-CQ_E_NO_SPACE);
        fake.now_mono_ms += pause_ms - 1;
        assert_int_equal(store_core_writable(core), -CQ_E_NO_SPACE);
        fake.now_mono_ms++;
        assert_int_equal(store_core_writable(core), 0);
    }
}

/* Neither requests nor the tick try again, so memory is not thrown away once more. */
static void
without_room_nothing_is_tried(void **state)
{
    (void)state;
    store_world_say(&world, 1, 2, text);
    fake.is_full = true;
    fail_commit(-CQ_E_NO_SPACE);
    assert_int_equal(store_replay_settle(core, UINT64_MAX), 0);
    unsigned replays = fake.replays;
    for (int i = 0; i < 5; i++) {
        fake.now_mono_ms += 2 * PAUSE_MS;
        assert_int_equal(store_core_writable(core), -CQ_E_NO_SPACE);
        store_core_check_writes(core);
        assert_true(store_projection_dirty_count(core->projection) > 0);
        store_core_commit(core);
        assert_null(core->committing);
    }
    assert_int_equal(fake.replays, replays);
    fake.is_full = false;
    store_core_check_writes(core);
    assert_int_equal(store_core_writable(core), 0);
    store_world_say(&world, 1, 2, text);
    store_world_commit(&world);
    assert_int_equal(store_world_chat(&world, 1, 2)->head, 1);
}

/* ---- what memory knows besides chats ---- */

static void
a_revocation_that_was_refused_has_not_happened(void **state)
{
    static const int refusals[] = {-CQ_E_NO_SPACE, -CQ_E_IO, -CQ_E_UNKNOWN_OUTCOME};
    struct cq_id user = store_world_user_id(1);
    struct cq_id device = store_world_device_id(1);
    struct store_device row;
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        assert_int_equal(store_device_row(core, &user, &device, &row), 0);
        row.revoked = true;
        store_device_put(core, &user, &device, &row);
        assert_true(store_device_is_revoked(core, &user, &device));
        fail_commit(refusals[i]);
        assert_false(store_device_is_revoked(core, &user, &device));
        assert_int_equal(store_device_row(core, &user, &device, &row), 0);
        assert_false(row.revoked);
    }
    row.revoked = true;
    store_device_put(core, &user, &device, &row);
    store_world_commit(&world);
    store_world_say(&world, 1, 2, text);
    fail_commit(-CQ_E_NO_SPACE);
    assert_true(store_device_is_revoked(core, &user, &device));
}

/* ---- answers ---- */

static void
expect_error(unsigned count, int err, uint64_t detail)
{
    assert_int_equal(fake.errors, count);
    assert_int_equal(fake.error.rid, count);
    assert_int_equal(fake.error.err, err);
    assert_int_equal(fake.error.detail, detail);
}

static void
errors_wait_for_what_they_are_about(void **state)
{
    struct cq_bus_from from = {.rid = 1};
    (void)state;
    store_core_reply_err(core, &from, -CQ_E_NOT_FOUND, 0); /* nothing is under way */
    expect_error(1, -CQ_E_NOT_FOUND, 0);
    store_world_say(&world, 1, 2, text);
    from.rid = 2;
    store_core_reply_err(core, &from, -CQ_E_CHAT_CLOSED, 7);
    struct store_batch *b = store_world_commit_begin(&world);
    from.rid = 3;
    store_core_reply_err(core, &from, -CQ_E_OUT_OF_ORDER, 8);
    assert_int_equal(fake.errors, 1);
    assert_int_equal(b->reply_count, 2);
    store_core_run_commit(core, b);
    store_core_on_commit_done(core, b);
    expect_error(3, -CQ_E_OUT_OF_ORDER, 8);
    /* What the error was about has not happened. */
    store_world_say(&world, 1, 2, text);
    from.rid = 4;
    store_core_reply_err(core, &from, -CQ_E_CHAT_CLOSED, 7);
    fail_commit(-CQ_E_NO_SPACE);
    expect_error(4, -CQ_E_NO_SPACE, 0);
    from.rid = 0; /* an event */
    store_core_reply_err(core, &from, -CQ_E_NOT_FOUND, 0);
    expect_error(4, -CQ_E_NO_SPACE, 0);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_pause_is_as_long_as_the_replay_took),
        TEST(without_room_nothing_is_tried),
        TEST(errors_wait_for_what_they_are_about),
        TEST(a_revocation_that_was_refused_has_not_happened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
