/* SPDX-License-Identifier: MPL-2.0
 * Writes the valid seeds of fuzz_wire from the tables: two of each message, a frame with every
 * operation, an envelope of each bus operation, a record of each kind. The same files every time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/wire/frame.h"

#include "tests/fuzz/fuzz_wire.h"
#include "tests/lib/random_message.h"

enum {
    STRUCT_MAX = 1024,
    PATH_SIZE = 4096
};

union message {
    max_align_t align;
    uint8_t bytes[STRUCT_MAX];
};

static struct random_pool pool;
static const char *folder;

static void
save(const char *kind, const char *name, int number, cq_buf_t *b)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s-%s-%d", folder, kind, name, number);
    FILE *f = fopen(path, "we");
    if (!f || fwrite(b->data, 1, b->size, f) != b->size || fclose(f) != 0) {
        (void)fprintf(stderr, "seed_wire: cannot write %s\n", path);
        exit(EXIT_FAILURE); /* NOLINT(concurrency-mt-unsafe) one thread */
    }
    cq_buf_clear(b);
}

static void
begin(cq_buf_t *b, uint8_t which)
{
    cq_buf_append(b, &which, 1);
}

static void
save_messages(cq_buf_t *b)
{
    size_t count = 0;
    union message m;
    const struct cq_schema *const *all = cq_schema_all(&count);
    for (size_t i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++) {
            random_message(all[i], &pool, m.bytes);
            begin(b, (uint8_t)i);
            cq_schema_write_array(all[i], b, m.bytes);
            save("message", all[i]->name, k, b);
        }
    }
}

static void
save_frame(cq_buf_t *b)
{
    size_t count = 0;
    union message m;
    const struct cq_op *ops = cq_op_all(&count);
    begin(b, FUZZ_FRAME);
    size_t place = cq_pack_array_begin(b);
    for (size_t i = 0; i < count; i++) {
        random_message(ops[i].fields, &pool, m.bytes);
        if (ops[i].is_push && ops[i].code != CQ_OP_OK && ops[i].code != CQ_OP_ERR) {
            cq_frame_push(b, (enum cq_op_code)ops[i].code, ops[i].fields, m.bytes);
        } else {
            cq_frame_request(b, (enum cq_op_code)ops[i].code, i, ops[i].fields, m.bytes);
        }
    }
    cq_pack_array_end(b, place, count);
    save("frame", "all", 0, b);
}

static void
save_envelopes(cq_buf_t *b)
{
    size_t count = 0;
    union message m;
    const struct cq_bus_op *ops = cq_bus_op_all(&count);
    begin(b, FUZZ_BODY);
    cq_pack_array(b, count);
    for (size_t i = 0; i < count; i++) {
        random_message(ops[i].fields, &pool, m.bytes);
        cq_pack_array(b, 1 + ops[i].fields->field_count);
        cq_pack_uint(b, i);
        cq_schema_write(ops[i].fields, b, m.bytes);
    }
    save("body", "all", 0, b);
    for (int k = 0; k < 2; k++) {
        struct cq_envelope e = {.op = (uint8_t)random_next(),
                                .corr = random_number(UINT64_MAX),
                                .deadline_ms = k ? 1000 : 0};
        begin(b, FUZZ_ENVELOPE);
        cq_envelope_write(b, &e);
        save("envelope", "header", k, b);
    }
}

static void
save_media(cq_buf_t *b)
{
    for (int k = 0; k < 2; k++) {
        union message m;
        random_message(&cq_media_schema, &pool, m.bytes);
        begin(b, FUZZ_MEDIA);
        cq_schema_write_array(&cq_media_schema, b, m.bytes);
        save("media", "field", k, b);
    }
}

static void
save_records(cq_buf_t *b)
{
    union message m;
    for (int kind = CQ_REC_MESSAGE; kind <= CQ_REC_FORGET; kind++) {
        const struct cq_schema *s = cq_rec_schema((enum cq_rec_kind)kind);
        random_message(s, &pool, m.bytes);
        begin(b, FUZZ_RECORD);
        cq_rec_write(b, (enum cq_rec_kind)kind, m.bytes);
        save("record", s->name, kind, b);
    }
}

int
main(int argc, char **argv)
{
    cq_buf_t b = {0};
    if (argc != 2) {
        (void)fprintf(stderr, "usage: seed_wire FOLDER\n");
        return EXIT_FAILURE;
    }
    folder = argv[1];
    save_messages(&b);
    save_frame(&b);
    save_envelopes(&b);
    save_records(&b);
    save_media(&b);
    cq_buf_free(&b);
    return EXIT_SUCCESS;
}
