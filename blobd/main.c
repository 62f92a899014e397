/* SPDX-License-Identifier: MPL-2.0
 * chasqui-blobd: arguments, configuration, start, wait, stop.
 */
#include <stdlib.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "blobd/blobd.h"
#include "blobd/stats.h"

#define ITEM(key, type, field, preset, min, max, unit, doc)                                   \
    {                                                                                         \
        key, CQ_CONFIG_##type, offsetof(struct blobd_cfg, field), preset, min, max, unit, doc \
    }
#define YEAR_S (UINT64_C(366) * 86400)

/* clang-format off */
static const struct cq_config_item items[] = {
    ITEM("name", STR, name, "blobd.1", 1, CQ_ACTOR_NAME_MAX, "", "name on the bus"),
    ITEM("broker", STR, broker, NULL, 1, 1024, "", "the broker's endpoint, ipc://PATH"),
    ITEM("data", STR, data, NULL, 1, 1024, "", "folder of the blobs"),
    ITEM("max-bytes", UINT, length_max, "104857600", 1, UINT64_C(1) << 40, "bytes", "largest blob"),
    ITEM("reserve-bytes", UINT, reserve_bytes, "1073741824", 0, UINT64_MAX, "bytes",
         "space that is left free on the disk"),
    ITEM("upload-life-s", UINT, upload_life_s, "86400", 1, YEAR_S, "s",
         "an upload not complete by then is removed"),
    /* An edge writes what it has of a part at least so often (blob_up.c), if its client does not
     * fall behind: else transfers that go on would end. */
    ITEM("upload-idle-s", UINT, upload_idle_s, "60", 1, 86400, "s",
         "the file of an upload that nobody touches is closed; more than 4/3 of the edges' "
         "transfer-timeout-ms"),
    ITEM("uploads-open-max", UINT, uploads_open_max, "4096", 1, 100000, "", "uploads at the same time"),
    ITEM("disk-threads", UINT, disk_threads, "8", 1, 32, "", "threads that read and write"),
    ITEM("sweep-s", UINT, sweep_s, "3600", 1, YEAR_S, "s", "pause between two walks over all files"),
    ITEM("orphan-grace-s", UINT, orphan_grace_s, "86400", 0, YEAR_S, "s",
         "a file that the store does not know lives so long"),
    ITEM("scrub-bytes-per-s", UINT, scrub_bytes_per_s, "8388608", 0, UINT64_C(1) << 40, "bytes",
         "reading of all blobs to find damage, 0: off"),
    ITEM("log-level", STR, log_level, "info", 1, 16, "", "debug, info, warn or error"),
};
/* clang-format on */
enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static int
run(const struct blobd_cfg *cfg)
{
    cq_log_init(cfg->name, (enum cq_log_level)cq_log_level_by_name(cfg->log_level));
    blobd_stats_register();
    cq_loop_t *loop = cq_loop_new();
    blobd_t *blobd = blobd_blobd_new(loop, cfg);
    if (blobd) {
        CQ_LOG(INFO, "BLOBD-START", "version=%s", CQ_VERSION);
        cq_loop_run(loop);
        CQ_LOG(INFO, "BLOBD-STOP", "reason=signal");
    }
    int rc = blobd ? EXIT_SUCCESS : EXIT_FAILURE;
    blobd_blobd_destroy(&blobd);
    cq_loop_destroy(&loop);
    return rc;
}

int
main(int argc, char **argv)
{
    struct blobd_cfg cfg = {0};
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-blobd", argc, argv, &cfg);
    if (rc == 0) {
        rc = cq_config_check_actor("chasqui-blobd", cfg.name, cfg.log_level) == 0 ? run(&cfg) : 2;
    } else {
        rc = rc > 0 ? EXIT_SUCCESS : 2;
    }
    cq_config_free(items, ITEM_COUNT, &cfg);
    return rc;
}
