/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/lineedit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/rt/check.h"
#include "common/wire/read.h"

#include "client/cli/output.h"

enum {
    ESCAPE_MAX = 16,
    HISTORY_MAX = 50
};

struct lineedit {
    int fd; /* -1: detached */
    struct termios before;
    size_t max;
    cq_buf_t text;
    size_t cursor;           /* bytes before it */
    char escape[ESCAPE_MAX]; /* an escape sequence under way, after ESC */
    size_t escape_size;
    bool in_escape;
    bool in_paste;
    char *history[HISTORY_MAX]; /* newest last */
    size_t history_count;
    size_t history_at; /* history_count: the line itself */
};

static const char paste_on[] = "\033[?2004h";
static const char paste_off[] = "\033[?2004l";

lineedit_t *
lineedit_new_detached(size_t max)
{
    lineedit_t *e = cq_alloc(sizeof *e);
    e->fd = -1;
    e->max = max;
    return e;
}

lineedit_t *
lineedit_new(int fd, size_t max)
{
    struct termios before;
    if (tcgetattr(fd, &before)) {
        return NULL;
    }
    lineedit_t *e = lineedit_new_detached(max);
    e->fd = fd;
    e->before = before;
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~(tcflag_t)(IXON | ICRNL);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(fd, TCSADRAIN, &raw);
    (void)fputs(paste_on, stdout);
    return e;
}

void
lineedit_destroy(lineedit_t **p)
{
    lineedit_t *e = *p;
    *p = NULL;
    if (!e) {
        return;
    }
    if (e->fd >= 0) {
        (void)fputs(paste_off, stdout);
        (void)fflush(stdout);
        tcsetattr(e->fd, TCSADRAIN, &e->before);
    }
    for (size_t i = 0; i < e->history_count; i++) {
        free(e->history[i]);
    }
    cq_buf_free(&e->text);
    free(e);
}

/* ---- moving and changing ---- */

static size_t
before_cursor(const lineedit_t *e, size_t at)
{
    while (at > 0 && (e->text.data[--at] & 0xc0) == 0x80) {
    }
    return at;
}

static size_t
after_cursor(const lineedit_t *e, size_t at)
{
    if (at < e->text.size) {
        at++;
    }
    while (at < e->text.size && (e->text.data[at] & 0xc0) == 0x80) {
        at++;
    }
    return at;
}

static enum lineedit_event
erase(lineedit_t *e, size_t from, size_t to)
{
    if (from >= to) {
        return LINEEDIT_NOTHING;
    }
    memmove(e->text.data + from, e->text.data + to, e->text.size - to);
    e->text.size -= to - from;
    e->cursor = from;
    return LINEEDIT_CHANGED;
}

static enum lineedit_event
insert(lineedit_t *e, unsigned char byte)
{
    if (e->text.size >= e->max) {
        return LINEEDIT_NOTHING;
    }
    (void)cq_buf_reserve(&e->text, 1);
    memmove(e->text.data + e->cursor + 1, e->text.data + e->cursor, e->text.size - e->cursor);
    e->text.data[e->cursor++] = byte;
    e->text.size++;
    return LINEEDIT_CHANGED;
}

static size_t
word_start(const lineedit_t *e)
{
    size_t at = e->cursor;
    while (at > 0 && e->text.data[at - 1] == ' ') {
        at--;
    }
    while (at > 0 && e->text.data[at - 1] != ' ') {
        at--;
    }
    return at;
}

static enum lineedit_event
recall(lineedit_t *e, size_t at)
{
    if (at > e->history_count) {
        return LINEEDIT_NOTHING;
    }
    e->history_at = at;
    cq_buf_clear(&e->text);
    if (at < e->history_count) {
        cq_buf_append(&e->text, e->history[at], strlen(e->history[at]));
    }
    e->cursor = e->text.size;
    return LINEEDIT_CHANGED;
}

/* ---- keys ---- */

enum key {
    KEY_LEFT,
    KEY_RIGHT,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_UP,
    KEY_DOWN,
    KEY_PASTE_ON,
    KEY_PASTE_OFF
};

static const struct key_row {
    const char *escape; /* after ESC */
    enum key key;
} key_rows[] = {
    {"[D", KEY_LEFT},         {"OD", KEY_LEFT}, {"[C", KEY_RIGHT},   {"OC", KEY_RIGHT},
    {"[H", KEY_HOME},         {"OH", KEY_HOME}, {"[1~", KEY_HOME},   {"[F", KEY_END},
    {"OF", KEY_END},          {"[4~", KEY_END}, {"[3~", KEY_DELETE}, {"[A", KEY_UP},
    {"OA", KEY_UP},           {"[B", KEY_DOWN}, {"OB", KEY_DOWN},    {"[200~", KEY_PASTE_ON},
    {"[201~", KEY_PASTE_OFF},
};

static enum lineedit_event
press(lineedit_t *e, enum key key)
{
    switch (key) {
    case KEY_LEFT:
        e->cursor = before_cursor(e, e->cursor);
        break;
    case KEY_RIGHT:
        e->cursor = after_cursor(e, e->cursor);
        break;
    case KEY_HOME:
        e->cursor = 0;
        break;
    case KEY_END:
        e->cursor = e->text.size;
        break;
    case KEY_DELETE:
        return erase(e, e->cursor, after_cursor(e, e->cursor));
    case KEY_UP:
        return e->history_at ? recall(e, e->history_at - 1) : LINEEDIT_NOTHING;
    case KEY_DOWN:
        return recall(e, e->history_at + 1);
    case KEY_PASTE_ON:
    case KEY_PASTE_OFF:
        e->in_paste = key == KEY_PASTE_ON;
        break;
    }
    return LINEEDIT_NOTHING;
}

static enum lineedit_event
feed_escape(lineedit_t *e, unsigned char byte)
{
    if (e->escape_size == ESCAPE_MAX - 1) {
        e->in_escape = false;
        return LINEEDIT_NOTHING;
    }
    e->escape[e->escape_size++] = (char)byte;
    e->escape[e->escape_size] = '\0';
    bool is_first = e->escape_size == 1;
    if (is_first && (byte == '[' || byte == 'O')) {
        return LINEEDIT_NOTHING;
    }
    if (!is_first && (byte < '@' || byte > '~')) {
        return LINEEDIT_NOTHING; /* parameters of a sequence */
    }
    e->in_escape = false;
    for (size_t i = 0; i < sizeof key_rows / sizeof key_rows[0]; i++) {
        if (!strcmp(key_rows[i].escape, e->escape)) {
            return press(e, key_rows[i].key);
        }
    }
    return LINEEDIT_NOTHING;
}

static enum lineedit_event
feed_control(lineedit_t *e, unsigned char byte)
{
    switch (byte) {
    case '\r':
    case '\n':
        return LINEEDIT_LINE;
    case 0x01: /* ^A */
        return press(e, KEY_HOME);
    case 0x02: /* ^B */
        return press(e, KEY_LEFT);
    case 0x03: /* ^C */
        return LINEEDIT_END;
    case 0x04: /* ^D */
        return e->text.size ? press(e, KEY_DELETE) : LINEEDIT_END;
    case 0x05: /* ^E */
        return press(e, KEY_END);
    case 0x06: /* ^F */
        return press(e, KEY_RIGHT);
    case 0x0b: { /* ^K */
        enum lineedit_event event = erase(e, e->cursor, e->text.size);
        return event;
    }
    case 0x15: /* ^U */
        return erase(e, 0, e->cursor);
    case 0x17: /* ^W */
        return erase(e, word_start(e), e->cursor);
    case 0x08:
    case 0x7f:
        return erase(e, before_cursor(e, e->cursor), e->cursor);
    default:
        return LINEEDIT_NOTHING;
    }
}

enum lineedit_event
lineedit_feed(lineedit_t *e, unsigned char byte)
{
    if (e->in_escape) {
        return feed_escape(e, byte);
    }
    if (byte == 0x1b) {
        e->in_escape = true;
        e->escape_size = 0;
        return LINEEDIT_NOTHING;
    }
    if (e->in_paste && (byte == '\r' || byte == '\n' || byte == '\t')) {
        return insert(e, byte == '\r' ? '\n' : byte);
    }
    return byte < 0x20 || byte == 0x7f ? feed_control(e, byte) : insert(e, byte);
}

bool
lineedit_is_empty(const lineedit_t *e)
{
    return e->text.size == 0;
}

static void
remember(lineedit_t *e)
{
    if (!e->text.size || memchr(e->text.data, 0, e->text.size)) {
        return;
    }
    if (e->history_count == HISTORY_MAX) {
        free(e->history[0]);
        memmove(&e->history[0], &e->history[1], (HISTORY_MAX - 1) * sizeof e->history[0]);
        e->history_count--;
    }
    char *copy = strndup((const char *)e->text.data, e->text.size);
    CQ_ASSERT(copy);
    e->history[e->history_count++] = copy;
}

void
lineedit_take(lineedit_t *e, cq_buf_t *out)
{
    remember(e);
    cq_buf_free(out);
    *out = e->text;
    e->text = (cq_buf_t){0};
    e->cursor = 0;
    e->history_at = e->history_count;
}

const char *
lineedit_text(const lineedit_t *e, size_t *size, size_t *cursor)
{
    *size = e->text.size;
    *cursor = e->cursor;
    return (const char *)e->text.data;
}

/* ---- drawing ---- */

void
lineedit_hide(void)
{
    (void)fputs("\r\033[K", stdout);
}

void
lineedit_draw(const lineedit_t *e, const char *prompt, size_t prompt_width, size_t columns)
{
    size_t room = columns > prompt_width + 2 ? columns - prompt_width - 1 : 1;
    cq_buf_t left = {0};
    cq_buf_t right = {0};
    out_escape(&left, (const char *)e->text.data, e->cursor);
    out_escape(&right, (const char *)e->text.data + e->cursor, e->text.size - e->cursor);
    /* the cursor stays in sight: drop whole characters from the beginning until it is */
    size_t from = 0;
    size_t width = out_width((const char *)left.data, left.size);
    while (from < left.size && width > room) {
        do {
            from++;
        } while (from < left.size && (left.data[from] & 0xc0) == 0x80);
        width = out_width((const char *)left.data + from, left.size - from);
    }
    char *tail = right.size && width < room
                     ? out_safe((const char *)right.data, right.size, room - width)
                     : NULL;
    lineedit_hide();
    (void)fputs(prompt, stdout);
    if (left.size > from) {
        (void)fwrite(left.data + from, 1, left.size - from, stdout);
    }
    if (tail) {
        (void)fputs(tail, stdout);
    }
    (void)printf("\r\033[%zuC", prompt_width + width);
    (void)fflush(stdout);
    free(tail);
    cq_buf_free(&left);
    cq_buf_free(&right);
}
