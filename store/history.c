/* SPDX-License-Identifier: MPL-2.0
 * HISTORY: a range of a chat's messages, read by the reader actor with a snapshot of its own, so
 * that cold pages never hold up the bus actor. What is not in the index table yet (the chat's tail)
 * goes along with the job.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/core.h"
#include "store/record.h"

struct history_job {
    struct store_reading reading; /* first */
    struct cq_bus_from from;
    struct cq_id chat;
    uint64_t next_seq, last_seq; /* to read */
    uint64_t head;
    uint64_t tail_first; /* positions of tail_first … are in tail */
    size_t tail_count;
    int rc;
    bool more;
    cq_buf_t messages;
    size_t count;
    uint64_t tail[]; /* log positions */
};

static void
destroy(struct history_job *job)
{
    cq_buf_free(&job->messages);
    free(job);
}

/* Appends the message of a record; false when the answer is full. */
static bool
add_message(struct history_job *job, struct cq_view record)
{
    struct cq_rec_message m;
    job->rc = store_record_message(record, &m);
    if (!job->rc && (!cq_id_eq(&m.chat, &job->chat) || m.seq != job->next_seq)) {
        job->rc = -CQ_E_CORRUPT;
    }
    if (job->rc) {
        return false;
    }
    if (job->count == CQ_HISTORY_MAX_COUNT ||
        (job->count && job->messages.size + record.n > CQ_HISTORY_MAX_BYTES)) {
        job->more = true;
        return false;
    }
    cq_schema_write_array(&cq_message_schema, &job->messages, &m);
    job->count++;
    job->next_seq++;
    return true;
}

struct indexed {
    struct history_job *job;
    store_snapshot_t *snapshot;
};

static bool
add_record(struct indexed *in, uint64_t pos)
{
    struct cq_view record;
    in->job->rc = store_snapshot_record(in->snapshot, pos, &record);
    return in->job->rc == 0 && add_message(in->job, record);
}

/* A full block: those of its messages that are wanted. */
static bool
on_index_row(void *ctx, struct cq_view key, struct cq_view value)
{
    struct indexed *in = ctx;
    struct history_job *job = in->job;
    struct store_chat_block block;
    uint64_t first = store_chat_block_first(job->next_seq);
    struct store_key expected = store_key_index(&job->chat, first);
    bool is_next = key.n == expected.n && memcmp(key.p, expected.b, key.n) == 0;
    job->rc = is_next ? store_chat_read_block(value, &block) : -CQ_E_CORRUPT;
    for (uint64_t i = job->next_seq - first; i < STORE_CHAT_BLOCK && !job->rc; i++) {
        if (job->next_seq > job->last_seq || !add_record(in, block.pos[i])) {
            return false;
        }
    }
    return !job->rc && job->next_seq <= job->last_seq && job->next_seq < job->tail_first;
}

/* Reader actor. */
static void
run(struct store_core *core, struct store_reading *reading)
{
    struct history_job *job = (struct history_job *)reading;
    struct indexed in = {job, NULL};
    struct store_key prefix = store_key_of(&job->chat);
    struct store_key from = store_key_index(&job->chat, store_chat_block_first(job->next_seq));
    job->rc = store_snapshot_open(core->engine, &in.snapshot);
    if (job->rc) {
        return;
    }
    if (job->next_seq <= job->last_seq && job->next_seq < job->tail_first) {
        int rc = store_snapshot_scan(in.snapshot, STORE_TABLE_INDEX, store_key_view(&prefix),
                                     store_key_view(&from), on_index_row, &in);
        job->rc = rc ? rc : job->rc;
    }
    while (!job->rc && !job->more && job->next_seq <= job->last_seq &&
           job->next_seq >= job->tail_first) {
        uint64_t i = job->next_seq - job->tail_first;
        if (i >= job->tail_count || !add_record(&in, job->tail[i])) {
            break;
        }
    }
    store_snapshot_close(&in.snapshot);
}

/* Loop thread. */
static void
done(struct store_core *core, struct store_reading *reading, int rc)
{
    struct history_job *job = (struct history_job *)reading;
    if (rc) {
        cq_bus_reply_err(core->bus, &job->from, rc, 0);
    } else if (job->rc) {
        cq_bus_reply_err(core->bus, &job->from, -CQ_E_INTERNAL, 0);
    } else {
        struct cq_history_part part = {job->head, job->more,
                                       cq_list_of(&job->messages, job->count)};
        cq_bus_reply(core->bus, &job->from, &cq_history_part_schema, &part);
    }
    destroy(job);
}

int
store_on_history(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_history *range = in;
    struct store_chat *chat = NULL;
    int member = 0;
    int rc = store_core_chat(core, &range->chat, &call->user, &chat, &member);
    if (rc) {
        return rc;
    }
    if (range->from_seq == 0) {
        return -CQ_E_BAD_ARG;
    }
    uint64_t last = range->to_seq < chat->head ? range->to_seq : chat->head;
    uint64_t bound = range->from_seq +
                     CQ_HISTORY_MAX_COUNT; /* one beyond the most, to know whether there is more */
    last = last < bound ? last : bound;
    uint64_t first_tail = range->from_seq > chat->tail_first ? range->from_seq : chat->tail_first;
    size_t tail_count =
        chat->tail_count && last >= first_tail ? (size_t)(last - first_tail + 1) : 0;
    struct history_job *job = cq_alloc(sizeof *job + tail_count * sizeof job->tail[0]);
    *job = (struct history_job){
        .reading = {run, done},
        .from = *call->from,
        .chat = chat->id,
        .next_seq = range->from_seq,
        .last_seq = last,
        .head = chat->head,
        .tail_first = chat->tail_count ? first_tail : UINT64_MAX,
        .tail_count = tail_count,
    };
    for (size_t i = 0; i < tail_count; i++) {
        job->tail[i] = chat->tail[first_tail + i - chat->tail_first].pos;
    }
    store_core_read(core, &job->reading);
    return 0;
}
