/* SPDX-License-Identifier: MPL-2.0
 * login: a storm of sessions that come back with a token: connect, RESUME, SYNC. A few users have
 * many sessions each, so that the set-up does not pay for thousands of password hashes.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/rt/check.h"

#include "tests/bench/account.h"
#include "tests/bench/bench.h"

enum {
    USERS = 20,
    RESUME_RID = 1,
    SYNC_RID = 2,
    STORM_S = 120,
    SETTLE_MS = 500
};

#define NS_PER_MS UINT64_C(1000000)

struct session {
    struct bench_conn conn;
    struct bench_login *login;
    const struct bench_account *account;
    uint64_t since_ns;
};

struct bench_login {
    uint16_t port;
    size_t opened, done;
    struct bench_account accounts[USERS];
    struct session *sessions;
    struct bench_hist *took;
};

struct bench_login *
bench_login_new(const struct bench_system *system, size_t sessions_max)
{
    struct bench_login *l = cq_alloc(sizeof *l);
    l->port = (uint16_t)system->port;
    l->sessions = cq_alloc(sessions_max * sizeof *l->sessions);
    bench_account_make(l->accounts, USERS, l->port);
    for (size_t i = 0; i < USERS; i++) {
        bench_conn_close(&l->accounts[i].conn);
    }
    return l;
}

static void
on_session_op(struct bench_conn *c, struct cq_frame_op *op)
{
    struct session *s = c->owner;
    if (bench_account_is_answer(op, SYNC_RID)) {
        bench_measure_add(s->login->took, bench_measure_now_ns() - s->since_ns);
        s->login->done++;
        c->on_op = NULL;
    }
}

static void
log_in(struct bench_conn *c)
{
    struct session *s = c->owner;
    struct cq_resume resume = {{s->account->token, s->account->token_size}};
    struct cq_sync sync = {.version = 0};
    cq_frame_request(bench_conn_next_op(c), CQ_OP_RESUME, RESUME_RID, &cq_resume_schema, &resume);
    cq_frame_request(bench_conn_next_op(c), CQ_OP_SYNC, SYNC_RID, &cq_sync_schema, &sync);
    c->on_turn = NULL;
}

void
bench_login_open(struct bench_login *l, size_t count, size_t in_flight, struct bench_hist *took)
{
    uint64_t deadline = bench_measure_now_ns() + UINT64_C(1000) * STORM_S * NS_PER_MS;
    l->took = took;
    while (l->done < count) {
        while (l->opened < count && l->opened - l->done < in_flight) {
            struct session *s = &l->sessions[l->opened];
            s->login = l;
            s->account = &l->accounts[l->opened % USERS];
            s->since_ns = bench_measure_now_ns();
            s->conn.owner = s;
            s->conn.on_op = on_session_op;
            s->conn.on_turn = log_in;
            bench_conn_open(&s->conn, (uint16_t)(l->port + l->opened / USERS % 2));
            l->opened++;
        }
        bench_conn_poll(deadline);
        if (bench_measure_now_ns() >= deadline) {
            bench_measure_fail("%zu of %zu sessions in %d s", l->done, count, STORM_S);
        }
    }
}

void
bench_login_destroy(struct bench_login **login)
{
    struct bench_login *l = *login;
    for (size_t i = 0; i < l->opened; i++) {
        bench_conn_close(&l->sessions[i].conn);
    }
    free(l->sessions);
    free(l);
    *login = NULL;
}

/* ---- the benchmark ---- */

struct options {
    struct bench_system system;
    uint64_t sessions, in_flight;
};

static const struct cq_config_item items[] = {
    BENCH_SYSTEM_ITEMS,
    {"sessions", CQ_CONFIG_UINT, offsetof(struct options, sessions), "2000", 1, 1000000, "",
     "sessions that come back"},
    {"in-flight", CQ_CONFIG_UINT, offsetof(struct options, in_flight), "200", 1, 1000000, "",
     "of them at a time"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

int
bench_login_run(int argc, char **argv)
{
    static struct bench_procs procs;
    static struct bench_sample before, after;
    static struct bench_hist took;
    struct options o = {0};
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench login", argc, argv, &o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    bench_measure_begin("login", "%" PRIu64 " sessions of %d users, %" PRIu64 " at a time",
                        o.sessions, USERS, o.in_flight);
    bench_measure_find(&procs, o.system.data);
    struct bench_login *l = bench_login_new(&o.system, o.sessions);
    bench_measure_sample(&procs, &before);
    bench_login_open(l, o.sessions, o.in_flight, &took);
    uint64_t end = bench_measure_now_ns();
    while (bench_measure_now_ns() < end + SETTLE_MS * NS_PER_MS) {
        bench_conn_poll(end + SETTLE_MS * NS_PER_MS); /* what is done behind the answers counts */
    }
    bench_measure_sample(&procs, &after);
    bench_measure_say("sessions", (double)o.sessions * 1e9 / (double)(end - before.time_ns), "1/s");
    bench_measure_say_hist("connect_to_synced", &took);
    bench_measure_say_cpu("cpu_per_session", &procs, &before, &after, (double)o.sessions);
    bench_login_destroy(&l);
    cq_config_free(items, ITEM_COUNT, &o);
    return 0;
}
