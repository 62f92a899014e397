/* SPDX-License-Identifier: MPL-2.0 */
#include "client/http.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "client/include/chasqui/client.h"

enum {
    URL_MAX = 2048,
    BODY_MAX = 2048, /* of an error */
    CONNECT_MS = 10000,
    STALL_S = 30,
    POLL_MS = 200,
    UNSENT_MAX =
        131072, /* handed to the kernel and not on its way: lost when a connection breaks */
    TOKEN_TEXT_MAX = 4 * (CQ_TOKEN_MAX + 2) / 3 + 1,
    HEADER_MAX = TOKEN_TEXT_MAX + 64,
};

struct cq_http {
    CURL *easy;
    CURLM *multi;
    atomic_bool is_stopped;
    const char *ca_file;
    bool accepts_any_certificate;
    struct curl_slist *headers;
    /* of the answer */
    char body[BODY_MAX + 1];
    size_t body_size;
    struct cq_id location;
    uint64_t offset, range_start, retry_after_s;
    bool has_offset, has_range;
    /* of the request */
    struct cq_http_part part;
    uint64_t part_at;
    uint64_t wanted; /* download: from here on */
    cq_http_sink_fn *sink;
    void *sink_ctx;
    int sink_rc;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
        abort();
    }
}

cq_http_t *
cq_http_new(const char *ca_file, bool accepts_any_certificate)
{
    (void)pthread_once(&once, init_curl);
    cq_http_t *h = calloc(1, sizeof *h);
    if (!h || !(h->easy = curl_easy_init()) || !(h->multi = curl_multi_init())) {
        abort();
    }
    h->ca_file = ca_file;
    h->accepts_any_certificate = accepts_any_certificate;
    return h;
}

void
cq_http_destroy(cq_http_t **p)
{
    cq_http_t *h = *p;
    *p = NULL;
    if (h) {
        curl_slist_free_all(h->headers);
        curl_easy_cleanup(h->easy);
        curl_multi_cleanup(h->multi);
        free(h);
    }
}

void
cq_http_stop(cq_http_t *h)
{
    atomic_store(&h->is_stopped, true);
    (void)curl_multi_wakeup(h->multi);
}

uint64_t
cq_http_retry_after_s(const cq_http_t *h)
{
    return h->retry_after_s;
}

/* ---- the answer ---- */

/* "/blob/" and 32 hex digits, with or without what makes it absolute. */
static void
take_location(cq_http_t *h, const char *value)
{
    const char *path = strstr(value, "/blob/");
    size_t n = 0;
    if (!path ||
        sodium_hex2bin(h->location.b, CQ_ID_SIZE, path + 6, (size_t)2 * CQ_ID_SIZE, NULL, &n,
                       NULL) ||
        n != CQ_ID_SIZE) {
        h->location = (struct cq_id){{0}};
    }
}

static void
take_field(cq_http_t *h, const char *name, const char *value)
{
    if (!strcasecmp(name, "location")) {
        take_location(h, value);
    } else if (!strcasecmp(name, "upload-offset")) {
        h->offset = strtoull(value, NULL, 10);
        h->has_offset = true;
    } else if (!strcasecmp(name, "retry-after")) {
        h->retry_after_s = strtoull(value, NULL, 10);
    } else if (!strcasecmp(name, "content-range") && !strncasecmp(value, "bytes ", 6)) {
        h->range_start = strtoull(value + 6, NULL, 10);
        h->has_range = true;
    }
}

static size_t
on_header(char *data, size_t size, size_t n, void *ctx)
{
    char line[512];
    size_t total = size * n;
    char *colon = memchr(data, ':', total);
    if (colon && total < sizeof line) {
        memcpy(line, data, total);
        line[total] = '\0';
        line[colon - data] = '\0';
        char *value = line + (colon - data) + 1;
        value += strspn(value, " \t");
        take_field(ctx, line, value);
    }
    return total;
}

static size_t
on_body(char *data, size_t size, size_t n, void *ctx)
{
    cq_http_t *h = ctx;
    size_t total = size * n;
    long status = 0;
    (void)curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
    bool is_wanted = h->sink && (status == 206 || status == 200);
    if (!is_wanted) {
        size_t take = total < BODY_MAX - h->body_size ? total : BODY_MAX - h->body_size;
        memcpy(h->body + h->body_size, data, take);
        h->body_size += take;
        return total;
    }
    if (status == 206 ? !h->has_range || h->range_start != h->wanted : h->wanted != 0) {
        h->sink_rc = -CQ_E_BAD_FRAME;
    } else {
        h->sink_rc = h->sink(h->sink_ctx, (const uint8_t *)data, total);
    }
    return h->sink_rc ? 0 : total;
}

static const struct {
    const char *name;
    int err;
} names[] = {
    {"bad_token", CQ_E_BAD_TOKEN},
    {"revoked", CQ_E_REVOKED},
    {"not_found", CQ_E_NOT_FOUND},
    {"expired", CQ_E_NOT_FOUND},
    {"blob_offset", CQ_E_BLOB_OFFSET},
    {"bad_state", CQ_E_BAD_STATE},
    {"too_big", CQ_E_TOO_BIG},
    {"rate_limited", CQ_E_RATE_LIMITED},
    {"no_space", CQ_E_NO_SPACE},
    {"quota", CQ_E_QUOTA},
    {"busy", CQ_E_BUSY},
    {"unavailable", CQ_E_UNAVAILABLE},
    {"deadline", CQ_E_DEADLINE},
    {"corrupt", CQ_E_CORRUPT},
    {"io", CQ_E_IO},
    {"internal", CQ_E_INTERNAL},
};

static const struct {
    long status;
    int err;
} statuses[] = {
    {401, CQ_E_BAD_TOKEN},   {404, CQ_E_NOT_FOUND},    {410, CQ_E_NOT_FOUND},
    {413, CQ_E_TOO_BIG},     {429, CQ_E_RATE_LIMITED}, {507, CQ_E_NO_SPACE},
    {502, CQ_E_UNAVAILABLE}, {503, CQ_E_UNAVAILABLE},  {504, CQ_E_UNAVAILABLE},
};

static int
error_of_status(long status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        if (statuses[i].status == status) {
            return -statuses[i].err;
        }
    }
    return status < 500 ? -CQ_E_BAD_ARG : -CQ_E_BAD_FRAME;
}

/* By the name in the JSON body, else by the status (a proxy's answer has no such body). */
static int
error_of(const cq_http_t *h, long status)
{
    const char *at = strstr(h->body, "\"error\"");
    at = at ? strchr(at + 7, '"') : NULL;
    for (size_t i = 0; at && i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i].name);
        if (!strncmp(at + 1, names[i].name, n) && at[1 + n] == '"') {
            return -names[i].err;
        }
    }
    return error_of_status(status);
}

/* ---- the request ---- */

static void
add_header(cq_http_t *h, const char *text)
{
    struct curl_slist *more = curl_slist_append(h->headers, text);
    if (!more) {
        abort();
    }
    h->headers = more;
}

static void
add_number(cq_http_t *h, const char *name, uint64_t v)
{
    char text[96];
    (void)snprintf(text, sizeof text, "%s: %" PRIu64, name, v);
    add_header(h, text);
}

/* What waits in the kernel when a connection breaks has to be sent again: keep it small. */
static int
on_socket(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
    int most = UNSENT_MAX;
    (void)ctx;
    (void)purpose;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
    return CURL_SOCKOPT_OK;
}

static void
set_trust(cq_http_t *h)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it */
    const char *file = h->ca_file ? h->ca_file : getenv("SSL_CERT_FILE");
    if (file) {
        (void)curl_easy_setopt(h->easy, CURLOPT_CAINFO, file);
        (void)curl_easy_setopt(h->easy, CURLOPT_CAPATH, "/etc/ssl/certs");
    }
    if (h->accepts_any_certificate) {
        (void)curl_easy_setopt(h->easy, CURLOPT_SSL_VERIFYPEER, 0L);
        (void)curl_easy_setopt(h->easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

static void
set_answer(cq_http_t *h)
{
    h->body_size = 0;
    h->location = (struct cq_id){{0}};
    h->has_offset = h->has_range = false;
    h->retry_after_s = 0;
    h->sink = NULL;
    h->sink_rc = 0;
    (void)curl_easy_setopt(h->easy, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(h->easy, CURLOPT_HEADERDATA, h);
    (void)curl_easy_setopt(h->easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(h->easy, CURLOPT_WRITEDATA, h);
}

/* blob NULL: the collection */
static void
begin(cq_http_t *h, const struct cq_http_server *s, const struct cq_id *blob, bool is_tus)
{
    char url[URL_MAX];
    char token[TOKEN_TEXT_MAX];
    char header[HEADER_MAX];
    char hex[2 * CQ_ID_SIZE + 1] = "";
    bool is_v6 = strchr(s->host, ':') != NULL;
    if (blob) {
        (void)sodium_bin2hex(hex, sizeof hex, blob->b, CQ_ID_SIZE);
    }
    (void)snprintf(url, sizeof url, "%s://%s%s%s:%u/blob%s%s", s->is_tls ? "https" : "http",
                   is_v6 ? "[" : "", s->host, is_v6 ? "]" : "", s->port, blob ? "/" : "", hex);
    curl_easy_reset(h->easy);
    curl_slist_free_all(h->headers);
    h->headers = NULL;
    (void)sodium_bin2base64(token, sizeof token, s->token, s->token_size,
                            sodium_base64_VARIANT_ORIGINAL);
    (void)snprintf(header, sizeof header, "Authorization: Bearer %s", token);
    add_header(h, header);
    sodium_memzero(header, sizeof header);
    sodium_memzero(token, sizeof token);
    if (is_tus) {
        add_header(h, "Tus-Resumable: 1.0.0");
    }
    (void)curl_easy_setopt(h->easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(h->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(h->easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(h->easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(h->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(h->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    (void)curl_easy_setopt(h->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(h->easy, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    (void)curl_easy_setopt(h->easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    set_trust(h);
    set_answer(h);
}

static int
outcome(cq_http_t *h, CURLcode code)
{
    long status = 0;
    (void)curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
    h->body[h->body_size] = '\0';
    if (h->sink_rc) {
        return h->sink_rc;
    }
    if (status >= 400) {
        return error_of(h, status);
    }
    if (code) {
        return code == CURLE_PEER_FAILED_VERIFICATION ? -CQ_CLIENT_E_UNTRUSTED
                                                      : -CQ_CLIENT_E_OFFLINE;
    }
    return status >= 200 && status < 300 ? 0 : -CQ_E_BAD_FRAME;
}

static int
perform(cq_http_t *h)
{
    int running = 1;
    CURLcode code = CURLE_OK;
    (void)curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, h->headers);
    if (curl_multi_add_handle(h->multi, h->easy)) {
        return -CQ_E_INTERNAL;
    }
    while (running && !atomic_load(&h->is_stopped)) {
        if (curl_multi_perform(h->multi, &running)) {
            break;
        }
        if (running) {
            (void)curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL);
        }
    }
    int left = 0;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
        code = m->msg == CURLMSG_DONE ? m->data.result : code;
    }
    (void)curl_multi_remove_handle(h->multi, h->easy);
    return running ? -CQ_E_DEADLINE : outcome(h, code);
}

int
cq_http_create(cq_http_t *h, const struct cq_http_server *s, uint64_t length, struct cq_id *blob)
{
    begin(h, s, NULL, true);
    add_number(h, "Upload-Length", length);
    (void)curl_easy_setopt(h->easy, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(h->easy, CURLOPT_POSTFIELDS, "");
    (void)curl_easy_setopt(h->easy, CURLOPT_POSTFIELDSIZE, 0L);
    add_header(h, "Content-Type:");
    int rc = perform(h);
    if (!rc && cq_id_is_none(&h->location)) {
        rc = -CQ_E_BAD_FRAME;
    }
    *blob = h->location;
    return rc;
}

int
cq_http_offset(cq_http_t *h,
               const struct cq_http_server *s,
               const struct cq_id *blob,
               uint64_t *offset)
{
    begin(h, s, blob, true);
    (void)curl_easy_setopt(h->easy, CURLOPT_NOBODY, 1L);
    int rc = perform(h);
    *offset = h->offset;
    return rc ? rc : h->has_offset ? 0 : -CQ_E_BAD_FRAME;
}

static size_t
on_read(char *out, size_t size, size_t n, void *ctx)
{
    cq_http_t *h = ctx;
    uint64_t left = h->part.length - h->part_at;
    size_t room = size * n < left ? size * n : (size_t)left;
    ssize_t got = room ? pread(h->part.fd, out, room, (off_t)h->part_at) : 0;
    if (got < 0 || (room && !got)) {
        return CURL_READFUNC_ABORT;
    }
    h->part_at += (uint64_t)got;
    return (size_t)got;
}

static int
on_progress(void *ctx, curl_off_t dl_all, curl_off_t dl, curl_off_t ul_all, curl_off_t ul)
{
    cq_http_t *h = ctx;
    (void)dl_all;
    (void)dl;
    (void)ul_all;
    if (h->part.on_progress && ul > 0) {
        h->part.on_progress(h->part.ctx, h->part.offset + (uint64_t)ul);
    }
    return 0;
}

int
cq_http_upload(cq_http_t *h,
               const struct cq_http_server *s,
               const struct cq_id *blob,
               const struct cq_http_part *part)
{
    begin(h, s, blob, true);
    h->part = *part;
    h->part_at = part->offset;
    add_number(h, "Upload-Offset", part->offset);
    add_header(h, "Content-Type: application/offset+octet-stream");
    (void)curl_easy_setopt(h->easy, CURLOPT_UPLOAD, 1L);
    (void)curl_easy_setopt(h->easy, CURLOPT_CUSTOMREQUEST, "PATCH");
    (void)curl_easy_setopt(h->easy, CURLOPT_READFUNCTION, on_read);
    (void)curl_easy_setopt(h->easy, CURLOPT_READDATA, h);
    (void)curl_easy_setopt(h->easy, CURLOPT_INFILESIZE_LARGE,
                           (curl_off_t)(part->length - part->offset));
    (void)curl_easy_setopt(h->easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(h->easy, CURLOPT_XFERINFODATA, h);
    (void)curl_easy_setopt(h->easy, CURLOPT_NOPROGRESS, 0L);
    return perform(h);
}

int
cq_http_get(cq_http_t *h,
            const struct cq_http_server *s,
            const struct cq_id *blob,
            uint64_t offset,
            cq_http_sink_fn *sink,
            void *ctx)
{
    char range[32];
    begin(h, s, blob, false);
    h->wanted = offset;
    h->sink = sink;
    h->sink_ctx = ctx;
    (void)snprintf(range, sizeof range, "%" PRIu64 "-", offset);
    (void)curl_easy_setopt(h->easy, CURLOPT_RANGE, range);
    return perform(h);
}
