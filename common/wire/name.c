/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/name.h"

#include <string.h>

#include "common/wire/limits.h"

static bool
is_name_text(const char *s, size_t n)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    for (size_t i = 0; i < n; i++) {
        if (!s[i] || !strchr(allowed, s[i])) {
            return false;
        }
    }
    return true;
}

bool
cq_name_ok(const char *s, size_t n)
{
    return n >= CQ_NAME_MIN && n <= CQ_NAME_MAX && is_name_text(s, n);
}

bool
cq_actor_name_ok(const char *s, size_t n)
{
    return n >= 1 && n <= CQ_ACTOR_NAME_MAX && is_name_text(s, n);
}
