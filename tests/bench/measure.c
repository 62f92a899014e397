/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/measure.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PATH_ROOM = 4200,
    NICENESS = 10,
    TRIES = 50, /* for a session's nice value */
    RETRY_US = 20000,
    BLOCK = 4096,
    PROBE_BLOCKS = 1024
};

static char bench_name[32];
static char bench_conditions[512];

uint64_t
bench_measure_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

void
bench_measure_fail(const char *format, ...)
{
    va_list args;
    (void)fputs("bench: ", stderr);
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) it is, the line above */
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1); /* NOLINT(concurrency-mt-unsafe) */
}

/* ---- histograms ---- */

void
bench_measure_add(struct bench_hist *h, uint64_t ns)
{
    uint64_t v = ns < BENCH_HIST_STEPS ? BENCH_HIST_STEPS : ns;
    unsigned shift = 63U - (unsigned)__builtin_clzll(v) - 6;
    size_t i = shift * (size_t)BENCH_HIST_STEPS + ((v >> shift) & (BENCH_HIST_STEPS - 1));
    h->buckets[i < BENCH_HIST_BUCKETS ? i : BENCH_HIST_BUCKETS - 1]++;
    h->count++;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
}

uint64_t
bench_measure_quantile(const struct bench_hist *h, double part)
{
    uint64_t rank = (uint64_t)(part * (double)h->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < BENCH_HIST_BUCKETS && h->count; i++) {
        seen += h->buckets[i];
        if (seen > rank || seen == h->count) {
            uint64_t top = (BENCH_HIST_STEPS + i % BENCH_HIST_STEPS + 1) << (i / BENCH_HIST_STEPS);
            return top < h->max_ns ? top : h->max_ns;
        }
    }
    return 0;
}

/* ---- /proc ---- */

/* The whole file as text; false if it cannot be read. */
static int
read_text(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    ssize_t n = read(fd, out, room - 1);
    (void)close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? 0 : -1;
}

static uint64_t
number_behind(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at ? strtoull(at + strlen(word), NULL, 10) : 0;
}

static uint64_t
cpu_ns_of(pid_t pid)
{
    char path[PATH_ROOM];
    char text[256];
    uint64_t sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    if (!d) {
        bench_measure_fail("process %d is gone", (int)pid);
    }
    struct dirent *entry = NULL;
    while ((entry = readdir(d))) { /* NOLINT(concurrency-mt-unsafe) its own stream */
        if (entry->d_name[0] == '.') {
            continue;
        }
        (void)snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
        if (read_text(path, text, sizeof text) == 0) {
            sum += strtoull(text, NULL, 10);
        }
    }
    (void)closedir(d);
    return sum;
}

static uint64_t
io_of(pid_t pid, const char *field)
{
    char path[PATH_ROOM];
    char text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
    return read_text(path, text, sizeof text) ? 0 : number_behind(text, field);
}

static uint64_t
written_by(pid_t pid)
{
    return io_of(pid, "wchar: ");
}

static void
memory_of(pid_t pid, uint64_t *pss_bytes, uint64_t *anonymous_bytes)
{
    char path[PATH_ROOM];
    char text[4096];
    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    if (read_text(path, text, sizeof text)) {
        bench_measure_fail("cannot read %s", path);
    }
    *pss_bytes = 1024 * number_behind(text, "\nPss:");
    *anonymous_bytes = 1024 * number_behind(text, "\nPss_Anon:");
}

void
bench_measure_find(struct bench_procs *p, const char *data)
{
    char path[PATH_ROOM];
    char pid[32];
    char names[2048];
    (void)snprintf(path, sizeof path, "%s/run/services", data);
    if (read_text(path, names, sizeof names)) {
        bench_measure_fail("no services run on %s", data);
    }
    p->count = 0;
    char *rest = NULL;
    for (char *name = strtok_r(names, "\n", &rest); name && p->count < BENCH_PROCS_MAX;
         name = strtok_r(NULL, "\n", &rest)) {
        struct bench_proc *proc = &p->list[p->count++];
        (void)snprintf(proc->name, sizeof proc->name, "%s", name);
        (void)snprintf(path, sizeof path, "%s/run/%s.pid", data, name);
        if (read_text(path, pid, sizeof pid)) {
            bench_measure_fail("%s does not run", name);
        }
        proc->pid = (pid_t)strtol(pid, NULL, 10);
    }
}

size_t
bench_measure_edges(const struct bench_procs *p)
{
    size_t edges = 0;
    for (size_t i = 0; i < p->count; i++) {
        edges += strncmp(p->list[i].name, "edge.", 5) == 0;
    }
    return edges;
}

static void
signal_one(const struct bench_procs *p, const char *name, int number)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->list[i].name, name) == 0 && kill(p->list[i].pid, number) == 0) {
            return;
        }
    }
    bench_measure_fail("cannot send signal %d to %s", number, name);
}

void
bench_measure_signal_last_edges(const struct bench_procs *p, size_t count, int number)
{
    char name[32];
    size_t edges = bench_measure_edges(p);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "edge.%zu", edges - i);
        signal_one(p, name, number);
    }
}

void
bench_measure_sample_again(struct bench_procs *p, const char *data, struct bench_sample *before)
{
    struct bench_procs now;
    bench_measure_find(&now, data);
    for (size_t i = 0; i < p->count; i++) {
        if (now.list[i].pid != p->list[i].pid) {
            before->cpu_ns[i] = 0;
        }
    }
    *p = now;
}

void
bench_measure_sample(const struct bench_procs *p, struct bench_sample *s)
{
    s->time_ns = bench_measure_now_ns();
    s->count = p->count;
    s->own_cpu_ns = bench_measure_own_cpu_ns();
    for (size_t i = 0; i < p->count; i++) {
        s->cpu_ns[i] = cpu_ns_of(p->list[i].pid);
        if (strcmp(p->list[i].name, "store") == 0) {
            s->store_write_bytes = written_by(p->list[i].pid);
        }
    }
}

void
bench_measure_memory(const struct bench_procs *p, struct bench_sample *s)
{
    for (size_t i = 0; i < p->count; i++) {
        memory_of(p->list[i].pid, &s->pss_bytes[i], &s->anonymous_bytes[i]);
    }
}

/* Linux may share the processors among sessions first (autogroup), and then nice counts only within
 * one: so this process gets a session of its own, and that gets the same nice value. */
static void
be_nice_as_session(void)
{
    char value[8];
    int n = snprintf(value, sizeof value, "%d", NICENESS);
    int fd = setsid() < 0 ? -1 : open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return; /* no such kernel, or a shell's job: nice alone */
    }
    for (int i = 0; write(fd, value, (size_t)n) < 0 && errno == EAGAIN && i < TRIES; i++) {
        (void)usleep(RETRY_US); /* ten a second are allowed in the whole system */
    }
    (void)close(fd);
}

void
bench_measure_give_way(void)
{
    errno = 0;
    if (nice(NICENESS) == -1 && errno) {
        bench_measure_fail("nice: errno %d", errno);
    }
    be_nice_as_session();
}

uint64_t
bench_measure_own_cpu_ns(void)
{
    return cpu_ns_of(getpid());
}

uint64_t
bench_measure_own_written(void)
{
    return written_by(getpid());
}

uint64_t
bench_measure_own_accounted(void)
{
    return io_of(getpid(), "\nwrite_bytes: ");
}

double
bench_measure_own_memory(void)
{
    char text[8192];
    return read_text("/proc/self/status", text, sizeof text)
               ? 0
               : 1024 * (double)number_behind(text, "\nRssAnon:");
}

/* ---- results ---- */

void
bench_measure_begin(const char *bench, const char *format, ...)
{
    va_list args;
    (void)snprintf(bench_name, sizeof bench_name, "%s", bench);
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) it is, the line above */
    (void)vsnprintf(bench_conditions, sizeof bench_conditions, format, args);
    va_end(args);
    (void)fprintf(stderr, "%s: %s\n", bench_name, bench_conditions);
}

void
bench_measure_say(const char *metric, double value, const char *unit)
{
    (void)printf("{\"bench\":\"%s\",\"metric\":\"%s\",\"value\":%.6g,\"unit\":\"%s\","
                 "\"conditions\":\"%s\"}\n",
                 bench_name, metric, value, unit, bench_conditions);
    (void)fflush(stdout);
    (void)fprintf(stderr, "  %-32s %12.4g %s\n", metric, value, unit);
}

void
bench_measure_say_hist(const char *metric, const struct bench_hist *h)
{
    static const struct {
        const char *suffix;
        double part;
    } parts[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
    char name[64];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        (void)snprintf(name, sizeof name, "%s_%s", metric, parts[i].suffix);
        bench_measure_say(name, (double)bench_measure_quantile(h, parts[i].part) / 1e6, "ms");
    }
}

void
bench_measure_say_cpu(const char *metric,
                      const struct bench_procs *p,
                      const struct bench_sample *from,
                      const struct bench_sample *to,
                      double per)
{
    char name[64];
    double sum = 0;
    for (size_t i = 0; i < p->count; i++) {
        double us = (double)(to->cpu_ns[i] - from->cpu_ns[i]) / 1e3 / per;
        (void)snprintf(name, sizeof name, "%s.%s", metric, p->list[i].name);
        bench_measure_say(name, us, "us");
        sum += us;
    }
    bench_measure_say(metric, sum, "us");
    (void)snprintf(name, sizeof name, "%s.load_generator", metric);
    bench_measure_say(name, (double)(to->own_cpu_ns - from->own_cpu_ns) / 1e3 / per, "us");
}

void
bench_measure_say_memory(const char *metric,
                         const struct bench_procs *p,
                         const struct bench_sample *from,
                         const struct bench_sample *to,
                         double per)
{
    char name[64];
    double sum = 0;
    double anonymous = 0;
    for (size_t i = 0; i < p->count; i++) {
        double bytes = ((double)to->pss_bytes[i] - (double)from->pss_bytes[i]) / per;
        double own = ((double)to->anonymous_bytes[i] - (double)from->anonymous_bytes[i]) / per;
        (void)snprintf(name, sizeof name, "%s.%s", metric, p->list[i].name);
        bench_measure_say(name, bytes, "bytes");
        (void)snprintf(name, sizeof name, "%s_anonymous.%s", metric, p->list[i].name);
        bench_measure_say(name, own, "bytes");
        sum += bytes;
        anonymous += own;
    }
    bench_measure_say(metric, sum, "bytes");
    (void)snprintf(name, sizeof name, "%s_anonymous", metric);
    bench_measure_say(name, anonymous, "bytes");
}

double
bench_measure_cpu_ns(const struct bench_sample *from, const struct bench_sample *to)
{
    double sum = 0;
    for (size_t i = 0; i < from->count; i++) {
        sum += (double)(to->cpu_ns[i] - from->cpu_ns[i]);
    }
    return sum;
}

void
bench_measure_disk(const char *dir, unsigned count)
{
    static struct bench_hist h;
    static uint8_t block[BLOCK];
    char path[PATH_ROOM];
    memset(&h, 0, sizeof h);
    (void)snprintf(path, sizeof path, "%s/fdatasync.probe", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        bench_measure_fail("cannot write to %s", path);
    }
    (void)unlink(path);
    int bad = 0;
    for (int i = 0; i < PROBE_BLOCKS; i++) {
        bad |= pwrite(fd, block, BLOCK, (off_t)i * BLOCK) != BLOCK;
    }
    bad |= fsync(fd);
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = bench_measure_now_ns();
        block[0] = (uint8_t)i;
        bad |= pwrite(fd, block, BLOCK, (off_t)(i % PROBE_BLOCKS) * BLOCK) != BLOCK;
        bad |= fdatasync(fd);
        bench_measure_add(&h, bench_measure_now_ns() - start);
    }
    (void)close(fd);
    if (bad) {
        bench_measure_fail("cannot write to the disk");
    }
    bench_measure_say_hist("disk_fdatasync_4k", &h);
}
