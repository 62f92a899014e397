/* SPDX-License-Identifier: MPL-2.0
 * chasqui-store: the durable truth. Arguments → configuration → open → run → close.
 */
#include <stddef.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/core.h"

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
         "200000",
         1,
         100000000,
         "chats",
         "unchanged chats kept in memory"),
    ITEM("checkpoint-records",
         UINT,
         checkpoint_records,
         "500000",
         1,
         10000000,
         "records",
         "write rows this far behind the log"),
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
    ITEM("log-level", STR, log_level, "info", 1, 8, "", "debug, info, warn or error"),
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

int
main(int argc, char **argv)
{
    struct store_core_cfg cfg = {0};
    struct store_core core;
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-store", argc, argv, &cfg);
    if (rc) {
        cq_config_free(items, ITEM_COUNT, &cfg);
        return rc > 0 ? 0 : 2;
    }
    int level = cq_log_level_by_name(cfg.log_level);
    cq_log_init(cfg.name, level < 0 ? CQ_LOG_INFO : (enum cq_log_level)level);
    rc = store_core_open(&core, &cfg);
    if (rc) {
        CQ_LOG(ERROR, "STORE-START-FAIL", "err=%s", cq_err_name(rc));
    } else {
        store_core_run(&core);
    }
    store_core_close(&core);
    cq_config_free(items, ITEM_COUNT, &cfg);
    return rc ? 1 : core.exit_code;
}
