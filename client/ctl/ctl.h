/* SPDX-License-Identifier: MPL-2.0
 * chasquictl, the operators' program: an actor of role "ctl" on the bus that asks and prints. One
 * file per verb; a verb takes its words and flags (args), opens the bus, asks, prints.
 *
 * A verb's exit codes: enum ctl_exit.
 */
#ifndef CLIENT_CTL_CTL_H
#define CLIENT_CTL_CTL_H

#include <stdarg.h>

#include "common/rt/bus.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,    /* it was asked for and was refused, failed, or found something wrong */
    CTL_USAGE = 2,     /* wrong usage */
    CTL_NO_ANSWER = 3, /* no broker, no such actor, no answer in time, interrupted */
};

/* What is left of the command line. Options may stand anywhere behind the verb. */
struct ctl_args {
    char **v;
    int n;
};

struct ctl_peer {
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    uint64_t incarnation;
};

struct ctl_wait;

enum {
    CTL_PATH_MAX = 4096
};

struct ctl {
    const char *verb;
    const char *broker; /* --broker, NULL: not given */
    const char *data;   /* --data, NULL: not given */
    uint64_t timeout_ms;
    bool json;
    cq_loop_t *loop;
    cq_bus_t *bus;
    cq_timer_t *timer;
    char endpoint[CTL_PATH_MAX];
    struct ctl_peer *peers; /* alive, sorted by name; without ourselves and the broker */
    size_t peer_count;
    struct ctl_wait *waits; /* asked and not answered */
    bool is_interrupted;    /* ^C or TERM */
    bool is_timed_out;
    cq_buf_t line; /* for JSON */
};

typedef int ctl_verb_fn(struct ctl *ctl, struct ctl_args *args);

/* ---- args.c ---- */

/* Takes a flag out; true if it was there. */
bool ctl_flag(struct ctl_args *args, const char *name);
/* Takes an option and its value ("--name V" or "--name=V") out: 1, 0 if it was not there, -1 if its
 * value is missing. */
int ctl_option(struct ctl_args *args, const char *name, const char **value);
/* Decimal digits in the range? */
bool ctl_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);
/* Checks what is left after all flags were taken: no options, min to max words. CTL_OK or
 * CTL_USAGE (said). */
int ctl_words(struct ctl *ctl, const struct ctl_args *args, int min, int max);

/* ---- ctl.c ---- */

/* Says why it ends and returns the exit code. name: for --json ("USAGE", an error of err.def). */
int ctl_fail(struct ctl *ctl, enum ctl_exit exit, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same for an error that an actor answered, with what it means. */
int ctl_refused(struct ctl *ctl, const char *who, int err);

/* Joins the bus. CTL_OK, or an exit code (said). ^C is noted from here on: is_interrupted. */
int ctl_open(struct ctl *ctl);
void ctl_close(struct ctl *ctl);

/* Asks and waits. fn reads the answer's fields (borrowed for its call). 0, the error answered,
 * -CQ_E_DEADLINE, or -CQ_E_UNAVAILABLE when ^C came first (fn is not called then). */
typedef void ctl_answer_fn(void *ctx, cq_reader_t *fields, size_t count);
struct ctl_question {
    const char *dst; /* actor or role */
    uint8_t op;
    const struct cq_schema *schema;
    const void *in;
    ctl_answer_fn *fn;
    void *ctx;
};
int ctl_ask(struct ctl *ctl, const struct ctl_question *q);
/* Waits; shorter after ^C. */
void ctl_pause(struct ctl *ctl, uint64_t ms);

/* ---- verbs ---- */

ctl_verb_fn ctl_ledger; /* ledger.c */
ctl_verb_fn ctl_status; /* status.c */

/* What status says of a blobd (status_blobd.c): read from its metrics; printed as a line of JSON or
 * a table. */
struct ctl_blobd {
    uint64_t blobs, bytes, is_counted, room_bytes, jobs_waiting, uploads_open, scrub_end_s, damaged;
};
void ctl_status_read_blobd(const cq_buf_t *metrics, struct ctl_blobd *b);
void ctl_status_print_blobd(struct ctl *ctl, const char *name, const struct ctl_blobd *b);

ctl_verb_fn ctl_metrics; /* metrics.c */

ctl_verb_fn ctl_backup; /* backup.c */
ctl_verb_fn ctl_fsck;   /* fsck.c */
ctl_verb_fn ctl_job;    /* job.c */

/* A long job of the store (job.c): starts it, shows its progress, what it finds and its result; ^C
 * cancels it. is_detached: only starts it. Exit code: CTL_OK if it came to its end and found
 * nothing. */
struct ctl_job_request {
    const char *kind;
    const char *path; /* "" if the kind wants none */
    bool is_detached;
    const char *note; /* to be said below a good result, may be NULL */
};
int ctl_job_run(struct ctl *ctl, const struct ctl_job_request *request);

/* Asks an actor for its METRICS; *text is appended to. As ctl_ask. */
int ctl_metrics_of(struct ctl *ctl, const char *actor, cq_buf_t *text);
/* The value of a sample or of one of its labels, from Prometheus text; false if it is not there. */
bool ctl_metrics_value(const cq_buf_t *text, const char *name, uint64_t *value);
bool ctl_metrics_label(const cq_buf_t *text,
                       const char *name,
                       const char *label,
                       char *out,
                       size_t out_size);

#endif
