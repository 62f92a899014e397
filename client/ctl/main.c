/* SPDX-License-Identifier: MPL-2.0
 * chasquictl, the operators' program: finds the verb and runs it.
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

struct verb {
    const char *name;
    const char *arguments;
    const char *summary;
    const char *help; /* more, for VERB --help; may be NULL */
    ctl_verb_fn *fn;
};

static const struct verb verbs[] = {
    {"status", "", "who is on the bus; exit code 0 only if all of it answers",
     "Needed are a broker, a store, a presence and an edge.", ctl_status},
    {"metrics", "[ACTOR]", "counters as Prometheus text, of all actors or of one",
     "ACTOR: a name that status lists, e.g. edge.1. docs/operating.md says what they mean.",
     ctl_metrics},
    {"backup", "DIR [--no-blobs] [--detach]",
     "copy database and blobs into a new folder while they are in use",
     "DIR must not exist, or be empty; the store makes it, as DIR.partial until it is whole and "
     "verified. ^C cancels;\n"
     "--detach starts it and returns; --no-blobs copies the database alone. The master key is not "
     "in it.\n"
     "To restore: deploy/run.sh --restore DIR.",
     ctl_backup},
    {"fsck", "[--blobs] [--detach]", "check database and blobs while they are in use",
     "Everything in the tables is compared with what the log says, and the sizes and hashes of all "
     "blobs' files with the tables;\n"
     "nothing is changed. --blobs reads every byte of every blob, too, as fast as blobd scrubs. "
     "Findings go to standard output, one a line.\n"
     "Exit code 0: clean; 1: findings, or it failed; 3: no answer. Takes seconds per million "
     "messages; ^C cancels it.",
     ctl_fsck},
    {"job", "[--follow] [--cancel]", "the store's latest long job (backup, …)",
     "Exit code 0 if it runs, or came to its end and found nothing.", ctl_job},
    {"ledger", "USER PEER SEQ | CHAT SEQ", "the life of a message, as the log tells it",
     "Accepted, durable, delivered to each device, read: when. CHAT: a chat's id, 32 hex digits.",
     ctl_ledger},
};

enum {
    HELP_COLUMN = 36,
    TIMEOUT_PRESET_S = 5,
    TIMEOUT_MAX_S = 3600,
    VERB_COUNT = sizeof verbs / sizeof verbs[0]
};

static const char common_help[] =
    "Options\n"
    "  --data DIR         data folder of the running system (data here, or of the repository)\n"
    "  --broker ENDPOINT  the broker itself, ipc:///PATH, instead\n"
    "  --json             one JSON object per line, errors too\n"
    "  --timeout S        how long to wait for an answer, in seconds (5)\n"
    "  --help             this, or the help of a verb\n"
    "  --version\n\n"
    "Exit codes\n"
    "  0 done   1 refused, failed, or found something wrong   2 wrong usage   3 no answer in "
    "time\n";

static void
print_help(void)
{
    puts("chasquictl — looks after a running chasqui\n\nUsage: chasquictl [OPTIONS] VERB …\n\n"
         "Verbs");
    for (int i = 0; i < VERB_COUNT; i++) {
        char left[64];
        (void)snprintf(left, sizeof left, "%s %s", verbs[i].name, verbs[i].arguments);
        (void)printf("  %-*s %s\n", HELP_COLUMN, left, verbs[i].summary);
    }
    (void)printf("\n%s", common_help);
}

static void
print_verb_help(const struct verb *v)
{
    (void)printf("chasquictl %s %s\n    %s\n\n%s%s%s", v->name, v->arguments, v->summary,
                 v->help ? v->help : "", v->help ? "\n\n" : "", common_help);
}

static const struct verb *
find_verb(const char *name)
{
    for (int i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

/* Options of every verb, wherever they stand. */
static int
take_options(struct ctl *ctl, struct ctl_args *args)
{
    const char *timeout = NULL;
    uint64_t seconds = TIMEOUT_PRESET_S;
    const struct {
        const char *name;
        const char **value;
    } options[] = {{"--data", &ctl->data}, {"--broker", &ctl->broker}, {"--timeout", &timeout}};
    ctl->json = ctl_flag(args, "--json");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (ctl_option(args, options[i].name, options[i].value) < 0) {
            return ctl_fail(ctl, CTL_USAGE, "USAGE", "%s needs a value", options[i].name);
        }
    }
    if (timeout && !ctl_number(timeout, 1, TIMEOUT_MAX_S, &seconds)) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "--timeout takes 1 to %d seconds, not \"%s\"",
                        TIMEOUT_MAX_S, timeout);
    }
    ctl->timeout_ms = seconds * 1000;
    return CTL_OK;
}

static int
run(struct ctl *ctl, struct ctl_args *args)
{
    int rc = take_options(ctl, args);
    if (rc) {
        return rc;
    }
    bool wants_help = ctl_flag(args, "--help") || ctl_flag(args, "-h");
    if (ctl_flag(args, "--version")) {
        puts("chasquictl " CQ_VERSION);
        return CTL_OK;
    }
    if (args->n == 0) {
        print_help();
        return wants_help ? CTL_OK : CTL_USAGE;
    }
    const struct verb *v = find_verb(args->v[0]);
    if (!v) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "unknown verb \"%s\" (try: chasquictl --help)",
                        args->v[0]);
    }
    if (wants_help) {
        print_verb_help(v);
        return CTL_OK;
    }
    struct ctl_args rest = {args->v + 1, args->n - 1};
    ctl->verb = v->name;
    return v->fn(ctl, &rest);
}

int
main(int argc, char **argv)
{
    struct ctl ctl = {0};
    struct ctl_args args = {argv + 1, argc > 0 ? argc - 1 : 0};
    cq_secure_start();
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread yet */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) {
        (void)setlocale(LC_CTYPE, "C.UTF-8"); /* NOLINT(concurrency-mt-unsafe) */
    }
    cq_log_init("chasquictl", CQ_LOG_ERROR);
    int rc = run(&ctl, &args);
    ctl_close(&ctl);
    return rc;
}
