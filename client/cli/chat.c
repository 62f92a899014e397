/* SPDX-License-Identifier: MPL-2.0
 * chat: a conversation in the terminal. What is said scrolls up; the last line is being typed. The
 * mark in front of an own message is changed in place while it is still on the screen: … waiting, ✓
 * sent, ✓✓ received, ● read.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/wire/err.h"
#include "common/wire/limits.h"
#include "common/wire/read.h"

#include "client/cli/lineedit.h"
#include "client/cli/media.h"

enum {
    HISTORY_LINES = 20,
    ENTRIES_MAX = 256, /* lines whose marks may still change */
    CLOCK_COLUMNS = 8,
    MARK_COLUMN = CLOCK_COLUMNS + 2,
    TEXT_INDENT = MARK_COLUMN + 3, /* where names stand */
    MIN_TEXT_COLUMNS = 20,
    TYPING_REPEAT_MS = 4000,
    TYPING_FORGET_MS = 6000,
    PREVIEW_COLUMNS = 60,
    PIPE_WAIT_S = 30,
};

enum mark {
    MARK_NONE,
    MARK_WAITING,
    MARK_SENT,
    MARK_DELIVERED,
    MARK_READ,
    MARK_REFUSED
};

static const struct {
    const char *text; /* two columns wide */
    enum out_style style;
} marks[] = {
    [MARK_NONE] = {"  ", OUT_PLAIN}, [MARK_WAITING] = {"… ", OUT_DIM},
    [MARK_SENT] = {"✓ ", OUT_DIM},   [MARK_DELIVERED] = {"✓✓", OUT_DIM},
    [MARK_READ] = {"● ", OUT_BLUE},  [MARK_REFUSED] = {"✗ ", OUT_RED},
};

struct entry {
    uint64_t message; /* local number; 0: not ours, or from before */
    uint64_t seq;     /* 0: not yet */
    enum mark mark;
    unsigned rows; /* of the screen */
};

struct chat {
    struct cli *cli;
    const char *peer;
    lineedit_t *edit; /* NULL: input is not a terminal */
    size_t columns;
    size_t lines;
    struct entry entries[ENTRIES_MAX]; /* ring: the newest is entry_count - 1 */
    size_t entry_count;
    bool is_ready; /* history is printed: events may be */
    char day[64];  /* of the last line */
    uint64_t last_seq;
    uint64_t peer_delivered;
    uint64_t peer_read;
    bool online;
    bool has_presence;
    uint64_t seen_unix_ms;
    uint64_t typing_until_ms; /* the other side types */
    uint64_t typing_told_ms;  /* when we said that we do; 0: not */
    uint64_t *waiting;        /* own messages without an answer */
    unsigned waiting_count;
    int error;
};

/* ---- the screen ---- */

static void
measure(struct chat *c)
{
    struct winsize w;
    bool ok = !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col && w.ws_row;
    c->columns = ok ? w.ws_col : 80;
    c->lines = ok ? w.ws_row : 24;
}

static void
draw(struct chat *c)
{
    if (!c->edit || !c->is_ready) {
        return;
    }
    char prompt[256];
    char plain[256];
    bool is_typing = c->typing_until_ms > cli_now_ms();
    bool is_connected = c->cli->state >= CQ_CLIENT_ONLINE;
    const char *status = !is_connected ? " (no connection)" : is_typing ? " is typing…" : "";
    const char *dot = c->online ? "●" : "○";
    (void)snprintf(plain, sizeof plain, "%s %s%s › ", dot, c->peer, status);
    (void)snprintf(prompt, sizeof prompt, "%s%s%s %s%s%s%s%s › ",
                   out_style(c->online ? OUT_GREEN : OUT_DIM), dot, out_style(OUT_PLAIN), c->peer,
                   out_style(OUT_DIM), status, out_style(OUT_PLAIN), "");
    lineedit_draw(c->edit, prompt, out_width(plain, strlen(plain)), c->columns);
}

static void
hide(const struct chat *c)
{
    if (c->edit && c->is_ready) {
        lineedit_hide();
    }
}

static void
add_entry(struct chat *c, const struct entry *e)
{
    if (c->entry_count == ENTRIES_MAX) {
        memmove(&c->entries[0], &c->entries[1], (ENTRIES_MAX - 1) * sizeof c->entries[0]);
        c->entry_count--;
    }
    c->entries[c->entry_count++] = *e;
}

static void
print_mark(enum mark mark)
{
    (void)printf("%s%s%s", out_style(marks[mark].style), marks[mark].text, out_style(OUT_PLAIN));
}

/* Changes a mark where it stands, if it is still on the screen. */
static void
set_mark(struct chat *c, size_t index, enum mark mark)
{
    struct entry *e = &c->entries[index];
    if (e->mark == mark) {
        return;
    }
    e->mark = mark;
    unsigned up = 0;
    for (size_t i = index; i < c->entry_count; i++) {
        up += c->entries[i].rows;
    }
    if (c->edit && up < c->lines) {
        (void)printf("\0337\033[%uA\r\033[%dC", up, MARK_COLUMN);
        print_mark(mark);
        (void)fputs("\0338", stdout);
        (void)fflush(stdout);
    }
}

struct line {
    const char *from;
    const char *text;
    size_t text_size;
    uint64_t time_unix_ms;
    bool own;
    bool unreadable;
    const cq_client_media_t *media;
    uint64_t seq;
};

/* Prints text in lines that begin at column `indent`, broken at spaces where possible. Returns the
 * rows of the screen it took. */
static unsigned
print_wrapped(const struct chat *c, const char *text, size_t indent)
{
    size_t room =
        c->columns > indent + MIN_TEXT_COLUMNS ? c->columns - indent - 1 : MIN_TEXT_COLUMNS;
    unsigned rows = 1;
    size_t left = strlen(text);
    while (out_width(text, left) > room) {
        size_t n = out_fit(text, left, room);
        size_t at = n;
        while (at > 0 && text[at] != ' ') {
            at--;
        }
        n = at ? at : n ? n : left;
        size_t skip = n + (at && text[n] == ' ');
        (void)printf("%.*s\n%*s", (int)n, text, (int)indent, "");
        text += skip;
        left -= skip;
        rows++;
    }
    (void)printf("%s\n", text);
    return rows;
}

/* A line of its own when the day is another one than that of the line before. */
static void
print_day(struct chat *c, uint64_t time_unix_ms)
{
    char day[64];
    out_day(time_unix_ms, day, sizeof day);
    if (!strcmp(day, c->day)) {
        return;
    }
    bool is_first = !c->day[0];
    memcpy(c->day, day, sizeof c->day);
    char today[64];
    if (is_first && !strcmp(day, out_day(out_now_unix_ms(), today, sizeof today))) {
        return;
    }
    (void)printf("%s%*s%s%s\n", out_style(OUT_DIM), TEXT_INDENT, "", day, out_style(OUT_PLAIN));
    struct entry e = {.rows = 1};
    add_entry(c, &e);
}

static void
print_line(struct chat *c, const struct line *l, struct entry *e)
{
    char when[64];
    uint64_t now = out_now_unix_ms();
    uint64_t time = l->time_unix_ms ? l->time_unix_ms : now;
    out_clock(time, now, when, sizeof when);
    size_t n = strlen(when);
    const char *clock = n > CLOCK_COLUMNS ? when + n - CLOCK_COLUMNS : when; /* without the day */
    char *text = cli_media_line(l->text, l->text_size, l->media, c->peer, l->seq, 0);
    hide(c);
    print_day(c, time);
    (void)printf("%s%*s%s  ", out_style(OUT_DIM), CLOCK_COLUMNS, clock, out_style(OUT_PLAIN));
    print_mark(e->mark);
    size_t name_width = strlen(c->peer) > strlen("you") ? strlen(c->peer) : strlen("you");
    (void)printf(" %s%-*s%s  ", out_style(l->own ? OUT_CYAN : OUT_BOLD), (int)name_width, l->from,
                 out_style(OUT_PLAIN));
    e->rows = print_wrapped(c, l->unreadable ? "(unsupported message)" : text,
                            TEXT_INDENT + name_width + 2);
    add_entry(c, e);
    free(text);
    draw(c);
}

static void
print_remark(struct chat *c, const char *text)
{
    struct entry e = {0};
    char *safe = out_safe(text, strlen(text), 0);
    hide(c);
    (void)printf("%s%*s", out_style(OUT_DIM), TEXT_INDENT, "");
    e.rows = print_wrapped(c, safe, TEXT_INDENT);
    (void)fputs(out_style(OUT_PLAIN), stdout);
    add_entry(c, &e);
    free(safe);
    draw(c);
}

/* ---- events ---- */

static enum mark
mark_of(const struct chat *c, uint64_t seq)
{
    return !seq                       ? MARK_WAITING
           : seq <= c->peer_read      ? MARK_READ
           : seq <= c->peer_delivered ? MARK_DELIVERED
                                      : MARK_SENT;
}

static void
update_marks(struct chat *c)
{
    for (size_t i = 0; i < c->entry_count; i++) {
        struct entry *e = &c->entries[i];
        if (e->seq && e->mark != MARK_NONE && e->mark != MARK_REFUSED) {
            set_mark(c, i, mark_of(c, e->seq));
        }
    }
}

static void
on_chat_message(struct chat *c, const cq_client_event_t *e)
{
    if (!c->is_ready || e->own_device) {
        return; /* history shows it, or it stands there as typed */
    }
    if (strcmp(e->peer, c->peer) != 0) {
        char *preview =
            cli_media_line(e->text, e->text_size, e->media, e->peer, e->seq, PREVIEW_COLUMNS);
        char text[512];
        (void)snprintf(text, sizeof text, "%s writes: %s", e->from, preview);
        free(preview);
        if (!e->own) {
            print_remark(c, text);
        }
        return;
    }
    if (e->seq <= c->last_seq) {
        return;
    }
    c->last_seq = e->seq;
    c->typing_until_ms = e->own ? c->typing_until_ms : 0;
    struct line l = {e->own ? "you" : e->from,
                     e->text,
                     e->text_size,
                     e->time_unix_ms,
                     e->own,
                     e->unreadable,
                     e->media,
                     e->seq};
    struct entry entry = {.seq = e->own ? e->seq : 0,
                          .mark = e->own ? mark_of(c, e->seq) : MARK_NONE};
    print_line(c, &l, &entry);
    if (!e->own) {
        int rc = cq_client_read(c->cli->client, c->peer, e->seq);
        c->error = rc ? rc : c->error;
    }
}

static void
add_waiting(struct chat *c, uint64_t message)
{
    c->waiting = realloc(c->waiting, (c->waiting_count + 1) * sizeof *c->waiting);
    CQ_ASSERT(c->waiting);
    c->waiting[c->waiting_count++] = message;
}

/* Was this message typed here? Then it waits no longer. */
static bool
drop_waiting(struct chat *c, uint64_t message)
{
    for (unsigned i = 0; i < c->waiting_count; i++) {
        if (c->waiting[i] == message) {
            c->waiting[i] = c->waiting[--c->waiting_count];
            return true;
        }
    }
    return false;
}

static void
on_outcome(struct chat *c, const cq_client_event_t *e)
{
    if (!drop_waiting(c, e->message)) {
        return; /* of another process, or from before */
    }
    for (size_t i = 0; i < c->entry_count; i++) {
        if (c->entries[i].message == e->message) {
            c->entries[i].seq = e->seq;
            set_mark(c, i, e->type == CQ_CLIENT_EVENT_SENT ? mark_of(c, e->seq) : MARK_REFUSED);
            break;
        }
    }
    if (e->type == CQ_CLIENT_EVENT_FAILED) {
        print_remark(c, cq_client_error_text(e->error));
    } else if (!c->edit) {
        char text[64];
        (void)snprintf(text, sizeof text, "✓ sent, seq %" PRIu64, e->seq);
        print_remark(c, text);
    }
}

static void
on_chat_receipt(struct chat *c, const cq_client_event_t *e)
{
    if (strcmp(e->peer, c->peer) != 0 || e->own) {
        return;
    }
    uint64_t *cursor = e->receipt == CQ_CLIENT_READ ? &c->peer_read : &c->peer_delivered;
    *cursor = e->seq > *cursor ? e->seq : *cursor;
    update_marks(c);
}

static void
on_chat_presence(struct chat *c, const cq_client_event_t *e)
{
    if (strcmp(e->peer, c->peer) != 0) {
        return;
    }
    bool changed = c->has_presence && c->online != e->online;
    c->has_presence = true;
    c->online = e->online;
    c->seen_unix_ms = e->time_unix_ms;
    if (changed && c->is_ready) {
        char text[128];
        (void)snprintf(text, sizeof text, "%s is %s", c->peer, e->online ? "online" : "offline");
        print_remark(c, text);
    }
}

static void
on_chat_friend(struct chat *c, const cq_client_event_t *e)
{
    if (c->is_ready && !strcmp(e->peer, c->peer) && !e->open) {
        print_remark(c, "this chat is closed for sending");
    } else if (c->is_ready && e->relation == CQ_CLIENT_REQUESTED) {
        char text[128];
        (void)snprintf(text, sizeof text, "%s asks you to be friends", e->peer);
        print_remark(c, text);
    }
}

static void
on_chat_event(struct cli *cli, const cq_client_event_t *e)
{
    struct chat *c = cli->ctx;
    switch (e->type) {
    case CQ_CLIENT_EVENT_MESSAGE:
        on_chat_message(c, e);
        break;
    case CQ_CLIENT_EVENT_SENT:
    case CQ_CLIENT_EVENT_FAILED:
        on_outcome(c, e);
        break;
    case CQ_CLIENT_EVENT_RECEIPT:
        on_chat_receipt(c, e);
        break;
    case CQ_CLIENT_EVENT_PRESENCE:
        on_chat_presence(c, e);
        break;
    case CQ_CLIENT_EVENT_FRIEND:
        on_chat_friend(c, e);
        break;
    case CQ_CLIENT_EVENT_TYPING:
        if (!strcmp(e->peer, c->peer)) {
            c->typing_until_ms = e->online ? cli_now_ms() + TYPING_FORGET_MS : 0;
        }
        break;
    case CQ_CLIENT_EVENT_STATE:
    case CQ_CLIENT_EVENT_DEVICE:
    case CQ_CLIENT_EVENT_PROOF:
    case CQ_CLIENT_EVENT_ANSWER:
    case CQ_CLIENT_EVENT_PRIVACY:
    case CQ_CLIENT_EVENT_TRANSFER:
    case CQ_CLIENT_EVENT_WARNING:
        break;
    }
}

/* ---- typing and sending ---- */

static void
tell_typing(struct chat *c, bool on)
{
    uint64_t now = cli_now_ms();
    bool is_told = c->typing_told_ms && now - c->typing_told_ms < TYPING_REPEAT_MS;
    if ((on && is_told) || (!on && !c->typing_told_ms)) {
        return;
    }
    c->typing_told_ms = on ? now : 0;
    (void)cq_client_typing(c->cli->client, c->peer, on); /* a courtesy: nothing depends on it */
}

static void
send_line(struct chat *c, const cq_buf_t *text)
{
    struct entry e = {.mark = c->edit ? MARK_WAITING : MARK_NONE};
    size_t n = text->size;
    while (n && (text->data[n - 1] == ' ' || text->data[n - 1] == '\n')) {
        n--;
    }
    if (!n) {
        return;
    }
    int rc = cq_client_send(c->cli->client, c->peer, (const char *)text->data, n, &e.message);
    if (rc) {
        print_remark(c, cq_client_error_text(rc));
        return;
    }
    add_waiting(c, e.message);
    struct line l = {"you", (const char *)text->data, n, 0, true, false, NULL, 0};
    print_line(c, &l, &e);
}

/* false: the input has ended */
static bool
take_input(struct chat *c, cq_buf_t *line)
{
    unsigned char bytes[512];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0) {
        return n < 0 && errno == EINTR;
    }
    for (ssize_t i = 0; i < n; i++) {
        enum lineedit_event event = LINEEDIT_NOTHING;
        if (c->edit) {
            event = lineedit_feed(c->edit, bytes[i]);
        } else if (bytes[i] == '\n') {
            event = LINEEDIT_LINE;
        } else if (line->size < CQ_TEXT_MAX) {
            cq_buf_append(line, &bytes[i], 1);
        }
        if (event == LINEEDIT_END) {
            return false;
        }
        if (event == LINEEDIT_CHANGED) {
            tell_typing(c, !lineedit_is_empty(c->edit));
        }
        if (event == LINEEDIT_LINE) {
            if (c->edit) {
                lineedit_take(c->edit, line);
                c->typing_told_ms = 0; /* the message says it */
            }
            send_line(c, line);
            cq_buf_clear(line);
        }
    }
    return true;
}

/* ---- the loop ---- */

static int
wait_ms(const struct chat *c)
{
    uint64_t now = cli_now_ms();
    return c->typing_until_ms > now ? (int)(c->typing_until_ms - now) + 1 : 60000;
}

static int
converse(struct chat *c)
{
    cq_buf_t line = {0};
    bool is_open = true;
    sigset_t none;
    sigemptyset(&none);
    uint64_t end = UINT64_MAX;
    while (!cli_interrupted() && !c->error && cli_now_ms() < end) {
        struct pollfd fds[] = {{.fd = cq_client_fd(c->cli->client), .events = POLLIN},
                               {.fd = is_open ? STDIN_FILENO : -1, .events = POLLIN}};
        int ms = is_open ? wait_ms(c) : 200;
        struct timespec timeout = {ms / 1000, (long)(ms % 1000) * 1000000};
        int ready = ppoll(fds, 2, &timeout, &none);
        measure(c);
        int rc = ready < 0 ? 0 : cq_client_dispatch(c->cli->client);
        c->error = rc < 0 ? rc : c->error;
        if (ready > 0 && fds[1].revents && !take_input(c, &line)) {
            is_open = false;
            /* typed is typed: what still waits may take a moment, or stays in the outbox */
            end = c->edit ? cli_now_ms() : cli_now_ms() + PIPE_WAIT_S * UINT64_C(1000);
        }
        if (!is_open && !c->waiting_count) {
            break;
        }
        if (c->cli->state == CQ_CLIENT_IDLE && c->cli->state_error) {
            c->error = c->cli->state_error;
        }
        draw(c);
    }
    cq_buf_free(&line);
    return c->error;
}

static void
print_history(void *ctx, const cq_client_message_t *m)
{
    struct chat *c = ctx;
    struct line l = {m->own ? "you" : m->from,
                     m->text,
                     m->text_size,
                     m->time_unix_ms,
                     m->own,
                     m->unreadable,
                     m->media,
                     m->seq};
    struct entry e = {.seq = m->own ? m->seq : 0, .mark = m->own ? mark_of(c, m->seq) : MARK_NONE};
    print_line(c, &l, &e);
    c->last_seq = m->seq;
}

static void
take_cursors(void *ctx, const cq_client_chat_t *chat)
{
    struct chat *c = ctx;
    if (!strcmp(chat->peer, c->peer)) {
        c->peer_delivered = chat->peer_delivered;
        c->peer_read = chat->peer_read;
    }
}

static int
begin(struct chat *c)
{
    bool offline;
    int error;
    int rc = cli_sync(c->cli, &offline);
    if (rc) {
        return rc;
    }
    if (!offline) {
        (void)cli_wait_quietly(c->cli, cq_client_presence(c->cli->client), &error);
    }
    measure(c);
    int count = cq_client_chats(c->cli->client, take_cursors, c);
    count = count < 0
                ? count
                : cq_client_history(c->cli->client, c->peer, 0, HISTORY_LINES, print_history, c);
    if (count == -CQ_E_NOT_FOUND) {
        return cli_fail(c->cli, CLI_REFUSED, "NOT_FOUND",
                        "you have no chat with %s: be friends first (chasqui add %s)", c->peer,
                        c->peer);
    }
    if (count < 0) {
        return cli_error(c->cli, count, c->peer);
    }
    if (c->has_presence && !c->online && c->seen_unix_ms) {
        char text[128];
        print_remark(c, cli_presence_text(false, c->seen_unix_ms, text, sizeof text));
    }
    rc = cq_client_read(c->cli->client, c->peer, 0);
    return rc ? cli_error(c->cli, rc, c->peer) : CLI_OK;
}

int
cli_chat(struct cli *cli, struct cli_args *args)
{
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc != 1) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "chat takes one NAME");
    }
    if (!rc && cli->json) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE",
                      "chat is for people: use send and listen with --json");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : cli_open(cli, true);
    if (rc) {
        return rc;
    }
    struct chat *c = cq_alloc(sizeof *c);
    c->cli = cli;
    c->peer = args->argv[0];
    cli->on_event = on_chat_event;
    cli->ctx = c;
    rc = begin(c);
    if (!rc) {
        c->edit = isatty(STDOUT_FILENO) ? lineedit_new(STDIN_FILENO, CQ_TEXT_MAX) : NULL;
        c->is_ready = true;
        if (c->edit) {
            print_remark(c, "Enter sends, ^C ends");
        }
        int error = converse(c);
        tell_typing(c, false);
        hide(c);
        lineedit_destroy(&c->edit);
        rc = error ? cli_error(cli, error, NULL) : CLI_OK;
        if (!rc && c->waiting_count) {
            rc = cli_fail(cli, CLI_UNREACHABLE, "OFFLINE",
                          "%u not sent yet: in the outbox, and going out when any command connects",
                          c->waiting_count);
        }
    }
    cli->on_event = NULL;
    free(c->waiting);
    free(c);
    return rc;
}
