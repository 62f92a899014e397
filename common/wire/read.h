/* SPDX-License-Identifier: MPL-2.0
 * Reading msgpack in place: a cursor over borrowed bytes, no allocation, no recursion. msgpack-c's
 * own unpacker allocates 24 bytes for every element a header *claims* (five bytes from a peer ask
 * for 100 GB), so decoding is here.
 *
 * The first error sticks: every later call fails too and yields zeroes, so a decoder may read all
 * its fields and check r->err once.
 */
#ifndef CQ_WIRE_READ_H
#define CQ_WIRE_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"

typedef struct cq_reader {
    const uint8_t *p;
    const uint8_t *end;
    int err; /* 0, -CQ_E_BAD_FRAME (not msgpack, cut off), -CQ_E_BAD_ARG (other type or range) */
} cq_reader_t;

/* A view into somebody else's bytes. */
struct cq_view {
    const uint8_t *p;
    size_t n;
};

static inline cq_reader_t
cq_reader(const void *data, size_t n)
{
    const uint8_t *p = data;
    return (cq_reader_t){p, p ? p + n : p, 0};
}

static inline cq_reader_t
cq_reader_of(struct cq_view v)
{
    return cq_reader(v.p, v.n);
}

static inline bool
cq_reader_at_end(const cq_reader_t *r)
{
    return r->p == r->end;
}

/* Each returns the value, or zero with r->err set. Views are valid as long as the bytes under the
 * reader. */
uint64_t cq_read_uint(cq_reader_t *r, uint64_t max);
bool cq_read_bool(cq_reader_t *r);
struct cq_view cq_read_bin(cq_reader_t *r, size_t min, size_t max);
struct cq_view cq_read_str(cq_reader_t *r, size_t min, size_t max); /* checked UTF-8, no NUL */
size_t cq_read_array(cq_reader_t *r, size_t min, size_t max); /* number of values that follow */
struct cq_id cq_read_id(cq_reader_t *r);                      /* 16 bytes of bin; not nil */
struct cq_id cq_read_id_or_nil(cq_reader_t *r);               /* nil is none */
bool cq_read_nil(cq_reader_t *r); /* true and consumed if the next value is nil; never an error */
struct cq_view
cq_read_any(cq_reader_t *r); /* the next whole value, as its bytes, nesting up to CQ_DEPTH_MAX */

/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool cq_utf8_ok(const void *s, size_t n);

#endif
