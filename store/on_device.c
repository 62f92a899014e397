/* SPDX-License-Identifier: MPL-2.0
 * Devices: list, revoke, log out; the list of revoked ones that edges load before they accept
 * anyone.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/token.h"

#include "store/core.h"

enum {
    REVOKED_MAX = 1000000
};

/* Revoked devices, in memory: asked with every call. A sorted array would do as well; a table keeps
 * both cheap. */
struct store_revoked {
    struct revoked_slot {
        struct cq_id user, device; /* none: free */
        uint64_t generation;
        bool lifted; /* logged in again: newer generations are fine */
    } * slots;
    size_t room; /* a power of two */
    size_t count;
};

static struct revoked_slot *
find_slot(const struct store_revoked *r, const struct cq_id *user, const struct cq_id *device)
{
    size_t i = (cq_id_hash(user) ^ cq_id_hash(device)) & (r->room - 1);
    while (!cq_id_is_none(&r->slots[i].user) &&
           !(cq_id_eq(&r->slots[i].user, user) && cq_id_eq(&r->slots[i].device, device))) {
        i = (i + 1) & (r->room - 1);
    }
    return &r->slots[i];
}

static void
grow_slots(struct store_revoked *r)
{
    struct store_revoked bigger = {.room = r->room ? 2 * r->room : 64};
    bigger.slots = cq_alloc(bigger.room * sizeof *bigger.slots);
    for (size_t i = 0; i < r->room; i++) {
        if (!cq_id_is_none(&r->slots[i].user)) {
            *find_slot(&bigger, &r->slots[i].user, &r->slots[i].device) = r->slots[i];
        }
    }
    free(r->slots);
    r->slots = bigger.slots;
    r->room = bigger.room;
}

static void
note(struct store_revoked *r,
     const struct cq_id *user,
     const struct cq_id *device,
     const struct store_device *row)
{
    if (2 * (r->count + 1) > r->room) {
        grow_slots(r);
    }
    struct revoked_slot *slot = find_slot(r, user, device);
    if (cq_id_is_none(&slot->user)) {
        r->count++;
    }
    /* A revoked row says up to which generation tokens are void; a lifted one has the next. */
    *slot = (struct revoked_slot){*user, *device, row->generation - !row->revoked, !row->revoked};
}

static bool
on_device_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct store_core *core = ctx;
    struct store_device row;
    if (store_device_read(value, &row) == 0 && (row.revoked || row.generation > 1)) {
        struct cq_id user;
        struct cq_id device = store_key_second(key);
        memcpy(user.b, key.p + 2, CQ_ID_SIZE);
        note(core->revoked, &user, &device, &row);
    }
    return core->revoked->count < REVOKED_MAX;
}

void
store_device_free(struct store_core *core)
{
    if (core->revoked) {
        free(core->revoked->slots);
        free(core->revoked);
        core->revoked = NULL;
    }
}

int
store_device_load(struct store_core *core)
{
    store_snapshot_t *s = NULL;
    store_device_free(core);
    core->revoked = cq_alloc(sizeof *core->revoked);
    grow_slots(core->revoked);
    int rc = store_core_snapshot(core, &s);
    if (!rc) {
        rc = store_snapshot_scan(s, STORE_TABLE_DEVICE, (struct cq_view){0}, (struct cq_view){0},
                                 on_device_row, core);
    }
    store_snapshot_close(&core->snapshot);
    return rc;
}

bool
store_device_is_revoked(const struct store_core *core,
                        const struct cq_id *user,
                        const struct cq_id *device)
{
    const struct store_revoked *r = core->revoked;
    if (r->count == 0) {
        return false;
    }
    const struct revoked_slot *slot = find_slot(r, user, device);
    return !cq_id_is_none(&slot->user) && !slot->lifted;
}

int
store_device_row(struct store_core *core,
                 const struct cq_id *user,
                 const struct cq_id *device,
                 struct store_device *out)
{
    struct store_key key = store_key_pair(user, device);
    struct cq_view row;
    int rc = store_core_row(core, STORE_TABLE_DEVICE, &key, &row);
    return rc ? rc : store_device_read(row, out);
}

int
store_device_check(struct store_core *core, const struct cq_id *user, const struct cq_id *device)
{
    struct store_key key = store_key_pair(user, device);
    struct cq_view row;
    int rc = store_core_row(core, STORE_TABLE_DEVICE, &key, &row);
    return rc == -CQ_E_NOT_FOUND ? -CQ_E_REVOKED : rc;
}

void
store_device_put(struct store_core *core,
                 const struct cq_id *user,
                 const struct cq_id *device,
                 const struct store_device *row)
{
    struct store_key key = store_key_pair(user, device);
    cq_buf_t b = {0};
    store_device_write(&b, row);
    store_core_put(core, STORE_TABLE_DEVICE, &key, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
    if (row->revoked || row->generation > 1) {
        note(core->revoked, user, device, row);
    }
}

int
store_device_make_room(struct store_core *core, struct store_chat *chat)
{
    const struct store_chat_device *oldest = NULL;
    struct store_device row;
    uint64_t pos = 0;
    if (chat->device_count < STORE_CHAT_DEVICES_MAX) {
        return 0;
    }
    for (size_t i = 0; i < chat->device_count; i++) {
        const struct store_chat_device *d = &chat->devices[i];
        if (store_device_is_revoked(core, &chat->members[d->member].user, &d->device) &&
            (!oldest || d->delivered < oldest->delivered)) {
            oldest = d;
        }
    }
    if (!oldest) {
        return -CQ_E_BAD_DEVICE;
    }
    struct cq_rec_forget forget = {chat->id, chat->members[oldest->member].user, oldest->device};
    int rc = store_core_writable(core);
    rc = rc ? rc : store_device_row(core, &forget.user, &forget.device, &row);
    rc = rc ? rc : store_core_append(core, chat, CQ_REC_FORGET, &forget, &pos);
    if (!rc && !row.retired) {
        row.retired = true;
        store_device_put(core, &forget.user, &forget.device, &row);
    }
    return rc;
}

/* ---- operations ---- */

struct listing {
    cq_buf_t rows;
    size_t count;
    int rc;
};

static bool
list_device(void *ctx, struct cq_view key, struct cq_view value)
{
    struct listing *l = ctx;
    struct store_device row;
    l->rc = store_device_read(value, &row);
    if (l->rc) {
        return false;
    }
    struct cq_device_row out = {
        .device = store_key_second(key),
        .label = {(const uint8_t *)row.label, strlen(row.label)},
        .created_unix_ms = row.created_unix_ms,
        .revoked = row.revoked,
    };
    cq_schema_write_array(&cq_device_row_schema, &l->rows, &out);
    return ++l->count < CQ_LIST_MAX;
}

int
store_on_devices(struct store_core *core, struct store_call *call, const void *in)
{
    struct listing l = {0};
    struct store_key prefix = store_key_of(&call->user);
    (void)in;
    int rc = store_core_scan(core, STORE_TABLE_DEVICE, &prefix, list_device, &l);
    rc = rc ? rc : l.rc;
    if (!rc) {
        struct cq_devices devices = {cq_list_of(&l.rows, l.count)};
        store_core_reply(core, call->from, &cq_devices_schema, &devices);
    }
    cq_buf_free(&l.rows);
    return rc;
}

/* Durable: now the edges are told. They also load the whole list whenever a store comes up, so a
 * lost event heals. */
static void
tell_edges(void *ctx, void *arg, int rc)
{
    struct store_core *core = ctx;
    struct cq_revoked_row *row = arg;
    if (rc == 0) {
        store_core_tell_edges(core, CQ_BUS_REVOKED, &cq_revoked_row_schema, row);
    }
    free(row);
}

static void
end_audits(struct store_core *core, const struct cq_id *user)
{
    int rc = store_audit_logged_out(core, user);
    if (rc) { /* the user's next SYNC does it */
        CQ_LOG(ERROR, "STORE-AUDIT-LOGOUT-FAIL", "err=%s", cq_err_name(rc));
    }
}

static int
revoke(struct store_core *core, struct store_call *call, const struct cq_id *device)
{
    struct store_device row;
    int rc = store_device_row(core, &call->user, device, &row);
    if (!rc) {
        rc = store_core_writable(core);
    }
    if (rc) {
        return rc;
    }
    if (!row.revoked) {
        struct cq_revoked_row *event = cq_alloc(sizeof *event);
        *event = (struct cq_revoked_row){call->user, *device, row.generation};
        row.revoked = true;
        store_device_put(core, &call->user, device, &row);
        store_core_after(core, tell_edges, event);
        end_audits(core, &call->user);
    }
    store_core_reply(core, call->from, &cq_empty_schema, "");
    return 0;
}

int
store_on_revoke(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_revoke *r = in;
    return revoke(core, call, &r->device);
}

int
store_on_logout(struct store_core *core, struct store_call *call, const void *in)
{
    (void)in;
    return revoke(core, call, &call->device);
}

void
store_on_edge_init(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    cq_buf_t rows = {0};
    size_t row_count = 0;
    (void)fields;
    (void)count;
    for (size_t i = 0; i < core->revoked->room; i++) {
        const struct revoked_slot *slot = &core->revoked->slots[i];
        if (!cq_id_is_none(&slot->user) && slot->generation) {
            struct cq_revoked_row row = {slot->user, slot->device, slot->generation};
            cq_schema_write_array(&cq_revoked_row_schema, &rows, &row);
            row_count++;
        }
    }
    struct cq_edge_init init = {
        .store_key = {store_vault_public_key(core->vault), 32},
        .epoch = core->epoch,
        .revoked = cq_list_of(&rows, row_count),
        .seal_key = {store_vault_seal_key(core->vault), CQ_TOKEN_SEAL_KEY_SIZE},
    };
    store_core_reply(core, from, &cq_edge_init_schema, &init);
    cq_buf_free(&rows);
}
