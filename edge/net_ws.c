/* SPDX-License-Identifier: MPL-2.0
 * WebSocket connections: frames become messages. A message that came in one piece is handed on
 * where it lies; only what has to wait for more is copied.
 */
#include <stdlib.h>
#include <string.h>

#include "edge/net_conn.h"

enum {
    CLOSE_POLICY = 1008,
    PONGS_KEPT_BYTES = 4096, /* for a peer that asks and does not read */
};

/* ---- output ---- */

bool
edge_net_send(edge_conn_t *c, enum edge_frame_opcode opcode, uint8_t *payload, size_t n)
{
    if (c->state != EDGE_CONN_WS || c->is_close_sent) {
        return true; /* it is ending, and whoever sends will be told */
    }
    size_t header = edge_frame_write_header(payload, opcode, n);
    return edge_net_conn_write(c, payload - header, header + n);
}

void
edge_net_close(edge_conn_t *c, uint16_t code)
{
    if (c->state != EDGE_CONN_WS || c->is_close_sent) {
        return;
    }
    uint8_t frame[EDGE_FRAME_OUT_HEADER_MAX + 2];
    uint8_t *payload = frame + EDGE_FRAME_OUT_HEADER_MAX;
    payload[0] = (uint8_t)(code >> 8);
    payload[1] = (uint8_t)code;
    if (!edge_net_send(c, EDGE_FRAME_CLOSE, payload, code ? 2 : 0)) {
        edge_net_kill(c);
        return;
    }
    c->is_close_sent = true;
    c->is_paused = false;
    edge_net_conn_move(c, EDGE_CONN_ENDING);
    if (c->is_deaf || c->is_peer_closed) {
        edge_net_conn_finish(c);
    } else {
        edge_net_conn_watch(c);
    }
}

/* ---- input ---- */

static void
break_off(edge_conn_t *c, uint16_t code)
{
    c->net->cfg.stats->ws_broken_total++;
    c->is_deaf = true;
    edge_net_conn_in_drop(c);
    if (c->is_close_sent) {
        edge_net_conn_finish(c);
    } else if (c->net->cfg.calls->on_broken) {
        c->net->cfg.calls->on_broken(c->net->cfg.ctx, c, code);
    } else {
        edge_net_close(c, code);
    }
}

static void
take_ping(edge_conn_t *c, const uint8_t *p, size_t n)
{
    const struct edge_net_calls *calls = c->net->cfg.calls;
    if (calls->on_ping && !calls->on_ping(c->net->cfg.ctx, c)) {
        break_off(c, CLOSE_POLICY);
        return;
    }
    if (c->out && c->out->size - c->out->at > PONGS_KEPT_BYTES) {
        return; /* RFC 6455 §5.5.3 lets us leave some out */
    }
    uint8_t frame[EDGE_FRAME_OUT_HEADER_MAX + EDGE_FRAME_CONTROL_MAX];
    memcpy(frame + EDGE_FRAME_OUT_HEADER_MAX, p, n);
    c->net->cfg.stats->pings_answered_total++;
    if (!edge_net_send(c, EDGE_FRAME_PONG, frame + EDGE_FRAME_OUT_HEADER_MAX, n)) {
        edge_net_kill(c);
    }
}

static void
take_close(edge_conn_t *c, const uint8_t *p, size_t n)
{
    int code = edge_frame_read_close(p, n);
    if (code < 0) {
        break_off(c, (uint16_t)-code);
        return;
    }
    c->is_peer_closed = true;
    edge_net_conn_in_drop(c);
    if (c->is_close_sent) {
        edge_net_conn_finish(c);
    } else if (c->net->cfg.calls->on_peer_close) {
        c->net->cfg.calls->on_peer_close(c->net->cfg.ctx, c, (uint16_t)code);
    } else {
        edge_net_close(c, (uint16_t)code);
    }
}

static void
take_control(edge_conn_t *c, const struct edge_frame_part *part)
{
    const uint8_t *p = part->data;
    size_t n = part->n;
    uint8_t whole[EDGE_FRAME_CONTROL_MAX];
    if (!part->is_frame_end || (c->in && c->in->control_size)) {
        struct edge_conn_in *in = edge_net_conn_in(c);
        memcpy(in->control + in->control_size, p, n);
        in->control_size = (uint8_t)(in->control_size + n);
        if (!part->is_frame_end) {
            return;
        }
        n = in->control_size;
        memcpy(whole, in->control, n);
        p = whole;
        in->control_size = 0;
        if (!in->bytes.size) {
            edge_net_conn_in_drop(c);
        }
    }
    if (part->opcode == EDGE_FRAME_PING) {
        take_ping(c, p, n);
    } else if (part->opcode == EDGE_FRAME_CLOSE) {
        take_close(c, p, n);
    }
}

static void
hand_on(edge_conn_t *c, const uint8_t *p, size_t n, uint8_t opcode)
{
    if (c->net->cfg.calls->on_message) {
        c->net->cfg.calls->on_message(c->net->cfg.ctx, c, (struct cq_view){p, n},
                                      opcode == EDGE_FRAME_TEXT);
    }
}

static void
take_data(edge_conn_t *c, const struct edge_frame_part *part)
{
    if (c->is_close_sent) {
        return;
    }
    bool is_first = !c->in || !c->in->bytes.size;
    if (is_first && part->is_message_end) {
        hand_on(c, part->data, part->n, part->opcode);
        return;
    }
    if (part->n) {
        cq_buf_append(&edge_net_conn_in(c)->bytes, part->data, part->n);
        if (!edge_net_conn_in_count(c)) {
            break_off(c, CLOSE_POLICY);
            return;
        }
    }
    if (part->is_message_end) {
        cq_buf_t message = c->in->bytes;
        c->in->bytes = (cq_buf_t){0};
        if (c->in->control_size) {
            (void)edge_net_conn_in_count(c);
        } else {
            edge_net_conn_in_drop(c);
        }
        hand_on(c, message.data, message.size, part->opcode);
        cq_buf_free(&message);
    }
}

void
edge_net_ws_take(edge_conn_t *c, uint8_t *p, size_t n)
{
    const struct edge_net_calls *calls = c->net->cfg.calls;
    const uint8_t *end = p + n;
    if (c->is_deaf || c->is_peer_closed) {
        return;
    }
    if (calls->on_heard) {
        calls->on_heard(c->net->cfg.ctx, c, n);
    }
    while (c->state == EDGE_CONN_WS && !c->is_deaf && !c->is_peer_closed) {
        struct edge_frame_part part;
        int rc = edge_frame_next(&c->frame, &c->net->cfg.frames, &p, end, &part);
        if (rc == 0) {
            return;
        }
        if (rc < 0) {
            break_off(c, (uint16_t)-rc);
        } else if (part.opcode >= EDGE_FRAME_CLOSE) {
            take_control(c, &part);
        } else {
            take_data(c, &part);
        }
    }
}
