/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/stand.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/wire/frame.h"

enum {
    PATH_ROOM = 4400,
    ARGS_MAX = 16,
    WAIT_MS = 60000,
    ASK_DEADLINE_MS = 60000,
    LOOK_MS = 1,
    LOG_ROOM = 1 << 16,
    BROKER = 0,
    STORE = 1
};

static struct {
    char data[4096];
    char bin[4096];
    char endpoint[PATH_ROOM];
    struct bench_procs procs;
    cq_loop_t *loop;
    cq_bus_t *bus;
    cq_timer_t *look;
    const bool *flag;
    uint64_t wait_until_ms;
    cq_buf_t packed;
} stand;

/* ---- processes ---- */

static void
find_programs(void)
{
    ssize_t n = readlink("/proc/self/exe", stand.bin, sizeof stand.bin - 1);
    char *slash = n > 0 ? strrchr(stand.bin, '/') : NULL;
    if (!slash) {
        bench_measure_fail("cannot find the programs");
    }
    *slash = '\0';
}

static const char *
path_in(const char *name)
{
    static char paths[4][PATH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, PATH_ROOM, "%s/%s", stand.data, name);
    return path;
}

/* argv[0] is the program's name; its log goes to DATA/NAME.log. */
static pid_t
start(const char *const argv[], const char *name)
{
    char program[PATH_ROOM];
    char log[64];
    (void)snprintf(program, sizeof program, "%s/%s", stand.bin, argv[0]);
    (void)snprintf(log, sizeof log, "%s.log", name);
    const char *log_path = path_in(log);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (getppid() != parent || fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
            _exit(126);
        }
        char *args[ARGS_MAX] = {0};
        for (int i = 0; argv[i] && i < ARGS_MAX - 1; i++) {
            args[i] = strdup(argv[i]);
        }
        execv(program, args);
        _exit(127);
    }
    if (pid < 0) {
        bench_measure_fail("cannot start %s", program);
    }
    return pid;
}

static void
end(struct bench_proc *p, int signal_number)
{
    if (p->pid > 0) {
        (void)kill(p->pid, signal_number);
        (void)waitpid(p->pid, NULL, 0);
        p->pid = 0;
    }
}

/* ---- waiting ---- */

static void
on_look(void *ctx)
{
    int status = 0;
    (void)ctx;
    for (size_t i = 0; i < stand.procs.count; i++) {
        struct bench_proc *p = &stand.procs.list[i];
        if (p->pid > 0 && waitpid(p->pid, &status, WNOHANG) == p->pid) {
            bench_measure_fail("%s ended: see %s.log", p->name, path_in(p->name));
        }
    }
    if (cq_now_mono_ms() > stand.wait_until_ms) {
        bench_measure_fail("nothing happened for a minute");
    }
    if (*stand.flag) {
        cq_loop_stop(stand.loop);
    }
}

static void
on_turn(void *ctx)
{
    (void)ctx;
    if (stand.flag && *stand.flag) {
        cq_loop_stop(stand.loop);
    }
}

void
bench_stand_wait(const bool *flag)
{
    stand.flag = flag;
    stand.wait_until_ms = cq_now_mono_ms() + WAIT_MS;
    while (!*flag) {
        cq_loop_run(stand.loop);
    }
    stand.flag = NULL;
}

/* ---- the bus ---- */

static bool store_is_up;

static void
on_peer(void *ctx, const char *name, const char *role, uint64_t incarnation, bool up)
{
    (void)ctx;
    (void)name;
    (void)incarnation;
    if (strcmp(role, "store") == 0) {
        store_is_up = up;
    }
}

static void
on_registered(void *ctx)
{
    *(bool *)ctx = true;
}

void
bench_stand_ask(const struct bench_ask *ask)
{
    cq_buf_clear(&stand.packed);
    cq_schema_write_array(ask->schema, &stand.packed, ask->fields);
    const struct cq_bus_call call = {
        .user = ask->user,
        .device = ask->device,
        .op = ask->op,
        .fields = {stand.packed.data, stand.packed.size},
    };
    const struct cq_bus_wait wait = {ASK_DEADLINE_MS, ask->fn, ask->ctx};
    if (cq_bus_request(stand.bus, "store", CQ_BUS_CALL, &cq_bus_call_schema, &call, &wait)) {
        bench_measure_fail("too many questions");
    }
}

/* ---- life ---- */

const struct bench_procs *
bench_stand_procs(void)
{
    return &stand.procs;
}

void
bench_stand_open(const char *data)
{
    static bool registered;
    (void)snprintf(stand.data, sizeof stand.data, "%s", data);
    find_programs();
    /* Else only root may read /proc/PID/io. */
    (void)setenv("CHASQUI_ALLOW_CORE", "1", 1); /* NOLINT(concurrency-mt-unsafe) before threads */
    (void)snprintf(stand.endpoint, sizeof stand.endpoint, "ipc://%s", path_in("bus.sock"));
    stand.procs.count = 2;
    stand.procs.list[BROKER] = (struct bench_proc){.name = "broker"};
    stand.procs.list[STORE] = (struct bench_proc){.name = "store"};
    const char *const argv[] = {"chasqui-broker", "--endpoint", stand.endpoint, NULL};
    stand.procs.list[BROKER].pid = start(argv, "broker");
    stand.loop = cq_loop_new();
    stand.look = cq_timer_new(stand.loop, on_look, NULL);
    cq_loop_on_turn(stand.loop, on_turn, NULL);
    const struct cq_bus_cfg cfg = {.endpoint = stand.endpoint,
                                   .name = "edge.bench",
                                   .role = "edge",
                                   .on_peer = on_peer,
                                   .on_registered = on_registered,
                                   .ctx = &registered};
    stand.bus = cq_bus_new(stand.loop, &cfg);
    if (!stand.bus) {
        bench_measure_fail("no bus");
    }
    cq_timer_start(stand.look, LOOK_MS, LOOK_MS);
    bench_stand_wait(&registered);
    cq_timer_stop(stand.look);
}

void
bench_stand_start_store(void)
{
    char store[PATH_ROOM];
    char key[PATH_ROOM];
    (void)snprintf(store, sizeof store, "%s", path_in("store"));
    (void)mkdir(path_in("keys"), 0700);
    (void)snprintf(key, sizeof key, "%s", path_in("keys/master.key"));
    const char *const argv[] = {
        "chasqui-store", "--broker", stand.endpoint, "--data", store, "--master-key", key, NULL};
    store_is_up = false;
    stand.procs.list[STORE].pid = start(argv, "store");
    cq_timer_start(stand.look, LOOK_MS, LOOK_MS);
    bench_stand_wait(&store_is_up);
    cq_timer_start(stand.look, 1000, 1000);
}

void
bench_stand_kill_store(void)
{
    end(&stand.procs.list[STORE], SIGKILL);
}

void
bench_stand_forget_pages(void)
{
    int fd = open(path_in("store/data.mdb"), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) {
        bench_measure_fail("cannot empty the page cache");
    }
    (void)close(fd);
}

uint64_t
bench_stand_replayed(void)
{
    static char text[LOG_ROOM];
    FILE *f = fopen(path_in("store.log"), "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    if (f) {
        (void)fclose(f);
    }
    const char *line = strstr(text, "id=STORE-REPLAY ");
    const char *records = line ? strstr(line, " records=") : NULL;
    return records ? strtoull(records + strlen(" records="), NULL, 10) : 0;
}

void
bench_stand_close(void)
{
    cq_timer_destroy(&stand.look);
    cq_bus_destroy(&stand.bus);
    end(&stand.procs.list[STORE], SIGTERM);
    end(&stand.procs.list[BROKER], SIGTERM);
    cq_loop_destroy(&stand.loop);
    cq_buf_free(&stand.packed);
}
