/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "common/rt/random.h"

static void
ids_differ(void **state)
{
    struct cq_id a = cq_random_id();
    struct cq_id b = cq_random_id();
    (void)state;
    assert_false(cq_id_is_none(&a));
    assert_false(cq_id_eq(&a, &b));
    assert_true(cq_random_u64() != cq_random_u64());
}

/* BLAKE2b-128 of "chasqui-chat", 16 bytes 0x01, 16 bytes 0x02; computed with Python's hashlib. */
static void
chat_id_is_fixed(void **state)
{
    static const char expected[] = "1026729386c42972f76412e2ef081c3e";
    struct cq_id a;
    struct cq_id b;
    char hex[CQ_ID_HEX_SIZE];
    (void)state;
    memset(a.b, 1, sizeof a.b);
    memset(b.b, 2, sizeof b.b);
    struct cq_id ab = cq_chat_id(&a, &b);
    struct cq_id ba = cq_chat_id(&b, &a);
    assert_true(cq_id_eq(&ab, &ba));
    assert_string_equal(cq_id_hex(&ab, hex), expected);
}

static void
no_core(void **state)
{
    struct rlimit limit;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
    assert_int_equal(limit.rlim_cur, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_differ),
        cmocka_unit_test(chat_id_is_fixed),
        cmocka_unit_test(no_core),
    };
    cq_secure_start();
    return cmocka_run_group_tests_name("rt.random", tests, NULL, NULL);
}
