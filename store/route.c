/* SPDX-License-Identifier: MPL-2.0 */
#include "store/route.h"

#include <inttypes.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"
#include "common/wire/pack.h"

#include "store/core.h"
#include "store/record.h"

enum {
    WINDOW = 50000,           /* positions given to presence and not confirmed */
    CATCH_UP_PER_TURN = 1000, /* records read from the log per turn */
    SILENCE_MAX_MS = 5000,    /* no confirmation for so long although some are owed: start again */
};

struct store_route {
    struct store_core *core;
    bool up;
    uint64_t stream;
    uint64_t sent_pos;      /* given to presence up to here */
    uint64_t owed_pos;      /* last position of this stream that had an event */
    uint64_t confirmed_pos; /* routed-up-to */
    uint64_t progress_mono_ms;
    cq_buf_t users, event; /* scratch */
};

store_route_t *
store_route_new(struct store_core *core, uint64_t routed_pos)
{
    store_route_t *r = cq_alloc(sizeof *r);
    r->core = core;
    r->sent_pos = r->confirmed_pos = routed_pos;
    return r;
}

void
store_route_destroy(store_route_t **route)
{
    store_route_t *r = *route;
    cq_buf_free(&r->users);
    cq_buf_free(&r->event);
    free(r);
    *route = NULL;
}

uint64_t
store_route_confirmed_pos(const store_route_t *r)
{
    return r->confirmed_pos;
}

static void
begin_stream(store_route_t *r)
{
    r->stream = cq_random_u64();
    r->sent_pos = r->confirmed_pos;
    r->owed_pos = 0;
    r->progress_mono_ms = cq_now_mono_ms();
    struct cq_route_begin begin = {r->stream, r->confirmed_pos};
    cq_bus_event(r->core->bus, "presence", CQ_BUS_ROUTE_BEGIN, &cq_route_begin_schema, &begin);
    CQ_LOG(INFO, "STORE-ROUTE-BEGIN", "pos=%" PRIu64 " durable=%" PRIu64, r->confirmed_pos,
           r->core->durable_pos);
}

void
store_route_peer(store_route_t *r, bool up)
{
    r->up = up;
    if (up) {
        begin_stream(r);
    }
}

static void
emit(store_route_t *r, uint64_t pos, const struct cq_id *except, bool rewatch, size_t user_count)
{
    struct cq_route route = {
        .pos = pos,
        .except = *except,
        .rewatch = rewatch,
        .users = cq_list_of(&r->users, user_count),
        .event = {r->event.data, r->event.size},
    };
    cq_bus_event(r->core->bus, "presence", CQ_BUS_ROUTE, &cq_route_schema, &route);
    if (pos) {
        r->owed_pos = pos;
    }
}

static void
set_users(store_route_t *r, const struct cq_id *users, size_t count)
{
    cq_buf_clear(&r->users);
    for (size_t i = 0; i < count; i++) {
        cq_pack_bin(&r->users, users[i].b, CQ_ID_SIZE);
    }
}

void
store_route_ephemeral(store_route_t *r,
                      const struct cq_id *users,
                      size_t count,
                      struct cq_view event)
{
    static const struct cq_id none;
    if (!r->up) {
        return;
    }
    set_users(r, users, count);
    cq_buf_clear(&r->event);
    cq_buf_append(&r->event, event.p, event.n);
    emit(r, 0, &none, false, count);
}

static int
set_members(store_route_t *r, const struct cq_id *chat_id)
{
    struct store_chat *chat = NULL;
    int rc = store_projection_chat(r->core->projection, chat_id, &chat);
    if (!rc) {
        struct cq_id users[STORE_CHAT_MEMBERS] = {chat->members[0].user, chat->members[1].user};
        set_users(r, users, STORE_CHAT_MEMBERS);
    }
    return rc;
}

static int
route_message(store_route_t *r, uint64_t pos, const void *fields)
{
    const struct cq_rec_message *m = fields;
    int rc = set_members(r, &m->chat);
    if (!rc) {
        cq_frame_push(&r->event, CQ_OP_MESSAGE, &cq_rec_message_schema, m);
        emit(r, pos, &m->device, false, STORE_CHAT_MEMBERS);
    }
    return rc;
}

static int
route_receipt(store_route_t *r, uint64_t pos, const void *fields)
{
    const struct cq_rec_receipt *receipt = fields;
    struct cq_receipt push = {receipt->chat,  receipt->user,         receipt->device,
                              receipt->up_to, receipt->time_unix_ms, pos};
    int rc = set_members(r, &receipt->chat);
    if (!rc) {
        cq_frame_push(&r->event, CQ_OP_RECEIPT, &cq_receipt_schema, &push);
        emit(r, pos, &receipt->device, false, STORE_CHAT_MEMBERS);
    }
    return rc;
}

/* The device that caused it knows from its answer. */
static int
route_read(store_route_t *r, uint64_t pos, const void *fields)
{
    const struct cq_rec_read *read = fields;
    struct cq_receipt push = {
        .chat = read->chat,
        .user = read->user,
        .up_to = read->up_to,
        .time_unix_ms = read->time_unix_ms,
        .version = pos,
    };
    int rc = set_members(r, &read->chat);
    if (!rc) {
        cq_frame_push(&r->event, CQ_OP_RECEIPT, &cq_receipt_schema, &push);
        emit(r, pos, &read->device, false, STORE_CHAT_MEMBERS);
    }
    return rc;
}

/* Both see their own row. Someone who is blocked learns nothing but that the chat is closed. */
static int
route_friend(store_route_t *r, uint64_t pos, const void *fields)
{
    static const struct cq_id none;
    const struct cq_rec_friend *f = fields;
    bool open = f->user_relation == CQ_RELATION_FRIENDS &&
                f->peer_relation == CQ_RELATION_FRIENDS && !f->user_blocks && !f->peer_blocks;
    struct cq_friend own = {f->peer, f->peer_name, f->user_relation, f->user_blocks, f->chat, open};
    cq_frame_push(&r->event, CQ_OP_FRIEND, &cq_friend_schema, &own);
    set_users(r, &f->user, 1);
    emit(r, pos, &f->device, true, 1); /* that device knows from its answer */
    bool is_block = f->action == CQ_OP_BLOCK || f->action == CQ_OP_UNBLOCK;
    if (!cq_id_is_none(&f->chat) || (!f->peer_blocks && !is_block)) {
        struct cq_friend other = {f->user,        f->user_name, f->peer_relation,
                                  f->peer_blocks, f->chat,      open};
        cq_buf_clear(&r->event);
        cq_frame_push(&r->event, CQ_OP_FRIEND, &cq_friend_schema, &other);
        set_users(r, &f->peer, 1);
        emit(r, pos, &none, true, 1);
    }
    return 0;
}

/* The user's other devices learn it, and presence asks for the new settings. */
static int
route_privacy(store_route_t *r, uint64_t pos, const void *fields)
{
    static const struct cq_id none;
    const struct cq_rec_privacy *p = fields;
    const struct cq_privacy push = {p->hide_last_seen};
    cq_frame_push(&r->event, CQ_OP_PRIVACY_NOTE, &cq_privacy_schema, &push);
    set_users(r, &p->user, 1);
    emit(r, pos, &none, true, 1);
    return 0;
}

static int
route_nothing(store_route_t *r, uint64_t pos, const void *fields)
{
    (void)r;
    (void)pos;
    (void)fields;
    return 0;
}

static int (*const routers[])(store_route_t *, uint64_t, const void *) = {
    [CQ_REC_MESSAGE] = route_message, [CQ_REC_RECEIPT] = route_receipt,
    [CQ_REC_FRIEND] = route_friend,   [CQ_REC_COMMIT] = route_nothing,
    [CQ_REC_READ] = route_read,       [CQ_REC_PRIVACY] = route_privacy,
    [CQ_REC_KNOWN] = route_nothing,   [CQ_REC_FORGET] = route_nothing,
};

static void
route_record(store_route_t *r, uint64_t pos, struct cq_view record)
{
    union store_record fields;
    enum cq_rec_kind kind;
    int rc = store_record_read(record, &kind, &fields);
    if (!rc) {
        cq_buf_clear(&r->event);
        rc = routers[kind](r, pos, &fields);
    }
    if (rc) {
        CQ_LOG(ERROR, "STORE-ROUTE-FAIL", "pos=%" PRIu64 " err=%s", pos, cq_err_name(rc));
    }
    r->sent_pos = pos;
}

static bool
has_window(const store_route_t *r)
{
    return r->up && r->sent_pos - r->confirmed_pos < WINDOW;
}

/* Positions without an event (COMMIT, KNOWN, FORGET) owe no confirmation. */
static void
settle(store_route_t *r)
{
    if (r->confirmed_pos >= r->owed_pos) {
        r->confirmed_pos = r->sent_pos;
    }
}

void
store_route_committed(store_route_t *r, const struct store_batch *b)
{
    if (!has_window(r) || r->sent_pos + 1 != b->first_pos) {
        return; /* store_route_turn reads them from the log in time */
    }
    if (r->owed_pos <= r->confirmed_pos) {
        r->progress_mono_ms = cq_now_mono_ms();
    }
    for (size_t i = 0; i < b->record_count; i++) {
        route_record(r, b->first_pos + i, store_batch_record(b, b->first_pos + i));
    }
    settle(r);
}

struct catch_up {
    store_route_t *route;
    unsigned left;
};

static bool
on_log_record(void *ctx, uint64_t pos, struct cq_view record)
{
    struct catch_up *c = ctx;
    route_record(c->route, pos, record);
    return --c->left && has_window(c->route) && pos < c->route->core->durable_pos;
}

void
store_route_turn(store_route_t *r)
{
    store_snapshot_t *s = NULL;
    struct catch_up c = {r, CATCH_UP_PER_TURN};
    if (!has_window(r) || r->sent_pos >= r->core->durable_pos) {
        return;
    }
    int rc = store_core_snapshot(r->core, &s);
    if (!rc) {
        rc = store_snapshot_log(s, r->sent_pos + 1, on_log_record, &c);
    }
    if (rc) {
        CQ_LOG(ERROR, "STORE-ROUTE-READ", "pos=%" PRIu64 " err=%s", r->sent_pos + 1,
               cq_err_name(rc));
    }
    settle(r);
}

void
store_route_confirmed(store_route_t *r, uint64_t stream, uint64_t pos)
{
    if (stream != r->stream || pos <= r->confirmed_pos || pos > r->sent_pos) {
        return; /* an older stream, or nothing new */
    }
    r->confirmed_pos = pos;
    r->progress_mono_ms = cq_now_mono_ms();
    settle(r);
}

void
store_route_tick(store_route_t *r)
{
    bool owes = r->owed_pos > r->confirmed_pos;
    if (r->up && owes && cq_now_mono_ms() - r->progress_mono_ms > SILENCE_MAX_MS) {
        CQ_LOG(WARN, "STORE-ROUTE-SILENT", "confirmed=%" PRIu64 " owed=%" PRIu64, r->confirmed_pos,
               r->owed_pos);
        begin_stream(r);
    }
}

void
store_route_reset(store_route_t *r, uint64_t durable)
{
    r->confirmed_pos = r->confirmed_pos < durable ? r->confirmed_pos : durable;
    if (r->up) {
        begin_stream(r);
    } else {
        r->sent_pos = r->confirmed_pos;
    }
}
