/* SPDX-License-Identifier: MPL-2.0
 * recovery: kill -9, and the time until the store answers again.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/bench/ask.h"

struct options {
    struct bench_ask_options ask;
    uint64_t kills, load_ms, in_flight;
};

static const struct cq_config_item items[] = {
    BENCH_ASK_ITEMS,
    {"kills", CQ_CONFIG_UINT, offsetof(struct options, kills), "3", 0, 1000, "",
     "further ones, under load"},
    {"load-ms", CQ_CONFIG_UINT, offsetof(struct options, load_ms), "3000", 10, 600000, "ms",
     "load before each"},
    {"in-flight", CQ_CONFIG_UINT, offsetof(struct options, in_flight), "1024", 1, 60000, "",
     "messages without answer"},
};

static void
on_answer(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    (void)fields;
    (void)count;
    if (err) {
        bench_measure_fail("HISTORY: %s", cq_err_name(err));
    }
    *(bool *)ctx = true;
}

/* From nothing to the first answer. */
static void
start_and_ask(const struct options *o, const char *metric)
{
    bool done = false;
    char name[64];
    struct bench_pair pair = bench_people_pair(&o->ask.people, 0);
    const struct cq_history range = {pair.chat, 1, 1};
    const struct bench_ask ask = {
        .user = bench_people_user(pair.user),
        .device = bench_people_device(pair.user, 0),
        .op = CQ_OP_HISTORY,
        .schema = &cq_history_schema,
        .fields = &range,
        .fn = on_answer,
        .ctx = &done,
    };
    uint64_t start = bench_measure_now_ns();
    bench_stand_start_store();
    bench_stand_ask(&ask);
    bench_stand_wait(&done);
    bench_measure_say(metric, (double)(bench_measure_now_ns() - start) / 1e9, "s");
    (void)snprintf(name, sizeof name, "%s_records", metric);
    bench_measure_say(name, (double)bench_stand_replayed(), "1");
}

int
bench_ask_recovery_run(int argc, char **argv)
{
    static struct options o;
    size_t count = sizeof items / sizeof items[0];
    int rc = cq_config_load(items, count, "chasqui-bench-ask recovery", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_people_check(&o.ask.people);
    bench_measure_begin("recovery", "%" PRIu64 " chats, kill -9 until the first answer",
                        bench_people_chat_count(&o.ask.people));
    bench_stand_open(o.ask.data);
    start_and_ask(&o, "filled");
    bench_stand_kill_store();
    bench_stand_forget_pages();
    start_and_ask(&o, "filled_cold");
    for (uint64_t i = 0; i < o.kills; i++) {
        struct bench_ask_load load = {.people = &o.ask.people,
                                      .in_flight = o.in_flight,
                                      .messages = UINT64_MAX,
                                      .bytes = 200,
                                      .until_ms = cq_now_mono_ms() + o.load_ms};
        bench_ask_load(&load);
        bench_stand_kill_store();
        start_and_ask(&o, "loaded");
    }
    bench_stand_close();
    cq_config_free(items, count, &o);
    return 0;
}
