/* SPDX-License-Identifier: MPL-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "tests/bench/measure.h"
#include "tests/bench/seed.h"

static uint8_t *
read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        bench_measure_fail("cannot read %s", path);
    }
    long end = ftell(f);
    rewind(f);
    *size = end > 0 ? (size_t)end : 0;
    uint8_t *bytes = cq_alloc(*size + 1);
    if (fread(bytes, 1, *size, f) != *size) {
        bench_measure_fail("cannot read %s", path);
    }
    (void)fclose(f);
    return bytes;
}

/* Bytes of the record at `at`, 0 if it is cut. */
static size_t
read_record(const uint8_t *at, size_t left, struct bench_seed_session *s)
{
    if (left < BENCH_SEED_RECORD_FIXED) {
        return 0;
    }
    memcpy(s->user.b, at, CQ_ID_SIZE);
    memcpy(s->device.b, at + CQ_ID_SIZE, CQ_ID_SIZE);
    s->token_size = (size_t)at[2 * CQ_ID_SIZE] | (size_t)at[2 * CQ_ID_SIZE + 1] << 8;
    s->token = at + BENCH_SEED_RECORD_FIXED;
    size_t n = BENCH_SEED_RECORD_FIXED + s->token_size;
    return s->token_size && n <= left ? n : 0;
}

void
bench_seed_load(struct bench_seed *seed, const char *path)
{
    size_t size = 0;
    size_t at = sizeof seed->header;
    seed->bytes = read_all(path, &size);
    if (size >= at) {
        memcpy(&seed->header, seed->bytes, at);
    }
    size_t count = (size_t)seed->header.users * seed->header.devices;
    if (seed->header.id != BENCH_SEED_ID || count > size / BENCH_SEED_RECORD_FIXED) {
        bench_measure_fail("%s holds no people", path);
    }
    seed->sessions = cq_alloc((count + 1) * sizeof *seed->sessions);
    for (size_t i = 0; i < count; i++) {
        size_t n = read_record(seed->bytes + at, size - at, &seed->sessions[i]);
        if (n == 0) {
            bench_measure_fail("%s is cut", path);
        }
        at += n;
    }
}

void
bench_seed_free(struct bench_seed *seed)
{
    free(seed->sessions);
    free(seed->bytes);
    *seed = (struct bench_seed){.sessions = NULL};
}
