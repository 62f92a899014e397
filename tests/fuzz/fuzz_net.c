/* SPDX-License-Identifier: MPL-2.0
 * What an edge reads before it knows anybody: WebSocket frames, request heads, PROXY headers,
 * UTF-8, the fields of requests about blobs. The first byte says which, for frames the second one
 * how the stream is cut. The outcome must not depend on the cuts.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/buf.h"

#include "edge/frame.h"
#include "edge/head.h"
#include "edge/proxy.h"
#include "edge/tus.h"
#include "tests/fuzz/fuzz_wire.h"

enum {
    KIND_FRAMES,
    KIND_HEAD,
    KIND_PROXY,
    KIND_UTF8,
    KIND_CLOSE,
    KIND_FIELD
};

static void
must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Everything that a stream yields, as bytes that can be compared. */
static int
run_frames(const uint8_t *bytes, size_t n, size_t step, cq_buf_t *out)
{
    static const struct edge_frame_limits limits = {5000, 9000, true};
    struct edge_frame f = {0};
    for (size_t at = 0; at < n; at += step) {
        size_t size = n - at < step ? n - at : step;
        uint8_t *copy = malloc(size); /* of this very size: reading beyond it is found */
        must(copy);
        memcpy(copy, bytes + at, size);
        uint8_t *p = copy;
        struct edge_frame_part part;
        int rc;
        while ((rc = edge_frame_next(&f, &limits, &p, copy + size, &part)) > 0) {
            must(part.data >= copy && part.data + part.n <= copy + size);
            must(part.opcode >= EDGE_FRAME_CLOSE ? part.n <= EDGE_FRAME_CONTROL_MAX
                                                 : f.message_bytes <= limits.message_max_bytes);
            cq_buf_append(out, part.data, part.n);
            if (part.is_frame_end) {
                uint8_t end[2] = {part.opcode, part.is_message_end};
                cq_buf_append(out, end, sizeof end);
            }
        }
        free(copy);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static void
try_frames(const uint8_t *p, size_t n)
{
    if (!n) {
        return;
    }
    cq_buf_t whole = {0};
    cq_buf_t cut = {0};
    int rc = run_frames(p + 1, n - 1, n, &whole);
    must(run_frames(p + 1, n - 1, (size_t)p[0] + 1, &cut) == rc);
    must(rc || (whole.size == cut.size && (!cut.size || !memcmp(whole.data, cut.data, cut.size))));
    cq_buf_free(&whole);
    cq_buf_free(&cut);
}

static bool
is_within(struct cq_view v, const uint8_t *p, size_t n)
{
    return v.p >= p && v.p + v.n <= p + n;
}

static void
try_head(const uint8_t *p, size_t n)
{
    struct edge_head h;
    int rc = edge_head_parse(&h, p, n);
    if (rc <= 0) {
        return;
    }
    must((size_t)rc <= n && is_within(h.method, p, n) && is_within(h.path, p, n));
    for (size_t i = 0; i < h.field_count; i++) {
        must(is_within(h.fields[i].name, p, n) && is_within(h.fields[i].value, p, n));
        must(!memchr(h.fields[i].value.p, '\n', h.fields[i].value.n));
    }
    (void)edge_head_lists(&h, "connection", "upgrade");
}

/* As a connection reads it: never more than is asked for. */
static void
try_proxy(const uint8_t *p, size_t n)
{
    struct edge_proxy proxy;
    size_t used = 0;
    int need;
    while ((need = edge_proxy_parse(p, used, &proxy)) > 0 && used + (size_t)need <= n) {
        used += (size_t)need;
        must(used <= EDGE_PROXY_MAX);
    }
}

static void
try_utf8(const uint8_t *p, size_t n)
{
    struct edge_utf8 whole = {0};
    struct edge_utf8 cut = {0};
    bool ok = edge_frame_utf8(&whole, p, n);
    bool ok_cut = true;
    for (size_t i = 0; i < n && ok_cut; i++) {
        ok_cut = edge_frame_utf8(&cut, p + i, 1);
    }
    must(ok == ok_cut && (!ok || whole.need == cut.need));
}

/* One text as every field that there is: a copy of its very size, so that reading beyond is found.
 */
static void
try_field(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    must(copy);
    memcpy(copy, bytes, n);
    struct cq_view v = {copy, n};
    uint8_t out[64];
    struct cq_id id;
    struct edge_tus_checksum c;
    struct edge_tus_range r;
    uint64_t from, size, number;
    must(edge_tus_base64(v, out, sizeof out) <= (int)sizeof out);
    must(edge_tus_base64(v, out, 3) <= 3);
    must(edge_tus_bearer(v, out, sizeof out) <= (int)sizeof out);
    must(!edge_tus_path(v, &id) || n == 38);
    must(!edge_head_number(v, 1000, &number) || number <= 1000);
    (void)edge_tus_metadata_ok(v);
    must(edge_tus_checksum(v, &c) || (c.size > 0 && c.size <= sizeof c.digest));
    (void)edge_tus_etag_listed(v, "\"x\"");
    edge_tus_range(v, &r);
    for (uint64_t length = 0; r.is_one && length < 100; length += 33) {
        bool is_some = edge_tus_range_of(&r, length, &from, &size);
        must(!is_some || (from < length && size <= length - from));
    }
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n) {
        return 0;
    }
    uint8_t kind = *data++;
    n--;
    switch (kind) {
    case KIND_FRAMES:
        try_frames(data, n);
        break;
    case KIND_HEAD:
        try_head(data, n);
        break;
    case KIND_PROXY:
        try_proxy(data, n);
        break;
    case KIND_UTF8:
        try_utf8(data, n);
        break;
    case KIND_CLOSE:
        must(edge_frame_read_close(data, n) < 5000);
        break;
    case KIND_FIELD:
        try_field(data, n);
        break;
    default:
        break;
    }
    return 0;
}
