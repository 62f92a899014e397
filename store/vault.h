/* SPDX-License-Identifier: MPL-2.0
 * The vault: the only place that holds the master key, the store's signing key and, for a moment,
 * chat keys. Locked memory (sodium_malloc), wiped at the end. Two worker actors: `vault` for keys,
 * `hash` for Argon2id with a bounded queue.
 *
 * Master key: 32 bytes in a file of its own (64 hex digits, mode 0600), outside the database
 * folder; created on first start. The row that the database keeps (META "vault") is the signing
 * seed wrapped under the master key: if it does not unwrap, the key does not belong to this
 * database.
 */
#ifndef STORE_VAULT_H
#define STORE_VAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rt/loop.h"
#include "common/wire/buf.h"
#include "common/wire/err.h"
#include "common/wire/id.h"
#include "common/wire/read.h"

enum {
    STORE_WRAPPED_SIZE =
        72, /* nonce (24), chat key (32), MAC (16): XChaCha20-Poly1305 under the master key, ad =
               "chasqui-chat-key-v1" ‖ chat ‖ key_version (8, big-endian) */
    STORE_HASH_SIZE = 128, /* crypto_pwhash_STRBYTES: text with final NUL */
    STORE_VAULT_ROW_MAX = 128,
};

typedef struct store_vault store_vault_t;

enum store_vault_kind {
    STORE_VAULT_HASH,    /* password → hash */
    STORE_VAULT_VERIFY,  /* password, hash → rc 0 or BAD_CREDENTIALS; hash "" (no such account):
                            takes as long, BAD_CREDENTIALS */
    STORE_VAULT_NEW_KEY, /* chat, key_version → wrapped */
    STORE_VAULT_TOKEN, /* user, device, name, generation, expires_unix_ms → out: the signed token */
    STORE_VAULT_BUNDLE, /* user, device, device_key, keys → sealed, signature, out: the packed
                           key_row arrays, out_count */
};

struct store_vault_key {
    struct cq_id chat;
    uint64_t key_version;
    uint8_t wrapped[STORE_WRAPPED_SIZE];
};

struct store_vault_job {
    enum store_vault_kind kind;
    void (*done)(void *ctx,
                 struct store_vault_job *job); /* loop thread; frees with store_vault_job_destroy */
    void *ctx;
    int rc; /* out: 0 or negative (BAD_CREDENTIALS; CRYPTO: does not unwrap, or a bad device key;
               BUSY: no memory for Argon2id) */
    char password[CQ_PASSWORD_MAX + 1]; /* in: NUL-terminated; wiped by the worker */
    char hash[STORE_HASH_SIZE];         /* in or out */
    struct cq_id user, device, chat;
    char name[CQ_NAME_MAX + 1];
    uint8_t device_key[32];
    uint64_t key_version;
    uint64_t generation;
    uint64_t expires_unix_ms;
    uint8_t wrapped[STORE_WRAPPED_SIZE]; /* out */
    struct store_vault_key *keys;        /* in: owned by the job */
    size_t key_count;
    uint8_t sealed[80], signature[64]; /* out */
    cq_buf_t out;                      /* out */
    size_t out_count;
};

struct store_vault_cfg {
    const char *master_key_path;
    const char *key_command; /* NULL or "": use the file; else a command (run by /bin/sh) that
                                prints the 64 hex digits */
    const char *data_dir;    /* the master key must not lie in here: CONFIG */
    bool is_new;             /* the database is empty: create what is missing */
    struct cq_view row;      /* META "vault", empty if is_new */
    unsigned hash_queue_max; /* BUSY beyond */
    unsigned long long hash_opslimit; /* Argon2id passes, 0: libsodium's INTERACTIVE */
    size_t hash_memlimit;             /* its bytes, 0: INTERACTIVE */
};

/* Opens the vault. new_row (room STORE_VAULT_ROW_MAX) and *new_row_size: the row to store in META
 * "vault" if is_new, else size 0. 0; CONFIG (file readable by others, wrong owner, malformed,
 * inside data_dir, missing although the database is not new); CRYPTO (does not match the database).
 * Logged here with a sentence that says what to do. */
int store_vault_open(cq_loop_t *loop,
                     const struct store_vault_cfg *cfg,
                     uint8_t *new_row,
                     size_t *new_row_size,
                     store_vault_t **out) CQ_MUST_CHECK;
void store_vault_close(store_vault_t **v);
/* Ed25519 public key, 32 bytes, view until close. */
const uint8_t *store_vault_public_key(const store_vault_t *v);
/* What edges seal tokens with (rt/token.h), 32 bytes, view until close. New with every open and
 * kept nowhere: an edge's copy that got into wrong hands is worthless after the next start. */
const uint8_t *store_vault_seal_key(const store_vault_t *v);
/* Without the queue, from any thread (the keys are read-only once the vault is open); microseconds.
 * make_key fills wrapped with a new key for chat and key_version; the others say whether a wrapped
 * key belongs to its chat, version and this master key, and whether two hold the same key. */
void store_vault_make_key(const store_vault_t *v, struct store_vault_key *k);
bool store_vault_unwraps(const store_vault_t *v, const struct store_vault_key *k);
bool store_vault_is_same_key(const store_vault_t *v,
                             const struct store_vault_key *a,
                             const struct store_vault_key *b);
/* Takes *job; 0, or BUSY (then the job stays the caller's). */
int store_vault_submit(store_vault_t *v, struct store_vault_job **job) CQ_MUST_CHECK;
struct store_vault_job *store_vault_job_new(enum store_vault_kind kind);
void store_vault_job_destroy(struct store_vault_job **job);

#endif
