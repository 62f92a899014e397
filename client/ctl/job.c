/* SPDX-License-Identifier: MPL-2.0
 * Long jobs of the store: start, follow, cancel.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/rt/random.h"

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

enum {
    POLL_FIRST_MS = 20,
    POLL_MAX_MS = 500,
    MIB = 1024 * 1024
};

static const char *const state_names[] = {[CQ_JOB_RUNNING] = "running",
                                          [CQ_JOB_DONE] = "done",
                                          [CQ_JOB_FAILED] = "failed",
                                          [CQ_JOB_CANCELLED] = "cancelled"};

/* A job as we know it. */
struct job {
    struct ctl *ctl;
    struct cq_id id; /* none: the latest one */
    char kind[CQ_ACTOR_NAME_MAX + 1];
    char path[CQ_JOB_PATH_MAX + 1];
    char unit[17];
    char text[CQ_JOB_TEXT_MAX + 1];
    uint64_t state, done, total, started_unix_ms, ended_unix_ms, err, finding_count;
    uint64_t shown; /* findings */
    bool is_quiet;  /* findings are not shown: it is not known yet whether they are asked for */
    bool has_line;  /* a line of progress stands on the terminal */
};

static void
copy_text(char *out, size_t size, struct cq_view v)
{
    (void)snprintf(out, size, "%.*s", (int)v.n, (const char *)v.p);
}

/* Progress is for a person who waits. */
static bool
shows_progress(const struct job *j)
{
    return !j->ctl->json && isatty(STDERR_FILENO);
}

static void
clear_line(struct job *j)
{
    if (j->has_line) {
        (void)fprintf(stderr, "\r\033[K");
        j->has_line = false;
    }
}

static void
show_finding(struct job *j, struct cq_view text)
{
    if (j->ctl->json) {
        json_begin(&j->ctl->line, "finding");
        json_text(&j->ctl->line, "text", (const char *)text.p, text.n);
        json_end(&j->ctl->line);
        return;
    }
    char *safe = out_safe((const char *)text.p, text.n, 0);
    clear_line(j);
    (void)printf("%s\n", safe);
    free(safe);
}

static void
on_state(void *ctx, cq_reader_t *fields, size_t count)
{
    struct job *j = ctx;
    struct cq_job_state s;
    if (cq_schema_read(&cq_job_state_schema, fields, count, &s) != 0 || s.state == 0) {
        return;
    }
    j->id = s.job;
    j->state = s.state;
    j->done = s.done;
    j->total = s.total;
    j->started_unix_ms = s.started_unix_ms;
    j->ended_unix_ms = s.ended_unix_ms;
    j->err = s.err;
    j->finding_count = s.finding_count;
    copy_text(j->kind, sizeof j->kind, s.kind);
    copy_text(j->path, sizeof j->path, s.path);
    copy_text(j->unit, sizeof j->unit, s.unit);
    copy_text(j->text, sizeof j->text, s.text);
    cq_reader_t r = cq_list_reader(&s.findings);
    for (size_t i = 0; i < s.findings.count; i++) {
        struct cq_view text = cq_read_str(&r, 0, CQ_JOB_FINDING_MAX);
        if (!r.err && !j->is_quiet) {
            show_finding(j, text);
        }
        j->shown += !r.err;
    }
}

/* ---- asking ---- */

static int
start(struct job *j, const struct ctl_job_request *request)
{
    struct cq_job_start in = {
        .job = j->id,
        .kind = {(const uint8_t *)request->kind, strlen(request->kind)},
        .path = {(const uint8_t *)request->path, strlen(request->path)},
    };
    const struct ctl_question q = {"store", CQ_BUS_JOB_START, &cq_job_start_schema,
                                   &in,     on_state,         j};
    return ctl_ask(j->ctl, &q);
}

static int
ask_state(struct job *j)
{
    struct cq_job_status in = {.job = j->id, .from = j->shown};
    const struct ctl_question q = {"store", CQ_BUS_JOB_STATUS, &cq_job_status_schema,
                                   &in,     on_state,          j};
    return ctl_ask(j->ctl, &q);
}

static int
cancel(struct job *j)
{
    struct cq_job_cancel in = {.job = j->id};
    const struct ctl_question q = {"store", CQ_BUS_JOB_CANCEL, &cq_job_cancel_schema,
                                   &in,     on_state,          j};
    return ctl_ask(j->ctl, &q);
}

static int
complain(struct job *j, int err)
{
    clear_line(j);
    if (err == -CQ_E_NOT_FOUND && cq_id_is_none(&j->id)) {
        return ctl_fail(j->ctl, CTL_FAILED, "NOT_FOUND",
                        "no job was started since the store's own start");
    }
    if (err == -CQ_E_NOT_FOUND) {
        return ctl_fail(j->ctl, CTL_FAILED, "NOT_FOUND",
                        "the store has restarted: the job is gone, start it again");
    }
    if (err == -CQ_E_BUSY) {
        return ctl_fail(j->ctl, CTL_FAILED, "BUSY",
                        "another job is running (chasquictl job shows it)");
    }
    return ctl_refused(j->ctl, "store", err);
}

/* ---- showing ---- */

static void
show_progress(struct job *j)
{
    if (!shows_progress(j) || j->state != CQ_JOB_RUNNING) {
        return;
    }
    char *safe = out_safe(j->text, strlen(j->text), 40);
    bool is_bytes = strcmp(j->unit, "bytes") == 0;
    uint64_t by = is_bytes ? MIB : 1;
    uint64_t percent = j->total ? j->done * 100 / j->total : 0;
    if (!j->total) { /* it does not know yet */
        (void)fprintf(stderr, "\r\033[K%s …", safe[0] ? safe : j->kind);
        (void)fflush(stderr);
        j->has_line = true;
        free(safe);
        return;
    }
    (void)fprintf(stderr, "\r\033[K%s  %" PRIu64 " of %" PRIu64 " %s (%" PRIu64 " %%)",
                  safe[0] ? safe : j->kind, j->done / by, j->total / by, is_bytes ? "MiB" : j->unit,
                  percent);
    (void)fflush(stderr);
    j->has_line = true;
    free(safe);
}

static const char *
state_name(const struct job *j)
{
    return j->state < sizeof state_names / sizeof state_names[0] && state_names[j->state]
               ? state_names[j->state]
               : "unknown";
}

static void
show_json(struct job *j)
{
    char id[CQ_ID_HEX_SIZE];
    cq_buf_t *b = &j->ctl->line;
    json_begin(b, "job");
    json_str(b, "job", cq_id_hex(&j->id, id));
    json_str(b, "kind", j->kind);
    json_str(b, "path", j->path);
    json_str(b, "state", state_name(j));
    json_uint(b, "done", j->done);
    json_uint(b, "total", j->total);
    json_str(b, "unit", j->unit);
    json_uint(b, "started_unix_ms", j->started_unix_ms);
    json_uint(b, "ended_unix_ms", j->ended_unix_ms);
    if (j->state == CQ_JOB_FAILED) {
        json_str(b, "error", cq_err_name(-(int)j->err));
    } else {
        json_null(b, "error");
    }
    json_str(b, "text", j->text);
    json_uint(b, "findings", j->finding_count);
    json_end(b);
}

static void
show_text(struct job *j)
{
    char *safe = out_safe(j->text, strlen(j->text), 0);
    clear_line(j);
    if (j->finding_count > j->shown) {
        (void)printf("… and %" PRIu64 " more findings\n", j->finding_count - j->shown);
    }
    (void)fflush(stdout);
    bool is_bad = j->state == CQ_JOB_FAILED || j->state == CQ_JOB_CANCELLED;
    (void)fprintf(is_bad ? stderr : stdout, "%s %s%s%s\n", j->kind, state_name(j),
                  safe[0] ? ": " : "", safe);
    free(safe);
}

static int
result(struct job *j)
{
    bool is_good = (j->state == CQ_JOB_DONE || j->state == CQ_JOB_RUNNING) && !j->finding_count;
    j->ctl->json ? show_json(j) : show_text(j);
    return is_good ? CTL_OK : CTL_FAILED;
}

/* ---- verbs ---- */

/* Until it has ended, or the second ^C. */
static int
follow(struct job *j)
{
    uint64_t pause_ms = POLL_FIRST_MS;
    bool has_cancelled = false;
    int err = 0;
    while (j->state == CQ_JOB_RUNNING && !err) {
        show_progress(j);
        ctl_pause(j->ctl, pause_ms);
        pause_ms = 2 * pause_ms < POLL_MAX_MS ? 2 * pause_ms : POLL_MAX_MS;
        if (j->ctl->is_interrupted && !has_cancelled) {
            has_cancelled = true;
            j->ctl->is_interrupted = false;
            pause_ms = POLL_FIRST_MS;
            err = cancel(j);
        } else if (j->ctl->is_interrupted) {
            err = -CQ_E_UNAVAILABLE;
        } else {
            err = ask_state(j);
        }
        /* ^C while it was asked: nothing is wrong, it is to be cancelled. */
        err = err == -CQ_E_UNAVAILABLE && j->ctl->is_interrupted && !has_cancelled ? 0 : err;
    }
    return err ? complain(j, err) : result(j);
}

int
ctl_job_run(struct ctl *ctl, const struct ctl_job_request *request)
{
    struct job j = {.ctl = ctl, .id = cq_random_id()};
    int err = start(&j, request);
    if (err) {
        return complain(&j, err);
    }
    if (request->is_detached) {
        return result(&j);
    }
    int rc = follow(&j);
    if (rc == CTL_OK && request->note && !ctl->json) {
        (void)printf("%s\n", request->note);
    }
    return rc;
}

int
ctl_job(struct ctl *ctl, struct ctl_args *args)
{
    struct job j = {.ctl = ctl};
    bool wants_cancel = ctl_flag(args, "--cancel");
    j.is_quiet = wants_cancel;
    bool follows = ctl_flag(args, "--follow");
    int rc = ctl_words(ctl, args, 0, 0);
    rc = rc ? rc : ctl_open(ctl);
    if (rc) {
        return rc;
    }
    int err = ask_state(&j);
    if (!err && wants_cancel && j.state != CQ_JOB_RUNNING) {
        return ctl_fail(ctl, CTL_FAILED, "NOT_FOUND", "no job is running (the latest: %s, %s)",
                        j.kind, state_name(&j));
    }
    if (!err && wants_cancel) {
        j.is_quiet = false;
        j.shown = 0;
        err = cancel(&j);
        follows = true;
    }
    if (err) {
        return complain(&j, err);
    }
    rc = follows ? follow(&j) : result(&j);
    return wants_cancel && j.state == CQ_JOB_CANCELLED ? CTL_OK : rc;
}
