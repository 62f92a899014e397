/* SPDX-License-Identifier: MPL-2.0
 * The rows of a chat. Small on purpose: rows of a million chats are rewritten all day (design §4),
 * so an answer takes two bytes (differences to its neighbour) and a member ten.
 */
#include <stdlib.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

#include "store/chat.h"

enum {
    CHAT_FIELDS = 7,
    MEMBER_FIELDS = 10,
    DEVICE_FIELDS = 6
};

static void
write_member(cq_buf_t *b, const struct store_chat_member *m)
{
    cq_pack_array(b, MEMBER_FIELDS);
    cq_pack_bin(b, m->user.b, CQ_ID_SIZE);
    cq_pack_uint(b, m->sent);
    cq_pack_uint(b, m->read);
    cq_pack_uint(b, m->read_time_unix_ms);
    cq_pack_uint(b, m->others_read);
    cq_pack_uint(b, m->first_unread);
    cq_pack_uint(b, m->unread_count);
    cq_pack_uint(b, m->unread_time_unix_ms);
    cq_pack_bool(b, m->read_audit);
    cq_pack_uint(b, m->read_audit_pos);
}

static void
write_device(cq_buf_t *b, const struct store_chat_device *d)
{
    cq_pack_array(b, DEVICE_FIELDS);
    cq_pack_bin(b, d->device.b, CQ_ID_SIZE);
    cq_pack_uint(b, d->member);
    cq_pack_uint(b, d->delivered);
    cq_pack_uint(b, d->delivered_time_unix_ms);
    cq_pack_uint(b, d->last_dseq);
    cq_pack_array(b, 2 * (size_t)d->answer_count);
    uint64_t dseq = d->last_dseq;
    uint64_t seq = d->answer_count ? d->answers[0].seq : 0;
    for (size_t i = 0; i < d->answer_count; i++) {
        cq_pack_uint(b, dseq - d->answers[i].dseq);
        cq_pack_uint(b, i ? seq - d->answers[i].seq : seq);
        dseq = d->answers[i].dseq;
        seq = d->answers[i].seq;
    }
}

void
store_chat_write(cq_buf_t *b, const struct store_chat *c)
{
    cq_pack_array(b, CHAT_FIELDS);
    cq_pack_uint(b, c->last_pos);
    cq_pack_uint(b, c->head);
    cq_pack_bool(b, c->open);
    cq_pack_uint(b, c->key_version);
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        write_member(b, &c->members[i]);
    }
    cq_pack_array(b, c->device_count);
    for (size_t i = 0; i < c->device_count; i++) {
        write_device(b, &c->devices[i]);
    }
}

static void
read_member(cq_reader_t *r, struct store_chat_member *m)
{
    (void)cq_read_array(r, MEMBER_FIELDS, MEMBER_FIELDS);
    m->user = cq_read_id(r);
    m->sent = cq_read_uint(r, UINT64_MAX);
    m->read = cq_read_uint(r, UINT64_MAX);
    m->read_time_unix_ms = cq_read_uint(r, UINT64_MAX);
    m->others_read = cq_read_uint(r, UINT64_MAX);
    m->first_unread = cq_read_uint(r, UINT64_MAX);
    m->unread_count = cq_read_uint(r, UINT64_MAX);
    m->unread_time_unix_ms = cq_read_uint(r, UINT64_MAX);
    m->read_audit = cq_read_bool(r);
    m->read_audit_pos = cq_read_uint(r, UINT64_MAX);
}

static void
read_device(cq_reader_t *r, struct store_chat_device *d)
{
    (void)cq_read_array(r, DEVICE_FIELDS, DEVICE_FIELDS);
    d->device = cq_read_id(r);
    d->member = (uint8_t)cq_read_uint(r, STORE_CHAT_MEMBERS - 1);
    d->delivered = cq_read_uint(r, UINT64_MAX);
    d->delivered_time_unix_ms = cq_read_uint(r, UINT64_MAX);
    d->last_dseq = cq_read_uint(r, UINT64_MAX);
    d->answer_count = (uint8_t)(cq_read_array(r, 0, (size_t)2 * CQ_WINDOW) / 2);
    uint64_t dseq = d->last_dseq;
    uint64_t seq = 0;
    for (size_t i = 0; i < d->answer_count; i++) {
        dseq -= cq_read_uint(r, dseq);
        uint64_t step = cq_read_uint(r, i ? seq : UINT64_MAX);
        seq = i ? seq - step : step;
        d->answers[i] = (struct store_chat_answer){dseq, seq};
    }
}

int
store_chat_read(struct cq_view row, struct store_chat *c)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, CHAT_FIELDS, CHAT_FIELDS);
    c->last_pos = cq_read_uint(&r, UINT64_MAX);
    c->head = cq_read_uint(&r, UINT64_MAX);
    c->open = cq_read_bool(&r);
    c->key_version = cq_read_uint(&r, UINT32_MAX);
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        read_member(&r, &c->members[i]);
    }
    size_t count = cq_read_array(&r, 0, STORE_CHAT_DEVICES_MAX);
    if (count) {
        c->devices = cq_alloc(count * sizeof *c->devices);
    }
    for (size_t i = 0; i < count && !r.err; i++) {
        read_device(&r, &c->devices[i]);
    }
    c->device_count = count;
    c->tail_first = c->head + 1;
    return r.err ? -CQ_E_CORRUPT : 0;
}

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

void
store_chat_write_index(cq_buf_t *b, const struct store_chat_index *i)
{
    cq_pack_uint(b, i->pos);
    cq_pack_uint(b, i->rank);
}

int
store_chat_read_index(struct cq_view row, struct store_chat_index *i)
{
    cq_reader_t r = cq_reader_of(row);
    i->pos = cq_read_uint(&r, UINT64_MAX);
    i->rank = cq_read_uint(&r, UINT64_MAX);
    return r.err ? -CQ_E_CORRUPT : 0;
}
