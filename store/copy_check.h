/* SPDX-License-Identifier: MPL-2.0
 * Is a copy of the database whole? Opens it for looking, changes nothing.
 */
#ifndef STORE_COPY_CHECK_H
#define STORE_COPY_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "store/engine.h"

struct store_copy_facts {
    uint64_t schema;
    struct cq_id epoch;
    uint64_t head;
    uint64_t marker;
    uint64_t rows; /* of all tables */
};

/* Asked now and then; false ends the check with UNAVAILABLE. */
typedef bool store_copy_watch(void *ctx);

/* Every record of the log is there (positions without gaps), can be decoded; every table can be
 * read from end to end, its keys ascending; epoch, vault's row, marker and routed-up-to are there
 * and fit. 0; CORRUPT, with a sentence in why (size why_size); NEWER_SCHEMA; IO; UNAVAILABLE. */
int store_copy_check(const char *dir,
                     store_copy_watch *watch,
                     void *ctx,
                     struct store_copy_facts *facts,
                     char *why,
                     size_t why_size) CQ_MUST_CHECK;

#endif
