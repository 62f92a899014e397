/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/err.h"

#include <stddef.h>
#include <string.h>

static const struct {
    int number;
    const char *name;
    const char *text;
} errors[] = {
    {CQ_OK, "OK", "ok"},
#define CQ_ERR(name, number, text) {number, #name, text},
#include "common/wire/err.def"
#undef CQ_ERR
};

enum {
    ERROR_COUNT = sizeof errors / sizeof errors[0]
};

static size_t
find(int err)
{
    int number = err < 0 ? -err : err;
    for (size_t i = 0; i < ERROR_COUNT; i++) {
        if (errors[i].number == number) {
            return i;
        }
    }
    return ERROR_COUNT;
}

const char *
cq_err_name(int err)
{
    size_t i = find(err);
    return i < ERROR_COUNT ? errors[i].name : "UNKNOWN";
}

const char *
cq_err_text(int err)
{
    size_t i = find(err);
    return i < ERROR_COUNT ? errors[i].text : "unknown error";
}

int
cq_err_by_name(const char *name)
{
    for (size_t i = 0; i < ERROR_COUNT; i++) {
        if (strcmp(errors[i].name, name) == 0) {
            return errors[i].number;
        }
    }
    return -1;
}
