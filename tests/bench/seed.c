/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-seed: fills the database of a system that does not run with many people who are
 * friends, fast. It is the store itself, without its bus: the same rows, records, commits, and the
 * vault's own tokens and chat keys. Only the password hash is shared by all, as one Argon2id for
 * each would take hours.
 *
 * Friends stand in a ring: each is a friend of the friends / 2 people on either side.
 */
#include "tests/bench/seed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/rt/check.h"
#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "store/core.h"
#include "tests/bench/measure.h"

enum {
    IN_FLIGHT = 2000,   /* jobs of the vault */
    RECORDS_MAX = 8000, /* in the batch that is being built */
    NAME_DIGITS = 8,
};

struct options {
    char *data, *out;
    uint64_t users, devices, friends;
};

static const struct cq_config_item items[] = {
    {"data", CQ_CONFIG_STR, offsetof(struct options, data), NULL, 1, 3900, "",
     "data folder, as deploy/run.sh gets it"},
    {"out", CQ_CONFIG_STR, offsetof(struct options, out), NULL, 1, 4096, "",
     "file for the people's ids and tokens"},
    {"users", CQ_CONFIG_UINT, offsetof(struct options, users), "20000", 1, 10000000, "", "people"},
    {"devices", CQ_CONFIG_UINT, offsetof(struct options, devices), "1", 1, 256, "",
     "devices of each"},
    {"friends", CQ_CONFIG_UINT, offsetof(struct options, friends), "50", 0, 1000, "",
     "friends of each, an even number"},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

struct person {
    struct cq_id user;
    struct cq_id *devices;
    uint8_t (*tokens)[CQ_TOKEN_MAX];
    size_t *token_sizes;
};

static struct {
    struct options o;
    struct store_core core;
    struct person *people;
    char hash[STORE_HASH_SIZE];
    bool has_hash;
    uint64_t next, done; /* jobs: tokens, then keys of pairs */
    uint64_t tokens, total;
} seed;

/* A job's number → what it is about. */
struct pair {
    size_t a, b;
};

static struct pair
pair_of(uint64_t number)
{
    uint64_t half = seed.o.friends / 2;
    size_t a = (size_t)(number / half);
    return (struct pair){a, (size_t)((a + number % half + 1) % seed.o.users)};
}

static void
name_of(size_t i, char name[CQ_NAME_MAX + 1])
{
    (void)snprintf(name, CQ_NAME_MAX + 1, "seed%0*zu", NAME_DIGITS, i);
}

static void
check(int rc, const char *what)
{
    if (rc) {
        bench_measure_fail("%s: %s", what, cq_err_name(rc));
    }
}

/* ---- people ---- */

static void
put_device(const struct cq_id *user, const struct cq_id *id)
{
    struct store_key key = store_key_of(id);
    struct store_device device = {
        .key = {9}, .label = "bench", .created_unix_ms = cq_now_unix_ms(), .generation = 1};
    store_device_put(&seed.core, user, id, &device);
    store_core_put(&seed.core, STORE_TABLE_OWNER, &key, (struct cq_view){user->b, CQ_ID_SIZE});
}

static void
put_person(size_t i)
{
    struct person *p = &seed.people[i];
    struct store_account account = {.created_unix_ms = cq_now_unix_ms()};
    name_of(i, account.name);
    memcpy(account.hash, seed.hash, sizeof account.hash);
    struct store_key name = store_key_name(account.name, strlen(account.name));
    struct store_key user = store_key_of(&p->user);
    cq_buf_t b = {0};
    store_account_write(&b, &account);
    store_core_put(&seed.core, STORE_TABLE_NAME, &name, (struct cq_view){p->user.b, CQ_ID_SIZE});
    store_core_put(&seed.core, STORE_TABLE_ACCOUNT, &user, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
    for (uint64_t d = 0; d < seed.o.devices; d++) {
        put_device(&p->user, &p->devices[d]);
    }
}

static void
on_token(void *ctx, struct store_vault_job *job)
{
    uint64_t number = (uint64_t)(uintptr_t)ctx;
    struct person *p = &seed.people[number / seed.o.devices];
    size_t d = (size_t)(number % seed.o.devices);
    check(job->rc, "a token");
    CQ_ASSERT(job->out.size <= CQ_TOKEN_MAX);
    p->token_sizes[d] = job->out.size;
    memcpy(p->tokens[d], job->out.data, job->out.size);
    if (d == 0) {
        put_person((size_t)(number / seed.o.devices));
    }
    seed.done++;
    store_vault_job_destroy(&job);
}

static struct store_vault_job *
token_job(uint64_t number)
{
    size_t i = (size_t)(number / seed.o.devices);
    size_t d = (size_t)(number % seed.o.devices);
    struct person *p = &seed.people[i];
    if (d == 0) {
        p->user = cq_random_id();
        p->devices = cq_alloc(seed.o.devices * sizeof *p->devices);
        p->tokens = cq_alloc(seed.o.devices * sizeof *p->tokens);
        p->token_sizes = cq_alloc(seed.o.devices * sizeof *p->token_sizes);
    }
    p->devices[d] = cq_random_id();
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_TOKEN);
    job->user = p->user;
    job->device = p->devices[d];
    job->generation = 1;
    job->expires_unix_ms = cq_now_unix_ms() + UINT64_C(86400000);
    name_of(i, job->name);
    job->done = on_token;
    return job;
}

/* ---- friends ---- */

static void
put_friend(const struct cq_id *user, const struct cq_id *peer, struct store_friend *row, size_t i)
{
    struct store_key key = store_key_pair(user, peer);
    cq_buf_t b = {0};
    name_of(i, row->peer_name);
    store_friend_write(&b, row);
    store_core_put(&seed.core, STORE_TABLE_USER, &key, (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

static void
on_key(void *ctx, struct store_vault_job *job)
{
    struct pair pair = pair_of((uint64_t)(uintptr_t)ctx - seed.tokens);
    const struct cq_id *a = &seed.people[pair.a].user;
    const struct cq_id *b = &seed.people[pair.b].user;
    char names[2][CQ_NAME_MAX + 1];
    struct store_friend row = {
        .relation = CQ_RELATION_FRIENDS, .chat = job->chat, .key_version = job->key_version};
    struct store_chat *chat = NULL;
    check(job->rc, "a chat key");
    memcpy(row.wrapped, job->wrapped, sizeof row.wrapped);
    name_of(pair.a, names[0]);
    name_of(pair.b, names[1]);
    struct cq_rec_friend record = {
        .user = *a,
        .peer = *b,
        .action = CQ_OP_ADD,
        .user_relation = CQ_RELATION_FRIENDS,
        .peer_relation = CQ_RELATION_FRIENDS,
        .chat = job->chat,
        .key_version = job->key_version,
        .wrapped = {job->wrapped, sizeof job->wrapped},
        .user_name = {(const uint8_t *)names[0], strlen(names[0])},
        .peer_name = {(const uint8_t *)names[1], strlen(names[1])},
        .time_unix_ms = cq_now_unix_ms(),
    };
    check(store_projection_begin(seed.core.projection, &job->chat, &chat), "a chat");
    check(store_core_append(&seed.core, chat, CQ_REC_FRIEND, &record, &row.last_pos), "a record");
    put_friend(a, b, &row, pair.b);
    put_friend(b, a, &row, pair.a);
    seed.done++;
    store_vault_job_destroy(&job);
}

static struct store_vault_job *
key_job(uint64_t number)
{
    struct pair pair = pair_of(number - seed.tokens);
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_NEW_KEY);
    job->chat = cq_chat_id(&seed.people[pair.a].user, &seed.people[pair.b].user);
    job->key_version = 1;
    job->done = on_key;
    return job;
}

/* ---- the run ---- */

static void
on_hash(void *ctx, struct store_vault_job *job)
{
    (void)ctx;
    check(job->rc, "the password's hash");
    memcpy(seed.hash, job->hash, sizeof seed.hash);
    seed.has_hash = true;
    store_vault_job_destroy(&job);
}

static void
submit(struct store_vault_job *job, uint64_t number)
{
    job->ctx = (void *)(uintptr_t)number; /* NOLINT(performance-no-int-to-ptr) a number */
    check(store_vault_submit(seed.core.vault, &job), "the vault");
}

/* The end of a turn: more jobs, as long as the vault and the batch have room. */
static void
on_turn(void *ctx)
{
    (void)ctx;
    if (!seed.has_hash || seed.core.stopping) {
        return;
    }
    while (seed.next < seed.total && seed.next - seed.done < IN_FLIGHT &&
           seed.core.building->record_count < RECORDS_MAX &&
           (seed.next < seed.tokens || seed.done >= seed.tokens)) {
        submit(seed.next < seed.tokens ? token_job(seed.next) : key_job(seed.next), seed.next);
        seed.next++;
    }
    if (seed.done == seed.total) {
        seed.core.stopping = true; /* the store commits what is left and ends its loop */
    }
}

static void
write_people(void)
{
    FILE *f = fopen(seed.o.out, "wbx");
    struct bench_seed_header header = {BENCH_SEED_ID, (uint32_t)seed.o.users,
                                       (uint32_t)seed.o.devices, (uint32_t)seed.o.friends};
    if (!f) {
        bench_measure_fail("cannot write %s", seed.o.out);
    }
    bool ok = fwrite(&header, sizeof header, 1, f) == 1;
    for (size_t i = 0; i < seed.o.users; i++) {
        struct person *p = &seed.people[i];
        for (size_t d = 0; d < seed.o.devices; d++) {
            uint8_t size[2] = {(uint8_t)p->token_sizes[d], (uint8_t)(p->token_sizes[d] >> 8)};
            ok = ok && fwrite(p->user.b, CQ_ID_SIZE, 1, f) == 1 &&
                 fwrite(p->devices[d].b, CQ_ID_SIZE, 1, f) == 1 &&
                 fwrite(size, sizeof size, 1, f) == 1 &&
                 fwrite(p->tokens[d], p->token_sizes[d], 1, f) == 1;
        }
        free(p->devices);
        free(p->tokens);
        free(p->token_sizes);
    }
    if (fclose(f) != 0 || !ok) {
        bench_measure_fail("cannot write %s", seed.o.out);
    }
}

static void
run(void)
{
    static char data[4096], key[4096], broker[4096];
    (void)snprintf(key, sizeof key, "%s/keys", seed.o.data);
    (void)mkdir(seed.o.data, 0700);
    (void)mkdir(key, 0700);
    (void)snprintf(data, sizeof data, "%s/store", seed.o.data);
    (void)snprintf(key, sizeof key, "%s/keys/master.key", seed.o.data);
    (void)snprintf(broker, sizeof broker, "ipc://%s/nobody.sock", seed.o.data);
    static char name[] = "store.seed";
    static char command[] = "";
    static struct store_core_cfg cfg = {
        .name = name,
        .broker = broker,
        .data = data,
        .master_key = key,
        .key_command = command,
        .map_bytes = UINT64_C(1) << 36,
        .reserve_bytes = 64 << 20,
        .chat_cache = 200000,
        .checkpoint_records = 100000,
        .checkpoint_idle_ms = 10000,
        .token_days = 1,
        .hash_queue = 64,
    };
    check(store_core_open(&seed.core, &cfg), "the store (is it running?)");
    cq_loop_on_turn(seed.core.loop, on_turn, NULL);
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_HASH);
    (void)snprintf(job->password, sizeof job->password, "correct horse");
    job->done = on_hash;
    check(store_vault_submit(seed.core.vault, &job), "the vault");
    store_core_run(&seed.core);
    store_core_close(&seed.core);
}

int
main(int argc, char **argv)
{
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-seed", argc, argv, &seed.o);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    if (seed.o.friends % 2 || seed.o.friends >= seed.o.users) {
        bench_measure_fail("friends must be even and fewer than users");
    }
    cq_log_init("seed", CQ_LOG_WARN);
    seed.people = cq_alloc(seed.o.users * sizeof *seed.people);
    seed.tokens = seed.o.users * seed.o.devices;
    seed.total = seed.tokens + seed.o.users * (seed.o.friends / 2);
    run();
    write_people();
    (void)fprintf(stderr, "%" PRIu64 " people, %" PRIu64 " devices, %" PRIu64 " friendships\n",
                  seed.o.users, seed.tokens, seed.total - seed.tokens);
    free(seed.people);
    cq_config_free(items, ITEM_COUNT, &seed.o);
    return 0;
}
