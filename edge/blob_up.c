/* SPDX-License-Identifier: MPL-2.0
 * Uploads: tus 1.0 (tus.io). The body of a PATCH goes to blobd in parts: BEGIN, then WRITEs with a
 * bounded number unanswered, then END. Whatever happens to the client's connection, END is sent:
 * what has come is kept and the client goes on behind it. With a checksum nothing is kept before it
 * fits. A part that does not fill up goes after a third of transfer-timeout-ms: blobd ends
 * transfers that it hears nothing of (its upload-idle-s), and a slow client is to get on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "edge/blob.h"
#include "edge/tus.h"

enum {
    HEADERS_MAX = 256,
    DATE_MAX = 40,
    LATE_SHARE = 3,
    WAIT_MS = 5,
    QUIET_ENOUGH = 10, /* so many waits without any data: nothing more comes */
    WAITS_MAX = 200,
};

struct upload;
typedef void upload_state_fn(struct upload *u, const struct cq_blob_state *m);

struct upload {
    struct edge_blob b; /* first */
    upload_state_fn *with_state;
    bool is_creation; /* POST; else PATCH */
    bool is_transfer; /* BEGIN was answered, END was not yet sent */
    bool is_all;      /* nothing more will come */
    bool is_late;     /* what there is of a part has waited long enough */
    uint64_t length;  /* of the whole blob */
    uint64_t expires_unix_ms;
    uint64_t offset; /* that the body begins at */
    uint64_t body_n;
    uint64_t received; /* bytes of the body */
    uint64_t sent;     /* of them, to blobd */
    size_t wanted;     /* of the client, not yet here */
    uint64_t transfer; /* its number */
    unsigned in_flight;
    int err; /* the first */
    uint64_t detail;
    struct edge_tus_checksum checksum; /* size 0: none */
    struct evp_md_ctx_st *hash;
    cq_buf_t part;
    cq_timer_t *late;
    /* HEAD: waits for a transfer that goes on */
    cq_timer_t *wait;
    uint64_t seen;
    unsigned quiet_count, wait_count;
};

/* ---- answers ---- */

static size_t
add_expires(const struct upload *u, bool is_whole, char *out, size_t room)
{
    char date[DATE_MAX];
    struct tm tm;
    time_t at = (time_t)(u->expires_unix_ms / 1000);
    if (is_whole || !gmtime_r(&at, &tm)) {
        return 0;
    }
    (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    int n = snprintf(out, room, "upload-expires: %s\r\n", date);
    return n > 0 ? (size_t)n : 0;
}

/* The upload is at this offset. */
static void
answer(struct upload *u, uint64_t offset)
{
    char headers[HEADERS_MAX], hex[CQ_ID_HEX_SIZE];
    size_t n = (size_t)snprintf(headers, sizeof headers, "upload-offset: %" PRIu64 "\r\n", offset);
    if (u->is_creation) {
        n += (size_t)snprintf(headers + n, sizeof headers - n, "location: /blob/%s\r\n",
                              cq_id_hex(&u->b.id, hex));
    }
    (void)add_expires(u, offset == u->length, headers + n, sizeof headers - n);
    const struct edge_net_reply r = {.status = u->is_creation ? 201 : 204, .headers = headers};
    edge_blob_reply(&u->b, &r);
}

static void
fail_expired(struct edge_blob *b)
{
    static const struct edge_blob_words w = {410, "expired", "this upload has expired", NULL};
    edge_blob_fail_with(b, &w);
}

static void
note(struct upload *u, int err, uint64_t detail)
{
    if (err && !u->err) {
        u->err = err;
        u->detail = detail;
    }
}

/* Asks blobd; what cannot be asked fails the request. */
static void
ask(struct upload *u, const struct edge_blob_ask *what)
{
    int rc = edge_blob_ask(&u->b, what);
    if (rc) {
        edge_blob_fail(&u->b, rc, 0);
    }
}

/* What goes on with an upload's state, if anybody is still there to be answered. */
static void
on_state(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct upload *u = ctx;
    struct cq_blob_state m;
    if (!err && cq_schema_read(&cq_blob_state_schema, fields, count, &m)) {
        err = -CQ_E_INTERNAL;
    }
    if (err) {
        edge_blob_fail(&u->b, err, detail);
    } else if (u->b.conn) {
        u->expires_unix_ms = m.expires_unix_ms;
        u->with_state(u, &m);
    }
    edge_blob_release(&u->b);
}

static void
ask_ref(struct upload *u, uint8_t op, cq_bus_reply_fn *fn)
{
    const struct cq_blob_ref m = {u->b.user, u->b.id};
    ask(u, &(struct edge_blob_ask){"blobd", op, &cq_blob_ref_schema, &m, fn, u});
}

static void
ask_state(struct upload *u, upload_state_fn *fn)
{
    u->with_state = fn;
    ask_ref(u, CQ_BUS_BLOB_STATE, on_state);
}

/* ---- the end ---- */

static void
on_ended(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct upload *u = ctx;
    struct cq_blob_offset m;
    note(u, err, detail);
    if (!u->err && cq_schema_read(&cq_blob_offset_schema, fields, count, &m)) {
        note(u, -CQ_E_INTERNAL, 0);
    }
    if (u->err) {
        edge_blob_fail(&u->b, u->err, u->detail);
    } else {
        u->b.edge->metrics->blob_uploads_total += m.offset == u->length;
        answer(u, m.offset);
    }
    edge_blob_release(&u->b);
}

static bool
checksum_fits(struct upload *u)
{
    uint8_t digest[EDGE_TLS_HASH_MAX];
    edge_tls_hash_end(&u->hash, digest);
    return u->received == u->body_n && !memcmp(digest, u->checksum.digest, u->checksum.size);
}

static void
end_transfer(struct upload *u)
{
    u->is_transfer = false;
    if (u->checksum.size && !checksum_fits(u)) {
        note(u, -CQ_E_CRYPTO, 0);
    }
    const struct cq_blob_end m = {u->b.id, u->transfer, !u->err || !u->checksum.size};
    ask(u, &(struct edge_blob_ask){"blobd", CQ_BUS_BLOB_END, &cq_blob_end_schema, &m, on_ended, u});
}

/* ---- data ---- */

static void go_on(struct upload *u);

static void
on_written(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)fields, (void)count;
    struct upload *u = ctx;
    u->in_flight--;
    note(u, err, detail);
    go_on(u);
    edge_blob_release(&u->b);
}

static void
write_part(struct upload *u)
{
    const struct cq_blob_write m = {
        u->b.id, u->transfer, u->offset + u->sent, {u->part.data, u->part.size}};
    const struct edge_blob_ask what = {"blobd", CQ_BUS_BLOB_WRITE, &cq_blob_write_schema,
                                       &m,      on_written,        u};
    int rc = edge_blob_ask(&u->b, &what);
    u->in_flight += !rc;
    u->sent += u->part.size;
    note(u, rc, 0);
    cq_buf_clear(&u->part);
    cq_timer_stop(u->late);
    u->is_late = false;
}

/* Writes what there is to write, reads what there is room for, ends what is at its end. */
static void
go_on(struct upload *u)
{
    if (!u->is_transfer) {
        return;
    }
    bool is_all = u->is_all || u->err;
    bool is_due = u->part.size == EDGE_BLOB_PART_BYTES || ((is_all || u->is_late) && u->part.size);
    if (is_due && u->in_flight < EDGE_BLOB_WINDOW && !u->err) {
        write_part(u);
        is_all = is_all || u->err;
    }
    if (is_all) {
        if (!u->in_flight && (u->err || !u->part.size)) {
            end_transfer(u);
        }
    } else if (u->part.size + u->wanted < EDGE_BLOB_PART_BYTES && u->b.conn) {
        size_t more = EDGE_BLOB_PART_BYTES - u->part.size - u->wanted;
        u->wanted += more;
        edge_net_body_want(u->b.conn, more);
    }
}

static void
on_late(void *ctx)
{
    struct upload *u = ctx;
    edge_blob_hold(&u->b);
    u->is_late = true;
    go_on(u);
    edge_blob_release(&u->b);
}

static void
on_body(struct edge_blob *b, const uint8_t *p, size_t n)
{
    struct upload *u = (struct upload *)b;
    u->received += n;
    u->wanted -= n;
    if (u->hash) {
        edge_tls_hash_add(u->hash, p, n);
    }
    if (!u->part.size) {
        cq_timer_start(u->late, b->edge->cfg->transfer_timeout_ms / LATE_SHARE, 0);
    }
    cq_buf_append(&u->part, p, n);
    if (u->part.size == EDGE_BLOB_PART_BYTES && u->received < u->body_n) {
        go_on(u);
    }
}

static void
on_body_end(struct edge_blob *b)
{
    struct upload *u = (struct upload *)b;
    u->is_all = true;
    go_on(u);
}

static void
on_gone(struct edge_blob *b)
{
    struct upload *u = (struct upload *)b;
    u->is_all = true;
    go_on(u);
}

static void
on_free(struct edge_blob *b)
{
    struct upload *u = (struct upload *)b;
    cq_timer_destroy(&u->wait);
    cq_timer_destroy(&u->late);
    edge_tls_hash_end(&u->hash, NULL);
    cq_buf_free(&u->part);
}

static const struct edge_blob_kind kind_transfer = {
    on_body, on_body_end, NULL, on_gone, on_free, true,
};
static const struct edge_blob_kind kind_short = {.on_free = on_free};

static void
on_begun(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)fields, (void)count;
    struct upload *u = ctx;
    if (err) {
        edge_blob_fail(&u->b, err, detail);
    } else {
        u->is_transfer = true;
        (void)cq_buf_reserve(&u->part, EDGE_BLOB_PART_BYTES);
        u->late = cq_timer_new(u->b.edge->loop, on_late, u);
        go_on(u);
    }
    edge_blob_release(&u->b);
}

static void
begin_transfer(struct upload *u)
{
    u->transfer = cq_random_u64() | 1;
    if (u->checksum.size) {
        u->hash = edge_tls_hash_new(u->checksum.hash);
    }
    const struct cq_blob_begin m = {u->b.user, u->b.id, u->transfer, u->offset,
                                    u->checksum.size > 0};
    ask(u, &(struct edge_blob_ask){"blobd", CQ_BUS_BLOB_BEGIN, &cq_blob_begin_schema, &m, on_begun,
                                   u});
}

/* ---- header fields ---- */

static bool
is_data(const struct edge_head *h)
{
    return edge_head_is_caseless(edge_head_field(h, "content-type"),
                                 "application/offset+octet-stream");
}

static void
refuse_type(const struct edge_blob_request *rq)
{
    static const struct edge_blob_words w = {
        415, "content_type", "data is sent as application/offset+octet-stream", NULL};
    edge_blob_refuse_with(rq, &w);
}

/* Reads Upload-Checksum, if there is one. False: it was refused. */
static bool
take_checksum(const struct edge_blob_request *rq, struct edge_tus_checksum *c)
{
    *c = (struct edge_tus_checksum){.size = 0};
    if (!edge_head_count(rq->head, "upload-checksum")) {
        return true;
    }
    bool ok = !edge_tus_checksum(edge_head_field(rq->head, "upload-checksum"), c) &&
              edge_tls_hash_size(c->hash) == c->size;
    if (!ok) {
        static const struct edge_blob_words w = {
            400, "checksum_algorithm", "Upload-Checksum is sha1 or sha256 and its value in base64",
            "tus-checksum-algorithm: sha1,sha256\r\n"};
        edge_blob_refuse_with(rq, &w);
    }
    return ok;
}

/* ---- creation ---- */

static void
on_created(struct upload *u, const struct cq_blob_state *m)
{
    u->b.is_made = true;
    if (u->body_n) {
        begin_transfer(u);
    } else {
        answer(u, m->offset);
    }
}

void
edge_blob_up_create(const struct edge_blob_request *rq)
{
    uint64_t length;
    struct edge_tus_checksum checksum;
    struct cq_view metadata = edge_head_field(rq->head, "upload-metadata");
    bool ok = edge_head_number(edge_head_field(rq->head, "upload-length"), INT64_MAX, &length) &&
              (!metadata.n || edge_tus_metadata_ok(metadata));
    if (!ok) {
        edge_blob_refuse(rq, CQ_E_BAD_ARG, 0);
        return;
    }
    if (length > rq->edge->cfg->blob_max_bytes || rq->body_n > length) {
        edge_blob_refuse(rq, CQ_E_TOO_BIG, 0);
        return;
    }
    if (rq->body_n && !is_data(rq->head)) {
        refuse_type(rq);
        return;
    }
    if (!take_checksum(rq, &checksum)) {
        return;
    }
    struct upload *u = edge_blob_new(rq, rq->body_n ? &kind_transfer : &kind_short, sizeof *u);
    if (!u) {
        return;
    }
    u->is_creation = true;
    u->length = length;
    u->body_n = rq->body_n;
    u->checksum = checksum;
    u->b.id = cq_random_id();
    u->with_state = on_created;
    const struct cq_blob_create m = {u->b.user, u->b.id, length};
    ask(u, &(struct edge_blob_ask){"blobd", CQ_BUS_BLOB_CREATE, &cq_blob_create_schema, &m,
                                   on_state, u});
}

/* ---- PATCH ---- */

/* How far the upload is: does the body fit there? */
static void
on_patch_state(struct upload *u, const struct cq_blob_state *m)
{
    u->length = m->length;
    if (!m->whole && m->expires_unix_ms < cq_now_unix_ms()) {
        fail_expired(&u->b);
    } else if (u->offset != m->offset) {
        edge_blob_fail(&u->b, CQ_E_BLOB_OFFSET, m->offset);
    } else if (u->body_n > m->length - m->offset) {
        edge_blob_fail(&u->b, CQ_E_TOO_BIG, 0);
    } else if (u->body_n) {
        begin_transfer(u);
    } else {
        answer(u, m->offset);
    }
}

void
edge_blob_up_patch(const struct edge_blob_request *rq)
{
    uint64_t offset;
    struct edge_tus_checksum checksum;
    if (!is_data(rq->head)) {
        refuse_type(rq);
        return;
    }
    if (!edge_head_number(edge_head_field(rq->head, "upload-offset"), INT64_MAX, &offset)) {
        edge_blob_refuse(rq, CQ_E_BAD_ARG, 0);
        return;
    }
    if (!take_checksum(rq, &checksum)) {
        return;
    }
    struct upload *u = edge_blob_new(rq, &kind_transfer, sizeof *u);
    if (!u) {
        return;
    }
    u->offset = offset;
    u->body_n = rq->body_n;
    u->checksum = checksum;
    ask_state(u, on_patch_state);
}

/* ---- HEAD, DELETE ---- */

static void
answer_state(struct upload *u, const struct cq_blob_state *m)
{
    char headers[HEADERS_MAX];
    if (!m->whole && m->expires_unix_ms < cq_now_unix_ms()) {
        fail_expired(&u->b);
        return;
    }
    size_t n = (size_t)snprintf(headers, sizeof headers,
                                "upload-offset: %" PRIu64 "\r\nupload-length: %" PRIu64 "\r\n",
                                m->offset, m->length);
    (void)add_expires(u, m->whole, headers + n, sizeof headers - n);
    const struct edge_net_reply r = {.status = 200, .headers = headers};
    edge_blob_reply(&u->b, &r);
}

/* A transfer of the same upload that still gets data here: the connection has broken, but not all
 * that came through it has been read. */
static struct upload *
find_busy(const struct upload *u)
{
    for (struct edge_blob *b = u->b.edge->blobs; b; b = b->next) {
        bool is_same = b->kind == &kind_transfer && cq_id_eq(&b->id, &u->b.id);
        if (is_same && cq_id_eq(&b->user, &u->b.user)) {
            return (struct upload *)b;
        }
    }
    return NULL;
}

static void
on_wait(void *ctx)
{
    struct upload *u = ctx;
    const struct upload *busy = u->b.conn ? find_busy(u) : NULL;
    uint64_t seen = busy ? busy->transfer + busy->received : 0;
    u->quiet_count = seen == u->seen ? u->quiet_count + 1 : 0;
    u->seen = seen;
    if (busy && u->quiet_count < QUIET_ENOUGH && ++u->wait_count < WAITS_MAX) {
        return;
    }
    cq_timer_stop(u->wait);
    ask_state(u, answer_state);
    edge_blob_release(&u->b);
}

/* Whoever asks wants to go on: he is told the offset behind all that has come. */
void
edge_blob_up_state(const struct edge_blob_request *rq)
{
    struct upload *u = edge_blob_new(rq, &kind_short, sizeof *u);
    if (!u) {
        return;
    }
    if (find_busy(u)) {
        edge_blob_hold(&u->b);
        u->wait = cq_timer_new(u->b.edge->loop, on_wait, u);
        cq_timer_start(u->wait, WAIT_MS, WAIT_MS);
    } else {
        ask_state(u, answer_state);
    }
}

static void
on_dropped(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)fields, (void)count;
    struct upload *u = ctx;
    if (err) {
        edge_blob_fail(&u->b, err, detail);
    } else {
        const struct edge_net_reply r = {.status = 204};
        edge_blob_reply(&u->b, &r);
    }
    edge_blob_release(&u->b);
}

void
edge_blob_up_drop(const struct edge_blob_request *rq)
{
    struct upload *u = edge_blob_new(rq, &kind_short, sizeof *u);
    if (u) {
        ask_ref(u, CQ_BUS_BLOB_DROP, on_dropped);
    }
}
