/* SPDX-License-Identifier: MPL-2.0
 * One line of input at the bottom of a terminal, edited while other lines are printed above it.
 * UTF-8; longer lines scroll sideways.
 */
#ifndef CLIENT_CLI_LINEEDIT_H
#define CLIENT_CLI_LINEEDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire/buf.h"

typedef struct lineedit lineedit_t;

enum lineedit_event {
    LINEEDIT_NOTHING,
    LINEEDIT_CHANGED, /* the text is another one */
    LINEEDIT_LINE,    /* Enter: take it with lineedit_take */
    LINEEDIT_END,     /* ^D on an empty line, ^C, or end of input */
};

/* max: most bytes of a line. The terminal is put into raw mode until lineedit_destroy. NULL if fd
 * is no terminal. */
lineedit_t *lineedit_new(int fd, size_t max);
void lineedit_destroy(lineedit_t **p);
/* One byte of input. Pure: nothing is printed. */
enum lineedit_event lineedit_feed(lineedit_t *e, unsigned char byte);
bool lineedit_is_empty(const lineedit_t *e);
/* Gives the line (its bytes, no NUL) and begins a new one. */
void lineedit_take(lineedit_t *e, cq_buf_t *out);
/* Draws prompt and line in `columns`; prompt is safe text that may contain escape codes,
 * prompt_width columns wide. */
void lineedit_draw(const lineedit_t *e, const char *prompt, size_t prompt_width, size_t columns);
/* Removes what lineedit_draw has drawn, so that something can be printed. */
void lineedit_hide(void);

/* For tests: an editor without a terminal, and its text and cursor (in bytes). */
lineedit_t *lineedit_new_detached(size_t max);
const char *lineedit_text(const lineedit_t *e, size_t *size, size_t *cursor);

#endif
