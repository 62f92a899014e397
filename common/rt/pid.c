/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/pid.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/rt/check.h"

static atomic_bool is_remembered;
static atomic_int pid; /* 0: not known */

/* In front of the one of libc, for libraries too: the linker exports what they refer to. */
__attribute__((visibility("default"))) pid_t
getpid(void)
{
    int known = atomic_load_explicit(&pid, memory_order_relaxed);
    if (!known) {
        known = (int)syscall(SYS_getpid);
        if (atomic_load_explicit(&is_remembered, memory_order_relaxed)) {
            atomic_store_explicit(&pid, known, memory_order_relaxed);
        }
    }
    return known;
}

static void
forget(void)
{
    atomic_store_explicit(&pid, 0, memory_order_relaxed);
}

void
cq_pid_remember(void)
{
    if (!atomic_exchange(&is_remembered, true)) {
        int rc = pthread_atfork(NULL, NULL, forget);
        CQ_ASSERT(rc == 0);
    }
}
