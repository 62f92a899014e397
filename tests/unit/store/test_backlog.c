/* SPDX-License-Identifier: MPL-2.0
 * Records that chats are owed: found chat by chat, gone through each once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/rt/random.h"

#include "store/backlog.h"

enum {
    CHATS = 3000,
    RECORDS = 20000
};

struct world {
    store_backlog_t *backlog;
    struct cq_id chats[CHATS];
    size_t counts[CHATS];
    uint64_t last[CHATS]; /* position */
};

static int
set_up(void **state)
{
    static struct world world;
    world = (struct world){.backlog = store_backlog_new()};
    for (size_t i = 0; i < CHATS; i++) {
        world.chats[i] = cq_random_id();
        if (i % 3 == 0) { /* many in one partition */
            world.chats[i].b[0] = world.chats[i].b[1] = 7;
        }
    }
    for (uint64_t pos = 1; pos <= RECORDS; pos++) {
        size_t i = (size_t)(pos * pos % (CHATS - 1)); /* the last one has none */
        store_backlog_add(world.backlog, &world.chats[i], pos);
        world.counts[i]++;
        world.last[i] = pos;
    }
    *state = &world;
    return 0;
}

static int
tear_down(void **state)
{
    struct world *w = *state;
    store_backlog_destroy(&w->backlog);
    assert_null(w->backlog);
    return 0;
}

static void
check(struct world *w, size_t i)
{
    size_t count;
    const struct store_owed *owed = store_backlog_find(w->backlog, &w->chats[i], &count);
    assert_int_equal(count, w->counts[i]);
    for (size_t k = 0; k < count; k++) {
        assert_true(cq_id_eq(&owed[k].chat, &w->chats[i]));
        assert_true(!k || owed[k].pos > owed[k - 1].pos);
    }
    assert_true(!count || owed[count - 1].pos == w->last[i]);
}

static void
each_chat_has_its_own(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < CHATS; i++) {
        check(w, i);
    }
}

static size_t
number_of(const struct world *w, const struct cq_id *chat)
{
    size_t i = 0;
    while (!cq_id_eq(&w->chats[i], chat)) {
        i++;
    }
    return i;
}

/* Passes a chat of the first partition that has any left. */
static void
pass_one(struct world *w)
{
    struct cq_id chat;
    size_t partition = store_backlog_partition(w->backlog);
    assert_true(store_backlog_next(w->backlog, partition, &chat));
    assert_int_equal(cq_id_partition(&chat), partition);
    size_t i = number_of(w, &chat);
    check(w, i);
    assert_true(w->counts[i]);
    w->counts[i] = 0;
    store_backlog_pass(w->backlog, partition);
}

static void
all_are_passed_once(void **state)
{
    struct world *w = *state;
    struct cq_id chat;
    assert_false(store_backlog_is_empty(w->backlog));
    size_t other = cq_id_partition(&w->chats[0]); /* out of turn */
    while (store_backlog_next(w->backlog, other, &chat)) {
        w->counts[number_of(w, &chat)] = 0;
        store_backlog_pass(w->backlog, other);
    }
    for (size_t passed = 0; !store_backlog_is_empty(w->backlog); passed++) {
        pass_one(w);
        if (passed % 100 == 0 && w->counts[passed]) {
            check(w, passed); /* one that is still to come */
        }
    }
    for (size_t i = 0; i < CHATS; i++) {
        assert_int_equal(w->counts[i], 0);
    }
}

static void
cleared_and_used_again(void **state)
{
    struct world *w = *state;
    struct cq_id chat;
    pass_one(w);
    store_backlog_clear(w->backlog);
    assert_true(store_backlog_is_empty(w->backlog));
    size_t partition = cq_id_partition(&w->chats[5]);
    assert_false(store_backlog_next(w->backlog, partition, &chat));
    store_backlog_add(w->backlog, &w->chats[5], 99);
    assert_int_equal(store_backlog_partition(w->backlog), partition);
    assert_true(store_backlog_next(w->backlog, partition, &chat));
    assert_true(cq_id_eq(&chat, &w->chats[5]));
    store_backlog_pass(w->backlog, partition);
    assert_true(store_backlog_is_empty(w->backlog));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_chat_has_its_own),
        TEST(all_are_passed_once),
        TEST(cleared_and_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
