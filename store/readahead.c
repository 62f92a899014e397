/* SPDX-License-Identifier: MPL-2.0 */
#include "store/readahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/rt/check.h"

enum {
    THREADS = 32,
    PIECE_RECORDS = 1024, /* small, so that what the reader comes to first is read first */
    PAGE_BYTES = 4096,
    WORTH_RECORDS = 16384, /* below, starting threads is more work */
};

struct store_readahead {
    store_engine_t *engine;
    uint64_t last;
    _Atomic uint64_t next; /* begin of the next piece */
    atomic_bool is_over;
    pthread_t threads[THREADS];
    size_t thread_count;
};

struct piece {
    const struct store_readahead *readahead;
    uint64_t last;
};

/* The page that a small one is in has been read by now; a large one has pages of its own. */
static bool
on_record(void *ctx, uint64_t pos, struct cq_view record)
{
    const struct piece *piece = ctx;
    for (size_t i = 0; i < record.n; i += PAGE_BYTES) {
        (void)*(const volatile uint8_t *)(record.p + i);
    }
    return pos < piece->last && !piece->readahead->is_over;
}

static void *
read_pieces(void *arg)
{
    struct store_readahead *r = arg;
    store_snapshot_t *s;
    if (store_snapshot_open(r->engine, &s)) {
        return NULL; /* whoever reads in order meets it, too */
    }
    uint64_t first = atomic_fetch_add(&r->next, PIECE_RECORDS);
    while (first <= r->last && !r->is_over) {
        struct piece piece = {r, first + PIECE_RECORDS - 1};
        if (store_snapshot_log(s, first, on_record, &piece)) {
            break;
        }
        first = atomic_fetch_add(&r->next, PIECE_RECORDS);
    }
    store_snapshot_close(&s);
    return NULL;
}

store_readahead_t *
store_readahead_start(store_engine_t *engine, uint64_t first, uint64_t last)
{
    if (last < first || last - first < WORTH_RECORDS) {
        return NULL;
    }
    struct store_readahead *r = cq_alloc(sizeof *r);
    r->engine = engine;
    r->last = last;
    r->next = first;
    while (r->thread_count < THREADS &&
           !pthread_create(&r->threads[r->thread_count], NULL, read_pieces, r)) {
        r->thread_count++;
    }
    return r;
}

void
store_readahead_stop(store_readahead_t **readahead)
{
    struct store_readahead *r = *readahead;
    if (!r) {
        return;
    }
    r->is_over = true;
    for (size_t i = 0; i < r->thread_count; i++) {
        (void)pthread_join(r->threads[i], NULL);
    }
    free(r);
    *readahead = NULL;
}
