/* SPDX-License-Identifier: MPL-2.0
 * What an idle connection keeps decides how many fit: buffers go back when they are empty
 * (SSL_MODE_RELEASE_BUFFERS), nothing is read ahead, there is no session cache (tickets are kept by
 * the clients), and one ticket each instead of two.
 */
#include "edge/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

enum {
    TICKET_KEYS_SIZE = 80,
    SHA1_SIZE = 20,
    KEY_MAX = 64
};

static const char ciphers12[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
static const char ws_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/* What tells one version of a file from another. */
struct stamp {
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct edge_tls {
    const char *certificate, *key;
    SSL_CTX *ctx;
    struct stamp stamps[2];
};

static void
take_stamps(const edge_tls_t *tls, struct stamp stamps[2])
{
    const char *const paths[2] = {tls->certificate, tls->key};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        memset(&stamps[i], 0, sizeof stamps[i]);
        if (stat(paths[i], &st) == 0) {
            stamps[i].inode = st.st_ino;
            stamps[i].size = st.st_size;
            stamps[i].changed = st.st_ctim;
        }
    }
}

static void
log_failure(const edge_tls_t *tls, const char *step)
{
    char text[200], path[200];
    ERR_error_string_n(ERR_peek_error(), text, sizeof text);
    ERR_clear_error();
    char safe[256];
    CQ_LOG(WARN, "EDGE-TLS-LOAD-FAIL", "step=%s certificate=%s error=%s", step,
           cq_log_text(tls->certificate, strlen(tls->certificate), path, sizeof path),
           cq_log_text(text, strlen(text), safe, sizeof safe));
}

/* A server must not ask its terminal for a password. */
static int
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL calls it */
on_password(char *out, int size, int is_writing, void *ctx)
{
    (void)out, (void)size, (void)is_writing, (void)ctx;
    return -1;
}

static int
on_alpn(SSL *ssl,
        const unsigned char **out,
        unsigned char *out_size,
        const unsigned char *in,
        unsigned in_size,
        void *ctx)
{
    (void)ssl, (void)ctx;
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    int rc = SSL_select_next_proto(&chosen, out_size, ours, sizeof ours - 1, in, in_size);
    *out = chosen;
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void
set_options(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_cipher_list(ctx, ciphers12);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_default_passwd_cb(ctx, on_password);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
}

/* Gives a context with the files as they are now; NULL if they are not usable (logged). */
static SSL_CTX *
load(const edge_tls_t *tls)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    CQ_ASSERT(ctx);
    set_options(ctx);
    const char *step = NULL;
    if (SSL_CTX_use_certificate_chain_file(ctx, tls->certificate) != 1) {
        step = "certificate";
    } else if (SSL_CTX_use_PrivateKey_file(ctx, tls->key, SSL_FILETYPE_PEM) != 1) {
        step = "key";
    } else if (SSL_CTX_check_private_key(ctx) != 1) {
        step = "pair";
    }
    if (step) {
        log_failure(tls, step);
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

edge_tls_t *
edge_tls_new(const char *certificate, const char *key)
{
    edge_tls_t *tls = cq_alloc(sizeof *tls);
    tls->certificate = certificate;
    tls->key = key;
    take_stamps(tls, tls->stamps);
    tls->ctx = load(tls);
    if (!tls->ctx) {
        edge_tls_destroy(&tls);
    }
    return tls;
}

void
edge_tls_destroy(edge_tls_t **tls)
{
    if (*tls) {
        SSL_CTX_free((*tls)->ctx);
        free(*tls);
        *tls = NULL;
    }
}

int
edge_tls_reload(edge_tls_t *tls)
{
    take_stamps(tls, tls->stamps);
    SSL_CTX *fresh = load(tls);
    if (!fresh) {
        return -CQ_E_CONFIG;
    }
    /* Tickets given out before go on to be good. */
    uint8_t keys[TICKET_KEYS_SIZE];
    if (SSL_CTX_get_tlsext_ticket_keys(tls->ctx, keys, sizeof keys) == 1) {
        (void)SSL_CTX_set_tlsext_ticket_keys(fresh, keys, sizeof keys);
        OPENSSL_cleanse(keys, sizeof keys);
    }
    SSL_CTX_free(tls->ctx); /* connections hold it as long as they need it */
    tls->ctx = fresh;
    char path[200];
    CQ_LOG(INFO, "EDGE-TLS-RELOAD", "certificate=%s",
           cq_log_text(tls->certificate, strlen(tls->certificate), path, sizeof path));
    return 0;
}

bool
edge_tls_is_stale(const edge_tls_t *tls)
{
    struct stamp now[2];
    take_stamps(tls, now);
    for (int i = 0; i < 2; i++) {
        const struct stamp *was = &tls->stamps[i];
        if (now[i].inode != was->inode || now[i].size != was->size ||
            now[i].changed.tv_sec != was->changed.tv_sec ||
            now[i].changed.tv_nsec != was->changed.tv_nsec) {
            return true;
        }
    }
    return false;
}

/* ---- connections ---- */

struct ssl_st *
edge_tls_begin(edge_tls_t *tls, int fd)
{
    SSL *ssl = SSL_new(tls->ctx);
    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}

void
edge_tls_end(struct ssl_st *ssl)
{
    SSL_free(ssl);
}

int
edge_tls_shake(struct ssl_st *ssl, bool *wants_write)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(ssl);
    if (rc == 1) {
        return 1;
    }
    int err = SSL_get_error(ssl, rc);
    *wants_write = err == SSL_ERROR_WANT_WRITE;
    return err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE ? EDGE_TLS_AGAIN
                                                                     : EDGE_TLS_FAILED;
}

static ssize_t
judge(SSL *ssl, int rc)
{
    switch (SSL_get_error(ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return EDGE_TLS_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return EDGE_TLS_END;
    default:
        return EDGE_TLS_FAILED;
    }
}

ssize_t
edge_tls_read(struct ssl_st *ssl, uint8_t *p, size_t n)
{
    ERR_clear_error();
    size_t got = 0;
    int rc = SSL_read_ex(ssl, p, n, &got);
    return rc == 1 ? (ssize_t)got : judge(ssl, rc);
}

ssize_t
edge_tls_write(struct ssl_st *ssl, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ERR_clear_error();
        size_t written = 0;
        int rc = SSL_write_ex(ssl, p + done, n - done, &written);
        if (rc != 1) {
            ssize_t why = judge(ssl, rc);
            return why == EDGE_TLS_AGAIN && done ? (ssize_t)done
                   : why == EDGE_TLS_AGAIN       ? EDGE_TLS_AGAIN
                                                 : EDGE_TLS_FAILED;
        }
        done += written;
    }
    return (ssize_t)done;
}

bool
edge_tls_has_input(const struct ssl_st *ssl)
{
    return SSL_pending(ssl) > 0;
}

void
edge_tls_say_end(struct ssl_st *ssl)
{
    ERR_clear_error();
    if (SSL_is_init_finished(ssl)) {
        (void)SSL_shutdown(ssl);
    }
}

void
edge_tls_ws_accept(const uint8_t *key, size_t n, char out[EDGE_TLS_WS_ACCEPT_SIZE])
{
    uint8_t text[KEY_MAX + sizeof ws_guid];
    uint8_t hash[SHA1_SIZE];
    size_t used = n < KEY_MAX ? n : KEY_MAX;
    memcpy(text, key, used);
    memcpy(text + used, ws_guid, sizeof ws_guid - 1);
    unsigned size = sizeof hash;
    int rc = EVP_Digest(text, used + sizeof ws_guid - 1, hash, &size, EVP_sha1(), NULL);
    CQ_ASSERT(rc == 1);
    (void)EVP_EncodeBlock((unsigned char *)out, hash, sizeof hash);
}

/* ---- hashes ---- */

static const struct {
    const char *name;
    size_t size;
    const EVP_MD *(*md)(void);
} hashes[] = {
    {"sha1", 20, EVP_sha1},
    {"sha256", 32, EVP_sha256},
};

enum {
    HASH_COUNT = sizeof hashes / sizeof hashes[0]
};

static size_t
find_hash(const char *name)
{
    size_t i = 0;
    while (i < HASH_COUNT && strcmp(hashes[i].name, name) != 0) {
        i++;
    }
    return i;
}

size_t
edge_tls_hash_size(const char *name)
{
    size_t i = find_hash(name);
    return i < HASH_COUNT ? hashes[i].size : 0;
}

struct evp_md_ctx_st *
edge_tls_hash_new(const char *name)
{
    size_t i = find_hash(name);
    CQ_ASSERT(i < HASH_COUNT);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CQ_ASSERT(ctx);
    int rc = EVP_DigestInit_ex(ctx, hashes[i].md(), NULL);
    CQ_ASSERT(rc == 1);
    return ctx;
}

void
edge_tls_hash_add(struct evp_md_ctx_st *hash, const void *p, size_t n)
{
    (void)EVP_DigestUpdate(hash, p, n);
}

void
edge_tls_hash_end(struct evp_md_ctx_st **hash, uint8_t out[EDGE_TLS_HASH_MAX])
{
    if (*hash && out) {
        (void)EVP_DigestFinal_ex(*hash, out, NULL);
    }
    EVP_MD_CTX_free(*hash);
    *hash = NULL;
}
