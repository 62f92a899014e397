/* SPDX-License-Identifier: MPL-2.0
 * chasqui-edge: arguments, configuration, start, run, stop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "edge/edge.h"

static int
run(const struct edge_config *cfg)
{
    cq_loop_t *loop = cq_loop_new();
    if (!loop) {
        return 1;
    }
    edge_t *e = edge_new(loop, cfg);
    if (e) {
        cq_loop_on_signal(loop, edge_drain_start, e);
        cq_loop_run(loop);
    }
    bool ok = e != NULL;
    edge_destroy(&e);
    cq_loop_destroy(&loop);
    return ok ? 0 : 1;
}

int
main(int argc, char **argv)
{
    cq_secure_start();
    struct edge_config cfg;
    memset(&cfg, 0, sizeof cfg);
    int rc = cq_config_load(edge_config_items, edge_config_count, "chasqui-edge", argc, argv, &cfg);
    rc = rc ? rc : edge_config_check(&cfg);
    int status = rc < 0 ? 2 : EXIT_SUCCESS;
    if (!rc) {
        cq_log_init(cfg.name, (enum cq_log_level)cq_log_level_by_name(cfg.log_level));
        status = run(&cfg);
    }
    cq_config_free(edge_config_items, edge_config_count, &cfg);
    return status;
}
