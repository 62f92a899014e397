/* SPDX-License-Identifier: MPL-2.0 */
#include "store/vault.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/token.h"
#include "common/rt/worker.h"
#include "common/wire/frame.h"

#include "store/master_key.h"

static const char chat_key_context[] = "chasqui-chat-key-v1";
static const char row_context[] = "chasqui-vault-v1";
static const char bundle_context[] = "chasqui-keys-v1";

enum {
    NONCE_SIZE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    MAC_SIZE = crypto_aead_xchacha20poly1305_ietf_ABYTES,
    SEED_SIZE = crypto_sign_ed25519_SEEDBYTES,
    ROW_VERSION = 1,
    ROW_SIZE = 1 + NONCE_SIZE + SEED_SIZE + MAC_SIZE,
    DIGEST_SIZE = 32,
    VAULT_QUEUE_MAX = 8192,
    HASH_QUEUE_PRESET = 64,
};

static_assert(STORE_WRAPPED_SIZE == NONCE_SIZE + CQ_KEY_SIZE + MAC_SIZE, "wrapped chat key");
static_assert((int)ROW_SIZE <= (int)STORE_VAULT_ROW_MAX, "vault row");
static_assert(STORE_HASH_SIZE == crypto_pwhash_STRBYTES, "password hash");

/* In locked memory, read-only once open: both workers read it, nobody writes. */
struct secrets {
    uint8_t master[STORE_MASTER_KEY_SIZE];
    uint8_t sign[crypto_sign_ed25519_SECRETKEYBYTES];
    uint8_t seal[CQ_TOKEN_SEAL_KEY_SIZE];
};

struct store_vault {
    struct secrets *secrets;
    uint8_t public_key[CQ_KEY_SIZE];
    unsigned long long opslimit;
    size_t memlimit;
    char dummy_hash[STORE_HASH_SIZE]; /* of a password nobody knows, for accounts that do not exist
                                       */
    cq_worker_t *keys;
    cq_worker_t *hash;
};

/* ---- wrapping ---- */

enum {
    CHAT_AD_SIZE = sizeof chat_key_context - 1 + CQ_ID_SIZE + 8,
    BUNDLE_AD_SIZE = CQ_ID_SIZE + 8,
};

static uint8_t *
put(uint8_t *p, const void *data, size_t n)
{
    memcpy(p, data, n);
    return p + n;
}

/* chat ‖ key_version, big-endian */
static void
put_chat_version(uint8_t *p, const struct cq_id *chat, uint64_t key_version)
{
    p = put(p, chat->b, CQ_ID_SIZE);
    for (int i = 0; i < 8; i++) {
        p[i] = (uint8_t)(key_version >> (56 - 8 * i));
    }
}

static void
chat_ad(uint8_t ad[CHAT_AD_SIZE], const struct cq_id *chat, uint64_t key_version)
{
    put_chat_version(put(ad, chat_key_context, sizeof chat_key_context - 1), chat, key_version);
}

/* plain → nonce ‖ ciphertext ‖ MAC */
static void
wrap(uint8_t *out, struct cq_view plain, struct cq_view ad, const uint8_t key[CQ_KEY_SIZE])
{
    randombytes_buf(out, NONCE_SIZE);
    crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE_SIZE, NULL, plain.p, plain.n, ad.p, ad.n,
                                               NULL, out, key);
}

/* The reverse; plain has room for wrapped.n - NONCE_SIZE - MAC_SIZE bytes. */
static bool
unwrap(uint8_t *plain, struct cq_view wrapped, struct cq_view ad, const uint8_t key[CQ_KEY_SIZE])
{
    return crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, wrapped.p + NONCE_SIZE,
                                                      wrapped.n - NONCE_SIZE, ad.p, ad.n, wrapped.p,
                                                      key) == 0;
}

/* ---- jobs: on the worker threads ---- */

static void
hash_password(store_vault_t *v, struct store_vault_job *job)
{
    job->rc = crypto_pwhash_str(job->hash, job->password, strlen(job->password), v->opslimit,
                                v->memlimit) == 0
                  ? 0
                  : -CQ_E_BUSY;
}

static void
verify_password(store_vault_t *v, struct store_vault_job *job)
{
    job->hash[STORE_HASH_SIZE - 1] = '\0';
    bool exists = job->hash[0] != '\0';
    bool ok = crypto_pwhash_str_verify(exists ? job->hash : v->dummy_hash, job->password,
                                       strlen(job->password)) == 0;
    job->rc = ok && exists ? 0 : -CQ_E_BAD_CREDENTIALS;
}

void
store_vault_make_key(const store_vault_t *v, struct store_vault_key *k)
{
    uint8_t key[CQ_KEY_SIZE];
    uint8_t ad[CHAT_AD_SIZE];
    randombytes_buf(key, sizeof key);
    chat_ad(ad, &k->chat, k->key_version);
    wrap(k->wrapped, (struct cq_view){key, sizeof key}, (struct cq_view){ad, sizeof ad},
         v->secrets->master);
    sodium_memzero(key, sizeof key);
}

static bool
unwrap_chat_key(const store_vault_t *v, const struct store_vault_key *k, uint8_t key[CQ_KEY_SIZE])
{
    uint8_t ad[CHAT_AD_SIZE];
    chat_ad(ad, &k->chat, k->key_version);
    return unwrap(key, (struct cq_view){k->wrapped, sizeof k->wrapped},
                  (struct cq_view){ad, sizeof ad}, v->secrets->master);
}

bool
store_vault_unwraps(const store_vault_t *v, const struct store_vault_key *k)
{
    uint8_t key[CQ_KEY_SIZE];
    bool ok = unwrap_chat_key(v, k, key);
    sodium_memzero(key, sizeof key);
    return ok;
}

bool
store_vault_is_same_key(const store_vault_t *v,
                        const struct store_vault_key *a,
                        const struct store_vault_key *b)
{
    uint8_t first[CQ_KEY_SIZE];
    uint8_t second[CQ_KEY_SIZE];
    bool is_same = unwrap_chat_key(v, a, first) && unwrap_chat_key(v, b, second) &&
                   sodium_memcmp(first, second, sizeof first) == 0;
    sodium_memzero(first, sizeof first);
    sodium_memzero(second, sizeof second);
    return is_same;
}

static void
make_key(store_vault_t *v, struct store_vault_job *job)
{
    struct store_vault_key k = {.chat = job->chat, .key_version = job->key_version};
    store_vault_make_key(v, &k);
    memcpy(job->wrapped, k.wrapped, sizeof job->wrapped);
    job->rc = 0;
}

static void
sign_token(store_vault_t *v, struct store_vault_job *job)
{
    struct cq_token t = {
        .user = job->user,
        .device = job->device,
        .generation = job->generation,
        .expires_unix_ms = job->expires_unix_ms,
    };
    memcpy(t.name, job->name, sizeof t.name);
    cq_token_sign(&job->out, &t, v->secrets->sign);
    job->rc = 0;
}

/* From under the master key to under the bundle key; appends a key_row. */
static bool
rewrap(store_vault_t *v,
       struct store_vault_job *job,
       const struct store_vault_key *k,
       const uint8_t bundle_key[CQ_KEY_SIZE])
{
    uint8_t key[CQ_KEY_SIZE];
    uint8_t bundle_ad[BUNDLE_AD_SIZE];
    uint8_t wrapped[STORE_WRAPPED_SIZE];
    if (!unwrap_chat_key(v, k, key)) {
        char chat[CQ_ID_HEX_SIZE];
        CQ_LOG(ERROR, "STORE-VAULT-UNWRAP",
               "chat=%s advice=\"this chat's key is damaged or of another master key\"",
               cq_id_hex(&k->chat, chat));
        return false;
    }
    put_chat_version(bundle_ad, &k->chat, k->key_version);
    wrap(wrapped, (struct cq_view){key, sizeof key}, (struct cq_view){bundle_ad, sizeof bundle_ad},
         bundle_key);
    sodium_memzero(key, sizeof key);
    struct cq_key_row row = {
        .chat = k->chat,
        .key_version = k->key_version,
        .nonce = {wrapped, NONCE_SIZE},
        .wrapped = {wrapped + NONCE_SIZE, CQ_KEY_SIZE + MAC_SIZE},
    };
    cq_schema_write_array(&cq_key_row_schema, &job->out, &row);
    job->out_count++;
    return true;
}

static void
sign_bundle(const store_vault_t *v, struct store_vault_job *job)
{
    uint8_t text[sizeof bundle_context - 1 + CQ_ID_SIZE + CQ_ID_SIZE + sizeof job->sealed +
                 DIGEST_SIZE];
    uint8_t *p = put(text, bundle_context, sizeof bundle_context - 1);
    p = put(p, job->user.b, CQ_ID_SIZE);
    p = put(p, job->device.b, CQ_ID_SIZE);
    p = put(p, job->sealed, sizeof job->sealed);
    crypto_generichash(p, DIGEST_SIZE, job->out.data, job->out.size, NULL, 0);
    crypto_sign_ed25519_detached(job->signature, NULL, text, sizeof text, v->secrets->sign);
}

static void
make_bundle(store_vault_t *v, struct store_vault_job *job)
{
    uint8_t bundle_key[CQ_KEY_SIZE];
    randombytes_buf(bundle_key, sizeof bundle_key);
    job->out_count = 0;
    bool ok = crypto_box_seal(job->sealed, bundle_key, sizeof bundle_key, job->device_key) == 0;
    for (size_t i = 0; ok && i < job->key_count; i++) {
        ok = rewrap(v, job, &job->keys[i], bundle_key);
    }
    sodium_memzero(bundle_key, sizeof bundle_key);
    if (ok) {
        sign_bundle(v, job);
    }
    job->rc = ok ? 0 : -CQ_E_CRYPTO;
}

typedef void job_fn(store_vault_t *v, struct store_vault_job *job);

static job_fn *const kinds[] = {
    [STORE_VAULT_HASH] = hash_password, [STORE_VAULT_VERIFY] = verify_password,
    [STORE_VAULT_NEW_KEY] = make_key,   [STORE_VAULT_TOKEN] = sign_token,
    [STORE_VAULT_BUNDLE] = make_bundle,
};

static void
on_run(void *ctx, void *item)
{
    struct store_vault_job *job = item;
    job->password[CQ_PASSWORD_MAX] = '\0';
    kinds[job->kind](ctx, job);
    sodium_memzero(job->password, sizeof job->password);
}

static void
on_done(void *ctx, void *item)
{
    (void)ctx;
    struct store_vault_job *job = item;
    job->done(job->ctx, job);
}

/* ---- open and close ---- */

static int
load_master(struct secrets *s, const struct store_vault_cfg *cfg)
{
    if (cfg->key_command && *cfg->key_command) {
        return store_master_key_from_command(cfg->key_command, s->master);
    }
    return store_master_key_from_file(cfg->master_key_path, cfg->data_dir, cfg->is_new, s->master);
}

static void
make_row(const struct secrets *s, uint8_t row[ROW_SIZE])
{
    uint8_t seed[SEED_SIZE];
    crypto_sign_ed25519_sk_to_seed(seed, s->sign);
    row[0] = ROW_VERSION;
    wrap(row + 1, (struct cq_view){seed, sizeof seed},
         (struct cq_view){(const uint8_t *)row_context, sizeof row_context - 1}, s->master);
    sodium_memzero(seed, sizeof seed);
}

static int
read_row(store_vault_t *v, struct cq_view row)
{
    uint8_t seed[SEED_SIZE];
    if (row.n != ROW_SIZE || row.p[0] != ROW_VERSION ||
        !unwrap(seed, (struct cq_view){row.p + 1, ROW_SIZE - 1},
                (struct cq_view){(const uint8_t *)row_context, sizeof row_context - 1},
                v->secrets->master)) {
        CQ_LOG(ERROR, "STORE-VAULT-MISMATCH",
               "advice=\"the master key does not belong to this database: restore the right one\"");
        return -CQ_E_CRYPTO;
    }
    crypto_sign_ed25519_seed_keypair(v->public_key, v->secrets->sign, seed);
    sodium_memzero(seed, sizeof seed);
    return 0;
}

/* A hash of no password: made up, as to compute one takes a quarter of a second of each start. */
static void
make_dummy_hash(store_vault_t *v)
{
    uint8_t salt[crypto_pwhash_SALTBYTES], hash[CQ_KEY_SIZE];
    char salt_text[sodium_base64_ENCODED_LEN(sizeof salt,
                                             sodium_base64_VARIANT_ORIGINAL_NO_PADDING)];
    char hash_text[sodium_base64_ENCODED_LEN(sizeof hash,
                                             sodium_base64_VARIANT_ORIGINAL_NO_PADDING)];
    randombytes_buf(salt, sizeof salt);
    randombytes_buf(hash, sizeof hash);
    (void)snprintf(v->dummy_hash, sizeof v->dummy_hash, "%sv=19$m=%zu,t=%llu,p=1$%s$%s",
                   crypto_pwhash_STRPREFIX, v->memlimit / 1024, v->opslimit,
                   sodium_bin2base64(salt_text, sizeof salt_text, salt, sizeof salt,
                                     sodium_base64_VARIANT_ORIGINAL_NO_PADDING),
                   sodium_bin2base64(hash_text, sizeof hash_text, hash, sizeof hash,
                                     sodium_base64_VARIANT_ORIGINAL_NO_PADDING));
    int differs = crypto_pwhash_str_needs_rehash(v->dummy_hash, v->opslimit, v->memlimit);
    CQ_ASSERT(differs == 0); /* it is well formed, and takes as long to check as a real one */
}

static cq_worker_t *
start_worker(cq_loop_t *loop, store_vault_t *v, const char *name, unsigned queue_max)
{
    struct cq_worker_cfg cfg = {
        .name = name,
        .thread_count = 1,
        .queue_max = queue_max,
        .run = on_run,
        .done = on_done,
        .ctx = v,
    };
    return cq_worker_new(loop, &cfg);
}

static int
start(cq_loop_t *loop, store_vault_t *v, unsigned hash_queue_max)
{
    v->keys = start_worker(loop, v, "vault", VAULT_QUEUE_MAX);
    v->hash = start_worker(loop, v, "hash", hash_queue_max ? hash_queue_max : HASH_QUEUE_PRESET);
    return v->keys && v->hash ? 0 : -CQ_E_INTERNAL;
}

int
store_vault_open(cq_loop_t *loop,
                 const struct store_vault_cfg *cfg,
                 uint8_t *new_row,
                 size_t *new_row_size,
                 store_vault_t **out)
{
    *out = NULL;
    *new_row_size = 0;
    store_vault_t *v = cq_alloc(sizeof *v);
    v->opslimit = cfg->hash_opslimit ? cfg->hash_opslimit : crypto_pwhash_OPSLIMIT_INTERACTIVE;
    v->memlimit = cfg->hash_memlimit ? cfg->hash_memlimit : crypto_pwhash_MEMLIMIT_INTERACTIVE;
    v->secrets = sodium_malloc(sizeof *v->secrets);
    CQ_ASSERT(v->secrets);
    int rc = load_master(v->secrets, cfg);
    if (rc == 0 && cfg->is_new) {
        crypto_sign_ed25519_keypair(v->public_key, v->secrets->sign);
        make_row(v->secrets, new_row);
    } else if (rc == 0) {
        rc = read_row(v, cfg->row);
    }
    if (rc == 0) {
        randombytes_buf(v->secrets->seal, sizeof v->secrets->seal);
        sodium_mprotect_readonly(v->secrets);
        make_dummy_hash(v);
        rc = start(loop, v, cfg->hash_queue_max);
    }
    if (rc) {
        store_vault_close(&v);
        return rc;
    }
    *new_row_size = cfg->is_new ? ROW_SIZE : 0;
    *out = v;
    return 0;
}

void
store_vault_close(store_vault_t **vault)
{
    store_vault_t *v = *vault;
    if (!v) {
        return;
    }
    /* Passwords first: what is done then may still ask for a token. */
    cq_worker_destroy(&v->hash);
    cq_worker_destroy(&v->keys);
    sodium_free(v->secrets); /* wipes */
    free(v);
    *vault = NULL;
}

const uint8_t *
store_vault_public_key(const store_vault_t *v)
{
    return v->public_key;
}

const uint8_t *
store_vault_seal_key(const store_vault_t *v)
{
    return v->secrets->seal;
}

int
store_vault_submit(store_vault_t *v, struct store_vault_job **job)
{
    bool is_slow = (*job)->kind == STORE_VAULT_HASH || (*job)->kind == STORE_VAULT_VERIFY;
    cq_worker_t *w = is_slow ? v->hash : v->keys;
    if (!w) {
        return -CQ_E_BUSY; /* closing */
    }
    void *item = *job;
    int rc = cq_worker_submit(w, &item);
    if (rc == 0) {
        *job = NULL;
    }
    return rc;
}

struct store_vault_job *
store_vault_job_new(enum store_vault_kind kind)
{
    struct store_vault_job *job = cq_alloc(sizeof *job);
    job->kind = kind;
    return job;
}

void
store_vault_job_destroy(struct store_vault_job **job_p)
{
    struct store_vault_job *job = *job_p;
    if (!job) {
        return;
    }
    if (job->out.data) {
        sodium_memzero(job->out.data, job->out.room);
    }
    cq_buf_free(&job->out);
    free(job->keys);
    sodium_memzero(job, sizeof *job);
    free(job);
    *job_p = NULL;
}
