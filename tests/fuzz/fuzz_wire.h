/* SPDX-License-Identifier: MPL-2.0
 * An input is one byte that says which decoder, then the bytes for it: schemas by their place in
 * cq_schema_all() up to FUZZ_FRAME, then the rest. Numbers that mean nothing are ignored, so inputs
 * keep their meaning when schemas are added.
 */
#ifndef TEST_FUZZ_WIRE_H
#define TEST_FUZZ_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum {
    FUZZ_FRAME = 240,
    FUZZ_ENVELOPE,
    FUZZ_BODY,
    FUZZ_RECORD,
    FUZZ_ANY,
    FUZZ_UTF8,
    FUZZ_MEDIA
};

/* libFuzzer's name for it. NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
