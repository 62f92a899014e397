/* SPDX-License-Identifier: MPL-2.0
 * The client against an edge that does what the real ones do rarely or never: every rule of
 * docs/protocol.md sections 6 and 7.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "client/db.h"
#include "client/include/chasqui/client.h"
#include "client/keyring.h"
#include "tests/unit/client/session_world.h"

/* ---- sending ---- */

static void
test_send(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t message = world_send_text(w, "hello");
    world_expect_send(w, 1, 0, &op);
    struct cq_message m = {w->chat, 1, w->user,       w->device,          1,
                           0,       1, op.send.nonce, op.send.ciphertext, {NULL, 0}};
    struct cq_opened opened;
    assert_int_equal(cq_keyring_decrypt(&m, w->chat_keys[1], &opened), 0);
    assert_string_equal(opened.text, "hello");
    free(opened.text);
    world_sent(w, op.rid, 1);
    struct seen s = world_wait_for(w, CQ_CLIENT_EVENT_SENT);
    assert_int_equal(s.event.message, message);
    assert_int_equal(s.event.seq, 1);
    assert_string_equal(s.peer, "bob");
    fake_edge_expect_silence(w->edge, 200); /* no ACK for what this device has written itself */
    world_push_message(w, 2, "answer");
    world_take_ack(w, 2, 0);
}

static void
test_retry_is_byte_identical(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    world_send_text(w, "once");
    world_expect_send(w, 1, 0, &op);
    uint8_t ciphertext[64];
    size_t n = op.send.ciphertext.n;
    memcpy(ciphertext, op.send.ciphertext.p, n);
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    world_expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.ciphertext.n, n);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    fake_edge_err(w->edge, op.rid, CQ_E_BUSY, 10, 0);
    world_expect_send(w, 1, 0, &op);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    /* and by the next process */
    cq_client_close(&w->client);
    world_open_client(w);
    assert_int_equal(cq_client_connect(w->client), 0);
    world_serve_resume(w);
    world_expect_send(w, 1, 0, &op);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    world_sent(w, op.rid, 1);
    fake_edge_expect_silence(w->edge, 300);
}

static void
test_window(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[17];
    for (int i = 0; i < 20; i++) {
        world_send_text(w, "x");
    }
    for (uint64_t i = 1; i <= 16; i++) {
        world_expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    fake_edge_expect_silence(w->edge, 300);
    world_sent(w, rids[1], 1);
    world_expect_send(w, 17, 16, &op);
    fake_edge_expect_silence(w->edge, 300);
}

static void
test_out_of_order(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[4];
    for (int i = 0; i < 3; i++) {
        world_send_text(w, "x");
    }
    for (uint64_t i = 1; i <= 3; i++) {
        world_expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    /* the first was lost on the way */
    fake_edge_err(w->edge, rids[1], CQ_E_UNAVAILABLE, 0, 0);
    fake_edge_err(w->edge, rids[3], CQ_E_OUT_OF_ORDER, 0, 0);
    fake_edge_expect_silence(w->edge, 300); /* not before every answer is here */
    fake_edge_err(w->edge, rids[2], CQ_E_OUT_OF_ORDER, 0, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        world_expect_send(w, i, i - 1, &op);
        world_sent(w, op.rid, i);
    }
    for (int i = 0; i < 3; i++) {
        world_wait_for(w, CQ_CLIENT_EVENT_SENT);
    }
}

static void
test_refused_for_good(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[4];
    uint64_t first = world_send_text(w, "x");
    world_send_text(w, "y");
    world_send_text(w, "z");
    for (uint64_t i = 1; i <= 3; i++) {
        world_expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    fake_edge_err(w->edge, rids[1], CQ_E_CHAT_CLOSED, 0, 0);
    fake_edge_err(w->edge, rids[2], CQ_E_OUT_OF_ORDER, 0, 0);
    fake_edge_err(w->edge, rids[3], CQ_E_OUT_OF_ORDER, 0, 0);
    struct seen failed = world_wait_for(w, CQ_CLIENT_EVENT_FAILED);
    assert_int_equal(failed.event.message, first);
    assert_int_equal(failed.event.error, CQ_E_CHAT_CLOSED);
    /* its dseq was not taken: the next one has the same prev */
    world_expect_send(w, 2, 0, &op);
    world_sent(w, op.rid, 1);
    world_expect_send(w, 3, 2, &op);
    world_sent(w, op.rid, 2);
    world_wait_for(w, CQ_CLIENT_EVENT_SENT);
    world_wait_for(w, CQ_CLIENT_EVENT_SENT);
}

static void
test_newer_key(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    world_send_text(w, "rotate");
    world_expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.key_version, 1);
    w->key_version = 2;
    fake_edge_err(w->edge, op.rid, CQ_E_KEY_VERSION, 0, 0);
    world_give_keys(w);
    world_give_sync(w);
    world_expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.key_version, 2);
    struct cq_message m = {w->chat, 1, w->user,       w->device,          1,
                           0,       2, op.send.nonce, op.send.ciphertext, {NULL, 0}};
    struct cq_opened opened;
    assert_int_equal(cq_keyring_decrypt(&m, w->chat_keys[2], &opened), 0);
    assert_string_equal(opened.text, "rotate");
    free(opened.text);
    world_sent(w, op.rid, 1);
    world_wait_for(w, CQ_CLIENT_EVENT_SENT);
}

static void
test_conflict_is_loud(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t message = 0;
    world_send_text(w, "copy");
    world_expect_send(w, 1, 0, &op);
    fake_edge_err(w->edge, op.rid, CQ_E_DSEQ_CONFLICT, 0, 0);
    assert_int_equal(world_wait_for(w, CQ_CLIENT_EVENT_WARNING).event.error, CQ_CLIENT_E_CLONED);
    assert_int_equal(cq_client_send(w->client, "bob", "more", 4, &message), -CQ_CLIENT_E_CLONED);
    fake_edge_expect_silence(w->edge, 300);
    /* logging in again makes a new device */
    struct cq_id before = w->device;
    assert_true(cq_client_login(w->client, "alice", "password") > 0);
    world_serve_login(w);
    assert_false(cq_id_eq(&before, &w->device));
    world_send_text(w, "of its own");
    world_expect_send(w, 1, 0, &op);
    world_sent(w, op.rid, 1);
}

/* The server has forgotten this device, which was logged out, to make room for others. */
static void
test_a_device_that_was_given_up(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    struct cq_id before = w->device;
    world_send_text(w, "on its way");
    world_expect_send(w, 1, 0, &op);
    assert_true(cq_client_login(w->client, "alice", "password") > 0);
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_LOGIN, &op);
    assert_true(cq_id_eq(&op.auth.device, &before));
    fake_edge_err(w->edge, op.rid, CQ_E_BAD_DEVICE, 0, 0);
    fake_edge_expect(w->edge, CQ_OP_LOGIN, &op);
    assert_false(cq_id_eq(&op.auth.device, &before));
    w->device = op.auth.device;
    memcpy(w->device_key, op.auth.device_key.p, 32);
    world_welcome(w, op.rid);
    world_give_keys(w);
    world_give_sync(w);
    /* what may have been sent under the old id is said, not sent again */
    world_send_text(w, "as another one");
    world_expect_send(w, 1, 0, &op);
    world_sent(w, op.rid, 1);
    world_wait_for(w, CQ_CLIENT_EVENT_SENT);
}

/* Two processes of one home send the same row; the other one had its OK and went on for a window
 * before the copy of this one was answered. That is no clone. */
static void
test_late_conflict_of_a_copy(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    cq_db_t *db = NULL;
    uint64_t message = world_send_text(w, "both");
    world_expect_send(w, 1, 0, &op);
    assert_int_equal(cq_db_open(w->home, &db), 0);
    assert_int_equal(cq_db_out_delete(db, message), 0);
    assert_int_equal(cq_db_chat_done(db, &w->chat, 1), 0);
    cq_db_close(&db);
    fake_edge_err(w->edge, op.rid, CQ_E_DSEQ_CONFLICT, 0, 0);
    world_push_message(w, 1, "answer");
    world_take_ack(w, 1, 0); /* so it has read the refusal */
    world_send_text(w, "more");
    world_expect_send(w, 2, 1, &op);
    world_sent(w, op.rid, 2);
    world_wait_for(w, CQ_CLIENT_EVENT_SENT);
}

static void
test_clone_is_seen_at_sync(void **state)
{
    struct world *w = *state;
    uint64_t message = 0;
    w->last_dseq = 5; /* this device has never sent anything */
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    assert_int_equal(world_wait_for(w, CQ_CLIENT_EVENT_WARNING).event.error, CQ_CLIENT_E_CLONED);
    assert_int_equal(cq_client_send(w->client, "bob", "x", 1, &message), -CQ_CLIENT_E_CLONED);
}

/* ---- receiving ---- */

static void
test_messages_in_order_and_repeated(void **state)
{
    struct world *w = *state;
    world_push_message(w, 1, "m1");
    world_take_ack(w, 1, 0);
    world_push_message(w, 1, "m1");
    world_push_message(w, 2, "m2");
    world_take_ack(w, 2, 0);
    struct seen s = world_wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
    assert_string_equal(s.text, "m1");
    s = world_wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
    assert_string_equal(s.text, "m2");
    assert_int_equal(s.event.seq, 2);
    assert_int_equal(cq_client_read(w->client, "bob", 0), 0);
    world_take_ack(w, 2, 2);
}

static void
test_gap(void **state)
{
    struct world *w = *state;
    world_push_message(w, 1, "m1");
    world_take_ack(w, 1, 0);
    w->head = 4;
    world_push_message(w, 4, "m4");
    world_give_history(w, 2, 4);
    world_take_ack(w, 4, 0);
    for (int i = 1; i <= 4; i++) {
        char expected[8];
        (void)snprintf(expected, sizeof expected, "m%d", i);
        assert_string_equal(world_wait_for(w, CQ_CLIENT_EVENT_MESSAGE).text, expected);
    }
}

static void
test_history_after_login(void **state)
{
    struct world *w = *state;
    w->head = 3;
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    world_give_history(w, 1, 3);
    world_take_ack(w, 3, 0);
    world_wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    /* the server's record of our cursor is behind: the ACK is sent again */
    w->delivered = 1;
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    world_take_ack(w, 3, 0);
}

static void
test_history_that_does_not_come(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    w->head = 2;
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    fake_edge_expect(w->edge, CQ_OP_HISTORY, &op);
    struct cq_history_part empty = {2, false, {{NULL, 0}, 0}};
    fake_edge_ok(w->edge, op.rid, &cq_history_part_schema, &empty);
    world_wait_for(w, CQ_CLIENT_EVENT_WARNING);
    fake_edge_expect_silence(w->edge, 500); /* no loop */
}

static void
test_message_with_a_new_key(void **state)
{
    struct world *w = *state;
    w->key_version = 2;
    w->head = 1;
    world_push_message(w, 1, "m1");
    world_give_keys(w);
    world_give_sync(w);
    world_give_history(w, 1, 1);
    world_take_ack(w, 1, 0);
    assert_string_equal(world_wait_for(w, CQ_CLIENT_EVENT_MESSAGE).text, "m1");
}

static void
test_message_that_is_not_authentic(void **state)
{
    struct world *w = *state;
    struct cq_message m;
    cq_buf_t ct = {0};
    uint8_t nonce[24];
    world_make_message(w, 1, "forged", &m, &ct, nonce);
    ct.data[0] ^= 1;
    fake_edge_push(w->edge, CQ_OP_MESSAGE, &cq_message_schema, &m);
    cq_buf_free(&ct);
    world_take_ack(w, 1, 0); /* it has its place, or the chat would never be complete */
    struct seen s = world_wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
    assert_true(s.event.unreadable);
    assert_string_equal(s.text, "");
}

static void
test_sync_now(void **state)
{
    struct world *w = *state;
    struct cq_sync_now now = {0};
    w->head = 1;
    fake_edge_push(w->edge, CQ_OP_SYNC_NOW, &cq_sync_now_schema, &now);
    world_give_keys(w);
    world_give_sync(w);
    world_give_history(w, 1, 1);
    world_take_ack(w, 1, 0);
}

static void
count_lost(void *ctx, const cq_client_message_t *m)
{
    *(int *)ctx += m->not_on_server;
}

static void
test_restored_server(void **state)
{
    struct world *w = *state;
    w->head = 3;
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    world_give_history(w, 1, 3);
    world_take_ack(w, 3, 0);
    world_wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    /* the backup knows two messages */
    memset(w->epoch.b, 'f', 16);
    w->head = 2;
    w->reset = true;
    fake_edge_hang_up(w->edge);
    world_serve_resume(w);
    world_give_history(w, 1, 2);
    world_take_ack(w, 2, 0); /* not above the server's head */
    world_wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    int lost = 0;
    assert_int_equal(cq_client_history(w->client, "bob", 0, 100, count_lost, &lost), 3);
    assert_int_equal(lost, 1);
}

static void
test_receipts(void **state)
{
    struct world *w = *state;
    struct cq_receipt delivered = {w->chat, w->peer, w->peer_device, 7, 1, 1};
    struct cq_receipt read = {w->chat, w->peer, {{0}}, 7, 1, 1};
    fake_edge_push(w->edge, CQ_OP_RECEIPT, &cq_receipt_schema, &delivered);
    fake_edge_push(w->edge, CQ_OP_RECEIPT, &cq_receipt_schema, &delivered);
    fake_edge_push(w->edge, CQ_OP_RECEIPT, &cq_receipt_schema, &read);
    assert_int_equal(world_wait_for(w, CQ_CLIENT_EVENT_RECEIPT).event.receipt, CQ_CLIENT_DELIVERED);
    struct seen s = world_wait_for(w, CQ_CLIENT_EVENT_RECEIPT); /* the repeat is not told */
    assert_int_equal(s.event.receipt, CQ_CLIENT_READ);
    assert_int_equal(s.event.seq, 7);
}

/* ---- the connection ---- */

static void
test_another_store_key(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    w->store_key[0] ^= 1;
    fake_edge_hang_up(w->edge);
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    world_welcome(w, op.rid);
    struct seen s;
    do {
        s = world_wait_for(w, CQ_CLIENT_EVENT_STATE);
    } while (s.event.state != CQ_CLIENT_IDLE);
    assert_int_equal(s.event.error, CQ_CLIENT_E_STORE_KEY);
}

static void
test_forged_keys(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    w->store_secret[40] ^= 1;
    fake_edge_hang_up(w->edge);
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    world_welcome(w, op.rid);
    world_give_keys(w);
    struct seen s;
    do {
        s = world_wait_for(w, CQ_CLIENT_EVENT_STATE);
    } while (s.event.state != CQ_CLIENT_IDLE);
    assert_int_equal(s.event.error, CQ_CLIENT_E_STORE_KEY);
}

static void
test_revoked(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    fake_edge_hang_up(w->edge);
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    fake_edge_err(w->edge, op.rid, CQ_E_REVOKED, 0, 0);
    struct seen s;
    do {
        s = world_wait_for(w, CQ_CLIENT_EVENT_STATE);
    } while (s.event.state != CQ_CLIENT_IDLE);
    assert_int_equal(s.event.error, CQ_E_REVOKED);
    assert_int_equal(cq_client_connect(w->client), -CQ_CLIENT_E_NOT_LOGGED_IN);
}

static void
test_garbage_from_the_server(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *bytes;
        size_t n;
    } garbage[] = {{"\xc1", 1},
                   {"\x91\x92\xcc\x90", 4},
                   {"\x91\x99\xcc\x90\x01\x02\x03\x04\x05\x06\x07\x08", 12},
                   {"\xdd\xff\xff\xff\xff", 5}};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        fake_edge_raw(w->edge, garbage[i].bytes, garbage[i].n);
        world_serve_resume(w); /* it goes elsewhere: here */
    }
    fake_edge_raw(w->edge, "\x91\x93\xcc\x9f\x01\x02", 6); /* an unknown push is ignored */
    world_push_message(w, 1, "still there");
    world_take_ack(w, 1, 0);
}

static void
test_go_away(void **state)
{
    struct world *w = *state;
    struct cq_goaway g = {{{NULL, 0}, 0}, 50, 50};
    fake_edge_push(w->edge, CQ_OP_GOAWAY, &cq_goaway_schema, &g);
    world_serve_resume(w);
}

static void
test_requests_survive_the_connection(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    int64_t request = cq_client_friend(w->client, CQ_CLIENT_ADD, "carol");
    assert_true(request > 0);
    fake_edge_expect(w->edge, CQ_OP_ADD, &op);
    fake_edge_hang_up(w->edge);
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    world_welcome(w, op.rid);
    world_give_keys(w);
    fake_edge_expect(w->edge, CQ_OP_ADD, &op);
    assert_memory_equal(op.friend_name.name.p, "carol", 5);
    fake_edge_err(w->edge, op.rid, CQ_E_NOT_FOUND, 0, 0);
    struct seen s = world_wait_for(w, CQ_CLIENT_EVENT_ANSWER);
    while (s.event.request != (uint64_t)request) {
        s = world_wait_for(w, CQ_CLIENT_EVENT_ANSWER);
    }
    assert_int_equal(s.event.error, CQ_E_NOT_FOUND);
}

static void
test_arguments(void **state)
{
    struct world *w = *state;
    uint64_t message = 0;
    assert_int_equal(cq_client_send(w->client, "nobody", "x", 1, &message), -CQ_E_NOT_FOUND);
    assert_int_equal(cq_client_send(w->client, "bob", "", 0, &message), -CQ_CLIENT_E_TEXT);
    assert_int_equal(cq_client_send(w->client, "bob", "\xff", 1, &message), -CQ_CLIENT_E_TEXT);
    assert_int_equal(cq_client_friend(w->client, CQ_CLIENT_ADD, "No"), -CQ_E_BAD_NAME);
    assert_int_equal(cq_client_login(w->client, "carol", "password"), -CQ_CLIENT_E_OTHER_USER);
    assert_int_equal(cq_client_login(w->client, "alice", "short"), -CQ_E_BAD_PASSWORD);
    assert_int_equal(cq_client_revoke(w->client, "12"), -CQ_E_BAD_ARG);
    assert_int_equal(cq_client_outbox_clear(w->client), 0);
    fake_edge_expect_silence(w->edge, 200);
}

int
main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_send),
        TEST(test_retry_is_byte_identical),
        TEST(test_window),
        TEST(test_out_of_order),
        TEST(test_refused_for_good),
        TEST(test_newer_key),
        TEST(test_conflict_is_loud),
        TEST(test_late_conflict_of_a_copy),
        TEST(test_a_device_that_was_given_up),
        TEST(test_clone_is_seen_at_sync),
        TEST(test_messages_in_order_and_repeated),
        TEST(test_gap),
        TEST(test_history_after_login),
        TEST(test_history_that_does_not_come),
        TEST(test_message_with_a_new_key),
        TEST(test_message_that_is_not_authentic),
        TEST(test_sync_now),
        TEST(test_restored_server),
        TEST(test_receipts),
        TEST(test_another_store_key),
        TEST(test_forged_keys),
        TEST(test_revoked),
        TEST(test_garbage_from_the_server),
        TEST(test_go_away),
        TEST(test_requests_survive_the_connection),
        TEST(test_arguments),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
