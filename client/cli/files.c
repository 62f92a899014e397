/* SPDX-License-Identifier: MPL-2.0
 * send-file, get: with a bar on a terminal.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/wire/err.h"

#include "client/cli/media.h"

enum {
    STALL_S = 30, /* without progress */
    BAR_COLUMNS = 28,
    BAR_MS = 100,
    NAME_COLUMNS = 24,
    RATE_MIN_MS = 500,
};

struct moving {
    const char *name; /* of the file, for the bar */
    uint64_t size;    /* of the file */
    uint64_t message, request;
    bool is_over; /* SENT, FAILED or ANSWER came */
    int error;
    uint64_t seq, time_unix_ms;
    uint64_t done, total;       /* bytes of the blob */
    uint64_t first, started_ms; /* where and when this run began */
    uint64_t moved_ms;          /* last progress */
    bool has_bar;
};

/* ---- the bar ---- */

static void
print_rate(const struct moving *m)
{
    char rate[32];
    uint64_t ms = cli_now_ms() - m->started_ms;
    if (ms < RATE_MIN_MS || m->done <= m->first || m->done >= m->total) {
        return;
    }
    uint64_t per_s = (m->done - m->first) * 1000 / ms;
    uint64_t left_s = per_s ? (m->total - m->done) / per_s + 1 : 0;
    (void)fprintf(stderr, "  %s/s  %" PRIu64 ":%02u left", cli_media_size(per_s, rate, sizeof rate),
                  left_s / 60, (unsigned)(left_s % 60));
}

static void
print_bar(struct moving *m)
{
    char done[32];
    char total[32];
    char *name = out_safe(m->name, strlen(m->name), NAME_COLUMNS);
    unsigned filled = m->total ? (unsigned)(m->done * BAR_COLUMNS / m->total) : 0;
    (void)fflush(stdout);
    (void)fprintf(stderr, "\r\x1b[K%s  %s", name, out_style(OUT_GREEN));
    for (unsigned i = 0; i < BAR_COLUMNS; i++) {
        (void)fprintf(stderr, "%s%s", i == filled ? out_style(OUT_PLAIN) : "",
                      i < filled ? "█" : "░");
    }
    (void)fprintf(stderr, "%s %3u%%  %s of %s", out_style(OUT_PLAIN),
                  m->total ? (unsigned)(m->done * 100 / m->total) : 0,
                  cli_media_size(m->done, done, sizeof done),
                  cli_media_size(m->total, total, sizeof total));
    print_rate(m);
    (void)fflush(stderr);
    m->has_bar = true;
    free(name);
}

static void
clear_bar(struct moving *m)
{
    if (m->has_bar) {
        (void)fprintf(stderr, "\r\x1b[K");
        (void)fflush(stderr);
        m->has_bar = false;
    }
}

static void
on_transfer(struct cli *cli, struct moving *m, const cq_client_event_t *e)
{
    if (e->done == m->done && m->total) {
        return;
    }
    if (!m->total) {
        m->first = e->done;
        m->started_ms = cli_now_ms();
    }
    m->done = e->done;
    m->total = e->total;
    m->moved_ms = cli_now_ms();
    if (!cli->json && isatty(STDERR_FILENO)) {
        print_bar(m);
    }
}

static void
on_moving(struct cli *cli, const cq_client_event_t *e)
{
    struct moving *m = cli->ctx;
    bool is_ours =
        (m->message && e->message == m->message) || (m->request && e->request == m->request);
    if (!is_ours) {
        return;
    }
    if (e->type == CQ_CLIENT_EVENT_TRANSFER) {
        on_transfer(cli, m, e);
    } else if (e->type == CQ_CLIENT_EVENT_SENT) {
        m->is_over = true;
        m->seq = e->seq;
        m->time_unix_ms = e->time_unix_ms;
    } else if (e->type == CQ_CLIENT_EVENT_FAILED || e->type == CQ_CLIENT_EVENT_ANSWER) {
        m->is_over = true;
        m->error = e->error;
    }
}

/* Until it is over, or nothing has moved for too long. false: neither SENT nor an answer came. */
static bool
wait_over(struct cli *cli, struct moving *m)
{
    uint64_t patience_ms = (cli->timeout_s ? cli->timeout_s : STALL_S) * 1000;
    uint64_t start_ms = cli_now_ms();
    m->moved_ms = start_ms;
    while (!m->is_over && cli_now_ms() - m->moved_ms < patience_ms) {
        bool is_refused = m->message && cli->state == CQ_CLIENT_IDLE && cli->state_error;
        is_refused = is_refused || cli_is_untrusted(cli);
        if (m->message && !m->total) { /* later the bar tells */
            cli_tell_waiting(cli, "file", start_ms, m->moved_ms + patience_ms);
        }
        if (is_refused || !cli_step(cli, cli_now_ms() + BAR_MS)) {
            break;
        }
    }
    clear_bar(m);
    return m->is_over;
}

/* ---- send-file ---- */

static int
queue_file(struct cli *cli, const char *const peer_and_path[2], const char *caption, uint64_t *id)
{
    const char *warning = NULL;
    const char *peer = peer_and_path[0];
    const char *path = peer_and_path[1];
    int rc = cq_client_send_file(cli->client, peer, path, caption, id, &warning);
    if (rc == -CQ_E_NOT_FOUND || rc == -CQ_E_CHAT_CLOSED) {
        int code = cli_wait(cli, cq_client_sync(cli->client), NULL);
        if (code) {
            return code;
        }
        rc = cq_client_send_file(cli->client, peer, path, caption, id, &warning);
    }
    if (warning) {
        cli_note(cli, "%s", warning);
    }
    if (rc == -CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND",
                        "you have no chat with %s: be friends first (chasqui add %s)", peer, peer);
    }
    if (rc == -CQ_CLIENT_E_TEXT) {
        return cli_fail(cli, CLI_USAGE, "TEXT", "a caption has at most 4096 bytes of UTF-8");
    }
    return rc ? cli_error(cli, rc, rc == -CQ_CLIENT_E_FILE ? path : peer) : CLI_OK;
}

static int
report_unsent(struct cli *cli, const struct moving *m)
{
    char done[32];
    char total[32];
    (void)cli_media_size(m->done, done, sizeof done);
    (void)cli_media_size(m->total, total, sizeof total);
    if (cli->state == CQ_CLIENT_IDLE && cli->state_error) {
        return cli_error(cli, cli->state_error, "the file stays in the outbox");
    }
    const char *name = cli_interrupted()       ? "INTERRUPTED"
                       : cli_is_untrusted(cli) ? "UNTRUSTED"
                                               : "OFFLINE";
    if (!m->total) {
        return cli_fail(cli, CLI_UNREACHABLE, name,
                        "not sent yet (%s): the file stays in the outbox and goes out when any "
                        "command connects",
                        cli->state < CQ_CLIENT_ONLINE && cli->state_text[0] ? cli->state_text
                                                                            : "no answer");
    }
    return cli_fail(cli, CLI_UNREACHABLE, name,
                    "not sent yet, %s of %s have gone up: it goes on when any command "
                    "connects (chasqui listen)",
                    done, total);
}

static const char *
base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* 0 and its size, or told why it cannot be sent. */
static int
check_file(struct cli *cli, const char *path, uint64_t *size)
{
    struct stat st;
    if (stat(path, &st) || access(path, R_OK)) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): the library's thread never calls it */
        return cli_fail(cli, CLI_LOCAL, "FILE", "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return cli_fail(cli, CLI_LOCAL, "FILE",
                        S_ISDIR(st.st_mode) ? "%s is a folder: pack it into a file first"
                                            : "%s is no regular file",
                        path);
    }
    *size = (uint64_t)st.st_size;
    return CLI_OK;
}

static void
print_sent(struct cli *cli, const char *peer, const char *path, const struct moving *m)
{
    char when[64];
    char size[32];
    if (cli->json) {
        json_begin(&cli->line, "sent");
        json_str(&cli->line, "peer", peer);
        json_uint(&cli->line, "seq", m->seq);
        json_uint(&cli->line, "time_unix_ms", m->time_unix_ms);
        json_end(&cli->line);
        return;
    }
    char *name = out_safe(base_name(path), strlen(base_name(path)), 0);
    (void)printf("%s✓ sent%s  to %s  seq %" PRIu64 "  %s  %s, %s\n", out_style(OUT_GREEN),
                 out_style(OUT_PLAIN), peer, m->seq,
                 out_clock(m->time_unix_ms, out_now_unix_ms(), when, sizeof when), name,
                 cli_media_size(m->size, size, sizeof size));
    free(name);
}

static int
refused(struct cli *cli, const char *const peer_and_path[2], const struct moving *m)
{
    char size[32];
    if (m->error != CQ_E_TOO_BIG) {
        return cli_error(cli, m->error, peer_and_path[0]);
    }
    return cli_fail(
        cli, CLI_REFUSED, cq_client_error_name(m->error),
        "%s has %s, which is more than the server takes (chasqui outbox --clear forgets "
        "it)",
        peer_and_path[1], cli_media_size(m->size, size, sizeof size));
}

int
cli_send_file(struct cli *cli, struct cli_args *args)
{
    const char *caption = "";
    const struct cli_option options[] = {{"--caption", CLI_STRING, &caption, 0, 0}};
    int rc = cli_options(cli, args, options, 1, 0);
    if (!rc && args->argc != 2) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "send-file takes a NAME and a FILE");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    struct moving m = {0};
    rc = rc ? rc : check_file(cli, args->argv[1], &m.size);
    rc = rc ? rc : cli_open(cli, false);
    if (rc) {
        return rc;
    }
    m.name = base_name(args->argv[1]);
    const char *const peer_and_path[] = {args->argv[0], args->argv[1]};
    cli->on_event = on_moving;
    cli->ctx = &m;
    rc = queue_file(cli, peer_and_path, caption, &m.message);
    if (!rc) {
        int connected = cq_client_connect(cli->client);
        rc = connected ? cli_error(cli, connected, args->argv[0]) : CLI_OK;
    }
    if (!rc && !wait_over(cli, &m)) {
        rc = report_unsent(cli, &m);
    } else if (!rc && m.error) {
        rc = refused(cli, peer_and_path, &m);
    } else if (!rc) {
        print_sent(cli, args->argv[0], args->argv[1], &m);
    }
    cli->on_event = NULL;
    cli->ctx = NULL;
    return rc;
}

/* ---- get ---- */

struct wanted {
    bool is_there, has_media, is_damaged;
    char name[256];
    uint64_t size;
};

static void
on_wanted(void *ctx, const cq_client_message_t *m)
{
    struct wanted *w = ctx;
    w->is_there = true;
    if (m->media) {
        w->has_media = true;
        w->size = m->media->size;
        (void)snprintf(w->name, sizeof w->name, "%s", m->media->name);
        cli_media_draw(m->media);
    }
}

/* On this device, else after a sync. */
static int
find_message(struct cli *cli, const char *peer, uint64_t seq, struct wanted *w)
{
    bool is_offline;
    int rc = cq_client_message(cli->client, peer, seq, on_wanted, w);
    if (rc == -CQ_E_NOT_FOUND) {
        int code = cli_sync(cli, &is_offline);
        if (code) {
            return code;
        }
        rc = cq_client_message(cli->client, peer, seq, on_wanted, w);
    }
    if (rc && rc != -CQ_E_NOT_FOUND) {
        return cli_error(cli, rc, peer);
    }
    if (!w->has_media) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "%s %" PRIu64 " is no picture or file%s",
                        peer, seq, w->is_there ? ", it is a text" : ": there is no such message");
    }
    return CLI_OK;
}

static int
report_got(struct cli *cli, const char *path, uint64_t size, const struct moving *m)
{
    char text[32];
    char total[32];
    if (m->error == CQ_CLIENT_E_EXISTS) {
        return cli_fail(cli, CLI_LOCAL, "EXISTS",
                        "there is a file %s already: --out FILE, or --force to replace it", path);
    }
    if (m->error == CQ_E_CRYPTO) {
        return cli_fail(cli, CLI_LOCAL, "CRYPTO",
                        "what the server gave is not what was sent (damaged or tampered with): "
                        "nothing was kept");
    }
    if (m->error) {
        return cli_error(cli, m->error, path);
    }
    if (!m->is_over) {
        return cli_fail(cli, CLI_UNREACHABLE, cli_interrupted() ? "INTERRUPTED" : "OFFLINE",
                        "%s of %s are here: the same command goes on from there",
                        cli_media_size(m->done, text, sizeof text),
                        cli_media_size(m->total, total, sizeof total));
    }
    if (cli->json) {
        json_begin(&cli->line, "file");
        json_str(&cli->line, "path", path);
        json_uint(&cli->line, "size", size);
        json_end(&cli->line);
        return CLI_OK;
    }
    char *safe = out_safe(path, strlen(path), 0);
    (void)printf("%s✓%s %s, %s\n", out_style(OUT_GREEN), out_style(OUT_PLAIN), safe,
                 cli_media_size(size, text, sizeof text));
    free(safe);
    return CLI_OK;
}

static int
parse_seq(struct cli *cli, const char *text, uint64_t *seq)
{
    char *end = NULL;
    *seq = strtoull(text, &end, 10);
    return *seq && end != text && !*end && text[0] != '-'
               ? CLI_OK
               : cli_fail(cli, CLI_USAGE, "USAGE",
                          "SEQ is the number that history shows, not \"%s\"", text);
}

/* Before anything is fetched. */
static int
check_folder(struct cli *cli, const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    char folder[4096];
    int n = snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1,
                     slash ? path : ".");
    errno = ENAMETOOLONG;
    if (n < 0 || (size_t)n >= sizeof folder || access(folder, W_OK | X_OK)) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): the library's thread never calls it */
        return cli_fail(cli, CLI_LOCAL, "IO", "cannot write into %s: %s", folder, strerror(errno));
    }
    return CLI_OK;
}

int
cli_get(struct cli *cli, struct cli_args *args)
{
    const char *path = NULL;
    bool replace = false;
    uint64_t seq = 0;
    struct wanted wanted = {0};
    struct moving m = {0};
    const struct cli_option options[] = {
        {"--out", CLI_STRING, &path, 0, 0},
        {"--force", CLI_FLAG, &replace, 0, 0},
    };
    int rc = cli_options(cli, args, options, 2, 0);
    if (!rc && args->argc != 2) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "get takes a NAME and a SEQ");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : parse_seq(cli, args->argv[1], &seq);
    rc = rc ? rc : check_folder(cli, path);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : find_message(cli, args->argv[0], seq, &wanted);
    if (rc) {
        return rc;
    }
    path = path ? path : wanted.name;
    m.name = wanted.name;
    m.error = !replace && !access(path, F_OK) ? CQ_CLIENT_E_EXISTS : 0;
    if (!m.error) {
        cli->on_event = on_moving;
        cli->ctx = &m;
        int64_t request = cq_client_get(cli->client, args->argv[0], seq, path, replace);
        m.error = request < 0 ? (int)-request : 0;
        m.request = request > 0 ? (uint64_t)request : 0;
        m.is_over = request < 0;
        (void)wait_over(cli, &m);
        cli->on_event = NULL;
        cli->ctx = NULL;
    }
    return report_got(cli, path, wanted.size, &m);
}
