/* SPDX-License-Identifier: MPL-2.0
 * Every message there and back with random values; cut off, with a field too many, with a field of
 * the wrong type.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wire/frame.h"

#include "tests/lib/random_message.h"

enum {
    ROUNDS = 200,
    STRUCT_MAX = 1024
};

union message {
    max_align_t align;
    uint8_t bytes[STRUCT_MAX];
};

static struct random_pool pool;

static void
is_same_field(const struct cq_schema *s, const struct cq_field *f, const void *a, const void *b)
{
    const struct cq_view *va = a;
    const struct cq_view *vb = b;
    const struct cq_list *la = a;
    const struct cq_list *lb = b;
    bool same = false;
    switch (f->type) {
    case CQ_FIELD_UINT:
        same = *(const uint64_t *)a == *(const uint64_t *)b;
        break;
    case CQ_FIELD_ID:
    case CQ_FIELD_ID_OR_NIL:
        same = cq_id_eq(a, b);
        break;
    case CQ_FIELD_BOOL:
        same = *(const bool *)a == *(const bool *)b;
        break;
    case CQ_FIELD_BIN:
    case CQ_FIELD_STR:
    case CQ_FIELD_ANY:
        same = va->n == vb->n && memcmp(va->p, vb->p, va->n) == 0;
        break;
    case CQ_FIELD_LIST:
        same = la->count == lb->count && la->items.n == lb->items.n &&
               memcmp(la->items.p, lb->items.p, la->items.n) == 0;
        break;
    }
    if (!same) {
        fail_msg("%s.%s differs", s->name, f->name);
    }
}

static void
is_empty_field(const struct cq_field *f, const uint8_t *out)
{
    static const struct cq_view none;
    if (f->type == CQ_FIELD_ANY || f->type == CQ_FIELD_BIN) {
        assert_memory_equal(out + f->offset, &none, sizeof none);
    } else if (f->type == CQ_FIELD_UINT) {
        assert_true(*(const uint64_t *)(const void *)(out + f->offset) == 0);
    } else {
        assert_int_equal(f->type, CQ_FIELD_ID_OR_NIL);
        assert_true(cq_id_is_none((const struct cq_id *)(out + f->offset)));
    }
}

static void
round_trip(const struct cq_schema *s)
{
    union message in;
    union message out;
    cq_buf_t b = {0};
    assert_true(s->struct_size <= STRUCT_MAX);
    random_message(s, &pool, in.bytes);
    cq_schema_write_array(s, &b, in.bytes);
    cq_reader_t r = cq_reader(b.data, b.size);
    assert_int_equal(cq_schema_read_array(s, &r, out.bytes), 0);
    assert_true(cq_reader_at_end(&r));
    for (size_t i = 0; i < s->field_count; i++) {
        is_same_field(s, &s->fields[i], in.bytes + s->fields[i].offset,
                      out.bytes + s->fields[i].offset);
    }
    for (size_t n = 0; n < b.size; n++) { /* every cut is noticed */
        r = cq_reader(b.data, n);
        assert_true(cq_schema_read_array(s, &r, out.bytes) < 0);
    }
    cq_buf_free(&b);
}

static void
every_message(void **state)
{
    size_t count = 0;
    (void)state;
    const struct cq_schema *const *all = cq_schema_all(&count);
    assert_true(count > 50);
    for (size_t i = 0; i < count; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            round_trip(all[i]);
        }
    }
}

/* Fields may be added at the end later: those are skipped. A missing one is an error, but for the
 * later ones, which are then as if they were nil or 0. */
static void
more_and_fewer_fields(void **state)
{
    size_t count = 0;
    (void)state;
    const struct cq_schema *const *all = cq_schema_all(&count);
    for (size_t i = 0; i < count; i++) {
        const struct cq_schema *s = all[i];
        union message in;
        union message out;
        cq_buf_t b = {0};
        random_message(s, &pool, in.bytes);
        cq_schema_write(s, &b, in.bytes);
        size_t size = b.size;
        cq_pack_array(&b, 2);
        cq_pack_uint(&b, 1);
        cq_pack_str(&b, "new", 3);
        cq_pack_nil(&b);
        cq_reader_t r = cq_reader(b.data, b.size);
        assert_int_equal(cq_schema_read(s, &r, s->field_count + 2, out.bytes), 0);
        assert_true(cq_reader_at_end(&r));
        r = cq_reader(b.data, size);
        bool is_later = s->field_count && s->fields[s->field_count - 1].is_later;
        assert_int_equal(cq_schema_read(s, &r, s->field_count - 1, out.bytes),
                         is_later ? 0 : -CQ_E_BAD_ARG);
        if (is_later) {
            is_empty_field(&s->fields[s->field_count - 1], out.bytes);
        }
        r = cq_reader(b.data, size);
        assert_true(cq_schema_read(s, &r, s->field_count + 1, out.bytes) < 0);
        cq_buf_free(&b);
    }
}

/* Writes a random message whose field number `bad` is a float, and reads it. */
static int
read_with_float(const struct cq_schema *s, size_t bad)
{
    static const uint8_t number[] = {0xca, 0, 0, 0, 0};
    union message in;
    union message out;
    cq_buf_t b = {0};
    random_message(s, &pool, in.bytes);
    for (size_t k = 0; k < s->field_count; k++) {
        const struct cq_schema one = {s->name, &s->fields[k], 1, s->struct_size};
        if (k == bad) {
            cq_buf_append(&b, number, sizeof number);
        } else {
            cq_schema_write(&one, &b, in.bytes);
        }
    }
    cq_reader_t r = cq_reader(b.data, b.size);
    int rc = cq_schema_read(s, &r, s->field_count, out.bytes);
    cq_buf_free(&b);
    return rc;
}

/* Each field in turn is a float, which none may be (ANY takes everything). */
static void
wrong_types(void **state)
{
    size_t count = 0;
    (void)state;
    const struct cq_schema *const *all = cq_schema_all(&count);
    for (size_t i = 0; i < count; i++) {
        for (size_t bad = 0; bad < all[i]->field_count; bad++) {
            bool is_any = all[i]->fields[bad].type == CQ_FIELD_ANY;
            assert_int_equal(read_with_float(all[i], bad), is_any ? 0 : -CQ_E_BAD_ARG);
        }
    }
}

/* The field `media`: nil, nothing, or what it says. */
static void
media(void **state)
{
    static const uint8_t thumbnail[CQ_THUMBNAIL_MAX + 1];
    struct cq_media in = {{{7}}, 1000, {thumbnail, CQ_THUMBNAIL_MAX}};
    struct cq_media out;
    cq_buf_t b = {0};
    (void)state;
    assert_int_equal(cq_media_read((struct cq_view){0}, &out), 0);
    assert_int_equal(cq_media_read((struct cq_view){(const uint8_t *)"\xc0", 1}, &out), 0);
    assert_true(cq_id_is_none(&out.blob));
    assert_true(cq_media_read((struct cq_view){(const uint8_t *)"\x90", 1}, &out) < 0);
    assert_true(cq_media_read((struct cq_view){(const uint8_t *)"\x01", 1}, &out) < 0);
    cq_schema_write_array(&cq_media_schema, &b, &in);
    assert_int_equal(cq_media_read((struct cq_view){b.data, b.size}, &out), 1);
    assert_true(cq_id_eq(&out.blob, &in.blob) && out.length == 1000);
    assert_int_equal(out.thumbnail.n, CQ_THUMBNAIL_MAX);
    for (size_t n = 1; n < b.size; n++) {
        assert_true(cq_media_read((struct cq_view){b.data, n}, &out) < 0);
    }
    cq_pack_nil(&b); /* a value behind it is no part of it */
    assert_true(cq_media_read((struct cq_view){b.data, b.size}, &out) < 0);
    in.thumbnail.n++;
    cq_buf_clear(&b);
    cq_schema_write_array(&cq_media_schema, &b, &in);
    assert_true(cq_media_read((struct cq_view){b.data, b.size}, &out) < 0);
    cq_buf_free(&b);
}

/* Limits of sizes and numbers, one past each. */
static void
limits(void **state)
{
    struct cq_friend_name in;
    struct cq_friend_name out;
    char text[66];
    cq_buf_t b = {0};
    (void)state;
    memset(text, 'a', sizeof text);
    for (size_t n = 0; n <= 65; n++) {
        cq_buf_clear(&b);
        in.name = (struct cq_view){(const uint8_t *)text, n};
        cq_schema_write(&cq_friend_name_schema, &b, &in);
        cq_reader_t r = cq_reader(b.data, b.size);
        assert_int_equal(cq_schema_read(&cq_friend_name_schema, &r, 1, &out),
                         n <= 64 ? 0 : -CQ_E_BAD_ARG);
    }
    struct cq_key_have have = {.chat = {{1}}, .key_version = (uint64_t)UINT32_MAX + 1};
    cq_buf_clear(&b);
    cq_schema_write(&cq_key_have_schema, &b, &have);
    cq_reader_t r = cq_reader(b.data, b.size);
    assert_int_equal(cq_schema_read(&cq_key_have_schema, &r, 2, &have), -CQ_E_BAD_ARG);
    cq_buf_clear(&b);
    cq_pack_array(&b, CQ_ACK_MAX + 1);
    for (int i = 0; i <= CQ_ACK_MAX; i++) {
        cq_pack_nil(&b);
    }
    struct cq_ack ack;
    r = cq_reader(b.data, b.size);
    assert_int_equal(cq_schema_read(&cq_ack_schema, &r, 1, &ack), -CQ_E_BAD_ARG);
    cq_buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message), cmocka_unit_test(more_and_fewer_fields),
        cmocka_unit_test(wrong_types),   cmocka_unit_test(media),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests_name("wire.schema", tests, NULL, NULL);
}
