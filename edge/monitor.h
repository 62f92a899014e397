/* SPDX-License-Identifier: MPL-2.0
 * The listener for those who look after the system: /metrics (of all actors), /healthz, /readyz. On
 * an address of its own, so that no client reaches it.
 */
#ifndef EDGE_MONITOR_H
#define EDGE_MONITOR_H

#include "edge/edge.h"

struct edge_monitor;

/* NULL: it cannot listen (logged). */
struct edge_monitor *edge_monitor_new(edge_t *e);
void edge_monitor_destroy(struct edge_monitor **m);

#endif
