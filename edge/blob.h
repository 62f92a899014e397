/* SPDX-License-Identifier: MPL-2.0
 * Blobs over HTTP: uploads by tus 1.0, downloads with ranges (docs/protocol.md). An edge keeps
 * nothing: it asks store and blobd, and passes bytes on, so much of them as both sides take. blob.c
 * says who may ask and how it is answered, blob_up.c and blob_down.c what is done.
 */
#ifndef EDGE_BLOB_H
#define EDGE_BLOB_H

#include "common/rt/token.h"

#include "edge/edge.h"
#include "edge/net.h"

/* Memory per transfer: on its way to or from blobd are at most EDGE_BLOB_WINDOW parts (each kept
 * here until it is answered, and once more in a queue of ours, the broker's or blobd's), and one
 * more is being filled or written. */
enum {
    EDGE_BLOB_PART_BYTES = 65536, /* one piece of blobd's: nothing is hashed twice */
    EDGE_BLOB_WINDOW = 2,
    EDGE_BLOB_ORIGIN_MAX = 256,
};

/* What is known of a request before anybody is asked. Lives for the call. */
struct edge_blob_request {
    edge_t *edge;
    edge_conn_t *conn;
    const struct edge_head *head;
    struct cq_view method; /* X-HTTP-Method-Override's, else the head's */
    struct cq_token token;
    struct cq_id id; /* of the path */
    uint64_t body_n;
    char origin[EDGE_BLOB_ORIGIN_MAX]; /* that may see the answer; empty: no browser */
};

struct edge_blob;

/* What a kind of request does with what comes. All are called while the blob is held. */
struct edge_blob_kind {
    void (*on_body)(struct edge_blob *b, const uint8_t *p, size_t n);
    void (*on_body_end)(struct edge_blob *b);
    void (*on_room)(struct edge_blob *b);
    void (*on_gone)(struct edge_blob *b); /* b->conn is NULL: nothing can be answered any more */
    void (*on_free)(struct edge_blob *b); /* frees what it has, not itself */
    bool is_transfer;                     /* counts against the bounds of transfers */
};

/* A request under way; first in the struct of each kind. Freed when nobody holds it: its connection
 * does, each request on the bus, and whoever is calling it. */
struct edge_blob {
    edge_t *edge;
    edge_conn_t *conn; /* NULL: gone */
    struct edge_blob *prev, *next;
    const struct edge_blob_kind *kind;
    struct cq_id user, device, id;
    uint64_t generation;
    unsigned holds;
    bool is_made; /* this request has begun the upload `id`: an error says where it is */
    char origin[EDGE_BLOB_ORIGIN_MAX];
};

/* ---- blob.c ---- */

/* Answers a request for /blob or something below. */
void edge_blob_serve(edge_t *e, edge_conn_t *c, const struct edge_head *head);
/* Ends all requests of this device, whose tokens are void. */
void edge_blob_revoke(edge_t *e, const struct cq_id *user, const struct cq_id *device);
/* Frees all; the connections and the bus are gone. */
void edge_blob_free_all(edge_t *e);

/* A request that is answered later; size: of the kind's struct. NULL: too many; it was refused. */
void *
edge_blob_new(const struct edge_blob_request *rq, const struct edge_blob_kind *kind, size_t size);
void edge_blob_hold(struct edge_blob *b);
/* May free it. */
void edge_blob_release(struct edge_blob *b);
/* Asks on the bus; fn gets ctx and releases the blob when it is done. On an error fn is not called.
 */
struct edge_blob_ask {
    const char *dst;
    uint8_t op;
    const struct cq_schema *schema;
    const void *in;
    cq_bus_reply_fn *fn;
    void *ctx;
};
int edge_blob_ask(struct edge_blob *b, const struct edge_blob_ask *ask) CQ_MUST_CHECK;

/* Adds what every answer has and answers, if anybody is there. */
void edge_blob_reply(struct edge_blob *b, const struct edge_net_reply *r);
/* The same, but the body follows (edge_net_stream_write). */
void edge_blob_stream(struct edge_blob *b, const struct edge_net_reply *r, uint64_t n);
/* Answers with an error: of ours, or a status with its own words. */
void edge_blob_fail(struct edge_blob *b, int err, uint64_t detail);
struct edge_blob_words {
    unsigned status;
    const char *name, *text;
    const char *headers; /* NULL: none */
};
void edge_blob_fail_with(struct edge_blob *b, const struct edge_blob_words *w);
/* The same before there is a blob. */
void edge_blob_refuse(const struct edge_blob_request *rq, int err, uint64_t detail);
void edge_blob_refuse_with(const struct edge_blob_request *rq, const struct edge_blob_words *w);

/* ---- blob_up.c, blob_down.c ---- */

typedef void edge_blob_fn(const struct edge_blob_request *rq);
edge_blob_fn edge_blob_up_create, edge_blob_up_state, edge_blob_up_patch, edge_blob_up_drop,
    edge_blob_down_get;

#endif
