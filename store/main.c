/* SPDX-License-Identifier: MPL-2.0
 * chasqui-store: the durable truth. Arguments → configuration → open → run → close.
 */
#include <stddef.h>
#include <string.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/core.h"
#include "store/fsck_offline.h"
#include "store/restore.h"

#define ITEM(key, type, field, preset, min, max, unit, doc)                                        \
    {                                                                                              \
        key, CQ_CONFIG_##type, offsetof(struct store_core_cfg, field), preset, min, max, unit, doc \
    }

static const struct cq_config_item items[] = {
    ITEM("name", STR, name, "store.1", 1, CQ_ACTOR_NAME_MAX, "", "name on the bus"),
    ITEM("broker", STR, broker, NULL, 1, 256, "", "endpoint of the broker, ipc://…"),
    ITEM("data", STR, data, NULL, 1, 4096, "", "database folder"),
    ITEM("master-key",
         STR,
         master_key,
         "",
         0,
         4096,
         "",
         "file of the master key, outside the database folder"),
    ITEM("key-command",
         STR,
         key_command,
         "",
         0,
         4096,
         "",
         "command that prints the master key, instead of the file"),
    ITEM("map-bytes",
         UINT,
         map_bytes,
         "68719476736",
         1048576,
         UINT64_MAX / 2,
         "bytes",
         "largest size of the database"),
    ITEM("reserve-bytes",
         UINT,
         reserve_bytes,
         "67108864",
         0,
         UINT64_MAX / 2,
         "bytes",
         "refuse writes below this free space"),
    ITEM("chat-cache",
         UINT,
         chat_cache,
         "1000000",
         1,
         100000000,
         "chats",
         "unchanged chats kept in memory, 650 bytes each and more"),
    ITEM("checkpoint-records",
         UINT,
         checkpoint_records,
         "350000",
         1,
         10000000,
         "records",
         "rows are written so far behind the log, at most"),
    ITEM("checkpoint-idle-ms",
         UINT,
         checkpoint_idle_ms,
         "10000",
         10,
         3600000,
         "ms",
         "… or at least so often"),
    ITEM("token-days", UINT, token_days, "30", 1, 3650, "days", "how long a resume token is valid"),
    ITEM("hash-queue",
         UINT,
         hash_queue,
         "64",
         1,
         100000,
         "jobs",
         "log-ins waiting for a password check"),
    ITEM("restore",
         STR,
         restore,
         "",
         0,
         4096,
         "",
         "make the database from this backup, then exit; needs no broker"),
    ITEM("fsck",
         BOOL,
         fsck,
         "false",
         0,
         0,
         "",
         "check the database of a stopped store and exit: 0 clean, 1 findings, 2 could not run"),
    ITEM("blobs", STR, blobs, "", 0, 4096, "", "with restore and fsck: the folder of blobs"),
    ITEM("blob-quota-bytes",
         UINT,
         blob_quota_bytes,
         "10737418240",
         0,
         UINT64_MAX / 2,
         "bytes",
         "what a user's blobs may take"),
    ITEM("blob-quota-count",
         UINT,
         blob_quota_count,
         "100000",
         0,
         UINT32_MAX,
         "",
         "blobs a user may have"),
    ITEM("blob-grace-s",
         UINT,
         blob_grace_s,
         "86400",
         0,
         31622400,
         "s",
         "a blob that no message refers to lives so long"),
    ITEM("blob-sweep-s",
         UINT,
         blob_sweep_s,
         "60",
         1,
         86400,
         "s",
         "pause between two walks over the blobs"),
    ITEM("log-level", STR, log_level, "info", 1, 8, "", "debug, info, warn or error"),
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

/* A restore and a check ask nobody. */
static bool
wants_broker(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--restore") == 0 || strcmp(argv[i], "--fsck") == 0) {
            return false;
        }
    }
    return true;
}

static int
serve(const struct store_core_cfg *cfg)
{
    struct store_core core;
    int rc = store_core_open(&core, cfg);
    if (rc) {
        CQ_LOG(ERROR, "STORE-START-FAIL", "err=%s", cq_err_name(rc));
    } else {
        store_core_run(&core);
    }
    store_core_close(&core);
    return rc ? 1 : core.exit_code;
}

int
main(int argc, char **argv)
{
    struct store_core_cfg cfg = {0};
    struct cq_config_item table[ITEM_COUNT];
    cq_secure_start();
    memcpy(table, items, sizeof items);
    for (size_t i = 0; i < ITEM_COUNT && !wants_broker(argc, argv); i++) {
        if (strcmp(table[i].key, "broker") == 0) {
            table[i].preset = "";
            table[i].min = 0;
        }
    }
    int rc = cq_config_load(table, ITEM_COUNT, "chasqui-store", argc, argv, &cfg);
    rc = rc ? rc : cq_config_check_actor("chasqui-store", cfg.name, cfg.log_level);
    if (rc) {
        cq_config_free(table, ITEM_COUNT, &cfg);
        return rc > 0 ? 0 : 2;
    }
    cq_log_init(cfg.name, (enum cq_log_level)cq_log_level_by_name(cfg.log_level));
    if (cfg.restore[0]) {
        rc = store_restore_run(&cfg, cfg.restore) ? 1 : 0;
    } else if (cfg.fsck) {
        rc = store_fsck_offline_run(&cfg);
    } else {
        rc = serve(&cfg);
    }
    cq_config_free(table, ITEM_COUNT, &cfg);
    return rc;
}
