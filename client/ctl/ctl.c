/* SPDX-License-Identifier: MPL-2.0
 * Finding the broker, joining, asking, complaining.
 */
#include "client/ctl/ctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "client/cli/output.h"

enum {
    LINE_MAX_BYTES = 8192
};

/* ---- complaining ---- */

int
ctl_fail(struct ctl *ctl, enum ctl_exit exit, const char *name, const char *fmt, ...)
{
    char message[LINE_MAX_BYTES];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (ctl->json) {
        json_begin(&ctl->line, "error");
        json_str(&ctl->line, "error", name);
        json_str(&ctl->line, "message", message);
        json_uint(&ctl->line, "exit", (uint64_t)exit);
        json_end(&ctl->line);
    } else {
        char *safe = out_safe(message, strlen(message), 0);
        (void)fflush(stdout);
        (void)fprintf(stderr, "chasquictl: %s\n", safe);
        free(safe);
    }
    return (int)exit;
}

int
ctl_refused(struct ctl *ctl, const char *who, int err)
{
    if (err == -CQ_E_DEADLINE) {
        return ctl_fail(ctl, CTL_NO_ANSWER, "DEADLINE", "%s does not answer", who);
    }
    if (err == -CQ_E_UNAVAILABLE && ctl->is_interrupted) {
        return ctl_fail(ctl, CTL_NO_ANSWER, "INTERRUPTED", "interrupted");
    }
    return ctl_fail(ctl, CTL_FAILED, cq_err_name(err), "%s: %s", who, cq_err_text(err));
}

/* ---- finding the broker ---- */

static bool
is_there(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* DATA/run/broker.sock, as deploy/run.sh makes it; false if the path is too long. */
static bool
socket_in(const char *data, char path[CTL_PATH_MAX])
{
    int n = snprintf(path, CTL_PATH_MAX, "%s/run/broker.sock", data);
    return n > 0 && n < CTL_PATH_MAX;
}

/* The data folder of the repository that this program was built in: REPO/build/X/bin/chasquictl. */
static bool
socket_beside_us(char path[CTL_PATH_MAX])
{
    char self[CTL_PATH_MAX - 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) {
        return false;
    }
    self[n] = '\0';
    for (int up = 0; up < 4; up++) {
        char *slash = strrchr(self, '/');
        if (!slash) {
            return false;
        }
        *slash = '\0';
    }
    (void)strncat(self, "/data", sizeof self - strlen(self) - 1);
    return socket_in(self, path);
}

static int
find_endpoint(struct ctl *ctl)
{
    char path[CTL_PATH_MAX]; /* realpath wants PATH_MAX */
    char where[CTL_PATH_MAX] = {0};
    if (ctl->broker) {
        (void)snprintf(ctl->endpoint, sizeof ctl->endpoint, "%s", ctl->broker);
        return CTL_OK;
    }
    bool found = socket_in(ctl->data ? ctl->data : "data", where) && is_there(where);
    if (!found && !ctl->data) {
        found = socket_beside_us(where) && is_there(where);
    }
    if (!found) {
        return ctl_fail(ctl, CTL_NO_ANSWER, "OFFLINE",
                        "no broker's socket in %s: is the system running? (--data DIR says where)",
                        ctl->data ? ctl->data : "data");
    }
    if (!realpath(where, path)) {
        (void)snprintf(path, sizeof path, "%s", where);
    }
    size_t room = sizeof ctl->endpoint - sizeof "ipc://";
    (void)snprintf(ctl->endpoint, sizeof ctl->endpoint, "ipc://%.*s", (int)room, path);
    return CTL_OK;
}

/* ---- joining ---- */

static int
compare_peers(const void *left, const void *right)
{
    return strcmp(((const struct ctl_peer *)left)->name, ((const struct ctl_peer *)right)->name);
}

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    struct ctl *ctl = ctx;
    for (size_t i = 0; i < ctl->peer_count; i++) {
        if (strcmp(ctl->peers[i].name, name) == 0) {
            ctl->peers[i] = ctl->peers[--ctl->peer_count];
            break;
        }
    }
    if (up) {
        ctl->peers = realloc(ctl->peers, (ctl->peer_count + 1) * sizeof *ctl->peers);
        CQ_ASSERT(ctl->peers);
        struct ctl_peer *p = &ctl->peers[ctl->peer_count++];
        *p = (struct ctl_peer){.incarnation = incarnation};
        (void)snprintf(p->name, sizeof p->name, "%s", name);
        (void)snprintf(p->role, sizeof p->role, "%s", role);
    }
    if (ctl->peer_count) {
        qsort(ctl->peers, ctl->peer_count, sizeof *ctl->peers, compare_peers);
    }
}

static void
on_registered(void *ctx)
{
    struct ctl *ctl = ctx;
    cq_loop_stop(ctl->loop);
}

static void
on_signal(void *ctx)
{
    struct ctl *ctl = ctx;
    ctl->is_interrupted = true;
    cq_loop_stop(ctl->loop);
}

static void
on_timer(void *ctx)
{
    struct ctl *ctl = ctx;
    ctl->is_timed_out = true;
    cq_loop_stop(ctl->loop);
}

static void
wait_registered(struct ctl *ctl)
{
    ctl->is_timed_out = false;
    cq_timer_start(ctl->timer, ctl->timeout_ms, 0);
    while (!cq_bus_is_registered(ctl->bus) && !ctl->is_timed_out && !ctl->is_interrupted) {
        cq_loop_run(ctl->loop);
    }
    cq_timer_stop(ctl->timer);
}

int
ctl_open(struct ctl *ctl)
{
    char name[CQ_ACTOR_NAME_MAX + 1];
    int rc = find_endpoint(ctl);
    if (rc) {
        return rc;
    }
    (void)snprintf(name, sizeof name, "ctl.%016" PRIx64, cq_random_u64());
    const struct cq_bus_cfg bus = {.endpoint = ctl->endpoint,
                                   .name = name,
                                   .role = "ctl",
                                   .on_peer = on_peer,
                                   .on_registered = on_registered,
                                   .ctx = ctl};
    ctl->loop = cq_loop_new();
    cq_loop_on_signal(ctl->loop, on_signal, ctl);
    ctl->timer = cq_timer_new(ctl->loop, on_timer, ctl);
    ctl->bus = cq_bus_new(ctl->loop, &bus);
    if (!ctl->bus) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "%s is not an endpoint (ipc:///PATH)",
                        ctl->endpoint);
    }
    wait_registered(ctl);
    if (cq_bus_is_registered(ctl->bus)) {
        return CTL_OK;
    }
    if (ctl->is_interrupted) {
        return ctl_fail(ctl, CTL_NO_ANSWER, "INTERRUPTED", "interrupted");
    }
    return ctl_fail(ctl, CTL_NO_ANSWER, "OFFLINE", "no broker answers at %s", ctl->endpoint);
}

/* ---- asking ---- */

struct ctl_wait {
    struct ctl *ctl;
    const struct ctl_question *question; /* NULL: nobody waits any more */
    bool is_done;
    int err;
    struct ctl_wait *next;
};

static void
on_answer(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct ctl_wait *w = ctx;
    (void)detail;
    w->is_done = true;
    w->err = err;
    if (!w->question) {
        return;
    }
    if (!err) {
        w->question->fn(w->question->ctx, fields, count);
    }
    cq_loop_stop(w->ctl->loop);
}

static void
forget(struct ctl *ctl, struct ctl_wait *w)
{
    struct ctl_wait **place = &ctl->waits;
    while (*place != w) {
        place = &(*place)->next;
    }
    *place = w->next;
    free(w);
}

int
ctl_ask(struct ctl *ctl, const struct ctl_question *q)
{
    struct ctl_wait *w = cq_alloc(sizeof *w);
    const struct cq_bus_wait wait = {ctl->timeout_ms, on_answer, w};
    bool was_interrupted = ctl->is_interrupted; /* asked after ^C: that is meant */
    w->ctl = ctl;
    w->question = q;
    w->next = ctl->waits;
    ctl->waits = w;
    int rc = cq_bus_request(ctl->bus, q->dst, q->op, q->schema, q->in, &wait);
    while (!rc && !w->is_done && ctl->is_interrupted == was_interrupted) {
        cq_loop_run(ctl->loop);
    }
    if (!rc && !w->is_done) {
        w->question = NULL; /* its answer may come yet: ctl_close frees it */
        return -CQ_E_UNAVAILABLE;
    }
    rc = rc ? rc : w->err;
    forget(ctl, w);
    return rc;
}

void
ctl_pause(struct ctl *ctl, uint64_t ms)
{
    bool was_interrupted = ctl->is_interrupted;
    ctl->is_timed_out = false;
    cq_timer_start(ctl->timer, ms, 0);
    while (!ctl->is_timed_out && ctl->is_interrupted == was_interrupted) {
        cq_loop_run(ctl->loop);
    }
    cq_timer_stop(ctl->timer);
}

void
ctl_close(struct ctl *ctl)
{
    if (ctl->timer) {
        cq_timer_destroy(&ctl->timer);
    }
    if (ctl->bus) {
        cq_bus_destroy(&ctl->bus);
    }
    while (ctl->waits) {
        forget(ctl, ctl->waits);
    }
    if (ctl->loop) {
        cq_loop_destroy(&ctl->loop);
    }
    free(ctl->peers);
    cq_buf_free(&ctl->line);
}
