/* SPDX-License-Identifier: MPL-2.0
 * One event for many sessions: gathers session numbers by edge, then one DELIVER item for each
 * edge.
 */
#ifndef PRESENCE_DELIVER_H
#define PRESENCE_DELIVER_H

#include "presence/core.h"

struct presence_deliver *presence_deliver_new(void);
void presence_deliver_destroy(struct presence_deliver **d);

/* begin, add any number of sessions (dead ones are left out), end. event: one packed client
 * operation, borrowed until end.
 */
void presence_deliver_begin(presence_core_t *core, struct cq_view event);
void presence_deliver_add(presence_core_t *core, const struct presence_session *session);
/* Number of sessions. */
size_t presence_deliver_end(presence_core_t *core);

#endif
