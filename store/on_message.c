/* SPDX-License-Identifier: MPL-2.0
 * SEND, ACK, TYPING.
 */
#include <string.h>

#include "store/core.h"
#include "store/record.h"

static bool
is_same_media(const struct cq_media *a, const struct cq_media *b)
{
    return cq_id_eq(&a->blob, &b->blob) && a->length == b->length &&
           a->thumbnail.n == b->thumbnail.n &&
           (a->thumbnail.n == 0 || memcmp(a->thumbnail.p, b->thumbnail.p, a->thumbnail.n) == 0);
}

/* A dseq that was taken before: the first answer again if the bytes are the same. The design's
 * "hash of the ciphertext" is the ciphertext itself here: the log has it, a retry is rare, and
 * equality needs no collision argument. */
static int
repeat_send(struct store_core *core,
            struct store_call *call,
            struct store_chat *chat,
            const struct cq_send *send,
            uint64_t seq)
{
    struct store_chat_index index;
    struct cq_view record;
    struct cq_rec_message first;
    int rc = store_projection_index(core->projection, chat, seq, &index);
    if (!rc) {
        rc = store_core_record(core, index.pos, &record);
    }
    if (!rc) {
        rc = store_record_message(record, &first);
    }
    if (rc) {
        return rc;
    }
    struct cq_media first_media;
    struct cq_media media;
    if (cq_media_read(first.media, &first_media) < 0) {
        return -CQ_E_CORRUPT;
    }
    rc = cq_media_read(send->media, &media);
    if (rc < 0) {
        return rc;
    }
    bool same = first.key_version == send->key_version && is_same_media(&first_media, &media) &&
                first.ciphertext.n == send->ciphertext.n &&
                memcmp(first.nonce.p, send->nonce.p, CQ_NONCE_SIZE) == 0 &&
                memcmp(first.ciphertext.p, send->ciphertext.p, send->ciphertext.n) == 0;
    if (!same) {
        return -CQ_E_DSEQ_CONFLICT;
    }
    struct cq_sent sent = {first.seq, first.time_unix_ms};
    store_core_reply(core, call->from, &cq_sent_schema, &sent);
    return 0;
}

/* A device that is new to the chat: is it the user's, and is there room for it? */
static int
admit_device(struct store_core *core, struct store_call *call, struct store_chat *chat)
{
    int rc = store_device_check(core, &call->user, &call->device);
    return rc ? rc : store_device_make_room(core, chat);
}

/* With this send the oldest of the kept answers goes. As long as that one is not durable it has not
 * been given, and whoever sends so far ahead would find it gone when he repeats. */
static bool
is_window_full(const struct store_core *core,
               const struct store_chat *chat,
               const struct cq_id *device)
{
    const struct store_chat_device *d = store_chat_device(chat, device);
    struct store_chat_index oldest;
    return d && d->answer_count == CQ_WINDOW &&
           store_chat_tail(chat, store_chat_answer(d, CQ_WINDOW - 1)->seq, &oldest) &&
           oldest.pos > core->durable_pos;
}

/* Counts the reference in the commit that will have the message, and writes the record's media part
 * (values of later versions behind the known ones are not kept). The blob's row is written through
 * with the commit, so a replay of the log has nothing to count. */
static int
refer(struct store_core *core,
      const struct store_call *call,
      const struct store_chat *chat,
      const struct cq_send *send,
      cq_buf_t *out)
{
    struct cq_media media;
    int rc = cq_media_read(send->media, &media);
    if (rc <= 0) {
        return rc;
    }
    rc = store_blob_may_refer(core, &call->user, &media.blob, media.length);
    rc = rc ? rc : store_blob_refer(core, chat, &media.blob);
    if (!rc) {
        cq_schema_write_array(&cq_media_schema, out, &media);
    }
    return rc;
}

static int
append_send(struct store_core *core,
            struct store_call *call,
            struct store_chat *chat,
            const struct cq_send *send,
            struct cq_view media)
{
    struct cq_rec_message m = {
        .chat = chat->id,
        .seq = chat->head + 1,
        .user = call->user,
        .device = call->device,
        .dseq = send->dseq,
        .time_unix_ms = cq_now_unix_ms(),
        .key_version = send->key_version,
        .nonce = send->nonce,
        .ciphertext = send->ciphertext,
        .media = media,
    };
    uint64_t pos = 0;
    int rc = store_core_append(core, chat, CQ_REC_MESSAGE, &m, &pos);
    if (rc) {
        return rc;
    }
    struct cq_sent sent = {m.seq, m.time_unix_ms};
    store_core_reply(core, call->from, &cq_sent_schema, &sent);
    return 0;
}

static int
accept_send(struct store_core *core,
            struct store_call *call,
            struct store_chat *chat,
            const struct cq_send *send)
{
    cq_buf_t media = {0};
    if (!chat->open) {
        return -CQ_E_CHAT_CLOSED;
    }
    if (send->key_version != chat->key_version) {
        return -CQ_E_KEY_VERSION;
    }
    if (is_window_full(core, chat, &call->device)) {
        return -CQ_E_WINDOW_FULL;
    }
    int rc = store_chat_device(chat, &call->device) ? 0 : admit_device(core, call, chat);
    rc = rc ? rc : store_core_writable(core);
    rc = rc ? rc : refer(core, call, chat, send, &media);
    rc = rc ? rc : append_send(core, call, chat, send, (struct cq_view){media.data, media.size});
    cq_buf_free(&media);
    return rc;
}

int
store_on_send(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_send *send = in;
    struct store_chat *chat = NULL;
    int member = 0;
    int rc = store_core_chat(core, &send->chat, &call->user, &chat, &member);
    if (rc) {
        return rc;
    }
    if (send->dseq == 0 || send->prev >= send->dseq) {
        return -CQ_E_BAD_ARG;
    }
    const struct store_chat_device *device = store_chat_device(chat, &call->device);
    uint64_t seq = 0;
    switch (store_chat_judge(chat, &call->device, send->dseq, send->prev, &seq)) {
    case STORE_CHAT_ACCEPT:
        return accept_send(core, call, chat, send);
    case STORE_CHAT_REPEAT:
        return repeat_send(core, call, chat, send, seq);
    case STORE_CHAT_CONFLICT:
        return -CQ_E_DSEQ_CONFLICT;
    case STORE_CHAT_OUT_OF_ORDER:
        break;
    }
    call->detail = device ? device->last_dseq : 0;
    return -CQ_E_OUT_OF_ORDER;
}

static int
append_delivered(struct store_core *core,
                 const struct store_call *call,
                 struct store_chat *chat,
                 uint64_t up_to)
{
    struct cq_rec_receipt r = {chat->id, call->user, call->device, up_to, cq_now_unix_ms()};
    uint64_t pos = 0;
    return store_core_append(core, chat, CQ_REC_RECEIPT, &r, &pos);
}

static int
append_read(struct store_core *core,
            const struct store_call *call,
            struct store_chat *chat,
            uint64_t up_to)
{
    struct cq_rec_read r = {chat->id, call->user, call->device, up_to, cq_now_unix_ms()};
    uint64_t pos = 0;
    return store_core_append(core, chat, CQ_REC_READ, &r, &pos);
}

/* One chat's cursors: a record for each that grows. READ says that the device holds as much, so
 * what arrives and is read at once is one record and one push. */
static int
ack_chat(struct store_core *core, struct store_call *call, const struct cq_ack_cursor *ack)
{
    struct store_chat *chat = NULL;
    int member = 0;
    int rc = store_core_chat(core, &ack->chat, &call->user, &chat, &member);
    if (rc) {
        return rc;
    }
    uint64_t delivered =
        ack->delivered > ack->read ? ack->delivered : ack->read; /* read implies delivered */
    if (delivered > chat->head) {
        return -CQ_E_ABOVE_HEAD;
    }
    const struct store_chat_device *device = store_chat_device(chat, &call->device);
    uint64_t held = device ? device->delivered : 0;
    if (!device) {
        rc = delivered ? admit_device(core, call, chat)
                       : store_device_check(core, &call->user, &call->device);
    }
    if (rc) {
        return rc;
    }
    if (ack->read > chat->members[member].read) {
        rc = append_read(core, call, chat, ack->read);
        held = held > ack->read ? held : ack->read;
    }
    if (!rc && delivered > held) {
        rc = append_delivered(core, call, chat, delivered);
    }
    return rc;
}

static int
set_cursors(struct store_core *core, struct store_call *call, const struct cq_ack *ack)
{
    cq_reader_t r = cq_list_reader(&ack->cursors);
    int rc = store_core_writable(core);
    int first_rc = rc;
    /* Every cursor stands for itself: one that cannot be set does not hold up the others. */
    for (size_t i = 0; i < ack->cursors.count && !rc; i++) {
        struct cq_ack_cursor cursor;
        rc = cq_schema_read_array(&cq_ack_cursor_schema, &r, &cursor);
        int chat_rc = rc ? rc : ack_chat(core, call, &cursor);
        first_rc = first_rc ? first_rc : chat_rc;
    }
    return first_rc;
}

int
store_on_ack(struct store_core *core, struct store_call *call, const void *in)
{
    bool hurries = core->building->hurries;
    int rc = set_cursors(core, call, in);
    if (!rc) {
        store_core_reply(core, call->from, &cq_empty_schema, "");
    }
    core->building->hurries = hurries; /* receipts do not: see core.c */
    return rc;
}

int
store_on_typing(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_typing *typing = in;
    struct store_chat *chat = NULL;
    int member = 0;
    int rc = store_core_chat(core, &typing->chat, &call->user, &chat, &member);
    if (rc) {
        return rc;
    }
    if (!chat->open) {
        return -CQ_E_CHAT_CLOSED;
    }
    struct cq_typing_note note = {chat->id, call->user, typing->on};
    cq_buf_t event = {0};
    cq_frame_push(&event, CQ_OP_TYPING_NOTE, &cq_typing_note_schema, &note);
    store_route_ephemeral(core->route, &chat->members[1 - member].user, 1,
                          (struct cq_view){event.data, event.size});
    cq_buf_free(&event);
    cq_bus_reply(core->bus, call->from, &cq_empty_schema, "");
    return 0;
}
