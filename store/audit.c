/* SPDX-License-Identifier: MPL-2.0
 * Read_Audit: a row says that the peer has read, and that not all of the sender's devices know it.
 *
 * What a device knows it says with SYNC: all that the log had up to the version it names. That is
 * kept in the device's row, but only where it matters: while a row waits for another device. When
 * the last one knows, or is logged out, a KNOWN record ends the row, so that it is gone for good,
 * after a crash as well. A row that is made while the user has no device waits for his next one.
 */
#include <stdlib.h>

#include "common/rt/check.h"

#include "store/core.h"

static bool
on_device(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_audit *a = ctx;
    struct store_device row;
    struct cq_id id = store_key_second(key);
    a->rc = store_device_read(value, &row);
    if (a->rc) {
        return false;
    }
    if (row.revoked) {
        return true;
    }
    if (cq_id_eq(&id, &a->device)) {
        a->row = row;
        a->has_device = true;
        a->knows_pos = row.known_pos > a->knows_pos ? row.known_pos : a->knows_pos;
        row.known_pos = a->knows_pos;
    }
    a->all_know_pos = row.known_pos < a->all_know_pos ? row.known_pos : a->all_know_pos;
    return true;
}

int
store_audit_begin(struct store_core *core,
                  const struct cq_id *user,
                  const struct cq_id *device,
                  uint64_t version,
                  struct store_audit *a)
{
    struct store_key prefix = store_key_of(user);
    *a = (struct store_audit){
        .user = *user, .device = *device, .knows_pos = version, .all_know_pos = core->last_pos};
    int rc = store_core_scan(core, STORE_TABLE_DEVICE, &prefix, on_device, a);
    rc = rc ? rc : a->rc;
    return !rc && !cq_id_is_none(device) && !a->has_device ? -CQ_E_REVOKED : rc;
}

void
store_audit_look(struct store_audit *a, const struct store_chat *chat, int member)
{
    const struct store_chat_member *m = &chat->members[member];
    if (!m->read_audit) {
        return;
    }
    if (m->read_audit_pos > a->all_know_pos) {
        a->is_news = a->is_news || (a->has_device && m->read_audit_pos > a->row.known_pos &&
                                    m->read_audit_pos <= a->knows_pos);
        return;
    }
    if (a->count == a->room) {
        a->room = a->room ? 2 * a->room : 16;
        a->chats = realloc(a->chats, a->room * sizeof *a->chats);
        CQ_ASSERT(a->chats);
    }
    a->chats[a->count++] = chat->id;
}

int
store_audit_end(struct store_core *core, struct store_audit *a)
{
    int rc = 0;
    bool is_writable = (a->count || a->is_news) && store_core_writable(core) == 0;
    for (size_t i = 0; is_writable && !rc && i < a->count; i++) {
        struct store_chat *chat = NULL;
        int member = 0;
        uint64_t pos = 0;
        struct cq_rec_known known = {a->chats[i], a->user, a->all_know_pos};
        rc = store_core_chat(core, &a->chats[i], &a->user, &chat, &member);
        rc = rc ? rc : store_core_append(core, chat, CQ_REC_KNOWN, &known, &pos);
    }
    if (is_writable && a->is_news && !rc) {
        a->row.known_pos = a->knows_pos;
        store_device_put(core, &a->user, &a->device, &a->row);
    }
    free(a->chats);
    a->chats = NULL;
    return rc;
}

struct logged_out {
    struct store_core *core;
    struct store_audit audit;
    int rc;
};

static bool
on_friend(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct logged_out *l = ctx;
    struct store_chat *chat = NULL;
    int member = 0;
    (void)peer;
    if (cq_id_is_none(&row->chat)) {
        return true;
    }
    l->rc = store_core_chat(l->core, &row->chat, &l->audit.user, &chat, &member);
    if (!l->rc) {
        store_audit_look(&l->audit, chat, member);
    }
    return l->rc == 0;
}

int
store_audit_logged_out(struct store_core *core, const struct cq_id *user)
{
    static const struct cq_id none;
    struct logged_out l = {.core = core};
    int rc = store_audit_begin(core, user, &none, 0, &l.audit);
    if (!rc) {
        rc = store_friend_each(core, user, on_friend, &l);
        rc = rc ? rc : l.rc;
    }
    int end_rc = store_audit_end(core, &l.audit);
    return rc ? rc : end_rc;
}
