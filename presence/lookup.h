/* SPDX-License-Identifier: MPL-2.0
 * Questions about friends' states: LOOKUP of an edge, and the full note a session is due. Each
 * waits for what it needs (presence being ready, the asker's list, last-seen times from Redis) and
 * is answered once. Bounded in number and bytes.
 */
#ifndef PRESENCE_LOOKUP_H
#define PRESENCE_LOOKUP_H

#include "presence/core.h"

struct presence_lookup *presence_lookup_new(void);
/* Call after Redis is gone and before the bus is. */
void presence_lookup_destroy(struct presence_lookup **l);

/* Tells all sessions of the user all friends' states. -CQ_E_BUSY at a limit. */
int presence_lookup_note(presence_core_t *core, const struct cq_id *user) CQ_MUST_CHECK;
/* The user's list is known now; could not be had; presence became ready. */
void presence_lookup_go_on(presence_core_t *core, const struct cq_id *user);
void presence_lookup_give_up(presence_core_t *core, const struct cq_id *user);
void presence_lookup_ready(presence_core_t *core);
/* End of a turn: goes on with those that waited for that, bounded. True if some are left. */
bool presence_lookup_resume(presence_core_t *core);
/* The user is not online any more, or a question of somebody who is not online was answered: the
 * list is let go of, soon. */
void presence_lookup_return(presence_core_t *core, const struct cq_id *user);
/* Nobody waits for these answers any more: an edge went down (-1: all of them, the broker is lost).
 */
void presence_lookup_forget(presence_core_t *core, int edge);
/* Now and then: answers those that wait too long, lets go of lists that were only needed for a
 * question. */
void presence_lookup_tidy(presence_core_t *core);

#endif
