/* SPDX-License-Identifier: MPL-2.0
 * Blobs over HTTP (docs/protocol.md section 11): uploads by tus, downloads by GET with a range. One
 * request at a time; each blocks until it is over or cq_http_stop is called. The only file that
 * includes <curl/curl.h> is http.c.
 *
 * Errors: those of the protocol as the server named them; -CQ_CLIENT_E_OFFLINE: the connection
 * could not be made, or broke (what was transferred until then counts); -CQ_E_BAD_FRAME: an answer
 * that makes no sense.
 */
#ifndef CLIENT_HTTP_H
#define CLIENT_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/limits.h"

typedef struct cq_http cq_http_t;

struct cq_http_server {
    const char *host; /* without brackets */
    uint16_t port;
    bool is_tls;
    const uint8_t *token;
    size_t token_size;
};

/* ca_file, accepts_any_certificate: as in client.h; borrowed until destroyed. */
cq_http_t *cq_http_new(const char *ca_file, bool accepts_any_certificate);
void cq_http_destroy(cq_http_t **p);
/* From any thread: the request under way and all later ones end with -CQ_E_DEADLINE. */
void cq_http_stop(cq_http_t *h);
/* Seconds that the last answer asked to wait, 0: it did not. */
uint64_t cq_http_retry_after_s(const cq_http_t *h);

/* Called as the bytes go: how many of the request are through. */
typedef void cq_http_progress_fn(void *ctx, uint64_t done);
/* Takes bytes of a download. 0, or what cq_http_get returns. */
typedef int cq_http_sink_fn(void *ctx, const uint8_t *data, size_t n);

int cq_http_create(cq_http_t *h,
                   const struct cq_http_server *s,
                   uint64_t length,
                   struct cq_id *blob) CQ_MUST_CHECK;
/* How far the upload is. */
int cq_http_offset(cq_http_t *h,
                   const struct cq_http_server *s,
                   const struct cq_id *blob,
                   uint64_t *offset) CQ_MUST_CHECK;
struct cq_http_part {
    int fd;
    uint64_t offset; /* from here to length: of the file and of the blob */
    uint64_t length;
    cq_http_progress_fn *on_progress;
    void *ctx;
};
int cq_http_upload(cq_http_t *h,
                   const struct cq_http_server *s,
                   const struct cq_id *blob,
                   const struct cq_http_part *part) CQ_MUST_CHECK;
/* The blob's bytes from offset on. */
int cq_http_get(cq_http_t *h,
                const struct cq_http_server *s,
                const struct cq_id *blob,
                uint64_t offset,
                cq_http_sink_fn *sink,
                void *ctx) CQ_MUST_CHECK;

#endif
