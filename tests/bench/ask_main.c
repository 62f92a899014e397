/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-ask: the store asked through a real broker. tests/bench/run.sh fills the folder.
 */
#include <stdio.h>
#include <string.h>

#include "common/rt/log.h"
#include "common/rt/random.h"

#include "tests/bench/ask.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} benches[] = {
    {"store-bus", bench_ask_bus_run},
    {"history", bench_ask_history_run},
    {"sync", bench_ask_sync_run},
    {"recovery", bench_ask_recovery_run},
};

int
main(int argc, char **argv)
{
    cq_secure_start();
    cq_log_init("bench", CQ_LOG_WARN);
    for (size_t i = 0; argc > 1 && i < sizeof benches / sizeof benches[0]; i++) {
        if (strcmp(argv[1], benches[i].name) == 0) {
            return benches[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(
        stderr, "usage: chasqui-bench-ask store-bus|history|sync|recovery --data DIR [options]\n");
    return 2;
}
