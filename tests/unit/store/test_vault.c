/* SPDX-License-Identifier: MPL-2.0
 * What the vault gives is checked from the other side: as an edge (tokens) and as a device
 * (bundles) would.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "common/rt/loop.h"
#include "common/rt/token.h"
#include "common/wire/frame.h"

#include "folder.h"
#include "store/vault.h"

enum {
    QUEUE_MAX = 4,
    DEADLINE_MS = 20000
};

static char folder[FOLDER_PATH_SIZE];
static char data[FOLDER_PATH_SIZE + 16];
static char path[FOLDER_PATH_SIZE + 16];
static cq_loop_t *loop;
static uint8_t row[STORE_VAULT_ROW_MAX];
static size_t row_size;

static int
open_with(const char *command, bool is_new, store_vault_t **v)
{
    struct store_vault_cfg cfg = {
        .master_key_path = path,
        .key_command = command,
        .data_dir = data,
        .is_new = is_new,
        .row = is_new ? (struct cq_view){0} : (struct cq_view){row, row_size},
        .hash_queue_max = QUEUE_MAX,
        .hash_opslimit = crypto_pwhash_OPSLIMIT_MIN,
        .hash_memlimit = crypto_pwhash_MEMLIMIT_MIN,
    };
    uint8_t new_row[STORE_VAULT_ROW_MAX];
    size_t new_size = 99;
    int rc = store_vault_open(loop, &cfg, new_row, &new_size, v);
    if (rc == 0 && is_new) {
        memcpy(row, new_row, new_size);
        row_size = new_size;
    } else {
        assert_int_equal(new_size, 0);
    }
    return rc;
}

static int
set_up(void **state)
{
    folder_make(folder);
    (void)snprintf(data, sizeof data, "%s/data", folder);
    (void)snprintf(path, sizeof path, "%s/master.key", folder);
    loop = cq_loop_new();
    store_vault_t *v = NULL;
    int rc = mkdir(data, 0700) || open_with(NULL, true, &v);
    *state = v;
    return rc;
}

static int
tear_down(void **state)
{
    store_vault_t *v = *state;
    store_vault_close(&v);
    cq_loop_destroy(&loop);
    folder_remove(folder);
    return 0;
}

/* ---- running jobs ---- */

static unsigned waiting; /* jobs not done */
static unsigned done_count;

static void
on_done(void *ctx, struct store_vault_job *job)
{
    struct store_vault_job **place = ctx;
    *place = job;
    done_count++;
    if (--waiting == 0) {
        cq_loop_stop(loop);
    }
}

static void
on_deadline(void *ctx)
{
    *(bool *)ctx = true;
    cq_loop_stop(loop);
}

static void
run_until_done(void)
{
    bool is_late = false;
    cq_timer_t *timer = cq_timer_new(loop, on_deadline, &is_late);
    cq_timer_start(timer, DEADLINE_MS, 0);
    if (waiting) {
        cq_loop_run(loop);
    }
    cq_timer_destroy(&timer);
    assert_false(is_late);
}

/* Submits the job and returns it when it is done. */
static struct store_vault_job *
run(store_vault_t *v, struct store_vault_job *job)
{
    struct store_vault_job *back = NULL;
    job->done = on_done;
    job->ctx = &back;
    waiting = 1;
    assert_int_equal(store_vault_submit(v, &job), 0);
    assert_null(job);
    run_until_done();
    assert_non_null(back);
    assert_true(sodium_is_zero((const uint8_t *)back->password, sizeof back->password));
    return back;
}

static struct store_vault_job *
password_job(enum store_vault_kind kind, const char *password, const char *hash)
{
    struct store_vault_job *job = store_vault_job_new(kind);
    (void)snprintf(job->password, sizeof job->password, "%s", password);
    (void)snprintf(job->hash, sizeof job->hash, "%s", hash);
    return job;
}

static int
verify(store_vault_t *v, const char *password, const char *hash)
{
    struct store_vault_job *job = run(v, password_job(STORE_VAULT_VERIFY, password, hash));
    int rc = job->rc;
    store_vault_job_destroy(&job);
    assert_null(job);
    return rc;
}

static void
passwords(void **state)
{
    store_vault_t *v = *state;
    struct store_vault_job *job = run(v, password_job(STORE_VAULT_HASH, "correct horse", ""));
    assert_int_equal(job->rc, 0);
    assert_int_equal(strncmp(job->hash, "$argon2id$", 10), 0);
    assert_int_equal(verify(v, "correct horse", job->hash), 0);
    assert_int_equal(verify(v, "correct horsf", job->hash), -CQ_E_BAD_CREDENTIALS);
    assert_int_equal(verify(v, "", job->hash), -CQ_E_BAD_CREDENTIALS);
    assert_int_equal(verify(v, "correct horse", ""), -CQ_E_BAD_CREDENTIALS);
    assert_int_equal(verify(v, "correct horse", "nonsense"), -CQ_E_BAD_CREDENTIALS);
    store_vault_job_destroy(&job);
    char longest[CQ_PASSWORD_MAX + 1];
    memset(longest, 'p', CQ_PASSWORD_MAX);
    longest[CQ_PASSWORD_MAX] = '\0';
    job = run(v, password_job(STORE_VAULT_HASH, longest, ""));
    assert_int_equal(verify(v, longest, job->hash), 0);
    longest[CQ_PASSWORD_MAX - 1] = 'q';
    assert_int_equal(verify(v, longest, job->hash), -CQ_E_BAD_CREDENTIALS);
    store_vault_job_destroy(&job);
}

static uint64_t
cpu_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Interactive limits, so that Argon2 outweighs everything else by far. */
static void
unknown_account_costs_as_much(void **state)
{
    store_vault_t *v = *state;
    store_vault_close(&v);
    *state = NULL;
    struct store_vault_cfg cfg = {
        .master_key_path = path, .data_dir = data, .row = {row, row_size}, .hash_queue_max = 1};
    uint8_t new_row[STORE_VAULT_ROW_MAX];
    size_t new_size;
    assert_int_equal(store_vault_open(loop, &cfg, new_row, &new_size, &v), 0);
    *state = v;
    struct store_vault_job *job = run(v, password_job(STORE_VAULT_HASH, "correct horse", ""));
    uint64_t t0 = cpu_us();
    assert_int_equal(verify(v, "wrong", job->hash), -CQ_E_BAD_CREDENTIALS);
    uint64_t t1 = cpu_us();
    assert_int_equal(verify(v, "wrong", ""), -CQ_E_BAD_CREDENTIALS);
    uint64_t t2 = cpu_us();
    assert_true(t2 - t1 > (t1 - t0) / 3 && t2 - t1 < (t1 - t0) * 3);
    store_vault_job_destroy(&job);
}

static void
full_queue_is_busy_and_keys_go_on(void **state)
{
    store_vault_t *v = *state;
    struct store_vault_job *back[QUEUE_MAX + 1] = {0};
    waiting = QUEUE_MAX;
    for (int i = 0; i < QUEUE_MAX; i++) {
        struct store_vault_job *job = password_job(STORE_VAULT_HASH, "correct horse", "");
        job->done = on_done;
        job->ctx = &back[i];
        assert_int_equal(store_vault_submit(v, &job), 0);
    }
    struct store_vault_job *extra = password_job(STORE_VAULT_HASH, "correct horse", "");
    struct store_vault_job *same = extra;
    assert_int_equal(store_vault_submit(v, &extra), -CQ_E_BUSY);
    assert_ptr_equal(extra, same); /* still ours */
    store_vault_job_destroy(&extra);
    struct store_vault_job *key = store_vault_job_new(STORE_VAULT_NEW_KEY);
    key->done = on_done;
    key->ctx = &back[QUEUE_MAX];
    waiting++;
    assert_int_equal(store_vault_submit(v, &key), 0);
    run_until_done();
    for (int i = 0; i <= QUEUE_MAX; i++) {
        assert_int_equal(back[i]->rc, 0);
        store_vault_job_destroy(&back[i]);
    }
}

static void
close_finishes_what_is_under_way(void **state)
{
    store_vault_t *v = *state;
    struct store_vault_job *back = NULL;
    struct store_vault_job *job = password_job(STORE_VAULT_HASH, "correct horse", "");
    job->done = on_done;
    job->ctx = &back;
    waiting = 2; /* never reached: close does not need the loop */
    assert_int_equal(store_vault_submit(v, &job), 0);
    store_vault_close(&v);
    *state = v;
    assert_non_null(back);
    assert_int_equal(back->rc, 0);
    store_vault_job_destroy(&back);
}

/* ---- tokens ---- */

static struct cq_token_keys
keys_of(const store_vault_t *v)
{
    struct cq_token_keys keys = {.has_seal = true};
    memcpy(keys.sign, store_vault_public_key(v), sizeof keys.sign);
    memcpy(keys.seal, store_vault_seal_key(v), sizeof keys.seal);
    return keys;
}

static void
tokens_verify_with_the_public_key(void **state)
{
    store_vault_t *v = *state;
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_TOKEN);
    randombytes_buf(&job->user, sizeof job->user);
    randombytes_buf(&job->device, sizeof job->device);
    (void)snprintf(job->name, sizeof job->name, "ana");
    job->generation = 4;
    job->expires_unix_ms = 1000;
    job = run(v, job);
    assert_int_equal(job->rc, 0);
    struct cq_token t;
    struct cq_view token = {job->out.data, job->out.size};
    struct cq_token_keys keys = keys_of(v), before = keys;
    assert_int_equal(cq_token_verify(token, &keys, 999, &t), CQ_TOKEN_BY_SIGNATURE);
    assert_true(cq_id_eq(&t.user, &job->user) && cq_id_eq(&t.device, &job->device));
    assert_string_equal(t.name, "ana");
    assert_true(t.generation == 4 && t.expires_unix_ms == 1000);
    /* The same key after a restart, but for that of seals. */
    store_vault_close(&v);
    assert_int_equal(open_with(NULL, false, &v), 0);
    *state = v;
    keys = keys_of(v);
    assert_int_equal(cq_token_verify(token, &keys, 999, &t), CQ_TOKEN_BY_SIGNATURE);
    assert_memory_not_equal(keys.seal, before.seal, sizeof keys.seal);
    store_vault_job_destroy(&job);
}

/* ---- chat keys, as a device sees them ---- */

struct device {
    uint8_t pk[32], sk[32];
    struct cq_id user, id;
};

static struct store_vault_key
new_key(store_vault_t *v, uint8_t chat, uint64_t key_version)
{
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_NEW_KEY);
    memset(&job->chat, chat, sizeof job->chat);
    job->key_version = key_version;
    job = run(v, job);
    assert_int_equal(job->rc, 0);
    struct store_vault_key k = {.chat = job->chat, .key_version = key_version};
    memcpy(k.wrapped, job->wrapped, sizeof k.wrapped);
    store_vault_job_destroy(&job);
    return k;
}

static struct store_vault_job *
bundle(store_vault_t *v, const struct device *d, const struct store_vault_key *keys, size_t count)
{
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_BUNDLE);
    job->user = d->user;
    job->device = d->id;
    memcpy(job->device_key, d->pk, sizeof d->pk);
    job->keys = count ? malloc(count * sizeof *keys) : NULL;
    if (count) {
        memcpy(job->keys, keys, count * sizeof *keys);
    }
    job->key_count = count;
    return run(v, job);
}

/* The exact bytes of docs/protocol.md §5. */
static bool
signature_ok(const struct store_vault_job *job, const struct device *d, const uint8_t *store_key)
{
    uint8_t text[15 + 16 + 16 + 80 + 32];
    memcpy(text, "chasqui-keys-v1", 15);
    memcpy(text + 15, &d->user, 16);
    memcpy(text + 31, &d->id, 16);
    memcpy(text + 47, job->sealed, 80);
    crypto_generichash(text + 127, 32, job->out.data, job->out.size, NULL, 0);
    return crypto_sign_verify_detached(job->signature, text, sizeof text, store_key) == 0;
}

static bool
unwrap(const struct cq_key_row *k, const uint8_t bundle_key[32], uint8_t chat_key[32])
{
    uint8_t ad[24] = {0};
    memcpy(ad, &k->chat, 16);
    for (int i = 0; i < 8; i++) {
        ad[16 + i] = (uint8_t)(k->key_version >> (56 - 8 * i));
    }
    return crypto_aead_xchacha20poly1305_ietf_decrypt(chat_key, NULL, NULL, k->wrapped.p,
                                                      k->wrapped.n, ad, sizeof ad, k->nonce.p,
                                                      bundle_key) == 0;
}

/* Checks and opens the bundle like a client; chat keys into out. */
static void
open_bundle(const struct store_vault_job *job,
            const struct device *d,
            const uint8_t *store_key,
            uint8_t (*out)[32])
{
    uint8_t bundle_key[32];
    assert_int_equal(job->rc, 0);
    assert_true(signature_ok(job, d, store_key));
    assert_int_equal(crypto_box_seal_open(bundle_key, job->sealed, 80, d->pk, d->sk), 0);
    cq_reader_t r = cq_reader(job->out.data, job->out.size);
    for (size_t i = 0; i < job->out_count; i++) {
        struct cq_key_row k;
        assert_int_equal(cq_schema_read_array(&cq_key_row_schema, &r, &k), 0);
        assert_true(unwrap(&k, bundle_key, out[i]));
    }
    assert_true(cq_reader_at_end(&r));
}

static struct device
new_device(void)
{
    struct device d;
    crypto_box_keypair(d.pk, d.sk);
    randombytes_buf(&d.user, sizeof d.user);
    randombytes_buf(&d.id, sizeof d.id);
    return d;
}

static void
two_devices_get_the_same_keys(void **state)
{
    store_vault_t *v = *state;
    struct device d[2] = {new_device(), new_device()};
    struct store_vault_key keys[3] = {new_key(v, 1, 1), new_key(v, 2, 0x01020304),
                                      new_key(v, 3, 1)};
    uint8_t got[2][3][32];
    struct store_vault_job *job[2];
    for (int i = 0; i < 2; i++) {
        job[i] = bundle(v, &d[i], keys, 3);
        assert_int_equal(job[i]->out_count, 3);
        open_bundle(job[i], &d[i], store_vault_public_key(v), got[i]);
    }
    assert_memory_equal(got[0], got[1], sizeof got[0]);
    assert_memory_not_equal(got[0][0], got[0][1], 32);
    assert_memory_not_equal(got[0][0], got[0][2], 32);
    /* Each is for one device of one user only. */
    uint8_t bundle_key[32];
    assert_int_not_equal(crypto_box_seal_open(bundle_key, job[0]->sealed, 80, d[1].pk, d[1].sk), 0);
    assert_false(signature_ok(job[0], &d[1], store_vault_public_key(v)));
    job[0]->out.data[20] ^= 1;
    assert_false(signature_ok(job[0], &d[0], store_vault_public_key(v)));
    for (int i = 0; i < 2; i++) {
        store_vault_job_destroy(&job[i]);
    }
}

static void
empty_bundle_is_signed(void **state)
{
    store_vault_t *v = *state;
    struct device d = new_device();
    struct store_vault_job *job = bundle(v, &d, NULL, 0);
    assert_int_equal(job->out_count, 0);
    open_bundle(job, &d, store_vault_public_key(v), NULL);
    store_vault_job_destroy(&job);
}

static void
wrapped_keys_are_bound_to_chat_and_version(void **state)
{
    store_vault_t *v = *state;
    struct device d = new_device();
    struct store_vault_key good = new_key(v, 1, 1);
    for (size_t i = 0; i < 3; i++) {
        struct store_vault_key bad = good;
        bad.chat.b[15] ^= i == 0;
        bad.key_version += i == 1;
        bad.wrapped[30] ^= i == 2;
        struct store_vault_job *job = bundle(v, &d, &bad, 1);
        assert_int_equal(job->rc, -CQ_E_CRYPTO);
        store_vault_job_destroy(&job);
    }
    struct device weak = d;
    memset(weak.pk, 0, sizeof weak.pk); /* a point of low order */
    struct store_vault_job *job = bundle(v, &weak, &good, 1);
    assert_int_equal(job->rc, -CQ_E_CRYPTO);
    store_vault_job_destroy(&job);
}

static void
keys_outlive_a_restart(void **state)
{
    store_vault_t *v = *state;
    struct device d = new_device();
    struct store_vault_key key = new_key(v, 1, 1);
    uint8_t before[1][32], after[1][32];
    struct store_vault_job *job = bundle(v, &d, &key, 1);
    open_bundle(job, &d, store_vault_public_key(v), before);
    store_vault_job_destroy(&job);
    store_vault_close(&v);
    assert_int_equal(open_with(NULL, false, &v), 0);
    *state = v;
    job = bundle(v, &d, &key, 1);
    open_bundle(job, &d, store_vault_public_key(v), after);
    store_vault_job_destroy(&job);
    assert_memory_equal(before, after, sizeof before);
}

static void
master_key_must_match_the_database(void **state)
{
    (void)state;
    store_vault_t *other;
    static const char command[] =
        "echo 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert_int_equal(open_with(command, false, &other), -CQ_E_CRYPTO);
    assert_null(other);
    row[row_size - 1] ^= 1;
    assert_int_equal(open_with(NULL, false, &other), -CQ_E_CRYPTO);
    row[row_size - 1] ^= 1;
    size_t size = row_size;
    for (row_size = 0; row_size < size; row_size++) {
        assert_int_equal(open_with(NULL, false, &other), -CQ_E_CRYPTO);
    }
    assert_int_equal(open_with(NULL, false, &other), 0);
    store_vault_close(&other);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(open_with(NULL, false, &other), -CQ_E_CONFIG);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(open_with(NULL, false, &other), -CQ_E_CONFIG);
    assert_int_equal(access(path, F_OK), -1);
    /* By a command: no file is looked for or made. */
    assert_int_equal(open_with(command, true, &other), 0);
    assert_int_equal(access(path, F_OK), -1);
    store_vault_close(&other);
    assert_int_equal(open_with(command, false, &other), 0);
    store_vault_close(&other);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(passwords),
        TEST(unknown_account_costs_as_much),
        TEST(full_queue_is_busy_and_keys_go_on),
        TEST(close_finishes_what_is_under_way),
        TEST(tokens_verify_with_the_public_key),
        TEST(two_devices_get_the_same_keys),
        TEST(empty_bundle_is_signed),
        TEST(wrapped_keys_are_bound_to_chat_and_version),
        TEST(keys_outlive_a_restart),
        TEST(master_key_must_match_the_database),
    };
    if (sodium_init() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
