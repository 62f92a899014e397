/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/account.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/rt/random.h"

#include "tests/bench/measure.h"

enum {
    IN_FLIGHT = 16, /* sign-ups at a time: Argon2 is slow on purpose */
    STEP_SECONDS = 120,
    SETUP_RID = 1
};

static struct cq_view
view(const char *text)
{
    return (struct cq_view){(const uint8_t *)text, strlen(text)};
}

bool
bench_account_is_answer(const struct cq_frame_op *op, uint64_t rid)
{
    if (op->code == CQ_OP_ERR) {
        struct cq_frame_op e = *op;
        struct cq_failure f;
        int rc = cq_schema_read(&cq_failure_schema, &e.fields, e.field_count, &f);
        bench_measure_fail("request %" PRIu64 " failed: %s", op->rid,
                           rc ? "?" : cq_err_name((int)f.err));
    }
    return op->code == CQ_OP_OK && op->rid == rid;
}

static void
on_welcome(struct bench_conn *c, struct cq_frame_op *op)
{
    struct bench_account *a = c->owner;
    struct cq_welcome w;
    if (!bench_account_is_answer(op, SETUP_RID)) {
        return;
    }
    if (cq_schema_read(&cq_welcome_schema, &op->fields, op->field_count, &w)) {
        bench_measure_fail("WELCOME cannot be read");
    }
    a->user = w.user;
    a->token_size = w.token.n;
    memcpy(a->token, w.token.p, w.token.n);
    a->ready = true;
    c->on_op = NULL;
}

static void
sign_up(struct bench_conn *c)
{
    static const uint8_t key[CQ_KEY_SIZE] = {9};
    struct bench_account *a = c->owner;
    struct cq_auth auth = {.name = view(a->name),
                           .password = view("correct horse"),
                           .device = a->device,
                           .device_key = {key, sizeof key},
                           .label = view("bench")};
    cq_frame_request(bench_conn_next_op(c), CQ_OP_SIGNUP, SETUP_RID, &cq_auth_schema, &auth);
    c->on_turn = NULL;
}

static void
on_added(struct bench_conn *c, struct cq_frame_op *op)
{
    struct bench_account *a = c->owner;
    struct cq_friend f;
    if (!bench_account_is_answer(op, SETUP_RID)) {
        return;
    }
    if (cq_schema_read(&cq_friend_schema, &op->fields, op->field_count, &f)) {
        bench_measure_fail("a friend row cannot be read");
    }
    a->chat = a->friend->chat = f.chat;
    a->ready = true;
}

static void
on_synced(struct bench_conn *c, struct cq_frame_op *op)
{
    struct bench_account *a = c->owner;
    struct cq_synced s;
    struct cq_sync_chat chat;
    if (!bench_account_is_answer(op, SETUP_RID)) {
        return;
    }
    int rc = cq_schema_read(&cq_synced_schema, &op->fields, op->field_count, &s);
    if (rc || s.chats.count != 1) {
        bench_measure_fail("SYNC brought %zu chats", s.chats.count);
    }
    cq_reader_t r = cq_list_reader(&s.chats);
    if (cq_schema_read_array(&cq_sync_chat_schema, &r, &chat) || !cq_id_eq(&chat.chat, &a->chat)) {
        bench_measure_fail("SYNC brought another chat");
    }
    a->key_version = chat.key_version;
    a->ready = true;
}

static void
ask_friend(struct bench_account *a)
{
    struct cq_friend_name m = {view(a->friend->name)};
    a->conn.on_op = on_added;
    cq_frame_request(bench_conn_next_op(&a->conn), CQ_OP_ADD, SETUP_RID, &cq_friend_name_schema,
                     &m);
    bench_conn_flush(&a->conn);
}

static void
ask_sync(struct bench_account *a)
{
    struct cq_sync m = {.version = 0};
    a->conn.on_op = on_synced;
    cq_frame_request(bench_conn_next_op(&a->conn), CQ_OP_SYNC, SETUP_RID, &cq_sync_schema, &m);
    bench_conn_flush(&a->conn);
}

/* begin() for every step-th account from `first` on, IN_FLIGHT at a time, until all are ready. */
static void
run_step(struct bench_account *all,
         size_t count,
         size_t first,
         size_t step,
         void (*begin)(struct bench_account *))
{
    uint64_t deadline = bench_measure_now_ns() + STEP_SECONDS * UINT64_C(1000000000);
    size_t next = first;
    size_t oldest = first;
    while (oldest < count) {
        while (next < count && (next - oldest) / step < IN_FLIGHT) {
            all[next].ready = false;
            begin(&all[next]);
            next += step;
        }
        bench_conn_poll(deadline);
        while (oldest < next && all[oldest].ready) {
            oldest += step;
        }
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("no answer in %d s while setting up", STEP_SECONDS);
        }
    }
}

static uint16_t base_port;

static void
begin_sign_up(struct bench_account *a)
{
    a->conn.on_op = on_welcome;
    a->conn.on_turn = sign_up;
    a->conn.owner = a;
    bench_conn_open(&a->conn, (uint16_t)(base_port + (a->name[1] & 1)));
}

void
bench_account_make(struct bench_account *all, size_t count, uint16_t port)
{
    base_port = port;
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(all[i].name, sizeof all[i].name, "%s%06zu", i % 2 ? "y1" : "x0", i / 2);
        all[i].device = cq_random_id();
        all[i].friend = &all[i ^ 1];
    }
    run_step(all, count, 0, 1, begin_sign_up);
    run_step(all, count, 0, 2, ask_friend);
    run_step(all, count, 1, 2, ask_friend);
    run_step(all, count, 0, 1, ask_sync);
    for (size_t i = 0; i < count; i++) {
        all[i].conn.on_op = NULL;
        all[i].conn.on_turn = NULL;
    }
}
