/* SPDX-License-Identifier: MPL-2.0
 * chasqui-broker: arguments, then the broker until a signal.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "broker/broker.h"

struct cfg {
    char *endpoint;
    uint64_t lease_ms;
    char *log_level;
};

static const struct cq_config_item items[] = {
    {"endpoint", CQ_CONFIG_STR, offsetof(struct cfg, endpoint), NULL, 1, 255, "",
     "where actors connect, ipc://PATH of a socket file"},
    {"lease-ms", CQ_CONFIG_UINT, offsetof(struct cfg, lease_ms), "3000", 300, 60000, "ms",
     "an actor that is silent for this long is dead"},
    {"log-level", CQ_CONFIG_STR, offsetof(struct cfg, log_level), "info", 4, 5, "",
     "debug, info, warn or error"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static int
serve(const struct cfg *cfg)
{
    cq_loop_t *loop = cq_loop_new();
    struct broker_cfg bc = {.endpoint = cfg->endpoint, .lease_ms = cfg->lease_ms};
    broker_t *broker = broker_new(loop, &bc);
    int status = broker ? EXIT_SUCCESS : EXIT_FAILURE;
    if (broker) {
        cq_loop_run(loop);
        CQ_LOG(INFO, "BROKER-STOP", "actors=%zu", broker_actor_count(broker));
    }
    broker_destroy(&broker);
    cq_loop_destroy(&loop);
    return status;
}

int
main(int argc, char **argv)
{
    struct cfg cfg = {0};
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-broker", argc, argv, &cfg);
    if (rc) {
        return rc > 0 ? EXIT_SUCCESS : 2;
    }
    int status = 2;
    if (cq_config_check_actor("chasqui-broker", "broker", cfg.log_level) == 0) {
        cq_log_init("broker", (enum cq_log_level)cq_log_level_by_name(cfg.log_level));
        status = serve(&cfg);
    }
    cq_config_free(items, ITEM_COUNT, &cfg);
    return status;
}
