/* SPDX-License-Identifier: MPL-2.0
 * The metrics of the whole system, asked for over the bus. Who does not answer in time, and who has
 * gone within the last hour, is named as missing; so is a part that every system has and that has
 * never been seen.
 */
#ifndef EDGE_SCRAPE_H
#define EDGE_SCRAPE_H

#include "edge/edge.h"

typedef struct edge_scrape edge_scrape_t;

edge_scrape_t *edge_scrape_new(edge_t *e);
/* After the bus is gone. */
void edge_scrape_destroy(edge_scrape_t **s);
/* An actor came, or died or left. */
void edge_scrape_peer(edge_scrape_t *s, const char *name, const char *role, bool up);

/* text: Prometheus text, borrowed for the call. */
typedef void edge_scrape_fn(void *ctx, struct cq_view text);
/* Asks everybody, or joins who is asking; fn is called exactly once, within metrics-timeout-ms and
 * a little, never from within this call; unless it is taken back. Returns 0, or -CQ_E_BUSY: too
 * many wait (fn is not called then). */
int edge_scrape_begin(edge_scrape_t *s, edge_scrape_fn *fn, void *ctx) CQ_MUST_CHECK;
/* Whoever waits with this ctx does not any more. */
void edge_scrape_forget(edge_scrape_t *s, const void *ctx);

#endif
