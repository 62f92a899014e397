/* SPDX-License-Identifier: MPL-2.0
 * PRIVACY: a user's settings of what friends may see. They stand in the account row; a record in
 * the log takes the change to presence and to the user's other devices, in order and at least once.
 */
#include <sodium.h>

#include "store/core.h"

static int
read_account(struct store_core *core, const struct cq_id *user, struct store_account *account)
{
    struct store_key key = store_key_of(user);
    struct cq_view row;
    int rc = store_core_row(core, STORE_TABLE_ACCOUNT, &key, &row);
    return rc ? rc : store_account_read(row, account);
}

int
store_privacy_hides(struct store_core *core, const struct cq_id *user, bool *hides)
{
    struct store_account account;
    int rc = read_account(core, user, &account);
    if (!rc) {
        *hides = account.hide_last_seen;
        sodium_memzero(account.hash, sizeof account.hash);
    }
    return rc;
}

static int
change(struct store_core *core, const struct cq_id *user, const struct store_account *account)
{
    struct store_key key = store_key_of(user);
    struct cq_rec_privacy record = {*user, account->hide_last_seen, cq_now_unix_ms()};
    uint64_t pos = 0;
    cq_buf_t b = {0};
    int rc = store_core_writable(core);
    if (!rc) {
        rc = store_core_append(core, NULL, CQ_REC_PRIVACY, &record, &pos);
    }
    if (!rc) {
        store_account_write(&b, account);
        store_core_put(core, STORE_TABLE_ACCOUNT, &key, (struct cq_view){b.data, b.size});
    }
    cq_buf_free(&b);
    return rc;
}

int
store_on_privacy(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_privacy_change *wish = in;
    struct store_account account;
    int rc = read_account(core, &call->user, &account);
    if (!rc && wish->change && wish->hide_last_seen != account.hide_last_seen) {
        account.hide_last_seen = wish->hide_last_seen;
        rc = change(core, &call->user, &account);
    }
    if (!rc) {
        const struct cq_privacy answer = {account.hide_last_seen};
        store_core_reply(core, call->from, &cq_privacy_schema, &answer);
    }
    sodium_memzero(&account, sizeof account);
    return rc;
}
