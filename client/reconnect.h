/* SPDX-License-Identifier: MPL-2.0
 * Which server next, and when. Pure: the caller brings random numbers and keeps the clock.
 *
 * The list is walked in a ring from a random start, so clients spread over the edges. When a
 * connection that worked is lost, the first attempt waits up to half a second, at random, and goes
 * to any of the others: all who were on that server have lost theirs at the same moment. The first
 * round is fast; after every whole round without success the delay doubles, from 0.25 s to 30 s,
 * with half of it random.
 */
#ifndef CLIENT_RECONNECT_H
#define CLIENT_RECONNECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"

enum {
    CQ_URL_MAX = 255,
    CQ_URL_COUNT_MAX = 16,
    CQ_RECONNECT_FIRST_MS = 250,
    CQ_RECONNECT_SPREAD_MS = 500,
    CQ_RECONNECT_MAX_MS = 30000
};

struct cq_url {
    char text[CQ_URL_MAX + 1];
    char host[CQ_URL_MAX + 1];
    char path[CQ_URL_MAX + 1];
    uint16_t port;
    bool is_tls;
};

struct cq_reconnect {
    struct cq_url urls[CQ_URL_COUNT_MAX];
    size_t count;
    size_t next;
    unsigned failures; /* since the last success */
    bool was_online;   /* there was one */
    bool is_preferred; /* a server has named the next one */
};

struct cq_attempt {
    const struct cq_url *url; /* view until the next call */
    uint32_t delay_ms;
};

/* "ws://HOST[:PORT]/PATH", "wss://…", HOST may be [IPv6]. 0 or -CQ_E_BAD_ARG */
int cq_url_parse(const char *s, size_t n, struct cq_url *out) CQ_MUST_CHECK;
/* list: URLs with commas between. 0 or -CQ_E_BAD_ARG (one is wrong, none, or too many) */
int cq_reconnect_init(struct cq_reconnect *r, const char *list, uint64_t random) CQ_MUST_CHECK;
/* The next attempt. */
struct cq_attempt cq_reconnect_next(struct cq_reconnect *r, uint64_t random);
/* Logged in: the next failure starts with this server's neighbour. */
void cq_reconnect_succeeded(struct cq_reconnect *r);
/* GOAWAY recommends a server: it is tried next if it is in our list (others are not trusted: the
 * password goes there). */
void cq_reconnect_prefer(struct cq_reconnect *r, const char *edge, size_t n);
/* How long to wait after GOAWAY: not before, plus 0 to jitter. */
uint32_t cq_reconnect_wait(uint32_t not_before_ms, uint32_t jitter_ms, uint64_t random);

#endif
