/* SPDX-License-Identifier: MPL-2.0
 * The broker: a ROUTER on a loop that routes envelopes between named actors, knows who is alive,
 * announces who came and went and bounces what cannot be delivered. docs/bus.md is the contract.
 */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdint.h>

#include "common/rt/loop.h"

#include "broker/registry.h"
#include "broker/route.h"

typedef struct broker broker_t;

struct broker_cfg {
    const char *endpoint; /* "ipc:///…/broker.sock"; a stale socket file is replaced, a living
                             broker's is not */
    uint64_t lease_ms;
};

/* Binds and serves on the loop. NULL if the endpoint cannot be had (logged). */
broker_t *broker_new(cq_loop_t *loop, const struct broker_cfg *cfg);
void broker_destroy(broker_t **b);
size_t broker_actor_count(const broker_t *b);

/* Counters of all brokers of the process. */
struct broker_stats {
    uint64_t forwarded, garbage, bounced_unroutable, bounced_busy, who, registered, downs, refused,
        actors;
};
extern struct broker_stats broker_stats;

#endif
