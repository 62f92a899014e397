/* SPDX-License-Identifier: MPL-2.0
 * libzmq asks for the process's id before every look into a mailbox, to notice a fork, and glibc
 * (2.25 and later) asks the kernel each time: that was a quarter of all system calls under load. So
 * the programs remember it.
 */
#ifndef CQ_RT_PID_H
#define CQ_RT_PID_H

/* From now on getpid() asks the kernel once, and once more in each child of fork(). (Children made
 * by clone() alone would be told their parent's: nobody here makes any.) */
void cq_pid_remember(void);

#endif
