/* SPDX-License-Identifier: MPL-2.0
 * How long this thread was ready to run and waited for a processor: whether the machine is full, as
 * its load has it. Field 2 of /proc/thread-self/schedstat (Linux,
 * Documentation/scheduler/sched-stats).
 */
#ifndef CQ_RT_RUNDELAY_H
#define CQ_RT_RUNDELAY_H

#include <stdint.h>

#include "common/wire/err.h"

/* Gives a file of the calling thread's, which the caller closes; -1: this kernel does not tell. */
int cq_run_delay_open(void);

/* Since the thread began, in nanoseconds; any thread may ask, for two microseconds.
 * -CQ_E_UNAVAILABLE: it cannot be read. */
int cq_run_delay_ns(int fd, uint64_t *ns) CQ_MUST_CHECK;

#endif
