/* SPDX-License-Identifier: MPL-2.0
 * BLOB_USE: what a user's blobs take, against the rows of these blobs. Both change with every
 * upload, so sums over several snapshots need not agree; only if they do not, they are made again
 * within one.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/blob.h"
#include "store/fsck_impl.h"

enum {
    ROOM_FIRST = 1024,
};

struct sum {
    struct cq_id user;
    uint64_t bytes, count;
    bool is_used, has_row;
};

struct uses {
    struct store_fsck *f;
    struct sum *sums; /* open addressing; room is a power of two */
    size_t count, room;
    unsigned part, part_count; /* of the users, by their ids */
    bool is_silent;
    uint64_t wrong;
};

static struct sum *
place_of(struct sum *sums, size_t room, const struct cq_id *user)
{
    size_t i = (size_t)cq_id_hash(user) & (room - 1);
    while (sums[i].is_used && !cq_id_eq(&sums[i].user, user)) {
        i = (i + 1) & (room - 1);
    }
    return &sums[i];
}

static struct sum *
sum_of(struct uses *u, const struct cq_id *user)
{
    if (2 * u->count >= u->room) {
        size_t room = u->room ? 2 * u->room : ROOM_FIRST;
        struct sum *sums = cq_alloc(room * sizeof *sums);
        for (size_t i = 0; i < u->room; i++) {
            if (u->sums[i].is_used) {
                *place_of(sums, room, &u->sums[i].user) = u->sums[i];
            }
        }
        free(u->sums);
        u->sums = sums;
        u->room = room;
    }
    struct sum *s = place_of(u->sums, u->room, user);
    if (!s->is_used) {
        *s = (struct sum){.user = *user, .is_used = true};
        u->count++;
    }
    return s;
}

static bool
is_in_part(const struct uses *u, const struct cq_id *user)
{
    return user->b[CQ_ID_SIZE - 1] % u->part_count == u->part;
}

static bool
on_blob(void *ctx, struct cq_view key, struct cq_view value)
{
    struct uses *u = ctx;
    struct store_blob blob;
    (void)key;
    if (store_blob_read(value, &blob) == 0 && is_in_part(u, &blob.user)) {
        struct sum *s = sum_of(u, &blob.user);
        s->bytes += blob.length;
        s->count++;
    }
    return true;
}

static void
wrong(struct uses *u,
      enum store_fsck_kind kind,
      const struct cq_id *user,
      const char *is,
      const char *should)
{
    struct store_key key = store_key_of(user);
    u->wrong++;
    if (!u->is_silent) {
        store_fsck_find_row(u->f, kind, STORE_TABLE_BLOB_USE, store_key_view(&key), is, should);
    }
}

static bool
on_use(void *ctx, struct cq_view key, struct cq_view value)
{
    struct uses *u = ctx;
    struct store_blob_use use;
    struct cq_id user;
    if (key.n != 2 + CQ_ID_SIZE) {
        return true; /* see on_key */
    }
    memcpy(user.b, key.p + 2, CQ_ID_SIZE);
    if (!is_in_part(u, &user)) {
        return true;
    }
    struct sum *s = sum_of(u, &user);
    s->has_row = true;
    if (store_blob_read_use(value, &use)) {
        wrong(u, STORE_FSCK_ROW_VALUE, &user, "does not decode", "a row of this table");
    } else if (use.count >= s->count && u->f->blobs_lost) {
        return true; /* perhaps one of those was theirs */
    } else if (!s->count) {
        wrong(u, STORE_FSCK_ROW_EXTRA, &user, store_fsck_find_number("blobs", use.count).s,
              "no row: they have none");
    } else if (use.count != s->count) {
        wrong(u, STORE_FSCK_ROW_WRONG, &user, store_fsck_find_number("blobs", use.count).s,
              store_fsck_find_number("blobs", s->count).s);
    } else if (use.bytes != s->bytes) {
        wrong(u, STORE_FSCK_ROW_WRONG, &user, store_fsck_find_number("bytes", use.bytes).s,
              store_fsck_find_number("bytes", s->bytes).s);
    }
    return true;
}

/* In as many snapshots as it takes, or in one. */
static int
walk(struct uses *u, enum store_table t, store_fsck_row_fn *fn, bool is_one)
{
    const struct cq_view all = {0};
    return is_one ? store_snapshot_scan(u->f->snapshot, t, all, all, fn, u)
                  : store_fsck_walk(u->f, t, all, fn, u);
}

static int
check(struct uses *u, bool is_one)
{
    u->count = 0;
    u->wrong = 0;
    u->is_silent = !is_one;
    if (u->room) {
        memset(u->sums, 0, u->room * sizeof *u->sums);
    }
    int rc = store_fsck_fresh(u->f);
    rc = rc ? rc : walk(u, STORE_TABLE_BLOB, on_blob, is_one);
    rc = rc ? rc : walk(u, STORE_TABLE_BLOB_USE, on_use, is_one);
    for (size_t i = 0; !rc && i < u->room; i++) {
        const struct sum *s = &u->sums[i];
        if (s->is_used && s->count && !s->has_row) {
            wrong(u, STORE_FSCK_ROW_MISSING, &s->user, "missing",
                  store_fsck_find_number("blobs", s->count).s);
        }
    }
    return rc;
}

static bool
on_key(void *ctx, struct cq_view key, struct cq_view value)
{
    struct uses *u = ctx;
    (void)value;
    u->count++;
    (void)store_fsck_find_key(u->f, STORE_TABLE_BLOB_USE, key, 1, 0);
    return true;
}

int
store_fsck_blob_use_check(struct store_fsck *f)
{
    struct uses u = {.f = f};
    int rc = store_fsck_walk(f, STORE_TABLE_BLOB_USE, (struct cq_view){0}, on_key, &u);
    size_t parts = u.count * 4 * sizeof *u.sums / f->cfg->state_bytes_max + 1;
    u.part_count = (unsigned)(parts < UINT8_MAX ? parts : UINT8_MAX);
    for (u.part = 0; !rc && u.part < u.part_count; u.part++) {
        rc = check(&u, false);
        if (!rc && u.wrong) {
            rc = check(&u, true);
        }
    }
    free(u.sums);
    return rc;
}
