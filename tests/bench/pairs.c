/* SPDX-License-Identifier: MPL-2.0
 * The text is random bytes as long as a ciphertext would be: the server cannot tell.
 */
#include "tests/bench/pairs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "tests/bench/client.h"
#include "tests/bench/seed.h"

enum {
    RING = 1024,          /* sends that are under way, a power of two */
    CIPHER_OVERHEAD = 24, /* MAC, msgpack around the text */
    RANDOM_BYTES = 1024 * 1024,
    IN_FLIGHT = 100, /* who connect at a time */
    CONNECT_S = 60,
    DRAIN_S = 30
};

#define NS_PER_S    UINT64_C(1000000000)
#define ACK_RID     (UINT64_C(1) << 40) /* sends use their dseq */
#define HISTORY_RID (UINT64_C(1) << 41)

struct pair {
    struct bench_client x, y;
    struct cq_id x_user, y_user, chat;
    uint64_t key_version;
    size_t number;
    uint64_t sent;                      /* last dseq; SENDs begin at 1 */
    uint64_t answered;                  /* `sent` answers */
    uint64_t held, acknowledged;        /* by Y */
    uint64_t seen;                      /* highest seq that Y knows of */
    uint64_t delivered_back, read_back; /* what X has heard of */
    bool is_fetching;
    uint64_t since_ns[RING];
    size_t at[RING]; /* where in the random bytes */
};

static struct {
    struct bench_pairs_cfg cfg;
    struct pair *pairs;
    struct bench_seed seed;
    uint8_t *random;
    uint64_t start_ns;
    size_t ready;
    bool sending, measuring;
    struct bench_pairs_result result;
} run;

/* ---- X ---- */

static void
put_send(struct pair *p, uint64_t dseq)
{
    size_t at = p->at[dseq % RING];
    struct cq_send m = {
        .chat = p->chat,
        .dseq = dseq,
        .prev = dseq - 1,
        .key_version = p->key_version,
        .nonce = {run.random + at, CQ_NONCE_SIZE},
        .ciphertext = {run.random + at + CQ_NONCE_SIZE, run.cfg.bytes + CIPHER_OVERHEAD}};
    cq_frame_request(bench_conn_next_op(&p->x.conn), CQ_OP_SEND, dseq, &cq_send_schema, &m);
}

static void
send_one(struct pair *p, uint64_t since_ns)
{
    static size_t at;
    at = (at + 64) % (RANDOM_BYTES - CQ_CIPHERTEXT_MAX - CQ_NONCE_SIZE);
    p->sent++;
    p->since_ns[p->sent % RING] = since_ns;
    p->at[p->sent % RING] = at;
    put_send(p, p->sent);
}

/* When the pair's message of this number is due (open loop). */
static uint64_t
due_ns(const struct pair *p, uint64_t dseq)
{
    uint64_t number = (dseq - 1) * run.cfg.pairs + p->number;
    return run.start_ns + (uint64_t)((double)number * 1e9 / (double)run.cfg.rate);
}

static void
fill_window(struct pair *p)
{
    uint64_t now = bench_measure_now_ns();
    uint64_t window = run.cfg.rate ? CQ_WINDOW : run.cfg.window;
    while (run.sending && p->x.is_ready && p->sent - p->answered < window) {
        uint64_t since = run.cfg.rate ? due_ns(p, p->sent + 1) : now;
        if (since > now) {
            break;
        }
        send_one(p, since);
    }
}

static void
take_up_to(struct pair *p, const struct cq_id *device, uint64_t up_to)
{
    uint64_t *back = cq_id_is_none(device) ? &p->read_back : &p->delivered_back;
    if (up_to > *back) {
        run.result.read_back += run.measuring && back == &p->read_back ? up_to - *back : 0;
        *back = up_to;
    }
}

static void
on_note(struct cq_frame_op *op)
{
    struct cq_presence_states m;
    if (cq_schema_read(&cq_presence_states_schema, &op->fields, op->field_count, &m)) {
        bench_measure_fail("PRESENCE_NOTE cannot be read");
    }
    cq_reader_t r = cq_list_reader(&m.states);
    for (size_t i = 0; i < m.states.count; i++) {
        struct cq_presence_state s;
        if (cq_schema_read_array(&cq_presence_state_schema, &r, &s)) {
            bench_measure_fail("a presence state cannot be read");
        }
        run.result.offline_notes += !s.online;
    }
}

/* Pushes that both sides may get; false if it is none of them. */
static bool
on_push(struct bench_client *c, struct cq_frame_op *op)
{
    if (op->code == CQ_OP_PRESENCE_NOTE) {
        on_note(op);
    } else if (op->code == CQ_OP_SYNC_NOW) {
        run.result.syncs++;
        if (run.cfg.is_returning) {
            bench_client_sync(c);
        }
    } else {
        return false;
    }
    return true;
}

static void
on_sender_op(struct bench_client *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    if (on_push(c, op)) {
        return;
    }
    if (op->code == CQ_OP_RECEIPT) {
        struct cq_receipt m;
        if (cq_schema_read(&cq_receipt_schema, &op->fields, op->field_count, &m)) {
            bench_measure_fail("RECEIPT cannot be read");
        }
        run.result.receipts += run.measuring;
        take_up_to(p, &m.device, m.up_to);
    } else if (bench_client_is_answer(op, p->answered + 1)) {
        p->answered++;
        if (run.measuring) {
            bench_measure_add(&run.result.answered,
                              bench_measure_now_ns() - p->since_ns[p->answered % RING]);
        }
    } else if (op->code == CQ_OP_OK) {
        bench_measure_fail("an answer out of order: %" PRIu64 " instead of %" PRIu64, op->rid,
                           p->answered + 1);
    }
}

static void
on_sender_turn(struct bench_client *c)
{
    fill_window(c->owner);
}

/* ---- Y ---- */

static void
fetch(struct pair *p)
{
    struct cq_history m = {p->chat, p->held + 1, p->seen};
    p->is_fetching = true;
    cq_frame_request(bench_conn_next_op(&p->y.conn), CQ_OP_HISTORY, HISTORY_RID, &cq_history_schema,
                     &m);
}

static void
take_message(struct pair *p, const struct cq_message *m)
{
    p->seen = m->seq > p->seen ? m->seq : p->seen;
    if (m->seq <= p->held) {
        return; /* a repeat, as the protocol allows */
    }
    if (m->dseq != m->seq) {
        bench_measure_fail("message %" PRIu64 " has number %" PRIu64 ": lost or doubled", m->dseq,
                           m->seq);
    }
    if (m->seq != p->held + 1) {
        if (!run.cfg.is_returning) {
            bench_measure_fail("a gap: %" PRIu64 " after %" PRIu64, m->seq, p->held);
        }
        if (!p->is_fetching) {
            fetch(p);
        }
        return;
    }
    p->held = m->seq;
    if (run.measuring) {
        run.result.delivered++;
        bench_measure_add(&run.result.received,
                          bench_measure_now_ns() - p->since_ns[m->dseq % RING]);
    }
}

static void
on_history(struct pair *p, struct cq_frame_op *op)
{
    struct cq_history_part part;
    if (cq_schema_read(&cq_history_part_schema, &op->fields, op->field_count, &part)) {
        bench_measure_fail("HISTORY cannot be read");
    }
    p->seen = part.head > p->seen ? part.head : p->seen;
    cq_reader_t r = cq_list_reader(&part.messages);
    for (size_t i = 0; i < part.messages.count; i++) {
        struct cq_message m;
        if (cq_schema_read_array(&cq_message_schema, &r, &m)) {
            bench_measure_fail("a message of HISTORY cannot be read");
        }
        take_message(p, &m);
    }
    p->is_fetching = false;
    if (p->held < p->seen) {
        fetch(p);
    }
}

static void
on_receiver_op(struct bench_client *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    struct cq_message m;
    if (on_push(c, op)) {
        return;
    }
    if (op->code != CQ_OP_MESSAGE) {
        if (bench_client_is_answer(op, HISTORY_RID)) { /* fails on ERR */
            on_history(p, op);
        }
        return;
    }
    if (cq_schema_read(&cq_message_schema, &op->fields, op->field_count, &m)) {
        bench_measure_fail("MESSAGE cannot be read");
    }
    take_message(p, &m);
}

static void
on_receiver_turn(struct bench_client *c)
{
    struct pair *p = c->owner;
    if (run.cfg.no_receipts || p->held == p->acknowledged) {
        return;
    }
    static cq_buf_t row;
    struct cq_ack_cursor cursor = {p->chat, p->held, p->held};
    cq_buf_clear(&row);
    cq_schema_write_array(&cq_ack_cursor_schema, &row, &cursor);
    struct cq_ack ack = {cq_list_of(&row, 1)};
    p->acknowledged = p->held;
    cq_frame_request(bench_conn_next_op(&c->conn), CQ_OP_ACK, run.cfg.silent_acks ? 0 : ACK_RID,
                     &cq_ack_schema, &ack);
}

/* ---- coming (back) ---- */

static void
on_lost(struct bench_client *c)
{
    struct pair *p = c->owner;
    run.result.lost++;
    p->is_fetching = c == &p->y ? false : p->is_fetching;
}

static void
take_cursors(struct pair *p, const struct cq_sync_chat *chat)
{
    cq_reader_t r = cq_list_reader(&chat->cursors);
    for (size_t i = 0; i < chat->cursors.count; i++) {
        struct cq_cursor cursor;
        if (cq_schema_read_array(&cq_cursor_schema, &r, &cursor)) {
            bench_measure_fail("a cursor of SYNC cannot be read");
        }
        if (cq_id_eq(&cursor.user, &p->y_user)) {
            take_up_to(p, &cursor.device, cursor.up_to);
        }
    }
}

/* The pair's chat in SYNC's answer; each has another one too. */
static void
find_chat(struct pair *p, struct bench_client *c, struct cq_frame_op *op, struct cq_sync_chat *chat)
{
    const struct cq_id *peer = c == &p->x ? &p->y_user : &p->x_user;
    struct cq_synced s;
    if (cq_schema_read(&cq_synced_schema, &op->fields, op->field_count, &s)) {
        bench_measure_fail("SYNC cannot be read");
    }
    cq_reader_t r = cq_list_reader(&s.chats);
    for (size_t i = 0; i < s.chats.count; i++) {
        if (cq_schema_read_array(&cq_sync_chat_schema, &r, chat)) {
            break;
        }
        if (cq_id_eq(&chat->peer, peer)) {
            p->chat = chat->chat;
            p->key_version = chat->key_version;
            return;
        }
    }
    bench_measure_fail("SYNC does not have the pair's chat");
}

static void
on_ready(struct bench_client *c, struct cq_frame_op *synced)
{
    struct pair *p = c->owner;
    struct cq_sync_chat chat;
    find_chat(p, c, synced, &chat);
    bool is_new = c->since_ns != 0; /* else only SYNC_NOW was obeyed */
    if (is_new) {
        run.ready++;
        if (run.result.lost) {
            bench_measure_add(&run.result.back, bench_measure_now_ns() - c->since_ns);
        }
        c->since_ns = 0;
    }
    if (c == &p->x) {
        take_cursors(p, &chat);
        for (uint64_t dseq = p->answered + 1; is_new && dseq <= p->sent; dseq++) {
            put_send(p, dseq);
            run.result.resent++;
        }
        return;
    }
    p->acknowledged = chat.read;
    p->seen = chat.head > p->seen ? chat.head : p->seen;
    if (p->held < p->seen && !p->is_fetching) {
        fetch(p);
    }
}

static void
connect_side(struct bench_client *c, struct pair *p, uint16_t port)
{
    size_t user = 2 * p->number + (c == &p->y);
    const struct bench_seed_session *s = &run.seed.sessions[user * run.seed.header.devices];
    c->owner = p;
    c->token.now = (struct cq_view){s->token, s->token_size};
    c->is_returning = run.cfg.is_returning;
    c->on_ready = on_ready;
    c->on_lost = on_lost;
    c->on_op = c == &p->x ? on_sender_op : on_receiver_op;
    c->on_turn = c == &p->x ? on_sender_turn : on_receiver_turn;
    bench_client_connect(c, port);
}

static void
wait_for(size_t ready, uint64_t deadline)
{
    while (run.ready < ready) {
        bench_conn_poll(bench_client_due(deadline));
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("%zu of %" PRIu64 " are connected", run.ready, 2 * run.cfg.pairs);
        }
    }
}

void
bench_pairs_begin(const struct bench_pairs_cfg *cfg)
{
    uint64_t deadline = bench_measure_now_ns() + CONNECT_S * NS_PER_S;
    run.cfg = *cfg;
    bench_seed_load(&run.seed, cfg->seed);
    if (run.seed.header.users < 2 * cfg->pairs) {
        bench_measure_fail("%u people are too few", run.seed.header.users);
    }
    run.pairs = cq_alloc(cfg->pairs * sizeof *run.pairs);
    run.random = cq_alloc(RANDOM_BYTES);
    cq_random(run.random, RANDOM_BYTES);
    for (size_t i = 0; i < cfg->pairs; i++) {
        struct pair *p = &run.pairs[i];
        bool is_swapped = cfg->is_mixed && i % 2;
        p->number = i;
        uint16_t x = is_swapped ? cfg->port_y : cfg->port_x;
        uint16_t y = is_swapped ? cfg->port_x : cfg->port_y;
        p->x_user = run.seed.sessions[2 * i * run.seed.header.devices].user;
        p->y_user = run.seed.sessions[(2 * i + 1) * run.seed.header.devices].user;
        connect_side(&p->x, p, x);
        connect_side(&p->y, p, y);
        wait_for(2 * (i + 1) > IN_FLIGHT ? 2 * (i + 1) - IN_FLIGHT : 0, deadline);
    }
    wait_for(2 * cfg->pairs, deadline);
}

/* ---- the run ---- */

void
bench_pairs_send(bool sending)
{
    if (sending && !run.start_ns) {
        run.start_ns = bench_measure_now_ns();
    }
    run.sending = sending;
    for (size_t i = 0; i < run.cfg.pairs && sending && !run.cfg.rate; i++) {
        fill_window(&run.pairs[i]);
        bench_conn_flush(&run.pairs[i].x.conn);
    }
}

void
bench_pairs_measure(bool measuring)
{
    if (measuring) {
        run.result.delivered = run.result.receipts = run.result.read_back = 0;
        memset(&run.result.received, 0, sizeof run.result.received);
        memset(&run.result.answered, 0, sizeof run.result.answered);
    }
    run.measuring = measuring;
}

uint64_t
bench_pairs_due(uint64_t until)
{
    static uint64_t number; /* of the next message of all */
    uint64_t now = bench_measure_now_ns();
    while (run.cfg.rate && run.sending) {
        struct pair *p = &run.pairs[number % run.cfg.pairs];
        uint64_t due = due_ns(p, number / run.cfg.pairs + 1);
        if (due > now) {
            return due < until ? due : until;
        }
        fill_window(p);
        if (p->x.is_ready) {
            bench_conn_flush(&p->x.conn);
        }
        number++;
    }
    return until;
}

void
bench_pairs_run(uint64_t until_ns)
{
    while (bench_measure_now_ns() < until_ns) {
        bench_conn_poll(bench_client_due(bench_pairs_due(until_ns)));
    }
}

static bool
is_drained(void)
{
    for (size_t i = 0; i < run.cfg.pairs; i++) {
        struct pair *p = &run.pairs[i];
        uint64_t back = run.cfg.no_receipts ? p->sent : p->read_back;
        if (p->answered != p->sent || p->held != p->sent || back != p->sent) {
            return false;
        }
    }
    return true;
}

void
bench_pairs_drain(void)
{
    uint64_t deadline = bench_measure_now_ns() + DRAIN_S * NS_PER_S;
    run.sending = false;
    while (!is_drained()) {
        bench_conn_poll(bench_client_due(bench_measure_now_ns() + NS_PER_S / 10));
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("messages or receipts are missing %d s after the end", DRAIN_S);
        }
    }
}

const struct bench_pairs_result *
bench_pairs_result(void)
{
    return &run.result;
}
