/* SPDX-License-Identifier: MPL-2.0
 * A list of chunks, one frame each, freed when written: a session with nothing to say costs three
 * words.
 */
#include "edge/outq.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

enum {
    ROOM_MIN = 128,
    ARRAY16_MIN = 16,
    ARRAY32_MIN = 65536
};

struct edge_chunk {
    struct edge_chunk *next;
    size_t size; /* bytes of operations */
    size_t room;
    size_t op_count;
    bool is_front;  /* handed out for writing: closed */
    uint8_t data[]; /* headroom, then the operations */
};

/* Chunks are sized for what they carry; the sum over a session is bounded by the policy. */
static struct edge_chunk *
new_chunk(size_t n)
{
    size_t room = n < ROOM_MIN ? ROOM_MIN : n;
    struct edge_chunk *c = malloc(sizeof *c + EDGE_OUTQ_HEADROOM + room);
    if (!c) {
        abort();
    }
    *c = (struct edge_chunk){.room = room};
    return c;
}

static struct edge_chunk *
grow_chunk(struct edge_chunk *c, size_t n)
{
    size_t room = c->room;
    while (room < c->size + n) {
        room *= 2;
    }
    c = realloc(c, sizeof *c + EDGE_OUTQ_HEADROOM + room);
    if (!c) {
        abort();
    }
    c->room = room;
    return c;
}

/* The chunk that takes n more bytes, at the tail. */
static struct edge_chunk *
tail_for(struct edge_outq *q, size_t n)
{
    struct edge_chunk *tail = q->tail;
    bool is_new = !tail || tail->is_front || tail->size + n > EDGE_OUTQ_GATHER_MAX;
    if (!is_new && tail->size + n <= tail->room) {
        return tail;
    }
    if (!is_new) {
        q->tail = *q->tail_at = grow_chunk(tail, n);
        return q->tail;
    }
    q->tail_at = tail ? &tail->next : &q->head;
    q->tail = *q->tail_at = new_chunk(n);
    return q->tail;
}

static void
add_bytes(struct edge_outq *q, size_t n)
{
    q->bytes += n;
    if (q->total) {
        *q->total += n;
    }
}

bool
edge_outq_put(struct edge_outq *q, enum edge_outq_kind kind, struct cq_view op, size_t bytes_max)
{
    if (kind != EDGE_OUTQ_ANSWER && (q->is_lagging || q->bytes + op.n > bytes_max)) {
        q->is_lagging = q->is_lagging || kind == EDGE_OUTQ_DURABLE;
        return false;
    }
    struct edge_chunk *c = tail_for(q, op.n);
    memcpy(c->data + EDGE_OUTQ_HEADROOM + c->size, op.p, op.n);
    c->size += op.n;
    c->op_count++;
    add_bytes(q, op.n);
    return true;
}

/* The array's header, in as few bytes as it needs, right before the operations. Returns its length.
 */
static size_t
write_header(uint8_t *end, size_t count)
{
    if (count < ARRAY16_MIN) {
        end[-1] = (uint8_t)(0x90 | count);
        return 1;
    }
    if (count < ARRAY32_MIN) {
        end[-3] = 0xdc;
        end[-2] = (uint8_t)(count >> 8);
        end[-1] = (uint8_t)count;
        return 3;
    }
    end[-5] = 0xdd;
    for (int i = 0; i < 4; i++) {
        end[-4 + i] = (uint8_t)(count >> (24 - 8 * i));
    }
    return 5;
}

bool
edge_outq_front(struct edge_outq *q, uint8_t **frame, size_t *n)
{
    struct edge_chunk *c = q->head;
    if (!c) {
        return false;
    }
    c->is_front = true;
    uint8_t *ops = c->data + EDGE_OUTQ_HEADROOM;
    size_t header = write_header(ops, c->op_count);
    *frame = ops - header;
    *n = c->size + header;
    return true;
}

void
edge_outq_pop(struct edge_outq *q)
{
    struct edge_chunk *c = q->head;
    CQ_ASSERT(c);
    q->head = c->next;
    if (!q->head) {
        q->tail = NULL;
    }
    if (q->head == q->tail) {
        q->tail_at = &q->head;
    }
    add_bytes(q, 0 - c->size);
    free(c);
}

void
edge_outq_free(struct edge_outq *q)
{
    while (q->head) {
        edge_outq_pop(q);
    }
    q->is_lagging = false;
}
