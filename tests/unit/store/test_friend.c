/* SPDX-License-Identifier: MPL-2.0
 * The rules over the whole table, and over every state that is reachable from strangers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/pack.h"

#include "store/friend.h"

#define NONE      CQ_RELATION_NONE
#define ASKED     CQ_RELATION_ASKED
#define REQUESTED CQ_RELATION_REQUESTED
#define FRIENDS   CQ_RELATION_FRIENDS
#define REMOVED   CQ_RELATION_REMOVED

enum {
    RELATIONS = 5,
    ACTIONS = CQ_OP_UNBLOCK - CQ_OP_ADD + 1,
};

/* One side of a pair and the other; a chat is there from the first accept on. */
struct pair {
    struct store_friend a, b;
};

static void
set_chat(struct pair *p)
{
    memset(p->a.chat.b, 9, CQ_ID_SIZE);
    p->b.chat = p->a.chat;
}

static struct pair
pair_of(int ra, bool ba, int rb, bool bb, bool chat)
{
    struct pair p = {{.relation = (enum cq_relation)ra, .blocks = ba},
                     {.relation = (enum cq_relation)rb, .blocks = bb}};
    if (chat) {
        set_chat(&p);
    }
    return p;
}

static struct pair
mirrored(const struct pair *p)
{
    return (struct pair){p->b, p->a};
}

/* a acts on b. */
static int
act(struct pair *p, int action, struct store_friend_step *step)
{
    int rc = store_friend_step((uint8_t)action, &p->a, &p->b, step);
    if (rc == 0) {
        p->a.relation = step->user_relation;
        p->a.blocks = step->user_blocks;
        p->b.relation = step->peer_relation;
        p->b.blocks = step->peer_blocks;
        if (step->accepted) {
            set_chat(p);
        }
    }
    return rc;
}

static void
b_acts(struct pair *p, int action, struct store_friend_step *step)
{
    struct pair m = mirrored(p);
    assert_int_equal(act(&m, action, step), 0);
    *p = mirrored(&m);
}

static void
a_acts(struct pair *p, int action, struct store_friend_step *step)
{
    assert_int_equal(act(p, action, step), 0);
}

/* The pairs that friend.c promises. */
static bool
is_consistent(const struct pair *p)
{
    static const bool ok[RELATIONS][RELATIONS] = {
        [NONE][NONE] = true,       [ASKED][REQUESTED] = true, [REQUESTED][ASKED] = true,
        [FRIENDS][FRIENDS] = true, [REMOVED][REMOVED] = true, [ASKED][NONE] = true,
        [NONE][ASKED] = true,      [ASKED][REMOVED] = true,   [REMOVED][ASKED] = true,
        [ASKED][ASKED] = true,
    };
    bool has_chat = !cq_id_is_none(&p->a.chat);
    bool lost = (p->a.relation == NONE || p->b.relation == NONE) && has_chat;
    bool early = (p->a.relation >= FRIENDS || p->b.relation >= FRIENDS) && !has_chat;
    return ok[p->a.relation][p->b.relation] && !lost && !early;
}

static int
code_of(const struct pair *p)
{
    int code = ((int)p->a.relation * RELATIONS + (int)p->b.relation) * 8;
    return code + p->a.blocks * 4 + p->b.blocks * 2 + !cq_id_is_none(&p->a.chat);
}

static void
check_step(const struct pair *before, int action, const struct pair *after)
{
    struct store_friend_step step, again;
    assert_int_equal(store_friend_step((uint8_t)action, &before->a, &before->b, &step), 0);
    bool differs = step.user_relation != before->a.relation ||
                   step.peer_relation != before->b.relation || step.user_blocks != before->a.blocks;
    assert_true(step.changed == differs);
    assert_true(step.peer_blocks == before->b.blocks); /* nobody blocks for another */
    assert_true(!step.tell_peer || step.changed);
    bool opened = store_friend_is_open(&after->a, &after->b);
    bool was_open = store_friend_is_open(&before->a, &before->b);
    /* Whoever's half changed, or whose chat opened or closed, is told; nobody else. */
    assert_true(step.tell_peer == (step.peer_relation != before->b.relation || opened != was_open));
    /* The same once more stands already; only a crossing ADD may find something new, never here. */
    assert_int_equal(store_friend_step((uint8_t)action, &after->a, &after->b, &again), 0);
    assert_false(again.changed);
    assert_false(again.tell_peer);
    assert_false(again.accepted);
}

static void
every_reachable_pair_is_consistent(void **state)
{
    (void)state;
    struct pair queue[RELATIONS * RELATIONS * 8 * 2];
    bool seen[RELATIONS * RELATIONS * 8] = {false};
    size_t first = 0, count = 1;
    queue[0] = pair_of(NONE, false, NONE, false, false);
    seen[code_of(&queue[0])] = true;
    while (first < count) {
        struct pair now = queue[first++];
        struct pair sides[2] = {now, mirrored(&now)};
        for (int i = 0; i < 2 * ACTIONS; i++) {
            struct pair next = sides[i % 2];
            struct store_friend_step step;
            int action = CQ_OP_ADD + i / 2;
            if (act(&next, action, &step) != 0) {
                continue;
            }
            assert_true(is_consistent(&next));
            check_step(&sides[i % 2], action, &next);
            if (!seen[code_of(&next)]) {
                seen[code_of(&next)] = true;
                queue[count++] = next;
            }
        }
    }
    assert_true(seen[code_of(&(struct pair){.a.relation = ASKED, .b.relation = REQUESTED})]);
    assert_true(count > 30);
}

static void
whole_table_never_makes_friends_of_strangers(void **state)
{
    (void)state;
    int allowed = 0;
    for (int i = 0; i < RELATIONS * RELATIONS * 8 * ACTIONS; i++) {
        int code = i / ACTIONS;
        struct pair p =
            pair_of(code / 8 / RELATIONS, code & 4, code / 8 % RELATIONS, code & 2, code & 1);
        struct pair before = p;
        struct store_friend_step step;
        int action = CQ_OP_ADD + i % ACTIONS;
        int rc = act(&p, action, &step);
        assert_true(rc == 0 || rc == -CQ_E_BAD_STATE);
        if (rc) {
            assert_memory_equal(&p, &before, sizeof p);
            continue;
        }
        allowed++;
        if (step.accepted) { /* both wanted it */
            assert_int_equal(before.b.relation, ASKED);
            assert_true(action == CQ_OP_ADD || action == CQ_OP_ACCEPT);
            assert_false(before.a.blocks);
        }
        if (action != CQ_OP_BLOCK && action != CQ_OP_UNBLOCK) {
            assert_true(step.user_blocks == before.a.blocks);
        }
    }
    assert_true(allowed > 0);
}

/* The table of docs/protocol.md §4, without blocks: 1 allowed and something changes, 0 stands
 * already, -1 BAD_STATE. */
static void
table_of_the_protocol(void **state)
{
    (void)state;
    static const struct {
        int mine, theirs;
        int add, accept, decline, cancel, remove;
    } rows[] = {
        {NONE, NONE, 1, -1, 0, 0, -1},       {ASKED, REQUESTED, 0, -1, -1, 1, -1},
        {REQUESTED, ASKED, 1, 1, 1, -1, -1}, {FRIENDS, FRIENDS, 0, 0, -1, -1, 1},
        {REMOVED, REMOVED, 1, -1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int want[] = {rows[i].add, rows[i].accept, rows[i].decline, rows[i].cancel, rows[i].remove};
        for (int j = 0; j < 5; j++) {
            struct pair p =
                pair_of(rows[i].mine, false, rows[i].theirs, false, rows[i].mine >= FRIENDS);
            struct store_friend_step step;
            int rc = act(&p, CQ_OP_ADD + j, &step);
            assert_int_equal(rc, want[j] < 0 ? -CQ_E_BAD_STATE : 0);
            assert_true(rc || step.changed == (want[j] == 1));
        }
    }
}

static void
crossing_requests_accept(void **state)
{
    (void)state;
    struct pair p = {0};
    struct store_friend_step step;
    a_acts(&p, CQ_OP_ADD, &step);
    assert_true(step.tell_peer && !step.accepted);
    assert_int_equal(p.b.relation, REQUESTED);
    b_acts(&p, CQ_OP_ADD, &step);
    assert_true(step.accepted && step.tell_peer);
    assert_true(store_friend_is_open(&p.a, &p.b));
}

static void
a_former_chat_stays(void **state)
{
    (void)state;
    static const int ends[] = {CQ_OP_DECLINE, CQ_OP_CANCEL};
    for (int former = 0; former < 2; former++) {
        for (size_t i = 0; i < 2; i++) {
            struct pair p =
                pair_of(former ? REMOVED : NONE, false, former ? REMOVED : NONE, false, former);
            struct store_friend_step step;
            a_acts(&p, CQ_OP_ADD, &step);
            if (ends[i] == CQ_OP_CANCEL) {
                a_acts(&p, CQ_OP_CANCEL, &step);
            } else {
                b_acts(&p, CQ_OP_DECLINE, &step);
            }
            assert_true(step.tell_peer);
            assert_int_equal(p.a.relation, former ? REMOVED : NONE);
            assert_int_equal(p.b.relation, former ? REMOVED : NONE);
        }
    }
}

static void
block_closes_and_unblock_undoes_exactly_that(void **state)
{
    (void)state;
    struct pair p = pair_of(FRIENDS, false, FRIENDS, false, true);
    struct store_friend_step step;
    a_acts(&p, CQ_OP_BLOCK, &step);
    assert_true(step.changed && step.tell_peer && !step.accepted);
    assert_false(store_friend_is_open(&p.a, &p.b));
    assert_int_equal(p.b.relation, FRIENDS);
    b_acts(&p, CQ_OP_BLOCK, &step); /* closed already: a is told nothing */
    assert_true(step.changed && !step.tell_peer);
    a_acts(&p, CQ_OP_UNBLOCK, &step);
    assert_true(step.changed && !step.tell_peer);
    b_acts(&p, CQ_OP_UNBLOCK, &step);
    assert_true(step.tell_peer && !step.accepted);
    assert_true(store_friend_is_open(&p.a, &p.b));
    /* Of strangers: nobody is told. */
    p = (struct pair){0};
    a_acts(&p, CQ_OP_BLOCK, &step);
    assert_true(step.changed && !step.tell_peer);
    assert_int_equal(store_friend_step(CQ_OP_ADD, &p.a, &p.b, &step), -CQ_E_BAD_STATE);
}

static void
request_of_a_blocked_user_is_swallowed(void **state)
{
    (void)state;
    struct pair p = {0};
    struct store_friend_step step;
    b_acts(&p, CQ_OP_BLOCK, &step);
    a_acts(&p, CQ_OP_ADD, &step);
    assert_true(step.changed && !step.tell_peer && !step.accepted);
    assert_int_equal(p.a.relation, ASKED); /* as if it had been delivered */
    assert_int_equal(p.b.relation, NONE);
    b_acts(&p, CQ_OP_UNBLOCK, &step);
    assert_false(step.tell_peer);
    assert_int_equal(p.a.relation, ASKED);
    assert_int_equal(p.b.relation, NONE);
    a_acts(&p, CQ_OP_ADD, &step); /* a retry changes nothing */
    assert_true(!step.changed && !step.tell_peer);
    struct pair taken_back = p;
    a_acts(&taken_back, CQ_OP_CANCEL, &step);
    assert_true(step.changed && !step.tell_peer);
    a_acts(&taken_back, CQ_OP_ADD, &step); /* a new request is */
    assert_int_equal(taken_back.b.relation, REQUESTED);
    b_acts(&p, CQ_OP_ADD, &step); /* and if b asks, both have asked */
    assert_true(step.accepted);
}

static void
crossing_requests_that_were_both_swallowed(void **state)
{
    (void)state;
    struct pair p = {0};
    struct store_friend_step step;
    b_acts(&p, CQ_OP_BLOCK, &step);
    a_acts(&p, CQ_OP_ADD, &step);
    a_acts(&p, CQ_OP_BLOCK, &step);
    b_acts(&p, CQ_OP_UNBLOCK, &step);
    b_acts(&p, CQ_OP_ADD, &step);
    assert_true(step.changed && !step.accepted && !step.tell_peer);
    assert_int_equal(p.a.relation, ASKED);
    assert_int_equal(p.b.relation, ASKED);
    a_acts(&p, CQ_OP_UNBLOCK, &step);
    assert_false(step.accepted);
    a_acts(&p, CQ_OP_ADD, &step); /* nothing hides them now */
    assert_true(step.accepted && step.tell_peer);
}

static void
refusal_by_a_blocker_is_hidden(void **state)
{
    (void)state;
    struct pair p = {0};
    struct store_friend_step step;
    a_acts(&p, CQ_OP_ADD, &step);
    b_acts(&p, CQ_OP_BLOCK, &step);
    assert_false(step.tell_peer);
    assert_int_equal(store_friend_step(CQ_OP_ACCEPT, &p.b, &p.a, &step), -CQ_E_BAD_STATE);
    b_acts(&p, CQ_OP_DECLINE, &step);
    assert_true(step.changed && !step.tell_peer);
    assert_int_equal(p.a.relation, ASKED);
    assert_int_equal(p.b.relation, NONE);
}

static void
unknown_action_is_refused(void **state)
{
    (void)state;
    struct pair p = {0};
    struct store_friend_step step;
    for (int action = 0; action < 256; action++) {
        if (action < CQ_OP_ADD || action > CQ_OP_UNBLOCK) {
            assert_int_equal(act(&p, action, &step), -CQ_E_BAD_STATE);
        }
    }
}

static void
row_round_trip(void **state)
{
    (void)state;
    struct store_friend in = {.last_pos = UINT64_MAX,
                              .relation = CQ_RELATION_REMOVED,
                              .blocks = true,
                              .key_version = 3,
                              .peer_name = "ana"},
                        out;
    cq_buf_t b = {0};
    for (int chat = 0; chat < 2; chat++) {
        if (chat) {
            memset(in.chat.b, 1, CQ_ID_SIZE);
            memset(in.wrapped, 2, sizeof in.wrapped);
        }
        cq_buf_clear(&b);
        store_friend_write(&b, &in);
        assert_int_equal(store_friend_read((struct cq_view){b.data, b.size}, &out), 0);
        assert_true(in.last_pos == out.last_pos && in.relation == out.relation && out.blocks);
        assert_true(cq_id_eq(&in.chat, &out.chat) && out.key_version == 3);
        assert_memory_equal(in.wrapped, out.wrapped, sizeof in.wrapped);
        assert_string_equal(out.peer_name, "ana");
    }
    cq_pack_nil(&b);
    for (size_t n = 0; n <= b.size; n++) {
        int rc = store_friend_read((struct cq_view){b.data, n}, &out);
        assert_int_equal(rc, n == b.size - 1 ? 0 : -CQ_E_CORRUPT);
    }
    assert_int_equal(store_friend_read((struct cq_view){0}, &out), -CQ_E_CORRUPT);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reachable_pair_is_consistent),
        cmocka_unit_test(whole_table_never_makes_friends_of_strangers),
        cmocka_unit_test(table_of_the_protocol),
        cmocka_unit_test(crossing_requests_accept),
        cmocka_unit_test(a_former_chat_stays),
        cmocka_unit_test(block_closes_and_unblock_undoes_exactly_that),
        cmocka_unit_test(request_of_a_blocked_user_is_swallowed),
        cmocka_unit_test(crossing_requests_that_were_both_swallowed),
        cmocka_unit_test(refusal_by_a_blocker_is_hidden),
        cmocka_unit_test(unknown_action_is_refused),
        cmocka_unit_test(row_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
