/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/heap.h"

enum {
    PIECES = 60000,
    PIECE_BYTES = 1100
};

static void
little_is_not_worth_it(void **state)
{
    (void)state;
    assert_null(store_heap_expect(1048576));
}

/* The pages are made while the pieces are written: none may be cleared again. More is taken than
 * was expected, too. */
static void
what_is_written_meanwhile_stays(void **state)
{
    static uint8_t *pieces[PIECES];
    store_heap_t *heap = store_heap_expect((size_t)PIECES * PIECE_BYTES * 3 / 4);
    (void)state;
    assert_non_null(heap);
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = malloc(PIECE_BYTES);
        assert_non_null(pieces[i]);
        memset(pieces[i], (int)(i % 255 + 1), PIECE_BYTES);
    }
    store_heap_settle(&heap);
    assert_null(heap);
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t at = 0; at < PIECE_BYTES; at++) {
            if (pieces[i][at] != i % 255 + 1) {
                fail_msg("piece %zu, byte %zu", i, at);
            }
        }
        free(pieces[i]);
    }
}

static void
nothing_need_be_taken(void **state)
{
    store_heap_t *heap = store_heap_expect(64 * 1048576);
    (void)state;
    store_heap_settle(&heap);
    assert_null(heap);
    store_heap_settle(&heap); /* NULL */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_is_not_worth_it),
        cmocka_unit_test(what_is_written_meanwhile_stays),
        cmocka_unit_test(nothing_need_be_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
