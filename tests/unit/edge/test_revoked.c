/* SPDX-License-Identifier: MPL-2.0
 * The table of void tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/rt/random.h"

#include "edge/revoked.h"

static struct cq_id
id_of(uint32_t n)
{
    struct cq_id id = {{0}};
    memcpy(id.b, &n, sizeof n);
    return id;
}

static void
test_generations_only_grow(void **state)
{
    (void)state;
    edge_revoked_t *r = edge_revoked_new();
    struct cq_id user = id_of(1), other = id_of(2), device = id_of(9);
    assert_false(edge_revoked_has(r, &user, &device, 0));
    edge_revoked_add(r, &user, &device, 5);
    edge_revoked_add(r, &user, &device, 3);
    assert_true(edge_revoked_has(r, &user, &device, 1));
    assert_true(edge_revoked_has(r, &user, &device, 5));
    assert_false(edge_revoked_has(r, &user, &device, 6));
    assert_false(edge_revoked_has(r, &other, &device, 1));
    assert_int_equal(edge_revoked_count(r), 1);
    edge_revoked_destroy(&r);
    edge_revoked_destroy(&r);
}

static void
test_many(void **state)
{
    (void)state;
    edge_revoked_t *r = edge_revoked_new();
    for (uint32_t i = 0; i < 20000; i++) {
        struct cq_id user = id_of(i / 3), device = id_of(i);
        edge_revoked_add(r, &user, &device, i);
    }
    assert_int_equal(edge_revoked_count(r), 20000);
    for (uint32_t i = 0; i < 20000; i++) {
        struct cq_id user = id_of(i / 3), device = id_of(i);
        assert_true(edge_revoked_has(r, &user, &device, i));
        assert_false(edge_revoked_has(r, &user, &device, i + 1));
    }
    edge_revoked_destroy(&r);
}

int
main(void)
{
    cq_secure_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generations_only_grow),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
