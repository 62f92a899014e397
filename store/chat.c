/* SPDX-License-Identifier: MPL-2.0 */
#include "store/chat.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

enum {
    ANSWERS_MIN = 4 /* doubled up to CQ_WINDOW */
};

void
store_chat_init(struct store_chat *c, const struct cq_id *id)
{
    *c = (struct store_chat){.id = *id, .tail_first = 1};
}

void
store_chat_fini(struct store_chat *c)
{
    for (size_t i = 0; i < c->device_count; i++) {
        free(c->devices[i].answers);
    }
    free(c->devices);
    free(c->tail);
    free(c->receipts);
    *c = (struct store_chat){0};
}

int
store_chat_member(const struct store_chat *c, const struct cq_id *user)
{
    for (int i = 0; i < STORE_CHAT_MEMBERS; i++) {
        if (cq_id_eq(&c->members[i].user, user)) {
            return i;
        }
    }
    return -1;
}

const struct store_chat_device *
store_chat_device(const struct store_chat *c, const struct cq_id *device)
{
    for (size_t i = 0; i < c->device_count; i++) {
        if (cq_id_eq(&c->devices[i].device, device)) {
            return &c->devices[i];
        }
    }
    return NULL;
}

/* Finds or adds. NULL when the chat knows too many devices already. */
static struct store_chat_device *
device_of(struct store_chat *c, const struct cq_id *device, int member)
{
    for (size_t i = 0; i < c->device_count; i++) {
        if (cq_id_eq(&c->devices[i].device, device)) {
            return &c->devices[i];
        }
    }
    if (c->device_count == STORE_CHAT_DEVICES_MAX) {
        return NULL;
    }
    c->devices = realloc(c->devices, (c->device_count + 1) * sizeof *c->devices);
    CQ_ASSERT(c->devices);
    struct store_chat_device *d = &c->devices[c->device_count++];
    *d = (struct store_chat_device){.device = *device, .member = (uint8_t)member};
    return d;
}

enum store_chat_verdict
store_chat_judge(const struct store_chat *c,
                 const struct cq_id *device,
                 uint64_t dseq,
                 uint64_t prev,
                 uint64_t *seq)
{
    const struct store_chat_device *d = store_chat_device(c, device);
    uint64_t last = d ? d->last_dseq : 0;
    if (dseq > last) {
        return prev == last ? STORE_CHAT_ACCEPT : STORE_CHAT_OUT_OF_ORDER;
    }
    for (size_t i = 0; d && i < d->answer_count; i++) {
        const struct store_chat_answer *answer = store_chat_answer(d, i);
        if (answer->dseq == dseq) {
            *seq = answer->seq;
            return STORE_CHAT_REPEAT;
        }
    }
    return STORE_CHAT_CONFLICT;
}

bool
store_chat_tail(const struct store_chat *c, uint64_t seq, struct store_chat_index *out)
{
    if (seq < c->tail_first || seq - c->tail_first >= c->tail_count) {
        return false;
    }
    *out = c->tail[seq - c->tail_first];
    return true;
}

static void
set_tail_room(struct store_chat *c, size_t room)
{
    c->tail = realloc(c->tail, room * sizeof *c->tail);
    CQ_ASSERT(c->tail);
    c->tail_room = room;
}

void
store_chat_trim(struct store_chat *c, uint64_t seq)
{
    uint64_t bound = seq < c->head ? seq : c->head;
    uint64_t first = bound - bound % STORE_CHAT_BLOCK + 1;
    if (first <= c->tail_first) {
        return;
    }
    size_t n = (size_t)(first - c->tail_first);
    c->tail_rank = c->tail[n - 1].rank;
    memmove(c->tail, c->tail + n, (c->tail_count - n) * sizeof *c->tail);
    c->tail_count -= n;
    c->tail_first = first;
    if (c->tail_count == 0) {
        free(c->tail);
        c->tail = NULL;
        c->tail_room = 0;
    } else if (c->tail_room > STORE_CHAT_BLOCK && c->tail_count <= STORE_CHAT_BLOCK) {
        set_tail_room(c, STORE_CHAT_BLOCK);
    }
}

void
store_chat_trim_receipts(struct store_chat *c, uint64_t pos)
{
    size_t n = 0;
    while (n < c->receipt_count && c->receipts[n].pos <= pos) {
        n++;
    }
    if (n == 0) {
        return;
    }
    c->receipt_count -= n;
    memmove(c->receipts, c->receipts + n, c->receipt_count * sizeof *c->receipts);
    if (c->receipt_count == 0) {
        free(c->receipts);
        c->receipts = NULL;
        c->receipt_room = 0;
    }
}

static void
push_receipt(struct store_chat *c, struct store_chat_receipt receipt)
{
    if (c->receipt_count == c->receipt_room) {
        c->receipt_room = c->receipt_room ? 2 * c->receipt_room : 4;
        c->receipts = realloc(c->receipts, c->receipt_room * sizeof *c->receipts);
        CQ_ASSERT(c->receipts);
    }
    c->receipts[c->receipt_count++] = receipt;
}

static void
push_tail(struct store_chat *c, struct store_chat_index entry)
{
    if (c->tail_count == c->tail_room) {
        set_tail_room(c, c->tail_room ? 2 * c->tail_room : 4);
    }
    c->tail[c->tail_count++] = entry;
}

void
store_chat_grow_answers(struct store_chat_device *d, size_t count)
{
    CQ_ASSERT(count <= CQ_WINDOW);
    size_t room = d->answer_room ? d->answer_room : ANSWERS_MIN;
    while (room < count) {
        room *= 2;
    }
    if (count && room != d->answer_room) {
        d->answers = realloc(d->answers, room * sizeof *d->answers);
        CQ_ASSERT(d->answers);
        d->answer_room = (uint8_t)room;
    }
}

static void
remember_answer(struct store_chat_device *d, uint64_t dseq, uint64_t seq)
{
    if (d->answer_count < CQ_WINDOW) {
        store_chat_grow_answers(d, (size_t)d->answer_count + 1);
        d->answer_newest = d->answer_count++;
    } else {
        d->answer_newest = (uint8_t)((d->answer_newest + 1) % CQ_WINDOW);
    }
    d->answers[d->answer_newest] = (struct store_chat_answer){dseq, seq};
    d->last_dseq = dseq;
}

static int
apply_message(struct store_chat *c, uint64_t pos, const struct cq_rec_message *m)
{
    int from = store_chat_member(c, &m->user);
    if (from < 0 || m->seq != c->head + 1) {
        return -CQ_E_CORRUPT;
    }
    struct store_chat_device *d = device_of(c, &m->device, from);
    if (!d) {
        return -CQ_E_CORRUPT;
    }
    c->head = m->seq;
    c->members[from].sent++;
    push_tail(c, (struct store_chat_index){pos, c->members[0].sent});
    remember_answer(d, m->dseq, m->seq);
    struct store_chat_member *other = &c->members[1 - from];
    if (other->unread_count++ == 0) {
        other->first_unread = m->seq;
    }
    other->unread_time_unix_ms = m->time_unix_ms;
    return 0;
}

/* Messages of others than `member` among 1 … seq. */
static int
others_up_to(const struct store_chat *c,
             int member,
             uint64_t seq,
             const struct store_chat_lookup *lookup,
             uint64_t *out)
{
    struct store_chat_index entry = {0, 0};
    if (seq == c->head) {
        *out = c->members[1 - member].sent;
        return 0;
    }
    if (seq > 0 && !store_chat_tail(c, seq, &entry)) {
        int rc = lookup->fn(lookup->ctx, &c->id, seq, &entry);
        if (rc) {
            return rc;
        }
    }
    if (entry.rank > seq) {
        return -CQ_E_CORRUPT;
    }
    *out = member == 0 ? seq - entry.rank : entry.rank;
    return 0;
}

/* The first message after `read` that is not member's, by bisection; there is one. */
static int
first_unread(const struct store_chat *c,
             int member,
             uint64_t read,
             uint64_t others_read,
             const struct store_chat_lookup *lookup,
             uint64_t *out)
{
    uint64_t low = read + 1;
    uint64_t high = c->head;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t others = 0;
        int rc = others_up_to(c, member, middle, lookup, &others);
        if (rc) {
            return rc;
        }
        if (others > others_read) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *out = low;
    return 0;
}

/* Where a receipt moves a cursor to, and when. */
struct cursor_move {
    uint64_t up_to;
    uint64_t time_unix_ms;
};

static int
apply_read(struct store_chat *c,
           uint64_t pos,
           int member,
           const struct cursor_move *r,
           const struct store_chat_lookup *lookup)
{
    struct store_chat_member *m = &c->members[member];
    if (r->up_to <= m->read) {
        return 0;
    }
    uint64_t others = 0;
    uint64_t first = 0;
    int rc = others_up_to(c, member, r->up_to, lookup, &others);
    uint64_t total = c->members[1 - member].sent;
    if (!rc && others < total) {
        rc = first_unread(c, member, r->up_to, others, lookup, &first);
    }
    if (rc) {
        return rc;
    }
    m->read = r->up_to;
    m->read_time_unix_ms = r->time_unix_ms;
    m->others_read = others;
    m->unread_count = total - others;
    m->first_unread = first;
    c->members[1 - member].read_audit = true;
    c->members[1 - member].read_audit_pos = pos;
    push_receipt(c, (struct store_chat_receipt){m->user, r->up_to, pos, true});
    return 0;
}

static void
apply_delivered(struct store_chat *c,
                uint64_t pos,
                struct store_chat_device *d,
                const struct cursor_move *r)
{
    if (r->up_to > d->delivered) {
        d->delivered = r->up_to;
        d->delivered_time_unix_ms = r->time_unix_ms;
        push_receipt(c, (struct store_chat_receipt){d->device, r->up_to, pos, false});
    }
}

static int
apply_receipt(struct store_chat *c,
              uint64_t pos,
              const struct cq_rec_receipt *r,
              const struct store_chat_lookup *lookup)
{
    int member = store_chat_member(c, &r->user);
    if (member < 0 || r->up_to > c->head) {
        return -CQ_E_CORRUPT;
    }
    const struct cursor_move move = {r->up_to, r->time_unix_ms};
    if (cq_id_is_none(&r->device)) {
        return apply_read(c, pos, member, &move, lookup);
    }
    struct store_chat_device *d = device_of(c, &r->device, member);
    if (!d) {
        return -CQ_E_CORRUPT;
    }
    apply_delivered(c, pos, d, &move);
    return 0;
}

/* Read by the user, and so held by the device it was read on. */
static int
apply_read_on(struct store_chat *c,
              uint64_t pos,
              const struct cq_rec_read *r,
              const struct store_chat_lookup *lookup)
{
    int member = store_chat_member(c, &r->user);
    if (member < 0 || r->up_to > c->head ||
        (c->device_count == STORE_CHAT_DEVICES_MAX && !store_chat_device(c, &r->device))) {
        return -CQ_E_CORRUPT;
    }
    const struct cursor_move move = {r->up_to, r->time_unix_ms};
    int rc = apply_read(c, pos, member, &move, lookup);
    if (!rc) {
        apply_delivered(c, pos, device_of(c, &r->device, member), &move);
    }
    return rc;
}

static int
apply_friend(struct store_chat *c, const struct cq_rec_friend *f)
{
    int order = cq_id_cmp(&f->user, &f->peer) < 0 ? 0 : 1;
    c->members[order].user = f->user;
    c->members[1 - order].user = f->peer;
    c->key_version = f->key_version;
    c->open = f->user_relation == CQ_RELATION_FRIENDS && f->peer_relation == CQ_RELATION_FRIENDS &&
              !f->user_blocks && !f->peer_blocks;
    return 0;
}

static int
apply_known(struct store_chat *c, const struct cq_rec_known *k)
{
    int member = store_chat_member(c, &k->user);
    if (member < 0) {
        return -CQ_E_CORRUPT;
    }
    struct store_chat_member *m = &c->members[member];
    m->read_audit = m->read_audit && m->read_audit_pos > k->known_pos;
    return 0;
}

static int
apply_forget(struct store_chat *c, const struct cq_rec_forget *f)
{
    const struct store_chat_device *d = store_chat_device(c, &f->device);
    if (!d || !cq_id_eq(&c->members[d->member].user, &f->user)) {
        return -CQ_E_CORRUPT;
    }
    size_t i = (size_t)(d - c->devices);
    free(c->devices[i].answers);
    c->device_count--;
    memmove(c->devices + i, c->devices + i + 1, (c->device_count - i) * sizeof *c->devices);
    return 0;
}

int
store_chat_apply(struct store_chat *c,
                 uint64_t pos,
                 enum cq_rec_kind kind,
                 const void *fields,
                 const struct store_chat_lookup *lookup)
{
    int rc = 0;
    if (pos <= c->last_pos) {
        return 0;
    }
    switch (kind) {
    case CQ_REC_MESSAGE:
        rc = apply_message(c, pos, fields);
        break;
    case CQ_REC_RECEIPT:
        rc = apply_receipt(c, pos, fields, lookup);
        break;
    case CQ_REC_READ:
        rc = apply_read_on(c, pos, fields, lookup);
        break;
    case CQ_REC_FRIEND:
        rc = apply_friend(c, fields);
        break;
    case CQ_REC_KNOWN:
        rc = apply_known(c, fields);
        break;
    case CQ_REC_FORGET:
        rc = apply_forget(c, fields);
        break;
    case CQ_REC_COMMIT:
    case CQ_REC_PRIVACY:
        break;
    }
    if (!rc) {
        c->last_pos = pos;
        c->changed_pos = kind == CQ_REC_KNOWN || kind == CQ_REC_FORGET ? c->changed_pos : pos;
    }
    return rc;
}
