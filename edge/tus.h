/* SPDX-License-Identifier: MPL-2.0
 * What header fields of uploads (tus 1.0) and downloads (RFC 9110) say. Pure: views in, values out.
 */
#ifndef EDGE_TUS_H
#define EDGE_TUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

enum {
    EDGE_TUS_DIGEST_MAX = 32,
    EDGE_TUS_HASH_NAME_MAX = 16,
};

/* "/blob/" and 32 lower-case hex digits, nothing else. */
bool edge_tus_path(struct cq_view path, struct cq_id *id);

/* Base64 in either alphabet, with or without padding, into out. Bytes, or -CQ_E_BAD_ARG: not that,
 * or more than `room`. */
int edge_tus_base64(struct cq_view text, uint8_t *out, size_t room) CQ_MUST_CHECK;

/* "Bearer TOKEN", TOKEN in base64. Bytes, or -CQ_E_BAD_TOKEN. */
int edge_tus_bearer(struct cq_view field, uint8_t *out, size_t room) CQ_MUST_CHECK;

/* Upload-Metadata: pairs of a key and a value in base64, each key once. */
bool edge_tus_metadata_ok(struct cq_view field);

struct edge_tus_checksum {
    char hash[EDGE_TUS_HASH_NAME_MAX];
    uint8_t digest[EDGE_TUS_DIGEST_MAX];
    size_t size;
};
/* Upload-Checksum: a hash's name and a value in base64. Whether the hash is known and has this size
 * is not looked at. 0 or -CQ_E_BAD_ARG. */
int edge_tus_checksum(struct cq_view field, struct edge_tus_checksum *out) CQ_MUST_CHECK;

/* Range with one range. What is none of ours is as if it were not there (RFC 9110 §14.2): `is_one`
 * false. */
struct edge_tus_range {
    bool is_one;
    bool is_suffix;       /* the last `last` bytes */
    uint64_t first, last; /* last: UINT64_MAX: to the end */
};
void edge_tus_range(struct cq_view field, struct edge_tus_range *r);
/* The part of `length` bytes that it means. False: there is nothing in it. */
bool
edge_tus_range_of(const struct edge_tus_range *r, uint64_t length, uint64_t *from, uint64_t *n);

/* Is the ETag (with its quotes) one of the list, or the list "*"? A weak one counts, too. */
bool edge_tus_etag_listed(struct cq_view list, const char *etag);

#endif
