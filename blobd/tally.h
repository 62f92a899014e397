/* SPDX-License-Identifier: MPL-2.0
 * How many complete blobs a volume has and what their files take, folder by folder. Whoever makes
 * or removes a file, or counts a folder, does so between begin and end: so a count and a change of
 * the same folder cannot meet, and the sum is right however they follow each other.
 */
#ifndef BLOBD_TALLY_H
#define BLOBD_TALLY_H

#include "blobd/volume.h"

typedef struct blobd_tally blobd_tally_t;

blobd_tally_t *blobd_tally_new(void);
void blobd_tally_destroy(blobd_tally_t **tally);
/* Blocks while another thread is between begin and end. */
void blobd_tally_begin(blobd_tally_t *t);
/* This folder has so many more; between begin and end. */
void blobd_tally_add(blobd_tally_t *t, unsigned folder, int count, int64_t bytes);
/* This folder has exactly so many; between begin and end. */
void blobd_tally_set(blobd_tally_t *t, unsigned folder, const struct blobd_total *counted);
void blobd_tally_end(blobd_tally_t *t);
/* All folders together. From any thread, at any time; never waits. */
struct blobd_total blobd_tally_sum(const blobd_tally_t *t);

#endif
