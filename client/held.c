/* SPDX-License-Identifier: MPL-2.0
 * What the device holds: answered from the disk. Rows are read under the lock and given without it.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "client/client_parts.h"

static int
describe_chat(cq_client_t *c,
              const struct cq_chat *chat,
              cq_client_chat_t *out,
              struct cq_stored **last,
              struct cq_shown_medium *medium)
{
    struct cq_range range = {.from = 1, .to = INT64_MAX, .limit = 1, .last = true};
    *out = (cq_client_chat_t){
        .peer = chat->peer_name,
        .open = chat->open,
        .head = chat->head,
        .held = chat->held,
        .my_read = chat->my_read,
        .last_text = "",
    };
    int rc = cq_db_message_unread(c->db, chat, &c->user_id, &out->unread);
    rc = rc ? rc
            : cq_db_cursor_get(c->db, &chat->chat, &chat->peer, &out->peer_delivered,
                               &out->peer_read);
    rc = rc ? rc : cq_db_out_waiting(c->db, &chat->chat, &out->waiting);
    int count = rc ? rc : cq_db_message_range(c->db, &chat->chat, &range, last);
    if (count == 1) {
        out->last_seq = (*last)->seq;
        out->last_time_unix_ms = (*last)->time_unix_ms;
        out->last_own = cq_id_eq(&(*last)->user, &c->user_id);
        out->last_unreadable = (*last)->unreadable;
        out->last_text = (*last)->text;
        out->last_media = cq_client_show_medium(medium, (*last)->medium, (*last)->medium_size);
    }
    return count;
}

struct described {
    cq_client_chat_t chat;
    struct cq_stored *last;
    int last_count;
    struct cq_shown_medium medium;
};

static int
newer_first(const void *a, const void *b)
{
    uint64_t x = ((const struct described *)a)->chat.last_time_unix_ms;
    uint64_t y = ((const struct described *)b)->chat.last_time_unix_ms;
    return x < y   ? 1
           : x > y ? -1
                   : strcmp(((const struct described *)a)->chat.peer,
                            ((const struct described *)b)->chat.peer);
}

int
cq_client_chats(cq_client_t *c, cq_client_chat_fn *fn, void *ctx)
{
    struct cq_chat *chats = NULL;
    pthread_mutex_lock(&c->lock);
    int count = cq_db_chat_all(c->db, &chats);
    struct described *rows = count > 0 ? cq_alloc((size_t)count * sizeof *rows) : NULL;
    int rc = count < 0 ? count : 0;
    for (int i = 0; rc >= 0 && i < count; i++) {
        rc = describe_chat(c, &chats[i], &rows[i].chat, &rows[i].last, &rows[i].medium);
        rows[i].last_count = rc > 0 ? rc : 0;
    }
    pthread_mutex_unlock(&c->lock);
    if (rc >= 0 && count > 0) {
        qsort(rows, (size_t)count, sizeof *rows, newer_first);
    }
    for (int i = 0; i < count; i++) {
        if (rc >= 0) {
            fn(ctx, &rows[i].chat);
        }
        cq_db_message_free(rows[i].last, rows[i].last_count);
    }
    free(rows);
    free(chats);
    return rc < 0 ? rc : count;
}

static void
give_row(cq_client_t *c,
         const struct cq_chat *chat,
         const struct cq_stored *m,
         cq_client_message_fn *fn,
         void *ctx)
{
    uint64_t delivered = 0;
    uint64_t read = 0;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_cursor_get(c->db, &chat->chat, &chat->peer, &delivered, &read);
    pthread_mutex_unlock(&c->lock);
    bool own = cq_id_eq(&m->user, &c->user_id);
    struct cq_shown_medium medium;
    cq_client_message_t row = {
        .peer = chat->peer_name,
        .from = own ? c->user : chat->peer_name,
        .seq = m->seq,
        .time_unix_ms = m->time_unix_ms,
        .text = m->text,
        .text_size = m->text_size,
        .own = own,
        .unreadable = m->unreadable,
        .not_on_server = m->lost,
        .delivered = !rc && own && !m->lost && m->seq <= delivered,
        .read = !m->lost && (own ? !rc && m->seq <= read : m->seq <= chat->my_read),
        .media = cq_client_show_medium(&medium, m->medium, m->medium_size),
    };
    fn(ctx, &row);
}

int
cq_client_history(cq_client_t *c,
                  const char *peer,
                  uint64_t before,
                  uint32_t limit,
                  cq_client_message_fn *fn,
                  void *ctx)
{
    struct cq_chat chat;
    struct cq_stored *rows = NULL;
    struct cq_range range = {.from = 1,
                             .to = before ? before - 1 : INT64_MAX,
                             .limit = limit,
                             .last = true,
                             .with_lost = true};
    pthread_mutex_lock(&c->lock);
    int count = cq_db_chat_by_name(c->db, peer, &chat);
    if (!count) {
        count = cq_db_message_range(c->db, &chat.chat, &range, &rows);
    }
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < count; i++) {
        give_row(c, &chat, &rows[i], fn, ctx);
    }
    cq_db_message_free(rows, count > 0 ? count : 0);
    return count;
}

int
cq_client_message(cq_client_t *c,
                  const char *peer,
                  uint64_t seq,
                  cq_client_message_fn *fn,
                  void *ctx)
{
    struct cq_chat chat;
    struct cq_stored *row = NULL;
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_chat_by_name(c->db, peer, &chat);
    rc = rc ? rc : cq_db_message_get(c->db, &chat.chat, seq, &row);
    pthread_mutex_unlock(&c->lock);
    if (!rc) {
        give_row(c, &chat, row, fn, ctx);
        cq_db_message_free(row, 1);
    }
    return rc;
}

int
cq_client_search(cq_client_t *c,
                 const char *text,
                 const char *peer,
                 uint32_t limit,
                 cq_client_message_fn *fn,
                 void *ctx)
{
    struct cq_chat chat;
    struct cq_stored *rows = NULL;
    pthread_mutex_lock(&c->lock);
    int count = peer ? cq_db_chat_by_name(c->db, peer, &chat) : 0;
    if (!count) {
        count = cq_db_message_search(c->db, text, peer ? &chat.chat : NULL, limit, &rows);
    }
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; rows && i < count; i++) {
        pthread_mutex_lock(&c->lock);
        int rc = cq_db_chat_get(c->db, &rows[i].chat, &chat);
        pthread_mutex_unlock(&c->lock);
        if (!rc) {
            give_row(c, &chat, &rows[i], fn, ctx);
        }
    }
    cq_db_message_free(rows, count > 0 ? count : 0);
    return count;
}

int
cq_client_outbox(cq_client_t *c, cq_client_waiting_fn *fn, void *ctx)
{
    struct cq_out *rows = NULL;
    pthread_mutex_lock(&c->lock);
    int count = cq_db_out_list(c->db, NULL, &rows);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < count; i++) {
        struct cq_chat chat;
        struct cq_shown_medium medium;
        pthread_mutex_lock(&c->lock);
        int rc = cq_db_chat_get(c->db, &rows[i].chat, &chat);
        pthread_mutex_unlock(&c->lock);
        cq_client_waiting_t row = {
            .message = rows[i].id,
            .peer = rc ? "" : chat.peer_name,
            .text = rows[i].text,
            .text_size = rows[i].text_size,
            .time_unix_ms = rows[i].created_unix_ms,
            .error = rows[i].state == CQ_OUT_FAILED ? rows[i].error : 0,
            .media = cq_client_show_medium(&medium, rows[i].descriptor, rows[i].descriptor_size),
        };
        fn(ctx, &row);
    }
    cq_db_out_free(rows, count > 0 ? count : 0);
    return count;
}

int
cq_client_outbox_clear(cq_client_t *c)
{
    pthread_mutex_lock(&c->lock);
    int rc = cq_db_out_clear_failed(c->db);
    pthread_mutex_unlock(&c->lock);
    return rc;
}
