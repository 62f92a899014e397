/* SPDX-License-Identifier: MPL-2.0
 * Wiring: bus, disk threads, timers.
 */
#include "blobd/blobd.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "blobd/core.h"
#include "blobd/stats.h"

enum {
    TICK_MS = 1000
};

static const struct cq_bus_row rows[] = {
    {CQ_BUS_BLOB_CREATE, blobd_on_create, "edge"},
    {CQ_BUS_BLOB_STATE, blobd_on_state, "edge"},
    {CQ_BUS_BLOB_BEGIN, blobd_on_begin, "edge"},
    {CQ_BUS_BLOB_WRITE, blobd_on_write, "edge"},
    {CQ_BUS_BLOB_END, blobd_on_end, "edge"},
    {CQ_BUS_BLOB_DROP, blobd_on_drop, "edge"},
    {CQ_BUS_BLOB_READ, blobd_on_read, "edge"},
    {CQ_BUS_BLOB_PLACE, blobd_on_place, "edge"},
    {CQ_BUS_BLOB_COLLECT, blobd_on_collect, "store"},
    {CQ_BUS_BLOB_SAVE, blobd_on_save, "store"},
    {CQ_BUS_BLOB_SAVE_BEGIN, blobd_on_save_begin, "store"},
    {CQ_BUS_BLOB_CHECK, blobd_on_check, "store"},
    {CQ_BUS_BLOB_LIST, blobd_on_list, "store"},
};

static void
on_tick(void *ctx)
{
    blobd_t *b = ctx;
    blobd_stats.room_bytes = blobd_volume_room(b->volume);
    blobd_upload_tidy(b->uploads);
    blobd_read_tidy(b->reads);
    blobd_sweep_tick(b->sweep);
    blobd_scrub_tick(b->scrub);
    blobd_check_tick(b->checks);
}

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    (void)ctx;
    (void)name;
    (void)role;
    (void)incarnation;
    (void)up;
}

static void
on_registered(void *ctx)
{
    (void)ctx; /* whoever waits for an answer repeats the request */
}

static int
start(blobd_t *b)
{
    const struct blobd_volume_cfg volume = {b->cfg->data, b->cfg->reserve_bytes};
    int rc = blobd_volume_open(&volume, &b->volume);
    if (rc) {
        return rc;
    }
    blobd_stats.room_bytes = blobd_volume_room(b->volume);
    b->disk = blobd_job_worker(b);
    b->uploads = blobd_upload_table_new(b);
    b->reads = blobd_read_new(b);
    b->sweep = blobd_sweep_new(b);
    b->scrub = blobd_scrub_new(b);
    b->checks = blobd_check_new(b);
    b->saves = blobd_save_new(b);
    const struct cq_bus_cfg bus = {
        .endpoint = b->cfg->broker,
        .name = b->cfg->name,
        .role = "blobd",
        .rows = rows,
        .row_count = sizeof rows / sizeof rows[0],
        .on_peer = on_peer,
        .on_registered = on_registered,
        .ctx = b,
    };
    b->bus = b->disk ? cq_bus_new(b->loop, &bus) : NULL;
    if (!b->bus) {
        return -CQ_E_CONFIG;
    }
    b->tick = cq_timer_new(b->loop, on_tick, b);
    cq_timer_start(b->tick, TICK_MS, TICK_MS);
    return 0;
}

blobd_t *
blobd_blobd_new(cq_loop_t *loop, const struct blobd_cfg *cfg)
{
    blobd_t *b = cq_alloc(sizeof *b);
    b->cfg = cfg;
    b->loop = loop;
    if (start(b)) {
        blobd_blobd_destroy(&b);
    }
    return b;
}

void
blobd_blobd_destroy(blobd_t **blobd)
{
    blobd_t *b = *blobd;
    if (!b) {
        return;
    }
    cq_timer_destroy(&b->tick);
    blobd_job_stop(b);
    cq_bus_destroy(&b->bus);
    blobd_save_destroy(&b->saves);
    blobd_check_destroy(&b->checks);
    blobd_scrub_destroy(&b->scrub);
    blobd_sweep_destroy(&b->sweep);
    blobd_read_destroy(&b->reads);
    blobd_upload_table_destroy(&b->uploads);
    blobd_volume_close(&b->volume);
    free(b);
    *blobd = NULL;
}
