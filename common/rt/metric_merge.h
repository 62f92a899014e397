/* SPDX-License-Identifier: MPL-2.0
 * Several actors' METRICS as one Prometheus text, in which a metric's lines stand together, below
 * one description. The texts come from the bus: lines that are none, or that do not have the
 * actor's own name as their first label, are left out.
 */
#ifndef CQ_RT_METRIC_MERGE_H
#define CQ_RT_METRIC_MERGE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire/buf.h"
#include "common/wire/read.h"

typedef struct cq_metric_merge cq_metric_merge_t;

cq_metric_merge_t *cq_metric_merge_new(void);
void cq_metric_merge_destroy(cq_metric_merge_t **m);
/* Adds the text of an actor (copied) and that it is up. */
void cq_metric_merge_add(cq_metric_merge_t *m, const char *actor, struct cq_view text);
/* The actor did not answer. */
void cq_metric_merge_missing(cq_metric_merge_t *m, const char *actor);
/* All of it: chasqui_up{actor=…}, 1 or 0, first. */
void cq_metric_merge_write(const cq_metric_merge_t *m, cq_buf_t *out);
/* Lines left out so far. */
size_t cq_metric_merge_refused(const cq_metric_merge_t *m);

#endif
