/* SPDX-License-Identifier: MPL-2.0 */
#include "store/projection.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/wire/pack.h"

struct entry {
    struct store_chat chat;      /* first: a chat's address is its entry's */
    struct entry *chained;       /* hash chain */
    struct entry *newer, *older; /* all entries by last use */
    bool dirty;
    bool unread_on_disk[STORE_CHAT_MEMBERS],
        read_on_disk[STORE_CHAT_MEMBERS]; /* audit rows to delete */
    uint64_t batch; /* number of the batch that writes the rows last; clean ones go only when it is
                       durable */
};

struct store_projection {
    struct store_projection_cfg cfg;
    struct entry **buckets;
    size_t bucket_count; /* a power of two */
    size_t count, dirty_count;
    struct entry *newest, *oldest;
    uint64_t committed; /* number of the last durable batch */
    /* The round under way. */
    struct entry **round;
    size_t round_count, round_next;
    uint64_t round_pos;
};

enum {
    BUCKETS_MIN = 1024,
    EVICT_MAX = 256
};

store_projection_t *
store_projection_new(const struct store_projection_cfg *cfg)
{
    store_projection_t *p = cq_alloc(sizeof *p);
    p->cfg = *cfg;
    p->bucket_count = BUCKETS_MIN;
    p->buckets = cq_alloc(p->bucket_count * sizeof(struct entry *));
    return p;
}

void
store_projection_reset(store_projection_t *p)
{
    for (struct entry *e = p->newest, *older; e; e = older) {
        older = e->older;
        store_chat_fini(&e->chat);
        free(e);
    }
    memset(p->buckets, 0, p->bucket_count * sizeof(struct entry *));
    free(p->round);
    p->round = NULL;
    p->round_count = p->round_next = 0;
    p->count = p->dirty_count = 0;
    p->newest = p->oldest = NULL;
}

void
store_projection_destroy(store_projection_t **projection)
{
    store_projection_t *p = *projection;
    if (!p) {
        return;
    }
    store_projection_reset(p);
    free(p->buckets);
    free(p);
    *projection = NULL;
}

static struct entry **
bucket_of(const store_projection_t *p, const struct cq_id *id)
{
    return &p->buckets[cq_id_hash(id) & (p->bucket_count - 1)];
}

static void
unlink_use(store_projection_t *p, struct entry *e)
{
    *(e->newer ? &e->newer->older : &p->newest) = e->older;
    *(e->older ? &e->older->newer : &p->oldest) = e->newer;
}

static void
link_newest(store_projection_t *p, struct entry *e)
{
    e->newer = NULL;
    e->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = e;
    p->newest = e;
}

static void
grow_buckets(store_projection_t *p)
{
    free(p->buckets);
    p->bucket_count *= 2;
    p->buckets = cq_alloc(p->bucket_count * sizeof(struct entry *));
    for (struct entry *e = p->newest; e; e = e->older) {
        struct entry **bucket = bucket_of(p, &e->chat.id);
        e->chained = *bucket;
        *bucket = e;
    }
}

static struct entry *
find(store_projection_t *p, const struct cq_id *id)
{
    for (struct entry *e = *bucket_of(p, id); e; e = e->chained) {
        if (cq_id_eq(&e->chat.id, id)) {
            if (p->newest != e) {
                unlink_use(p, e);
                link_newest(p, e);
            }
            return e;
        }
    }
    return NULL;
}

static void
insert(store_projection_t *p, struct entry *e)
{
    if (p->count == p->bucket_count) {
        grow_buckets(p);
    }
    struct entry **bucket = bucket_of(p, &e->chat.id);
    e->chained = *bucket;
    *bucket = e;
    link_newest(p, e);
    p->count++;
}

static void
evict(store_projection_t *p, struct entry *e)
{
    struct entry **link = bucket_of(p, &e->chat.id);
    while (*link != e) {
        link = &(*link)->chained;
    }
    *link = e->chained;
    unlink_use(p, e);
    p->count--;
    store_chat_fini(&e->chat);
    free(e);
}

static int
load(store_projection_t *p, const struct cq_id *id, struct entry **out)
{
    struct store_key key = store_key_of(id);
    struct cq_view row;
    int rc = p->cfg.row(p->cfg.ctx, STORE_TABLE_CHAT, store_key_view(&key), &row);
    if (rc) {
        return rc;
    }
    struct entry *e = cq_alloc(sizeof *e);
    store_chat_init(&e->chat, id);
    rc = store_chat_read(row, &e->chat);
    if (rc) {
        store_chat_fini(&e->chat);
        free(e);
        return rc;
    }
    for (int m = 0; m < STORE_CHAT_MEMBERS; m++) {
        e->unread_on_disk[m] = e->chat.members[m].unread_count > 0;
        e->read_on_disk[m] = e->chat.members[m].read_audit;
    }
    insert(p, e);
    *out = e;
    return 0;
}

int
store_projection_chat(store_projection_t *p, const struct cq_id *id, struct store_chat **chat)
{
    struct entry *e = find(p, id);
    int rc = e ? 0 : load(p, id, &e);
    *chat = rc ? NULL : &e->chat;
    return rc;
}

int
store_projection_begin(store_projection_t *p, const struct cq_id *id, struct store_chat **chat)
{
    int rc = store_projection_chat(p, id, chat);
    if (rc == -CQ_E_NOT_FOUND) {
        struct entry *e = cq_alloc(sizeof *e);
        store_chat_init(&e->chat, id);
        insert(p, e);
        *chat = &e->chat;
        rc = 0;
    }
    return rc;
}

void
store_projection_touch(store_projection_t *p, struct store_chat *c)
{
    struct entry *e = (struct entry *)c;
    if (!e->dirty) {
        e->dirty = true;
        p->dirty_count++;
    }
}

static int
index_row(void *ctx, const struct cq_id *chat, uint64_t seq, struct store_chat_index *out)
{
    store_projection_t *p = ctx;
    struct store_key key = store_key_index(chat, seq);
    struct cq_view row;
    int rc = p->cfg.row(p->cfg.ctx, STORE_TABLE_INDEX, store_key_view(&key), &row);
    return rc ? rc : store_chat_read_index(row, out);
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
        store_projection_touch(p, c);
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

bool
store_projection_in_round(const store_projection_t *p)
{
    return p->round != NULL;
}

size_t
store_projection_dirty_count(const store_projection_t *p)
{
    return p->dirty_count;
}

static int
compare_entries(const void *left, const void *right)
{
    const struct entry *const *a = left;
    const struct entry *const *b = right;
    int partitions = (int)cq_id_partition(&(*a)->chat.id) - (int)cq_id_partition(&(*b)->chat.id);
    return partitions ? partitions : cq_id_cmp(&(*a)->chat.id, &(*b)->chat.id);
}

void
store_projection_round(store_projection_t *p, uint64_t head_pos)
{
    if (p->round || p->dirty_count == 0) {
        return;
    }
    p->round = cq_alloc(p->dirty_count * sizeof(struct entry *));
    p->round_count = p->round_next = 0;
    for (struct entry *e = p->newest; e; e = e->older) {
        if (e->dirty) {
            p->round[p->round_count++] = e;
        }
    }
    qsort(p->round, p->round_count, sizeof(struct entry *), compare_entries);
    p->round_pos = head_pos;
}

static void
put(struct store_batch *batch,
    enum store_table table,
    const struct store_key *key,
    const cq_buf_t *value)
{
    struct cq_view v = {value->data, value->size};
    store_batch_put(batch, table, store_key_view(key), v, false);
}

/* Writes an audit row while it says something and deletes it once when it does not any more. */
static void
put_audit(struct store_batch *batch,
          enum store_table table,
          const struct store_chat *c,
          int member,
          bool exists,
          bool *on_disk)
{
    struct store_key key = store_key_pair(&c->id, &c->members[member].user);
    cq_buf_t value = {0};
    if (exists && table == STORE_TABLE_UNREAD) {
        store_chat_write_unread(&value, c, member);
    } else if (exists) {
        store_chat_write_read(&value, c, member);
    }
    if (exists || *on_disk) {
        put(batch, table, &key, &value);
    }
    *on_disk = exists;
    cq_buf_free(&value);
}

/* The first `max` rows of the index tail. They may go ahead of the chat row: a replay writes them
 * again, the same. */
static void
put_tail(struct store_batch *batch, const struct store_chat *c, size_t max)
{
    cq_buf_t value = {0};
    for (size_t i = 0; i < c->tail_count && i < max; i++) {
        struct store_key key = store_key_index(&c->id, c->tail_first + i);
        cq_buf_clear(&value);
        store_chat_write_index(&value, &c->tail[i]);
        put(batch, STORE_TABLE_INDEX, &key, &value);
    }
    cq_buf_free(&value);
}

/* The first `max` receipt rows. They may go ahead of the chat row as well. */
static void
put_receipts(struct store_batch *batch, const struct store_chat *c, size_t max)
{
    cq_buf_t value = {0};
    for (size_t i = 0; i < c->receipt_count && i < max; i++) {
        const struct store_chat_receipt *r = &c->receipts[i];
        struct store_key key = store_key_receipt(
            &c->id, r->is_read ? STORE_RECEIPT_READ : STORE_RECEIPT_DELIVERED, &r->id, r->up_to);
        cq_buf_clear(&value);
        cq_pack_uint(&value, r->pos);
        put(batch, STORE_TABLE_RECEIPT, &key, &value);
    }
    cq_buf_free(&value);
}

static void
flush_entry(store_projection_t *p, struct entry *e, struct store_batch *batch)
{
    struct store_chat *c = &e->chat;
    struct store_key key = store_key_of(&c->id);
    cq_buf_t value = {0};
    store_chat_write(&value, c);
    put(batch, STORE_TABLE_CHAT, &key, &value);
    cq_buf_free(&value);
    put_tail(batch, c, c->tail_count);
    put_receipts(batch, c, c->receipt_count);
    for (int m = 0; m < STORE_CHAT_MEMBERS; m++) {
        const struct store_chat_member *member = &c->members[m];
        put_audit(batch, STORE_TABLE_UNREAD, c, m, member->unread_count > 0, &e->unread_on_disk[m]);
        put_audit(batch, STORE_TABLE_READ, c, m, member->read_audit, &e->read_on_disk[m]);
    }
    store_batch_flush(batch, e, c->head, c->last_pos);
    e->dirty = false;
    e->batch = batch->number;
    p->dirty_count--;
}

/* A chat with more index and receipt rows than a slice takes: write a part, come back to it with
 * the next commit. */
static void
flush_part(struct entry *e, struct store_batch *batch, size_t rows_max)
{
    const struct store_chat *c = &e->chat;
    size_t tail = c->tail_count < rows_max ? c->tail_count : rows_max;
    size_t receipts = rows_max - tail;
    receipts = receipts < c->receipt_count ? receipts : c->receipt_count;
    while (receipts && receipts < c->receipt_count &&
           c->receipts[receipts].pos == c->receipts[receipts - 1].pos) {
        receipts++; /* trimming goes by position: not between the two rows of one record */
    }
    put_tail(batch, c, tail);
    put_receipts(batch, c, receipts);
    store_batch_flush(batch, e, tail ? c->tail_first + tail - 1 : 0,
                      receipts ? c->receipts[receipts - 1].pos : 0);
    e->batch = batch->number;
}

void
store_projection_slice(store_projection_t *p, struct store_batch *batch, size_t rows_max)
{
    size_t before = batch->row_count;
    while (p->round && batch->row_count - before < rows_max) {
        struct entry *e = p->round[p->round_next];
        if (e->dirty && e->chat.tail_count + e->chat.receipt_count > 2 * rows_max) {
            flush_part(e, batch, rows_max);
            return;
        }
        p->round_next++;
        if (e->dirty) {
            flush_entry(p, e, batch);
        }
        if (p->round_next == p->round_count) {
            batch->marker = p->round_pos;
            free(p->round);
            p->round = NULL;
        }
    }
}

void
store_projection_committed(store_projection_t *p, const struct store_batch *batch)
{
    p->committed = batch->number;
    for (size_t i = 0; i < batch->flush_count; i++) {
        struct entry *e = batch->flushes[i].entry;
        store_chat_trim(&e->chat, batch->flushes[i].seq);
        store_chat_trim_receipts(&e->chat, batch->flushes[i].pos);
    }
    struct entry *e = p->oldest;
    for (int i = 0; e && i < EVICT_MAX && p->count > p->cfg.cache_max; i++) {
        struct entry *newer = e->newer;
        if (!e->dirty && e->batch <= p->committed) {
            evict(p, e);
        }
        e = newer;
    }
}
