/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/rundelay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
cq_run_delay_open(void)
{
    return open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

int
cq_run_delay_ns(int fd, uint64_t *ns)
{
    char text[64];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0) {
        return -CQ_E_UNAVAILABLE;
    }
    text[n] = '\0';
    const char *second = strchr(text, ' ');
    char *end = text;
    errno = 0;
    *ns = second ? strtoull(second, &end, 10) : 0;
    return !second || end == second || errno ? -CQ_E_UNAVAILABLE : 0;
}
