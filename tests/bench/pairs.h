/* SPDX-License-Identifier: MPL-2.0
 * Pairs who talk: X of each sends, Y receives and acknowledges. Closed loop (X keeps `window` sends
 * unanswered) or open loop (at a fixed rate in total, evenly over the pairs; time counts from when
 * a message was due, so a server that stalls cannot hide it).
 *
 * Every message must arrive once and in order: X alone writes in its chat, so the nth message has
 * number n, or the run fails. With is_returning a lost connection is taken up on another edge:
 * unanswered sends go out again as they were, Y asks for what it missed.
 */
#ifndef BENCH_PAIRS_H
#define BENCH_PAIRS_H

#include "tests/bench/measure.h"

struct bench_pairs_cfg {
    const char *seed; /* file: pair p are the users 2 p and 2 p + 1, who are friends */
    uint64_t pairs, window, bytes;
    uint64_t rate; /* messages per second in total; 0: closed loop */
    bool no_receipts, silent_acks;
    bool is_returning;
    bool is_mixed; /* X of every other pair is at port_y and Y at port_x */
    uint16_t port_x, port_y;
};

struct bench_pairs_result {
    uint64_t delivered, receipts, read_back; /* while measuring */
    uint64_t syncs;                          /* SYNC_NOW pushes */
    uint64_t lost, resent;                   /* connections; sends that went out again */
    uint64_t offline_notes;                  /* friends said to be gone */
    struct bench_hist received, answered;    /* while measuring */
    struct bench_hist back; /* from the loss of a connection to its SYNC on another */
};

/* Connects all; nobody sends yet. */
void bench_pairs_begin(const struct bench_pairs_cfg *cfg);
void bench_pairs_send(bool sending);
/* What is counted while measuring counts from zero again each time it begins. */
void bench_pairs_measure(bool measuring);
/* Sends what is due (open loop) and returns when the next is, or `until`. */
uint64_t bench_pairs_due(uint64_t until);
/* Talks until then. */
void bench_pairs_run(uint64_t until_ns);
/* Every message that was sent arrives and its receipt comes back, or the run is void. */
void bench_pairs_drain(void);
const struct bench_pairs_result *bench_pairs_result(void);

#endif
