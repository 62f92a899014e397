/* SPDX-License-Identifier: MPL-2.0
 * The table of operations is complete; errors leave as the wire's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/ops.h"

static void
test_every_request_is_served(void **state)
{
    (void)state;
    size_t count;
    const struct cq_op *rows = cq_op_all(&count);
    size_t served = 0;
    for (size_t i = 0; i < count; i++) {
        if (edge_ops_is_served(rows[i].code) == rows[i].is_push) {
            fail_msg("%s", rows[i].name);
        }
        served += !rows[i].is_push;
        assert_true(rows[i].is_push || rows[i].fields->struct_size <= EDGE_OPS_FIELDS_MAX);
    }
    for (unsigned code = 0; code < 256; code++) {
        served -= edge_ops_is_served((uint8_t)code);
    }
    assert_int_equal(served, 0);
}

static void
test_internal_errors_are_not_told(void **state)
{
    (void)state;
    uint64_t retry_ms;
    static const int internal[] = {CQ_E_IO,     CQ_E_CORRUPT, CQ_E_CONFIG,
                                   CQ_E_CRYPTO, CQ_E_DENIED,  CQ_E_LOCKED};
    for (size_t i = 0; i < sizeof internal / sizeof internal[0]; i++) {
        assert_int_equal(edge_send_wire_err(-internal[i], &retry_ms), CQ_E_INTERNAL);
    }
    static const int again[] = {CQ_E_BUSY, CQ_E_UNAVAILABLE, CQ_E_DEADLINE, CQ_E_UNROUTABLE,
                                CQ_E_UNKNOWN_OUTCOME};
    for (size_t i = 0; i < sizeof again / sizeof again[0]; i++) {
        (void)edge_send_wire_err(-again[i], &retry_ms);
        assert_int_equal(retry_ms, 1000);
    }
    assert_int_equal(edge_send_wire_err(CQ_E_NOT_FOUND, &retry_ms), CQ_E_NOT_FOUND);
    assert_int_equal(retry_ms, 0);
}

static void
test_defaults_are_valid(void **state)
{
    (void)state;
    struct edge_config cfg;
    memset(&cfg, 0, sizeof cfg);
    char argv[5][24] = {"chasqui-edge", "--broker", "ipc:///tmp/x", "--limit-login-burst", "7"};
    char *args[] = {argv[0], argv[1], argv[2], argv[3], argv[4], NULL};
    assert_int_equal(
        cq_config_load(edge_config_items, edge_config_count, "chasqui-edge", 5, args, &cfg), 0);
    assert_int_equal(edge_config_check(&cfg), 0);
    assert_int_equal(cfg.limits[EDGE_RATE_LOGIN].burst, 7);
    assert_int_equal(cfg.limits[EDGE_RATE_SEND].per_s, 200);
    assert_int_equal(cfg.limits[EDGE_RATE_SEND].burst, 400);
    cfg.heartbeat_limit_ms = cfg.heartbeat_interval_ms;
    assert_int_equal(edge_config_check(&cfg), -CQ_E_CONFIG);
    cq_config_free(edge_config_items, edge_config_count, &cfg);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_is_served),
        cmocka_unit_test(test_internal_errors_are_not_told),
        cmocka_unit_test(test_defaults_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
