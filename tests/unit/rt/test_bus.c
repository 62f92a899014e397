/* SPDX-License-Identifier: MPL-2.0
 * The bus when all is well: registration, requests, events, batches, roles.
 */
#include "common/wire/pack.h"

#include "tests/unit/rt/bus_fixture.h"

static void
peers_know_each_other(void **state)
{
    struct fixture *f = *state;
    assert_true(cq_bus_has(f->nodes[0].bus, "store"));
    assert_true(cq_bus_has(f->nodes[0].bus, "store.1"));
    assert_false(cq_bus_has(f->nodes[0].bus, "edge.1"));
    assert_false(cq_bus_has(f->nodes[0].bus, "presence"));
    assert_true(cq_bus_has(f->nodes[1].bus, "edge"));
    assert_non_null(strstr(f->nodes[0].trace, "registered"));
    assert_non_null(strstr(f->nodes[0].trace, "up store.1"));
    assert_true(cq_bus_incarnation(f->nodes[0].bus) != cq_bus_incarnation(f->nodes[1].bus));
    assert_int_equal(broker_actor_count(f->broker), 2);
}

static bool
store_is_gone(struct fixture *f)
{
    return !cq_bus_has(f->nodes[0].bus, "store");
}

static void
leaving_is_announced(void **state)
{
    struct fixture *f = *state;
    cq_bus_destroy(&f->nodes[1].bus);
    assert_true(run_until(f, store_is_gone, 300)); /* not by the lease */
    assert_non_null(strstr(f->nodes[0].trace, "down store.1"));
}

static void
request_is_answered(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 41, 2000), 0);
    assert_int_equal(f->nodes[0].replies, 0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_err, 0);
    assert_int_equal(f->nodes[0].last_value, 42);
    assert_int_equal(f->nodes[0].last_count, 1);
    assert_string_equal(f->nodes[1].last_from.src, "edge.1");
}

static void
error_carries_its_detail(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store.1", OP_ASK, 404, 2000), 0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_err, -CQ_E_NOT_FOUND);
    assert_int_equal(f->nodes[0].last_detail, 77);
}

static void
raw_answer(void **state)
{
    struct fixture *f = *state;
    cq_buf_t raw = {0};
    f->wanted = 1;
    f->nodes[1].is_mute = true;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 2000), 0);
    assert_true(run_until(f, node1_has_seen, 2000));
    cq_pack_uint(&raw, 5);
    cq_pack_nil(&raw);
    cq_bus_reply_raw(f->nodes[1].bus, &f->nodes[1].last_from, 2,
                     (struct cq_view){raw.data, raw.size});
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_value, 5);
    assert_int_equal(f->nodes[0].last_count, 2);
    cq_buf_free(&raw);
}

/* What a turn queues for one destination and operation is one envelope, answers too. */
static void
a_turn_is_one_envelope(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1000;
    struct cq_bus_stats before = cq_bus_stats;
    for (uint64_t i = 0; i < f->wanted; i++) {
        assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, i, 5000), 0);
    }
    assert_true(run_until(f, node0_has_reply, 5000));
    assert_int_equal(f->nodes[0].last_value, 1000);
    /* One there, one back, and a few pings. */
    assert_true(cq_bus_stats.envelopes_out - before.envelopes_out == 2);
    assert_int_equal(cq_bus_stats.items_out - before.items_out, 2000);
    assert_int_equal(cq_bus_stats.in_flight, 0);
}

static void
order_per_destination(void **state)
{
    struct fixture *f = *state;
    f->wanted = 300;
    for (uint64_t i = 0; i < f->wanted; i++) {
        tell(&f->nodes[0], "store", i % 7 < 4 ? OP_EVENT : OP_OTHER, i);
    }
    assert_true(run_until(f, node1_has_seen, 2000));
    for (uint64_t i = 0; i < f->wanted; i++) {
        assert_int_equal(f->nodes[1].seen[i], i);
    }
}

/* More than an envelope holds in items, then more than it should in bytes. */
static void
big_turns_are_split(void **state)
{
    struct fixture *f = *state;
    uint64_t sent = cq_bus_stats.envelopes_out;
    f->wanted = 20000;
    for (uint64_t i = 0; i < f->wanted; i++) {
        tell(&f->nodes[0], "store", OP_EVENT, i);
    }
    assert_true(run_until(f, node1_has_seen, 5000));
    assert_int_equal(cq_bus_stats.envelopes_out - sent, 3);
    for (uint64_t i = 0; i < f->wanted; i++) {
        assert_int_equal(f->nodes[1].seen[i], i);
    }
}

static void
big_items_fit_or_are_refused(void **state)
{
    struct fixture *f = *state;
    struct node *store = &f->nodes[1];
    size_t size = CQ_ENVELOPE_MAX;
    uint8_t *bytes = calloc(1, size);
    cq_buf_t raw = {0};
    f->wanted = 3;
    store->is_mute = true;
    for (uint64_t i = 0; i < f->wanted; i++) {
        assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, i, 4000), 0);
    }
    assert_true(run_until(f, node1_has_seen, 2000));
    struct cq_bus_from from = store->last_from;
    cq_pack_bin(&raw, bytes, size); /* with its item's head it does not fit */
    cq_bus_reply_raw(store->bus, &from, 1, (struct cq_view){raw.data, raw.size});
    f->wanted = 1;
    assert_true(run_until(f, node0_has_reply, 3000));
    assert_int_equal(f->nodes[0].last_err, -CQ_E_TOO_BIG);
    cq_buf_clear(&raw);
    cq_pack_bin(&raw, bytes, size / 2); /* each fits, behind each other they do not */
    for (uint64_t i = 1; i < 3; i++) {
        from.rid--;
        cq_bus_reply_raw(store->bus, &from, 1, (struct cq_view){raw.data, raw.size});
    }
    uint64_t sent = cq_bus_stats.envelopes_out;
    f->wanted = 3;
    assert_true(run_until(f, node0_has_reply, 3000));
    assert_int_equal(f->nodes[0].last_err, 0);
    assert_int_equal(cq_bus_stats.envelopes_out - sent, 2);
    cq_buf_free(&raw);
    free(bytes);
}

static void
big_requests_are_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, CQ_ENVELOPE_MAX);
    struct cq_metrics m = {.text = {bytes, CQ_ENVELOPE_MAX}};
    struct cq_bus_wait wait = {1000, on_reply, &f->nodes[0]};
    assert_int_equal(
        cq_bus_request(f->nodes[0].bus, "store", OP_ASK, &cq_metrics_schema, &m, &wait),
        -CQ_E_TOO_BIG);
    assert_int_equal(cq_bus_stats.in_flight, 0);
    free(bytes);
}

static void
roles_are_checked(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_EDGE_ONLY, 1, 2000), 0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_err, 0);
    start_node(f, 2, "bot", "bot");
    assert_true(run_until(f, all_registered, 5000));
    struct node *bot = &f->nodes[2];
    uint64_t denied = cq_bus_stats.denied;
    f->nodes[1].seen_count = 0;
    assert_int_equal(ask(bot, "store", OP_EDGE_ONLY, 2, 2000), 0);
    f->wanted = 2;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 3, 2000), 0); /* comes after it */
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[1].seen_count, 1);
    assert_int_equal(cq_bus_stats.denied - denied, 1);
    assert_int_equal(bot->last_err, -CQ_E_DENIED);
}

static void
unknown_operations_are_refused(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", 0xee, 1, 2000), 0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_err, -CQ_E_UNKNOWN_OP);
}

static void
on_text(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct node *n = ctx;
    struct cq_metrics m;
    (void)detail;
    n->last_err = err ? err : cq_schema_read(&cq_metrics_schema, fields, count, &m);
    n->last_value = n->last_err == 0 && memmem(m.text.p, m.text.n, "chasqui_bus_in_flight{", 22);
    n->replies++;
}

static void
metrics_are_answered(void **state)
{
    struct fixture *f = *state;
    struct cq_empty none = {0};
    struct cq_bus_wait wait = {2000, on_text, &f->nodes[0]};
    f->wanted = 1;
    assert_int_equal(
        cq_bus_request(f->nodes[0].bus, "store", CQ_BUS_METRICS, &cq_empty_schema, &none, &wait),
        0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_value, 1);
    f->wanted = 2;
    assert_int_equal(
        cq_bus_request(f->nodes[0].bus, "broker", CQ_BUS_METRICS, &cq_empty_schema, &none, &wait),
        0);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_err, 0);
}

static bool
never(struct fixture *f)
{
    (void)f;
    return false;
}

static void
pause_holds_input_back(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    cq_bus_pause(f->nodes[1].bus, true);
    tell(&f->nodes[0], "store", OP_EVENT, 1);
    assert_false(run_until(f, never, 2ull * LEASE_MS));
    assert_int_equal(f->nodes[1].seen_count, 0);
    assert_true(cq_bus_has(f->nodes[0].bus, "store")); /* it still pings */
    cq_bus_pause(f->nodes[1].bus, false);
    assert_true(run_until(f, node1_has_seen, 1000));
    assert_true(cq_bus_is_registered(f->nodes[1].bus));
    assert_null(strstr(f->nodes[1].trace, "lost"));
}

static void
bad_config_is_refused(void **state)
{
    struct fixture *f = *state;
    struct cq_bus_cfg cfg = {.endpoint = f->endpoint, .name = "Bad Name", .role = "x"};
    assert_null(cq_bus_new(f->loop, &cfg));
    cfg.name = "broker";
    assert_null(cq_bus_new(f->loop, &cfg));
    cfg.name = "ok";
    cfg.endpoint = "nonsense";
    assert_null(cq_bus_new(f->loop, &cfg));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(peers_know_each_other),
        TEST(leaving_is_announced),
        TEST(request_is_answered),
        TEST(error_carries_its_detail),
        TEST(raw_answer),
        TEST(a_turn_is_one_envelope),
        TEST(order_per_destination),
        TEST(big_turns_are_split),
        TEST(big_items_fit_or_are_refused),
        TEST(big_requests_are_refused),
        TEST(roles_are_checked),
        TEST(unknown_operations_are_refused),
        TEST(metrics_are_answered),
        TEST(pause_holds_input_back),
        TEST(bad_config_is_refused),
    };
    cq_secure_start();
    return cmocka_run_group_tests_name("rt.bus", tests, NULL, NULL);
}
