/* SPDX-License-Identifier: MPL-2.0
 * Client frames, bus envelopes, log records, and the tables of operations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/frame.h"
#include "common/wire/pack.h"

#define FRAME(bytes) (bytes), sizeof(bytes) - 1

static void
frame_there_and_back(void **state)
{
    cq_buf_t b = {0};
    cq_reader_t r;
    struct cq_frame_op op;
    struct cq_typing typing = {.chat = {{1}}, .on = true};
    struct cq_typing_note note = {.chat = {{1}}, .user = {{2}}, .on = true};
    struct cq_sent sent = {.seq = 9, .time_unix_ms = 10};
    struct cq_failure failure;
    (void)state;
    size_t place = cq_pack_array_begin(&b);
    cq_frame_request(&b, CQ_OP_TYPING, 7, &cq_typing_schema, &typing);
    cq_frame_ok(&b, 8, &cq_sent_schema, &sent);
    cq_frame_err(&b, 9, -CQ_E_OUT_OF_ORDER, 100, 5);
    cq_frame_push(&b, CQ_OP_TYPING_NOTE, &cq_typing_note_schema, &note);
    cq_frame_ok_raw(&b, 10, 1, (struct cq_view){(const uint8_t *)"\x05", 1});
    cq_pack_array_end(&b, place, 5);
    assert_int_equal(cq_frame_open(b.data, b.size, 5, &r), 5);
    assert_int_equal(cq_frame_next(&r, &op), 0);
    assert_true(op.code == CQ_OP_TYPING && op.rid == 7 && op.field_count == 2);
    assert_int_equal(cq_schema_read(&cq_typing_schema, &op.fields, op.field_count, &typing), 0);
    assert_int_equal(cq_frame_next(&r, &op), 0);
    assert_true(op.code == CQ_OP_OK && op.rid == 8 && op.field_count == 2);
    assert_int_equal(cq_schema_read(&cq_sent_schema, &op.fields, op.field_count, &sent), 0);
    assert_int_equal(sent.seq, 9);
    assert_int_equal(cq_frame_next(&r, &op), 0);
    assert_true(op.code == CQ_OP_ERR && op.rid == 9);
    assert_int_equal(cq_schema_read(&cq_failure_schema, &op.fields, op.field_count, &failure), 0);
    assert_true(failure.err == CQ_E_OUT_OF_ORDER && failure.retry_after_ms == 100 &&
                failure.detail == 5);
    assert_int_equal(cq_frame_next(&r, &op), 0);
    assert_true(op.code == CQ_OP_TYPING_NOTE && op.rid == 0 && op.field_count == 3);
    assert_int_equal(cq_frame_next(&r, &op), 0);
    assert_true(op.rid == 10 && op.field_count == 1 && cq_read_uint(&op.fields, 9) == 5);
    assert_true(cq_reader_at_end(&r));
    assert_int_equal(cq_frame_open(b.data, b.size, 4, &r), -CQ_E_TOO_BIG);
    cq_buf_free(&b);
}

static void
hostile_frames(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        int open, next;
    } cases[] = {
        {FRAME(""), -CQ_E_BAD_FRAME, 0},
        {FRAME("\x90"), -CQ_E_BAD_FRAME, 0},
        {FRAME("\xc0"), -CQ_E_BAD_FRAME, 0},
        {FRAME("\x81\x01\x02"), -CQ_E_BAD_FRAME, 0},
        {FRAME("\xdd\xff\xff\xff\xff"), -CQ_E_TOO_BIG, 0},
        {FRAME("\x91"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\x05"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\x90"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\x91\xa1x"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\x91\xcd\x01\x00"), 1, 0},       /* codes above a byte are unknown ones */
        {FRAME("\x91\x91\x05"), 1, -CQ_E_BAD_FRAME}, /* PING without rid */
        {FRAME("\x91\x92\x05\xa1x"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\x92\x05\x01"), 1, 0},
        {FRAME("\x91\x91\x7f"), 1, 0}, /* unknown codes are the gate's business */
        {FRAME("\x91\x92\x7f\xa1x"), 1, 0},
        {FRAME("\x91\x92\x05\xc1"), 1, -CQ_E_BAD_FRAME},
        {FRAME("\x91\xdd\xff\xff\xff\xff\x05"), 1, -CQ_E_BAD_FRAME},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cq_reader_t r;
        struct cq_frame_op op;
        int rc = cq_frame_open(cases[i].bytes, cases[i].n, CQ_FRAME_OPS_MAX, &r);
        if (rc != cases[i].open || (rc > 0 && cq_frame_next(&r, &op) != cases[i].next)) {
            fail_msg("case %zu: open %d", i, rc);
        }
    }
}

static void
envelopes(void **state)
{
    cq_buf_t b = {0};
    struct cq_envelope in = {.op = 0xff,
                             .corr = UINT64_MAX,
                             .deadline_ms = UINT64_MAX,
                             .flags = UINT64_MAX,
                             .sent_mono_us = UINT64_MAX};
    struct cq_envelope out;
    (void)state;
    cq_envelope_write(&b, &in);
    assert_true(b.size <= CQ_ENVELOPE_HEADER_MAX);
    assert_int_equal(cq_envelope_read(b.data, b.size, &out), 0);
    assert_true(out.op == in.op && out.corr == in.corr && out.deadline_ms == in.deadline_ms &&
                out.flags == in.flags && out.sent_mono_us == in.sent_mono_us);
    for (size_t n = 0; n < b.size; n++) {
        assert_int_equal(cq_envelope_read(b.data, n, &out), -CQ_E_BAD_FRAME);
    }
    cq_buf_free(&b);
    char big[CQ_ENVELOPE_HEADER_MAX + 1] = "\x95\x01\x01\x01\x00";
    assert_int_equal(cq_envelope_read(big, sizeof big, &out), -CQ_E_TOO_BIG);
    assert_int_equal(cq_envelope_read(FRAME("\x95\x02\x01\x01\x00\x00"), &out), -CQ_E_BAD_FRAME);
    assert_int_equal(cq_envelope_read(FRAME("\x94\x01\x01\x01\x00"), &out), -CQ_E_BAD_FRAME);
    assert_int_equal(cq_envelope_read(FRAME("\x95\x01\x01\x01\x00\x00"), &out), 0);
    assert_int_equal(out.sent_mono_us, 0); /* not said */
    assert_int_equal(cq_envelope_read(FRAME("\x96\x01\x01\x01\x00\x00\x07"), &out), 0);
    assert_int_equal(out.sent_mono_us, 7);
    assert_int_equal(cq_envelope_read(FRAME("\x96\x01\x01\x01\x00\x00\xc0"), &out),
                     -CQ_E_BAD_FRAME);
    cq_reader_t r;
    assert_int_equal(cq_envelope_open(FRAME("\x90"), &r), 0);
    assert_int_equal(cq_envelope_open(FRAME("\x92\x01\x02"), &r), 2);
    assert_int_equal(cq_envelope_open(FRAME("\xdc\x20\x01"), &r),
                     -CQ_E_BAD_FRAME); /* 8,193 items */
    assert_int_equal(cq_envelope_open(FRAME(""), &r), -CQ_E_BAD_FRAME);
}

static void
version_zero_is_refused(void **state)
{
    struct cq_envelope out;
    (void)state;
    assert_int_equal(cq_envelope_read(FRAME("\x95\x00\x01\x01\x00\x00"), &out), -CQ_E_BAD_FRAME);
}

static void
records(void **state)
{
    cq_buf_t b = {0};
    struct cq_rec_receipt in = {.chat = {{1}}, .user = {{2}}, .up_to = 5, .time_unix_ms = 6};
    struct cq_rec_receipt out;
    enum cq_rec_kind kind;
    cq_reader_t fields;
    size_t count = 0;
    (void)state;
    cq_rec_write(&b, CQ_REC_RECEIPT, &in);
    assert_int_equal(cq_rec_open(b.data, b.size, &kind, &fields, &count), 0);
    assert_int_equal(kind, CQ_REC_RECEIPT);
    assert_int_equal(cq_schema_read(cq_rec_schema(kind), &fields, count, &out), 0);
    assert_true(out.up_to == 5 && cq_id_is_none(&out.device));
    cq_buf_free(&b);
    assert_int_equal(cq_rec_open(FRAME(""), &kind, &fields, &count), -CQ_E_CORRUPT);
    assert_int_equal(cq_rec_open(FRAME("\x90"), &kind, &fields, &count), -CQ_E_CORRUPT);
    assert_int_equal(cq_rec_open(FRAME("\x91\x00"), &kind, &fields, &count), -CQ_E_CORRUPT);
    assert_int_equal(cq_rec_open(FRAME("\x91\x7f"), &kind, &fields, &count), -CQ_E_CORRUPT);
    assert_int_equal(cq_rec_open(FRAME("\x91\xcd\x01\x01"), &kind, &fields, &count), -CQ_E_CORRUPT);
}

/* What the first version wrote has fewer fields at the end. */
static void
records_of_the_first_version(void **state)
{
    static const uint8_t device_nil = 0xc0;
    cq_buf_t b = {0};
    struct cq_rec_friend in = {.user = {{1}},
                               .peer = {{2}},
                               .user_name = {(const uint8_t *)"ann", 3},
                               .peer_name = {(const uint8_t *)"bob", 3},
                               .time_unix_ms = 6};
    struct cq_rec_friend out;
    enum cq_rec_kind kind;
    cq_reader_t fields;
    size_t count = 0;
    (void)state;
    cq_rec_write(&b, CQ_REC_FRIEND, &in);
    assert_int_equal(b.data[b.size - 1], device_nil);
    assert_int_equal(b.data[0], 0x90 + 15);
    b.data[0]--;
    b.size--;
    assert_int_equal(cq_rec_open(b.data, b.size, &kind, &fields, &count), 0);
    assert_int_equal(cq_rec_read(kind, &fields, count, &out), 0);
    assert_true(out.time_unix_ms == 6 && cq_id_is_none(&out.device));
    b.data[0]--; /* without its time it is damaged */
    b.size--;
    assert_int_equal(cq_rec_open(b.data, b.size, &kind, &fields, &count), 0);
    assert_int_equal(cq_rec_read(kind, &fields, count, &out), -CQ_E_BAD_ARG);
    cq_buf_free(&b);
}

static void
tables_are_consistent(void **state)
{
    size_t count = 0;
    (void)state;
    const struct cq_op *ops = cq_op_all(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(cq_op_find(ops[i].code), &ops[i]); /* no code twice */
        assert_int_equal(ops[i].is_push, ops[i].code >= 0x80);
        assert_int_equal(ops[i].is_push, ops[i].answer == NULL);
        assert_non_null(ops[i].fields);
        assert_true(ops[i].doc[0]);
    }
    assert_null(cq_op_find(0xff));
    assert_null(cq_op_find(0x120));
    const struct cq_bus_op *bus = cq_bus_op_all(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(cq_bus_op_find(bus[i].code), &bus[i]);
        assert_non_null(bus[i].fields);
    }
    assert_null(cq_bus_op_find(0));
    assert_null(cq_bus_op_find(1 << 20));
}

static void
buffer(void **state)
{
    cq_buf_t b = {0};
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;
        cq_buf_append(&b, &byte, 1);
    }
    assert_int_equal(b.size, 1000);
    assert_int_equal(b.data[999], 999 & 255);
    (void)cq_buf_reserve(&b, 5000);
    assert_true(b.room >= 6000);
    uint8_t *taken = cq_buf_take(&b, &n);
    assert_int_equal(n, 1000);
    assert_null(b.data);
    free(taken);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_there_and_back),
        cmocka_unit_test(hostile_frames),
        cmocka_unit_test(envelopes),
        cmocka_unit_test(version_zero_is_refused),
        cmocka_unit_test(records),
        cmocka_unit_test(records_of_the_first_version),
        cmocka_unit_test(tables_are_consistent),
        cmocka_unit_test(buffer),
    };
    return cmocka_run_group_tests_name("wire.frame", tests, NULL, NULL);
}
