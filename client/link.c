/* SPDX-License-Identifier: MPL-2.0 */
#include "client/link.h"

#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/wire/buf.h"
#include "common/wire/limits.h"

#include "client/include/chasqui/client.h"

enum {
    CONNECT_TIMEOUT_S = 10,
    RX_BUFFER = 16384,
    WHY_MAX = 96,
    HTTP_NOT_FOUND = 404
};

static const char subprotocol[] = "chasqui.v1";

struct out_frame {
    struct out_frame *next;
    size_t size;
    uint8_t bytes[]; /* LWS_PRE bytes of room, then the frame */
};

struct cq_link {
    struct cq_link_calls calls;
    struct lws_context *context;
    struct lws *wsi; /* the current connection; NULL: none */
    uv_idle_t late;  /* reports a connection that failed at once, from the loop */
    const char *late_why;
    bool accepts_any; /* of certificates */
    bool is_open;
    bool too_big;
    bool is_distrusted; /* its certificate */
    bool is_reached;    /* something listens there */
    bool is_heard;      /* it has answered as a WebSocket server would */
    unsigned status;    /* HTTP's, of an answer that is no WebSocket's; 0: none */
    char why[WHY_MAX];
    bool was_told; /* on_closed was called for this connection */
    cq_buf_t in;   /* the message under way, at most CQ_PUSH_FRAME_MAX */
    struct out_frame *out_first;
    struct out_frame **out_last;
};

static void
drop_output(cq_link_t *link)
{
    while (link->out_first) {
        struct out_frame *f = link->out_first;
        link->out_first = f->next;
        free(f);
    }
    link->out_last = &link->out_first;
}

static void
reset(cq_link_t *link)
{
    link->wsi = NULL;
    link->is_open = false;
    link->too_big = false;
    link->is_reached = false;
    link->is_heard = false;
    link->status = 0;
    link->is_distrusted = false;
    cq_buf_clear(&link->in);
    drop_output(link);
}

static void
closed(cq_link_t *link, int error, const char *why)
{
    reset(link);
    link->was_told = true;
    link->calls.on_closed(link->calls.ctx, error, why);
}

/* Returns -1 to close. */
static int
received(cq_link_t *link, struct lws *wsi, const void *data, size_t n)
{
    link->calls.on_heard(link->calls.ctx);
    if (!lws_frame_is_binary(wsi) || link->in.size + n > CQ_PUSH_FRAME_MAX) {
        link->too_big = true;
        return -1;
    }
    cq_buf_append(&link->in, data, n);
    if (lws_is_final_fragment(wsi) && !lws_remaining_packet_payload(wsi)) {
        size_t size = 0;
        uint8_t *frame = cq_buf_take(&link->in, &size);
        link->calls.on_frame(link->calls.ctx, frame, size);
        free(frame);
    }
    return link->wsi == wsi ? 0 : -1; /* the handler may have dropped the connection */
}

static int
writeable(cq_link_t *link, struct lws *wsi)
{
    struct out_frame *f = link->out_first;
    if (!f || lws_partial_buffered(wsi)) {
        return 0;
    }
    int written = lws_write(wsi, f->bytes + LWS_PRE, f->size, LWS_WRITE_BINARY);
    if (written < 0) {
        return -1;
    }
    link->out_first = f->next;
    if (!link->out_first) {
        link->out_last = &link->out_first;
    } else {
        lws_callback_on_writable(wsi);
    }
    free(f);
    return 0;
}

static bool
begins(const char *said, const char *with)
{
    return said && strncmp(said, with, strlen(with)) == 0;
}

/* libwebsockets' own words ("closed before established") help nobody; they say only how far it had
 * come: to TLS ("connect SSL err 1" is SSL_ERROR_SSL), to HTTP ("HS: …"), or not in time. */
static const char *
why_not(cq_link_t *link, const char *said)
{
    if (link->status == HTTP_NOT_FOUND) {
        return "no messenger under this path, HTTP 404; chasqui's is /ws";
    }
    if (link->status) {
        (void)snprintf(link->why, sizeof link->why, "the server refused the connection, HTTP %u",
                       link->status);
        return link->why;
    }
    if (link->is_heard || begins(said, "HS:")) {
        return "the server refused the connection";
    }
    if (begins(said, "connect SSL err 1")) {
        return "no TLS could be agreed on; perhaps ws://, not wss://";
    }
    if (begins(said, "Timed out")) {
        return "no answer";
    }
    return link->is_reached ? "no answer, or none in HTTP; perhaps wss://, not ws://"
                            : "cannot connect";
}

static void
not_opened(cq_link_t *link, const char *said)
{
    if (link->is_distrusted) {
        closed(link, CQ_CLIENT_E_UNTRUSTED, cq_client_error_text(CQ_CLIENT_E_UNTRUSTED));
    } else {
        closed(link, CQ_CLIENT_E_OFFLINE, why_not(link, said));
    }
}

static int
on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    (void)user;
    cq_link_t *link = lws_context_user(lws_get_context(wsi));
    if (!link || wsi != link->wsi) {
        /* A dropped connection ends by itself: refuse to serve it. CLIENT_* calls of one that is
         * being made come before lws_client_connect_via_info returns; wsi is set through pwsi by
         * then. */
        return reason == LWS_CALLBACK_CLIENT_RECEIVE || reason == LWS_CALLBACK_CLIENT_WRITEABLE ? -1
                                                                                                : 0;
    }
    switch ((int)reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        link->is_open = true;
        link->calls.on_open(link->calls.ctx);
        break;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return received(link, wsi, in, n);
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        link->is_reached = true;
        break;
    case LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP:
        link->status = lws_http_client_http_response(wsi);
        break;
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH:
        link->is_heard = true;
        break;
    case LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION:
        link->is_distrusted = link->is_distrusted || n == 0; /* n: found to be good */
        break;
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
        link->calls.on_heard(link->calls.ctx);
        break;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return writeable(link, wsi);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        not_opened(link, in);
        break;
    case LWS_CALLBACK_CLIENT_CLOSED:
        closed(link, CQ_CLIENT_E_OFFLINE,
               link->too_big ? "the server sent what is not a frame" : "connection closed");
        break;
    case LWS_CALLBACK_WSI_DESTROY:
        /* Some ends are told by nothing else, e.g. an answer that is no HTTP. */
        not_opened(link, NULL);
        break;
    default:
        break;
    }
    return 0;
}

static const struct lws_protocols protocols[] = {
    {subprotocol, on_lws, 0, RX_BUFFER, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static void
on_late(uv_idle_t *idle)
{
    cq_link_t *link = idle->data;
    uv_idle_stop(idle);
    if (link->late_why) {
        const char *why = link->late_why;
        link->late_why = NULL;
        closed(link, CQ_CLIENT_E_OFFLINE, why);
    }
}

cq_link_t *
cq_link_new(struct uv_loop_s *loop,
            const struct cq_link_calls *calls,
            const struct cq_link_tls *tls)
{
    cq_link_t *link = calloc(1, sizeof *link);
    if (!link) {
        abort();
    }
    link->calls = *calls;
    link->out_last = &link->out_first;
    lws_set_log_level(0, NULL);
    void *loops[] = {loop};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .gid = -1,
        .uid = -1,
        .user = link,
        .foreign_loops = loops,
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_NO_LWS_SYSTEM_STATES,
        .timeout_secs = CONNECT_TIMEOUT_S,
        .fd_limit_per_thread = 16,
    };
    if (tls->is_used) {
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
        info.client_ssl_ca_filepath = tls->ca_file;
    }
    link->accepts_any = tls->accepts_any;
    link->context = lws_create_context(&info);
    if (!link->context) {
        free(link);
        return NULL;
    }
    uv_idle_init(loop, &link->late);
    link->late.data = link;
    return link;
}

void
cq_link_connect(cq_link_t *link, const struct cq_url *url)
{
    cq_link_drop(link);
    char host[CQ_URL_MAX + 8];
    (void)snprintf(host, sizeof host, strchr(url->host, ':') ? "[%s]:%u" : "%s:%u", url->host,
                   url->port);
    int tls = LCCSCF_USE_SSL;
    if (link->accepts_any) {
        tls |= LCCSCF_ALLOW_SELFSIGNED | LCCSCF_ALLOW_INSECURE | LCCSCF_ALLOW_EXPIRED |
               LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK;
    }
    struct lws_client_connect_info info = {
        .context = link->context,
        .address = url->host,
        .port = url->port,
        .path = url->path,
        .host = host,
        .origin = NULL,
        .protocol = subprotocol,
        .local_protocol_name = subprotocol,
        .ssl_connection = url->is_tls ? tls : 0,
        .pwsi = &link->wsi,
        .ietf_version_or_minus_one = -1,
    };
    link->was_told = false;
    if (!lws_client_connect_via_info(&info) && !link->was_told) {
        reset(link);
        link->late_why = "cannot connect; no such host, or no network";
        uv_idle_start(&link->late, on_late);
    }
}

void
cq_link_send(cq_link_t *link, const void *data, size_t n)
{
    if (!link->is_open) {
        return;
    }
    struct out_frame *f = malloc(sizeof *f + LWS_PRE + n);
    if (!f) {
        abort();
    }
    f->next = NULL;
    f->size = n;
    memcpy(f->bytes + LWS_PRE, data, n);
    *link->out_last = f;
    link->out_last = &f->next;
    lws_callback_on_writable(link->wsi);
}

void
cq_link_drop(cq_link_t *link)
{
    struct lws *old = link->wsi;
    reset(link);
    link->late_why = NULL;
    if (old) {
        lws_set_timeout(old, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    }
}

bool
cq_link_is_open(const cq_link_t *link)
{
    return link->is_open;
}

bool
cq_link_is_flushed(const cq_link_t *link)
{
    return !link->out_first && (!link->wsi || !lws_partial_buffered(link->wsi));
}

void
cq_link_stop(cq_link_t *link)
{
    cq_link_drop(link);
    uv_close((uv_handle_t *)&link->late, NULL);
    lws_context_destroy(link->context);
}

void
cq_link_finish(cq_link_t **p)
{
    cq_link_t *link = *p;
    *p = NULL;
    if (link) {
        lws_context_destroy(link->context);
        cq_buf_free(&link->in);
        free(link);
    }
}
