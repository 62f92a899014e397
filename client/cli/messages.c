/* SPDX-License-Identifier: MPL-2.0
 * chats, send, history, search, outbox
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/wire/err.h"
#include "common/wire/limits.h"
#include "common/wire/read.h"

#include "client/cli/media.h"

enum {
    SEND_TIMEOUT_S = 30,
    CLONED_WAIT_MS = 2000, /* a message that was on its way may have its answer yet */
    LOOK_MS = 250,
    PREVIEW_COLUMNS = 48,
    HISTORY_DEFAULT = 20,
    SEARCH_DEFAULT = 100,
    ROWS_MAX = 100000
};

/* ---- chats ---- */

struct seen {
    char name[64];
    bool online;
    uint64_t time_unix_ms;
};

struct chats {
    struct cli *cli;
    struct seen *seen;
    size_t count;
    bool has_presence;
    out_table_t *table;
};

static void
on_seen(struct cli *cli, const cq_client_event_t *e)
{
    struct chats *c = cli->ctx;
    if (e->type == CQ_CLIENT_EVENT_PRESENCE && e->request && c->count < ROWS_MAX) {
        c->seen = realloc(c->seen, (c->count + 1) * sizeof *c->seen);
        CQ_ASSERT(c->seen);
        struct seen *s = &c->seen[c->count++];
        *s = (struct seen){.online = e->online, .time_unix_ms = e->time_unix_ms};
        (void)snprintf(s->name, sizeof s->name, "%s", e->peer);
    }
}

static const struct seen *
find_seen(const struct chats *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++) {
        if (!strcmp(c->seen[i].name, name)) {
            return &c->seen[i];
        }
    }
    return NULL;
}

static void
print_chat_json(struct cli *cli, const cq_client_chat_t *chat, const struct seen *seen)
{
    json_begin(&cli->line, "chat");
    json_str(&cli->line, "name", chat->peer);
    json_bool(&cli->line, "open", chat->open);
    json_uint(&cli->line, "unread", chat->unread);
    json_uint(&cli->line, "waiting", chat->waiting);
    json_uint(&cli->line, "head", chat->head);
    json_uint(&cli->line, "held", chat->held);
    json_uint(&cli->line, "my_read", chat->my_read);
    json_uint(&cli->line, "peer_delivered", chat->peer_delivered);
    json_uint(&cli->line, "peer_read", chat->peer_read);
    if (chat->last_seq) {
        json_uint(&cli->line, "last_seq", chat->last_seq);
        json_uint(&cli->line, "last_time_unix_ms", chat->last_time_unix_ms);
        json_bool(&cli->line, "last_own", chat->last_own);
        json_str(&cli->line, "last_text", chat->last_text);
        json_str(&cli->line, "last_name", chat->last_media ? chat->last_media->name : "");
    } else {
        json_null(&cli->line, "last_seq");
    }
    if (seen) {
        json_bool(&cli->line, "online", seen->online);
        json_uint(&cli->line, "last_seen_unix_ms", seen->time_unix_ms);
    } else {
        json_null(&cli->line, "online");
        json_null(&cli->line, "last_seen_unix_ms");
    }
    json_end(&cli->line);
}

static void
print_chat(void *ctx, const cq_client_chat_t *chat)
{
    struct chats *c = ctx;
    const struct seen *seen = find_seen(c, chat->peer);
    if (c->cli->json) {
        print_chat_json(c->cli, chat, seen);
        return;
    }
    char unread[24] = "";
    char when[64] = "";
    char last_seen[96] = "";
    if (chat->unread) {
        (void)snprintf(unread, sizeof unread, "%" PRIu64, chat->unread);
    }
    if (chat->last_seq) {
        out_ago(chat->last_time_unix_ms, out_now_unix_ms(), when, sizeof when);
    }
    if (seen) {
        cli_presence_text(seen->online, seen->time_unix_ms, last_seen, sizeof last_seen);
    }
    char *text = cli_media_line(chat->last_text, strlen(chat->last_text), chat->last_media, NULL, 0,
                                PREVIEW_COLUMNS);
    cq_buf_t preview = {0};
    const char *mark = !chat->last_own                          ? ""
                       : chat->last_seq <= chat->peer_read      ? "●  "
                       : chat->last_seq <= chat->peer_delivered ? "✓✓ "
                                                                : "✓  ";
    cq_buf_append(&preview, mark, strlen(mark));
    const char *shown = chat->last_unreadable ? "(unsupported message)" : text;
    cq_buf_append(&preview, shown, strlen(shown));
    if (chat->waiting) {
        char waiting[48];
        int n = snprintf(waiting, sizeof waiting, "%s… %" PRIu64 " not sent yet",
                         shown[0] ? "  " : "", chat->waiting);
        cq_buf_append(&preview, waiting, (size_t)n);
    }
    cq_buf_append(&preview, "", 1);
    const char *state = !chat->open && !last_seen[0] ? "closed" : last_seen;
    const char *const cells[] = {chat->peer, unread, when, (const char *)preview.data, state};
    const enum out_style styles[] = {OUT_BOLD, OUT_YELLOW, OUT_DIM,
                                     chat->unread ? OUT_BOLD : OUT_PLAIN,
                                     seen && seen->online ? OUT_GREEN : OUT_DIM};
    out_table_row(c->table, cells, styles);
    cq_buf_free(&preview);
    free(text);
}

int
cli_chats(struct cli *cli, struct cli_args *args)
{
    static const char *const titles[] = {"NAME", "UNREAD", "WHEN", "LAST MESSAGE", "SEEN"};
    struct chats c = {.cli = cli};
    bool offline;
    int error;
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "chats takes no arguments");
    }
    rc = rc ? rc : cli_open(cli, false);
    cli->on_event = on_seen;
    cli->ctx = &c;
    rc = rc ? rc : cli_sync(cli, &offline);
    if (!rc && !offline) {
        (void)cli_wait_quietly(cli, cq_client_presence(cli->client), &error);
    }
    cli->on_event = NULL;
    cli->ctx = NULL;
    if (rc) {
        free(c.seen);
        return rc;
    }
    c.table = cli->json ? NULL : out_table_new(5, titles);
    int count = cq_client_chats(cli->client, print_chat, &c);
    if (c.table) {
        out_table_print(&c.table, 1u << 1);
    }
    if (!cli->json && !count) {
        puts("No chats yet. chasqui add NAME asks someone to be friends.");
    }
    free(c.seen);
    return count < 0 ? cli_error(cli, count, "chats") : offline ? CLI_UNREACHABLE : CLI_OK;
}

/* ---- send ---- */

struct sending {
    uint64_t message;
    bool sent;
    bool cloned; /* nothing more leaves this device */
    int error;
    uint64_t seq;
    uint64_t time_unix_ms;
};

static void
on_sending(struct cli *cli, const cq_client_event_t *e)
{
    struct sending *s = cli->ctx;
    s->cloned |= e->type == CQ_CLIENT_EVENT_WARNING && e->error == CQ_CLIENT_E_CLONED;
    if (!s->message || e->message != s->message) {
        return;
    }
    if (e->type == CQ_CLIENT_EVENT_SENT) {
        s->sent = true;
        s->seq = e->seq;
        s->time_unix_ms = e->time_unix_ms;
    } else if (e->type == CQ_CLIENT_EVENT_FAILED) {
        s->error = e->error;
    }
}

/* All arguments joined by spaces, or all of stdin for "-" (one final line break is not part of it).
 */
static int
gather_text(struct cli *cli, struct cli_args *args, cq_buf_t *text)
{
    if (args->argc == 2 && !strcmp(args->argv[1], "-")) {
        ssize_t got;
        do {
            got = read(STDIN_FILENO, cq_buf_reserve(text, 4096), 4096);
            text->size += got > 0 ? (size_t)got : 0;
        } while (got > 0 && text->size <= CQ_TEXT_MAX + 1);
        if (got < 0) {
            /* NOLINTNEXTLINE(concurrency-mt-unsafe): the library's thread never calls it */
            const char *why = strerror(errno);
            return cli_fail(cli, CLI_LOCAL, "IO", "cannot read standard input: %s", why);
        }
        text->size -= text->size && text->data[text->size - 1] == '\n';
    }
    for (int i = 1; i < args->argc && !(args->argc == 2 && !strcmp(args->argv[1], "-")); i++) {
        if (i > 1) {
            cq_buf_append(text, " ", 1);
        }
        cq_buf_append(text, args->argv[i], strlen(args->argv[i]));
    }
    if (text->size > CQ_TEXT_MAX) {
        return cli_fail(cli, CLI_USAGE, "TEXT", "the text has more than %d bytes: it was not sent",
                        CQ_TEXT_MAX);
    }
    if (!text->size || !cq_utf8_ok(text->data, text->size) || memchr(text->data, 0, text->size)) {
        return cli_error(cli, CQ_CLIENT_E_TEXT, NULL);
    }
    return CLI_OK;
}

/* Queues; when the chat is not known here, or seems closed, asks the server first. */
static int
queue(struct cli *cli, const char *peer, const cq_buf_t *text, struct sending *s)
{
    int rc = cq_client_send(cli->client, peer, (const char *)text->data, text->size, &s->message);
    if (rc == -CQ_E_NOT_FOUND || rc == -CQ_E_CHAT_CLOSED) {
        int code = cli_wait(cli, cq_client_sync(cli->client), NULL);
        if (code) {
            return code;
        }
        rc = cq_client_send(cli->client, peer, (const char *)text->data, text->size, &s->message);
    }
    if (rc == -CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND",
                        "you have no chat with %s: be friends first (chasqui add %s)", peer, peer);
    }
    return rc ? cli_error(cli, rc, peer) : CLI_OK;
}

static int
wait_sent(struct cli *cli, const char *peer, struct sending *s)
{
    int rc = cq_client_connect(cli->client);
    if (rc) {
        return cli_error(cli, rc, peer);
    }
    uint64_t start = cli_now_ms();
    uint64_t end = start + (cli->timeout_s ? cli->timeout_s : SEND_TIMEOUT_S) * 1000;
    bool was_cloned = false;
    while (!s->sent && !s->error && cli_now_ms() < end) {
        if (s->cloned && !was_cloned) {
            uint64_t soon = cli_now_ms() + CLONED_WAIT_MS;
            end = soon < end ? soon : end;
            was_cloned = true;
        }
        bool is_over = (cli->state == CQ_CLIENT_IDLE && cli->state_error) || cli_is_untrusted(cli);
        uint64_t soon = cli_now_ms() + LOOK_MS;
        cli_tell_waiting(cli, "message", start, end);
        if (is_over || !cli_step(cli, soon < end ? soon : end)) {
            break;
        }
    }
    if (s->error) {
        return cli_error(cli, s->error, peer);
    }
    if (s->sent) {
        return CLI_OK;
    }
    if (cli->state == CQ_CLIENT_IDLE && cli->state_error) {
        return cli_error(cli, cli->state_error, "the message stays in the outbox");
    }
    if (s->cloned) {
        return cli_error(cli, -CQ_CLIENT_E_CLONED, peer);
    }
    return cli_fail(
        cli, CLI_UNREACHABLE, cli_is_untrusted(cli) ? "UNTRUSTED" : "OFFLINE",
        "not sent yet (%s): the message stays in the outbox and goes out when any command connects",
        cli->state_text[0] ? cli->state_text : "no answer");
}

int
cli_send(struct cli *cli, struct cli_args *args)
{
    cq_buf_t text = {0};
    struct sending s = {0};
    int rc = cli_options(cli, args, NULL, 0, 1);
    if (!rc && args->argc < 2) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE",
                      "send takes a NAME and a TEXT (or - for standard input)");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : gather_text(cli, args, &text);
    rc = rc ? rc : cli_open(cli, false);
    cli->on_event = on_sending;
    cli->ctx = &s;
    rc = rc ? rc : queue(cli, args->argv[0], &text, &s);
    cq_buf_free(&text);
    rc = rc ? rc : wait_sent(cli, args->argv[0], &s);
    if (rc) {
        return rc;
    }
    if (cli->json) {
        json_begin(&cli->line, "sent");
        json_str(&cli->line, "peer", args->argv[0]);
        json_uint(&cli->line, "seq", s.seq);
        json_uint(&cli->line, "time_unix_ms", s.time_unix_ms);
        json_end(&cli->line);
        return CLI_OK;
    }
    char when[64];
    (void)printf("%s✓ sent%s  to %s  seq %" PRIu64 "  %s\n", out_style(OUT_GREEN),
                 out_style(OUT_PLAIN), args->argv[0], s.seq,
                 out_clock(s.time_unix_ms, out_now_unix_ms(), when, sizeof when));
    return CLI_OK;
}

/* ---- history and search ---- */

struct printing {
    struct cli *cli;
    bool with_chat; /* search: several chats */
    size_t from_width;
    const char *peer; /* of a history */
    const char *word;
};

static void
print_message_json(struct cli *cli, const cq_client_message_t *m)
{
    json_begin(&cli->line, "message");
    json_str(&cli->line, "peer", m->peer);
    json_str(&cli->line, "from", m->from);
    json_uint(&cli->line, "seq", m->seq);
    json_uint(&cli->line, "time_unix_ms", m->time_unix_ms);
    json_text(&cli->line, "text", m->text, m->text_size);
    cli_media_json(&cli->line, m->media);
    json_bool(&cli->line, "own", m->own);
    json_bool(&cli->line, "delivered", m->delivered);
    json_bool(&cli->line, "read", m->read);
    json_bool(&cli->line, "unreadable", m->unreadable);
    json_bool(&cli->line, "not_on_server", m->not_on_server);
    json_end(&cli->line);
}

static void
print_message(void *ctx, const cq_client_message_t *m)
{
    const struct printing *p = ctx;
    if (p->cli->json) {
        print_message_json(p->cli, m);
        return;
    }
    char when[64];
    char *text = cli_media_line(m->text, m->text_size, m->media, m->peer, m->seq, 0);
    const char *mark = !m->own ? "  " : m->read ? "● " : m->delivered ? "✓✓" : "✓ ";
    if (p->with_chat) {
        (void)printf("%s%-12s%s ", out_style(OUT_CYAN), m->peer, out_style(OUT_PLAIN));
    }
    (void)printf("%s%6" PRIu64 "  %15s%s  %s%*s%s  %s%s%s %s%s\n", out_style(OUT_DIM), m->seq,
                 out_clock(m->time_unix_ms, out_now_unix_ms(), when, sizeof when),
                 out_style(OUT_PLAIN), out_style(m->own ? OUT_DIM : OUT_BOLD), (int)p->from_width,
                 m->from, out_style(OUT_PLAIN), m->own && m->read ? out_style(OUT_BLUE) : "", mark,
                 out_style(OUT_PLAIN), m->unreadable ? "(unsupported message)" : text,
                 m->not_on_server ? "  (not on server)" : "");
    cli_media_draw(m->media);
    free(text);
}

/* What is not on the server yet, behind what is. For people: scripts have outbox. */
static void
print_unsent(void *ctx, const cq_client_waiting_t *w)
{
    const struct printing *p = ctx;
    if (strcmp(w->peer, p->peer) != 0) {
        return;
    }
    char when[64];
    char *text = cli_media_line(w->text, w->text_size, w->media, NULL, 0, 0);
    (void)printf("%s        %15s%s  %s%*s%s  %s%s%s %s%s%s\n", out_style(OUT_DIM),
                 out_clock(w->time_unix_ms, out_now_unix_ms(), when, sizeof when),
                 out_style(OUT_PLAIN), out_style(OUT_DIM), (int)p->from_width,
                 cq_client_user(p->cli->client), out_style(OUT_PLAIN),
                 w->error ? out_style(OUT_RED) : "", w->error ? "✗ " : "… ", out_style(OUT_PLAIN),
                 text, w->error ? "  refused: " : "",
                 w->error ? cq_client_error_text(w->error) : "");
    free(text);
}

static size_t
widest(const char *a, const char *b)
{
    size_t x = strlen(a);
    size_t y = strlen(b);
    return x > y ? x : y;
}

int
cli_history(struct cli *cli, struct cli_args *args)
{
    uint64_t last = HISTORY_DEFAULT;
    uint64_t before = 0;
    bool read = false;
    bool offline;
    const struct cli_option options[] = {
        {"--last", CLI_NUMBER, &last, 1, ROWS_MAX},
        {"--before", CLI_NUMBER, &before, 1, INT64_MAX},
        {"--read", CLI_FLAG, &read, 0, 0},
    };
    int rc = cli_options(cli, args, options, 3, 0);
    if (!rc && args->argc != 1) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "history takes one NAME");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : cli_sync(cli, &offline);
    if (rc) {
        return rc;
    }
    const char *name = args->argv[0];
    struct printing p = {
        .cli = cli, .from_width = widest(name, cq_client_user(cli->client)), .peer = name};
    int count = cq_client_history(cli->client, name, before, (uint32_t)last, print_message, &p);
    if (count == -CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "you have no chat with %s", name);
    }
    if (count >= 0 && !before && !cli->json) {
        int unsent = cq_client_outbox(cli->client, print_unsent, &p);
        count = unsent < 0 ? unsent : count;
    }
    if (count >= 0 && read && !before) {
        count = cq_client_read(cli->client, name, 0);
    }
    return count < 0 ? cli_error(cli, count, name) : offline ? CLI_UNREACHABLE : CLI_OK;
}

int
cli_search(struct cli *cli, struct cli_args *args)
{
    const char *in = NULL;
    uint64_t last = SEARCH_DEFAULT;
    bool offline;
    const struct cli_option options[] = {
        {"--in", CLI_STRING, &in, 0, 0},
        {"--last", CLI_NUMBER, &last, 1, ROWS_MAX},
    };
    int rc = cli_options(cli, args, options, 2, 0);
    if (!rc && !args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "search takes a TEXT");
    }
    rc = rc || !in ? rc : cli_check_name(cli, in);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : cli_sync(cli, &offline);
    if (rc) {
        return rc;
    }
    cq_buf_t text = {0};
    for (int i = 0; i < args->argc; i++) {
        cq_buf_append(&text, args->argv[i], strlen(args->argv[i]));
        cq_buf_append(&text, i + 1 < args->argc ? " " : "", 1);
    }
    struct printing p = {
        .cli = cli, .with_chat = !in, .from_width = strlen(cq_client_user(cli->client))};
    int count = cq_client_search(cli->client, (const char *)text.data, in, (uint32_t)last,
                                 print_message, &p);
    cq_buf_free(&text);
    if (count == -CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "you have no chat with %s", in);
    }
    if (!count && !cli->json) {
        (void)fprintf(stderr, "nothing found\n");
    }
    return count < 0 ? cli_error(cli, count, "search") : offline ? CLI_UNREACHABLE : CLI_OK;
}

/* ---- outbox ---- */

static void
print_waiting(void *ctx, const cq_client_waiting_t *w)
{
    struct cli *cli = ctx;
    if (cli->json) {
        json_begin(&cli->line, "waiting");
        json_str(&cli->line, "peer", w->peer);
        json_text(&cli->line, "text", w->text, w->text_size);
        cli_media_json(&cli->line, w->media);
        json_uint(&cli->line, "time_unix_ms", w->time_unix_ms);
        if (w->error) {
            json_str(&cli->line, "error", cq_client_error_name(w->error));
        } else {
            json_null(&cli->line, "error");
        }
        json_end(&cli->line);
        return;
    }
    char when[64];
    char *text = cli_media_line(w->text, w->text_size, w->media, NULL, 0, PREVIEW_COLUMNS);
    (void)printf("%-12s  %s  %s%s%s%s%s\n", w->peer,
                 out_clock(w->time_unix_ms, out_now_unix_ms(), when, sizeof when), text,
                 out_style(OUT_RED), w->error ? "  refused: " : "",
                 w->error ? cq_client_error_text(w->error) : "", out_style(OUT_PLAIN));
    free(text);
}

int
cli_outbox(struct cli *cli, struct cli_args *args)
{
    bool clear = false;
    const struct cli_option options[] = {{"--clear", CLI_FLAG, &clear, 0, 0}};
    int rc = cli_options(cli, args, options, 1, 0);
    if (!rc && args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "outbox takes no arguments");
    }
    rc = rc ? rc : cli_open(cli, false);
    if (rc) {
        return rc;
    }
    int count = clear ? cq_client_outbox_clear(cli->client)
                      : cq_client_outbox(cli->client, print_waiting, cli);
    if (!clear && !count && !cli->json) {
        puts("Everything is sent.");
    } else if (clear && !count && !cli->json) {
        puts("Nothing was refused.");
    } else if (clear && count > 0 && !cli->json) {
        (void)printf("Forgot %d refused %s.\n", count, count == 1 ? "message" : "messages");
    }
    return count < 0 ? cli_error(cli, count, "outbox") : CLI_OK;
}
