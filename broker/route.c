/* SPDX-License-Identifier: MPL-2.0
 * ZMQ_ROUTER_MANDATORY makes the first frame of a message fail when its peer is unknown or full;
 * once that frame is taken the others never fail.
 */
#include "broker/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/wire/name.h"
#include "common/wire/pack.h"

enum {
    FRAMES = 4
};

static struct cq_view
view_of(zmq_msg_t *msg)
{
    return (struct cq_view){zmq_msg_data(msg), zmq_msg_size(msg)};
}

static int
receive_frame(zmq_msg_t *msg, void *router)
{
    int rc;
    do {
        rc = zmq_msg_recv(msg, router, ZMQ_DONTWAIT);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

/* Number of frames of the next message; those beyond FRAMES are dropped. */
static size_t
receive_frames(void *router, zmq_msg_t *frames[FRAMES])
{
    size_t count = 0;
    bool has_more = true;
    while (has_more) {
        zmq_msg_t extra;
        zmq_msg_t *msg = &extra;
        if (count < FRAMES) {
            msg = frames[count];
        } else {
            (void)zmq_msg_init(&extra);
        }
        if (receive_frame(msg, router) < 0) {
            break;
        }
        has_more = zmq_msg_more(msg);
        if (msg == &extra) {
            (void)zmq_msg_close(&extra);
        }
        count++;
    }
    return count;
}

static bool
is_envelope(struct broker_envelope *e)
{
    struct cq_view dst = view_of(&e->dst);
    struct cq_view header = view_of(&e->header);
    if (!cq_actor_name_ok((const char *)dst.p, dst.n) || zmq_msg_size(&e->body) > CQ_ENVELOPE_MAX ||
        cq_envelope_read(header.p, header.n, &e->head) != 0) {
        return false;
    }
    memcpy(e->to, dst.p, dst.n);
    e->to[dst.n] = '\0';
    e->from = view_of(&e->identity);
    e->content = view_of(&e->body);
    return true;
}

enum broker_input
broker_route_receive(void *router,
                     struct broker_envelope *e,
                     char identity[BROKER_IDENTITY_MAX + 1])
{
    zmq_msg_t *frames[FRAMES] = {&e->identity, &e->dst, &e->header, &e->body};
    for (size_t i = 0; i < FRAMES; i++) {
        (void)zmq_msg_init(frames[i]);
    }
    size_t count = receive_frames(router, frames);
    if (count == FRAMES && is_envelope(e)) {
        return BROKER_INPUT_ENVELOPE;
    }
    if (count) {
        struct cq_view v = view_of(&e->identity);
        size_t n = v.n < BROKER_IDENTITY_MAX ? v.n : BROKER_IDENTITY_MAX;
        memcpy(identity, v.p, n);
        identity[n] = '\0';
    }
    broker_envelope_close(e);
    return count ? BROKER_INPUT_GARBAGE : BROKER_INPUT_NONE;
}

void
broker_envelope_close(struct broker_envelope *e)
{
    (void)zmq_msg_close(&e->identity);
    (void)zmq_msg_close(&e->dst);
    (void)zmq_msg_close(&e->header);
    (void)zmq_msg_close(&e->body);
}

static int
send_bytes(void *router, const void *data, size_t n, int flags)
{
    int rc;
    do {
        rc = zmq_send(router, data, n, ZMQ_DONTWAIT | flags);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

static int
send_moved(void *router, zmq_msg_t *msg, int flags)
{
    int rc;
    do {
        rc = zmq_msg_send(msg, router, ZMQ_DONTWAIT | flags);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

static int
error_of(int negative_errno)
{
    return negative_errno == -EAGAIN ? -CQ_E_BUSY : -CQ_E_UNROUTABLE;
}

int
broker_route_forward(void *router,
                     struct broker_envelope *e,
                     const char *src,
                     const struct broker_actor *to)
{
    int rc = send_bytes(router, to->identity, to->identity_size, ZMQ_SNDMORE);
    if (rc) {
        return error_of(rc);
    }
    rc = send_bytes(router, src, strlen(src), ZMQ_SNDMORE);
    rc = rc ? rc : send_moved(router, &e->header, ZMQ_SNDMORE);
    rc = rc ? rc : send_moved(router, &e->body, 0);
    return rc ? error_of(rc) : 0;
}

int
broker_route_send(void *router,
                  struct cq_view identity,
                  uint8_t op,
                  const cq_buf_t *items,
                  size_t count)
{
    static uint64_t corr; /* numbers the broker's own envelopes */
    static const char src[] = "broker";
    int rc = send_bytes(router, identity.p, identity.n, ZMQ_SNDMORE);
    if (rc) {
        return error_of(rc);
    }
    cq_buf_t b = {0};
    struct cq_envelope head = {.op = op, .corr = ++corr};
    cq_envelope_write(&b, &head);
    size_t header_size = b.size;
    cq_pack_array(&b, count);
    cq_buf_append(&b, items->data, items->size);
    rc = send_bytes(router, src, sizeof src - 1, ZMQ_SNDMORE);
    rc = rc ? rc : send_bytes(router, b.data, header_size, ZMQ_SNDMORE);
    rc = rc ? rc : send_bytes(router, b.data + header_size, b.size - header_size, 0);
    cq_buf_free(&b);
    return rc ? error_of(rc) : 0;
}
