/* SPDX-License-Identifier: MPL-2.0 */
#include "blobd/ids.h"

#include <stdlib.h>

#include "common/rt/check.h"

enum {
    FIRST_ROOM = 256
};

void
blobd_ids_add(void *ctx, const struct cq_id *id)
{
    struct blobd_ids *list = ctx;
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : FIRST_ROOM;
        list->ids = realloc(list->ids, list->room * sizeof *list->ids);
        CQ_ASSERT(list->ids);
    }
    list->ids[list->count++] = *id;
}

void
blobd_ids_free(struct blobd_ids *list)
{
    free(list->ids);
    *list = (struct blobd_ids){0};
}
