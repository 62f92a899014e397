/* SPDX-License-Identifier: MPL-2.0
 * Inside the connection layer: net_listen.c accepts, net_conn.c reads and writes, net_http.c and
 * net_ws.c say what the bytes mean.
 */
#ifndef EDGE_NET_CONN_H
#define EDGE_NET_CONN_H

#include <uv.h>

#include "common/wire/buf.h"

#include "edge/net.h"
#include "edge/proxy.h"

enum edge_conn_state {
    EDGE_CONN_PROXY,   /* its PROXY header is awaited */
    EDGE_CONN_SHAKING, /* TLS */
    EDGE_CONN_HEAD,    /* a request is awaited */
    EDGE_CONN_BODY,    /* a request's body is awaited, as far as it is wanted */
    EDGE_CONN_REPLY,   /* the answer is awaited, or on its way */
    EDGE_CONN_WS,
    EDGE_CONN_LINGER, /* all is said; the peer may still be reading: only its end is awaited */
    EDGE_CONN_GONE,
    EDGE_CONN_STATE_COUNT
};

/* Lists by what ends their members. */
enum edge_conn_list {
    EDGE_CONN_WAITING,  /* the request timeout */
    EDGE_CONN_TRANSFER, /* too few bytes in the transfer timeout */
    EDGE_CONN_ENDING,   /* CLOSE_WAIT */
    EDGE_CONN_OPEN,     /* nothing here */
    EDGE_CONN_LIST_COUNT
};

enum {
    EDGE_CONN_READ_BYTES = 65536, /* at most this is read at a time */
};

/* Input that waits for more; only while there is some. */
struct edge_conn_in {
    cq_buf_t bytes; /* PROXY header, request head, or the message under way */
    size_t counted; /* of their memory, in the connection's pool */
    uint8_t control[EDGE_FRAME_CONTROL_MAX];
    uint8_t control_size;
};

/* Output that the socket did not take. */
struct edge_conn_out {
    size_t at, size, room;
    uint8_t data[];
};

/* A request whose body is read, or whose answer is given, in parts or later. */
struct edge_conn_exchange {
    const struct edge_net_exchange *calls;
    void *user;
    cq_buf_t early;      /* what came of the body with the head */
    size_t early_at;     /* so much of that has been read */
    uint64_t body_left;  /* of the request */
    uint64_t reply_left; /* of the answer: still to be written */
    size_t wanted;       /* bytes of the body */
    uint64_t moved;      /* bytes that came and went since they were last looked at */
    bool is_expecting;   /* 100 Continue */
    bool is_streaming;
};

struct edge_conn {
    uv_poll_t poll; /* first: libuv gives it back */
    edge_net_t *net;
    edge_conn_t *prev, *next;
    edge_conn_t *later_prev, *later_next; /* those whose input waits for a turn with time for it */
    void *user;
    struct ssl_st *ssl;
    struct edge_conn_in *in;
    struct edge_conn_out *out;
    struct edge_conn_exchange *exchange;
    uint64_t due_mono_ms; /* when its list ends it */
    struct edge_frame frame;
    struct edge_ip ip;
    int fd;
    uint16_t refuse; /* HTTP status that every request is answered with; 0: none */
    uint8_t state;
    uint8_t list;
    uint8_t events; /* what libuv waits for */
    bool is_paused : 1;
    bool wants_read : 1; /* input is there that the socket does not tell of */
    bool wants_write : 1;
    bool wants_room : 1; /* more of a file is to be written */
    bool is_counted : 1; /* in the addresses' count */
    bool is_head_only : 1;
    bool is_last_reply : 1; /* the connection ends with this answer */
    bool is_finishing : 1;  /* ends when everything kept has gone out */
    bool is_deaf : 1;       /* what comes is not looked at any more */
    bool is_peer_closed : 1;
    bool is_close_sent : 1;
    bool is_settled : 1; /* somebody we know: served first */
    bool is_later : 1;
    bool is_over : 1; /* its peer has ended it: it goes when it is taken up again */
};

struct edge_net {
    struct edge_net_cfg cfg;
    uv_poll_t *listener;
    int fd;
    int spare_fd; /* given up to accept, and refuse, when there is no other */
    uint16_t port;
    size_t fd_max;
    size_t fd_base; /* descriptors that are no connections */
    size_t count;
    size_t waiting; /* of these, in that list */
    edge_ip_list_t *proxies;
    edge_ip_count_t *addresses;
    cq_timer_t *timer;
    struct {
        edge_conn_t *first, *last;
    } lists[EDGE_CONN_LIST_COUNT];
    struct {
        cq_timer_t *timer;
        bool is_planned;
        bool is_closed; /* nobody is accepted for now */
        int64_t credit_us;
        uint64_t at_us;               /* up to when it has been given */
        int run_delay;                /* a file that tells it; -1: the share stays as it is */
        uint64_t looked_us, delay_ns; /* when that was looked at last, and what it said */
        unsigned share;               /* percent, now */
        edge_conn_t *first, *last;
    } pace;
    struct cq_view rest;                  /* of that, what came behind the head being served */
    uint8_t buffer[EDGE_CONN_READ_BYTES]; /* what was just read */
};

/* net_conn.c */
edge_conn_t *edge_net_conn_new(edge_net_t *net, int fd);
/* Begins to read: TLS, or the first request. */
void edge_net_conn_start(edge_conn_t *c);
/* Moves it to a list, at its end, its time anew. */
void edge_net_conn_move(edge_conn_t *c, enum edge_conn_list list);
void edge_net_conn_set_state(edge_conn_t *c, enum edge_conn_state state);
/* Tells libuv what to wait for. */
void edge_net_conn_watch(edge_conn_t *c);
bool edge_net_conn_write(edge_conn_t *c, const void *p, size_t n)
    __attribute__((warn_unused_result));
/* Writes of a file what the socket takes: its count; less than n: room is waited for. Never with
 * TLS. -CQ_E_IO: the bytes are not in the file; -CQ_E_UNAVAILABLE: the connection is broken. */
ssize_t edge_net_conn_write_file(edge_conn_t *c, int fd, uint64_t at, size_t n) CQ_MUST_CHECK;
/* Nothing more is written: ends our side when what is kept has gone out, then lingers. */
void edge_net_conn_finish(edge_conn_t *c);
struct edge_conn_in *edge_net_conn_in(edge_conn_t *c);
/* Counts it in the connection's pool after it has changed. False: there is no room for it. */
bool edge_net_conn_in_count(edge_conn_t *c);
void edge_net_conn_in_drop(edge_conn_t *c);

/* Reads what has come from a newcomer, or ends what is over, and counts the time. May free c. */
void edge_net_conn_serve(edge_conn_t *c);

/* net_pace.c: what newcomers may have of our time */
/* May it be served now? If not, it is in line: it will be. */
bool edge_net_pace_ask(edge_conn_t *c);
/* It is not in line any more. */
void edge_net_pace_forget(edge_conn_t *c);
/* May somebody be accepted now? If not, the listener is closed for a moment. */
bool edge_net_pace_may_accept(edge_net_t *net);
/* How full processors are may have changed since the last look: so may the share. */
void edge_net_pace_look(edge_net_t *net);
void edge_net_pace_begin(edge_net_t *net);
void edge_net_pace_end(edge_net_t *net);
/* The share that follows share, both in percent and between least and most, when the loop's thread
 * has waited for a processor for waited_us of the last elapsed_us. */
unsigned edge_net_pace_next_share(unsigned share,
                                  unsigned least,
                                  unsigned most,
                                  uint64_t elapsed_us,
                                  uint64_t waited_us);

/* net_listen.c */
void edge_net_listen_open(edge_net_t *net);
/* The client's address is known: may it stay? False: it is gone. */
bool edge_net_listen_admit(edge_conn_t *c);
void edge_net_listen_forget(edge_conn_t *c);

/* net_http.c */
void edge_net_http_take(edge_conn_t *c, uint8_t *p, size_t n);
/* An answer begins, of n bytes: its head. False: it does not fit. */
bool edge_net_http_head(edge_conn_t *c, const struct edge_net_reply *r, uint64_t n, cq_buf_t *out);
/* The answer has gone out. */
void edge_net_http_replied(edge_conn_t *c);

/* net_body.c */
/* How much may be read into the buffer now? */
size_t edge_net_body_room(const edge_conn_t *c);
/* Bytes of the body that came with the head, into the buffer; 0: there are none (left). */
size_t edge_net_body_early(edge_conn_t *c, size_t room);
bool edge_net_body_has_early(const edge_conn_t *c);
void edge_net_body_take(edge_conn_t *c, const uint8_t *p, size_t n);
/* Has the peer done its part, or waits for us? Then it has its time anew. */
bool edge_net_body_may_go_on(edge_conn_t *c);
/* Everything written has gone out. True: more of the answer follows. */
bool edge_net_body_continues(edge_conn_t *c);
void edge_net_body_over(edge_conn_t *c);

/* net_ws.c */
void edge_net_ws_take(edge_conn_t *c, uint8_t *p, size_t n);

#endif
