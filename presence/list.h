/* SPDX-License-Identifier: MPL-2.0
 * Intrusive doubly linked list: a circle through a head. A link that is in no list points to
 * nothing.
 */
#ifndef PRESENCE_LIST_H
#define PRESENCE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct presence_link {
    struct presence_link *next, *prev;
};

/* The object that holds this link as its member. */
#define PRESENCE_LIST_OF(link, type, member) \
    ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void
presence_list_init(struct presence_link *head)
{
    head->next = head->prev = head;
}

static inline bool
presence_list_is_empty(const struct presence_link *head)
{
    return head->next == head;
}

static inline bool
presence_list_has(const struct presence_link *link)
{
    return link->next != NULL;
}

static inline void
presence_list_append(struct presence_link *head, struct presence_link *link)
{
    link->next = head;
    link->prev = head->prev;
    head->prev->next = link;
    head->prev = link;
}

/* Does nothing if the link is in no list. */
static inline void
presence_list_remove(struct presence_link *link)
{
    if (link->next) {
        link->next->prev = link->prev;
        link->prev->next = link->next;
        link->next = link->prev = NULL;
    }
}

/* Moves all links of `from` behind those of `head`. */
static inline void
presence_list_splice(struct presence_link *head, struct presence_link *from)
{
    if (!presence_list_is_empty(from)) {
        from->next->prev = head->prev;
        head->prev->next = from->next;
        from->prev->next = head;
        head->prev = from->prev;
        presence_list_init(from);
    }
}

/* The first link, taken out; NULL if there is none. */
static inline struct presence_link *
presence_list_pop(struct presence_link *head)
{
    struct presence_link *link = head->next;
    if (link == head) {
        return NULL;
    }
    head->next = link->next;
    link->next->prev = head;
    link->next = link->prev = NULL;
    return link;
}

#endif
