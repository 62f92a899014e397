/* SPDX-License-Identifier: MPL-2.0
 * history: the last messages of a chat, one chat at a time, from the page cache and from the disk.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/rt/check.h"

#include "tests/bench/ask.h"

struct options {
    struct bench_ask_options ask;
    uint64_t chats, messages;
};

static const struct cq_config_item items[] = {
    BENCH_ASK_ITEMS,
    {"chats", CQ_CONFIG_UINT, offsetof(struct options, chats), "500", 1, 100000, "",
     "chats that are asked for, each once warm and once cold"},
    {"last", CQ_CONFIG_UINT, offsetof(struct options, messages), "50", 1, CQ_HISTORY_MAX_COUNT, "",
     "messages of each"},
};

struct answer {
    bool done;
    struct cq_history_part part;
};

static void
on_answer(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct answer *a = ctx;
    (void)detail;
    if (err || cq_schema_read(&cq_history_part_schema, fields, count, &a->part)) {
        bench_measure_fail("HISTORY: %s", cq_err_name(err));
    }
    a->done = true;
}

/* The answer's head; how many messages came in *got. */
static uint64_t
history(const struct bench_pair *pair, uint64_t from, uint64_t to, size_t *got)
{
    struct answer a = {.done = false};
    const struct cq_history range = {pair->chat, from, to};
    const struct bench_ask ask = {
        .user = bench_people_user(pair->user),
        .device = bench_people_device(pair->user, 0),
        .op = CQ_OP_HISTORY,
        .schema = &cq_history_schema,
        .fields = &range,
        .fn = on_answer,
        .ctx = &a,
    };
    bench_stand_ask(&ask);
    bench_stand_wait(&a.done);
    *got = a.part.messages.count;
    return a.part.head;
}

struct sample {
    struct bench_pair pair;
    uint64_t head;
};

static void
ask_all(const struct sample *samples, const struct options *o, const char *metric)
{
    static struct bench_hist took;
    static struct bench_sample from, to;
    size_t got = 0;
    took = (struct bench_hist){0};
    bench_measure_sample(bench_stand_procs(), &from);
    for (uint64_t i = 0; i < o->chats; i++) {
        const struct sample *s = &samples[i];
        uint64_t start = bench_measure_now_ns();
        (void)history(&s->pair, s->head - o->messages + 1, s->head, &got);
        bench_measure_add(&took, bench_measure_now_ns() - start);
        if (got != o->messages) {
            bench_measure_fail("%zu messages instead of %" PRIu64, got, o->messages);
        }
    }
    bench_measure_sample(bench_stand_procs(), &to);
    bench_measure_say_hist(metric, &took);
    char name[64];
    (void)snprintf(name, sizeof name, "cpu_%s", metric);
    bench_measure_say_cpu(name, bench_stand_procs(), &from, &to, (double)o->chats);
}

int
bench_ask_history_run(int argc, char **argv)
{
    static struct options o;
    size_t count = sizeof items / sizeof items[0];
    int rc = cq_config_load(items, count, "chasqui-bench-ask history", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_people_check(&o.ask.people);
    bench_measure_begin("history", "last %" PRIu64 " of one of %" PRIu64 " chats, one at a time",
                        o.messages, bench_people_chat_count(&o.ask.people));
    bench_stand_open(o.ask.data);
    bench_stand_start_store();
    struct sample *samples = cq_alloc(o.chats * sizeof *samples);
    for (uint64_t i = 0; i < o.chats;) {
        size_t got = 0;
        uint64_t n = bench_people_random(bench_people_chat_count(&o.ask.people));
        samples[i].pair = bench_people_pair(&o.ask.people, n);
        samples[i].head = history(&samples[i].pair, 1, 1, &got);
        i += samples[i].head >= o.messages;
    }
    bench_stand_kill_store();
    bench_stand_forget_pages();
    bench_stand_start_store();
    ask_all(samples, &o, "cold");
    ask_all(samples, &o, "warm");
    bench_stand_close();
    free(samples);
    cq_config_free(items, count, &o);
    return 0;
}
