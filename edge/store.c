/* SPDX-License-Identifier: MPL-2.0
 * What an edge knows from the store: its key, the epoch, the revoked devices. Asked for before
 * anyone is accepted, and again whenever the store comes up or we have registered anew, as REVOKED
 * events may have been missed. Meanwhile the old knowledge serves: the store itself refuses revoked
 * devices, and their sessions are closed when the answer is there.
 */
#include "common/rt/log.h"

#include "edge/blob.h"

enum {
    INIT_DEADLINE_MS = 5000,
    INIT_RETRY_MS = 500,
    EPOCH_STEP = 500
};

static void
close_revoked(edge_t *e, edge_session_t *s)
{
    e->metrics->revoked_total++;
    edge_send_err(e, s, 0, CQ_E_REVOKED, 0, 0);
    edge_close(e, s, EDGE_CLOSE_REVOKED);
}

/* device NULL: whatever the table says */
static void
close_all_revoked(edge_t *e, const struct cq_id *device)
{
    struct edge_cursor c;
    edge_session_cursor_begin(&e->sessions, &c);
    for (edge_session_t *s; (s = edge_session_cursor_next(&c));) {
        bool is_meant = edge_session_is_user(s) && !s->is_logging_out &&
                        (!device || cq_id_eq(&s->device, device));
        if (is_meant && edge_revoked_has(e->revoked, &s->user, &s->device, s->generation)) {
            close_revoked(e, s);
        }
    }
    edge_session_cursor_end(&e->sessions, &c);
}

void
edge_store_on_revoked(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    edge_t *e = ctx;
    struct cq_revoked_row row;
    if (cq_schema_read(&cq_revoked_row_schema, fields, count, &row)) {
        CQ_LOG(WARN, "EDGE-REVOKED-BAD", "src=%s", from->src);
        return;
    }
    edge_revoked_add(e->revoked, &row.user, &row.device, row.generation);
    close_all_revoked(e, &row.device);
    edge_blob_revoke(e, &row.user, &row.device);
}

void
edge_store_on_state(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    edge_t *e = ctx;
    struct cq_store_state m;
    if (cq_schema_read(&cq_store_state_schema, fields, count, &m)) {
        CQ_LOG(WARN, "EDGE-STORE-STATE-BAD", "src=%s", from->src);
        return;
    }
    if (e->store.takes_no_writes == m.writes) {
        CQ_LOG(WARN, "EDGE-STORE-STATE", "writes=%d", m.writes);
    }
    e->store.takes_no_writes = !m.writes;
}

static void
set_epoch(edge_t *e, const struct cq_id *epoch)
{
    bool is_new = e->store.is_known && !cq_id_eq(&e->store.epoch, epoch);
    e->store.epoch = *epoch;
    if (!is_new) {
        return;
    }
    CQ_LOG(WARN, "EDGE-STORE-EPOCH", "sessions=%zu", e->sessions.count);
    if (e->is_telling_epoch) {
        edge_session_cursor_end(&e->sessions, &e->epoch_cursor);
    }
    edge_session_cursor_begin(&e->sessions, &e->epoch_cursor);
    e->is_telling_epoch = true;
    edge_work_start(e);
}

bool
edge_store_tell_epoch(edge_t *e)
{
    for (int i = 0; e->is_telling_epoch && i < EPOCH_STEP; i++) {
        edge_session_t *s = edge_session_cursor_next(&e->epoch_cursor);
        if (!s) {
            edge_session_cursor_end(&e->sessions, &e->epoch_cursor);
            e->is_telling_epoch = false;
        } else if (edge_session_is_user(s)) {
            edge_send_sync_now(e, s, &e->store.epoch);
        }
    }
    return e->is_telling_epoch;
}

static int
take_init(edge_t *e, cq_reader_t *fields, size_t count)
{
    struct cq_edge_init m;
    if (cq_schema_read(&cq_edge_init_schema, fields, count, &m)) {
        return -CQ_E_BAD_ARG;
    }
    cq_reader_t r = cq_list_reader(&m.revoked);
    for (size_t i = 0; i < m.revoked.count; i++) {
        struct cq_revoked_row row;
        int rc = cq_schema_read_array(&cq_revoked_row_schema, &r, &row);
        if (rc) {
            return rc;
        }
        edge_revoked_add(e->revoked, &row.user, &row.device, row.generation);
    }
    struct cq_token_keys *keys = &e->store.keys;
    if (e->store.is_known && memcmp(keys->sign, m.store_key.p, sizeof keys->sign) != 0) {
        CQ_LOG(WARN, "EDGE-STORE-KEY", "changed=true");
    }
    memcpy(keys->sign, m.store_key.p, sizeof keys->sign);
    keys->has_seal = m.seal_key.n == sizeof keys->seal;
    if (keys->has_seal) {
        memcpy(keys->seal, m.seal_key.p, sizeof keys->seal);
    }
    set_epoch(e, &m.epoch);
    e->store.is_known = true;
    return 0;
}

static void
on_init_reply(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    edge_t *e = ctx;
    e->store.is_asking = false;
    int rc = err ? err : take_init(e, fields, count);
    if (rc) {
        CQ_LOG(WARN, "EDGE-STORE-INIT-FAIL", "err=%s", cq_err_name(rc));
        cq_timer_start(e->init_timer, INIT_RETRY_MS, 0);
        return;
    }
    CQ_LOG(INFO, "EDGE-STORE-INIT", "revoked=%zu", edge_revoked_count(e->revoked));
    close_all_revoked(e, NULL);
}

void
edge_store_ask(edge_t *e)
{
    if (e->store.is_asking || !cq_bus_has(e->bus, "store")) {
        return;
    }
    struct cq_empty none = {0};
    struct cq_bus_wait wait = {INIT_DEADLINE_MS, on_init_reply, e};
    if (cq_bus_request(e->bus, "store", CQ_BUS_EDGE_INIT, &cq_empty_schema, &none, &wait)) {
        cq_timer_start(e->init_timer, INIT_RETRY_MS, 0);
        return;
    }
    e->store.is_asking = true;
}

void
edge_store_on_timer(void *ctx)
{
    edge_store_ask(ctx);
}
