/* SPDX-License-Identifier: MPL-2.0
 * SIGNUP and LOGIN: hash or verify in the vault, then the token, then the rows, then the answer
 * when they are durable.
 *
 * An edge repeats a request that is not answered: one that is still under way is ignored, and a
 * SIGNUP that has succeeded before (same name, password, device and key) succeeds again.
 */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/rt/random.h"
#include "common/wire/name.h"

#include "store/core.h"

struct store_auth {
    struct store_core *core;
    struct store_auth *next;
    struct cq_bus_from from;
    bool is_signup;
    bool is_new; /* the account is made with this request */
    bool device_changed;
    struct cq_id user;
    struct cq_id device_id;
    struct store_device device;
    char name[CQ_NAME_MAX + 1];
    char hash[STORE_HASH_SIZE];
    uint8_t device_key[32];
    char label[CQ_LABEL_MAX + 1];
    uint64_t expires_unix_ms;
};

static void
drop(struct store_auth *a)
{
    struct store_auth **link = &a->core->auths;
    while (*link && *link != a) {
        link = &(*link)->next;
    }
    if (*link) {
        *link = a->next;
        a->core->auth_count--;
    }
    sodium_memzero(a, sizeof *a);
    free(a);
}

void
store_account_free(struct store_core *core)
{
    while (core->auths) {
        drop(core->auths);
    }
}

static void
refuse(struct store_auth *a, int rc)
{
    if (rc == -CQ_E_CORRUPT || rc == -CQ_E_IO || rc == -CQ_E_CRYPTO) {
        rc = -CQ_E_INTERNAL;
    }
    store_core_reply_err(a->core, &a->from, rc, 0);
    drop(a);
}

/* Hands a job of this request to the vault; on failure the request is refused and gone. */
static void
submit(struct store_auth *a,
       struct store_vault_job *job,
       void (*done)(void *, struct store_vault_job *))
{
    job->done = done;
    job->ctx = a;
    int rc = store_vault_submit(a->core->vault, &job);
    if (rc) {
        store_vault_job_destroy(&job);
        refuse(a, rc);
    }
}

static void
put_account(struct store_auth *a)
{
    struct store_account account = {.created_unix_ms = cq_now_unix_ms()};
    struct store_key name = store_key_name(a->name, strlen(a->name));
    struct store_key user = store_key_of(&a->user);
    cq_buf_t b = {0};
    memcpy(account.name, a->name, sizeof account.name);
    memcpy(account.hash, a->hash, sizeof account.hash);
    store_account_write(&b, &account);
    store_core_put(a->core, STORE_TABLE_NAME, &name, (struct cq_view){a->user.b, CQ_ID_SIZE});
    store_core_put(a->core, STORE_TABLE_ACCOUNT, &user, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
    sodium_memzero(&account, sizeof account);
}

/* Device ids key deduplication and cursors, so no two accounts may share one. 0 if it is free or
 * this user's. */
static int
check_owner(struct store_auth *a)
{
    struct store_key key = store_key_of(&a->device_id);
    struct cq_view row;
    int rc = store_core_row(a->core, STORE_TABLE_OWNER, &key, &row);
    if (rc == -CQ_E_NOT_FOUND) {
        return 0;
    }
    bool is_own = !rc && row.n == CQ_ID_SIZE && memcmp(row.p, a->user.b, CQ_ID_SIZE) == 0;
    return rc ? rc : is_own ? 0 : -CQ_E_BAD_DEVICE;
}

static void
put_device(struct store_auth *a)
{
    struct store_key key = store_key_of(&a->device_id);
    store_device_put(a->core, &a->user, &a->device_id, &a->device);
    store_core_put(a->core, STORE_TABLE_OWNER, &key, (struct cq_view){a->user.b, CQ_ID_SIZE});
}

/* Is the name still free? BUSY if this very device has taken it meanwhile: the request came twice
 * at once, through two edges, and its repetition will be found to have succeeded. */
static int
check_name(struct store_auth *a)
{
    struct cq_view name = {(const uint8_t *)a->name, strlen(a->name)};
    struct cq_id taken;
    struct store_device device;
    int rc = store_name_find(a->core, name, &taken);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    rc = store_device_row(a->core, &taken, &a->device_id, &device);
    bool is_own = rc == 0 && sodium_memcmp(device.key, a->device_key, sizeof a->device_key) == 0;
    return is_own ? -CQ_E_BUSY : rc && rc != -CQ_E_NOT_FOUND ? rc : -CQ_E_NAME_TAKEN;
}

/* A device that a chat has forgotten must not come back: what it sent there would be taken again.
 */
static int
check_retired(struct store_auth *a)
{
    struct store_device now;
    int rc = store_device_row(a->core, &a->user, &a->device_id, &now);
    if (rc) {
        return rc == -CQ_E_NOT_FOUND ? 0 : rc;
    }
    a->device.known_pos = now.known_pos;
    return now.retired ? -CQ_E_BAD_DEVICE : 0;
}

/* The rows may have changed while the vault worked: a name, and a device id, can be taken only
 * once. */
static int
store_rows(struct store_auth *a)
{
    int rc = a->is_new || a->device_changed ? store_core_writable(a->core) : 0;
    if (!rc && a->is_new) {
        rc = check_name(a);
    }
    if (!rc && a->device_changed) {
        rc = check_owner(a);
    }
    if (!rc && a->device_changed && !a->is_new) {
        rc = check_retired(a);
    }
    if (rc) {
        return rc;
    }
    if (a->is_new) {
        put_account(a);
    }
    if (a->device_changed) {
        put_device(a);
    }
    return 0;
}

static void
on_token(void *ctx, struct store_vault_job *job)
{
    struct store_auth *a = ctx;
    int rc = job->rc ? job->rc : store_rows(a);
    if (rc) {
        refuse(a, rc);
    } else {
        struct cq_bus_welcome welcome = {
            .user = a->user,
            .name = {(const uint8_t *)a->name, strlen(a->name)},
            .device = a->device_id,
            .token = {job->out.data, job->out.size},
            .token_expires_unix_ms = a->expires_unix_ms,
            .generation = a->device.generation,
            .epoch = a->core->epoch,
            .store_key = {store_vault_public_key(a->core->vault), 32},
        };
        store_core_reply(a->core, &a->from, &cq_bus_welcome_schema, &welcome);
        drop(a);
    }
    store_vault_job_destroy(&job);
}

static int
settle_device(struct store_auth *a)
{
    int rc = a->is_new ? -CQ_E_NOT_FOUND
                       : store_device_row(a->core, &a->user, &a->device_id, &a->device);
    if (rc == -CQ_E_NOT_FOUND) {
        a->device = (struct store_device){.created_unix_ms = cq_now_unix_ms(), .generation = 1};
        memcpy(a->device.key, a->device_key, sizeof a->device.key);
        memcpy(a->device.label, a->label, sizeof a->device.label);
        a->device_changed = true;
        return 0;
    }
    if (rc) {
        return rc;
    }
    if (sodium_memcmp(a->device.key, a->device_key, sizeof a->device_key) != 0) {
        return -CQ_E_BAD_DEVICE;
    }
    if (a->device.retired) {
        return -CQ_E_BAD_DEVICE;
    }
    if (a->device.revoked) {
        a->device.revoked = false;
        a->device.generation++;
        a->device_changed = true;
    }
    return 0;
}

static void
on_password(void *ctx, struct store_vault_job *job)
{
    struct store_auth *a = ctx;
    int rc = job->rc;
    if (!rc && a->is_new) {
        a->user = cq_random_id();
        memcpy(a->hash, job->hash, sizeof a->hash);
    }
    store_vault_job_destroy(&job);
    if (!rc) {
        rc = settle_device(a);
    }
    if (rc) {
        refuse(a, rc == -CQ_E_BAD_CREDENTIALS && a->is_signup ? -CQ_E_NAME_TAKEN : rc);
        return;
    }
    a->expires_unix_ms = cq_now_unix_ms() + a->core->cfg->token_days * 86400000;
    job = store_vault_job_new(STORE_VAULT_TOKEN);
    job->user = a->user;
    job->device = a->device_id;
    job->generation = a->device.generation;
    job->expires_unix_ms = a->expires_unix_ms;
    memcpy(job->name, a->name, sizeof job->name);
    submit(a, job, on_token);
}

static int
read_hash(struct store_core *core, const struct cq_id *user, char hash[STORE_HASH_SIZE])
{
    struct store_key key = store_key_of(user);
    struct cq_view row;
    struct store_account account;
    int rc = store_core_row(core, STORE_TABLE_ACCOUNT, &key, &row);
    if (!rc) {
        rc = store_account_read(row, &account);
    }
    if (!rc) {
        memcpy(hash, account.hash, STORE_HASH_SIZE);
        sodium_memzero(&account, sizeof account);
    }
    return rc;
}

/* What is to be done with the password; NAME_TAKEN at once if nothing is. */
static int
plan(struct store_auth *a, struct store_vault_job *job)
{
    struct cq_view name = {(const uint8_t *)a->name, strlen(a->name)};
    struct store_device device;
    int rc = store_name_find(a->core, name, &a->user);
    if (rc == -CQ_E_NOT_FOUND) {
        a->is_new = a->is_signup;
        job->kind = a->is_signup ? STORE_VAULT_HASH
                                 : STORE_VAULT_VERIFY; /* with no hash: takes as long, fails */
        return 0;
    }
    job->kind = STORE_VAULT_VERIFY;
    if (!rc) {
        rc = read_hash(a->core, &a->user, job->hash);
    }
    if (!rc && a->is_signup) {
        rc = store_device_row(a->core, &a->user, &a->device_id, &device);
        bool again = rc == 0 && memcmp(device.key, a->device_key, sizeof a->device_key) == 0;
        rc = again ? 0 : rc && rc != -CQ_E_NOT_FOUND ? rc : -CQ_E_NAME_TAKEN;
    }
    return rc;
}

static int
check(const struct cq_auth *in, bool is_signup)
{
    bool name_ok = cq_name_ok((const char *)in->name.p, in->name.n);
    bool password_ok = in->password.n >= CQ_PASSWORD_MIN && in->password.n <= CQ_PASSWORD_MAX;
    if (name_ok && password_ok) {
        return 0;
    }
    return !is_signup ? -CQ_E_BAD_CREDENTIALS : name_ok ? -CQ_E_BAD_PASSWORD : -CQ_E_BAD_NAME;
}

static bool
is_under_way(const struct store_core *core, const struct cq_bus_from *from)
{
    for (const struct store_auth *a = core->auths; a; a = a->next) {
        if (a->from.rid == from->rid && strcmp(a->from.src, from->src) == 0) {
            return true;
        }
    }
    return false;
}

static void
begin(struct store_core *core,
      const struct cq_bus_from *from,
      const struct cq_auth *in,
      bool is_signup)
{
    struct store_auth *a = cq_alloc(sizeof *a);
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_VERIFY);
    *a = (struct store_auth){
        .core = core, .next = core->auths, .from = *from, .is_signup = is_signup};
    core->auths = a;
    core->auth_count++;
    a->device_id = in->device;
    memcpy(a->name, in->name.p, in->name.n);
    memcpy(a->label, in->label.p, in->label.n);
    memcpy(a->device_key, in->device_key.p, sizeof a->device_key);
    memcpy(job->password, in->password.p, in->password.n);
    memcpy(job->name, a->name, sizeof job->name);
    int rc = plan(a, job);
    if (rc) {
        store_vault_job_destroy(&job);
        refuse(a, rc);
        return;
    }
    submit(a, job, on_password);
}

void
store_on_auth(void *ctx, const struct cq_bus_from *from, cq_reader_t *fields, size_t count)
{
    struct store_core *core = ctx;
    struct cq_bus_auth envelope;
    struct cq_auth in;
    int rc = cq_schema_read(&cq_bus_auth_schema, fields, count, &envelope);
    if (!rc) {
        cq_reader_t r = cq_reader_of(envelope.fields);
        rc = cq_schema_read_array(&cq_auth_schema, &r, &in);
    }
    bool is_signup = !rc && envelope.op == CQ_OP_SIGNUP;
    if (!rc) {
        rc = is_signup || envelope.op == CQ_OP_LOGIN ? check(&in, is_signup) : -CQ_E_BAD_ARG;
    }
    if (!rc && core->stopping) {
        rc = -CQ_E_UNAVAILABLE;
    }
    if (rc) {
        cq_bus_reply_err(core->bus, from, rc, 0);
    } else if (!is_under_way(core, from)) {
        begin(core, from, &in, is_signup);
    }
}
