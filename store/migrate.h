/* SPDX-License-Identifier: MPL-2.0
 * Brings a database of an older version to this one, at start, before anything else reads it. In
 * bounded commits; each says how far it got (META "migrate"), so a start after a crash goes on
 * there and rows are at most written twice, the same.
 */
#ifndef STORE_MIGRATE_H
#define STORE_MIGRATE_H

#include "store/engine.h"

/* All of it. 0 (also if there is nothing to do); CORRUPT, NO_SPACE, IO, UNKNOWN_OUTCOME: logged
 * here. */
int store_migrate_run(store_engine_t *e) CQ_MUST_CHECK;
/* One commit of it, about records_max log records. *version: that of the database afterwards. */
int store_migrate_step(store_engine_t *e, size_t records_max, uint64_t *version) CQ_MUST_CHECK;

#endif
