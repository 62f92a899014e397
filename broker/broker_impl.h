/* SPDX-License-Identifier: MPL-2.0
 * The inside of the broker, shared by its files only.
 *   broker.c    life, what comes in, leases and probes
 *   announce.c  what it tells actors about each other
 *   control.c   what actors say to it
 *   bounce.c    what comes back
 */
#ifndef BROKER_BROKER_IMPL_H
#define BROKER_BROKER_IMPL_H

#include <sys/un.h>

#include <czmq.h>

#include "broker/broker.h"

struct broker {
    cq_loop_t *loop;
    uint64_t lease_ms;
    uint64_t incarnation;
    broker_registry_t *registry;
    zsock_t *router_sock;
    void *router;
    zsock_t *monitor;
    cq_zwatch_t *watch, *monitor_watch;
    cq_timer_t *sweep, *probe;
    unsigned probes_left;
    uint64_t swept_mono_ms;
    uint64_t logged_mono_ms;
    bool has_doomed;
    char socket_file[sizeof((struct sockaddr_un *)0)->sun_path]; /* ours to remove; empty: none */
    cq_buf_t items;
};

/* ---- announce.c ---- */
/* The actor is dead: announced and removed by the next broker_announce_reap(). */
void broker_announce_doom(broker_t *b, struct broker_actor *a);
void broker_announce_reap(broker_t *b);
/* One item of rid 0 to one actor; an actor that cannot take it is doomed. */
void broker_announce_tell(broker_t *b,
                          struct broker_actor *to,
                          uint8_t op,
                          const struct cq_schema *s,
                          const void *in);
/* UP or DOWN to everybody else. */
void broker_announce_all(broker_t *b, const struct broker_actor *about, uint8_t op);
/* The answer to REGISTER: who else is there. */
void broker_announce_registered(broker_t *b, struct broker_actor *a);

/* ---- control.c ---- */
/* The actor that sent the envelope, or NULL. */
struct broker_actor *broker_control_sender(const broker_t *b, const struct broker_envelope *e);
/* Serves an envelope for the broker itself. 0 or negative: not a valid one. */
int broker_control_take(broker_t *b, const struct broker_envelope *e) CQ_MUST_CHECK;

/* ---- bounce.c ---- */
/* Sends the envelope's content back to its sender as BOUNCE with this error. Bodies too big to fit
 * are left out. */
void broker_bounce(void *router, const struct broker_envelope *e, int err);

#endif
