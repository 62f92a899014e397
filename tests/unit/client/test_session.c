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

#include "client/include/chasqui/client.h"
#include "client/keyring.h"
#include "tests/unit/client/fake_edge.h"

enum {
    DEADLINE_MS = 15000,
    EVENTS_MAX = 256
};

struct seen {
    cq_client_event_t event;
    char text[256];
    char peer[64];
};

struct world {
    char home[64];
    fake_edge_t *edge;
    cq_client_t *client;
    struct cq_id user, peer, device, peer_device, chat, epoch;
    uint8_t store_key[32], store_secret[64], chat_keys[3][32];
    uint64_t key_version; /* the chat's current one */
    uint64_t head, read, delivered, last_dseq;
    uint64_t version;
    bool reset;
    uint8_t device_key[32];
    struct seen events[EVENTS_MAX];
    int event_count;
};

/* ---- the server's side ---- */

static void
welcome(struct world *w, uint64_t rid)
{
    struct cq_welcome m = {
        .user = w->user,
        .name = {(const uint8_t *)"alice", 5},
        .device = w->device,
        .token = {(const uint8_t *)"token", 5},
        .epoch = w->epoch,
        .store_key = {w->store_key, 32},
        .heartbeat_interval_ms = 25000,
        .heartbeat_limit_ms = 60000,
        .window = 16,
        .edge = {(const uint8_t *)"edge.1", 6},
    };
    fake_edge_ok(w->edge, rid, &cq_welcome_schema, &m);
}

/* Answers KEYS with every version up to the current one. */
static void
give_keys(struct world *w)
{
    struct fake_op op;
    fake_edge_expect(w->edge, CQ_OP_KEYS, &op);
    uint8_t bundle_key[32], sealed[80], signature[64], text[159];
    cq_buf_t rows = {0};
    randombytes_buf(bundle_key, 32);
    crypto_box_seal(sealed, bundle_key, 32, w->device_key);
    for (uint64_t version = 1; version <= w->key_version; version++) {
        uint8_t ad[24] = {0}, wrapped[48], nonce[24];
        memcpy(ad, w->chat.b, 16);
        ad[23] = (uint8_t)version;
        randombytes_buf(nonce, 24);
        crypto_aead_xchacha20poly1305_ietf_encrypt(wrapped, NULL, w->chat_keys[version], 32, ad, 24,
                                                   NULL, nonce, bundle_key);
        struct cq_key_row row = {w->chat, version, {nonce, 24}, {wrapped, 48}};
        cq_schema_write_array(&cq_key_row_schema, &rows, &row);
    }
    memcpy(text, "chasqui-keys-v1", 15);
    memcpy(text + 15, w->user.b, 16);
    memcpy(text + 31, w->device.b, 16);
    memcpy(text + 47, sealed, 80);
    crypto_generichash(text + 127, 32, rows.data, rows.size, NULL, 0);
    crypto_sign_detached(signature, NULL, text, sizeof text, w->store_secret);
    struct cq_key_bundle bundle = {
        {sealed, 80}, {signature, 64}, false, cq_list_of(&rows, w->key_version)};
    fake_edge_ok(w->edge, op.rid, &cq_key_bundle_schema, &bundle);
    cq_buf_free(&rows);
}

static void
give_sync(struct world *w)
{
    struct fake_op op;
    fake_edge_expect(w->edge, CQ_OP_SYNC, &op);
    struct cq_sync_chat row = {
        .chat = w->chat,
        .peer = w->peer,
        .peer_name = {(const uint8_t *)"bob", 3},
        .open = true,
        .key_version = w->key_version,
        .head = w->head,
        .read = w->read,
        .delivered = w->delivered,
        .last_dseq = w->last_dseq,
    };
    cq_buf_t rows = {0};
    cq_schema_write_array(&cq_sync_chat_schema, &rows, &row);
    struct cq_synced synced = {w->epoch, ++w->version, w->reset, false, cq_list_of(&rows, 1)};
    w->reset = false;
    fake_edge_ok(w->edge, op.rid, &cq_synced_schema, &synced);
    cq_buf_free(&rows);
}

static void
serve_login(struct world *w)
{
    struct fake_op op;
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_LOGIN, &op);
    w->device = op.auth.device;
    memcpy(w->device_key, op.auth.device_key.p, 32);
    welcome(w, op.rid);
    give_keys(w);
    give_sync(w);
}

static void
serve_resume(struct world *w)
{
    struct fake_op op;
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    assert_int_equal(op.resume.token.n, 5);
    welcome(w, op.rid);
    give_keys(w);
    give_sync(w);
}

static void
make_message(struct world *w,
             uint64_t seq,
             const char *text,
             struct cq_message *m,
             cq_buf_t *ct,
             uint8_t nonce[24])
{
    struct cq_seal seal = {w->chat, w->peer, w->peer_device, seq, w->key_version};
    assert_int_equal(cq_keyring_encrypt(&seal, w->chat_keys[w->key_version],
                                        (struct cq_view){(const uint8_t *)text, strlen(text)},
                                        nonce, ct),
                     0);
    *m = (struct cq_message){w->chat,        seq,         w->peer,
                             w->peer_device, seq,         1000 + seq,
                             w->key_version, {nonce, 24}, {ct->data, ct->size}};
}

static void
push_message(struct world *w, uint64_t seq, const char *text)
{
    struct cq_message m;
    cq_buf_t ct = {0};
    uint8_t nonce[24];
    make_message(w, seq, text, &m, &ct, nonce);
    fake_edge_push(w->edge, CQ_OP_MESSAGE, &cq_message_schema, &m);
    cq_buf_free(&ct);
}

/* Answers one HISTORY with texts "mSEQ". */
static void
give_history(struct world *w, uint64_t from, uint64_t to)
{
    struct fake_op op;
    fake_edge_expect(w->edge, CQ_OP_HISTORY, &op);
    assert_int_equal(op.history.from_seq, from);
    assert_int_equal(op.history.to_seq, to);
    cq_buf_t rows = {0};
    for (uint64_t seq = from; seq <= to; seq++) {
        struct cq_message m;
        cq_buf_t ct = {0};
        uint8_t nonce[24];
        char text[32];
        (void)snprintf(text, sizeof text, "m%u", (unsigned)seq);
        make_message(w, seq, text, &m, &ct, nonce);
        cq_schema_write_array(&cq_message_schema, &rows, &m);
        cq_buf_free(&ct);
    }
    struct cq_history_part part = {w->head, false, cq_list_of(&rows, (size_t)(to - from + 1))};
    fake_edge_ok(w->edge, op.rid, &cq_history_part_schema, &part);
    cq_buf_free(&rows);
}

static void
take_ack(struct world *w, uint64_t delivered, uint64_t read)
{
    struct fake_op op;
    struct cq_ack_cursor cursor;
    fake_edge_expect(w->edge, CQ_OP_ACK, &op);
    cq_reader_t r = cq_list_reader(&op.ack.cursors);
    assert_int_equal(op.ack.cursors.count, 1);
    assert_int_equal(cq_schema_read_array(&cq_ack_cursor_schema, &r, &cursor), 0);
    assert_int_equal(cursor.delivered, delivered);
    assert_int_equal(cursor.read, read);
    struct cq_empty empty = {0};
    fake_edge_ok(w->edge, op.rid, &cq_empty_schema, &empty);
}

static void
sent(struct world *w, uint64_t rid, uint64_t seq)
{
    struct cq_sent m = {seq, 1000 + seq};
    fake_edge_ok(w->edge, rid, &cq_sent_schema, &m);
}

/* ---- the application's side ---- */

static void
on_event(void *ctx, const cq_client_event_t *e)
{
    struct world *w = ctx;
    assert_true(w->event_count < EVENTS_MAX);
    struct seen *s = &w->events[w->event_count++];
    s->event = *e;
    (void)snprintf(s->text, sizeof s->text, "%s", e->text ? e->text : "");
    (void)snprintf(s->peer, sizeof s->peer, "%s", e->peer ? e->peer : "");
}

static int64_t
now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits for an event of this type and takes it and all before it away. */
static struct seen
wait_for(struct world *w, enum cq_client_event_type type)
{
    int64_t end = now_ms() + DEADLINE_MS;
    while (true) {
        for (int i = 0; i < w->event_count; i++) {
            if (w->events[i].event.type == type) {
                struct seen found = w->events[i];
                w->event_count -= i + 1;
                memmove(&w->events[0], &w->events[i + 1],
                        (size_t)w->event_count * sizeof w->events[0]);
                return found;
            }
        }
        assert_true(now_ms() < end);
        struct pollfd p = {.fd = cq_client_fd(w->client), .events = POLLIN};
        (void)poll(&p, 1, 100);
        assert_true(cq_client_dispatch(w->client) >= 0);
    }
}

static void
wait_for_state(struct world *w, enum cq_client_state state)
{
    while (wait_for(w, CQ_CLIENT_EVENT_STATE).event.state != state) {
    }
}

static void
open_client(struct world *w)
{
    cq_client_config_t config = {.home = w->home,
                                 .servers = fake_edge_url(w->edge),
                                 .label = "test",
                                 .messages = true,
                                 .on_event = on_event,
                                 .ctx = w};
    assert_int_equal(cq_client_open(&config, &w->client), 0);
}

static uint64_t
send_text(struct world *w, const char *text)
{
    uint64_t message = 0;
    assert_int_equal(cq_client_send(w->client, "bob", text, strlen(text), &message), 0);
    assert_true(message > 0);
    return message;
}

static void
expect_send(struct world *w, uint64_t dseq, uint64_t prev, struct fake_op *op)
{
    fake_edge_expect(w->edge, CQ_OP_SEND, op);
    assert_int_equal(op->send.dseq, dseq);
    assert_int_equal(op->send.prev, prev);
}

static int
set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    strcpy(w->home, "/tmp/chasqui-session-XXXXXX");
    if (!mkdtemp(w->home)) {
        return -1;
    }
    w->edge = fake_edge_new();
    memset(w->user.b, 'u', 16);
    memset(w->peer.b, 'p', 16);
    memset(w->peer_device.b, 'q', 16);
    memset(w->chat.b, 'c', 16);
    memset(w->epoch.b, 'e', 16);
    memset(w->chat_keys[1], 1, 32);
    memset(w->chat_keys[2], 2, 32);
    w->key_version = 1;
    crypto_sign_keypair(w->store_key, w->store_secret);
    open_client(w);
    if (cq_client_login(w->client, "alice", "password") < 0) {
        return -1;
    }
    serve_login(w);
    *state = w;
    wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    return 0;
}

static int
tear_down(void **state)
{
    struct world *w = *state;
    char command[128];
    cq_client_close(&w->client);
    fake_edge_destroy(&w->edge);
    (void)snprintf(command, sizeof command, "rm -rf %s", w->home);
    int rc = system(command); /* NOLINT(cert-env33-c): a path of mkdtemp */
    free(w);
    return rc;
}

/* ---- sending ---- */

static void
test_send(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t message = send_text(w, "hello");
    expect_send(w, 1, 0, &op);
    struct cq_message m = {w->chat, 1, w->user,       w->device,         1,
                           0,       1, op.send.nonce, op.send.ciphertext};
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(cq_keyring_decrypt(&m, w->chat_keys[1], &text, &n), 0);
    assert_string_equal(text, "hello");
    free(text);
    sent(w, op.rid, 1);
    struct seen s = wait_for(w, CQ_CLIENT_EVENT_SENT);
    assert_int_equal(s.event.message, message);
    assert_int_equal(s.event.seq, 1);
    assert_string_equal(s.peer, "bob");
    fake_edge_expect_silence(w->edge, 200); /* no ACK for what this device has written itself */
    push_message(w, 2, "answer");
    take_ack(w, 2, 0);
}

static void
test_retry_is_byte_identical(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    send_text(w, "once");
    expect_send(w, 1, 0, &op);
    uint8_t ciphertext[64];
    size_t n = op.send.ciphertext.n;
    memcpy(ciphertext, op.send.ciphertext.p, n);
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.ciphertext.n, n);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    fake_edge_err(w->edge, op.rid, CQ_E_BUSY, 10, 0);
    expect_send(w, 1, 0, &op);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    /* and by the next process */
    cq_client_close(&w->client);
    open_client(w);
    assert_int_equal(cq_client_connect(w->client), 0);
    serve_resume(w);
    expect_send(w, 1, 0, &op);
    assert_memory_equal(op.send.ciphertext.p, ciphertext, n);
    sent(w, op.rid, 1);
    fake_edge_expect_silence(w->edge, 300);
}

static void
test_window(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[17];
    for (int i = 0; i < 20; i++) {
        send_text(w, "x");
    }
    for (uint64_t i = 1; i <= 16; i++) {
        expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    fake_edge_expect_silence(w->edge, 300);
    sent(w, rids[1], 1);
    expect_send(w, 17, 16, &op);
    fake_edge_expect_silence(w->edge, 300);
}

static void
test_out_of_order(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[4];
    for (int i = 0; i < 3; i++) {
        send_text(w, "x");
    }
    for (uint64_t i = 1; i <= 3; i++) {
        expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    /* the first was lost on the way */
    fake_edge_err(w->edge, rids[1], CQ_E_UNAVAILABLE, 0, 0);
    fake_edge_err(w->edge, rids[3], CQ_E_OUT_OF_ORDER, 0, 0);
    fake_edge_expect_silence(w->edge, 300); /* not before every answer is here */
    fake_edge_err(w->edge, rids[2], CQ_E_OUT_OF_ORDER, 0, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        expect_send(w, i, i - 1, &op);
        sent(w, op.rid, i);
    }
    for (int i = 0; i < 3; i++) {
        wait_for(w, CQ_CLIENT_EVENT_SENT);
    }
}

static void
test_refused_for_good(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t rids[4];
    uint64_t first = send_text(w, "x");
    send_text(w, "y");
    send_text(w, "z");
    for (uint64_t i = 1; i <= 3; i++) {
        expect_send(w, i, i - 1, &op);
        rids[i] = op.rid;
    }
    fake_edge_err(w->edge, rids[1], CQ_E_CHAT_CLOSED, 0, 0);
    fake_edge_err(w->edge, rids[2], CQ_E_OUT_OF_ORDER, 0, 0);
    fake_edge_err(w->edge, rids[3], CQ_E_OUT_OF_ORDER, 0, 0);
    struct seen failed = wait_for(w, CQ_CLIENT_EVENT_FAILED);
    assert_int_equal(failed.event.message, first);
    assert_int_equal(failed.event.error, CQ_E_CHAT_CLOSED);
    /* its dseq was not taken: the next one has the same prev */
    expect_send(w, 2, 0, &op);
    sent(w, op.rid, 1);
    expect_send(w, 3, 2, &op);
    sent(w, op.rid, 2);
    wait_for(w, CQ_CLIENT_EVENT_SENT);
    wait_for(w, CQ_CLIENT_EVENT_SENT);
}

static void
test_newer_key(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    send_text(w, "rotate");
    expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.key_version, 1);
    w->key_version = 2;
    fake_edge_err(w->edge, op.rid, CQ_E_KEY_VERSION, 0, 0);
    give_keys(w);
    give_sync(w);
    expect_send(w, 1, 0, &op);
    assert_int_equal(op.send.key_version, 2);
    struct cq_message m = {w->chat, 1, w->user,       w->device,         1,
                           0,       2, op.send.nonce, op.send.ciphertext};
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(cq_keyring_decrypt(&m, w->chat_keys[2], &text, &n), 0);
    assert_string_equal(text, "rotate");
    free(text);
    sent(w, op.rid, 1);
    wait_for(w, CQ_CLIENT_EVENT_SENT);
}

static void
test_conflict_is_loud(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    uint64_t message = 0;
    send_text(w, "copy");
    expect_send(w, 1, 0, &op);
    fake_edge_err(w->edge, op.rid, CQ_E_DSEQ_CONFLICT, 0, 0);
    assert_int_equal(wait_for(w, CQ_CLIENT_EVENT_WARNING).event.error, CQ_CLIENT_E_CLONED);
    assert_int_equal(cq_client_send(w->client, "bob", "more", 4, &message), -CQ_CLIENT_E_CLONED);
    fake_edge_expect_silence(w->edge, 300);
    /* logging in again makes a new device */
    struct cq_id before = w->device;
    assert_true(cq_client_login(w->client, "alice", "password") > 0);
    serve_login(w);
    assert_false(cq_id_eq(&before, &w->device));
    send_text(w, "of its own");
    expect_send(w, 1, 0, &op);
    sent(w, op.rid, 1);
}

static void
test_clone_is_seen_at_sync(void **state)
{
    struct world *w = *state;
    uint64_t message = 0;
    w->last_dseq = 5; /* this device has never sent anything */
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    assert_int_equal(wait_for(w, CQ_CLIENT_EVENT_WARNING).event.error, CQ_CLIENT_E_CLONED);
    assert_int_equal(cq_client_send(w->client, "bob", "x", 1, &message), -CQ_CLIENT_E_CLONED);
}

/* ---- receiving ---- */

static void
test_messages_in_order_and_repeated(void **state)
{
    struct world *w = *state;
    push_message(w, 1, "m1");
    take_ack(w, 1, 0);
    push_message(w, 1, "m1");
    push_message(w, 2, "m2");
    take_ack(w, 2, 0);
    struct seen s = wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
    assert_string_equal(s.text, "m1");
    s = wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
    assert_string_equal(s.text, "m2");
    assert_int_equal(s.event.seq, 2);
    assert_int_equal(cq_client_read(w->client, "bob", 0), 0);
    take_ack(w, 2, 2);
}

static void
test_gap(void **state)
{
    struct world *w = *state;
    push_message(w, 1, "m1");
    take_ack(w, 1, 0);
    w->head = 4;
    push_message(w, 4, "m4");
    give_history(w, 2, 4);
    take_ack(w, 4, 0);
    for (int i = 1; i <= 4; i++) {
        char expected[8];
        (void)snprintf(expected, sizeof expected, "m%d", i);
        assert_string_equal(wait_for(w, CQ_CLIENT_EVENT_MESSAGE).text, expected);
    }
}

static void
test_history_after_login(void **state)
{
    struct world *w = *state;
    w->head = 3;
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    give_history(w, 1, 3);
    take_ack(w, 3, 0);
    wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    /* the server's record of our cursor is behind: the ACK is sent again */
    w->delivered = 1;
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    take_ack(w, 3, 0);
}

static void
test_history_that_does_not_come(void **state)
{
    struct world *w = *state;
    struct fake_op op;
    w->head = 2;
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    fake_edge_expect(w->edge, CQ_OP_HISTORY, &op);
    struct cq_history_part empty = {2, false, {{NULL, 0}, 0}};
    fake_edge_ok(w->edge, op.rid, &cq_history_part_schema, &empty);
    wait_for(w, CQ_CLIENT_EVENT_WARNING);
    fake_edge_expect_silence(w->edge, 500); /* no loop */
}

static void
test_message_with_a_new_key(void **state)
{
    struct world *w = *state;
    w->key_version = 2;
    w->head = 1;
    push_message(w, 1, "m1");
    give_keys(w);
    give_sync(w);
    give_history(w, 1, 1);
    take_ack(w, 1, 0);
    assert_string_equal(wait_for(w, CQ_CLIENT_EVENT_MESSAGE).text, "m1");
}

static void
test_message_that_is_not_authentic(void **state)
{
    struct world *w = *state;
    struct cq_message m;
    cq_buf_t ct = {0};
    uint8_t nonce[24];
    make_message(w, 1, "forged", &m, &ct, nonce);
    ct.data[0] ^= 1;
    fake_edge_push(w->edge, CQ_OP_MESSAGE, &cq_message_schema, &m);
    cq_buf_free(&ct);
    take_ack(w, 1, 0); /* it has its place, or the chat would never be complete */
    struct seen s = wait_for(w, CQ_CLIENT_EVENT_MESSAGE);
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
    give_keys(w);
    give_sync(w);
    give_history(w, 1, 1);
    take_ack(w, 1, 0);
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
    serve_resume(w);
    give_history(w, 1, 3);
    take_ack(w, 3, 0);
    wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    /* the backup knows two messages */
    memset(w->epoch.b, 'f', 16);
    w->head = 2;
    w->reset = true;
    fake_edge_hang_up(w->edge);
    serve_resume(w);
    give_history(w, 1, 2);
    take_ack(w, 2, 0); /* not above the server's head */
    wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
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
    assert_int_equal(wait_for(w, CQ_CLIENT_EVENT_RECEIPT).event.receipt, CQ_CLIENT_DELIVERED);
    struct seen s = wait_for(w, CQ_CLIENT_EVENT_RECEIPT); /* the repeat is not told */
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
    welcome(w, op.rid);
    struct seen s;
    do {
        s = wait_for(w, CQ_CLIENT_EVENT_STATE);
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
    welcome(w, op.rid);
    give_keys(w);
    struct seen s;
    do {
        s = wait_for(w, CQ_CLIENT_EVENT_STATE);
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
        s = wait_for(w, CQ_CLIENT_EVENT_STATE);
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
        serve_resume(w); /* it goes elsewhere: here */
    }
    fake_edge_raw(w->edge, "\x91\x93\xcc\x9f\x01\x02", 6); /* an unknown push is ignored */
    push_message(w, 1, "still there");
    take_ack(w, 1, 0);
}

static void
test_go_away(void **state)
{
    struct world *w = *state;
    struct cq_goaway g = {{{NULL, 0}, 0}, 50, 50};
    fake_edge_push(w->edge, CQ_OP_GOAWAY, &cq_goaway_schema, &g);
    serve_resume(w);
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
    welcome(w, op.rid);
    give_keys(w);
    fake_edge_expect(w->edge, CQ_OP_ADD, &op);
    assert_memory_equal(op.friend_name.name.p, "carol", 5);
    fake_edge_err(w->edge, op.rid, CQ_E_NOT_FOUND, 0, 0);
    struct seen s = wait_for(w, CQ_CLIENT_EVENT_ANSWER);
    while (s.event.request != (uint64_t)request) {
        s = wait_for(w, CQ_CLIENT_EVENT_ANSWER);
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
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_send),
        TEST(test_retry_is_byte_identical),
        TEST(test_window),
        TEST(test_out_of_order),
        TEST(test_refused_for_good),
        TEST(test_newer_key),
        TEST(test_conflict_is_loud),
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
