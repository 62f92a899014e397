/* SPDX-License-Identifier: MPL-2.0
 * Downloads: the store says who may, blobd checks the bytes. If its file can be opened here, they
 * are read from there (BLOB_PLACE); else they come over the bus (BLOB_READ), a bounded number of
 * parts asked for ahead; those may come in any order and leave in theirs. Either way nothing is
 * read before the client's socket takes it. The answer's head waits for the first bytes: before
 * that an error can still be said.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/rt/log.h"

#include "edge/blob.h"
#include "edge/tus.h"

enum {
    ETAG_SIZE = 2 * CQ_BLOB_HASH_SIZE + 3,
    FIELD_MAX = 512, /* longest If-None-Match that is looked at */
    HEADERS_MAX = 512,
    FAR_MS = 60000, /* blobd's files cannot be opened here: so long that is not tried again */
};

struct download;

/* A part on its way. */
struct slot {
    struct download *download;
    bool is_used, is_here;
    uint64_t at;
    size_t n;
    cq_buf_t data;
};

struct download {
    struct edge_blob b; /* first */
    bool is_head, is_part, is_begun;
    bool is_plain_head; /* not in X-HTTP-Method-Override: no body follows, whatever its length says
                         */
    uint64_t length;    /* of the blob */
    uint64_t from, end;
    uint64_t asked;   /* up to here parts are asked for */
    uint64_t written; /* up to here they have been given to the connection */
    struct slot slots[EDGE_BLOB_WINDOW];
    int fd;          /* of blobd's file; -1: over the bus */
    uint64_t skip;   /* what lies before the blob's first byte there */
    uint64_t placed; /* up to here the bytes there are right */
    bool is_placing; /* more is being checked */
    struct edge_tus_range range;
    char etag[ETAG_SIZE];
    char if_range[FIELD_MAX], if_none_match[FIELD_MAX];
};

/* ---- answers ---- */

static void
write_etag(const uint8_t *hash, char out[ETAG_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *at = out;
    *at++ = '"';
    for (size_t i = 0; i < CQ_BLOB_HASH_SIZE; i++) {
        *at++ = digits[hash[i] >> 4];
        *at++ = digits[hash[i] & 15];
    }
    *at++ = '"';
    *at = '\0';
}

/* A blob never changes. Its content is anybody's: no browser shall take it for a page of ours. */
static struct edge_net_reply
make_reply(const struct download *d, unsigned status, char headers[HEADERS_MAX])
{
    int n = snprintf(headers, HEADERS_MAX,
                     "etag: %s\r\naccept-ranges: bytes\r\ncontent-disposition: attachment\r\n"
                     "content-security-policy: default-src 'none'; sandbox\r\n",
                     d->etag);
    if (status == 206) {
        (void)snprintf(headers + n, HEADERS_MAX - (size_t)n,
                       "content-range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", d->from,
                       d->end - 1, d->length);
    }
    return (struct edge_net_reply){.status = status,
                                   .type = "application/octet-stream",
                                   .cache = "private, max-age=31536000, immutable",
                                   .headers = headers};
}

static void
answer_without_body(struct download *d, unsigned status)
{
    char headers[HEADERS_MAX];
    struct edge_net_reply r = make_reply(d, status, headers);
    r.n = d->is_plain_head ? (size_t)(d->end - d->from) : 0; /* what a GET would give */
    edge_blob_reply(&d->b, &r);
}

static void
refuse_range(struct download *d)
{
    char headers[80];
    const struct edge_blob_words w = {416, "range", "there is nothing in this range", headers};
    (void)snprintf(headers, sizeof headers, "content-range: bytes */%" PRIu64 "\r\n", d->length);
    edge_blob_fail_with(&d->b, &w);
}

/* ---- parts ---- */

static void
fail(struct download *d, int err)
{
    if (d->b.conn && d->is_begun) {
        char hex[CQ_ID_HEX_SIZE];
        CQ_LOG(WARN, "EDGE-BLOB-CUT", "blob=%s at=%" PRIu64 " err=%s", cq_id_hex(&d->b.id, hex),
               d->written, cq_err_name(err));
        edge_net_kill(d->b.conn); /* fewer bytes than promised: the client sees that */
    } else {
        edge_blob_fail(&d->b, err, 0);
    }
}

static void
begin_answer(struct download *d)
{
    if (!d->is_begun) {
        char headers[HEADERS_MAX];
        struct edge_net_reply r = make_reply(d, d->is_part ? 206 : 200, headers);
        d->is_begun = true;
        edge_blob_stream(&d->b, &r, d->end - d->from);
    }
}

static void
count_given(struct download *d, size_t n)
{
    d->written += n;
    d->b.edge->metrics->blob_bytes_out_total += n;
    d->b.edge->metrics->blob_downloads_total += n && d->written == d->end;
}

static void
give(struct download *d, struct cq_view data)
{
    begin_answer(d);
    count_given(d, data.n);
    if (d->b.conn) {
        edge_net_stream_write(d->b.conn, data.p, data.n);
    }
}

static struct slot *
find_slot(struct download *d, bool is_used)
{
    for (size_t i = 0; i < EDGE_BLOB_WINDOW; i++) {
        struct slot *s = &d->slots[i];
        if (s->is_used == is_used && (!is_used || (s->is_here && s->at == d->written))) {
            return s;
        }
    }
    return NULL;
}

static void on_read(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count);

static int
ask_part(struct download *d, struct slot *s)
{
    uint64_t to_piece = EDGE_BLOB_PART_BYTES - d->asked % EDGE_BLOB_PART_BYTES;
    uint64_t left = d->end - d->asked;
    s->at = d->asked;
    s->n = (size_t)(left < to_piece ? left : to_piece);
    const struct cq_blob_read m = {d->b.id, s->at, s->n};
    const struct edge_blob_ask ask = {"blobd", CQ_BUS_BLOB_READ, &cq_blob_read_schema,
                                      &m,      on_read,          s};
    int rc = edge_blob_ask(&d->b, &ask);
    if (!rc) {
        s->download = d;
        s->is_used = true;
        d->asked += s->n;
    }
    return rc;
}

/* ---- from the file ---- */

static void on_placed(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count);

static void
ask_place(struct download *d)
{
    uint64_t left = d->end - d->placed;
    const struct cq_blob_place m = {d->b.id, d->placed,
                                    left < CQ_BLOB_PLACE_MAX ? left : CQ_BLOB_PLACE_MAX};
    const struct edge_blob_ask ask = {"blobd", CQ_BUS_BLOB_PLACE, &cq_blob_place_schema,
                                      &m,      on_placed,         d};
    int rc = edge_blob_ask(&d->b, &ask);
    d->is_placing = !rc;
    if (rc) {
        fail(d, rc);
    }
}

/* From the file to the socket, or, for TLS, through our memory. */
static void
give_some(struct download *d)
{
    static uint8_t part[EDGE_BLOB_PART_BYTES];
    size_t left = (size_t)(d->placed - d->written);
    uint64_t at = d->skip + d->written;
    ssize_t got;
    if (edge_net_stream_takes_files(d->b.conn)) {
        begin_answer(d);
        got = d->b.conn ? edge_net_stream_file(d->b.conn, d->fd, at, left) : 0;
        count_given(d, got > 0 ? (size_t)got : 0);
    } else {
        got = pread(d->fd, part, left < sizeof part ? left : sizeof part, (off_t)at);
        got = got > 0 ? got : -1;
        if (got > 0) {
            give(d, (struct cq_view){part, (size_t)got});
        }
    }
    if (got < 0) {
        fail(d, -CQ_E_IO);
    }
}

/* blobd has just read these bytes: they are in memory, and reading them does not keep the loop. */
static void
give_placed(struct download *d)
{
    while (d->b.conn && d->written < d->placed && !edge_net_is_blocked(d->b.conn)) {
        give_some(d);
    }
    bool is_due = d->placed < d->end && d->placed - d->written <= CQ_BLOB_PLACE_MAX / 2;
    if (d->b.conn && is_due && !d->is_placing) {
        ask_place(d);
    }
}

/* The very file that blobd means? Another machine may have one of this name. */
static bool
open_place(struct download *d, const struct cq_blob_placed *m)
{
    char path[CQ_BLOB_PATH_MAX + 1];
    struct stat st;
    if (!edge_head_copy(m->path, path, sizeof path) || m->at < d->placed) {
        return false;
    }
    d->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (d->fd < 0) {
        return false;
    }
    if (fstat(d->fd, &st) || !S_ISREG(st.st_mode) || st.st_ino != m->inode) {
        (void)close(d->fd);
        d->fd = -1;
        return false;
    }
    d->skip = m->at - d->placed;
    return true;
}

static void go_on(struct download *d);

static void
take_place(struct download *d, const struct cq_blob_placed *m)
{
    if (d->fd < 0 && !open_place(d, m)) {
        d->b.edge->blob_far_until_mono_ms = cq_now_mono_ms() + FAR_MS;
        go_on(d);
        return;
    }
    d->placed += m->good;
    give_placed(d);
}

static void
on_placed(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    struct download *d = ctx;
    struct cq_blob_placed m;
    d->is_placing = false;
    if (!err && (cq_schema_read(&cq_blob_placed_schema, fields, count, &m) || !m.good ||
                 m.good > d->end - d->placed)) {
        err = -CQ_E_INTERNAL;
    }
    if (err) {
        fail(d, err);
    } else if (d->b.conn) {
        take_place(d, &m);
    }
    edge_blob_release(&d->b);
}

/* ---- over the bus ---- */

/* Gives on what is here and next, and asks for more, as far as the client takes it. */
static void
go_on(struct download *d)
{
    struct slot *s;
    while (d->b.conn && !edge_net_is_blocked(d->b.conn) && (s = find_slot(d, true))) {
        give(d, (struct cq_view){s->data.data, s->n});
        s->is_used = s->is_here = false;
    }
    while (d->b.conn && d->asked < d->end && (s = find_slot(d, false))) {
        int rc = ask_part(d, s);
        if (rc) {
            fail(d, rc);
        }
    }
}

static void
take_part(struct download *d, struct slot *s, struct cq_view bytes)
{
    if (s->at == d->written && !edge_net_is_blocked(d->b.conn)) {
        s->is_used = false;
        give(d, bytes);
    } else {
        s->is_here = true;
        cq_buf_clear(&s->data);
        cq_buf_append(&s->data, bytes.p, bytes.n);
    }
}

static void
on_read(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    struct slot *s = ctx;
    struct download *d = s->download;
    struct cq_blob_bytes m;
    if (!err && (cq_schema_read(&cq_blob_bytes_schema, fields, count, &m) || m.bytes.n != s->n)) {
        err = -CQ_E_INTERNAL;
    }
    if (err) {
        fail(d, err);
    } else if (d->b.conn) {
        take_part(d, s, m.bytes);
        go_on(d);
    }
    edge_blob_release(&d->b);
}

static void
on_room(struct edge_blob *b)
{
    struct download *d = (struct download *)b;
    if (d->fd >= 0) {
        give_placed(d);
    } else {
        go_on(d);
    }
}

static void
on_free(struct edge_blob *b)
{
    struct download *d = (struct download *)b;
    if (d->fd >= 0) {
        (void)close(d->fd);
    }
    for (size_t i = 0; i < EDGE_BLOB_WINDOW; i++) {
        cq_buf_free(&d->slots[i].data);
    }
}

static const struct edge_blob_kind kind = {.on_room = on_room,
                                           .on_free = on_free,
                                           .is_transfer = true};

/* ---- the request ---- */

/* May he: then what of it? */
static void
begin(struct download *d, const struct cq_blob_meta *m)
{
    d->length = d->end = m->length;
    write_etag(m->hash.p, d->etag);
    struct cq_view tags = {(const uint8_t *)d->if_none_match, strlen(d->if_none_match)};
    if (tags.n && edge_tus_etag_listed(tags, d->etag)) {
        answer_without_body(d, 304);
        return;
    }
    /* Of another version only the whole would do. */
    d->is_part = d->range.is_one && (!d->if_range[0] || strcmp(d->if_range, d->etag) == 0);
    if (d->is_part) {
        uint64_t n;
        if (!edge_tus_range_of(&d->range, d->length, &d->from, &n)) {
            refuse_range(d);
            return;
        }
        d->end = d->from + n;
    }
    if (d->is_head || d->from == d->end) {
        answer_without_body(d, d->is_part ? 206 : 200);
        return;
    }
    d->asked = d->written = d->placed = d->from;
    if (!d->b.edge->cfg->blob_files || cq_now_mono_ms() < d->b.edge->blob_far_until_mono_ms) {
        go_on(d);
    } else {
        ask_place(d);
    }
}

static void
on_access(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    struct download *d = ctx;
    struct cq_blob_meta m;
    if (!err && cq_schema_read(&cq_blob_meta_schema, fields, count, &m)) {
        err = -CQ_E_INTERNAL;
    }
    if (err) {
        edge_blob_fail(&d->b, err, detail);
    } else if (d->b.conn) {
        begin(d, &m);
    }
    edge_blob_release(&d->b);
}

void
edge_blob_down_get(const struct edge_blob_request *rq)
{
    struct download *d = edge_blob_new(rq, &kind, sizeof *d);
    if (!d) {
        return;
    }
    const struct edge_head *h = rq->head;
    d->fd = -1;
    d->is_plain_head = edge_head_is(h->method, "HEAD");
    d->is_head = d->is_plain_head || edge_head_is(rq->method, "HEAD");
    if (edge_head_count(h, "range") == 1 && !d->is_head) {
        edge_tus_range(edge_head_field(h, "range"), &d->range);
    }
    /* One that is too long to be ours is one that does not fit. */
    if (!edge_head_copy(edge_head_field(h, "if-range"), d->if_range, sizeof d->if_range)) {
        d->range.is_one = false;
    }
    if (!edge_head_copy(edge_head_field(h, "if-none-match"), d->if_none_match,
                        sizeof d->if_none_match)) {
        d->if_none_match[0] = '\0';
    }
    const struct cq_blob_ref m = {d->b.user, d->b.id};
    const struct edge_blob_ask ask = {"store", CQ_BUS_BLOB_ACCESS, &cq_blob_ref_schema,
                                      &m,      on_access,          d};
    int rc = edge_blob_ask(&d->b, &ask);
    if (rc) {
        edge_blob_fail(&d->b, rc, 0);
    }
}
