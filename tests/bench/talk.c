/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/talk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/random.h"

#include "tests/bench/client.h"

enum {
    LOGIN_S = 60,
    DRAIN_S = 15,
    RING = 64, /* due times of messages under way: more than a window */
    TEXT_BYTES = 224,
    RESUME_RID = 1 << 30,
    DRAINING = -2
};

#define NS_PER_S UINT64_C(1000000000)

/* Shared by both processes. */
struct bench_talk {
    pid_t pid;
    atomic_int phase;
    atomic_bool is_ready;
    struct bench_hist hists[BENCH_TALK_PHASES];
};

struct pair {
    struct bench_conn x, y;
    const struct bench_seed_session *from, *to;
    struct cq_id chat;
    uint64_t sent, answered, held, acknowledged;
    uint64_t due_ns[RING];
};

static struct {
    struct bench_talk_cfg cfg;
    struct bench_talk *shared;
    struct pair *pairs;
    size_t logged_in;
    uint64_t number; /* of the next message */
    uint64_t start_ns;
} run;

static void
log_in(struct bench_conn *c)
{
    struct pair *p = c->owner;
    const struct bench_seed_session *s = c == &p->x ? p->from : p->to;
    struct cq_resume resume = {{s->token, s->token_size}};
    cq_frame_request(bench_conn_next_op(c), CQ_OP_RESUME, RESUME_RID, &cq_resume_schema, &resume);
    c->on_turn = NULL;
}

/* ---- X ---- */

static void
on_sender_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    if (bench_client_is_answer(op, RESUME_RID)) {
        run.logged_in++;
    } else if (op->code == CQ_OP_OK) {
        p->answered++;
    }
}

static void
send_one(struct pair *p, uint64_t due_ns)
{
    static uint8_t random[CQ_NONCE_SIZE + TEXT_BYTES];
    cq_random(random, sizeof random);
    struct cq_send m = {.chat = p->chat,
                        .dseq = p->sent + 1,
                        .prev = p->sent,
                        .key_version = 1,
                        .nonce = {random, CQ_NONCE_SIZE},
                        .ciphertext = {random + CQ_NONCE_SIZE, TEXT_BYTES}};
    p->sent++;
    p->due_ns[p->sent % RING] = due_ns;
    cq_frame_request(bench_conn_next_op(&p->x), CQ_OP_SEND, p->sent, &cq_send_schema, &m);
    bench_conn_flush(&p->x);
}

static uint64_t
due_at(uint64_t number)
{
    return run.start_ns + (uint64_t)((double)number * 1e9 / (double)run.cfg.rate);
}

/* Sends what is due; when the next one is. A pair whose window is full makes the others wait: what
 * that costs is in the latency, as it counts from when a message was due. */
static uint64_t
send_due(void)
{
    uint64_t now = bench_measure_now_ns();
    uint64_t due = due_at(run.number);
    while (due <= now) {
        struct pair *p = &run.pairs[run.number % run.cfg.pairs];
        if (p->sent - p->answered >= CQ_WINDOW) {
            return now + NS_PER_S / 1000;
        }
        send_one(p, due);
        due = due_at(++run.number);
    }
    return due;
}

/* ---- Y ---- */

static void
on_receiver_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct pair *p = c->owner;
    struct cq_message m;
    if (op->code != CQ_OP_MESSAGE) {
        run.logged_in += bench_client_is_answer(op, RESUME_RID);
        return;
    }
    if (cq_schema_read(&cq_message_schema, &op->fields, op->field_count, &m)) {
        bench_measure_fail("MESSAGE cannot be read");
    }
    /* The one who receives has other chats, too: none of them is written to. */
    if (m.seq != p->held + 1 || !cq_id_eq(&m.chat, &p->chat)) {
        bench_measure_fail("message %" PRIu64 " after %" PRIu64, m.seq, p->held);
    }
    p->held = m.seq;
    int phase = atomic_load(&run.shared->phase);
    if (phase >= 0) {
        bench_measure_add(&run.shared->hists[phase],
                          bench_measure_now_ns() - p->due_ns[m.dseq % RING]);
    }
}

static void
on_receiver_turn(struct bench_conn *c)
{
    struct pair *p = c->owner;
    if (p->held == p->acknowledged) {
        return;
    }
    static cq_buf_t row;
    struct cq_ack_cursor cursor = {p->chat, p->held, p->held};
    cq_buf_clear(&row);
    cq_schema_write_array(&cq_ack_cursor_schema, &row, &cursor);
    struct cq_ack ack = {cq_list_of(&row, 1)};
    p->acknowledged = p->held;
    cq_frame_request(bench_conn_next_op(c), CQ_OP_ACK, 0, &cq_ack_schema, &ack);
}

static void
on_receiver_first_turn(struct bench_conn *c)
{
    log_in(c);
    c->on_turn = on_receiver_turn;
}

/* ---- the process ---- */

static void
open_pairs(void)
{
    run.pairs = cq_alloc(run.cfg.pairs * sizeof *run.pairs);
    for (size_t i = 0; i < run.cfg.pairs; i++) {
        struct pair *p = &run.pairs[i];
        size_t devices = run.cfg.seed->header.devices;
        p->from = &run.cfg.seed->sessions[2 * i * devices];
        p->to = &run.cfg.seed->sessions[(2 * i + 1) * devices];
        p->chat = cq_chat_id(&p->from->user, &p->to->user);
        p->x = (struct bench_conn){.on_op = on_sender_op, .on_turn = log_in, .owner = p};
        p->y = (struct bench_conn){
            .on_op = on_receiver_op, .on_turn = on_receiver_first_turn, .owner = p};
        bench_conn_open(&p->x, run.cfg.port);
        bench_conn_open(&p->y, (uint16_t)(run.cfg.port + 1));
    }
    uint64_t deadline = bench_measure_now_ns() + LOGIN_S * NS_PER_S;
    while (run.logged_in < 2 * run.cfg.pairs) {
        bench_conn_poll(deadline);
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("%zu of %zu logged in", run.logged_in, 2 * run.cfg.pairs);
        }
    }
}

static bool
has_all(void)
{
    for (size_t i = 0; i < run.cfg.pairs; i++) {
        if (run.pairs[i].held != run.pairs[i].sent) {
            return false;
        }
    }
    return true;
}

static _Noreturn void
talk(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_conn_start();
    open_pairs();
    run.start_ns = bench_measure_now_ns();
    atomic_store(&run.shared->is_ready, true);
    while (atomic_load(&run.shared->phase) != DRAINING) {
        uint64_t due = send_due();
        uint64_t look = bench_measure_now_ns() + NS_PER_S / 20;
        bench_conn_poll(due < look ? due : look);
    }
    uint64_t deadline = bench_measure_now_ns() + DRAIN_S * NS_PER_S;
    while (!has_all()) {
        bench_conn_poll(bench_measure_now_ns() + NS_PER_S / 20);
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("messages are missing %d s after the end", DRAIN_S);
        }
    }
    exit(0); /* NOLINT(concurrency-mt-unsafe) one thread */
}

struct bench_talk *
bench_talk_start(const struct bench_talk_cfg *cfg)
{
    struct bench_talk *t =
        mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t == MAP_FAILED) {
        bench_measure_fail("no shared memory");
    }
    run.cfg = *cfg;
    run.shared = t;
    atomic_store(&t->phase, -1);
    pid_t pid = fork();
    if (pid == 0) {
        talk();
    }
    t->pid = pid;
    for (int i = 0; i < LOGIN_S * 100 && !atomic_load(&t->is_ready); i++) {
        if (waitpid(t->pid, NULL, WNOHANG) != 0) {
            bench_measure_fail("those who chat could not log in");
        }
        (void)usleep(10000);
    }
    return t;
}

void
bench_talk_phase(struct bench_talk *t, int phase)
{
    atomic_store(&t->phase, phase);
}

const struct bench_hist *
bench_talk_hist(const struct bench_talk *t, int phase)
{
    return &t->hists[phase];
}

void
bench_talk_stop(struct bench_talk **talk)
{
    struct bench_talk *t = *talk;
    int status = 0;
    atomic_store(&t->phase, DRAINING);
    if (waitpid(t->pid, &status, 0) != t->pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        bench_measure_fail("those who chat have failed: status 0x%x", (unsigned)status);
    }
    (void)munmap(t, sizeof *t);
    *talk = NULL;
}
