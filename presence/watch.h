/* SPDX-License-Identifier: MPL-2.0
 * Who may see whom: watcher → watched users (the store's WATCHLIST), and the reverse. Pure: no bus,
 * no clock.
 *
 * A list is fetched for every user who is wanted (online, or being asked for). When the user's
 * friends change, the list is renewed: from that moment until the new list is there the user sees
 * nobody.
 */
#ifndef PRESENCE_WATCH_H
#define PRESENCE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"

enum {
    PRESENCE_WATCH_LINKS_MAX = 64000000
}; /* watcher–watched pairs in memory */

typedef struct presence_watch presence_watch_t;

presence_watch_t *presence_watch_new(void);
void presence_watch_destroy(presence_watch_t **w);

/* Makes sure the user's list is there or will be fetched. True if it is known. */
bool presence_watch_want(presence_watch_t *w, const struct cq_id *user);
/* The user's list is not needed any more. */
void presence_watch_release(presence_watch_t *w, const struct cq_id *user);
/* The user's friends changed. */
void presence_watch_renew(presence_watch_t *w, const struct cq_id *user);
bool presence_watch_is_known(const presence_watch_t *w, const struct cq_id *user);

enum presence_watch_seen {
    PRESENCE_WATCH_UNKNOWN,
    PRESENCE_WATCH_SHOWS,
    PRESENCE_WATCH_HIDES,
};

/* By the user's own list, UNKNOWN as long as there is none. */
enum presence_watch_seen presence_watch_own_seen(const presence_watch_t *w,
                                                 const struct cq_id *user);
/* The user changed that setting: until his new list is here his times are not told. */
void presence_watch_doubt(presence_watch_t *w, const struct cq_id *user);
bool presence_watch_is_in_doubt(const presence_watch_t *w, const struct cq_id *user);
/* As own_seen, but UNKNOWN while that is in doubt. */
enum presence_watch_seen presence_watch_sure_seen(const presence_watch_t *w,
                                                  const struct cq_id *user);
/* Must the user's times not be told? By the own list, else by that of anybody who sees him. */
bool presence_watch_hides(const presence_watch_t *w, const struct cq_id *user);

/* The next user to ask the store about; the answer is given by set or fail. False: none. */
bool presence_watch_next(presence_watch_t *w, struct cq_id *user);
/* Is there a next one? */
bool presence_watch_is_waiting(const presence_watch_t *w);
struct presence_watch_list {
    struct cq_id *ids; /* whom the user sees; sorted in place */
    size_t count;
    bool hides;           /* the user hides when he was last seen */
    struct cq_id *hidden; /* those of ids who hide it; sorted in place */
    size_t hidden_count;
};

/* The store's answer. True if the list is known now; false if it is discarded (not wanted any more,
 * renewed meanwhile, or too many pairs: then it is tried again). Doubles, the user itself and
 * "none" in ids are ignored. */
bool presence_watch_set(presence_watch_t *w,
                        const struct cq_id *user,
                        const struct presence_watch_list *list);
/* The store did not answer: tried again after the next presence_watch_retry(). */
void presence_watch_fail(presence_watch_t *w, const struct cq_id *user);
void presence_watch_retry(presence_watch_t *w);

bool presence_watch_sees(const presence_watch_t *w,
                         const struct cq_id *watcher,
                         const struct cq_id *watched);
/* fn for every user that `watcher` may see, ascending. fn must not change w. */
typedef void presence_watch_fn(void *ctx, const struct cq_id *user);
size_t presence_watch_count(const presence_watch_t *w, const struct cq_id *watcher);
void presence_watch_each(const presence_watch_t *w,
                         const struct cq_id *watcher,
                         presence_watch_fn *fn,
                         void *ctx);

/* ---- changes ----
 * A change is kept with the one who changed, under an ascending number; whoever sees him is told
 * later, with everything that has changed since he was told last. So of many changes of one user,
 * and of changes of many users, a watcher hears once. */

struct presence_watch_change {
    bool online;
    uint64_t time_unix_ms; /* online since, or last seen */
};

/* Notes the change and calls fn for everybody who sees `watched`: their number. fn must not change
 * w. */
size_t presence_watch_change(presence_watch_t *w,
                             const struct cq_id *watched,
                             const struct presence_watch_change *change,
                             presence_watch_fn *fn,
                             void *ctx);
/* The last change's number. */
uint64_t presence_watch_change_number(const presence_watch_t *w);
/* fn for each user that `watcher` may see and whose last change is after that number, ascending by
 * id. Times that are hidden are 0. */
typedef void presence_watch_change_fn(void *ctx,
                                      const struct cq_id *user,
                                      const struct presence_watch_change *change);
void presence_watch_each_change(const presence_watch_t *w,
                                const struct cq_id *watcher,
                                uint64_t after,
                                presence_watch_change_fn *fn,
                                void *ctx);
size_t presence_watch_links(const presence_watch_t *w);

#endif
