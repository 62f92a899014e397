/* SPDX-License-Identifier: MPL-2.0
 * What goes to the terminal: text of other people made harmless, times, tables, JSON lines,
 * colours.
 */
#ifndef CLIENT_CLI_OUTPUT_H
#define CLIENT_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/wire/buf.h"

/* Appends text so that it cannot drive a terminal: control characters become \xNN, a line break " ⏎
 * ", characters that reorder or hide text \u{…}, bytes that are not UTF-8 \xNN. */
void out_escape(cq_buf_t *b, const char *s, size_t n);
/* The same into a new string (free it), at most `columns` wide (0: all), cut with "…". */
char *out_safe(const char *s, size_t n, size_t columns);
/* Columns a (safe) string takes. */
size_t out_width(const char *s, size_t n);

/* How many bytes of s fit into this many columns; never part of a character. */
size_t out_fit(const char *s, size_t n, size_t columns);

/* "Monday, 23 November 2026" */
const char *out_day(uint64_t time_unix_ms, char *out, size_t size);
/* "just now", "5 min ago", "yesterday 14:03", "23 Nov 14:03", "2025-11-23". Times in the future: as
 * now. */
const char *out_ago(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size);
/* "14:03:22" today, "23 Nov 14:03:22" this year, else with the year. */
const char *out_clock(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size);
/* out_clock with milliseconds. */
const char *out_stamp(uint64_t time_unix_ms, uint64_t now_unix_ms, char *out, size_t size);
/* How long after: "2 ms", "1.24 s", "3 min 20 s", "5 h 10 min", "12 d 3 h"; "earlier" if time is
 * before start (a clock was set). */
const char *out_after(uint64_t start_unix_ms, uint64_t time_unix_ms, char *out, size_t size);
uint64_t out_now_unix_ms(void);

/* Escape codes, or "" when colours are off. */
enum out_style {
    OUT_PLAIN,
    OUT_BOLD,
    OUT_DIM,
    OUT_RED,
    OUT_GREEN,
    OUT_YELLOW,
    OUT_BLUE,
    OUT_CYAN
};
/* Colours on: a terminal, no NO_COLOR, TERM not "dumb". */
void out_init(bool json);
bool out_has_colors(void);
const char *out_style(enum out_style style);

/* ---- a JSON object per line ---- */
void json_begin(cq_buf_t *b, const char *type);
void json_str(cq_buf_t *b, const char *key, const char *s);
void json_text(cq_buf_t *b, const char *key, const char *s, size_t n);
void json_uint(cq_buf_t *b, const char *key, uint64_t v);
void json_bool(cq_buf_t *b, const char *key, bool v);
void json_null(cq_buf_t *b, const char *key);
/* Writes the line to stdout and empties the buffer. */
void json_end(cq_buf_t *b);

/* ---- a table: columns as wide as their widest cell ---- */
enum {
    OUT_COLUMNS_MAX = 8
};
typedef struct out_table out_table_t;
out_table_t *out_table_new(size_t columns, const char *const *titles);
/* cells: safe strings, copied; styles: one per cell or NULL */
void out_table_row(out_table_t *t, const char *const *cells, const enum out_style *styles);
/* Prints and frees. right: bit i set: column i is aligned right. */
void out_table_print(out_table_t **p, unsigned right);
/* Frees one that is not to be printed. */
void out_table_destroy(out_table_t **p);

#endif
