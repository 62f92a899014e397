/* SPDX-License-Identifier: MPL-2.0 */
#include "client/events.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct cq_events {
    pthread_mutex_t lock;
    int fd;
    bool poked;
    struct cq_event_node *first;
    struct cq_event_node **last;
    unsigned count;
    uint64_t dropped; /* since the last warning */
};

cq_events_t *
cq_events_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cq_events_t *q = fd < 0 ? NULL : calloc(1, sizeof *q);
    if (q) {
        pthread_mutex_init(&q->lock, NULL);
        q->fd = fd;
        q->last = &q->first;
    } else if (fd >= 0) {
        close(fd);
    }
    return q;
}

void
cq_events_destroy(cq_events_t **p)
{
    cq_events_t *q = *p;
    *p = NULL;
    if (!q) {
        return;
    }
    for (struct cq_event_node *n; (n = cq_events_pop(q));) {
        free(n);
    }
    close(q->fd);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

int
cq_events_fd(const cq_events_t *q)
{
    return q->fd;
}

static void
signal_fd(cq_events_t *q)
{
    uint64_t one = 1;
    /* It can only fail when the counter is full: then the descriptor is readable anyway. */
    ssize_t done = write(q->fd, &one, sizeof one);
    (void)done;
}

static const char *
copy(char *to, size_t size, const char *from)
{
    if (!from) {
        return NULL;
    }
    (void)snprintf(to, size, "%s", from);
    return to;
}

static struct cq_event_node *
new_node(const cq_client_event_t *event)
{
    struct cq_event_node *n = calloc(1, sizeof *n);
    if (!n) {
        abort();
    }
    n->event = *event;
    n->event.peer = copy(n->peer, sizeof n->peer, event->peer);
    n->event.from = copy(n->from, sizeof n->from, event->from);
    n->event.id = copy(n->id, sizeof n->id, event->id);
    n->event.text = copy(n->text, sizeof n->text, event->text);
    n->event.text_size = event->text ? strlen(n->text) : 0;
    return n;
}

void
cq_events_push(cq_events_t *q, const cq_client_event_t *event)
{
    struct cq_event_node *n = new_node(event);
    pthread_mutex_lock(&q->lock);
    if (q->count < CQ_EVENTS_MAX) {
        *q->last = n;
        q->last = &n->next;
        q->count++;
        n = NULL;
    } else {
        q->dropped++;
    }
    pthread_mutex_unlock(&q->lock);
    free(n);
    signal_fd(q);
}

void
cq_events_poke(cq_events_t *q)
{
    pthread_mutex_lock(&q->lock);
    q->poked = true;
    pthread_mutex_unlock(&q->lock);
    signal_fd(q);
}

bool
cq_events_take_poke(cq_events_t *q)
{
    uint64_t count;
    ssize_t done = read(q->fd, &count, sizeof count);
    (void)done; /* EAGAIN: nobody has signalled */
    pthread_mutex_lock(&q->lock);
    bool poked = q->poked;
    q->poked = false;
    pthread_mutex_unlock(&q->lock);
    return poked;
}

struct cq_event_node *
cq_events_pop(cq_events_t *q)
{
    pthread_mutex_lock(&q->lock);
    struct cq_event_node *n = q->first;
    if (n) {
        q->first = n->next;
        q->count--;
        if (!q->first) {
            q->last = &q->first;
        }
    }
    uint64_t dropped = n ? 0 : q->dropped;
    if (dropped) {
        q->dropped = 0;
    }
    pthread_mutex_unlock(&q->lock);
    if (dropped) {
        cq_client_event_t warning = {
            .type = CQ_CLIENT_EVENT_WARNING,
            .error = CQ_E_BUSY,
            .text =
                "events came faster than they were taken: some receipts or notes were not shown",
        };
        n = new_node(&warning);
    }
    return n;
}
