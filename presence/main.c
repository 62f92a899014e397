/* SPDX-License-Identifier: MPL-2.0
 * chasqui-presence: arguments, configuration, start, wait, stop.
 */
#include <stdlib.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "presence/presence.h"
#include "presence/stats.h"

#define ITEM(key, type, field, preset, min, max, unit, doc)                                      \
    {                                                                                            \
        key, CQ_CONFIG_##type, offsetof(struct presence_cfg, field), preset, min, max, unit, doc \
    }

static const struct cq_config_item items[] = {
    ITEM("name", STR, name, "presence.1", 1, CQ_ACTOR_NAME_MAX, "", "name on the bus"),
    ITEM("broker", STR, broker, NULL, 1, 1024, "", "the broker's endpoint, ipc://PATH"),
    ITEM("redis-socket", STR, redis_socket, NULL, 1, 107, "", "unix socket of redis-server"),
    ITEM("redis-password-file",
         STR,
         redis_password_file,
         "",
         0,
         1024,
         "",
         "Redis' password, read for each connection"),
    ITEM("grace-ms",
         UINT,
         grace_ms,
         "5000",
         0,
         600000,
         "ms",
         "from the last session's end to \"left\""),
    ITEM("online-ttl-s",
         UINT,
         online_ttl_s,
         "150",
         5,
         86400,
         "s",
         "life of a user's online key without heartbeat"),
    ITEM("tick-ms",
         UINT,
         tick_ms,
         "1000",
         10,
         60000,
         "ms",
         "a session is told of changes once in this time"),
    ITEM("notes-per-s",
         UINT,
         notes_per_s,
         "20000",
         100,
         10000000,
         "per s",
         "sessions told about friends; more wait, messages never do"),
    ITEM("log-level", STR, log_level, "info", 1, 16, "", "debug, info, warn or error"),
};
enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static int
run(const struct presence_cfg *cfg)
{
    cq_log_init(cfg->name, (enum cq_log_level)cq_log_level_by_name(cfg->log_level));
    presence_stats_register();
    cq_loop_t *loop = cq_loop_new();
    presence_t *presence = presence_presence_new(loop, cfg);
    if (presence) {
        CQ_LOG(INFO, "PRESENCE-START", "version=%s", CQ_VERSION);
        cq_loop_run(loop);
        CQ_LOG(INFO, "PRESENCE-STOP", "reason=signal");
    }
    int rc = presence ? EXIT_SUCCESS : EXIT_FAILURE;
    presence_presence_destroy(&presence);
    cq_loop_destroy(&loop);
    return rc;
}

int
main(int argc, char **argv)
{
    struct presence_cfg cfg = {0};
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-presence", argc, argv, &cfg);
    if (rc == 0) {
        rc =
            cq_config_check_actor("chasqui-presence", cfg.name, cfg.log_level) == 0 ? run(&cfg) : 2;
    } else {
        rc = rc > 0 ? EXIT_SUCCESS : 2;
    }
    cq_config_free(items, ITEM_COUNT, &cfg);
    return rc;
}
