/* SPDX-License-Identifier: MPL-2.0
 * SYNC, CHATS, KEYS: what a device needs to know after it was away. No message is scanned: every
 * answer is made of chat rows.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/core.h"
#include "store/record.h"

enum {
    SYNC_CHATS_MAX = 1000,
    ANSWER_BYTES_MAX = 512 * 1024, /* leaves room under CQ_PUSH_FRAME_MAX */
};

/* ---- SYNC ---- */

struct changed {
    struct cq_id chat;
    uint64_t changed_pos;
    char peer_name[CQ_NAME_MAX + 1];
};

struct sync {
    struct store_core *core;
    struct store_call *call;
    uint64_t version; /* of the device */
    struct store_audit audit;
    struct changed *chats;
    size_t count, room;
    int rc;
};

static bool
collect_changed(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct sync *s = ctx;
    struct store_chat *chat = NULL;
    int member = 0;
    (void)peer;
    if (cq_id_is_none(&row->chat)) {
        return true;
    }
    s->rc = store_core_chat(s->core, &row->chat, &s->call->user, &chat, &member);
    if (s->rc) {
        return false;
    }
    store_audit_look(&s->audit, chat, member);
    if (chat->changed_pos <= s->version) {
        return true;
    }
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 16;
        s->chats = realloc(s->chats, s->room * sizeof *s->chats);
        CQ_ASSERT(s->chats);
    }
    struct changed *c = &s->chats[s->count++];
    *c = (struct changed){.chat = chat->id, .changed_pos = chat->changed_pos};
    memcpy(c->peer_name, row->peer_name, sizeof c->peer_name);
    return true;
}

static int
compare_changed(const void *left, const void *right)
{
    const struct changed *a = left;
    const struct changed *b = right;
    return (a->changed_pos > b->changed_pos) - (a->changed_pos < b->changed_pos);
}

static void
add_cursor(cq_buf_t *b, size_t *count, const struct cq_cursor *cursor)
{
    if (cursor->up_to) {
        cq_schema_write_array(&cq_cursor_schema, b, cursor);
        (*count)++;
    }
}

/* All of the chat's cursors: delivered per device, read per user. */
static size_t
write_cursors(cq_buf_t *b, const struct store_chat *chat)
{
    size_t count = 0;
    for (size_t i = 0; i < chat->device_count; i++) {
        const struct store_chat_device *d = &chat->devices[i];
        struct cq_cursor c = {chat->members[d->member].user, d->device, d->delivered,
                              d->delivered_time_unix_ms};
        add_cursor(b, &count, &c);
    }
    for (int m = 0; m < STORE_CHAT_MEMBERS; m++) {
        const struct store_chat_member *member = &chat->members[m];
        struct cq_cursor c = {
            .user = member->user, .up_to = member->read, .time_unix_ms = member->read_time_unix_ms};
        add_cursor(b, &count, &c);
    }
    return count;
}

static void
write_sync_chat(struct sync *s, cq_buf_t *out, const struct changed *changed)
{
    struct store_chat *chat = NULL;
    int member = 0;
    s->rc = store_core_chat(s->core, &changed->chat, &s->call->user, &chat, &member);
    if (s->rc) {
        return;
    }
    const struct store_chat_member *m = &chat->members[member];
    const struct store_chat_device *d = store_chat_device(chat, &s->call->device);
    cq_buf_t cursors = {0};
    size_t cursor_count = write_cursors(&cursors, chat);
    struct cq_sync_chat row = {
        .chat = chat->id,
        .peer = chat->members[1 - member].user,
        .peer_name = {(const uint8_t *)changed->peer_name, strlen(changed->peer_name)},
        .open = chat->open,
        .key_version = chat->key_version,
        .head = chat->head,
        .unread = m->unread_count,
        .first_unread = m->unread_count ? m->first_unread : 0,
        .read = m->read,
        .delivered = d ? d->delivered : 0,
        .last_dseq = d ? d->last_dseq : 0,
        .cursors = cq_list_of(&cursors, cursor_count),
    };
    cq_schema_write_array(&cq_sync_chat_schema, out, &row);
    cq_buf_free(&cursors);
}

/* The chats in the order they changed, as many as fit; the version says how far that is. */
static void
answer_sync(struct sync *s, bool reset)
{
    cq_buf_t rows = {0};
    size_t i = 0;
    if (s->count) {
        qsort(s->chats, s->count, sizeof *s->chats, compare_changed);
    }
    while (!s->rc && i < s->count && i < SYNC_CHATS_MAX && rows.size < ANSWER_BYTES_MAX) {
        write_sync_chat(s, &rows, &s->chats[i++]);
    }
    struct cq_synced synced = {
        .epoch = s->core->epoch,
        .version = i < s->count ? s->chats[i - 1].changed_pos : s->core->last_pos,
        .reset = reset,
        .more = i < s->count,
        .chats = cq_list_of(&rows, i),
    };
    if (!s->rc) {
        store_core_reply(s->core, s->call->from, &cq_synced_schema, &synced);
    }
    cq_buf_free(&rows);
}

int
store_on_sync(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_sync *sync = in;
    bool same_epoch = cq_id_eq(&sync->epoch, &core->epoch);
    bool reset = !same_epoch && !cq_id_is_none(&sync->epoch);
    uint64_t version = same_epoch && sync->version <= core->last_pos ? sync->version : 0;
    struct sync s = {.core = core, .call = call, .version = version};
    int rc = store_audit_begin(core, &call->user, &call->device, version, &s.audit);
    if (rc) {
        return rc;
    }
    rc = store_friend_each(core, &call->user, collect_changed, &s);
    s.rc = s.rc ? s.rc : rc;
    if (!s.rc) {
        answer_sync(&s, reset); /* first: it need not wait for the audits */
    }
    rc = store_audit_end(core, &s.audit);
    if (rc) {
        CQ_LOG(ERROR, "STORE-AUDIT-FAIL", "err=%s", cq_err_name(rc));
    }
    free(s.chats);
    return s.rc;
}

/* ---- CHATS ---- */

struct chat_list {
    struct store_core *core;
    struct store_call *call;
    struct cq_id after;
    struct changed *chats; /* ascending by chat id */
    size_t count, room;
};

static bool
collect_chat(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct chat_list *l = ctx;
    (void)peer;
    if (cq_id_is_none(&row->chat) || cq_id_cmp(&row->chat, &l->after) <= 0) {
        return true;
    }
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 16;
        l->chats = realloc(l->chats, l->room * sizeof *l->chats);
        CQ_ASSERT(l->chats);
    }
    struct changed *c = &l->chats[l->count++];
    *c = (struct changed){.chat = row->chat};
    memcpy(c->peer_name, row->peer_name, sizeof c->peer_name);
    return true;
}

static int
compare_chats(const void *left, const void *right)
{
    return cq_id_cmp(&((const struct changed *)left)->chat, &((const struct changed *)right)->chat);
}

/* The last message as an array of its fields; empty if there is none. */
static int
write_last(struct store_core *core, struct store_chat *chat, cq_buf_t *out)
{
    struct store_chat_index index;
    struct cq_view record;
    struct cq_rec_message m;
    if (chat->head == 0) {
        return 0;
    }
    int rc = store_projection_index(core->projection, chat, chat->head, &index);
    if (!rc) {
        rc = store_core_record(core, index.pos, &record);
    }
    if (!rc) {
        rc = store_record_message(record, &m);
    }
    if (!rc) {
        cq_schema_write_array(&cq_message_schema, out, &m);
    }
    return rc;
}

/* How far the peer's devices have it: the one that has most. */
static uint64_t
peer_delivered(const struct store_chat *chat, int member)
{
    uint64_t delivered = chat->members[1 - member].read;
    for (size_t i = 0; i < chat->device_count; i++) {
        if (chat->devices[i].member != member && chat->devices[i].delivered > delivered) {
            delivered = chat->devices[i].delivered;
        }
    }
    return delivered;
}

static int
write_chat_row(struct chat_list *l, const struct changed *entry, cq_buf_t *out)
{
    struct store_chat *chat = NULL;
    int member = 0;
    cq_buf_t last = {0};
    int rc = store_core_chat(l->core, &entry->chat, &l->call->user, &chat, &member);
    if (!rc) {
        rc = write_last(l->core, chat, &last);
    }
    if (!rc) {
        const struct store_chat_member *m = &chat->members[member];
        struct cq_chat_row row = {
            .chat = chat->id,
            .peer = chat->members[1 - member].user,
            .peer_name = {(const uint8_t *)entry->peer_name, strlen(entry->peer_name)},
            .open = chat->open,
            .head = chat->head,
            .unread = m->unread_count,
            .first_unread = m->unread_count ? m->first_unread : 0,
            .peer_delivered = peer_delivered(chat, member),
            .peer_read = chat->members[1 - member].read,
            .last = {last.data, last.size},
        };
        cq_schema_write_array(&cq_chat_row_schema, out, &row);
    }
    cq_buf_free(&last);
    return rc;
}

int
store_on_chats(struct store_core *core, struct store_call *call, const void *in)
{
    struct chat_list l = {
        .core = core, .call = call, .after = ((const struct cq_chats *)in)->after};
    cq_buf_t rows = {0};
    size_t i = 0;
    int rc = store_friend_each(core, &call->user, collect_chat, &l);
    if (l.count) {
        qsort(l.chats, l.count, sizeof *l.chats, compare_chats);
    }
    while (!rc && i < l.count && i < CQ_LIST_MAX && rows.size < ANSWER_BYTES_MAX) {
        rc = write_chat_row(&l, &l.chats[i++], &rows);
    }
    if (!rc) {
        struct cq_chat_list list = {i < l.count, cq_list_of(&rows, i)};
        store_core_reply(core, call->from, &cq_chat_list_schema, &list);
    }
    cq_buf_free(&rows);
    free(l.chats);
    return rc;
}
