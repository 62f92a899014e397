/* SPDX-License-Identifier: MPL-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/projection_inside.h"
#include "store/record.h"

enum {
    BUCKETS_MIN = 1024,
    EVICT_LOOKS = 2048, /* entries that an eviction looks at … */
    EVICT_PART = 16, /* … and this part of the excess: so it ends even if all of them are used */
};

store_projection_t *
store_projection_new(const struct store_projection_cfg *cfg)
{
    store_projection_t *p = cq_alloc(sizeof *p);
    p->cfg = *cfg;
    p->bucket_count = BUCKETS_MIN;
    p->buckets = cq_alloc(p->bucket_count * sizeof(struct store_entry *));
    p->backlog = store_backlog_new();
    return p;
}

static void
free_entry(struct store_entry *e)
{
    store_chat_fini(&e->chat);
    free(e);
}

static void
free_lists(store_projection_t *p)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        free(p->dirty[i].list);
        p->dirty[i] = (struct store_dirty_list){0};
    }
    free(p->visit.list);
    p->visit = (struct store_dirty_list){0};
}

void
store_projection_reset(store_projection_t *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free_entry(p->entries[i]);
    }
    memset(p->buckets, 0, p->bucket_count * sizeof(struct store_entry *));
    free_lists(p);
    store_backlog_clear(p->backlog);
    memset(p->oldest, 0, sizeof p->oldest);
    p->visit_next = p->round_left = 0;
    p->visit_oldest = 0;
    p->credit = 0;
    p->count = p->dirty_count = p->hand = 0;
}

void
store_projection_destroy(store_projection_t **projection)
{
    store_projection_t *p = *projection;
    if (!p) {
        return;
    }
    store_projection_reset(p);
    store_backlog_destroy(&p->backlog);
    free(p->buckets);
    free(p->entries);
    free(p);
    *projection = NULL;
}

static struct store_entry **
bucket_of(const store_projection_t *p, const struct cq_id *id)
{
    return &p->buckets[cq_id_hash(id) & (p->bucket_count - 1)];
}

static void
grow_buckets(store_projection_t *p)
{
    free(p->buckets);
    p->bucket_count *= 2;
    p->buckets = cq_alloc(p->bucket_count * sizeof(struct store_entry *));
    for (size_t i = 0; i < p->count; i++) {
        struct store_entry *e = p->entries[i];
        struct store_entry **bucket = bucket_of(p, &e->chat.id);
        e->chained = *bucket;
        *bucket = e;
    }
}

static struct store_entry *
look_for(const store_projection_t *p, const struct cq_id *id)
{
    struct store_entry *e = *bucket_of(p, id);
    while (e && !cq_id_eq(&e->chat.id, id)) {
        e = e->chained;
    }
    return e;
}

static struct store_entry *
find(const store_projection_t *p, const struct cq_id *id)
{
    struct store_entry *e = look_for(p, id);
    if (e) {
        e->used = true;
    }
    return e;
}

static void
insert(store_projection_t *p, struct store_entry *e)
{
    if (p->count == p->bucket_count) {
        grow_buckets(p);
    }
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : BUCKETS_MIN;
        p->entries = realloc(p->entries, p->room * sizeof(struct store_entry *));
        CQ_ASSERT(p->entries && p->room <= UINT32_MAX);
    }
    struct store_entry **bucket = bucket_of(p, &e->chat.id);
    e->chained = *bucket;
    *bucket = e;
    e->slot = (uint32_t)p->count;
    e->used = true;
    p->entries[p->count++] = e;
}

static void
evict(store_projection_t *p, struct store_entry *e)
{
    struct store_entry **link = bucket_of(p, &e->chat.id);
    while (*link != e) {
        link = &(*link)->chained;
    }
    *link = e->chained;
    struct store_entry *last = p->entries[--p->count];
    p->entries[e->slot] = last;
    last->slot = e->slot;
    free_entry(e);
}

/* Clean chats beyond cache_max go, those first that nobody has asked for since the hand came by. */
static void
evict_some(store_projection_t *p)
{
    size_t room = p->cfg.cache_max + p->dirty_count;
    size_t looks = EVICT_LOOKS + (p->count > room ? (p->count - room) / EVICT_PART : 0);
    for (size_t i = 0; i < looks && p->count > p->cfg.cache_max + p->dirty_count; i++) {
        p->hand = p->hand < p->count ? p->hand : 0;
        struct store_entry *e = p->entries[p->hand];
        if (e->used || e->dirty || e->batch > p->committed) {
            e->used = false;
            p->hand++;
        } else {
            evict(p, e);
        }
    }
}

static uint64_t
order_of(const struct cq_id *id)
{
    uint64_t order = 0;
    for (unsigned i = 0; i < sizeof order; i++) {
        order = order << 8 | id->b[i];
    }
    return order;
}

static void
make_oldest(store_projection_t *p, const struct cq_id *chat, uint64_t pos)
{
    uint64_t *oldest = &p->oldest[cq_id_partition(chat)];
    *oldest = *oldest && *oldest < pos ? *oldest : pos;
}

/* It is not in the tables from the record at pos on. */
static void
touch(store_projection_t *p, struct store_entry *e, uint64_t pos)
{
    const struct store_chat *c = &e->chat;
    make_oldest(p, &c->id, pos);
    if (e->dirty) {
        return;
    }
    struct store_dirty_list *d = &p->dirty[cq_id_partition(&c->id)];
    if (d->count == d->room) {
        d->room = d->room ? 2 * d->room : 4;
        d->list = realloc(d->list, d->room * sizeof *d->list);
        CQ_ASSERT(d->list);
    }
    d->list[d->count++] = (struct store_dirty){order_of(&c->id), e};
    e->dirty = true;
    p->dirty_count++;
}

static int
index_row(void *ctx, const struct cq_id *chat, uint64_t seq, struct store_chat_index *out)
{
    store_projection_t *p = ctx;
    uint64_t first = store_chat_block_first(seq);
    struct store_key key = store_key_index(chat, first);
    struct store_chat_block block;
    struct cq_view row;
    int rc = p->cfg.row(p->cfg.ctx, STORE_TABLE_INDEX, store_key_view(&key), &row);
    if (!rc) {
        rc = store_chat_read_block(row, &block);
    }
    if (!rc) {
        *out = store_chat_block_entry(&block, (unsigned)(seq - first));
    }
    return rc;
}

/* The row, if there is one. */
static int
read_row(store_projection_t *p, struct store_entry *e)
{
    struct store_key key = store_key_of(&e->chat.id);
    struct cq_view row;
    int rc = p->cfg.row(p->cfg.ctx, STORE_TABLE_CHAT, store_key_view(&key), &row);
    if (!rc) {
        rc = store_chat_read(row, &e->chat);
    }
    for (int m = 0; !rc && m < STORE_CHAT_MEMBERS; m++) {
        e->unread_on_disk[m] = e->chat.members[m].unread_count > 0;
        e->read_on_disk[m] = e->chat.members[m].read_audit;
    }
    return rc;
}

static int
apply_owed(store_projection_t *p, struct store_chat *c, uint64_t pos)
{
    const struct store_chat_lookup lookup = {index_row, p};
    union store_record fields;
    enum cq_rec_kind kind;
    struct cq_view record;
    int rc = p->cfg.record(p->cfg.ctx, pos, &record);
    rc = rc ? rc : store_record_read(record, &kind, &fields);
    rc = rc ? rc : store_chat_apply(c, pos, kind, &fields, &lookup);
    rc = rc == -CQ_E_NOT_FOUND ? -CQ_E_CORRUPT : rc; /* the chat is there: what is not, is lost */
    if (rc) {
        CQ_LOG(ERROR, "STORE-REPLAY-FAIL", "pos=%" PRIu64 " err=%s", pos, cq_err_name(rc));
    }
    return rc;
}

/* What the log has behind the row. A chat that begins in it has no row. *first: position of the
 * first record that was not in the row, 0: none. */
static int
catch_up(store_projection_t *p, struct store_chat *c, int rc, uint64_t *first)
{
    size_t count;
    const struct store_owed *owed = store_backlog_find(p->backlog, &c->id, &count);
    *first = 0;
    if (rc && (rc != -CQ_E_NOT_FOUND || !count)) {
        return rc;
    }
    rc = 0;
    for (size_t i = 0; !rc && i < count; i++) {
        if (owed[i].pos > c->last_pos) {
            *first = *first ? *first : owed[i].pos;
            rc = apply_owed(p, c, owed[i].pos);
        }
    }
    return rc;
}

static int
load(store_projection_t *p, const struct cq_id *id, struct store_entry **out)
{
    uint64_t first;
    struct store_entry *e = cq_alloc(sizeof *e);
    store_chat_init(&e->chat, id);
    int rc = catch_up(p, &e->chat, read_row(p, e), &first);
    if (rc) {
        free_entry(e);
        return rc;
    }
    insert(p, e);
    if (first) {
        touch(p, e, first);
    }
    *out = e;
    return 0;
}

int
store_projection_chat(store_projection_t *p, const struct cq_id *id, struct store_chat **chat)
{
    struct store_entry *e = find(p, id);
    int rc = e ? 0 : load(p, id, &e);
    *chat = rc ? NULL : &e->chat;
    return rc;
}

int
store_projection_is_open(store_projection_t *p, const struct cq_id *id, bool *open)
{
    struct store_entry *e = look_for(p, id);
    size_t owed = 0;
    if (!e && store_backlog_find(p->backlog, id, &owed)) {
        int rc = load(p, id, &e);
        if (rc) {
            return rc;
        }
    }
    if (e) {
        *open = e->chat.open;
        return 0;
    }
    struct store_key key = store_key_of(id);
    struct cq_view row;
    int rc = p->cfg.row(p->cfg.ctx, STORE_TABLE_CHAT, store_key_view(&key), &row);
    return rc ? rc : store_chat_read_open(row, open);
}

int
store_projection_begin(store_projection_t *p, const struct cq_id *id, struct store_chat **chat)
{
    int rc = store_projection_chat(p, id, chat);
    if (rc == -CQ_E_NOT_FOUND) {
        struct store_entry *e = cq_alloc(sizeof *e);
        store_chat_init(&e->chat, id);
        insert(p, e);
        *chat = &e->chat;
        rc = 0;
    }
    return rc;
}

int
store_projection_apply(store_projection_t *p,
                       struct store_chat *c,
                       uint64_t pos,
                       enum cq_rec_kind kind,
                       const void *fields)
{
    uint64_t before = c->last_pos;
    const struct store_chat_lookup lookup = {index_row, p};
    int rc = store_chat_apply(c, pos, kind, fields, &lookup);
    if (!rc && c->last_pos != before) {
        touch(p, store_entry_of(c), pos);
    }
    return rc;
}

int
store_projection_index(store_projection_t *p,
                       struct store_chat *c,
                       uint64_t seq,
                       struct store_chat_index *out)
{
    if (seq == 0 || seq > c->head) {
        return -CQ_E_NOT_FOUND;
    }
    return store_chat_tail(c, seq, out) ? 0 : index_row(p, &c->id, seq, out);
}

void
store_projection_owe(store_projection_t *p, const struct cq_id *chat, uint64_t pos)
{
    const struct store_entry *loaded = look_for(p, chat);
    CQ_ASSERT(!loaded); /* nothing but loading it gives a chat what it is owed */
    make_oldest(p, chat, pos);
    store_backlog_add(p->backlog, chat, pos);
}

/* Up to *chats of them. */
static int
settle_some(store_projection_t *p, size_t partition, size_t *chats)
{
    struct cq_id id;
    for (; *chats && store_backlog_next(p->backlog, partition, &id); --*chats) {
        struct store_chat *chat;
        int rc = store_projection_chat(p, &id, &chat);
        if (rc) {
            return rc;
        }
        store_backlog_pass(p->backlog, partition);
    }
    return 0;
}

int
store_projection_settle_partition(store_projection_t *p, size_t partition, size_t *chats)
{
    struct cq_id id;
    int rc = settle_some(p, partition, chats);
    return !rc && store_backlog_next(p->backlog, partition, &id) ? -CQ_E_BUSY : rc;
}

int
store_projection_settle(store_projection_t *p, size_t chats)
{
    int rc = 0;
    while (!rc && chats && !store_projection_is_settled(p)) {
        rc = settle_some(p, store_backlog_partition(p->backlog), &chats);
    }
    return rc;
}

bool
store_projection_is_settled(const store_projection_t *p)
{
    return store_backlog_is_empty(p->backlog);
}

size_t
store_projection_dirty_count(const store_projection_t *p)
{
    return p->dirty_count;
}

size_t
store_projection_count(const store_projection_t *p)
{
    return p->count;
}

void
store_projection_committed(store_projection_t *p, const struct store_batch *batch)
{
    p->committed = batch->number;
    for (size_t i = 0; i < batch->flush_count; i++) {
        struct store_entry *e = batch->flushes[i].entry;
        store_chat_trim(&e->chat, batch->flushes[i].seq);
        store_chat_trim_receipts(&e->chat, batch->flushes[i].pos);
    }
    evict_some(p);
}

void
store_projection_trim(store_projection_t *p)
{
    evict_some(p);
}
