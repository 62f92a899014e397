/* SPDX-License-Identifier: MPL-2.0
 * flap: half of all users lose their connection at once and come back with their token, again and
 * again, while others chat. Two kinds: back at once, within the grace period (friends are told
 * nothing), and back after it (friends are told that they left and that they came).
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/rt/check.h"

#include "tests/bench/bench.h"
#include "tests/bench/client.h"
#include "tests/bench/talk.h"

enum {
    RESUME_RID = 1,
    SYNC_RID = 2,
    STORM_S = 120,
    SETTLE_S = 5,
    LISTS_PER_S = 1000, /* presence takes its time to ask for friends' lists */
    QUIET = 0,
    BLIP = 1,
    GONE = 2
};

#define NS_PER_MS UINT64_C(1000000)

struct options {
    struct bench_system system;
    char *seed;
    uint64_t pairs, rate, seconds, in_flight, away_ms;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    {"seed", CQ_CONFIG_STR, offsetof(struct options, seed), NULL, 1, 4096, "",
     "the people's file of chasqui-bench-seed"},
    {"pairs", CQ_CONFIG_UINT, offsetof(struct options, pairs), "100", 1, 10000, "",
     "pairs who chat, and whose connections stay"},
    {"rate", CQ_CONFIG_UINT, offsetof(struct options, rate), "500", 1, 100000, "per s",
     "their messages in total"},
    {"seconds", CQ_CONFIG_UINT, offsetof(struct options, seconds), "10", 1, 3600, "s",
     "measured time: quiet, and of each kind of flapping at least"},
    {"in-flight", CQ_CONFIG_UINT, offsetof(struct options, in_flight), "500", 1, 1000000, "",
     "users who are on their way back at a time"},
    {"away-ms", CQ_CONFIG_UINT, offsetof(struct options, away_ms), "7000", 0, 600000, "ms",
     "how long the second kind stays away: more than presence's grace period"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

struct user {
    struct bench_conn conn;
    struct bench_token token;
    uint64_t since_ns;
    struct cq_id epoch;
    uint64_t version; /* synced up to */
    uint16_t port;
};

static struct {
    struct options o;
    struct bench_seed seed;
    struct bench_procs procs;
    struct user *users;
    size_t user_count;
    size_t opened, done; /* of the current round */
    struct bench_hist back;
    uint64_t notes, states; /* PRESENCE_NOTE and what is in them */
    double quiet_ns_per_s[BENCH_PROCS_MAX];
} run;

/* ---- one user ---- */

static void
take_sync(struct user *u, struct cq_frame_op *op)
{
    struct cq_synced s;
    if (cq_schema_read(&cq_synced_schema, &op->fields, op->field_count, &s)) {
        bench_measure_fail("SYNC's answer cannot be read");
    }
    u->epoch = s.epoch;
    u->version = s.version;
    bench_measure_add(&run.back, bench_measure_now_ns() - u->since_ns);
    run.done++;
}

static void
on_user_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct cq_presence_states note;
    if (op->code == CQ_OP_PRESENCE_NOTE) {
        if (cq_schema_read(&cq_presence_states_schema, &op->fields, op->field_count, &note)) {
            bench_measure_fail("PRESENCE_NOTE cannot be read");
        }
        run.notes++;
        run.states += note.states.count;
    } else if (bench_client_is_answer(op, RESUME_RID)) {
        struct user *u = c->owner;
        bench_token_keep(&u->token, op);
    } else if (op->code == CQ_OP_OK && op->rid == SYNC_RID) {
        take_sync(c->owner, op);
    }
}

static void
log_in(struct bench_conn *c)
{
    struct user *u = c->owner;
    struct cq_resume resume = {u->token.now};
    struct cq_sync sync = {.epoch = u->epoch, .version = u->version};
    cq_frame_request(bench_conn_next_op(c), CQ_OP_RESUME, RESUME_RID, &cq_resume_schema, &resume);
    cq_frame_request(bench_conn_next_op(c), CQ_OP_SYNC, SYNC_RID, &cq_sync_schema, &sync);
    c->on_turn = NULL;
}

static void
open_user(struct user *u)
{
    u->since_ns = bench_measure_now_ns();
    u->conn.owner = u;
    u->conn.on_op = on_user_op;
    u->conn.on_turn = log_in;
    bench_conn_open(&u->conn, u->port);
}

/* ---- all of them ---- */

static bool
is_flapping(size_t i)
{
    return i % 2 == 0;
}

/* Opens every user that is closed and for whom pick() is true. */
static void
open_all(bool (*pick)(size_t i))
{
    uint64_t deadline = bench_measure_now_ns() + UINT64_C(1000) * STORM_S * NS_PER_MS;
    size_t next = 0;
    run.opened = run.done = 0;
    for (;;) {
        while (next < run.user_count && run.opened - run.done < run.o.in_flight) {
            if (!pick || pick(next)) {
                open_user(&run.users[next]);
                run.opened++;
            }
            next++;
        }
        if (next == run.user_count && run.done == run.opened) {
            return;
        }
        bench_conn_poll(deadline);
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("%zu of %zu sessions in %d s", run.done, run.opened, STORM_S);
        }
    }
}

static size_t
drop_half(void)
{
    size_t count = 0;
    for (size_t i = 0; i < run.user_count; i++) {
        if (is_flapping(i)) {
            bench_conn_close(&run.users[i].conn);
            count++;
        }
    }
    return count;
}

static void
wait_ms(uint64_t ms)
{
    uint64_t end = bench_measure_now_ns() + ms * NS_PER_MS;
    while (bench_measure_now_ns() < end) {
        bench_conn_poll(end);
    }
}

static void
make_users(void)
{
    size_t talking = 2 * run.o.pairs;
    bench_seed_load(&run.seed, run.o.seed);
    if (run.seed.header.users <= talking) {
        bench_measure_fail("%" PRIu32 " people are too few", run.seed.header.users);
    }
    run.user_count = run.seed.header.users - talking;
    run.users = cq_alloc(run.user_count * sizeof *run.users);
    for (size_t i = 0; i < run.user_count; i++) {
        struct user *u = &run.users[i];
        const struct bench_seed_session *s =
            &run.seed.sessions[(talking + i) * run.seed.header.devices];
        u->token.now = (struct cq_view){s->token, s->token_size};
        u->port = (uint16_t)(run.o.system.port + i / 2 % 2);
    }
}

/* ---- measuring ---- */

struct phase {
    const char *name;
    int number;
    uint64_t away_ms;
};

static void
say(const struct phase *phase, const char *what, double value, const char *unit)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s_%s", phase->name, what);
    bench_measure_say(name, value, unit);
}

/* What the chat alone costs in the same time is not the flaps'. */
static void
subtract_quiet(struct bench_sample *after, const struct bench_sample *before)
{
    double seconds = (double)(after->time_ns - before->time_ns) / 1e9;
    for (size_t i = 0; i < run.procs.count; i++) {
        uint64_t quiet_ns = (uint64_t)(run.quiet_ns_per_s[i] * seconds);
        uint64_t used_ns = after->cpu_ns[i] - before->cpu_ns[i];
        after->cpu_ns[i] -= quiet_ns < used_ns ? quiet_ns : used_ns;
    }
}

static void
flap(struct bench_talk *t, const struct phase *phase)
{
    static struct bench_sample before, after;
    uint64_t end = bench_measure_now_ns() + 1000 * run.o.seconds * NS_PER_MS;
    size_t flaps = 0;
    run.back = (struct bench_hist){0};
    run.notes = run.states = 0;
    bench_measure_sample(&run.procs, &before);
    bench_talk_phase(t, phase->number);
    while (bench_measure_now_ns() < end) {
        flaps += drop_half();
        wait_ms(phase->away_ms);
        open_all(is_flapping);
        wait_ms(phase->away_ms); /* all changes are told */
    }
    bench_talk_phase(t, -1);
    bench_measure_sample(&run.procs, &after);
    char name[64];
    subtract_quiet(&after, &before);
    (void)snprintf(name, sizeof name, "%s_cpu_per_flap", phase->name);
    bench_measure_say_cpu(name, &run.procs, &before, &after, (double)flaps);
    say(phase, "flaps", (double)flaps, "1");
    say(phase, "notes_per_flap", (double)run.notes / (double)flaps, "1");
    say(phase, "states_per_flap", (double)run.states / (double)flaps, "1");
    (void)snprintf(name, sizeof name, "%s_back", phase->name);
    bench_measure_say_hist(name, &run.back);
    wait_ms(1000 * SETTLE_S);
}

static void
say_latency(const struct bench_talk *t, const struct phase *phase)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s_message", phase->name);
    bench_measure_say_hist(name, bench_talk_hist(t, phase->number));
    double quiet = (double)bench_measure_quantile(bench_talk_hist(t, QUIET), 0.99);
    double now = (double)bench_measure_quantile(bench_talk_hist(t, phase->number), 0.99);
    if (phase->number != QUIET && quiet > 0) {
        say(phase, "message_p99_ratio", now / quiet, "1");
    }
}

static void
open_and_say_memory(void)
{
    static struct bench_sample before, after;
    bench_measure_memory(&run.procs, &before);
    open_all(NULL);
    wait_ms(1000 * (SETTLE_S + run.user_count / LISTS_PER_S));
    bench_measure_memory(&run.procs, &after);
    bench_measure_say_memory("pss_per_user", &run.procs, &before, &after, (double)run.user_count);
}

static void
be_quiet(struct bench_talk *t)
{
    static struct bench_sample before, after;
    const struct phase quiet = {"quiet", QUIET, 0};
    bench_measure_sample(&run.procs, &before);
    bench_talk_phase(t, QUIET);
    wait_ms(1000 * run.o.seconds);
    bench_talk_phase(t, -1);
    bench_measure_sample(&run.procs, &after);
    double seconds = (double)(after.time_ns - before.time_ns) / 1e9;
    for (size_t i = 0; i < run.procs.count; i++) {
        run.quiet_ns_per_s[i] = (double)(after.cpu_ns[i] - before.cpu_ns[i]) / seconds;
    }
    bench_measure_say_cpu("quiet_cpu_per_s", &run.procs, &before, &after, seconds);
    say_latency(t, &quiet);
}

int
bench_flap_run(int argc, char **argv)
{
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench flap", argc, argv, &run.o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    const struct phase phases[] = {{"blip", BLIP, 0}, {"gone", GONE, run.o.away_ms}};
    make_users();
    bench_measure_begin("flap",
                        "%" PRIu32 " users, %" PRIu32 " friends each, %" PRIu64 " pairs, %" PRIu64
                        " messages/s, %" PRIu64 " on their way back at a time",
                        run.seed.header.users, run.seed.header.friends, run.o.pairs, run.o.rate,
                        run.o.in_flight);
    bench_measure_find(&run.procs, run.o.system.data);
    const struct bench_talk_cfg cfg = {&run.seed, run.o.pairs, run.o.rate,
                                       (uint16_t)run.o.system.port};
    struct bench_talk *t = bench_talk_start(&cfg);
    bench_measure_give_way();
    open_and_say_memory();
    be_quiet(t);
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) {
        flap(t, &phases[i]);
        say_latency(t, &phases[i]);
    }
    bench_talk_stop(&t);
    for (size_t i = 0; i < run.user_count; i++) {
        bench_token_free(&run.users[i].token);
    }
    bench_seed_free(&run.seed);
    free(run.users);
    cq_config_free(items, ITEM_COUNT, &run.o);
    return 0;
}
