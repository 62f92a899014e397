/* SPDX-License-Identifier: MPL-2.0 */
#include "store/blob.h"

#include <string.h>

#include "common/wire/pack.h"

enum {
    BLOB_FIELDS = 7,
    USE_FIELDS = 2
};

void
store_blob_write(cq_buf_t *b, const struct store_blob *blob)
{
    cq_pack_array(b, BLOB_FIELDS);
    cq_pack_uint(b, blob->state);
    cq_pack_bin(b, blob->user.b, CQ_ID_SIZE);
    cq_pack_uint(b, blob->length);
    cq_pack_uint(b, blob->since_unix_ms);
    cq_pack_uint(b, blob->expires_unix_ms);
    cq_pack_uint(b, blob->references);
    cq_pack_bin(b, blob->hash, sizeof blob->hash);
}

int
store_blob_read(struct cq_view row, struct store_blob *blob)
{
    cq_reader_t r = cq_reader_of(row);
    memset(blob, 0, sizeof *blob);
    (void)cq_read_array(&r, BLOB_FIELDS, BLOB_FIELDS);
    blob->state = cq_read_uint(&r, STORE_BLOB_DEAD);
    blob->user = cq_read_id(&r);
    blob->length = cq_read_uint(&r, INT64_MAX);
    blob->since_unix_ms = cq_read_uint(&r, UINT64_MAX);
    blob->expires_unix_ms = cq_read_uint(&r, UINT64_MAX);
    blob->references = cq_read_uint(&r, UINT64_MAX);
    struct cq_view hash = cq_read_bin(&r, sizeof blob->hash, sizeof blob->hash);
    if (r.err || !cq_reader_at_end(&r) || blob->state < STORE_BLOB_UPLOADING) {
        return -CQ_E_CORRUPT;
    }
    memcpy(blob->hash, hash.p, sizeof blob->hash);
    return 0;
}

void
store_blob_write_use(cq_buf_t *b, const struct store_blob_use *use)
{
    cq_pack_array(b, USE_FIELDS);
    cq_pack_uint(b, use->bytes);
    cq_pack_uint(b, use->count);
}

int
store_blob_read_use(struct cq_view row, struct store_blob_use *use)
{
    cq_reader_t r = cq_reader_of(row);
    (void)cq_read_array(&r, USE_FIELDS, USE_FIELDS);
    use->bytes = cq_read_uint(&r, UINT64_MAX);
    use->count = cq_read_uint(&r, UINT64_MAX);
    return r.err || !cq_reader_at_end(&r) ? -CQ_E_CORRUPT : 0;
}
