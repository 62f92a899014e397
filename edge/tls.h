/* SPDX-License-Identifier: MPL-2.0
 * TLS for clients. tls.c is the only file with OpenSSL calls. Certificate and key can be loaded
 * again while connections go on with the old ones.
 */
#ifndef EDGE_TLS_H
#define EDGE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/wire/err.h"

typedef struct edge_tls edge_tls_t;
struct ssl_st;

/* What reading and writing give beside a count of bytes. */
enum {
    EDGE_TLS_END = 0,
    EDGE_TLS_AGAIN = -1, /* the socket has to become readable (or writable, for writing) */
    EDGE_TLS_FAILED = -2
};

/* PEM files: the certificate with its chain, and its key; the paths are borrowed. NULL if they do
 * not fit together or cannot be read (logged). */
edge_tls_t *edge_tls_new(const char *certificate, const char *key);
void edge_tls_destroy(edge_tls_t **tls);
/* Loads the files again, for connections that come from now on. -CQ_E_CONFIG: they are not usable;
 * the old ones stay (logged). */
int edge_tls_reload(edge_tls_t *tls) CQ_MUST_CHECK;
/* Have the files changed since they were last loaded or tried? */
bool edge_tls_is_stale(const edge_tls_t *tls);

/* A connection's state; NULL when memory is gone. */
struct ssl_st *edge_tls_begin(edge_tls_t *tls, int fd);
void edge_tls_end(struct ssl_st *ssl);
/* 1: done; EDGE_TLS_AGAIN: more is needed (*wants_write tells which way); EDGE_TLS_FAILED. */
int edge_tls_shake(struct ssl_st *ssl, bool *wants_write) CQ_MUST_CHECK;
/* Bytes, or one of the above. Write may take a part. */
ssize_t edge_tls_read(struct ssl_st *ssl, uint8_t *p, size_t n) CQ_MUST_CHECK;
ssize_t edge_tls_write(struct ssl_st *ssl, const uint8_t *p, size_t n) CQ_MUST_CHECK;
/* Is there input that was taken off the socket already? */
bool edge_tls_has_input(const struct ssl_st *ssl);
/* Tells the peer that nothing more will come. */
void edge_tls_say_end(struct ssl_st *ssl);

enum {
    EDGE_TLS_WS_ACCEPT_SIZE = 29
};
/* Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2). */
void edge_tls_ws_accept(const uint8_t *key, size_t n, char out[EDGE_TLS_WS_ACCEPT_SIZE]);

/* ---- hashes of bodies, as OpenSSL is here anyway ---- */

enum {
    EDGE_TLS_HASH_MAX = 32
};
struct evp_md_ctx_st;

/* How many bytes this hash has ("sha1", "sha256"); 0: not one of ours. */
size_t edge_tls_hash_size(const char *name);
/* Of a name that has a size. */
struct evp_md_ctx_st *edge_tls_hash_new(const char *name);
void edge_tls_hash_add(struct evp_md_ctx_st *hash, const void *p, size_t n);
/* Ends it. out may be NULL: nobody wants it any more. */
void edge_tls_hash_end(struct evp_md_ctx_st **hash, uint8_t out[EDGE_TLS_HASH_MAX]);

#endif
