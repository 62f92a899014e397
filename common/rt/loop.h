/* SPDX-License-Identifier: MPL-2.0
 * The event loop of a process: libuv, plus what every part needs around it: turns, timers, ZeroMQ
 * sockets, signals. All functions: loop thread only.
 *
 * A turn is one iteration: input is handled (bounded), then the turn hooks run in the order they
 * were added, then the loop sleeps. "One envelope carries many" rests on this: handlers only queue,
 * hooks send.
 */
#ifndef CQ_RT_LOOP_H
#define CQ_RT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cq_loop cq_loop_t;
typedef struct cq_timer cq_timer_t;
typedef struct cq_zwatch cq_zwatch_t;
typedef void cq_loop_fn(void *ctx);
/* Returns true if input is left (it stopped at its bound): it is called again next turn; false only
 * if the last thing it did on the socket was a receive that found nothing. */
typedef bool cq_zwatch_fn(void *ctx);

cq_loop_t *cq_loop_new(void);
/* Everything created on the loop is destroyed before. */
void cq_loop_destroy(cq_loop_t **loop);
/* Runs until cq_loop_stop(). */
void cq_loop_run(cq_loop_t *loop);
void cq_loop_stop(cq_loop_t *loop);
/* SIGINT and SIGTERM call fn; without this they stop the loop. They, and SIGHUP, are taken by the
 * loop only: cq_loop_new blocks them in the calling thread, and so in those it starts later, for
 * good. SIGPIPE is ignored. */
void cq_loop_on_signal(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
/* Blocks these three in the calling thread, or lets them through; gives whether they were blocked.
 * For what makes the loop stand still and may take long, as somebody may want to end it. */
bool cq_loop_block_signals(bool blocked);
/* SIGHUP calls fn, or is ignored with fn NULL; if this is never called it is like SIGTERM. */
void cq_loop_on_hangup(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
/* fn runs at the end of every turn. At most 8 hooks. */
void cq_loop_on_turn(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
/* The same, but after all turn hooks: for what sends what they have queued (the bus). At most 8. */
void cq_loop_on_flush(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
/* libuv hands out all that is ready, thousands of events at times, before a turn ends. Call first
 * in a callback of which there may be so many: every so often a turn is put in between, in which
 * anything may happen, also to what the callback is about. Not from hooks. */
void cq_loop_breathe(cq_loop_t *loop);
/* Takes a turn or flush hook out again. */
void cq_loop_off_turn(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
/* The uv_loop_t, for libraries that want it (libwebsockets, hiredis). */
struct uv_loop_s *cq_loop_uv(cq_loop_t *loop);

/* A timer: start(first_ms, repeat_ms); repeat_ms 0 is once. start on a running timer restarts it.
 */
cq_timer_t *cq_timer_new(cq_loop_t *loop, cq_loop_fn *fn, void *ctx);
void cq_timer_start(cq_timer_t *t, uint64_t first_ms, uint64_t repeat_ms);
void cq_timer_stop(cq_timer_t *t);
void cq_timer_destroy(cq_timer_t **t);

/* Watches a ZeroMQ socket (raw `void *` handle) for input. ZMQ_FD is edge-triggered: fn is called
 * until it has drained. At most 32. */
cq_zwatch_t *cq_zwatch_new(cq_loop_t *loop, void *zmq_socket, cq_zwatch_fn *fn, void *ctx);
/* Something was sent on the socket, other than by fn. */
void cq_zwatch_sent(cq_zwatch_t *w);
/* Pauses or resumes reading (backpressure). */
void cq_zwatch_pause(cq_zwatch_t *w, bool paused);
void cq_zwatch_destroy(cq_zwatch_t **w);

/* Clocks. Monotonic for deadlines, wall clock for what people see. */
uint64_t cq_now_mono_ms(void);
uint64_t cq_now_mono_us(void);
uint64_t cq_now_unix_ms(void);

#endif
