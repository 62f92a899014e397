/* SPDX-License-Identifier: MPL-2.0 */
#include "store/account.h"

#include <string.h>

#include "common/wire/name.h"
#include "common/wire/pack.h"

enum {
    ACCOUNT_FIELDS_MIN = 3, /* rows of before privacy */
    ACCOUNT_FIELDS = 4,
    DEVICE_FIELDS_MIN = 5, /* rows of before audits were kept */
    DEVICE_FIELDS = 7
};

void
store_account_write(cq_buf_t *b, const struct store_account *a)
{
    cq_pack_array(b, ACCOUNT_FIELDS);
    cq_pack_str(b, a->name, strnlen(a->name, CQ_NAME_MAX));
    cq_pack_str(b, a->hash, strnlen(a->hash, STORE_HASH_SIZE - 1));
    cq_pack_uint(b, a->created_unix_ms);
    cq_pack_bool(b, a->hide_last_seen);
}

int
store_account_read(struct cq_view row, struct store_account *a)
{
    cq_reader_t r = cq_reader_of(row);
    memset(a, 0, sizeof *a);
    size_t fields = cq_read_array(&r, ACCOUNT_FIELDS_MIN, ACCOUNT_FIELDS);
    struct cq_view name = cq_read_str(&r, CQ_NAME_MIN, CQ_NAME_MAX);
    struct cq_view hash = cq_read_str(&r, 1, STORE_HASH_SIZE - 1);
    uint64_t created_unix_ms = cq_read_uint(&r, UINT64_MAX);
    bool hide_last_seen = fields > ACCOUNT_FIELDS_MIN && cq_read_bool(&r);
    if (r.err || !cq_reader_at_end(&r) || !cq_name_ok((const char *)name.p, name.n)) {
        return -CQ_E_CORRUPT;
    }
    memcpy(a->name, name.p, name.n);
    memcpy(a->hash, hash.p, hash.n);
    a->created_unix_ms = created_unix_ms;
    a->hide_last_seen = hide_last_seen;
    return 0;
}

void
store_device_write(cq_buf_t *b, const struct store_device *d)
{
    cq_pack_array(b, DEVICE_FIELDS);
    cq_pack_bin(b, d->key, sizeof d->key);
    cq_pack_str(b, d->label, strnlen(d->label, CQ_LABEL_MAX));
    cq_pack_uint(b, d->created_unix_ms);
    cq_pack_uint(b, d->generation);
    cq_pack_bool(b, d->revoked);
    cq_pack_uint(b, d->known_pos);
    cq_pack_bool(b, d->retired);
}

int
store_device_read(struct cq_view row, struct store_device *d)
{
    cq_reader_t r = cq_reader_of(row);
    memset(d, 0, sizeof *d);
    size_t fields = cq_read_array(&r, DEVICE_FIELDS_MIN, DEVICE_FIELDS);
    struct cq_view key = cq_read_bin(&r, sizeof d->key, sizeof d->key);
    struct cq_view label = cq_read_str(&r, 0, CQ_LABEL_MAX);
    uint64_t created_unix_ms = cq_read_uint(&r, UINT64_MAX);
    uint64_t generation = cq_read_uint(&r, UINT64_MAX);
    bool revoked = cq_read_bool(&r);
    uint64_t known_pos = fields > DEVICE_FIELDS_MIN ? cq_read_uint(&r, UINT64_MAX) : 0;
    bool retired = fields > DEVICE_FIELDS_MIN && cq_read_bool(&r);
    if (r.err || !cq_reader_at_end(&r)) {
        return -CQ_E_CORRUPT;
    }
    memcpy(d->key, key.p, sizeof d->key);
    if (label.n) {
        memcpy(d->label, label.p, label.n);
    }
    d->created_unix_ms = created_unix_ms;
    d->generation = generation;
    d->revoked = revoked;
    d->known_pos = known_pos;
    d->retired = retired;
    return 0;
}
