/* SPDX-License-Identifier: MPL-2.0
 * glibc's heap grows at its end. A piece as large as all that is expected is allocated there, given
 * its advice, and freed, so that what is allocated next comes out of it; a thread meanwhile goes
 * through it and has its pages made (MADV_POPULATE_WRITE changes no byte of those that are in use).
 */
#include "store/heap.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/rt/check.h"
#include "common/rt/loop.h"

enum {
    PAGE_BYTES = 2 * 1048576,
    WORTH_BYTES = 16 * PAGE_BYTES,
    STEP_BYTES = 4 * PAGE_BYTES,
    MAPPED_MAX = 65536 /* glibc's M_MMAP_MAX */
};

struct store_heap {
    pthread_t thread;
    uint8_t *at, *end;
    atomic_bool is_over;
};

static void *
populate(void *arg)
{
    struct store_heap *h = arg;
    for (uint8_t *p = h->at; p < h->end && !atomic_load(&h->is_over); p += STEP_BYTES) {
        size_t left = (size_t)(h->end - p);
        if (madvise(p, left < STEP_BYTES ? left : STEP_BYTES, MADV_POPULATE_WRITE)) {
            break; /* no memory, or an older kernel: then they are made when they are touched */
        }
    }
    return NULL;
}

/* The whole huge pages of a piece at the end of the heap, which is free again. */
static void
find_room(struct store_heap *h, size_t bytes)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): glibc locks its heap for it */
    (void)mallopt(M_MMAP_MAX, 0); /* at the end of the heap, not somewhere else … */
    (void)mallopt(M_TRIM_THRESHOLD, INT32_MAX);
    uint8_t *p = malloc(bytes);
    if (p) {
        h->at = p + (PAGE_BYTES - (uintptr_t)p % PAGE_BYTES);
        h->end = p + bytes - ((uintptr_t)p + bytes) % PAGE_BYTES;
        (void)madvise(h->at, (size_t)(h->end - h->at), MADV_HUGEPAGE);
        free(p); /* … where it stays */
    }
    (void)mallopt(M_MMAP_MAX, MAPPED_MAX);
    /* NOLINTEND(concurrency-mt-unsafe) */
}

store_heap_t *
store_heap_expect(size_t bytes)
{
    if (bytes < WORTH_BYTES) {
        return NULL;
    }
    struct store_heap *h = cq_alloc(sizeof *h);
    find_room(h, bytes);
    if (!h->at || pthread_create(&h->thread, NULL, populate, h)) {
        cq_loop_keep_memory();
        free(h);
        return NULL;
    }
    return h;
}

void
store_heap_settle(store_heap_t **heap)
{
    struct store_heap *h = *heap;
    *heap = NULL;
    if (h) {
        atomic_store(&h->is_over, true);
        (void)pthread_join(h->thread, NULL);
        free(h);
        cq_loop_keep_memory();
        (void)malloc_trim(0);
    }
}
