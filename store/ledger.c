/* SPDX-License-Identifier: MPL-2.0
 * LEDGER: the life of one message. The index says where its record is; the receipts' index says
 * which record moved a device's or a user's cursor to it or beyond. The reader actor looks it up;
 * what memory has not written behind yet goes along with the job.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/core.h"
#include "store/record.h"

enum {
    /* Log records between a message and the next COMMIT record are at most a few batches; a log
     * that has none for so long says nothing about when. */
    COMMIT_SCAN_MAX = 100000
};

struct ledger_device {
    struct cq_id device;
    int member;
    uint64_t pos; /* of the receipt that reached the message, as far as memory knows; 0: none */
};

struct ledger_job {
    struct store_reading reading; /* first */
    struct cq_bus_from from;
    struct cq_id viewer;         /* none: an operator, who sees every label */
    uint64_t pos;                /* of the message, 0: in the index table */
    struct cq_rec_commit commit; /* the last commit, if it is not in the log yet */
    struct cq_id users[STORE_CHAT_MEMBERS];
    uint64_t read_pos[STORE_CHAT_MEMBERS]; /* as `pos` of a device */
    struct ledger_device devices[CQ_LEDGER_DEVICES_MAX];
    size_t device_count;
    int rc;
    struct cq_life life;
    cq_buf_t members, rows;
    size_t row_count;
};

/* ---- reader actor ---- */

struct reading {
    struct ledger_job *job;
    store_snapshot_t *snapshot;
    int member; /* whose devices are scanned */
};

static bool
take_pos(void *ctx, struct cq_view key, struct cq_view value)
{
    uint64_t *pos = ctx;
    cq_reader_t r = cq_reader_of(value);
    (void)key;
    *pos = cq_read_uint(&r, UINT64_MAX);
    return false;
}

/* The clock may have been put back in between: no effect is told to be before its cause. */
static void
put_behind(const struct cq_life *life, uint64_t *time_unix_ms)
{
    if (*time_unix_ms && *time_unix_ms < life->time_unix_ms) {
        *time_unix_ms = life->time_unix_ms;
    }
}

/* When the record of a receipt was written. */
static int
receipt_time(store_snapshot_t *s, uint64_t pos, uint64_t *time_unix_ms)
{
    struct cq_view bytes;
    union store_record fields;
    enum cq_rec_kind kind;
    int rc = store_snapshot_record(s, pos, &bytes);
    if (!rc) {
        rc = store_record_read(bytes, &kind, &fields);
    }
    if (!rc && kind != CQ_REC_RECEIPT && kind != CQ_REC_READ) {
        rc = -CQ_E_CORRUPT;
    }
    if (!rc) {
        *time_unix_ms =
            kind == CQ_REC_READ ? fields.read.time_unix_ms : fields.receipt.time_unix_ms;
    }
    return rc == -CQ_E_NOT_FOUND ? -CQ_E_CORRUPT : rc;
}

/* When a cursor reached the message, 0 if it has not. The table has older receipts than memory. */
static int
reached(struct reading *in,
        enum store_receipt_kind kind,
        const struct cq_id *id,
        uint64_t pos_in_memory,
        uint64_t *time_unix_ms)
{
    const struct cq_life *life = &in->job->life;
    struct store_key prefix = store_key_receipts(&life->chat, kind, id);
    struct store_key from = store_key_receipt(&life->chat, kind, id, life->seq);
    uint64_t pos = 0;
    *time_unix_ms = 0;
    int rc = store_snapshot_scan(in->snapshot, STORE_TABLE_RECEIPT, store_key_view(&prefix),
                                 store_key_view(&from), take_pos, &pos);
    pos = pos ? pos : pos_in_memory;
    rc = rc || pos == 0 ? rc : receipt_time(in->snapshot, pos, time_unix_ms);
    put_behind(life, time_unix_ms);
    return rc;
}

static int
read_message(struct reading *in)
{
    struct ledger_job *job = in->job;
    uint64_t seq = job->life.seq;
    uint64_t first = store_chat_block_first(seq);
    struct store_key key = store_key_index(&job->life.chat, first);
    struct cq_view bytes;
    struct cq_rec_message m;
    struct store_chat_block block;
    uint64_t pos = job->pos;
    int rc = 0;
    if (pos == 0) {
        rc = store_snapshot_row(in->snapshot, STORE_TABLE_INDEX, store_key_view(&key), &bytes);
        rc = rc ? rc : store_chat_read_block(bytes, &block);
        pos = rc ? 0 : block.pos[seq - first];
    }
    rc = rc ? rc : store_snapshot_record(in->snapshot, pos, &bytes);
    rc = rc ? rc : store_record_message(bytes, &m);
    if (rc || !cq_id_eq(&m.chat, &job->life.chat) || m.seq != seq) {
        return rc && rc != -CQ_E_NOT_FOUND ? rc : -CQ_E_CORRUPT;
    }
    job->life.pos = pos;
    job->life.user = m.user;
    job->life.device = m.device;
    job->life.dseq = m.dseq;
    job->life.time_unix_ms = m.time_unix_ms;
    return 0;
}

struct commit_scan {
    uint64_t pos;
    unsigned left;
    bool is_found; /* the first commit behind the message */
    uint64_t time_unix_ms;
    int rc;
};

/* 0: the commit says nothing of the position. As written by the first version it vouches for its
 * last one only: if the store was stopped before, the others may be of a commit whose time was
 * lost. */
static uint64_t
time_of(const struct cq_rec_commit *c, uint64_t pos)
{
    uint64_t first = c->first_pos ? c->first_pos : c->last_pos;
    return first <= pos && pos <= c->last_pos ? c->time_unix_ms : 0;
}

static bool
on_log_record(void *ctx, uint64_t pos, struct cq_view bytes)
{
    struct commit_scan *scan = ctx;
    cq_reader_t r;
    enum cq_rec_kind kind;
    size_t count = 0;
    struct cq_rec_commit commit;
    (void)pos;
    scan->rc = cq_rec_open(bytes.p, bytes.n, &kind, &r, &count);
    if (!scan->rc && kind == CQ_REC_COMMIT) {
        scan->rc = cq_rec_read(kind, &r, count, &commit);
        scan->is_found = !scan->rc && commit.last_pos >= scan->pos;
        scan->time_unix_ms = scan->is_found ? time_of(&commit, scan->pos) : 0;
    }
    return scan->rc == 0 && !scan->is_found && --scan->left > 0;
}

/* A commit's time is in the log with one of the next commits, or only in memory, or, if the store
 * ended before that, nowhere: the next one in the log is then of a later commit. */
static int
read_durable(struct reading *in)
{
    struct ledger_job *job = in->job;
    struct commit_scan scan = {.pos = job->life.pos, .left = COMMIT_SCAN_MAX};
    int rc = store_snapshot_log(in->snapshot, job->life.pos + 1, on_log_record, &scan);
    job->life.durable_unix_ms =
        scan.is_found ? scan.time_unix_ms : time_of(&job->commit, job->life.pos);
    put_behind(&job->life, &job->life.durable_unix_ms);
    return rc ? rc : scan.rc;
}

static int
read_member(struct reading *in, int m)
{
    struct ledger_job *job = in->job;
    struct store_key key = store_key_of(&job->users[m]);
    struct store_account account;
    struct cq_view row;
    struct cq_life_member out = {.user = job->users[m]};
    int rc = store_snapshot_row(in->snapshot, STORE_TABLE_ACCOUNT, store_key_view(&key), &row);
    rc = rc ? rc : store_account_read(row, &account);
    rc = rc ? rc
            : reached(in, STORE_RECEIPT_READ, &job->users[m], job->read_pos[m], &out.read_unix_ms);
    if (!rc) {
        out.name = (struct cq_view){(const uint8_t *)account.name, strlen(account.name)};
        cq_schema_write_array(&cq_life_member_schema, &job->members, &out);
    }
    return rc;
}

static struct ledger_device *
find_device(struct ledger_job *job, int member, const struct cq_id *device)
{
    for (size_t i = 0; i < job->device_count; i++) {
        struct ledger_device *d = &job->devices[i];
        if (d->member == member && cq_id_eq(&d->device, device)) {
            return d;
        }
    }
    return NULL;
}

/* Devices that have not acknowledged anything in this chat are not in its row. */
static bool
on_device_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct reading *in = ctx;
    struct ledger_job *job = in->job;
    struct store_device row;
    struct cq_id device = store_key_second(key);
    job->rc = store_device_read(value, &row);
    if (job->rc) {
        return false;
    }
    if (row.revoked || find_device(job, in->member, &device)) {
        return true;
    }
    if (job->device_count == CQ_LEDGER_DEVICES_MAX) {
        job->life.more = true;
        return false;
    }
    job->devices[job->device_count++] =
        (struct ledger_device){.device = device, .member = in->member};
    return true;
}

static int
add_devices(struct reading *in, int m)
{
    struct store_key prefix = store_key_of(&in->job->users[m]);
    in->member = m;
    int rc = store_snapshot_scan(in->snapshot, STORE_TABLE_DEVICE, store_key_view(&prefix),
                                 (struct cq_view){0}, on_device_row, in);
    return rc ? rc : in->job->rc;
}

static int
read_device(struct reading *in, const struct ledger_device *d)
{
    struct ledger_job *job = in->job;
    const struct cq_id *user = &job->users[d->member];
    struct store_key key = store_key_pair(user, &d->device);
    struct store_device device = {.revoked = true}; /* a row that is gone: likewise */
    struct cq_view row;
    struct cq_life_device out = {.user = *user, .device = d->device};
    if (cq_id_eq(user, &job->life.user) && cq_id_eq(&d->device, &job->life.device)) {
        return 0; /* the sender's: it needs no delivery */
    }
    int rc = store_snapshot_row(in->snapshot, STORE_TABLE_DEVICE, store_key_view(&key), &row);
    rc = rc == -CQ_E_NOT_FOUND ? 0 : rc ? rc : store_device_read(row, &device);
    rc = rc ? rc : reached(in, STORE_RECEIPT_DELIVERED, &d->device, d->pos, &out.delivered_unix_ms);
    if (rc || (device.revoked && out.delivered_unix_ms == 0)) {
        return rc; /* gone without it: nobody waits for that device */
    }
    bool is_own = cq_id_is_none(&job->viewer) || cq_id_eq(&job->viewer, user);
    out.revoked = device.revoked;
    out.label = (struct cq_view){(const uint8_t *)device.label, is_own ? strlen(device.label) : 0};
    cq_schema_write_array(&cq_life_device_schema, &job->rows, &out);
    job->row_count++;
    return 0;
}

static int
read_life(struct reading *in)
{
    struct ledger_job *job = in->job;
    int rc = read_message(in);
    rc = rc ? rc : read_durable(in);
    for (int m = 0; m < STORE_CHAT_MEMBERS && !rc; m++) {
        rc = read_member(in, m);
        rc = rc ? rc : add_devices(in, m);
    }
    for (size_t i = 0; i < job->device_count && !rc; i++) {
        rc = read_device(in, &job->devices[i]);
    }
    return rc;
}

static void
run(struct store_core *core, struct store_reading *reading)
{
    struct ledger_job *job = (struct ledger_job *)reading;
    struct reading in = {.job = job};
    int rc = store_snapshot_open(core->engine, &in.snapshot);
    job->rc = rc ? rc : read_life(&in);
    store_snapshot_close(&in.snapshot);
}

/* ---- loop thread ---- */

static void
done(struct store_core *core, struct store_reading *reading, int rc)
{
    struct ledger_job *job = (struct ledger_job *)reading;
    if (!rc && job->rc) {
        CQ_LOG(ERROR, "STORE-LEDGER-FAIL", "seq=%" PRIu64 " pos=%" PRIu64 " err=%s", job->life.seq,
               job->life.pos, cq_err_name(job->rc));
        rc = -CQ_E_INTERNAL;
    }
    if (rc) {
        cq_bus_reply_err(core->bus, &job->from, rc, 0);
    } else {
        job->life.members = cq_list_of(&job->members, STORE_CHAT_MEMBERS);
        job->life.devices = cq_list_of(&job->rows, job->row_count);
        cq_bus_reply(core->bus, &job->from, &cq_life_schema, &job->life);
    }
    cq_buf_free(&job->members);
    cq_buf_free(&job->rows);
    free(job);
}

/* What is not in the tables yet. A cursor's receipts ascend, so the first one counts. */
static void
take_memory(struct ledger_job *job, const struct store_chat *chat)
{
    struct store_chat_index index;
    if (store_chat_tail(chat, job->life.seq, &index)) {
        job->pos = index.pos;
    }
    for (size_t i = 0; i < chat->device_count && i < CQ_LEDGER_DEVICES_MAX; i++) {
        const struct store_chat_device *d = &chat->devices[i];
        job->devices[job->device_count++] =
            (struct ledger_device){.device = d->device, .member = d->member};
    }
    for (size_t i = 0; i < chat->receipt_count; i++) {
        const struct store_chat_receipt *r = &chat->receipts[i];
        if (r->up_to < job->life.seq) {
            continue;
        }
        int member = r->is_read ? store_chat_member(chat, &r->id) : -1;
        for (size_t k = 0; k < job->device_count && !r->is_read; k++) {
            struct ledger_device *d = &job->devices[k];
            if (cq_id_eq(&d->device, &r->id) && d->pos == 0) {
                d->pos = r->pos;
            }
        }
        if (member >= 0 && job->read_pos[member] == 0) {
            job->read_pos[member] = r->pos;
        }
    }
}

static int
look_up(struct store_core *core,
        const struct cq_bus_from *from,
        const struct cq_id *viewer,
        const struct store_chat *chat,
        uint64_t seq)
{
    if (seq == 0 || seq > chat->head) {
        return -CQ_E_NOT_FOUND;
    }
    if (from->rid == 0) {
        return 0;
    }
    struct ledger_job *job = cq_alloc(sizeof *job);
    *job = (struct ledger_job){
        .reading = {run, done},
        .from = *from,
        .viewer = *viewer,
        .commit = {core->commit_time_last, core->commit_time_unix_ms, core->commit_time_first},
        .users = {chat->members[0].user, chat->members[1].user},
        .life = {.chat = chat->id, .seq = seq},
    };
    take_memory(job, chat);
    store_core_read(core, &job->reading);
    return 0;
}

int
store_on_ledger(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_ledger *ledger = in;
    struct store_chat *chat = NULL;
    int member = 0;
    int rc = store_core_chat(core, &ledger->chat, &call->user, &chat, &member);
    return rc ? rc : look_up(core, call->from, &call->user, chat, ledger->seq);
}

static int
chat_by_names(struct store_core *core, const struct cq_bus_ledger *in, struct cq_id *chat)
{
    struct cq_id user;
    struct cq_id peer;
    int rc = store_name_find(core, in->user_name, &user);
    rc = rc ? rc : store_name_find(core, in->peer_name, &peer);
    if (!rc) {
        *chat = cq_chat_id(&user, &peer);
    }
    return rc;
}

void
store_on_bus_ledger(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    static const struct cq_id nobody = {{0}};
    struct store_core *core = ctx;
    struct cq_bus_ledger in;
    struct store_chat *chat = NULL;
    int rc = cq_schema_read(&cq_bus_ledger_schema, fields, count, &in);
    if (!rc && cq_id_is_none(&in.chat)) {
        rc = chat_by_names(core, &in, &in.chat);
    }
    rc = rc ? rc : store_projection_chat(core->projection, &in.chat, &chat);
    rc = rc ? rc : look_up(core, from, &nobody, chat, in.seq);
    if (rc == -CQ_E_CORRUPT || rc == -CQ_E_IO) {
        rc = -CQ_E_INTERNAL;
    }
    if (rc) {
        store_core_reply_err(core, from, rc, 0);
    }
}
