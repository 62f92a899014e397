/* SPDX-License-Identifier: MPL-2.0
 * The head of an HTTP/1.x request (RFC 9112), strictly: pure, views into the caller's bytes. What a
 * proxy in front of us might read differently is refused: bare CR or LF, folded lines, spaces
 * before a colon, a field that may be there only once twice.
 */
#ifndef EDGE_HEAD_H
#define EDGE_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/read.h"

enum {
    EDGE_HEAD_FIELDS_MAX = 64,
    EDGE_HEAD_MAX = 8192, /* bytes of a head */
};

struct edge_head_field {
    struct cq_view name, value; /* the value without spaces around it */
};

struct edge_head {
    struct cq_view method, target;
    struct cq_view path; /* the target up to a '?' */
    uint8_t minor;       /* HTTP/1.minor: 0 or 1 */
    uint8_t field_count;
    struct edge_head_field fields[EDGE_HEAD_FIELDS_MAX];
};

/* Positive: the head is complete and takes that many bytes; 0: more is needed; negative: minus the
 * HTTP status to refuse it with. The views borrow p. */
int edge_head_parse(struct edge_head *h, const uint8_t *p, size_t n)
    __attribute__((warn_unused_result));

/* The first field of this name (lower case), or an empty view with p NULL. */
struct cq_view edge_head_field(const struct edge_head *h, const char *name);
/* How many fields have this name. */
size_t edge_head_count(const struct edge_head *h, const char *name);
/* Do the fields of this name, read as lists, have this word? Case does not matter. */
bool edge_head_lists(const struct edge_head *h, const char *name, const char *word);

/* How long the request's body is (0: there is none). Gives 0, or the HTTP status to refuse it with:
 * 400 (no number), 411 (chunked), 501 (another transfer encoding). */
unsigned edge_head_body(const struct edge_head *h, uint64_t *n);
/* Decimal digits alone, at most `max`. */
bool edge_head_number(struct cq_view v, uint64_t max, uint64_t *out);

/* Is a equal to the text? */
bool edge_head_is(struct cq_view a, const char *text);
bool edge_head_is_caseless(struct cq_view a, const char *text);
/* The view as a string in out; false if it does not fit. Empty if the view is. */
bool edge_head_copy(struct cq_view a, char *out, size_t out_size);

#endif
