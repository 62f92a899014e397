/* SPDX-License-Identifier: MPL-2.0
 * The bus when things break: nobody there, no answer, a restarted peer, a restarted broker,
 * garbage.
 */
#include <inttypes.h>

#include "tests/unit/rt/bus_fixture.h"

static void
no_answer_is_a_deadline(void **state)
{
    struct fixture *f = *state;
    f->nodes[1].is_mute = true;
    f->wanted = 1;
    uint64_t began = cq_now_mono_ms();
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 9, 1500), 0);
    assert_true(run_until(f, node0_has_reply, 3000));
    uint64_t took = cq_now_mono_ms() - began;
    assert_true(took >= 1500 && took < 2200);
    assert_int_equal(f->nodes[0].last_err, -CQ_E_DEADLINE);
    assert_int_equal(f->nodes[1].seen_count, 2); /* repeated after a second */
    /* The answer that comes too late is nobody's. */
    struct cq_bus_ping late = {.incarnation = 1};
    cq_bus_reply(f->nodes[1].bus, &f->nodes[1].last_from, &cq_bus_ping_schema, &late);
    f->nodes[1].is_mute = false;
    f->wanted = 2;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 10, 1500), 0);
    assert_true(run_until(f, node0_has_reply, 1000));
    assert_int_equal(f->nodes[0].replies, 2);
    assert_int_equal(f->nodes[0].last_value, 11);
}

static void
in_flight_is_bounded(void **state)
{
    struct fixture *f = *state;
    start_node_max(f, 2, "bot", "bot", 3);
    assert_true(run_until(f, all_registered, 5000));
    f->nodes[1].is_mute = true;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(&f->nodes[2], "store", OP_ASK, 1, 1000), 0);
    }
    assert_int_equal(ask(&f->nodes[2], "store", OP_ASK, 1, 1000), -CQ_E_BUSY);
}

static void
request_waits_for_its_addressee(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    cq_bus_destroy(&f->nodes[1].bus);
    assert_true(run_until(f, all_registered, 2000));
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 8000), 0);
    assert_false(run_until(f, node0_has_reply, 150));
    start_node(f, 1, "store.1", "store");
    uint64_t began = cq_now_mono_ms();
    assert_true(run_until(f, node0_has_reply, 3000));
    assert_true(cq_now_mono_ms() - began < 500); /* when it came up, not at the next repetition */
    assert_int_equal(f->nodes[0].last_value, 2);
    assert_int_equal(f->nodes[0].replies, 1);
}

/* Killed with our request inside: its successor gets it at once. */
static void
request_survives_its_addressee(void **state)
{
    struct fixture *f = *state;
    f->wanted = 1;
    f->nodes[1].is_mute = true;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 8000), 0);
    assert_true(run_until(f, node1_has_seen, 1000));
    cq_bus_destroy(&f->nodes[1].bus);
    f->nodes[1].is_mute = false;
    start_node(f, 1, "store.1", "store");
    uint64_t began = cq_now_mono_ms();
    assert_true(run_until(f, node0_has_reply, 3000));
    assert_true(cq_now_mono_ms() - began < 700);
    assert_non_null(strstr(f->nodes[0].trace, "down store.1 up store.1"));
}

static void
broker_comes_late(void **state)
{
    struct fixture *f = *state;
    start_node(f, 0, "edge.1", "edge");
    start_node(f, 1, "store.1", "store");
    uint64_t dropped = cq_bus_stats.dropped_items;
    tell(&f->nodes[0], "store", OP_EVENT, 1);
    assert_int_equal(cq_bus_stats.dropped_items - dropped, 1);
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 20000), 0);
    assert_false(run_until(f, all_registered, 100));
    start_broker(f);
    assert_true(run_until(f, node0_has_reply, 5000));
    assert_null(strstr(f->nodes[0].trace, "lost"));
}

static bool
both_lost(struct fixture *f)
{
    return strstr(f->nodes[0].trace, "lost") && strstr(f->nodes[1].trace, "lost");
}

static void
broker_dies_and_returns(void **state)
{
    struct fixture *f = *state;
    broker_destroy(&f->broker);
    assert_true(run_until(f, both_lost, 4ull * LEASE_MS));
    assert_false(cq_bus_is_registered(f->nodes[0].bus));
    assert_false(cq_bus_has(f->nodes[0].bus, "store"));
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 10000), 0);
    start_broker(f);
    assert_true(run_until(f, node0_has_reply, 5000));
    assert_true(run_until(f, all_registered, 5000));
    /* In this order: everything of the former registration went down before the new one. */
    const char *down = strstr(f->nodes[0].trace, "down store.1");
    const char *lost = strstr(f->nodes[0].trace, "lost");
    assert_true(down && lost && down < lost);
    assert_non_null(strstr(lost, "registered"));
}

static bool
registered_twice(struct fixture *f)
{
    const char *first = strstr(f->nodes[0].trace, "registered");
    return all_registered(f) && first && strstr(first + 1, "registered");
}

/* Back before anybody's lease has run out: it says WHO. */
static void
broker_restarts_quickly(void **state)
{
    struct fixture *f = *state;
    f->nodes[1].is_mute = true;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 10000), 0);
    assert_true(run_until(f, node1_has_seen, 1000));
    f->nodes[1].is_mute = false;
    broker_destroy(&f->broker);
    start_broker(f);
    assert_true(run_until(f, registered_twice, 5000));
    assert_true(run_until(f, node0_has_reply, 5000));
    assert_int_equal(f->nodes[0].replies, 1);
}

static bool
node0_is_registered(struct fixture *f)
{
    return cq_bus_is_registered(f->nodes[0].bus);
}

/* Somebody took the endpoint's identity while the broker was away: its own connection is deaf. When
 * he is gone the endpoint must not stay on it. */
static void
a_deaf_socket_is_replaced(void **state)
{
    struct fixture *f = *state;
    char identity[CQ_BUS_IDENTITY_MAX + 1];
    (void)snprintf(identity, sizeof identity, "edge.1#%016" PRIx64, f->nodes[0].bus->incarnation);
    broker_destroy(&f->broker);
    assert_true(run_until(f, both_lost, 4ull * LEASE_MS));
    zsock_t *thief = zsock_new(ZMQ_DEALER);
    zsock_set_identity(thief, identity);
    zsock_set_linger(thief, 0);
    start_broker(f);
    assert_int_equal(zsock_connect(thief, "%s", f->endpoint), 0);
    (void)run_until(f, node0_is_registered, 300);
    zsock_destroy(&thief);
    assert_true(run_until(f, all_registered, 10000));
}

/* ---- an actor that sends garbage ---- */

struct rogue {
    zsock_t *sock;
    char identity[64];
};

static void
rogue_send(const struct rogue *r, const char *dst, const struct cq_view *frames, size_t count)
{
    void *sock = zsock_resolve(r->sock);
    (void)zmq_send(sock, dst, strlen(dst), ZMQ_SNDMORE);
    for (size_t i = 0; i < count; i++) {
        (void)zmq_send(sock, frames[i].p, frames[i].n, i + 1 < count ? ZMQ_SNDMORE : 0);
    }
}

static void
rogue_join(struct rogue *r, const char *endpoint)
{
    cq_buf_t body = {0};
    cq_buf_t header = {0};
    struct cq_envelope e = {.op = CQ_BUS_REGISTER};
    struct cq_actor a = {.name = {(const uint8_t *)"rogue", 5},
                         .role = {(const uint8_t *)"edge", 4},
                         .incarnation = 0xabc};
    r->sock = zsock_new(ZMQ_DEALER);
    zsock_set_identity(r->sock, "rogue#0000000000000abc");
    zsock_set_linger(r->sock, 0);
    assert_int_equal(zsock_connect(r->sock, "%s", endpoint), 0);
    cq_envelope_write(&header, &e);
    cq_pack_array(&body, 1);
    cq_pack_array(&body, 4);
    cq_pack_uint(&body, 0);
    cq_schema_write(&cq_actor_schema, &body, &a);
    struct cq_view frames[] = {{header.data, header.size}, {body.data, body.size}};
    rogue_send(r, "broker", frames, 2);
    cq_buf_free(&body);
    cq_buf_free(&header);
}

static bool
rogue_is_up(struct fixture *f)
{
    return cq_bus_has(f->nodes[1].bus, "rogue");
}

#define BYTES(s)                            \
    {                                       \
        (const uint8_t *)(s), sizeof(s) - 1 \
    }

/* Operations that only the broker may say, answers nobody asked for, bodies that are not what they
 * claim. */
static const struct cq_view headers[] = {
    BYTES("\x95\x01\x35\x00\x00\x00"), BYTES("\x95\x01\x36\x00\x00\x00"),
    BYTES("\x95\x01\x0a\x00\x00\x00"), BYTES("\x95\x01\x02\x00\x00\x00"),
    BYTES("\x95\x01\x05\x00\x00\x00"), BYTES("\x95\x01\x06\x00\x00\x00"),
    BYTES("\x95\x01\x07\x00\x00\x00"), BYTES("\x95\x01\x09\x00\x00\x00"),
    BYTES("\x95\x01\x0b\x00\x00\x00"),
};
static const struct cq_view bodies[] = {
    BYTES(""),
    BYTES("\xc1"),
    BYTES("\x90"),
    BYTES("\x91"),
    BYTES("\x91\x90"),
    BYTES("\x91\x91\xc0"),
    BYTES("\x91\x91\x00"),
    BYTES("\x91\x92\x01\xa1x"),
    BYTES("\x92\x92\x01\x05\xc1"),
    BYTES("\xdd\xff\xff\xff\xff"),
    BYTES("\x91\xdd\xff\xff\xff\xff\x00"),
    BYTES("\x91\x99\x99\x99\x99\x99\x99\x99\x99\x99\x99"),
    BYTES("\x81\x01\x02"),
    BYTES("\x91\x94\x00\xa7"
          "store.1\xa5"
          "store\x01"),
};

static void
send_garbage(const struct rogue *r)
{
    for (size_t h = 0; h < sizeof headers / sizeof headers[0]; h++) {
        for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++) {
            const struct cq_view frames[] = {headers[h], bodies[b]};
            rogue_send(r, "store.1", frames, 2);
            rogue_send(r, "edge.1", frames, 2);
        }
    }
}

/* An answer by somebody who was not asked, with the right number. */
static void
send_false_answer(const struct rogue *r, uint64_t rid)
{
    cq_buf_t body = {0};
    cq_pack_array(&body, 1);
    cq_pack_array(&body, 3);
    cq_pack_uint(&body, rid);
    cq_pack_uint(&body, 0);
    cq_pack_uint(&body, 666);
    const struct cq_view answer[] = {BYTES("\x95\x01\x0a\x00\x00\x00"), {body.data, body.size}};
    rogue_send(r, "edge.1", answer, 2);
    cq_buf_free(&body);
}

static void
garbage_is_survived(void **state)
{
    struct fixture *f = *state;
    struct node *store = &f->nodes[1];
    struct rogue r = {0};
    rogue_join(&r, f->endpoint);
    assert_true(run_until(f, rogue_is_up, 2000));
    uint64_t garbage = cq_bus_stats.garbage;
    store->is_mute = true;
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 5000), 0);
    assert_true(run_until(f, node1_has_seen, 2000));
    struct cq_bus_from asker = store->last_from;
    send_garbage(&r);
    send_false_answer(&r, asker.rid);
    assert_false(run_until(f, node0_has_reply, 200));
    struct cq_bus_ping right = {.incarnation = 2};
    cq_bus_reply(store->bus, &asker, &cq_bus_ping_schema, &right);
    assert_true(run_until(f, node0_has_reply, 2000));
    assert_int_equal(f->nodes[0].last_value, 2);
    assert_true(cq_bus_stats.garbage > garbage);
    assert_true(cq_bus_has(f->nodes[0].bus, "store.1"));
    assert_true(cq_bus_is_registered(f->nodes[0].bus));
    zsock_destroy(&r.sock);
}

/* ---- a peer that dies with more in the queue than fits ----
 *
 * libzmq's engine has stopped to read then, and looks at the dead connection again when there is
 * room. What it does in between must not count on the connection (its heartbeats did).
 */

enum {
    FLOOD_MAX = 1000000,
    BROKER_HWM = 10000,
    FULL_MS = 200, /* nothing more could be sent for so long: full */
    PATIENCE_MS = 20000,
    DEAD_FOR_MS = 2500 /* longer than a second, the interval that heartbeats had */
};

/* As much as is taken, more than least; dst is NULL or a peer of a ROUTER. */
static void
flood(zsock_t *sock, const char *dst, size_t least)
{
    void *s = zsock_resolve(sock);
    uint64_t sent_mono_ms = cq_now_mono_ms();
    size_t count = 0;
    while (count < FLOOD_MAX &&
           cq_now_mono_ms() - sent_mono_ms < (count > least ? FULL_MS : PATIENCE_MS)) {
        bool is_sent = (!dst || zmq_send(s, dst, strlen(dst), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) &&
                       zmq_send(s, "x", 1, ZMQ_DONTWAIT) >= 0;
        if (is_sent) {
            sent_mono_ms = cq_now_mono_ms();
            count++;
        } else {
            zclock_sleep(1);
        }
    }
    assert_true(count > least && count < FLOOD_MAX);
}

static void
broker_survives_a_peer_that_dies_with_a_full_queue(void **state)
{
    struct fixture *f = *state;
    zsock_t *peer = zsock_new(ZMQ_DEALER);
    zsock_set_linger(peer, 0);
    assert_int_equal(zsock_connect(peer, "%s", f->endpoint), 0);
    flood(peer, NULL, BROKER_HWM);
    zsock_destroy(&peer);
    zclock_sleep(DEAD_FOR_MS);
    f->wanted = 1;
    assert_int_equal(ask(&f->nodes[0], "store", OP_ASK, 1, 10000), 0);
    assert_true(run_until(f, node0_has_reply, 10000));
}

static bool
node0_has_asked(struct fixture *f)
{
    return f->nodes[0].bus->asked_count > 0;
}

static void
actor_survives_a_broker_that_dies_with_a_full_queue(void **state)
{
    struct fixture *f = *state;
    zsock_t *router = zsock_new(ZMQ_ROUTER);
    zsock_set_linger(router, 0);
    zsock_set_router_mandatory(router, 1);
    assert_true(zsock_bind(router, "%s", f->endpoint) != -1);
    start_node(f, 0, "edge.1", "edge");
    assert_true(run_until(f, node0_has_asked, 10000));
    zsock_set_rcvtimeo(router, 10000);
    char *identity = zstr_recv(router);
    assert_non_null(identity);
    flood(router, identity, CQ_BUS_HWM);
    zstr_free(&identity);
    zsock_destroy(&router);
    zclock_sleep(DEAD_FOR_MS);
    start_broker(f);
    assert_true(run_until(f, all_registered, 10000));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_answer_is_a_deadline),
        TEST(in_flight_is_bounded),
        TEST(request_waits_for_its_addressee),
        TEST(request_survives_its_addressee),
        cmocka_unit_test_setup_teardown(broker_comes_late, setup_bare, teardown),
        TEST(broker_dies_and_returns),
        TEST(broker_restarts_quickly),
        TEST(a_deaf_socket_is_replaced),
        TEST(garbage_is_survived),
        TEST(broker_survives_a_peer_that_dies_with_a_full_queue),
        cmocka_unit_test_setup_teardown(actor_survives_a_broker_that_dies_with_a_full_queue,
                                        setup_bare, teardown),
    };
    cq_secure_start();
    return cmocka_run_group_tests_name("rt.bus_fault", tests, NULL, NULL);
}
