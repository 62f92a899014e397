/* SPDX-License-Identifier: MPL-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/ctl.h"

static void
take_out(struct ctl_args *args, int at, int count)
{
    memmove(&args->v[at], &args->v[at + count], (size_t)(args->n - at - count) * sizeof *args->v);
    args->n -= count;
}

bool
ctl_flag(struct ctl_args *args, const char *name)
{
    for (int i = 0; i < args->n; i++) {
        if (strcmp(args->v[i], name) == 0) {
            take_out(args, i, 1);
            return true;
        }
    }
    return false;
}

int
ctl_option(struct ctl_args *args, const char *name, const char **value)
{
    size_t n = strlen(name);
    for (int i = 0; i < args->n; i++) {
        if (strncmp(args->v[i], name, n) != 0) {
            continue;
        }
        if (args->v[i][n] == '=') {
            *value = args->v[i] + n + 1;
            take_out(args, i, 1);
            return 1;
        }
        if (args->v[i][n] == '\0') {
            if (i + 1 == args->n) {
                return -1;
            }
            *value = args->v[i + 1];
            take_out(args, i, 2);
            return 1;
        }
    }
    return 0;
}

bool
ctl_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    if (!text[0] || strspn(text, "0123456789") != strlen(text)) {
        return false;
    }
    errno = 0;
    unsigned long long v = strtoull(text, NULL, 10);
    if (errno || v < min || v > max) {
        return false;
    }
    *value = v;
    return true;
}

int
ctl_words(struct ctl *ctl, const struct ctl_args *args, int min, int max)
{
    for (int i = 0; i < args->n; i++) {
        if (args->v[i][0] == '-' && args->v[i][1]) {
            return ctl_fail(ctl, CTL_USAGE, "USAGE",
                            "unknown option %s (try: chasquictl %s --help)", args->v[i], ctl->verb);
        }
    }
    if (args->n < min || args->n > max) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "too %s arguments (try: chasquictl %s --help)",
                        args->n < min ? "few" : "many", ctl->verb);
    }
    return CTL_OK;
}
