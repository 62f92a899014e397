/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/unit/client/session_world.h"

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

/* ---- the server's side ---- */

void
world_welcome(struct world *w, uint64_t rid)
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
void
world_give_keys(struct world *w)
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
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes, not a string */
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

void
world_give_sync(struct world *w)
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

void
world_serve_login(struct world *w)
{
    struct fake_op op;
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_LOGIN, &op);
    w->device = op.auth.device;
    memcpy(w->device_key, op.auth.device_key.p, 32);
    world_welcome(w, op.rid);
    world_give_keys(w);
    world_give_sync(w);
}

void
world_serve_resume(struct world *w)
{
    struct fake_op op;
    fake_edge_accept(w->edge);
    fake_edge_expect(w->edge, CQ_OP_RESUME, &op);
    assert_int_equal(op.resume.token.n, 5);
    world_welcome(w, op.rid);
    world_give_keys(w);
    world_give_sync(w);
}

void
world_make_message(struct world *w,
                   uint64_t seq,
                   const char *text,
                   struct cq_message *m,
                   cq_buf_t *ct,
                   uint8_t nonce[24])
{
    struct cq_seal seal = {w->chat, w->peer, w->peer_device, seq, w->key_version, NULL};
    assert_int_equal(cq_keyring_encrypt(&seal, w->chat_keys[w->key_version],
                                        (struct cq_view){(const uint8_t *)text, strlen(text)},
                                        nonce, ct),
                     0);
    *m = (struct cq_message){w->chat,        seq,         w->peer,
                             w->peer_device, seq,         1000 + seq,
                             w->key_version, {nonce, 24}, {ct->data, ct->size},
                             {NULL, 0}};
}

void
world_push_message(struct world *w, uint64_t seq, const char *text)
{
    struct cq_message m;
    cq_buf_t ct = {0};
    uint8_t nonce[24];
    world_make_message(w, seq, text, &m, &ct, nonce);
    fake_edge_push(w->edge, CQ_OP_MESSAGE, &cq_message_schema, &m);
    cq_buf_free(&ct);
}

/* Answers one HISTORY with texts "mSEQ". */
void
world_give_history(struct world *w, uint64_t from, uint64_t to)
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
        world_make_message(w, seq, text, &m, &ct, nonce);
        cq_schema_write_array(&cq_message_schema, &rows, &m);
        cq_buf_free(&ct);
    }
    struct cq_history_part part = {w->head, false, cq_list_of(&rows, (size_t)(to - from + 1))};
    fake_edge_ok(w->edge, op.rid, &cq_history_part_schema, &part);
    cq_buf_free(&rows);
}

void
world_take_ack(struct world *w, uint64_t delivered, uint64_t read)
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

void
world_sent(struct world *w, uint64_t rid, uint64_t seq)
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
struct seen
world_wait_for(struct world *w, enum cq_client_event_type type)
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

void
world_wait_for_state(struct world *w, enum cq_client_state state)
{
    while (world_wait_for(w, CQ_CLIENT_EVENT_STATE).event.state != state) {
    }
}

void
world_open_client(struct world *w)
{
    cq_client_config_t config = {.home = w->home,
                                 .servers = fake_edge_url(w->edge),
                                 .label = "test",
                                 .messages = true,
                                 .on_event = on_event,
                                 .ctx = w};
    assert_int_equal(cq_client_open(&config, &w->client), 0);
}

uint64_t
world_send_text(struct world *w, const char *text)
{
    uint64_t message = 0;
    assert_int_equal(cq_client_send(w->client, "bob", text, strlen(text), &message), 0);
    assert_true(message > 0);
    return message;
}

void
world_expect_send(struct world *w, uint64_t dseq, uint64_t prev, struct fake_op *op)
{
    fake_edge_expect(w->edge, CQ_OP_SEND, op);
    assert_int_equal(op->send.dseq, dseq);
    assert_int_equal(op->send.prev, prev);
}

int
world_set_up(void **state)
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
    world_open_client(w);
    if (cq_client_login(w->client, "alice", "password") < 0) {
        return -1;
    }
    world_serve_login(w);
    *state = w;
    world_wait_for_state(w, CQ_CLIENT_CAUGHT_UP);
    return 0;
}

int
world_tear_down(void **state)
{
    struct world *w = *state;
    char command[128];
    cq_client_close(&w->client);
    fake_edge_destroy(&w->edge);
    (void)snprintf(command, sizeof command, "rm -rf %s", w->home);
    /* NOLINTNEXTLINE(cert-env33-c,concurrency-mt-unsafe): a path of mkdtemp */
    int rc = system(command);
    free(w);
    return rc;
}
