/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/origin.h"

#include <string.h>
#include <strings.h>

bool
edge_origin_list_next(const char **at, const char **entry, size_t *n)
{
    const char *p = *at + strspn(*at, " \t,");
    if (!*p) {
        return false;
    }
    size_t length = strcspn(p, ",");
    *at = p + length;
    while (length && (p[length - 1] == ' ' || p[length - 1] == '\t')) {
        length--;
    }
    *entry = p;
    *n = length;
    return true;
}

bool
edge_origin_list_has(const char *list, const char *word)
{
    const char *entry;
    size_t n;
    while (edge_origin_list_next(&list, &entry, &n)) {
        if (n == strlen(word) && memcmp(entry, word, n) == 0) {
            return true;
        }
    }
    return false;
}

bool
edge_origin_ok(const char *allowed, const char *origin, const char *host)
{
    if (!origin || !*origin) {
        return true;
    }
    const char *entry;
    size_t n;
    bool is_list = false;
    while (edge_origin_list_next(&allowed, &entry, &n)) {
        is_list = true;
        if (n == strlen(origin) && strncasecmp(entry, origin, n) == 0) {
            return true;
        }
    }
    const char *authority = strstr(origin, "://");
    return !is_list && authority && host && *host && strcasecmp(authority + 3, host) == 0;
}
