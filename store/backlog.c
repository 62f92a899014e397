/* SPDX-License-Identifier: MPL-2.0 */
#include "store/backlog.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    ROOM_MIN = 64
};

struct part {
    struct store_owed *list;
    size_t count, room;
    size_t at; /* the next chat's first */
    bool is_sorted;
};

struct store_backlog {
    struct part parts[CQ_PARTITION_COUNT];
    size_t left;    /* records of chats not passed */
    size_t at_part; /* those before have none left */
};

store_backlog_t *
store_backlog_new(void)
{
    return cq_alloc(sizeof(store_backlog_t));
}

void
store_backlog_clear(store_backlog_t *b)
{
    for (size_t i = 0; i < CQ_PARTITION_COUNT; i++) {
        free(b->parts[i].list);
    }
    *b = (store_backlog_t){0};
}

void
store_backlog_destroy(store_backlog_t **backlog)
{
    if (*backlog) {
        store_backlog_clear(*backlog);
        free(*backlog);
        *backlog = NULL;
    }
}

void
store_backlog_add(store_backlog_t *b, const struct cq_id *chat, uint64_t pos)
{
    struct part *part = &b->parts[cq_id_partition(chat)];
    if (part->count == part->room) {
        part->room = part->room ? 2 * part->room : ROOM_MIN;
        part->list = realloc(part->list, part->room * sizeof *part->list);
        CQ_ASSERT(part->list);
    }
    part->list[part->count++] = (struct store_owed){*chat, pos};
    part->is_sorted = false;
    b->left++;
    b->at_part = 0;
}

static int
compare(const void *left, const void *right)
{
    const struct store_owed *a = left;
    const struct store_owed *b = right;
    int order = cq_id_cmp(&a->chat, &b->chat);
    return order ? order : (a->pos > b->pos) - (a->pos < b->pos);
}

static void
sort(struct part *part)
{
    if (!part->is_sorted && part->count) {
        qsort(part->list, part->count, sizeof *part->list, compare);
    }
    part->is_sorted = true;
}

/* From this one on: how many are the same chat's? */
static size_t
run_at(const struct part *part, size_t first)
{
    size_t end = first + 1;
    while (end < part->count && cq_id_eq(&part->list[end].chat, &part->list[first].chat)) {
        end++;
    }
    return end - first;
}

const struct store_owed *
store_backlog_find(store_backlog_t *b, const struct cq_id *chat, size_t *count)
{
    struct part *part = &b->parts[cq_id_partition(chat)];
    size_t low = 0;
    *count = 0;
    sort(part);
    for (size_t high = part->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (cq_id_cmp(&part->list[middle].chat, chat) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == part->count || !cq_id_eq(&part->list[low].chat, chat)) {
        return NULL;
    }
    *count = run_at(part, low);
    return &part->list[low];
}

bool
store_backlog_next(store_backlog_t *b, size_t partition, struct cq_id *chat)
{
    struct part *part = &b->parts[partition];
    if (part->at == part->count) {
        return false;
    }
    sort(part);
    *chat = part->list[part->at].chat;
    return true;
}

void
store_backlog_pass(store_backlog_t *b, size_t partition)
{
    struct part *part = &b->parts[partition];
    size_t n = run_at(part, part->at);
    part->at += n;
    b->left -= n;
    if (part->at == part->count) {
        free(part->list);
        *part = (struct part){0};
    }
}

size_t
store_backlog_partition(store_backlog_t *b)
{
    while (!b->parts[b->at_part].count && b->at_part < CQ_PARTITION_COUNT - 1) {
        b->at_part++;
    }
    return b->at_part;
}

bool
store_backlog_is_empty(const store_backlog_t *b)
{
    return b->left == 0;
}
