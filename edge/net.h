/* SPDX-License-Identifier: MPL-2.0
 * Connections of clients, from accept to close: PROXY header, TLS, HTTP requests, WebSocket (RFC
 * 6455). Knows nothing of sessions and messages: what came in is told by calls, what goes out is
 * written at once if the socket takes it. Everything a peer can make us keep is bounded, and so is
 * the time until it has said what it wants. Loop thread only.
 */
#ifndef EDGE_NET_H
#define EDGE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/rt/loop.h"
#include "common/wire/err.h"
#include "common/wire/read.h"

#include "edge/frame.h"
#include "edge/head.h"
#include "edge/ip.h"
#include "edge/tls.h"

typedef struct edge_net edge_net_t;
typedef struct edge_conn edge_conn_t;

#define EDGE_NET_STATS(X)                                                              \
    X(connections, GAUGE, "connections open, of any kind")                             \
    X(descriptors_free, GAUGE, "connections that file descriptors are left for")       \
    X(accepted_total, COUNTER, "connections accepted")                                 \
    X(refused_fds_total, COUNTER, "connections refused: file descriptors")             \
    X(refused_full_total, COUNTER, "connections refused: connections at most")         \
    X(refused_rate_total, COUNTER, "connections refused: rate per address")            \
    X(refused_address_total, COUNTER, "connections refused: too many of one address")  \
    X(refused_proxy_total, COUNTER, "connections refused: no valid PROXY header")      \
    X(refused_tls_total, COUNTER, "connections ended: no TLS handshake")               \
    X(refused_request_total, COUNTER, "HTTP requests that were none")                  \
    X(refused_handshake_total, COUNTER, "WebSocket handshakes refused")                \
    X(put_off_total, COUNTER, "input of newcomers put off to a later turn")            \
    X(newcomer_share, GAUGE, "percent of the loop's time that newcomers may have now") \
    X(waiting, GAUGE, "connections whose request has not come")                        \
    X(crowded_out_total, COUNTER, "connections ended: too many without a request")     \
    X(timeout_total, COUNTER, "connections ended: no whole request in time")           \
    X(slow_total, COUNTER, "connections ended: a body came or went too slowly")        \
    X(http_total, COUNTER, "HTTP requests")                                            \
    X(ws_broken_total, COUNTER, "WebSocket connections closed: rules broken")          \
    X(partial_writes_total, COUNTER, "writes that the socket took only in part")       \
    X(pings_answered_total, COUNTER, "WebSocket Pings answered")

struct edge_net_stats {
#define EDGE_NET_STAT(field, type, doc) uint64_t field;
    EDGE_NET_STATS(EDGE_NET_STAT)
#undef EDGE_NET_STAT
};

/* Input that waits for its rest, of all connections of a kind: counted here. */
struct edge_net_pool {
    size_t *bytes; /* NULL: not counted */
    size_t max_bytes;
};

enum {
    EDGE_NET_PART_BYTES = 2048, /* what each may keep nevertheless: a login */
};

/* What a handshake is answered with. */
struct edge_net_upgrade {
    const char *protocol; /* the subprotocol that was chosen, NULL: none */
    const char *why;      /* refused: for people */
};

/* All may be NULL but on_request. A connection is valid until its on_gone, or, if it has no user
 * data, for the call. */
struct edge_net_calls {
    /* May this address connect (now)? Asked once per connection, before anything is read from it.
     */
    bool (*on_accept)(void *ctx, const struct edge_ip *ip);
    /* A request, to be answered with edge_net_reply, now or later. Borrowed for the call. */
    void (*on_request)(void *ctx, edge_conn_t *c, const struct edge_head *head);
    /* A WebSocket handshake that is in order: 0 to accept it, or the HTTP status to refuse it with.
     * NULL: there is no WebSocket here. */
    unsigned (*on_upgrade)(void *ctx,
                           edge_conn_t *c,
                           const struct edge_head *head,
                           struct edge_net_upgrade *answer);
    void (*on_open)(void *ctx, edge_conn_t *c);
    /* Bytes came, whatever they are. */
    void (*on_heard)(void *ctx, edge_conn_t *c, size_t n);
    /* May the peer have its Ping answered? If not, it counts as broken, with 1008. */
    bool (*on_ping)(void *ctx, edge_conn_t *c);
    /* A whole message. Borrowed for the call. */
    void (*on_message)(void *ctx, edge_conn_t *c, struct cq_view data, bool is_text);
    /* The peer broke the rules; nothing more is read. Close with this code, now or soon. */
    void (*on_broken)(void *ctx, edge_conn_t *c, uint16_t code);
    /* The peer closes with this code (0: none given). Close with the same, now or soon. */
    void (*on_peer_close)(void *ctx, edge_conn_t *c, uint16_t code);
    /* Everything that was written has gone out; called only after it had to wait. */
    void (*on_drained)(void *ctx, edge_conn_t *c);
    /* The connection has ended, or is about to and nothing can be written any more. Called once if
     * it has user data. */
    void (*on_gone)(void *ctx, edge_conn_t *c);
};

struct edge_net_cfg {
    cq_loop_t *loop;
    const char *address;
    uint16_t port;                /* 0: any free one */
    edge_tls_t *tls;              /* borrowed; NULL: plain text */
    const char *proxy_from;       /* networks whose connections begin with a PROXY header */
    uint64_t request_timeout_ms;  /* from accept, or the last answer, to the end of a request */
    uint64_t transfer_timeout_ms; /* a peer that has to send or take a body moves at least */
    uint64_t transfer_min_bytes;  /* so many bytes in that time */
    unsigned newcomer_share;      /* of the loop's time that newcomers may have at most, percent */
    unsigned newcomer_share_busy; /* the same while processors are full, without TLS; 0: as ever */
    size_t connections_max;
    size_t address_max; /* connections of one address, 0: any number */
    size_t waiting_max; /* those whose request has not come: beyond it the oldest ends; 0: any */
    struct edge_frame_limits frames;
    struct edge_net_pool settled, newcomers;
    const struct edge_net_calls *calls;
    void *ctx;
    struct edge_net_stats *stats;
};

/* Gives a listener. NULL if it cannot listen (logged). cfg is copied, what it points to is
 * borrowed. */
edge_net_t *edge_net_new(const struct edge_net_cfg *cfg);
/* Closes everything; on_gone is called where due. */
void edge_net_destroy(edge_net_t **p);
uint16_t edge_net_port(const edge_net_t *net);
/* Raises the process's limit of file descriptors as far as allowed and returns it. */
size_t edge_net_raise_descriptors(void);
/* For how many more connections are there file descriptors? */
size_t edge_net_descriptors_free(const edge_net_t *net);

/* It is somebody we know. Until then it has to do with newcomer_share (a storm of handshakes, TLS,
 * tokens, or of ends, must not make the others wait) and with the newcomers' pool. */
void edge_net_settle(edge_conn_t *c);
/* Work for newcomers that is not done in a call of this layer: is there time for some now? It is
 * counted afterwards, from when it began (cq_now_mono_us). */
bool edge_net_has_time(edge_net_t *net);
void edge_net_spent(edge_net_t *net, uint64_t since_us);
void edge_net_set_user(edge_conn_t *c, void *user);
void *edge_net_user(const edge_conn_t *c);
/* The client, as the load balancer names it if there is one. */
const struct edge_ip *edge_net_ip(const edge_conn_t *c);

/* ---- HTTP ---- */

struct edge_net_reply {
    unsigned status;
    const char *type;    /* content-type; NULL: text/plain */
    const char *headers; /* more header lines, each with its CRLF; NULL: none */
    const char *cache;   /* cache-control; NULL: no-store */
    const void *body;
    size_t n;
};

/* Answers the request. The connection may be gone afterwards. For HEAD the body is only counted. If
 * a part of the request's body has not been read, the connection ends with the answer. */
void edge_net_reply(edge_conn_t *c, const struct edge_net_reply *r);

/* ---- HTTP: bodies that come and go in parts ---- */

/* Whoever has begun an exchange gets these; `user` is his until on_over. */
struct edge_net_exchange {
    /* A part of the request's body, never more than was wanted. Borrowed for the call. */
    void (*on_body)(void *user, const uint8_t *p, size_t n);
    /* All of it has come. */
    void (*on_body_end)(void *user);
    /* What was written of a streamed answer has gone out, and there is more to come. */
    void (*on_room)(void *user);
    /* Answered, or the connection is gone. The last call. */
    void (*on_over)(void *user);
};

/* Within on_request: the answer comes later, or the body (body_n bytes: edge_head_body) is wanted.
 * Nothing of it is read before edge_net_body_want. */
void edge_net_exchange_begin(edge_conn_t *c,
                             const struct edge_head *head,
                             uint64_t body_n,
                             const struct edge_net_exchange *calls,
                             void *user);
/* Reads n more bytes of the body. They come later, never from within this call. */
void edge_net_body_want(edge_conn_t *c, size_t n);
/* Begins an answer whose body of n > 0 bytes follows in parts (r's own is not looked at). */
void edge_net_stream_begin(edge_conn_t *c, const struct edge_net_reply *r, uint64_t n);
/* Writes a part of it; what the socket does not take is kept: then (edge_net_is_blocked) wait for
 * on_room. Behind the last part the exchange is over. The connection may be gone afterwards. */
void edge_net_stream_write(edge_conn_t *c, const void *p, size_t n);

/* The same with n bytes of a file: returns how many the socket took; nothing is kept of the others.
 * Fewer than n: wait for on_room. -CQ_E_IO: they are not in the file. Not with TLS (takes_files).
 */
bool edge_net_stream_takes_files(const edge_conn_t *c);
ssize_t edge_net_stream_file(edge_conn_t *c, int fd, uint64_t at, size_t n) CQ_MUST_CHECK;

/* ---- WebSocket ---- */

/* Writes one message (or a Ping) at once; what the socket does not take is kept and sent when it
 * does. `payload` needs EDGE_FRAME_OUT_HEADER_MAX writable bytes before it. False: the connection
 * is broken: kill it. */
bool edge_net_send(edge_conn_t *c, enum edge_frame_opcode opcode, uint8_t *payload, size_t n)
    __attribute__((warn_unused_result));
/* Is something kept, or the socket full of a file? Then send nothing before on_drained, or it is
 * kept too. */
bool edge_net_is_blocked(const edge_conn_t *c);
/* Sends a Close frame behind everything that is kept (code 0: without a code), once, then waits a
 * little for the peer's. The connection may be gone afterwards. */
void edge_net_close(edge_conn_t *c, uint16_t code);
/* Stops or goes on reading. Messages that were read already still come. */
void edge_net_pause(edge_conn_t *c, bool paused);
/* Ends the connection at once, without words. */
void edge_net_kill(edge_conn_t *c);

#endif
