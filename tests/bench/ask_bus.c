/* SPDX-License-Identifier: MPL-2.0
 * store-bus: durable messages through the bus, so many in flight over many chats.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"
#include "common/rt/random.h"

#include "tests/bench/ask.h"

enum {
    CIPHER_OVERHEAD = 24,
    WARM_UP_PART = 10,
    DISK_PROBES = 500
};

/* ---- the load ---- */

struct lane {
    struct state *state;
    uint64_t chat;
    uint64_t since_ns;
};

struct state {
    struct bench_ask_load *ask;
    uint64_t chats;
    struct cq_id *ids;    /* of chats */
    uint32_t *last_dseqs; /* of the one device that sends to a chat */
    bool *busy;
    uint64_t started;
    bool done;
    struct lane *lanes;
    uint8_t *random;
};

static void send(struct lane *l);

static void
on_sent(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct lane *l = ctx;
    struct state *state = l->state;
    (void)fields;
    (void)count;
    if (err) {
        bench_measure_fail("SEND: %s (%" PRIu64 ")", cq_err_name(err), detail);
    }
    if (state->ask->took) {
        bench_measure_add(state->ask->took, bench_measure_now_ns() - l->since_ns);
    }
    state->last_dseqs[l->chat]++;
    state->busy[l->chat] = false;
    state->ask->answered++;
    bool is_over = state->ask->until_ms && cq_now_mono_ms() >= state->ask->until_ms;
    if (state->started < state->ask->messages && !is_over) {
        send(l);
    } else {
        state->done = state->ask->answered == state->started;
    }
}

static void
send(struct lane *l)
{
    struct state *state = l->state;
    do {
        l->chat = bench_people_random(state->chats);
    } while (state->busy[l->chat]);
    state->busy[l->chat] = true;
    state->started++;
    uint64_t user = l->chat / (state->ask->people->friends / 2);
    const struct cq_send message = {
        .chat = state->ids[l->chat],
        .dseq = state->last_dseqs[l->chat] + 1,
        .prev = state->last_dseqs[l->chat],
        .key_version = 1,
        .nonce = {state->random, CQ_NONCE_SIZE},
        .ciphertext = {state->random, state->ask->bytes + CIPHER_OVERHEAD},
    };
    const struct bench_ask ask = {
        .user = bench_people_user(user),
        .device = bench_people_device(user, BENCH_PEOPLE_UNUSED),
        .op = CQ_OP_SEND,
        .schema = &cq_send_schema,
        .fields = &message,
        .fn = on_sent,
        .ctx = l,
    };
    l->since_ns = bench_measure_now_ns();
    bench_stand_ask(&ask);
}

static void
begin(struct state *state, const struct bench_ask_load *load)
{
    size_t bytes = load->bytes + CIPHER_OVERHEAD;
    state->chats = bench_people_chat_count(load->people);
    state->ids = cq_alloc(state->chats * sizeof *state->ids);
    state->last_dseqs = cq_alloc(state->chats * sizeof *state->last_dseqs);
    state->busy = cq_alloc(state->chats * sizeof *state->busy);
    state->random = cq_alloc(bytes);
    cq_random(state->random, bytes);
    for (uint64_t i = 0; i < state->chats; i++) {
        state->ids[i] = bench_people_pair(load->people, i).chat;
    }
}

void
bench_ask_load(struct bench_ask_load *load)
{
    /* What was sent before stays known: loads may follow one another. */
    static struct state state;
    if (!state.ids) {
        begin(&state, load);
    }
    state.ask = load;
    state.started = load->answered = 0;
    state.done = false;
    state.lanes = cq_alloc(load->in_flight * sizeof *state.lanes);
    for (uint64_t i = 0; i < load->in_flight && i < load->messages; i++) {
        state.lanes[i].state = &state;
        send(&state.lanes[i]);
    }
    bench_stand_wait(&state.done);
    free(state.lanes);
    state.lanes = NULL;
    state.ask = NULL;
}

/* ---- the benchmark ---- */

struct options {
    struct bench_ask_options ask;
    uint64_t in_flight, messages, bytes;
};

static const struct cq_config_item items[] = {
    BENCH_ASK_ITEMS,
    {"in-flight", CQ_CONFIG_UINT, offsetof(struct options, in_flight), "1024", 1, 60000, "",
     "messages without answer"},
    {"messages", CQ_CONFIG_UINT, offsetof(struct options, messages), "1000000", 1, 1000000000, "",
     "messages, a tenth more to warm up"},
    {"bytes", CQ_CONFIG_UINT, offsetof(struct options, bytes), "200", 1, CQ_TEXT_MAX, "bytes",
     "length of a text"},
};

int
bench_ask_bus_run(int argc, char **argv)
{
    static struct options o;
    static struct bench_hist took;
    static struct bench_sample from, to;
    size_t count = sizeof items / sizeof items[0];
    int rc = cq_config_load(items, count, "chasqui-bench-ask store-bus", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_people_check(&o.ask.people);
    if (bench_people_chat_count(&o.ask.people) < 2 * o.in_flight) {
        bench_measure_fail("fewer chats than twice what is in flight");
    }
    bench_measure_begin("store-bus",
                        "%" PRIu64 " messages of %" PRIu64 " bytes, %" PRIu64 " chats, %" PRIu64
                        " in flight, no presence",
                        o.messages, o.bytes, bench_people_chat_count(&o.ask.people), o.in_flight);
    bench_stand_open(o.ask.data);
    bench_stand_start_store();
    struct bench_ask_load load = {.people = &o.ask.people,
                                  .in_flight = o.in_flight,
                                  .messages = o.messages / WARM_UP_PART + o.in_flight,
                                  .bytes = o.bytes};
    bench_ask_load(&load);
    load.messages = o.messages;
    load.took = &took;
    bench_measure_sample(bench_stand_procs(), &from);
    bench_ask_load(&load);
    bench_measure_sample(bench_stand_procs(), &to);
    double n = (double)o.messages;
    bench_measure_say("appended", n / ((double)(to.time_ns - from.time_ns) / 1e9), "1/s");
    bench_measure_say_cpu("cpu_per_message", bench_stand_procs(), &from, &to, n);
    bench_measure_say("written_per_message",
                      (double)(to.store_write_bytes - from.store_write_bytes) / n, "bytes");
    bench_measure_say_hist("answer", &took);
    bench_stand_close();
    bench_measure_disk(o.ask.data, DISK_PROBES);
    cq_config_free(items, count, &o);
    return 0;
}
