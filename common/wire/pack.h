/* SPDX-License-Identifier: MPL-2.0
 * Writing msgpack into a buffer. The one file pair that wraps msgpack-c.
 */
#ifndef CQ_WIRE_PACK_H
#define CQ_WIRE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/id.h"

void cq_pack_nil(cq_buf_t *b);
void cq_pack_bool(cq_buf_t *b, bool v);
void cq_pack_uint(cq_buf_t *b, uint64_t v);
void cq_pack_bin(cq_buf_t *b, const void *data, size_t n);
void cq_pack_str(cq_buf_t *b, const char *s, size_t n);
void cq_pack_array(cq_buf_t *b, size_t n);            /* header only: n values follow */
void cq_pack_id(cq_buf_t *b, const struct cq_id *id); /* none as nil */

/* An array whose length is known only at the end: begin writes a 5-byte header and returns its
 * place, end sets the length. */
size_t cq_pack_array_begin(cq_buf_t *b);
void cq_pack_array_end(cq_buf_t *b, size_t place, size_t n);

#endif
