/* SPDX-License-Identifier: MPL-2.0
 * Assertions about what *we* guarantee. Always on, never reachable from bytes of a peer or of the
 * disk.
 */
#ifndef CQ_RT_CHECK_H
#define CQ_RT_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CQ_ASSERT(e)                                                                        \
    do {                                                                                    \
        if (!(e)) {                                                                         \
            (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #e); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

/* Allocation of our own small objects: zeroed, aborts when memory is gone. Sizes from a peer are
 * bounded before. */
static inline void *
cq_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p) {
        abort();
    }
    return p;
}

#endif
