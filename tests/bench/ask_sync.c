/* SPDX-License-Identifier: MPL-2.0
 * sync: what a device asks that comes back: SYNC of everything, and the list of chats.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/bench/ask.h"

struct options {
    struct bench_ask_options ask;
    uint64_t times;
};

static const struct cq_config_item items[] = {
    BENCH_ASK_ITEMS,
    {"times", CQ_CONFIG_UINT, offsetof(struct options, times), "500", 1, 100000, "",
     "users that ask, one at a time, each twice"},
};

static size_t chats_answered;
static bool done;

static void
on_synced(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct cq_synced synced;
    (void)ctx;
    (void)detail;
    if (err || cq_schema_read(&cq_synced_schema, fields, count, &synced)) {
        bench_measure_fail("SYNC: %s", cq_err_name(err));
    }
    chats_answered = synced.chats.count;
    done = true;
}

static void
on_chats(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct cq_chat_list list;
    (void)ctx;
    (void)detail;
    if (err || cq_schema_read(&cq_chat_list_schema, fields, count, &list)) {
        bench_measure_fail("CHATS: %s", cq_err_name(err));
    }
    chats_answered = list.chats.count;
    done = true;
}

static void
ask_all(const struct options *o, struct bench_ask ask, const char *metric)
{
    static struct bench_hist took;
    static struct bench_sample from, to;
    char name[64];
    took = (struct bench_hist){0};
    bench_measure_sample(bench_stand_procs(), &from);
    for (uint64_t i = 0; i < o->times; i++) {
        uint64_t user = i * 7 % o->ask.people.users;
        ask.user = bench_people_user(user);
        ask.device = bench_people_device(user, 0);
        uint64_t start = bench_measure_now_ns();
        done = false;
        bench_stand_ask(&ask);
        bench_stand_wait(&done);
        bench_measure_add(&took, bench_measure_now_ns() - start);
        if (chats_answered != o->ask.people.friends) {
            bench_measure_fail("%zu chats instead of %" PRIu64, chats_answered,
                               o->ask.people.friends);
        }
    }
    bench_measure_sample(bench_stand_procs(), &to);
    bench_measure_say_hist(metric, &took);
    (void)snprintf(name, sizeof name, "cpu_%s", metric);
    bench_measure_say_cpu(name, bench_stand_procs(), &from, &to, (double)o->times);
}

int
bench_ask_sync_run(int argc, char **argv)
{
    static struct options o;
    static const struct cq_sync everything;
    static const struct cq_chats all;
    const struct bench_ask sync = {
        .op = CQ_OP_SYNC, .schema = &cq_sync_schema, .fields = &everything, .fn = on_synced};
    const struct bench_ask chats = {
        .op = CQ_OP_CHATS, .schema = &cq_chats_schema, .fields = &all, .fn = on_chats};
    size_t count = sizeof items / sizeof items[0];
    int rc = cq_config_load(items, count, "chasqui-bench-ask sync", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_people_check(&o.ask.people);
    bench_measure_begin("sync",
                        "a user with %" PRIu64 " chats, of %" PRIu64 " users, one at a time",
                        o.ask.people.friends, o.ask.people.users);
    bench_stand_open(o.ask.data);
    bench_stand_start_store();
    ask_all(&o, sync, "sync_first");
    ask_all(&o, sync, "sync_again");
    ask_all(&o, chats, "chats_first");
    ask_all(&o, chats, "chats_again");
    bench_stand_close();
    cq_config_free(items, count, &o);
    return 0;
}
