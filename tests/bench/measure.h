/* SPDX-License-Identifier: MPL-2.0
 * What is measured and how it is said: histograms, counters of /proc, results.
 *
 * CPU time is field 1 of /proc/PID/task/TID/schedstat (nanoseconds), summed over the threads: a
 * machine that is shared changes it less than it changes the clock on the wall.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

uint64_t bench_measure_now_ns(void);
/* Prints the sentence to stderr and exits with 1: a benchmark that went wrong has no result. */
void bench_measure_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- histograms of durations: buckets of about 1.6 % width, exact maximum ---- */

enum {
    BENCH_HIST_STEPS = 64, /* per power of two */
    BENCH_HIST_BUCKETS = 40 * BENCH_HIST_STEPS
};

struct bench_hist {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[BENCH_HIST_BUCKETS];
};

void bench_measure_add(struct bench_hist *h, uint64_t ns);
/* The value that `part` (0 … 1) of all are at or below, in nanoseconds; 0 if there are none. */
uint64_t bench_measure_quantile(const struct bench_hist *h, double part);

/* ---- processes ---- */

enum {
    BENCH_PROCS_MAX = 40
};

struct bench_proc {
    char name[32];
    pid_t pid;
};

struct bench_sample {
    uint64_t time_ns;
    uint64_t own_cpu_ns; /* of the load generator */
    uint64_t store_write_bytes;
    size_t count;
    uint64_t cpu_ns[BENCH_PROCS_MAX];
    /* Only bench_measure_memory fills them: all, and what is the process's own (not of files). */
    uint64_t pss_bytes[BENCH_PROCS_MAX];
    uint64_t anonymous_bytes[BENCH_PROCS_MAX];
};

struct bench_procs {
    size_t count;
    struct bench_proc list[BENCH_PROCS_MAX];
};

/* The services that deploy/run.sh started on this data folder. */
void bench_measure_find(struct bench_procs *p, const char *data);
/* How many of them are edges. */
size_t bench_measure_edges(const struct bench_procs *p);
/* A signal to the last ones; deploy/run.sh restarts those that it ends. */
void bench_measure_signal_last_edges(const struct bench_procs *p, size_t count, int number);
/* Some have died and were restarted: the new ones count from 0 in `before`. */
void
bench_measure_sample_again(struct bench_procs *p, const char *data, struct bench_sample *before);
/* CPU and bytes written, now. */
void bench_measure_sample(const struct bench_procs *p, struct bench_sample *s);
void bench_measure_memory(const struct bench_procs *p, struct bench_sample *s);
/* metric.PROCESS for each and metric for the sum: growth of memory in bytes per `per`, and of the
 * anonymous part of it. */
void bench_measure_say_memory(const char *metric,
                              const struct bench_procs *p,
                              const struct bench_sample *from,
                              const struct bench_sample *to,
                              double per);
/* Those who storm stand for clients on other machines: this process gives way to the services. */
void bench_measure_give_way(void);
uint64_t bench_measure_own_cpu_ns(void);
/* Bytes this process has given to write calls. With fdatasync after each commit that is what the
 * disk gets; the kernel's own account of it (write_bytes) counts a whole folio of the page cache,
 * often 16 KiB and more, for each page in it, and says twice as much. */
uint64_t bench_measure_own_written(void);
uint64_t bench_measure_own_accounted(void);
/* Anonymous memory that is resident, in bytes. */
double bench_measure_own_memory(void);

/* ---- results ---- */

/* Names the benchmark and its conditions for what follows. */
void bench_measure_begin(const char *bench, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* One JSON object on stdout, one line for people on stderr. */
void bench_measure_say(const char *metric, double value, const char *unit);
/* metric_p50, metric_p99 … in milliseconds. */
void bench_measure_say_hist(const char *metric, const struct bench_hist *h);
/* metric.PROCESS for each and metric for the sum: growth of CPU in µs per `per`. */
void bench_measure_say_cpu(const char *metric,
                           const struct bench_procs *p,
                           const struct bench_sample *from,
                           const struct bench_sample *to,
                           double per);

/* What all processes have used. */
double bench_measure_cpu_ns(const struct bench_sample *from, const struct bench_sample *to);

/* The disk: `count` times 4 KiB written over what is there and fdatasync, in a file in dir. */
void bench_measure_disk(const char *dir, unsigned count);

#endif
