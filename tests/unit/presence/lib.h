/* SPDX-License-Identifier: MPL-2.0
 * What the tests of presence share.
 */
#ifndef TESTS_UNIT_PRESENCE_LIB_H
#define TESTS_UNIT_PRESENCE_LIB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/wire/id.h"

/* An id that is told apart by a number; ascending numbers are ascending ids. */
static inline struct cq_id
id_of(uint32_t n)
{
    struct cq_id id = {{0xab}};
    id.b[12] = (uint8_t)(n >> 24);
    id.b[13] = (uint8_t)(n >> 16);
    id.b[14] = (uint8_t)(n >> 8);
    id.b[15] = (uint8_t)n;
    return id;
}

static inline uint32_t
number_of(const struct cq_id *id)
{
    return (uint32_t)id->b[12] << 24 | (uint32_t)id->b[13] << 16 | (uint32_t)id->b[14] << 8 |
           id->b[15];
}

#endif
