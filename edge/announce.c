/* SPDX-License-Identifier: MPL-2.0
 * Telling presence about sessions. A new presence, or one that has seen us die, is told about all
 * of them, a bounded number per turn, then ANNOUNCED; after that those sessions are told to sync,
 * as pushes may have been missed, also in steps.
 */
#include "common/rt/log.h"

#include "edge/edge.h"

enum {
    ANNOUNCE_STEP = 100, /* half of what presence can take: messages wait behind them */
    SYNC_STEP = 500,
    WORK_PACE_MS = 1
};

void
edge_announce_session(edge_t *e, const edge_session_t *s)
{
    struct cq_session_up up = {s->number, s->user, s->device, s->since_unix_ms};
    cq_bus_event(e->bus, e->presence.name, CQ_BUS_SESSION_UP, &cq_session_up_schema, &up);
}

void
edge_announce_session_down(edge_t *e, uint64_t number, uint64_t seen_unix_ms)
{
    if (e->presence.name[0]) {
        struct cq_session_down down = {number, seen_unix_ms};
        cq_bus_event(e->bus, e->presence.name, CQ_BUS_SESSION_DOWN, &cq_session_down_schema, &down);
    }
}

static void
stop(edge_t *e)
{
    if (e->presence.phase != EDGE_ANNOUNCE_DONE) {
        edge_session_cursor_end(&e->sessions, &e->presence.cursor);
        e->presence.phase = EDGE_ANNOUNCE_DONE;
    }
}

static void
begin(edge_t *e)
{
    stop(e);
    e->presence.phase = EDGE_ANNOUNCE_SESSIONS;
    e->presence.announced_count = 0;
    e->presence.sync_until = e->sessions.next_number - 1;
    e->metrics->announces_total++;
    edge_session_cursor_begin(&e->sessions, &e->presence.cursor);
    edge_work_start(e);
}

void
edge_announce_up(edge_t *e, const char *name, uint64_t incarnation)
{
    stop(e);
    /* DELIVER numbers start anew with each presence. One that we have known before goes on with
     * them: what was lost meanwhile is made up for by what follows on the announcement. */
    struct edge_presence *p = &e->presence;
    bool is_new = p->incarnation != incarnation;
    *p = (struct edge_presence){.incarnation = incarnation, .begins_at_one = is_new};
    size_t n = strlen(name);
    memcpy(p->name, name, n < sizeof p->name ? n : sizeof p->name - 1);
    CQ_LOG(INFO, "EDGE-PRESENCE-UP", "name=%s sessions=%zu", p->name, e->sessions.count);
    begin(e);
}

void
edge_announce_down(edge_t *e, const char *name)
{
    if (strcmp(e->presence.name, name) == 0) {
        CQ_LOG(WARN, "EDGE-PRESENCE-DOWN", "name=%s", name);
        stop(e);
        e->presence = (struct edge_presence){.incarnation = e->presence.incarnation};
    }
}

static void
end_sessions_phase(edge_t *e)
{
    struct edge_presence *p = &e->presence;
    struct cq_announced m = {p->incarnation, p->announced_count};
    cq_bus_event(e->bus, p->name, CQ_BUS_ANNOUNCED, &cq_announced_schema, &m);
    CQ_LOG(INFO, "EDGE-PRESENCE-ANNOUNCED", "name=%s sessions=%llu", p->name,
           (unsigned long long)p->announced_count);
    edge_session_cursor_end(&e->sessions, &p->cursor);
    edge_session_cursor_begin(&e->sessions, &p->cursor);
    p->phase = EDGE_ANNOUNCE_SYNC;
}

static void
step_sessions(edge_t *e)
{
    for (int i = 0; i < ANNOUNCE_STEP; i++) {
        edge_session_t *s = edge_session_cursor_next(&e->presence.cursor);
        if (!s) {
            end_sessions_phase(e);
            return;
        }
        if (edge_session_is_user(s)) {
            edge_announce_session(e, s);
            e->presence.announced_count++;
        }
    }
}

static void
step_sync(edge_t *e)
{
    for (int i = 0; i < SYNC_STEP; i++) {
        edge_session_t *s = edge_session_cursor_next(&e->presence.cursor);
        /* Numbers may wrap round: the difference tells which is older. */
        if (!s || (int64_t)(e->presence.sync_until - s->number) < 0) {
            stop(e);
            return;
        }
        if (s->state == EDGE_STATE_READY) {
            edge_send_sync_now(e, s, NULL);
        }
    }
}

void
edge_announce_missed(edge_t *e)
{
    struct edge_presence *p = &e->presence;
    p->sync_until = e->sessions.next_number - 1;
    if (p->phase == EDGE_ANNOUNCE_SESSIONS) {
        return; /* they are told to sync when all are announced */
    }
    stop(e);
    edge_session_cursor_begin(&e->sessions, &p->cursor);
    p->phase = EDGE_ANNOUNCE_SYNC;
    edge_work_start(e);
}

bool
edge_announce_step(edge_t *e)
{
    if (e->presence.phase == EDGE_ANNOUNCE_SESSIONS) {
        step_sessions(e);
    } else if (e->presence.phase == EDGE_ANNOUNCE_SYNC) {
        step_sync(e);
    }
    return e->presence.phase != EDGE_ANNOUNCE_DONE;
}

void
edge_work_start(edge_t *e)
{
    cq_timer_start(e->work_timer, 0, WORK_PACE_MS);
}
