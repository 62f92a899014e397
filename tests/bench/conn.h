/* SPDX-License-Identifier: MPL-2.0
 * Many WebSocket clients in one thread: epoll, and no more of RFC 6455 than the protocol needs.
 * Everything that is said to one connection in one turn leaves as one frame with a list of
 * operations and one write, as an app does it.
 */
#ifndef BENCH_CONN_H
#define BENCH_CONN_H

#include <stdbool.h>

#include "common/wire/frame.h"

struct bench_conn;
/* One operation from the edge; views are valid during the call. */
typedef void bench_conn_op_fn(struct bench_conn *c, struct cq_frame_op *op);
/* The connection is open (once), or everything that has come in has been handled. */
typedef void bench_conn_turn_fn(struct bench_conn *c);
/* The edge ended the connection, or it could not be made; it is closed already. */
typedef void bench_conn_end_fn(struct bench_conn *c);
struct ssl_st;

enum bench_conn_state {
    BENCH_CONN_CLOSED,
    BENCH_CONN_CONNECTING,
    BENCH_CONN_TLS,
    BENCH_CONN_HANDSHAKE,
    BENCH_CONN_OPEN
};

struct bench_conn {
    int fd;
    enum bench_conn_state state;
    bool wants_write; /* epoll watches for room */
    bool is_frugal;   /* keeps no buffers while it is idle: there are a hundred thousand */
    cq_buf_t in;
    cq_buf_t ops; /* operations of this turn */
    size_t op_count;
    cq_buf_t out; /* bytes that the socket has not taken */
    bench_conn_op_fn *on_op;
    bench_conn_turn_fn *on_turn;
    bench_conn_end_fn *on_end; /* NULL: the run fails */
    struct ssl_st *ssl;
    void *owner;
    uint64_t heard_ns; /* when anything came, or it was opened */
};

/* Raises the limit of open files as far as it goes. */
void bench_conn_start(void);
/* Connections come from 127.0.0.1 + first and, when those have no ports left, from the addresses
 * behind it. */
void bench_conn_sources(unsigned first);
/* All connections from now on speak TLS; the edge's certificate must be in this file (PEM). */
void bench_conn_use_tls(const char *ca_file);
/* Connects to 127.0.0.1:port. on_turn is called when the handshake is done. Every 16,384
 * connections come from another address of 127/8, as an address has no more than 28,000 ports. */
void bench_conn_open(struct bench_conn *c, uint16_t port);
void bench_conn_close(struct bench_conn *c);
/* Where the next operation is to be written (cq_frame_request). */
cq_buf_t *bench_conn_next_op(struct bench_conn *c);
/* Sends what has been written since the last turn. Called by itself after on_turn. */
void bench_conn_flush(struct bench_conn *c);
/* How many Pings of the edges were answered. */
uint64_t bench_conn_pings(void);
/* Handles what comes in, waiting for at most until deadline_ns (CLOCK_MONOTONIC). */
void bench_conn_poll(uint64_t deadline_ns);

#endif
