/* SPDX-License-Identifier: MPL-2.0
 * Which web pages may open a session: a browser names its page's origin, other programs name none.
 */
#ifndef EDGE_ORIGIN_H
#define EDGE_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

/* allowed: comma list of origins ("https://chat.example.org"); empty: only pages of the very host
 * that is connected to (the origin without its scheme is the Host header). origin NULL or empty:
 * not a browser, fine. */
bool edge_origin_ok(const char *allowed, const char *origin, const char *host);
/* The next entry of a comma list, without blanks around it: *at moves on. False at the end. */
bool edge_origin_list_next(const char **at, const char **entry, size_t *n);
/* Is this word one of a comma list's (case matters)? */
bool edge_origin_list_has(const char *list, const char *word);

#endif
