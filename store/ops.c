/* SPDX-License-Identifier: MPL-2.0
 * What the store serves on the bus, and the one gate for clients' operations: known here → fields →
 * device not revoked → handler.
 */
#include "common/rt/log.h"

#include "store/core.h"

static const struct {
    store_call_fn *fn;
} calls[256] = {
    [CQ_OP_LOGOUT] = {store_on_logout},    [CQ_OP_DEVICES] = {store_on_devices},
    [CQ_OP_REVOKE] = {store_on_revoke},    [CQ_OP_SYNC] = {store_on_sync},
    [CQ_OP_CHATS] = {store_on_chats},      [CQ_OP_KEYS] = {store_on_keys},
    [CQ_OP_SEND] = {store_on_send},        [CQ_OP_HISTORY] = {store_on_history},
    [CQ_OP_ACK] = {store_on_ack},          [CQ_OP_TYPING] = {store_on_typing},
    [CQ_OP_FRIENDS] = {store_on_friends},  [CQ_OP_ADD] = {store_on_friend_op},
    [CQ_OP_ACCEPT] = {store_on_friend_op}, [CQ_OP_DECLINE] = {store_on_friend_op},
    [CQ_OP_CANCEL] = {store_on_friend_op}, [CQ_OP_REMOVE] = {store_on_friend_op},
    [CQ_OP_BLOCK] = {store_on_friend_op},  [CQ_OP_UNBLOCK] = {store_on_friend_op},
    [CQ_OP_PRIVACY] = {store_on_privacy},  [CQ_OP_LEDGER] = {store_on_ledger},
};

/* The decoded fields of any operation that the store serves. */
union store_fields {
    struct cq_empty empty;
    struct cq_revoke revoke;
    struct cq_sync sync;
    struct cq_chats chats;
    struct cq_keys keys;
    struct cq_send send;
    struct cq_history history;
    struct cq_ack ack;
    struct cq_typing typing;
    struct cq_ledger ledger;
    struct cq_friend_name friend_name;
    struct cq_privacy_change privacy_change;
};

static int
dispatch(struct store_core *core, struct store_call *call, struct cq_view fields)
{
    const struct cq_op *op = cq_op_find(call->op);
    union store_fields in;
    if (!op || !calls[call->op].fn) {
        return -CQ_E_UNKNOWN_OP;
    }
    cq_reader_t r = cq_reader_of(fields);
    int rc = cq_schema_read_array(op->fields, &r, &in);
    if (rc) {
        return rc;
    }
    if (store_device_is_revoked(core, &call->user, &call->device)) {
        return -CQ_E_REVOKED;
    }
    return calls[call->op].fn(core, call, &in);
}

static void
on_call(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_bus_call in;
    struct store_call call = {.from = from};
    int rc = cq_schema_read(&cq_bus_call_schema, fields, count, &in);
    if (!rc) {
        call.user = in.user;
        call.device = in.device;
        call.op = (uint8_t)in.op;
        rc = core->stopping ? -CQ_E_UNAVAILABLE : dispatch(core, &call, in.fields);
    }
    if (rc == -CQ_E_CORRUPT || rc == -CQ_E_IO) {
        CQ_LOG(ERROR, "STORE-CALL-FAIL", "op=%u err=%s", (unsigned)in.op, cq_err_name(rc));
        rc = -CQ_E_INTERNAL;
    }
    if (rc) {
        store_core_reply_err(core, from, rc, call.detail);
    }
}

static void
on_routed(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_routed routed;
    (void)from;
    if (cq_schema_read(&cq_routed_schema, fields, count, &routed) == 0) {
        store_route_confirmed(core->route, routed.stream, routed.pos);
    }
}

const struct cq_bus_row store_ops_rows[] = {
    {CQ_BUS_CALL, on_call, "edge"},
    {CQ_BUS_AUTH, store_on_auth, "edge"},
    {CQ_BUS_EDGE_INIT, store_on_edge_init, "edge"},
    {CQ_BUS_JOB_START, store_on_job_start, "ctl"},
    {CQ_BUS_JOB_STATUS, store_on_job_status, "ctl"},
    {CQ_BUS_JOB_CANCEL, store_on_job_cancel, "ctl"},
    {CQ_BUS_ROUTED, on_routed, "presence"},
    {CQ_BUS_WATCHLIST, store_on_watchlist, "presence"},
    {CQ_BUS_BLOB_RESERVE, store_on_blob_reserve, "blobd"},
    {CQ_BUS_BLOB_WHOLE, store_on_blob_whole, "blobd"},
    {CQ_BUS_BLOB_RELEASE, store_on_blob_release, "blobd"},
    {CQ_BUS_BLOB_KNOWN, store_on_blob_known, "blobd"},
    {CQ_BUS_BLOB_ACCESS, store_on_blob_access, "edge"},
    {CQ_BUS_STORE_LEDGER, store_on_bus_ledger, "ctl"},
};
const size_t store_ops_row_count = sizeof store_ops_rows / sizeof store_ops_rows[0];
