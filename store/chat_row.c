/* SPDX-License-Identifier: MPL-2.0
 * The rows of a chat. Small on purpose: rows of a million chats are rewritten all day, and what a
 * message costs on disk is the pages that they fill (design §4). So an answer takes one byte, a
 * position three or four (its difference to the one before), a time one to five (its difference to
 * the newest).
 */
#include <stdlib.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

#include "store/chat.h"

enum {
    CHAT_FIELDS = 11,
    MEMBER_FIELDS = 10,
    DEVICE_FIELDS = 6,
    BLOCK_FIELDS = 3,
    POSITION_BYTES = 10, /* of a 64-bit number, 7 bits in a byte */
};

/* ---- positions: ascending, as differences, 7 bits a byte, low ones first, the last without 0x80
 * ---- */

static void
write_positions(cq_buf_t *b, const struct store_chat_index *entries, size_t count)
{
    uint8_t bytes[STORE_CHAT_BLOCK * POSITION_BYTES];
    size_t n = 0;
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t step = entries[i].pos - before;
        before = entries[i].pos;
        for (; step >= 0x80; step >>= 7) {
            bytes[n++] = (uint8_t)(step | 0x80);
        }
        bytes[n++] = (uint8_t)step;
    }
    cq_pack_bin(b, bytes, n);
}

/* False unless the bytes are exactly `count` positions that ascend. */
static bool
read_positions(struct cq_view bytes, size_t count, uint64_t *pos)
{
    size_t at = 0;
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t step = 0;
        bool more = true;
        for (unsigned shift = 0; more; shift += 7) {
            if (at == bytes.n || shift >= 64) {
                return false;
            }
            step |= (uint64_t)(bytes.p[at] & 0x7f) << shift;
            more = bytes.p[at++] & 0x80;
        }
        if (step == 0 || step > UINT64_MAX - before) {
            return false;
        }
        before += step;
        pos[i] = before;
    }
    return at == bytes.n;
}

/* Bit i: entry i is member 0's; rank: the count before the first entry. */
static uint32_t
senders_of(const struct store_chat_index *entries, size_t count, uint64_t rank)
{
    uint32_t senders = 0;
    for (size_t i = 0; i < count; i++) {
        senders |= (uint32_t)(entries[i].rank > rank) << i;
        rank = entries[i].rank;
    }
    return senders;
}

/* ---- INDEX ---- */

void
store_chat_write_block(cq_buf_t *b, const struct store_chat *c, uint64_t first)
{
    const struct store_chat_index *entries = c->tail + (first - c->tail_first);
    uint64_t rank = first > c->tail_first ? entries[-1].rank : c->tail_rank;
    cq_pack_array(b, BLOCK_FIELDS);
    cq_pack_uint(b, rank);
    cq_pack_uint(b, senders_of(entries, STORE_CHAT_BLOCK, rank));
    write_positions(b, entries, STORE_CHAT_BLOCK);
}

int
store_chat_read_block(struct cq_view row, struct store_chat_block *block)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, BLOCK_FIELDS, BLOCK_FIELDS);
    block->rank = cq_read_uint(&r, UINT64_MAX - STORE_CHAT_BLOCK);
    block->senders = (uint32_t)cq_read_uint(&r, UINT32_MAX);
    struct cq_view bytes = cq_read_bin(&r, 0, (size_t)STORE_CHAT_BLOCK * POSITION_BYTES);
    return r.err || !read_positions(bytes, STORE_CHAT_BLOCK, block->pos) ? -CQ_E_CORRUPT : 0;
}

struct store_chat_index
store_chat_block_entry(const struct store_chat_block *block, unsigned i)
{
    uint32_t up_to = block->senders & (UINT32_MAX >> (STORE_CHAT_BLOCK - 1 - i));
    return (struct store_chat_index){block->pos[i],
                                     block->rank + (uint64_t)__builtin_popcount(up_to)};
}

/* ---- CHAT ---- */

/* Times are written as how long before the row's newest one, plus one; 0: none. */
static uint64_t
newest_time(const struct store_chat *c)
{
    uint64_t newest = 0;
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        const struct store_chat_member *m = &c->members[i];
        newest = m->read_time_unix_ms > newest ? m->read_time_unix_ms : newest;
        newest = m->unread_time_unix_ms > newest ? m->unread_time_unix_ms : newest;
    }
    for (size_t i = 0; i < c->device_count; i++) {
        uint64_t t = c->devices[i].delivered_time_unix_ms;
        newest = t > newest ? t : newest;
    }
    return newest;
}

static void
write_time(cq_buf_t *b, uint64_t newest, uint64_t time)
{
    cq_pack_uint(b, time ? newest - time + 1 : 0);
}

static uint64_t
read_time(cq_reader_t *r, uint64_t newest)
{
    uint64_t age = cq_read_uint(r, newest);
    return age ? newest - age + 1 : 0;
}

static void
write_member(cq_buf_t *b, const struct store_chat_member *m, uint64_t newest)
{
    cq_pack_array(b, MEMBER_FIELDS);
    cq_pack_bin(b, m->user.b, CQ_ID_SIZE);
    cq_pack_uint(b, m->sent);
    cq_pack_uint(b, m->read);
    write_time(b, newest, m->read_time_unix_ms);
    cq_pack_uint(b, m->others_read);
    cq_pack_uint(b, m->first_unread);
    cq_pack_uint(b, m->unread_count);
    write_time(b, newest, m->unread_time_unix_ms);
    cq_pack_bool(b, m->read_audit);
    cq_pack_uint(b, m->read_audit_pos);
}

static void
read_member(cq_reader_t *r, struct store_chat_member *m, uint64_t newest)
{
    (void)cq_read_array(r, MEMBER_FIELDS, MEMBER_FIELDS);
    m->user = cq_read_id(r);
    m->sent = cq_read_uint(r, UINT64_MAX);
    m->read = cq_read_uint(r, UINT64_MAX);
    m->read_time_unix_ms = read_time(r, newest);
    m->others_read = cq_read_uint(r, UINT64_MAX);
    m->first_unread = cq_read_uint(r, UINT64_MAX);
    m->unread_count = cq_read_uint(r, UINT64_MAX);
    m->unread_time_unix_ms = read_time(r, newest);
    m->read_audit = cq_read_bool(r);
    m->read_audit_pos = cq_read_uint(r, UINT64_MAX);
}

/* The newest answer is of last_dseq: its seq. Each further one is how far its seq is behind, times
 * two; odd if its dseq is not the one before, which then follows. */
static void
write_answers(cq_buf_t *b, const struct store_chat_device *d)
{
    const struct store_chat_answer *newer = store_chat_answer(d, 0);
    size_t values = d->answer_count;
    for (size_t i = 1; i < d->answer_count; i++) {
        values += store_chat_answer(d, i - 1)->dseq - store_chat_answer(d, i)->dseq != 1;
    }
    cq_pack_array(b, values);
    if (d->answer_count) {
        cq_pack_uint(b, newer->seq);
    }
    for (size_t i = 1; i < d->answer_count; i++) {
        const struct store_chat_answer *a = store_chat_answer(d, i);
        uint64_t step = newer->dseq - a->dseq;
        cq_pack_uint(b, (newer->seq - a->seq) << 1 | (step != 1));
        if (step != 1) {
            cq_pack_uint(b, step);
        }
        newer = a;
    }
}

static void
read_answers(cq_reader_t *r, struct store_chat_device *d)
{
    size_t values = cq_read_array(r, 0, (size_t)2 * CQ_WINDOW - 1);
    struct store_chat_answer found[CQ_WINDOW];
    size_t count = 0;
    if (values) {
        found[count++] = (struct store_chat_answer){d->last_dseq, cq_read_uint(r, UINT64_MAX)};
        values--;
    }
    while (values && count < CQ_WINDOW && !r->err) {
        const struct store_chat_answer *newer = &found[count - 1];
        uint64_t back = cq_read_uint(r, UINT64_MAX);
        values--;
        uint64_t step = 1;
        if (back & 1 && values) {
            step = cq_read_uint(r, UINT64_MAX);
            values--;
        }
        if (back >> 1 > newer->seq || step > newer->dseq) {
            r->err = r->err ? r->err : -CQ_E_BAD_ARG;
        }
        found[count++] = (struct store_chat_answer){newer->dseq - step, newer->seq - (back >> 1)};
    }
    if (values && !r->err) {
        r->err = -CQ_E_BAD_ARG;
    }
    store_chat_grow_answers(d, count);
    for (size_t i = 0; i < count; i++) {
        d->answers[count - 1 - i] = found[i];
    }
    d->answer_count = (uint8_t)count;
    d->answer_newest = (uint8_t)(count ? count - 1 : 0);
}

static void
write_device(cq_buf_t *b, const struct store_chat_device *d, uint64_t newest)
{
    cq_pack_array(b, DEVICE_FIELDS);
    cq_pack_bin(b, d->device.b, CQ_ID_SIZE);
    cq_pack_uint(b, d->member);
    cq_pack_uint(b, d->delivered);
    write_time(b, newest, d->delivered_time_unix_ms);
    cq_pack_uint(b, d->last_dseq);
    write_answers(b, d);
}

static void
read_device(cq_reader_t *r, struct store_chat_device *d, uint64_t newest)
{
    (void)cq_read_array(r, DEVICE_FIELDS, DEVICE_FIELDS);
    d->device = cq_read_id(r);
    d->member = (uint8_t)cq_read_uint(r, STORE_CHAT_MEMBERS - 1);
    d->delivered = cq_read_uint(r, UINT64_MAX);
    d->delivered_time_unix_ms = read_time(r, newest);
    d->last_dseq = cq_read_uint(r, UINT64_MAX);
    read_answers(r, d);
}

void
store_chat_write(cq_buf_t *b, const struct store_chat *c)
{
    uint64_t newest = newest_time(c);
    size_t count = (size_t)(c->head % STORE_CHAT_BLOCK);
    const struct store_chat_index *open = count ? c->tail + (c->tail_count - count) : NULL;
    uint64_t rank = open && count < c->tail_count ? open[-1].rank : c->tail_rank;
    cq_pack_array(b, CHAT_FIELDS);
    cq_pack_uint(b, c->last_pos);
    cq_pack_uint(b, c->last_pos - c->changed_pos);
    cq_pack_uint(b, c->head);
    cq_pack_bool(b, c->open);
    cq_pack_uint(b, c->key_version);
    cq_pack_uint(b, newest);
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        write_member(b, &c->members[i], newest);
    }
    cq_pack_array(b, c->device_count);
    for (size_t i = 0; i < c->device_count; i++) {
        write_device(b, &c->devices[i], newest);
    }
    cq_pack_uint(b, senders_of(open, count, rank));
    write_positions(b, open, count);
}

/* The index of the block that is filling up. */
static void
read_open_block(cq_reader_t *r, struct store_chat *c)
{
    size_t count = (size_t)(c->head % STORE_CHAT_BLOCK);
    uint64_t pos[STORE_CHAT_BLOCK];
    uint32_t senders = (uint32_t)cq_read_uint(r, (UINT64_C(1) << count) - 1);
    struct cq_view bytes = cq_read_bin(r, 0, (size_t)STORE_CHAT_BLOCK * POSITION_BYTES);
    uint64_t sent = (uint64_t)__builtin_popcount(senders);
    if (r->err || !read_positions(bytes, count, pos) || sent > c->members[0].sent) {
        r->err = r->err ? r->err : -CQ_E_BAD_ARG;
        return;
    }
    c->tail_first = c->head - count + 1;
    c->tail_rank = c->members[0].sent - sent;
    uint64_t rank = c->tail_rank;
    if (count) {
        /* As it would have grown: a million chats in memory are loaded ones. */
        c->tail_room = 4;
        while (c->tail_room <= count) {
            c->tail_room *= 2;
        }
        c->tail = cq_alloc(c->tail_room * sizeof *c->tail);
        c->tail_count = count;
    }
    for (size_t i = 0; i < count; i++) {
        rank += senders >> i & 1;
        c->tail[i] = (struct store_chat_index){pos[i], rank};
    }
}

int
store_chat_read(struct cq_view row, struct store_chat *c)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, CHAT_FIELDS, CHAT_FIELDS);
    c->last_pos = cq_read_uint(&r, UINT64_MAX);
    c->changed_pos = c->last_pos - cq_read_uint(&r, c->last_pos);
    c->head = cq_read_uint(&r, UINT64_MAX - 1);
    c->open = cq_read_bool(&r);
    c->key_version = cq_read_uint(&r, UINT32_MAX);
    uint64_t newest = cq_read_uint(&r, UINT64_MAX - 1);
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        read_member(&r, &c->members[i], newest);
    }
    size_t count = cq_read_array(&r, 0, STORE_CHAT_DEVICES_MAX);
    if (count && !r.err) {
        c->devices = cq_alloc(count * sizeof *c->devices);
        c->device_count = count;
    }
    for (size_t i = 0; i < c->device_count && !r.err; i++) {
        read_device(&r, &c->devices[i], newest);
    }
    if (!r.err) {
        read_open_block(&r, c);
    }
    return r.err ? -CQ_E_CORRUPT : 0;
}

int
store_chat_read_open(struct cq_view row, bool *open)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, CHAT_FIELDS, CHAT_FIELDS);
    (void)cq_read_uint(&r, UINT64_MAX); /* last_pos */
    (void)cq_read_uint(&r, UINT64_MAX); /* … less changed_pos */
    (void)cq_read_uint(&r, UINT64_MAX); /* head */
    *open = cq_read_bool(&r);
    return r.err ? -CQ_E_CORRUPT : 0;
}

/* ---- the audits ---- */

void
store_chat_write_unread(cq_buf_t *b, const struct store_chat *c, int member)
{
    const struct store_chat_member *m = &c->members[member];
    cq_pack_array(b, 4);
    cq_pack_uint(b, c->last_pos);
    cq_pack_uint(b, m->first_unread);
    cq_pack_uint(b, m->unread_count);
    cq_pack_uint(b, m->unread_time_unix_ms);
}

void
store_chat_write_read(cq_buf_t *b, const struct store_chat *c, int member)
{
    const struct store_chat_member *peer = &c->members[1 - member];
    cq_pack_array(b, 3);
    cq_pack_uint(b, c->members[member].read_audit_pos);
    cq_pack_uint(b, peer->read);
    cq_pack_uint(b, peer->read_time_unix_ms);
}
