/* SPDX-License-Identifier: MPL-2.0
 * A message's fields as data. From one X-macro list of fields come the C struct, its reader, its
 * writer, the tables in the documents and the fuzz target; see frame.h for the lists.
 *
 * On the wire the fields are consecutive values of one msgpack array. A reader ignores values after
 * the fields it knows, so fields may be added at the end of an operation later.
 */
#ifndef CQ_WIRE_SCHEMA_H
#define CQ_WIRE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

enum cq_field_type {
    CQ_FIELD_UINT,      /* uint64_t; max */
    CQ_FIELD_ID,        /* struct cq_id, never none */
    CQ_FIELD_ID_OR_NIL, /* struct cq_id, none as nil */
    CQ_FIELD_BIN,       /* struct cq_view; min, max bytes */
    CQ_FIELD_STR,       /* struct cq_view; min, max bytes of UTF-8 */
    CQ_FIELD_BOOL,      /* bool */
    CQ_FIELD_LIST,      /* struct cq_list; max entries */
    CQ_FIELD_ANY,       /* struct cq_view of one whole msgpack value (empty view: nil) */
};

/* An array whose entries are read one by one: the bytes of all entries, without the array header.
 */
struct cq_list {
    struct cq_view items;
    size_t count;
};

struct cq_field {
    const char *name;
    enum cq_field_type type;
    bool is_later; /* earlier versions do not have it: may be missing, at the end only */
    size_t offset;
    uint64_t min;
    uint64_t max;
};

struct cq_schema {
    const char *name;
    const struct cq_field *fields;
    size_t field_count;
    size_t struct_size;
};

/* The macros that a field list is called with: for the struct's members … */
#define CQ_M_UINT(T, f, max)      uint64_t f;
#define CQ_M_ID(T, f)             struct cq_id f;
#define CQ_M_VIEW(T, f, min, max) struct cq_view f;
#define CQ_M_BOOL(T, f)           bool f;
#define CQ_M_LIST(T, f, max)      struct cq_list f;
#define CQ_M_ANY(T, f)            struct cq_view f;
#define CQ_M_UINT_LATER           CQ_M_UINT
#define CQ_M_ANY_LATER            CQ_M_ANY
#define CQ_M_ID_LATER             CQ_M_ID
#define CQ_M_VIEW_LATER           CQ_M_VIEW
/* … and for their descriptors. */
#define CQ_D_UINT(T, f, max)           {#f, CQ_FIELD_UINT, false, offsetof(T, f), 0, max},
#define CQ_D_UINT_LATER(T, f, max)     {#f, CQ_FIELD_UINT, true, offsetof(T, f), 0, max},
#define CQ_D_ID(T, f)                  {#f, CQ_FIELD_ID, false, offsetof(T, f), 0, 0},
#define CQ_D_NID(T, f)                 {#f, CQ_FIELD_ID_OR_NIL, false, offsetof(T, f), 0, 0},
#define CQ_D_NID_LATER(T, f)           {#f, CQ_FIELD_ID_OR_NIL, true, offsetof(T, f), 0, 0},
#define CQ_D_BIN(T, f, min, max)       {#f, CQ_FIELD_BIN, false, offsetof(T, f), min, max},
#define CQ_D_BIN_LATER(T, f, min, max) {#f, CQ_FIELD_BIN, true, offsetof(T, f), min, max},
#define CQ_D_STR(T, f, min, max)       {#f, CQ_FIELD_STR, false, offsetof(T, f), min, max},
#define CQ_D_BOOL(T, f)                {#f, CQ_FIELD_BOOL, false, offsetof(T, f), 0, 0},
#define CQ_D_LIST(T, f, max)           {#f, CQ_FIELD_LIST, false, offsetof(T, f), 0, max},
#define CQ_D_ANY(T, f)                 {#f, CQ_FIELD_ANY, false, offsetof(T, f), 0, 0},
#define CQ_D_ANY_LATER(T, f)           {#f, CQ_FIELD_ANY, true, offsetof(T, f), 0, 0},

/* CQ_DECLARE_MESSAGE(send, CQ_SEND_FIELDS): struct cq_send and const struct cq_schema
 * cq_send_schema. */
#define CQ_DECLARE_MESSAGE(tag, FIELDS) \
    struct cq_##tag {                   \
        FIELDS(struct cq_##tag,         \
               CQ_M_UINT,               \
               CQ_M_ID,                 \
               CQ_M_ID,                 \
               CQ_M_VIEW,               \
               CQ_M_VIEW,               \
               CQ_M_BOOL,               \
               CQ_M_LIST,               \
               CQ_M_ANY)                \
    };                                  \
    extern const struct cq_schema cq_##tag##_schema;

#define CQ_DEFINE_MESSAGE(tag, FIELDS)                                                             \
    static const struct cq_field tag##_fields[] = {FIELDS(struct cq_##tag, CQ_D_UINT, CQ_D_ID,     \
                                                          CQ_D_NID, CQ_D_BIN, CQ_D_STR, CQ_D_BOOL, \
                                                          CQ_D_LIST, CQ_D_ANY)};                   \
    const struct cq_schema cq_##tag##_schema = {#tag, tag##_fields,                                \
                                                sizeof tag##_fields / sizeof tag##_fields[0],      \
                                                sizeof(struct cq_##tag)};

/* Reads the fields from the next `available` values and skips what is left of them. Later fields
 * may be missing: they are none, empty, 0. 0 or -CQ_E_BAD_ARG/-CQ_E_BAD_FRAME; *out (struct_size
 * bytes) is zeroed first; views in it borrow the reader's bytes. */
int cq_schema_read(const struct cq_schema *s, cq_reader_t *r, size_t available, void *out)
    CQ_MUST_CHECK;
/* As cq_schema_read for fields that are an array of their own. */
int cq_schema_read_array(const struct cq_schema *s, cq_reader_t *r, void *out) CQ_MUST_CHECK;

/* Writes the fields as consecutive values; write_array puts the array header before them. */
void cq_schema_write(const struct cq_schema *s, cq_buf_t *b, const void *in);
void cq_schema_write_array(const struct cq_schema *s, cq_buf_t *b, const void *in);

/* A list from entries packed one after the other into a buffer (borrowed). */
static inline struct cq_list
cq_list_of(const cq_buf_t *b, size_t count)
{
    return (struct cq_list){{b->data, b->size}, count};
}

static inline cq_reader_t
cq_list_reader(const struct cq_list *l)
{
    return cq_reader_of(l->items);
}

#endif
