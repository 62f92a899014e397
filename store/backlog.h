/* SPDX-License-Identifier: MPL-2.0
 * After a start: which records of the log are not in the tables yet, chat by chat. A chat gets its
 * own when it is loaded; nothing waits for the others'. By partition, each sorted when something
 * there is asked for.
 */
#ifndef STORE_BACKLOG_H
#define STORE_BACKLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"

typedef struct store_backlog store_backlog_t;

/* A record of a chat. */
struct store_owed {
    struct cq_id chat;
    uint64_t pos;
};

store_backlog_t *store_backlog_new(void);
void store_backlog_destroy(store_backlog_t **backlog);
void store_backlog_clear(store_backlog_t *b);
/* Positions ascend. */
void store_backlog_add(store_backlog_t *b, const struct cq_id *chat, uint64_t pos);
/* The records of a chat, ascending; *count 0: none. View until the next call of another function;
 * those of chats already passed may or may not be among them. */
const struct store_owed *
store_backlog_find(store_backlog_t *b, const struct cq_id *chat, size_t *count);
/* The next chat of a partition, in the order of the rows; false: none is left. */
bool store_backlog_next(store_backlog_t *b, size_t partition, struct cq_id *chat);
/* It is done with. */
void store_backlog_pass(store_backlog_t *b, size_t partition);
/* One that has some left. */
size_t store_backlog_partition(store_backlog_t *b);
bool store_backlog_is_empty(const store_backlog_t *b);

#endif
