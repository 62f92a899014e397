/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/blob.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "edge/auth.h"
#include "edge/ops.h"
#include "edge/origin.h"
#include "edge/tus.h"

enum {
    DEADLINE_MS = 10000,
    HEADERS_MAX = 1536,
    BODY_MAX = 400,
    NAME_MAX_BYTES = 32,
    TOKEN_MAX = 512,
    HOST_MAX = 1024,
    UNAUTHORIZED = 401,
};

/* ---- answers ---- */

static const char exposed[] =
    "access-control-expose-headers: Location, Upload-Offset, Upload-Length, Upload-Expires, "
    "Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, ETag, "
    "Content-Range, Accept-Ranges, Retry-After\r\n";

/* The header lines of an answer: what all have, then its own. */
static const char *
add_headers(const char *origin, const char *own, char out[HEADERS_MAX])
{
    (void)snprintf(out, HEADERS_MAX, "tus-resumable: 1.0.0\r\nvary: Origin\r\n%s%s%s%s%s",
                   origin[0] ? "access-control-allow-origin: " : "", origin,
                   origin[0] ? "\r\n" : "", origin[0] ? exposed : "", own ? own : "");
    return out;
}

static void
answer(edge_conn_t *c, const char *origin, const struct edge_net_reply *r)
{
    char headers[HEADERS_MAX];
    struct edge_net_reply full = *r;
    full.headers = add_headers(origin, r->headers, headers);
    edge_net_reply(c, &full);
}

static void
answer_words(edge_conn_t *c, const char *origin, const struct edge_blob_words *w)
{
    char body[BODY_MAX];
    int n = snprintf(body, sizeof body, "{\"error\":\"%s\",\"text\":\"%s\"}\n", w->name, w->text);
    const struct edge_net_reply r = {.status = w->status,
                                     .type = "application/json",
                                     .headers = w->headers,
                                     .body = body,
                                     .n = (size_t)n};
    answer(c, origin, &r);
}

/* Which status an error has, in how many seconds it is worth another try (0: it is not said), and
 * better words than its own, if need be. */
static const struct status {
    int err;
    uint16_t status;
    uint16_t retry_s;
    const char *text;
} statuses[] = {
    {CQ_E_BAD_ARG, 400, 0, "a header field is missing or malformed"},
    {CQ_E_BAD_TOKEN, 401, 0, NULL},
    {CQ_E_REVOKED, 401, 0, NULL},
    {CQ_E_NOT_FOUND, 404, 0, "no such blob or upload, or not yours"},
    {CQ_E_BAD_STATE, 409, 0, "complete already, or another transfer goes on with it"},
    {CQ_E_BLOB_OFFSET, 409, 0, NULL},
    {CQ_E_TOO_BIG, 413, 0, NULL},
    {CQ_E_RATE_LIMITED, 429, 1, NULL},
    {CQ_E_CRYPTO, 460, 0, "the checksum does not fit: nothing of this request was kept"},
    {CQ_E_CORRUPT, 500, 0, NULL},
    {CQ_E_BUSY, 503, 1, NULL},
    {CQ_E_UNAVAILABLE, 503, 1, NULL},
    {CQ_E_DEADLINE, 504, 1, NULL},
    {CQ_E_NO_SPACE, 507, 0, NULL},
    {CQ_E_QUOTA, 507, 0, NULL},
};

static const struct status *
find_status(int err)
{
    static const struct status other = {0, 500, 0, NULL};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        if (statuses[i].err == err) {
            return &statuses[i];
        }
    }
    return &other;
}

/* detail: the offset that would be right, or after how many ms there is a token again. */
static void
write_hint(const struct status *s, uint64_t detail, char *out, size_t room)
{
    uint64_t retry_s = s->err == CQ_E_RATE_LIMITED ? (detail + 999) / 1000 : s->retry_s;
    if (retry_s) {
        (void)snprintf(out, room, "retry-after: %" PRIu64 "\r\n", retry_s);
    } else if (s->err == CQ_E_BLOB_OFFSET) {
        (void)snprintf(out, room, "upload-offset: %" PRIu64 "\r\n", detail);
    } else if (s->status == UNAUTHORIZED) {
        (void)snprintf(out, room, "www-authenticate: Bearer\r\n");
    }
}

/* The error's name in lower case. */
static void
write_name(int err, char out[NAME_MAX_BYTES])
{
    const char *from = cq_err_name(err);
    size_t n = 0;
    for (; from[n] && n + 1 < NAME_MAX_BYTES; n++) {
        bool is_upper = from[n] >= 'A' && from[n] <= 'Z';
        out[n] = (char)(unsigned char)(is_upper ? from[n] - 'A' + 'a' : from[n]);
    }
    out[n] = '\0';
}

/* made: the upload that there is all the same, or NULL. */
static void
answer_err(edge_conn_t *c, const char *origin, int err, uint64_t detail, const struct cq_id *made)
{
    char name[NAME_MAX_BYTES] = "", headers[160] = "", hex[CQ_ID_HEX_SIZE];
    const struct status *s = find_status(abs(err));
    const struct edge_blob_words w = {s->status, name, s->text ? s->text : cq_err_text(err),
                                      headers};
    write_name(err, name);
    write_hint(s, detail, headers, sizeof headers);
    if (made) {
        size_t n = strlen(headers);
        (void)snprintf(headers + n, sizeof headers - n, "location: /blob/%s\r\n",
                       cq_id_hex(made, hex));
    }
    answer_words(c, origin, &w);
}

void
edge_blob_refuse(const struct edge_blob_request *rq, int err, uint64_t detail)
{
    answer_err(rq->conn, rq->origin, err, detail, NULL);
}

void
edge_blob_refuse_with(const struct edge_blob_request *rq, const struct edge_blob_words *w)
{
    answer_words(rq->conn, rq->origin, w);
}

void
edge_blob_fail(struct edge_blob *b, int err, uint64_t detail)
{
    if (b->conn) {
        b->edge->metrics->blob_failed_total++;
        answer_err(b->conn, b->origin, err, detail, b->is_made ? &b->id : NULL);
    }
}

void
edge_blob_fail_with(struct edge_blob *b, const struct edge_blob_words *w)
{
    if (b->conn) {
        b->edge->metrics->blob_failed_total++;
        answer_words(b->conn, b->origin, w);
    }
}

void
edge_blob_reply(struct edge_blob *b, const struct edge_net_reply *r)
{
    if (b->conn) {
        answer(b->conn, b->origin, r);
    }
}

void
edge_blob_stream(struct edge_blob *b, const struct edge_net_reply *r, uint64_t n)
{
    char headers[HEADERS_MAX];
    struct edge_net_reply full = *r;
    full.headers = add_headers(b->origin, r->headers, headers);
    if (b->conn) {
        edge_net_stream_begin(b->conn, &full, n);
    }
}

/* ---- requests under way ---- */

static size_t
count_of(const edge_t *e, const struct cq_id *user)
{
    size_t count = 0;
    for (const struct edge_blob *b = e->blobs; b; b = b->next) {
        count += b->kind->is_transfer && cq_id_eq(&b->user, user);
    }
    return count;
}

static void
on_body(void *user, const uint8_t *p, size_t n)
{
    struct edge_blob *b = user;
    edge_blob_hold(b);
    b->edge->metrics->blob_bytes_in_total += n;
    b->kind->on_body(b, p, n);
    edge_blob_release(b);
}

static void
on_body_end(void *user)
{
    struct edge_blob *b = user;
    edge_blob_hold(b);
    b->kind->on_body_end(b);
    edge_blob_release(b);
}

static void
on_room(void *user)
{
    struct edge_blob *b = user;
    edge_blob_hold(b);
    b->kind->on_room(b);
    edge_blob_release(b);
}

static void
on_over(void *user)
{
    struct edge_blob *b = user;
    b->conn = NULL;
    if (b->kind->on_gone) {
        b->kind->on_gone(b);
    }
    edge_blob_release(b);
}

static const struct edge_net_exchange calls = {on_body, on_body_end, on_room, on_over};

void *
edge_blob_new(const struct edge_blob_request *rq, const struct edge_blob_kind *kind, size_t size)
{
    edge_t *e = rq->edge;
    if (kind->is_transfer) {
        size_t mine = count_of(e, &rq->token.user);
        if (e->metrics->blob_transfers >= e->cfg->transfers_max ||
            mine >= e->cfg->user_transfers_max) {
            edge_blob_refuse(rq, mine >= e->cfg->user_transfers_max ? CQ_E_RATE_LIMITED : CQ_E_BUSY,
                             1000);
            return NULL;
        }
        e->metrics->blob_transfers++;
    }
    struct edge_blob *b = cq_alloc(size);
    b->edge = e;
    b->conn = rq->conn;
    b->kind = kind;
    b->user = rq->token.user;
    b->device = rq->token.device;
    b->generation = rq->token.generation;
    b->id = rq->id;
    b->holds = 1;
    memcpy(b->origin, rq->origin, sizeof b->origin);
    b->next = e->blobs;
    if (b->next) {
        b->next->prev = b;
    }
    e->blobs = b;
    edge_net_exchange_begin(rq->conn, rq->head, rq->body_n, &calls, b);
    return b;
}

static void
free_blob(struct edge_blob *b)
{
    edge_t *e = b->edge;
    *(b->prev ? &b->prev->next : &e->blobs) = b->next;
    if (b->next) {
        b->next->prev = b->prev;
    }
    e->metrics->blob_transfers -= b->kind->is_transfer;
    if (b->kind->on_free) {
        b->kind->on_free(b);
    }
    free(b);
}

void
edge_blob_hold(struct edge_blob *b)
{
    b->holds++;
}

void
edge_blob_release(struct edge_blob *b)
{
    if (!--b->holds) {
        free_blob(b);
    }
}

void
edge_blob_free_all(edge_t *e)
{
    struct edge_blob *next;
    for (struct edge_blob *b = e->blobs; b; b = next) {
        next = b->next;
        free_blob(b);
    }
}

void
edge_blob_revoke(edge_t *e, const struct cq_id *user, const struct cq_id *device)
{
    struct edge_blob *next;
    for (struct edge_blob *b = e->blobs; b; b = next) {
        next = b->next;
        bool is_meant = b->conn && cq_id_eq(&b->user, user) && cq_id_eq(&b->device, device);
        if (is_meant && edge_revoked_has(e->revoked, user, device, b->generation)) {
            edge_net_kill(b->conn); /* only this one may be freed by that */
        }
    }
}

int
edge_blob_ask(struct edge_blob *b, const struct edge_blob_ask *ask)
{
    const struct cq_bus_wait wait = {DEADLINE_MS, ask->fn, ask->ctx};
    int rc = cq_bus_request(b->edge->bus, ask->dst, ask->op, ask->schema, ask->in, &wait);
    if (!rc) {
        edge_blob_hold(b);
    }
    return rc;
}

/* ---- requests ---- */

static int
authenticate(struct edge_blob_request *rq, uint64_t *detail)
{
    edge_t *e = rq->edge;
    uint8_t token[TOKEN_MAX];
    if (!e->store.is_known || edge_drain_is_closed(e)) {
        return -CQ_E_UNAVAILABLE;
    }
    *detail = edge_ops_take_for(e, EDGE_RATE_RESUME, NULL, edge_ip_key(edge_net_ip(rq->conn)));
    if (*detail) {
        return -CQ_E_RATE_LIMITED;
    }
    int n = edge_tus_bearer(edge_head_field(rq->head, "authorization"), token, sizeof token);
    if (n < 0) {
        e->metrics->auth_failed_total++;
        return n;
    }
    int proof = edge_auth_token(e, (struct cq_view){token, (size_t)n}, &rq->token);
    return proof < 0 ? proof : 0;
}

static const struct route {
    const char *method;
    bool is_of_one; /* /blob/ID, else /blob */
    bool is_tus;    /* needs Tus-Resumable; without it the next row may fit */
    bool may_fall;
    uint8_t rate;
    edge_blob_fn *fn;
} routes[] = {
    {"POST", false, true, false, EDGE_RATE_UPLOAD, edge_blob_up_create},
    {"HEAD", true, true, true, EDGE_RATE_BLOB, edge_blob_up_state},
    {"HEAD", true, false, false, EDGE_RATE_BLOB, edge_blob_down_get},
    {"GET", true, false, false, EDGE_RATE_BLOB, edge_blob_down_get},
    {"PATCH", true, true, false, EDGE_RATE_BLOB, edge_blob_up_patch},
    {"DELETE", true, true, false, EDGE_RATE_BLOB, edge_blob_up_drop},
};

static bool
is_tus_request(const struct edge_head *h)
{
    return edge_head_count(h, "tus-resumable") > 0;
}

static const struct route *
find_route(const struct edge_blob_request *rq, bool is_of_one)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        bool fits = r->is_of_one == is_of_one && edge_head_is(rq->method, r->method);
        if (fits && (!r->may_fall || is_tus_request(rq->head))) {
            return r;
        }
    }
    return NULL;
}

/* What this edge can do, and for browsers what a page may send. */
static void
serve_options(const struct edge_blob_request *rq)
{
    char headers[1024];
    (void)snprintf(
        headers, sizeof headers,
        "tus-version: 1.0.0\r\n"
        "tus-extension: creation,creation-with-upload,termination,expiration,checksum\r\n"
        "tus-max-size: %" PRIu64 "\r\ntus-checksum-algorithm: sha1,sha256\r\n%s",
        rq->edge->cfg->blob_max_bytes,
        rq->origin[0] ? "access-control-allow-methods: POST, GET, HEAD, PATCH, DELETE, "
                        "OPTIONS\r\naccess-control-allow-headers: Authorization, "
                        "Content-Type, Upload-Length, Upload-Offset, Upload-Metadata, "
                        "Upload-Checksum, Tus-Resumable, X-HTTP-Method-Override, "
                        "X-Requested-With, X-Request-ID, Range, If-Range, "
                        "If-None-Match\r\naccess-control-max-age: 86400\r\n"
                      : "");
    const struct edge_net_reply r = {.status = 204, .headers = headers};
    answer(rq->conn, rq->origin, &r);
}

/* Only an allowed page gets to see anything. */
static bool
take_origin(struct edge_blob_request *rq)
{
    char host[HOST_MAX];
    bool ok = edge_head_copy(edge_head_field(rq->head, "origin"), rq->origin, sizeof rq->origin) &&
              edge_head_copy(edge_head_field(rq->head, "host"), host, sizeof host) &&
              edge_origin_ok(rq->edge->cfg->origins, rq->origin, host);
    if (!ok) {
        static const struct edge_blob_words w = {403, "origin", "this origin is not allowed", NULL};
        rq->origin[0] = '\0';
        edge_blob_refuse_with(rq, &w);
    }
    return ok;
}

/* Of the user, and of the address for what takes room on the disk. */
static uint64_t
take_tokens(const struct edge_blob_request *rq, enum edge_rate rate)
{
    uint64_t address = edge_ip_key(edge_net_ip(rq->conn));
    uint64_t retry_ms = edge_ops_take_for(rq->edge, rate, &rq->token.user, address);
    if (!retry_ms && rate == EDGE_RATE_UPLOAD) {
        retry_ms = edge_ops_take_for(rq->edge, EDGE_RATE_UPLOAD_ADDRESS, NULL, address);
    }
    return retry_ms;
}

static void
serve(struct edge_blob_request *rq, const struct route *r)
{
    static const struct edge_blob_words no_tus = {
        412, "tus_resumable", "Tus-Resumable must be 1.0.0", "tus-version: 1.0.0\r\n"};
    uint64_t detail = 0;
    if (r->is_tus && !edge_head_is(edge_head_field(rq->head, "tus-resumable"), "1.0.0")) {
        edge_blob_refuse_with(rq, &no_tus);
        return;
    }
    int rc = authenticate(rq, &detail);
    if (!rc) {
        detail = take_tokens(rq, (enum edge_rate)r->rate);
        rc = detail ? -CQ_E_RATE_LIMITED : 0;
    }
    unsigned status = edge_head_body(rq->head, &rq->body_n);
    if (rc) {
        edge_blob_refuse(rq, rc, detail);
    } else if (status) {
        const struct edge_blob_words w = {status, "body", "a body needs its Content-Length", NULL};
        edge_blob_refuse_with(rq, &w);
    } else {
        r->fn(rq);
    }
}

void
edge_blob_serve(edge_t *e, edge_conn_t *c, const struct edge_head *head)
{
    struct edge_blob_request rq = {.edge = e, .conn = c, .head = head, .method = head->method};
    if (edge_head_count(head, "x-http-method-override")) { /* tus: the actual one is ignored */
        rq.method = edge_head_field(head, "x-http-method-override");
    }
    bool is_of_one = edge_tus_path(head->path, &rq.id);
    e->metrics->blob_requests_total++;
    if (!take_origin(&rq)) {
        return;
    }
    if (!is_of_one && !edge_head_is(head->path, "/blob")) {
        edge_blob_refuse(&rq, CQ_E_NOT_FOUND, 0);
        return;
    }
    if (edge_head_is(rq.method, "OPTIONS")) {
        serve_options(&rq);
        return;
    }
    const struct route *r = find_route(&rq, is_of_one);
    if (!r) {
        const struct edge_blob_words w = {405, "method", "not here",
                                          is_of_one ? "allow: GET, HEAD, PATCH, DELETE, OPTIONS\r\n"
                                                    : "allow: POST, OPTIONS\r\n"};
        edge_blob_refuse_with(&rq, &w);
        return;
    }
    serve(&rq, r);
}
