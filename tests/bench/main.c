/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench: load on a running system, through its edges. tests/bench/run.sh starts both.
 */
#include <stdio.h>
#include <string.h>

#include "common/rt/random.h"

#include "tests/bench/bench.h"
#include "tests/bench/conn.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} benches[] = {
    {"chat", bench_chat_run},           {"failover", bench_failover_run},
    {"flap", bench_flap_run},           {"idle", bench_idle_run},
    {"login", bench_login_run},         {"storm", bench_storm_run},
    {"mosquitto", bench_mosquitto_run},
};

int
main(int argc, char **argv)
{
    cq_secure_start();
    for (size_t i = 0; argc > 1 && i < sizeof benches / sizeof benches[0]; i++) {
        if (strcmp(argv[1], benches[i].name) == 0) {
            bench_conn_start();
            return benches[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(
        stderr,
        "usage: chasqui-bench chat|failover|flap|idle|login|storm --data DIR --port P [options]\n");
    return 2;
}
