/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/wire/err.h"
#include "common/wire/name.h"

enum {
    WAIT_DEFAULT_S = 10,
    HOPELESS_MS = 3000,
    HOPELESS_ROUNDS = 2,
    TELL_WAITING_MS = 1000
};

/* ---- errors ---- */

static const struct exit_row {
    int error;
    enum cli_exit code;
} exit_rows[] = {
    {CQ_CLIENT_E_NOT_LOGGED_IN, CLI_NOT_LOGGED_IN},
    {CQ_CLIENT_E_CLONED, CLI_NOT_LOGGED_IN},
    {CQ_E_NOT_AUTHENTICATED, CLI_NOT_LOGGED_IN},
    {CQ_E_BAD_TOKEN, CLI_NOT_LOGGED_IN},
    {CQ_E_REVOKED, CLI_NOT_LOGGED_IN},
    {CQ_CLIENT_E_OFFLINE, CLI_UNREACHABLE},
    {CQ_CLIENT_E_UNTRUSTED, CLI_UNREACHABLE},
    {CQ_E_UNAVAILABLE, CLI_UNREACHABLE},
    {CQ_E_DEADLINE, CLI_UNREACHABLE},
    {CQ_CLIENT_E_OTHER_USER, CLI_USAGE},
    {CQ_CLIENT_E_BAD_URL, CLI_USAGE},
    {CQ_CLIENT_E_TEXT, CLI_USAGE},
    {CQ_E_BAD_NAME, CLI_USAGE},
    {CQ_E_BAD_PASSWORD, CLI_USAGE},
    {CQ_CLIENT_E_STORE_KEY, CLI_LOCAL},
    {CQ_E_IO, CLI_LOCAL},
    {CQ_E_CORRUPT, CLI_LOCAL},
    {CQ_E_NEWER_SCHEMA, CLI_LOCAL},
    {CQ_E_LOCKED, CLI_LOCAL},
    {CQ_E_CRYPTO, CLI_LOCAL},
};

enum cli_exit
cli_exit_of(int error)
{
    for (size_t i = 0; i < sizeof exit_rows / sizeof exit_rows[0]; i++) {
        if (exit_rows[i].error == error) {
            return exit_rows[i].code;
        }
    }
    return CLI_REFUSED;
}

static void
print_error(struct cli *cli, enum cli_exit code, const char *name, const char *text)
{
    (void)fflush(stdout);
    if (cli->json) {
        json_begin(&cli->line, "error");
        json_str(&cli->line, "error", name);
        json_str(&cli->line, "message", text);
        json_uint(&cli->line, "exit", code);
        json_end(&cli->line);
        return;
    }
    char *safe = out_safe(text, strlen(text), 0);
    (void)fprintf(stderr, "chasqui: %s\n", safe);
    free(safe);
}

int
cli_fail(struct cli *cli, enum cli_exit code, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_error(cli, code, name, text);
    return code;
}

int
cli_error(struct cli *cli, int error, const char *what)
{
    error = error < 0 ? -error : error;
    return cli_fail(cli, cli_exit_of(error), cq_client_error_name(error), "%s%s%s",
                    what ? what : "", what ? ": " : "", cq_client_error_text(error));
}

void
cli_note(struct cli *cli, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (cli->json) {
        json_begin(&cli->line, "note");
        json_str(&cli->line, "message", text);
        json_end(&cli->line);
        return;
    }
    char *safe = out_safe(text, strlen(text), 0);
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s\n", safe);
    free(safe);
}

int
cli_check_name(struct cli *cli, const char *name)
{
    if (cq_name_ok(name, strlen(name))) {
        return CLI_OK;
    }
    return cli_fail(cli, CLI_USAGE, "BAD_NAME", "\"%s\": %s", name, cq_err_text(CQ_E_BAD_NAME));
}

/* ---- options ---- */

static int
take_number(struct cli *cli, const struct cli_option *o, const char *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (errno || end == value || *end || value[0] == '-' || v < o->min || v > o->max) {
        return cli_fail(cli, CLI_USAGE, "USAGE",
                        "%s takes a number from %" PRIu64 " to %" PRIu64 ", not \"%s\"", o->name,
                        o->min, o->max, value);
    }
    *(uint64_t *)o->target = v;
    return CLI_OK;
}

/* One option at argv[i]; *used: how many arguments it took. */
static int
take_option(struct cli *cli, const struct cli_option *o, char **argv, int left, int *used)
{
    size_t n = strlen(o->name);
    const char *value = argv[0][n] == '=' ? argv[0] + n + 1 : NULL;
    *used = 1;
    if (o->type == CLI_FLAG) {
        if (value) {
            return cli_fail(cli, CLI_USAGE, "USAGE", "%s takes no value", o->name);
        }
        *(bool *)o->target = true;
        return CLI_OK;
    }
    if (!value) {
        if (left < 2) {
            return cli_fail(cli, CLI_USAGE, "USAGE", "%s needs a value", o->name);
        }
        value = argv[1];
        *used = 2;
    }
    if (o->type == CLI_STRING) {
        *(const char **)o->target = value;
        return CLI_OK;
    }
    return take_number(cli, o, value);
}

static const struct cli_option *
find_option(const struct cli_option *options, size_t count, const char *arg)
{
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(options[i].name);
        if (!strncmp(arg, options[i].name, n) && (arg[n] == '\0' || arg[n] == '=')) {
            return &options[i];
        }
    }
    return NULL;
}

int
cli_options(struct cli *cli,
            struct cli_args *args,
            const struct cli_option *options,
            size_t count,
            int stop)
{
    const struct cli_option common[] = {
        {"--home", CLI_STRING, &cli->home, 0, 0},
        {"--server", CLI_STRING, &cli->servers, 0, 0},
        {"--ca-file", CLI_STRING, &cli->ca_file, 0, 0},
        {"--accept-any-certificate", CLI_FLAG, &cli->accept_any_certificate, 0, 0},
        {"--json", CLI_FLAG, &cli->json, 0, 0},
        {"--timeout", CLI_NUMBER, &cli->timeout_s, 1, 3600},
    };
    int kept = 0;
    for (int i = 0; i < args->argc;) {
        char *arg = args->argv[i];
        bool is_text = (stop && kept >= stop) || strncmp(arg, "--", 2) != 0;
        if (is_text) {
            args->argv[kept++] = arg;
            i++;
            continue;
        }
        if (!strcmp(arg, "--")) {
            for (i++; i < args->argc; i++) {
                args->argv[kept++] = args->argv[i];
            }
            break;
        }
        const struct cli_option *o = find_option(options, count, arg);
        o = o ? o : find_option(common, sizeof common / sizeof common[0], arg);
        if (!o) {
            return cli_fail(cli, CLI_USAGE, "USAGE", "unknown option %s (try: chasqui %s%s--help)",
                            arg, cli->command ? cli->command : "", cli->command ? " " : "");
        }
        int used = 0;
        int rc = take_option(cli, o, &args->argv[i], args->argc - i, &used);
        if (rc) {
            return rc;
        }
        i += used;
    }
    args->argc = kept;
    return CLI_OK;
}

/* ---- signals ---- */

static volatile sig_atomic_t interrupted;

static void
on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

bool
cli_interrupted(void)
{
    return interrupted != 0;
}

/* Blocked except while polling, so that none is missed between a check and the wait. */
static void
catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &block, NULL);
}

/* ---- the client ---- */

uint64_t
cli_now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
take_state(struct cli *cli, const cq_client_event_t *e)
{
    cli->state = e->state;
    cli->state_error = e->error;
    (void)snprintf(cli->state_text, sizeof cli->state_text, "%s", e->text ? e->text : "");
    if (e->state == CQ_CLIENT_CONNECTING && e->error) {
        cli->failures++;
        cli->untrusted = e->error == CQ_CLIENT_E_UNTRUSTED ? cli->untrusted + 1 : 0;
    }
    if (e->state >= CQ_CLIENT_ONLINE) {
        cli->failures = 0;
        cli->untrusted = 0;
    }
}

static void
on_event(void *ctx, const cq_client_event_t *e)
{
    struct cli *cli = ctx;
    if (e->type == CQ_CLIENT_EVENT_STATE) {
        take_state(cli, e);
    }
    if (e->type == CQ_CLIENT_EVENT_ANSWER && e->request == cli->request) {
        cli->answered = true;
        cli->answer_error = e->error;
        (void)snprintf(cli->answer_text, sizeof cli->answer_text, "%s", e->text ? e->text : "");
    }
    if (e->type == CQ_CLIENT_EVENT_WARNING) {
        cli_note(cli, "warning: %s", e->text);
    }
    if (cli->on_event) {
        cli->on_event(cli, e);
    }
}

int
cli_open(struct cli *cli, bool messages)
{
    cq_client_config_t config = {
        .home = cli->home,
        .servers = cli->servers,
        .ca_file = cli->ca_file,
        .accept_any_certificate = cli->accept_any_certificate,
        .messages = messages,
        .on_event = on_event,
        .ctx = cli,
    };
    if (!cli->home) {
        return cli_fail(cli, CLI_LOCAL, "IO",
                        "neither --home nor HOME says where this device's data is");
    }
    if (cli->ca_file && access(cli->ca_file, R_OK)) {
        return cli_fail(cli, CLI_USAGE, "USAGE", "--ca-file %s: cannot be read", cli->ca_file);
    }
    catch_signals();
    out_init(cli->json);
    int rc = cq_client_open(&config, &cli->client);
    if (!rc) {
        return CLI_OK;
    }
    return cli_error(cli, rc, rc == -CQ_CLIENT_E_BAD_URL ? "--server" : cli->home);
}

bool
cli_step(struct cli *cli, uint64_t until_ms)
{
    struct pollfd p = {.fd = cq_client_fd(cli->client), .events = POLLIN};
    uint64_t now = cli_now_ms();
    uint64_t left = until_ms > now ? until_ms - now : 0;
    struct timespec timeout = {(time_t)(left / 1000), (long)(left % 1000) * 1000000};
    sigset_t none;
    sigemptyset(&none);
    (void)ppoll(&p, 1, &timeout, &none);
    int rc = cq_client_dispatch(cli->client);
    if (rc < 0) {
        cli_error(cli, rc, cli->home);
        return false;
    }
    return !interrupted;
}

static unsigned
count_servers(const struct cli *cli)
{
    unsigned servers = 1;
    for (const char *s = cq_client_servers(cli->client); *s; s++) {
        servers += *s == ',';
    }
    return servers;
}

bool
cli_is_untrusted(const struct cli *cli)
{
    return cli->untrusted >= count_servers(cli);
}

bool
cli_is_hopeless(const struct cli *cli, uint64_t since_ms)
{
    return cli_is_untrusted(cli) || (cli->failures >= HOPELESS_ROUNDS * count_servers(cli) &&
                                     cli_now_ms() - since_ms >= HOPELESS_MS);
}

void
cli_tell_waiting(struct cli *cli, const char *what, uint64_t since_ms, uint64_t end_ms)
{
    uint64_t now = cli_now_ms();
    if (cli->told_waiting || cli->json || !isatty(STDERR_FILENO) || !cli->failures ||
        now - since_ms < TELL_WAITING_MS || now >= end_ms) {
        return;
    }
    cli->told_waiting = true;
    cli_note(cli,
             "no server yet (%s). The %s is kept in the outbox, and goes out when any command "
             "connects; this one tries for %" PRIu64 " s more (^C ends it)",
             cli->state_text, what, (end_ms - now + 999) / 1000);
}

int
cli_wait_quietly(struct cli *cli, int64_t request, int *error)
{
    *error = 0;
    if (request < 0) {
        *error = (int)-request;
        return (int)cli_exit_of(*error);
    }
    cli->request = (uint64_t)request;
    cli->answered = false;
    uint64_t start = cli_now_ms();
    uint64_t end = start + (cli->timeout_s ? cli->timeout_s : WAIT_DEFAULT_S) * 1000;
    while (!cli->answered && cli_now_ms() < end && !cli_is_hopeless(cli, start)) {
        if (!cli_step(cli, cli_now_ms() + 100 < end ? cli_now_ms() + 100 : end)) {
            *error = interrupted ? CQ_E_DEADLINE : CQ_E_IO;
            return (int)cli_exit_of(*error);
        }
    }
    *error = cli->answered                    ? cli->answer_error
             : cli->state >= CQ_CLIENT_ONLINE ? CQ_E_DEADLINE
             : cli_is_untrusted(cli)          ? CQ_CLIENT_E_UNTRUSTED
                                              : CQ_CLIENT_E_OFFLINE;
    return *error ? (int)cli_exit_of(*error) : CLI_OK;
}

int
cli_wait_failed(struct cli *cli, int error, const char *what)
{
    if (interrupted) {
        return cli_fail(cli, CLI_UNREACHABLE, "INTERRUPTED",
                        "interrupted: whether it happened is not known");
    }
    if ((error == CQ_CLIENT_E_OFFLINE || error == CQ_CLIENT_E_UNTRUSTED) && cli->state_text[0]) {
        return cli_fail(cli, CLI_UNREACHABLE, cq_client_error_name(error),
                        "cannot reach a server (%s)", cli->state_text);
    }
    return cli_error(cli, error, what);
}

int
cli_wait(struct cli *cli, int64_t request, const char *what)
{
    int error;
    int rc = cli_wait_quietly(cli, request, &error);
    return rc ? cli_wait_failed(cli, error, what) : CLI_OK;
}

int
cli_sync(struct cli *cli, bool *offline)
{
    int error;
    *offline = false;
    int rc = cli_wait_quietly(cli, cq_client_sync(cli->client), &error);
    if (rc == CLI_UNREACHABLE) {
        *offline = true;
        cli_note(cli, "offline: this is what the device holds (%s)",
                 cli->state_text[0] ? cli->state_text : "no answer");
        return CLI_OK;
    }
    return rc ? cli_error(cli, error, NULL) : CLI_OK;
}

const char *
cli_presence_text(bool online, uint64_t time_unix_ms, char *out, size_t size)
{
    char ago[64];
    if (online) {
        (void)snprintf(out, size, "● online");
    } else if (time_unix_ms) {
        (void)snprintf(out, size, "last seen %s",
                       out_ago(time_unix_ms, out_now_unix_ms(), ago, sizeof ago));
    } else {
        (void)snprintf(out, size, "%s", "");
    }
    return out;
}
