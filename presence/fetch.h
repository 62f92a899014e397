/* SPDX-License-Identifier: MPL-2.0
 * Asks the store for the lists that watch.h wants, a few at a time.
 */
#ifndef PRESENCE_FETCH_H
#define PRESENCE_FETCH_H

#include "presence/core.h"

struct presence_fetch *presence_fetch_new(presence_core_t *core);
void presence_fetch_destroy(struct presence_fetch **f);
/* End of a turn: asks for what is wanted. True: it is too early for that, come again. */
bool presence_fetch_pump(presence_core_t *core);

#endif
