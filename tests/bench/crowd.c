/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/crowd.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/client.h"
#include "tests/bench/conn.h"

enum {
    HELPERS_MAX = 64,
    SPARE_FILES = 64, /* that a helper has open beside its sessions */
    ADDRESSES = 3,    /* of a helper's own: enough for all that it may open */
    LOOK_MS = 20,     /* how often a helper looks for orders */
    OPEN_S = 3600     /* on an emulated machine all takes a while */
};

#define NS_PER_MS UINT64_C(1000000)

/* Shared with the helper. */
struct helper {
    pid_t pid;
    _Atomic uint64_t wanted, opened, away, pings, refused, cpu_ns;
};

struct bench_crowd {
    struct bench_login_cfg cfg;
    size_t count;
    struct helper helpers[HELPERS_MAX];
};

/* What the helpers before this one have of `count` sessions. */
static size_t
part(const struct bench_crowd *c, size_t helper, size_t count)
{
    return count * helper / c->count;
}

/* ---- a helper ---- */

static void
report(struct helper *me)
{
    atomic_store(&me->pings, bench_conn_pings());
    atomic_store(&me->away, bench_client_away());
    atomic_store(&me->refused, bench_client_refused());
}

static _Noreturn void
serve(struct bench_crowd *c, size_t number)
{
    struct helper *me = &c->helpers[number];
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_measure_give_way();
    bench_conn_start();
    bench_conn_sources((unsigned)number * ADDRESSES);
    struct bench_login_cfg cfg = c->cfg;
    size_t first = part(c, number, cfg.sessions);
    cfg.sessions = part(c, number + 1, cfg.sessions) - first;
    cfg.skip += first;
    cfg.in_flight = cfg.in_flight / c->count + 1;
    struct bench_login *l = bench_login_new(&cfg);
    for (uint64_t counted_ns = 0;;) {
        size_t wanted = atomic_load(&me->wanted);
        if (wanted > atomic_load(&me->opened)) {
            bench_login_open(l, wanted, NULL);
            atomic_store(&me->opened, wanted);
        }
        uint64_t now = bench_measure_now_ns();
        if (now - counted_ns > LOOK_MS * NS_PER_MS) {
            atomic_store(&me->cpu_ns, bench_measure_own_cpu_ns());
            counted_ns = now;
        }
        bench_conn_poll(bench_client_due(now + LOOK_MS * NS_PER_MS));
        report(me);
    }
}

/* ---- the one that orders ---- */

static size_t
sessions_of_one_process(void)
{
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_max > SPARE_FILES ? files.rlim_max - SPARE_FILES : 1;
}

struct bench_crowd *
bench_crowd_new(const struct bench_login_cfg *cfg)
{
    struct bench_crowd *c =
        mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c == MAP_FAILED) {
        bench_measure_fail("no shared memory");
    }
    size_t most = sessions_of_one_process();
    c->cfg = *cfg;
    c->count = (cfg->sessions + most - 1) / most;
    if (c->count > HELPERS_MAX) {
        bench_measure_fail("%zu processes of %zu sessions are too many", c->count, most);
    }
    for (size_t i = 0; i < c->count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            serve(c, i);
        }
        c->helpers[i].pid = pid;
    }
    return c;
}

size_t
bench_crowd_helpers(const struct bench_crowd *c)
{
    return c->count;
}

/* A helper that has died has said why. */
static void
check(struct bench_crowd *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (waitpid(c->helpers[i].pid, NULL, WNOHANG) != 0) {
            bench_measure_fail("a helper has ended");
        }
    }
}

static bool
has_opened(const struct bench_crowd *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (atomic_load(&c->helpers[i].opened) < atomic_load(&c->helpers[i].wanted)) {
            return false;
        }
    }
    return true;
}

void
bench_crowd_open(struct bench_crowd *c, size_t count)
{
    uint64_t deadline = bench_measure_now_ns() + UINT64_C(1000) * OPEN_S * NS_PER_MS;
    for (size_t i = 0; i < c->count; i++) {
        atomic_store(&c->helpers[i].wanted, part(c, i + 1, count) - part(c, i, count));
    }
    while (!has_opened(c)) {
        check(c);
        if (bench_measure_now_ns() > deadline) {
            bench_measure_fail("no %zu sessions in %d s", count, OPEN_S);
        }
        (void)usleep(1000);
    }
}

/* Of one of the helpers' figures, by its place in the struct. */
static uint64_t
sum(const struct bench_crowd *c, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < c->count; i++) {
        const char *helper = (const char *)&c->helpers[i];
        total += atomic_load((const _Atomic uint64_t *)(const void *)(helper + offset));
    }
    return total;
}

uint64_t
bench_crowd_pings(const struct bench_crowd *c)
{
    return sum(c, offsetof(struct helper, pings));
}

size_t
bench_crowd_away(struct bench_crowd *c)
{
    check(c);
    return sum(c, offsetof(struct helper, away));
}

uint64_t
bench_crowd_refused(const struct bench_crowd *c)
{
    return sum(c, offsetof(struct helper, refused));
}

uint64_t
bench_crowd_cpu_ns(const struct bench_crowd *c)
{
    return sum(c, offsetof(struct helper, cpu_ns));
}

void
bench_crowd_destroy(struct bench_crowd **crowd)
{
    struct bench_crowd *c = *crowd;
    for (size_t i = 0; i < c->count; i++) {
        (void)kill(c->helpers[i].pid, SIGKILL);
        (void)waitpid(c->helpers[i].pid, NULL, 0);
    }
    (void)munmap(c, sizeof *c);
    *crowd = NULL;
}
