/* SPDX-License-Identifier: MPL-2.0
 * Brings a part of the log into memory ahead of who reads it in order: its pages lie anywhere in
 * the file, one read at a time is all that one reader asks of the disk, and disks do many at once.
 */
#ifndef STORE_READAHEAD_H
#define STORE_READAHEAD_H

#include "store/engine.h"

typedef struct store_readahead store_readahead_t;

/* Positions first … last. NULL if there is little to read: nothing is to be done then. */
store_readahead_t *store_readahead_start(store_engine_t *engine, uint64_t first, uint64_t last);
/* Waits for its threads, which stop soon. Before the engine is written to or reopened. */
void store_readahead_stop(store_readahead_t **readahead);

#endif
