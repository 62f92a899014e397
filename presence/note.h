/* SPDX-License-Identifier: MPL-2.0
 * PRESENCE_NOTE: what sessions are told about their friends, first when they come, then on changes.
 */
#ifndef PRESENCE_NOTE_H
#define PRESENCE_NOTE_H

#include "presence/core.h"

/* The user may have sessions that have to be told about their friends: as soon as that is possible.
 */
void presence_note_due(presence_core_t *core, const struct cq_id *user);
/* The user's friends changed: all sessions are to be told everything once the new list is known. */
void presence_note_renew(presence_core_t *core, const struct cq_id *user);
/* End of a turn: tells who is due, within the budget. True if some are left. */
bool presence_note_pump(presence_core_t *core);
/* A slice of a tick has come: who has it is told. Call it PRESENCE_DELTA_SLICES times a tick while
 * somebody waits. */
void presence_note_slice(presence_core_t *core);
bool presence_note_is_waiting(const presence_core_t *core);
/* delta's on_change: those who see the user will be told. Returns their number. */
size_t
presence_note_change(void *ctx, const struct cq_id *user, bool online, uint64_t time_unix_ms);
/* Packs one state; the time is not in the future. */
void presence_note_pack(cq_buf_t *b, const struct cq_id *user, bool online, uint64_t time_unix_ms);
enum presence_note_to {
    PRESENCE_NOTE_TO_ALL,
    PRESENCE_NOTE_TO_DUE,    /* sessions that know nothing yet */
    PRESENCE_NOTE_TO_OTHERS, /* those that have had their first note */
};

/* Sends packed states to the user's sessions: to how many. */
size_t presence_note_send(presence_core_t *core,
                          const struct presence_user *user,
                          const struct cq_presence_states *states,
                          enum presence_note_to to);

#endif
