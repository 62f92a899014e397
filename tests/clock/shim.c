/* SPDX-License-Identifier: MPL-2.0
 * A layer under a program, for LD_PRELOAD: its wall clock can be moved while it runs. The monotonic
 * clocks stay as they are, as with a real jump.
 *
 * Environment: CLOCK_SHIM_CONTROL, a file of 8 bytes: by how many seconds the wall clock is off, a
 * signed number in the machine's byte order, read at every call.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static const volatile int64_t *offset_s;

__attribute__((constructor)) static void
start(void)
{
    const char *path = getenv("CLOCK_SHIM_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd < 0 || !real_clock_gettime) {
        abort(); /* a test that moves no clock must not pass */
    }
    void *mapped = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        abort();
    }
    (void)close(fd);
    offset_s = mapped;
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
    if (!real_clock_gettime) { /* a constructor before ours */
        *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int rc = real_clock_gettime(id, t);
    if (rc == 0 && offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        t->tv_sec += *offset_s;
    }
    return rc;
}

int
gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int rc = clock_gettime(CLOCK_REALTIME, &now);
    if (rc == 0) {
        t->tv_sec = now.tv_sec;
        t->tv_usec = now.tv_nsec / 1000;
    }
    return rc;
}

time_t
time(time_t *out)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}
