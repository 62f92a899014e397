/* SPDX-License-Identifier: MPL-2.0
 * The header of the PROXY protocol, versions 1 and 2, with which a load balancer tells whom it
 * speaks for. Pure.
 */
#ifndef EDGE_PROXY_H
#define EDGE_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edge/ip.h"

enum {
    EDGE_PROXY_MAX = 1024 /* bytes of a header */
};

struct edge_proxy {
    bool is_local; /* the balancer speaks for itself (a health check), or does not know for whom */
    struct edge_ip from;
};

/* How many more bytes belong to the header for certain, so that nothing of what follows is read.
 * 0: it is complete, *out is set; negative: it is no header. Have at most EDGE_PROXY_MAX bytes. */
int edge_proxy_parse(const uint8_t *p, size_t n, struct edge_proxy *out)
    __attribute__((warn_unused_result));

#endif
