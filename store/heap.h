/* SPDX-License-Identifier: MPL-2.0
 * Memory for many small things that are about to be allocated at once: the chats of a replay.
 */
#ifndef STORE_HEAP_H
#define STORE_HEAP_H

#include <stddef.h>

typedef struct store_heap store_heap_t;

/* malloc is about to be asked for about so many bytes in small pieces by this thread, the program's
 * first: has the kernel make huge pages of them, ahead of their use, on another processor. Half of
 * the time of a replay went into the first touch of its memory. NULL: not worth it, or not to be
 * had; nothing depends on it. */
store_heap_t *store_heap_expect(size_t bytes);
/* All that was expected has been allocated: what is left goes back to the kernel. */
void store_heap_settle(store_heap_t **heap);

#endif
