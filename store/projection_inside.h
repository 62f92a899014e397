/* SPDX-License-Identifier: MPL-2.0
 * Inside the projection: what projection.c (chats in memory) and projection_round.c (write-behind)
 * share.
 */
#ifndef STORE_PROJECTION_INSIDE_H
#define STORE_PROJECTION_INSIDE_H

#include "store/backlog.h"
#include "store/projection.h"

struct store_entry {
    struct store_entry *chained; /* hash chain */
    uint64_t batch; /* number of the batch that writes the rows last; clean ones go only when it is
                       durable */
    uint32_t slot;  /* place in the list of all entries */
    bool dirty;
    bool used; /* since the hand of the eviction came by */
    bool unread_on_disk[STORE_CHAT_MEMBERS], read_on_disk[STORE_CHAT_MEMBERS]; /* rows to delete */
    struct store_chat chat;
};

/* Sorted by order (the first bytes of the id, big-endian), then by id. */
struct store_dirty {
    uint64_t order;
    struct store_entry *entry;
};

/* Dirty chats of one partition, in no order. */
struct store_dirty_list {
    struct store_dirty *list;
    size_t count, room;
};

struct store_projection {
    struct store_projection_cfg cfg;
    store_backlog_t *backlog;
    struct store_entry **buckets;
    size_t bucket_count; /* a power of two */
    struct store_entry **entries;
    size_t count, room, hand;
    size_t dirty_count;
    uint64_t committed; /* number of the last durable batch */
    struct store_dirty_list dirty[CQ_PARTITION_COUNT];
    /* Position of the first record whose chat is in dirty[…]; 0: none. So the tables are complete
     * up to the one before the least of them. */
    uint64_t oldest[CQ_PARTITION_COUNT];
    /* The sweep: it goes round the partitions for ever, the one at `partition` from `visit`. */
    size_t partition;
    struct store_dirty_list visit;
    size_t visit_next;
    uint64_t visit_oldest;
    int64_t credit;    /* parts of partitions that it may still go through */
    int64_t step;      /* what each chat of this visit costs of it */
    size_t round_left; /* partitions until the round under way is through; 0: none is */
};

/* Loads those chats of a partition that are owed something, up to *chats, which becomes what is
 * left of that. 0: all have it; BUSY: some have not; CORRUPT, IO. */
int store_projection_settle_partition(store_projection_t *p,
                                      size_t partition,
                                      size_t *chats) CQ_MUST_CHECK;

static inline struct store_entry *
store_entry_of(struct store_chat *c)
{
    return (struct store_entry *)(void *)((char *)c - offsetof(struct store_entry, chat));
}

#endif
