/* SPDX-License-Identifier: MPL-2.0
 * The store without a bus, in this process: engine, projection, checkpoints and batches as the
 * store uses them. The caller builds the next batch while a thread of its own commits the one
 * before. What fails ends the program with a sentence: a benchmark that went wrong has no result.
 */
#ifndef BENCH_INPROC_H
#define BENCH_INPROC_H

#include "store/core.h"
#include "tests/bench/measure.h"

struct bench_inproc_cfg {
    const char *data; /* folder of the database */
    uint64_t chat_cache;
    uint64_t checkpoint_records;
};

/* What commits cost, if somebody wants to know: without and with rows written behind. */
struct bench_inproc_commits {
    struct bench_hist plain, with_slice;
};

/* Opens the database and applies the log behind the marker, as a start does. There is one. */
struct store_core *bench_inproc_open(const struct bench_inproc_cfg *cfg);
/* Drops everything that is not on disk, as a crash does. */
void bench_inproc_close(void);

/* NULL: stop counting. */
void bench_inproc_count(struct bench_inproc_commits *commits);
/* Hands the batch to the committer once that is idle. */
void bench_inproc_commit(void);
/* The same with no rows written behind (an abrupt end). */
void bench_inproc_commit_log_only(void);
/* Waits for the commit under way. */
void bench_inproc_wait(void);
/* Writes all rows: afterwards nothing is behind the marker. */
void bench_inproc_settle(void);
/* Ends the program unless rc is 0. */
void bench_inproc_check(int rc, const char *what);

/* Appends a message with the next dseq of its device. The chat exists. */
struct bench_message {
    struct cq_id chat, user, device;
    size_t text_bytes;
};
void bench_inproc_message(const struct bench_message *m);

#endif
