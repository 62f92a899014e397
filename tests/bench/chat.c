/* SPDX-License-Identifier: MPL-2.0
 * Pairs who talk: X of each on the first edge sends, Y on the second receives and acknowledges.
 * Closed loop (X keeps `window` sends unanswered) or open loop (at a fixed rate in total, evenly
 * over the pairs; time counts from when a message was due, so a server that stalls cannot hide it).
 *
 * The text is random bytes as long as a ciphertext would be: the server cannot tell.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "tests/bench/account.h"
#include "tests/bench/bench.h"

enum {
    RING = 1024,          /* times of sends that are under way, a power of two */
    CIPHER_OVERHEAD = 24, /* MAC, msgpack around the text */
    RANDOM_BYTES = 1024 * 1024,
    WARM_UP_S = 2,
    DRAIN_S = 15,
    DISK_PROBES = 500
};

#define NS_PER_S UINT64_C(1000000000)
#define ACK_RID  (UINT64_C(1) << 40) /* sends use their dseq */

struct options {
    struct bench_system system;
    uint64_t pairs, window, bytes, seconds, rate;
    bool no_receipts, silent_acks;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    {"pairs", CQ_CONFIG_UINT, offsetof(struct options, pairs), "100", 1, 100000, "", "pairs"},
    {"window", CQ_CONFIG_UINT, offsetof(struct options, window), "8", 1, CQ_WINDOW, "",
     "sends that X leaves unanswered (closed loop)"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 1, CQ_TEXT_MAX, "bytes",
     "length of a text"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "10", 1, 3600, "s",
     "measured time, behind a warm-up of 2 s"},
    {"rate", CQ_CONFIG_UINT, offsetof(struct options, rate), "0", 0, 1000000, "per s",
     "messages in total (open loop); 0: closed loop"},
    {"no-receipts", CQ_CONFIG_BOOL, offsetof(struct options, no_receipts), "false", 0, 0, "",
     "Y acknowledges nothing"},
    {"silent-acks", CQ_CONFIG_BOOL, offsetof(struct options, silent_acks), "false", 0, 0, "",
     "Y wants no answer to its ACKs"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

struct pair {
    struct bench_account *x, *y;
    size_t number;
    uint64_t sent;                      /* last dseq; SENDs begin at 1 */
    uint64_t answered;                  /* `sent` answers */
    uint64_t held, acknowledged;        /* by Y */
    uint64_t delivered_back, read_back; /* what X has heard of */
    uint64_t since_ns[RING];
};

static struct {
    struct options o;
    struct pair *pairs;
    struct bench_account *accounts;
    uint8_t *random;
    uint64_t start_ns;
    bool sending, measuring;
    uint64_t delivered, receipts, read_back, syncs; /* while measuring */
    struct bench_hist received, answered;
} run;

/* ---- X ---- */

static void
send_one(struct pair *p, uint64_t since_ns)
{
    static size_t at;
    size_t size = run.o.bytes + CIPHER_OVERHEAD;
    at = (at + 64) % (RANDOM_BYTES - CQ_CIPHERTEXT_MAX - CQ_NONCE_SIZE);
    struct cq_send m = {.chat = p->x->chat,
                        .dseq = p->sent + 1,
                        .prev = p->sent,
                        .key_version = p->x->key_version,
                        .nonce = {run.random + at, CQ_NONCE_SIZE},
                        .ciphertext = {run.random + at + CQ_NONCE_SIZE, size}};
    p->sent++;
    p->since_ns[p->sent % RING] = since_ns;
    cq_frame_request(bench_conn_next_op(&p->x->conn), CQ_OP_SEND, p->sent, &cq_send_schema, &m);
}

/* When the pair's message of this number is due (open loop). */
static uint64_t
due_ns(const struct pair *p, uint64_t dseq)
{
    uint64_t number = (dseq - 1) * run.o.pairs + p->number;
    return run.start_ns + (uint64_t)((double)number * 1e9 / (double)run.o.rate);
}

static void
fill_window(struct pair *p)
{
    uint64_t now = bench_measure_now_ns();
    uint64_t window = run.o.rate ? CQ_WINDOW : run.o.window;
    while (run.sending && p->sent - p->answered < window) {
        uint64_t since = run.o.rate ? due_ns(p, p->sent + 1) : now;
        if (since > now) {
            break;
        }
        send_one(p, since);
    }
}

static void
on_sender_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    if (op->code == CQ_OP_RECEIPT) {
        struct cq_receipt m;
        if (cq_schema_read(&cq_receipt_schema, &op->fields, op->field_count, &m)) {
            bench_measure_fail("RECEIPT cannot be read");
        }
        run.receipts += run.measuring;
        uint64_t *back = cq_id_is_none(&m.device) ? &p->read_back : &p->delivered_back;
        if (m.up_to > *back) {
            run.read_back += run.measuring && back == &p->read_back ? m.up_to - *back : 0;
            *back = m.up_to;
        }
    } else if (bench_account_is_answer(op, p->answered + 1)) {
        p->answered++;
        if (run.measuring) {
            bench_measure_add(&run.answered,
                              bench_measure_now_ns() - p->since_ns[p->answered % RING]);
        }
    } else if (op->code == CQ_OP_OK) {
        bench_measure_fail("an answer out of order: %" PRIu64 " instead of %" PRIu64, op->rid,
                           p->answered + 1);
    } else {
        run.syncs += op->code == CQ_OP_SYNC_NOW;
    }
}

static void
on_sender_turn(struct bench_conn *c)
{
    fill_window(c->owner);
}

/* ---- Y ---- */

static void
on_receiver_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    struct cq_message m;
    if (op->code != CQ_OP_MESSAGE) {
        run.syncs += op->code == CQ_OP_SYNC_NOW;
        (void)bench_account_is_answer(op, 0); /* fails on ERR */
        return;
    }
    if (cq_schema_read(&cq_message_schema, &op->fields, op->field_count, &m)) {
        bench_measure_fail("MESSAGE cannot be read");
    }
    if (m.seq <= p->held) {
        return; /* a repeat, as the protocol allows */
    }
    if (m.seq != p->held + 1) {
        bench_measure_fail("a gap: %" PRIu64 " after %" PRIu64, m.seq, p->held);
    }
    p->held = m.seq;
    if (run.measuring) {
        run.delivered++;
        bench_measure_add(&run.received, bench_measure_now_ns() - p->since_ns[m.dseq % RING]);
    }
}

static void
on_receiver_turn(struct bench_conn *c)
{
    struct pair *p = c->owner;
    if (run.o.no_receipts || p->held == p->acknowledged) {
        return;
    }
    static cq_buf_t row;
    struct cq_ack_cursor cursor = {p->y->chat, p->held, p->held};
    cq_buf_clear(&row);
    cq_schema_write_array(&cq_ack_cursor_schema, &row, &cursor);
    struct cq_ack ack = {cq_list_of(&row, 1)};
    p->acknowledged = p->held;
    cq_frame_request(bench_conn_next_op(c), CQ_OP_ACK, run.o.silent_acks ? 0 : ACK_RID,
                     &cq_ack_schema, &ack);
}

/* ---- the run ---- */

static void
make_pairs(void)
{
    run.accounts = cq_alloc(2 * run.o.pairs * sizeof *run.accounts);
    run.pairs = cq_alloc(run.o.pairs * sizeof *run.pairs);
    run.random = cq_alloc(RANDOM_BYTES);
    cq_random(run.random, RANDOM_BYTES);
    bench_account_make(run.accounts, 2 * run.o.pairs, (uint16_t)run.o.system.port);
    for (size_t i = 0; i < run.o.pairs; i++) {
        struct pair *p = &run.pairs[i];
        p->number = i;
        p->x = &run.accounts[2 * i];
        p->y = &run.accounts[2 * i + 1];
        p->x->conn.owner = p->y->conn.owner = p;
        p->x->conn.on_op = on_sender_op;
        p->x->conn.on_turn = on_sender_turn;
        p->y->conn.on_op = on_receiver_op;
        p->y->conn.on_turn = on_receiver_turn;
    }
}

/* Open loop: sends what is due; returns when the next one is, or `until`. */
static uint64_t
send_due(uint64_t until)
{
    static uint64_t number; /* of the next message of all */
    uint64_t now = bench_measure_now_ns();
    while (run.o.rate && run.sending) {
        struct pair *p = &run.pairs[number % run.o.pairs];
        uint64_t due = due_ns(p, number / run.o.pairs + 1);
        if (due > now) {
            return due < until ? due : until;
        }
        fill_window(p);
        bench_conn_flush(&p->x->conn);
        number++;
    }
    return until;
}

static void
run_until(uint64_t until)
{
    while (bench_measure_now_ns() < until) {
        bench_conn_poll(send_due(until));
    }
}

static bool
is_drained(void)
{
    for (size_t i = 0; i < run.o.pairs; i++) {
        const struct pair *p = &run.pairs[i];
        uint64_t back = run.o.no_receipts ? p->sent : p->read_back;
        if (p->answered != p->sent || p->held != p->sent || back != p->sent) {
            return false;
        }
    }
    return true;
}

/* Every message that was sent arrives and its receipt comes back, or the run is void. */
static void
drain(void)
{
    uint64_t deadline = bench_measure_now_ns() + DRAIN_S * NS_PER_S;
    while (!is_drained()) {
        bench_conn_poll(bench_measure_now_ns() + NS_PER_S / 10);
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("messages or receipts are missing %d s after the end", DRAIN_S);
        }
    }
}

static void
report(const struct bench_procs *procs, const struct bench_sample *a, const struct bench_sample *b)
{
    double seconds = (double)(b->time_ns - a->time_ns) / 1e9;
    double delivered = (double)run.delivered;
    if (run.delivered == 0) {
        bench_measure_fail("nothing was delivered");
    }
    bench_measure_say("delivered", delivered / seconds, "1/s");
    bench_measure_say("read_back", (double)run.read_back / seconds, "1/s");
    bench_measure_say("receipts", (double)run.receipts / seconds, "1/s");
    bench_measure_say_hist("sent_to_received", &run.received);
    bench_measure_say_hist("sent_to_answer", &run.answered);
    bench_measure_say_cpu("cpu_per_message", procs, a, b, delivered);
    bench_measure_say("store_written_per_message",
                      (double)(b->store_write_bytes - a->store_write_bytes) / delivered, "bytes");
    bench_measure_say("sync_now", (double)run.syncs, "1");
}

int
bench_chat_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench chat", argc, argv, &run.o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_begin(
        "chat", "pairs %" PRIu64 ", %s %" PRIu64 ", %" PRIu64 " bytes, %" PRIu64 " s%s%s",
        run.o.pairs, run.o.rate ? "rate" : "window", run.o.rate ? run.o.rate : run.o.window,
        run.o.bytes, run.o.seconds, run.o.no_receipts ? ", no receipts" : "",
        run.o.silent_acks ? ", silent acks" : "");
    bench_measure_find(&procs, run.o.system.data);
    make_pairs();
    bench_measure_disk(run.o.system.data, DISK_PROBES);
    run.start_ns = bench_measure_now_ns();
    run.sending = true;
    for (size_t i = 0; i < run.o.pairs && !run.o.rate; i++) {
        fill_window(&run.pairs[i]);
        bench_conn_flush(&run.pairs[i].x->conn);
    }
    run_until(run.start_ns + WARM_UP_S * NS_PER_S);
    bench_measure_sample(&procs, &before);
    run.measuring = true;
    run_until(bench_measure_now_ns() + run.o.seconds * NS_PER_S);
    run.measuring = false;
    bench_measure_sample(&procs, &after);
    run.sending = false;
    drain();
    report(&procs, &before, &after);
    cq_config_free(items, ITEM_COUNT, &run.o);
    return 0;
}
