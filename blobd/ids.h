/* SPDX-License-Identifier: MPL-2.0
 * A list of ids that grows: what a folder has in it.
 */
#ifndef BLOBD_IDS_H
#define BLOBD_IDS_H

#include <stddef.h>

#include "common/wire/id.h"

struct blobd_ids {
    struct cq_id *ids; /* owned */
    size_t count, room;
};

/* A blobd_volume_fn; ctx: the list. */
void blobd_ids_add(void *ctx, const struct cq_id *id);
void blobd_ids_free(struct blobd_ids *list);

#endif
