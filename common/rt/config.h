/* SPDX-License-Identifier: MPL-2.0
 * Typed configuration: one table per program. Sources, later wins: defaults, `--config FILE` (ZPL,
 * read with zconfig; a flat list of `key = value`), `--key value` on the command line. Everything
 * is validated first, then applied.
 */
#ifndef CQ_RT_CONFIG_H
#define CQ_RT_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"

enum cq_config_type {
    CQ_CONFIG_STR,
    CQ_CONFIG_UINT,
    CQ_CONFIG_BOOL
};

struct cq_config_item {
    const char *key; /* "listen-port"; the same word in the file and behind -- */
    enum cq_config_type type;
    size_t offset;      /* STR: char *, owned by the struct; UINT: uint64_t; BOOL: bool */
    const char *preset; /* default as text, NULL: must be given */
    uint64_t min, max;  /* UINT: value; STR: length in bytes */
    const char *unit;   /* "ms", "bytes", "" */
    const char *doc;
};

/* Fills *cfg. Returns 0; 1 if the program should exit with 0 now (--help, --version,
 * --check-config: printed); or -CQ_E_CONFIG after a clear sentence on stderr that names the key,
 * the file and line if any, and what is allowed. */
int cq_config_load(const struct cq_config_item *items,
                   size_t count,
                   const char *program,
                   int argc,
                   char **argv,
                   void *cfg) CQ_MUST_CHECK;
/* What all actors have: a name of the bus's alphabet and a log level. 0, or CONFIG after a sentence
 * on stderr. */
int
cq_config_check_actor(const char *program, const char *name, const char *log_level) CQ_MUST_CHECK;
void cq_config_free(const struct cq_config_item *items, size_t count, void *cfg);

#endif
