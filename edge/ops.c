/* SPDX-License-Identifier: MPL-2.0
 * The table and the gate.
 *
 * A session is blocked while it logs in, while its unanswered requests reach their bound, or while
 * its output waits. Then what is left of its message is held, in order, and we stop reading from
 * its socket: TCP pushes back to the client.
 */
#include "edge/ops.h"

#include <assert.h>

#include "common/rt/log.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "edge/auth.h"
#include "edge/call.h"
#include "edge/ws.h"

enum {
    COST = 1,
    COST_LONG = 16,  /* answers of up to hundreds of kilobytes */
    FIELDS_MAX = 32, /* values of one operation; later versions may add some at the end */
    ENVELOPE_NESTING = 3,
    HELD_MAX = 2 * CQ_FRAME_MAX,
};

static const struct edge_op {
    edge_op_fn *fn;
    uint8_t rate; /* enum edge_rate */
    uint8_t cost;
} ops[] = {
    [CQ_OP_SIGNUP] = {.fn = edge_auth_on_password, .rate = EDGE_RATE_SIGNUP, .cost = COST},
    [CQ_OP_LOGIN] = {.fn = edge_auth_on_password, .rate = EDGE_RATE_LOGIN, .cost = COST},
    [CQ_OP_RESUME] = {.fn = edge_auth_on_resume, .rate = EDGE_RATE_RESUME, .cost = COST},
    [CQ_OP_LOGOUT] = {.fn = edge_auth_on_logout, .rate = EDGE_RATE_ACCOUNT, .cost = COST},
    [CQ_OP_PING] = {.fn = edge_call_on_ping, .rate = EDGE_RATE_SIGNAL, .cost = COST},
    [CQ_OP_DEVICES] = {.fn = edge_call_on_store, .rate = EDGE_RATE_ACCOUNT, .cost = COST_LONG},
    [CQ_OP_REVOKE] = {.fn = edge_call_on_store, .rate = EDGE_RATE_ACCOUNT, .cost = COST},
    [CQ_OP_SYNC] = {.fn = edge_call_on_store, .rate = EDGE_RATE_QUERY, .cost = COST_LONG},
    [CQ_OP_CHATS] = {.fn = edge_call_on_store, .rate = EDGE_RATE_QUERY, .cost = COST_LONG},
    [CQ_OP_KEYS] = {.fn = edge_call_on_store, .rate = EDGE_RATE_QUERY, .cost = COST_LONG},
    [CQ_OP_SEND] = {.fn = edge_call_on_store, .rate = EDGE_RATE_SEND, .cost = COST},
    [CQ_OP_HISTORY] = {.fn = edge_call_on_store, .rate = EDGE_RATE_HISTORY, .cost = COST_LONG},
    [CQ_OP_ACK] = {.fn = edge_call_on_store, .rate = EDGE_RATE_SIGNAL, .cost = COST},
    [CQ_OP_LEDGER] = {.fn = edge_call_on_store, .rate = EDGE_RATE_QUERY, .cost = COST_LONG},
    [CQ_OP_TYPING] = {.fn = edge_call_on_store, .rate = EDGE_RATE_SIGNAL, .cost = COST},
    [CQ_OP_FRIENDS] = {.fn = edge_call_on_store, .rate = EDGE_RATE_QUERY, .cost = COST_LONG},
    [CQ_OP_ADD] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_ACCEPT] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_DECLINE] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_CANCEL] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_REMOVE] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_BLOCK] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_UNBLOCK] = {.fn = edge_call_on_store, .rate = EDGE_RATE_FRIEND, .cost = COST},
    [CQ_OP_PRESENCE] = {.fn = edge_call_on_presence, .rate = EDGE_RATE_SIGNAL, .cost = COST_LONG},
    [CQ_OP_PRIVACY] = {.fn = edge_call_on_store, .rate = EDGE_RATE_ACCOUNT, .cost = COST},
};

enum {
    OP_COUNT = sizeof ops / sizeof ops[0]
};

static_assert(sizeof ops / sizeof ops[0] <= (size_t)CQ_OP_OK, "requests are below the answers");

bool
edge_ops_is_served(uint8_t code)
{
    return code < OP_COUNT && ops[code].fn;
}

static bool
is_full(const edge_t *e, const edge_session_t *s)
{
    return s->cost >= e->cfg->session_requests_max || s->out.bytes >= edge_send_bytes_max(e);
}

static bool
is_blocked(const edge_t *e, const edge_session_t *s)
{
    return s->state == EDGE_STATE_AUTHENTICATING || s->state == EDGE_STATE_ANNOUNCING ||
           s->is_logging_out || s->is_leaving || s->is_in_line || is_full(e, s);
}

/* The client's values as an array of their own in the scratch buffer, checked to be nested no
 * deeper than an envelope around them allows: one client's operation must not spoil the envelope of
 * others. */
static int
pack_raw(edge_t *e, const struct cq_frame_op *op, struct cq_view *raw)
{
    if (op->field_count > FIELDS_MAX) {
        return -CQ_E_BAD_ARG;
    }
    cq_buf_clear(&e->scratch);
    for (int i = 0; i < ENVELOPE_NESTING; i++) {
        cq_pack_array(&e->scratch, 1);
    }
    cq_pack_array(&e->scratch, op->field_count);
    cq_buf_append(&e->scratch, op->fields.p, (size_t)(op->fields.end - op->fields.p));
    cq_reader_t r = cq_reader(e->scratch.data, e->scratch.size);
    (void)cq_read_any(&r);
    if (r.err) {
        return -CQ_E_BAD_ARG;
    }
    *raw = (struct cq_view){e->scratch.data + ENVELOPE_NESTING, e->scratch.size - ENVELOPE_NESTING};
    return 0;
}

static int
check_state(const edge_session_t *s, enum cq_op_state wanted)
{
    bool is_user = s->state == EDGE_STATE_READY;
    if (wanted == CQ_STATE_GUEST && is_user) {
        return -CQ_E_ALREADY_AUTHENTICATED;
    }
    return wanted == CQ_STATE_USER && !is_user ? -CQ_E_NOT_AUTHENTICATED : 0;
}

static const uint8_t scopes[EDGE_RATE_COUNT] = {
#define EDGE_RATE(name, key, scope, rate, burst, doc) [EDGE_RATE_##name] = EDGE_RATE_BY_##scope,
    EDGE_RATES(EDGE_RATE)
#undef EDGE_RATE
};

static uint64_t
user_key(const struct cq_id *user)
{
    uint64_t key;
    memcpy(&key, user->b, sizeof key); /* ids are random */
    return key;
}

static uint64_t
take(edge_t *e, enum edge_rate rate, uint64_t key)
{
    e->gate_mono_us = cq_now_mono_us();
    uint64_t retry_ms = edge_limiter_take(e->limiter, rate, key, e->gate_mono_us);
    e->metrics->rate_limited[rate] += retry_ms != 0;
    return retry_ms;
}

uint64_t
edge_ops_take(edge_t *e, const edge_session_t *s, enum edge_rate rate)
{
    uint64_t key = s->number;
    if (scopes[rate] == EDGE_RATE_BY_ADDRESS) {
        key = s->address;
    } else if (scopes[rate] == EDGE_RATE_BY_USER && s->state == EDGE_STATE_READY) {
        key = user_key(&s->user);
    }
    return take(e, rate, key);
}

uint64_t
edge_ops_take_for(edge_t *e, enum edge_rate rate, const struct cq_id *user, uint64_t address)
{
    bool is_by_user = scopes[rate] == EDGE_RATE_BY_USER && user;
    return take(e, rate, is_by_user ? user_key(user) : address);
}

/* All limits of an operation. Passwords of one account cannot be tried from many addresses. */
static uint64_t
take_all(edge_t *e, const edge_session_t *s, uint8_t op, const void *fields)
{
    uint64_t retry_ms = edge_ops_take(e, s, (enum edge_rate)ops[op].rate);
    if (!retry_ms && op == CQ_OP_LOGIN) {
        const struct cq_auth *m = fields;
        retry_ms = take(e, EDGE_RATE_LOGIN_NAME, cq_hash(m->name.p, m->name.n));
    }
    return retry_ms;
}

/* The gate: 0, or the error to answer with. */
static int
pass(edge_t *e, edge_session_t *s, const struct cq_frame_op *op, uint64_t *retry_ms)
{
    const struct cq_op *row = cq_op_find(op->code);
    if (!row || !edge_ops_is_served(op->code)) {
        return -CQ_E_UNKNOWN_OP;
    }
    _Alignas(16) uint8_t fields[EDGE_OPS_FIELDS_MAX];
    cq_reader_t r = op->fields;
    if (row->fields->struct_size > sizeof fields ||
        cq_schema_read(row->fields, &r, op->field_count, fields)) {
        return -CQ_E_BAD_ARG;
    }
    int rc = check_state(s, row->state);
    if (rc) {
        return rc;
    }
    const struct edge_op *mine = &ops[op->code];
    *retry_ms = take_all(e, s, op->code, fields);
    if (*retry_ms) {
        e->metrics->ops_rate_limited_total++;
        return -CQ_E_RATE_LIMITED;
    }
    struct edge_request rq = {.op = op->code, .cost = mine->cost, .rid = op->rid, .fields = fields};
    rc = pack_raw(e, op, &rq.raw);
    return rc ? rc : mine->fn(e, s, &rq);
}

static void
run_op(edge_t *e, edge_session_t *s, struct cq_frame_op *op)
{
    const struct cq_op *row = cq_op_find(op->code);
    if (row && row->is_push && !op->rid) {
        /* A push's code from a client: its first value is meant as the rid. */
        cq_reader_t r = op->fields;
        op->rid = op->field_count ? cq_read_uint(&r, UINT64_MAX) : 0;
    }
    e->metrics->ops_total++;
    e->metrics->op_calls[op->code]++;
    uint64_t retry_ms = 0;
    int rc = pass(e, s, op, &retry_ms);
    if (rc) {
        e->metrics->ops_refused_total++;
        edge_send_err(e, s, op->rid, rc, retry_ms, 0);
    }
}

/* Carries out operations until the session is blocked. Returns how many are left, or negative if
 * the next is none. */
static int
run_ops(edge_t *e, edge_session_t *s, cq_reader_t *r, size_t count)
{
    while (count && s->state != EDGE_STATE_CLOSING && !is_blocked(e, s)) {
        struct cq_frame_op op;
        cq_reader_t before = *r;
        if (cq_frame_next(r, &op)) {
            return -CQ_E_BAD_FRAME;
        }
        if (op.code == CQ_OP_RESUME && s->state == EDGE_STATE_CONNECTED &&
            !edge_arrive_ask(&e->arrivals, s)) {
            *r = before;
            break;
        }
        count--;
        run_op(e, s, &op);
    }
    return s->state == EDGE_STATE_CLOSING ? 0 : (int)count;
}

static void
set_paused(edge_t *e, edge_session_t *s, bool paused)
{
    if (s->is_paused == paused) {
        return;
    }
    s->is_paused = paused;
    e->metrics->sessions_paused += paused ? 1 : -1;
    if (!paused) {
        s->heard_mono_ms = cq_now_mono_ms(); /* not judged for what we did not read */
    }
    edge_ws_pause(s, paused);
}

static void
refuse(edge_t *e, edge_session_t *s, uint16_t code)
{
    e->metrics->protocol_errors_total++;
    CQ_LOG(DEBUG, "EDGE-SESSION-REFUSED", "session=%llu code=%u", (unsigned long long)s->number,
           code);
    edge_close(e, s, code);
}

/* How much of this session may be held now. */
static size_t
held_max(const edge_t *e, const edge_session_t *s)
{
    const size_t *pool = edge_session_input_pool(s);
    bool is_guest = pool == &s->memory->guest_input_bytes;
    size_t most = is_guest ? e->cfg->guest_input_max_bytes : e->cfg->input_total_max_bytes;
    return *pool > most ? EDGE_NET_PART_BYTES : HELD_MAX;
}

static void
hold(edge_t *e, edge_session_t *s, const cq_reader_t *r, size_t count)
{
    struct edge_input *in = edge_session_input(s);
    size_t n = (size_t)(r->end - r->p);
    if (in->held.size - in->held_start + n > held_max(e, s)) {
        refuse(e, s, EDGE_CLOSE_POLICY);
        return;
    }
    cq_buf_append(&in->held, r->p, n);
    in->held_count += count;
    edge_session_input_count(s);
    set_paused(e, s, true);
}

void
edge_ops_message(edge_t *e, edge_session_t *s, struct cq_view message)
{
    cq_reader_t r;
    int count = cq_frame_open(message.p, message.n, CQ_FRAME_OPS_MAX, &r);
    if (count < 0) {
        refuse(e, s, EDGE_CLOSE_PROTOCOL);
        return;
    }
    int left = count;
    if (!s->input || !s->input->held_count) {
        left = run_ops(e, s, &r, (size_t)count);
    }
    if (s->state == EDGE_STATE_CLOSING) {
        return;
    }
    bool has_more = left == 0 && r.p != r.end; /* bytes behind the array */
    if (left < 0 || has_more) {
        refuse(e, s, EDGE_CLOSE_PROTOCOL);
    } else if (left > 0) {
        hold(e, s, &r, (size_t)left);
    } else if (is_full(e, s)) {
        set_paused(e, s, true);
    }
}

void
edge_ops_stop(edge_t *e, edge_session_t *s)
{
    s->is_leaving = true;
    set_paused(e, s, true);
}

void
edge_ops_resume(edge_t *e, edge_session_t *s)
{
    if (s->is_leaving && !s->cost && s->state != EDGE_STATE_CLOSING) {
        edge_drain_goodbye(e, s);
    }
    if (s->state == EDGE_STATE_CLOSING || !s->is_paused || is_blocked(e, s)) {
        return;
    }
    struct edge_input *in = s->input;
    if (in && in->held_count) {
        cq_reader_t r = cq_reader(in->held.data + in->held_start, in->held.size - in->held_start);
        int left = run_ops(e, s, &r, in->held_count);
        if (left < 0) {
            refuse(e, s, EDGE_CLOSE_PROTOCOL);
            return;
        }
        if (s->state == EDGE_STATE_CLOSING) {
            return;
        }
        in->held_count = (size_t)left;
        in->held_start = (size_t)(r.p - in->held.data);
    }
    if (in && !in->held_count) {
        edge_session_input_drop(s);
    }
    if (!is_blocked(e, s)) {
        set_paused(e, s, false);
    }
}
