/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-tls: what OpenSSL keeps of each connection of an edge, by the line of its source
 * that asked for it. The edge's own TLS and a client of OpenSSL's talk over socket pairs in one
 * process; only what the edge's calls allocate is counted.
 */
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rt/config.h"
#include "common/rt/log.h"

#include "edge/tls.h"
#include "tests/bench/measure.h"

enum {
    PLACES_MAX = 4096, /* a power of two */
    FIRST_ONES = 20,   /* connections that pay for what all share */
    ROUNDS_MAX = 20,   /* of a handshake */
    SMALL = 100,       /* bytes: what takes less of a connection is not named */
    MALLOC_HEAD = 8,   /* of glibc's, and what it rounds up to */
    MALLOC_GRAIN = 16,
};

struct options {
    char *certificate, *key;
    uint64_t connections;
};

static const struct cq_config_item items[] = {
    {"tls-certificate", CQ_CONFIG_STR, offsetof(struct options, certificate), NULL, 1, 4096, "",
     "PEM file"},
    {"tls-key", CQ_CONFIG_STR, offsetof(struct options, key), NULL, 1, 4096, "", "PEM file"},
    {"connections", CQ_CONFIG_UINT, offsetof(struct options, connections), "200", 1, 4000, "",
     "to divide by"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

/* ---- who asked for how much ---- */

struct place {
    const char *file;
    int line;
    int64_t bytes; /* as malloc gives them */
};

/* Before each piece of memory. */
struct header {
    size_t size;
    struct place *place; /* NULL: the client's */
};

static struct place places[PLACES_MAX];
static bool is_edge; /* inside one of the edge's calls */

static struct place *
place_of(const char *file, int line)
{
    size_t i = ((uintptr_t)file + (size_t)line) % PLACES_MAX;
    while (places[i].file && (places[i].file != file || places[i].line != line)) {
        i = (i + 1) % PLACES_MAX;
    }
    places[i].file = file;
    places[i].line = line;
    return &places[i];
}

static void
count(const struct header *h, int sign)
{
    if (h->place) {
        size_t bytes = (h->size + MALLOC_HEAD + MALLOC_GRAIN - 1) / MALLOC_GRAIN * MALLOC_GRAIN;
        h->place->bytes += sign * (int64_t)bytes;
    }
}

static void *
take(size_t n, const char *file, int line)
{
    struct header *h = malloc(sizeof *h + n);
    if (!h) {
        return NULL;
    }
    *h = (struct header){n, is_edge ? place_of(file, line) : NULL};
    count(h, 1);
    return h + 1;
}

static void
give_back(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    if (p) {
        struct header *h = (struct header *)p - 1;
        count(h, -1);
        free(h);
    }
}

static void *
take_again(void *p, size_t n, const char *file, int line)
{
    void *q = n ? take(n, file, line) : NULL;
    if (p && (q || !n)) {
        size_t size = ((struct header *)p - 1)->size;
        if (q) {
            memcpy(q, p, size < n ? size : n);
        }
        give_back(p, file, line);
    }
    return q;
}

/* ---- connections ---- */

static void
check(bool ok, const char *what)
{
    if (!ok) {
        bench_measure_fail("%s failed", what);
    }
}

static void
shake(SSL *client, struct ssl_st *server)
{
    int rc = EDGE_TLS_AGAIN;
    for (int i = 0; i < ROUNDS_MAX && (rc != 1 || !SSL_is_init_finished(client)); i++) {
        bool wants_write;
        (void)SSL_do_handshake(client);
        is_edge = true;
        rc = rc == 1 ? 1 : edge_tls_shake(server, &wants_write);
        is_edge = false;
    }
    check(rc == 1 && SSL_is_init_finished(client), "a TLS handshake");
}

/* A byte each way, as whoever has logged in has said something. */
static void
talk(SSL *client, struct ssl_st *server)
{
    uint8_t byte = 1;
    check(SSL_write(client, &byte, 1) == 1, "the client's write");
    is_edge = true;
    check(edge_tls_read(server, &byte, 1) == 1, "the edge's read");
    check(edge_tls_write(server, &byte, 1) == 1, "the edge's write");
    is_edge = false;
    check(SSL_read(client, &byte, 1) == 1, "the client's read");
}

/* It stays open. */
static void
connect_one(SSL_CTX *clients, edge_tls_t *edge)
{
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
          "a socket pair");
    SSL *client = SSL_new(clients);
    check(client && SSL_set_fd(client, ends[0]) == 1, "a client");
    SSL_set_connect_state(client);
    is_edge = true;
    struct ssl_st *server = edge_tls_begin(edge, ends[1]);
    is_edge = false;
    check(server != NULL, "the edge's side");
    shake(client, server);
    talk(client, server);
}

/* ---- figures ---- */

static int
larger_first(const void *a, const void *b)
{
    int64_t x = ((const struct place *)a)->bytes;
    int64_t y = ((const struct place *)b)->bytes;
    return (x < y) - (x > y);
}

static void
say(double connections)
{
    double sum = 0;
    qsort(places, PLACES_MAX, sizeof places[0], larger_first);
    for (size_t i = 0; i < PLACES_MAX; i++) {
        sum += (double)places[i].bytes;
    }
    bench_measure_say("openssl_per_connection", sum / connections, "bytes");
    for (size_t i = 0; i < PLACES_MAX && (double)places[i].bytes >= SMALL * connections; i++) {
        char metric[200];
        const char *slash = strrchr(places[i].file, '/');
        const char *file = slash ? slash + 1 : places[i].file;
        (void)snprintf(metric, sizeof metric, "openssl_per_connection.%s:%d", file, places[i].line);
        bench_measure_say(metric, (double)places[i].bytes / connections, "bytes");
    }
}

int
main(int argc, char **argv)
{
    struct options options;
    /* Before OpenSSL allocates anything. */
    check(CRYPTO_set_mem_functions(take, take_again, give_back) == 1, "counting memory");
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-tls", argc, argv, &options);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    cq_log_init("bench", CQ_LOG_WARN);
    edge_tls_t *edge = edge_tls_new(options.certificate, options.key);
    SSL_CTX *clients = SSL_CTX_new(TLS_client_method());
    check(edge && clients, "loading the certificate");
    for (uint64_t i = 0; i < FIRST_ONES; i++) {
        connect_one(clients, edge);
    }
    for (size_t i = 0; i < PLACES_MAX; i++) {
        places[i].bytes = 0;
    }
    for (uint64_t i = 0; i < options.connections; i++) {
        connect_one(clients, edge);
    }
    bench_measure_begin("tls", "%llu connections, %s", (unsigned long long)options.connections,
                        OpenSSL_version(OPENSSL_VERSION));
    say((double)options.connections);
    cq_config_free(items, ITEM_COUNT, &options);
    return 0;
}
