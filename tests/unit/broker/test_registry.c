/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/registry.h"

static int
setup(void **state)
{
    *state = broker_registry_new();
    return 0;
}

static int
teardown(void **state)
{
    broker_registry_t *r = *state;
    broker_registry_destroy(&r);
    return r ? -1 : 0;
}

static struct broker_actor *
add(broker_registry_t *r, const char *name, const char *role, uint64_t incarnation)
{
    struct broker_actor *a = NULL;
    assert_int_equal(broker_registry_add(r, name, role, incarnation, &a), 0);
    return a;
}

static struct cq_view
view(const char *s)
{
    return (struct cq_view){(const uint8_t *)s, strlen(s)};
}

static void
identities(void **state)
{
    static const char *const bad[] = {
        "",
        "#",
        "edge.1",
        "#0123456789abcdef",
        "edge.1#0123456789abcde",
        "edge.1#0123456789abcdef0",
        "edge.1#0123456789ABCDEF",
        "edge.1#0123456789abcdeg",
        "edge.1#0000000000000000",
        "Edge.1#0123456789abcdef",
        "edge 1#0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz012345#0123456789abcdef",
    };
    char name[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation = 0;
    (void)state;
    assert_true(broker_identity_read(view("edge.1#0123456789abcdef"), name, &incarnation));
    assert_string_equal(name, "edge.1");
    assert_true(incarnation == 0x0123456789abcdef);
    assert_true(broker_identity_read(view("abcdefghijklmnopqrstuvwxyz01234#ffffffffffffffff"), name,
                                     &incarnation));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(broker_identity_read(view(bad[i]), name, &incarnation));
    }
}

static void
names_and_identities_are_found(void **state)
{
    broker_registry_t *r = *state;
    struct broker_actor *a = add(r, "edge.1", "edge", 5);
    assert_ptr_equal(broker_registry_find(r, "edge.1"), a);
    assert_null(broker_registry_find(r, "edge"));
    assert_int_equal(a->identity_size, strlen(a->identity));
    assert_string_equal(a->identity, "edge.1#0000000000000005");
    assert_ptr_equal(broker_registry_by_identity(r, view(a->identity)), a);
    assert_null(broker_registry_by_identity(r, view("edge.1#0000000000000006")));
    assert_null(broker_registry_by_identity(r, view("nonsense")));
    assert_int_equal(broker_registry_count(r), 1);
    broker_registry_remove(r, a);
    assert_null(broker_registry_find(r, "edge.1"));
    assert_int_equal(broker_registry_count(r), 0);
}

static void
members_take_turns(void **state)
{
    broker_registry_t *r = *state;
    struct broker_actor *members[3] = {add(r, "s.1", "s", 1), add(r, "s.2", "s", 2),
                                       add(r, "s.3", "s", 3)};
    int hits[3] = {0};
    for (int i = 0; i < 9; i++) {
        struct broker_actor *to = broker_registry_route(r, "s");
        for (int m = 0; m < 3; m++) {
            hits[m] += to == members[m];
        }
    }
    assert_int_equal(hits[0], 3);
    assert_int_equal(hits[1], 3);
    assert_int_equal(hits[2], 3);
    members[1]->is_doomed = true;
    for (int i = 0; i < 6; i++) {
        assert_ptr_not_equal(broker_registry_route(r, "s"), members[1]);
    }
    assert_null(broker_registry_route(r, "s.2"));
    broker_registry_remove(r, members[0]);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(broker_registry_route(r, "s"), members[2]);
    }
    broker_registry_remove(r, members[2]);
    assert_null(broker_registry_route(r, "s"));
    broker_registry_remove(r, members[1]);
    assert_null(broker_registry_route(r, "s"));
}

static void
a_name_goes_before_a_role(void **state)
{
    broker_registry_t *r = *state;
    (void)add(r, "store.1", "store", 1);
    struct broker_actor *named = add(r, "store", "other", 2);
    assert_ptr_equal(broker_registry_route(r, "store"), named);
    broker_registry_remove(r, named);
    assert_non_null(broker_registry_route(r, "store"));
}

static void
former_holders_are_remembered(void **state)
{
    broker_registry_t *r = *state;
    char name[16];
    assert_false(broker_registry_was(r, "edge.1", 7));
    broker_registry_remove(r, add(r, "edge.1", "edge", 7));
    assert_true(broker_registry_was(r, "edge.1", 7));
    assert_false(broker_registry_was(r, "edge.1", 8));
    assert_false(broker_registry_was(r, "edge.2", 7));
    for (int i = 0; i < 256; i++) { /* bounded: the oldest is forgotten */
        (void)snprintf(name, sizeof name, "x.%d", i);
        broker_registry_remove(r, add(r, name, "x", 1));
    }
    assert_false(broker_registry_was(r, "edge.1", 7));
}

static void
the_number_is_bounded(void **state)
{
    broker_registry_t *r = *state;
    char name[16];
    struct broker_actor *a = NULL;
    for (int i = 0; i < BROKER_REGISTRY_MAX; i++) {
        (void)snprintf(name, sizeof name, "a.%d", i);
        (void)add(r, name, i % 2 ? "odd" : "even", (uint64_t)i + 1);
    }
    assert_int_equal(broker_registry_add(r, "one.more", "odd", 1, &a), -CQ_E_BUSY);
    assert_null(a);
    assert_int_equal(broker_registry_count(r), BROKER_REGISTRY_MAX);
    broker_registry_remove(r, broker_registry_find(r, "a.17"));
    (void)add(r, "one.more", "odd", 1);
    for (size_t i = 0; i < broker_registry_count(r); i++) {
        assert_int_equal(broker_registry_at(r, i)->place, i);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identities),
        TEST(names_and_identities_are_found),
        TEST(members_take_turns),
        TEST(a_name_goes_before_a_role),
        TEST(former_holders_are_remembered),
        TEST(the_number_is_bounded),
    };
    return cmocka_run_group_tests_name("broker.registry", tests, NULL, NULL);
}
