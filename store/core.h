/* SPDX-License-Identifier: MPL-2.0
 * The store's bus actor: owns all state, handles requests, builds group commits. The committer
 * actor does nothing but commit (write, fsync) one sealed batch after the other; readers read
 * ranges of history; the vault has its own actors.
 *
 * The rule of every answer: what it says is durable. An answer goes out at once if nothing is on
 * its way to the disk, else with the batch that holds the newest change it could have seen
 * (store_core_reply, store_core_reply_err). So a reader never sees what a crash could take back.
 *
 * This header is for the store's own files: the handlers work on struct store_core directly.
 */
#ifndef STORE_CORE_H
#define STORE_CORE_H

#include "common/rt/bus.h"
#include "common/rt/worker.h"

#include "store/account.h"
#include "store/batch.h"
#include "store/engine.h"
#include "store/friend.h"
#include "store/job.h"
#include "store/projection.h"
#include "store/route.h"
#include "store/vault.h"

struct store_core_cfg {
    char *name;
    char *broker;
    char *data;
    char *master_key;
    char *key_command;
    char *log_level;
    char *restore; /* a backup to make the database from, then to exit */
    char *blobs;   /* the folder of blobs, for a restore or a check */
    uint64_t map_bytes;
    uint64_t reserve_bytes;
    uint64_t chat_cache;         /* clean chats in memory */
    uint64_t checkpoint_records; /* a round of write-behind starts this far behind the head */
    uint64_t checkpoint_idle_ms; /* … or this long after the last round */
    uint64_t token_days;
    uint64_t hash_queue;
    uint64_t replay_records_min; /* rows are written after so many of a start; 0: as a rule */
    bool fsck;                   /* check the database and exit: fsck_offline.h */
    uint64_t blob_quota_bytes;   /* of a user */
    uint64_t blob_quota_count;
    uint64_t blob_grace_s; /* a blob that nothing refers to lives so long */
    uint64_t blob_sweep_s; /* pause between two walks over the blobs */
};

struct store_revoked; /* on_device.c */

struct store_core {
    const struct store_core_cfg *cfg;
    cq_loop_t *loop;
    cq_bus_t *bus;
    store_engine_t *engine;
    store_vault_t *vault;
    store_projection_t *projection;
    cq_worker_t *committer;
    cq_worker_t *reader;
    store_jobs_t *jobs;
    store_route_t *route;
    cq_timer_t *tick;         /* 1 s */
    cq_timer_t *company;      /* while a batch waits for more */
    cq_timer_t *settling;     /* while chats wait for what the log has of them */
    uint64_t settled_mono_us; /* when that was gone on with last */
    struct cq_id epoch;
    store_snapshot_t *snapshot; /* of this turn, opened when first needed */
    struct store_batch *building;
    struct store_batch *committing; /* NULL: the committer is idle */
    uint64_t batch_number;
    uint64_t last_pos;    /* last position given out */
    uint64_t durable_pos; /* last position on disk */
    uint64_t marker;      /* projections on disk are complete up to here */
    uint64_t last_round_mono_ms;
    uint64_t refuse_until_mono_ms; /* the disk takes no writes: refused until then without trying */
    int refuse_err;                /* … with this */
    bool is_full;                  /* no room when last looked: refused without trying */
    bool is_failing;               /* the last commit failed */
    bool writes;                   /* what edges were told: it takes writes */
    /* When the last commit was durable, logged with the next one. It stands for the positions from
     * first to last, as one before it may not have been logged yet; last 0: all are logged. */
    uint64_t commit_time_unix_ms;
    uint64_t commit_time_first, commit_time_last;
    struct store_auth *auths; /* log-ins under way (on_account.c) */
    size_t auth_count;
    struct store_revoked *revoked;
    struct store_blobs *blobs;                       /* on_blob.c */
    struct store_blob_link_question *blob_questions; /* blob_link.c: under way on the bus */
    char (*edges)[CQ_ACTOR_NAME_MAX + 1];            /* alive */
    size_t edge_count;
    bool stopping;
    int exit_code;
};

/* ---- life (core.c) ---- */

int store_core_open(struct store_core *core, const struct store_core_cfg *cfg) CQ_MUST_CHECK;
void store_core_run(struct store_core *core);
void store_core_close(struct store_core *core);
/* Chats may be owed records (replay.c): they get them by and by, between turns. Nothing while the
 * core opens or closes. */
void store_core_begin_settling(struct store_core *core);

/* ---- the group commit (core_commit.c) ---- */

/* Hands what has queued up to the committer, if it is idle. */
void store_core_commit(struct store_core *core);
struct store_batch *store_core_next_batch(struct store_core *core);
/* The store ends with exit code 1: what is on disk cannot be used. */
void store_core_give_up(struct store_core *core, int rc);
/* The committer actor's job, and what follows on the loop thread. */
void store_core_run_commit(void *ctx, void *job);
void store_core_on_commit_done(void *ctx, void *job);
void store_core_register_metrics(void);
/* Looks whether writes would work, and tells edges if that has changed. */
void store_core_check_writes(struct store_core *core);

/* ---- for handlers (core_rows.c) ---- */

/* Closes this turn's snapshot: what was read from it is void. */
void store_core_drop_snapshot(struct store_core *core);
/* For the projection: a row as it is on disk, without the changes under way. */
int store_core_row_on_disk(void *ctx, enum store_table t, struct cq_view key, struct cq_view *value)
    CQ_MUST_CHECK;
/* The same for a record of the log. */
int store_core_record_on_disk(void *ctx, uint64_t pos, struct cq_view *record) CQ_MUST_CHECK;

/* May writes be tried now? 0, -CQ_E_NO_SPACE or -CQ_E_UNAVAILABLE. Ask before changing anything. */
int store_core_writable(const struct store_core *core) CQ_MUST_CHECK;
/* Appends a record and, if chat is not NULL, applies it first. *pos: its position. On error nothing
 * is changed. */
int store_core_append(struct store_core *core,
                      struct store_chat *chat,
                      enum cq_rec_kind kind,
                      const void *fields,
                      uint64_t *pos) CQ_MUST_CHECK;
/* A row as the newest change has it. View until the next change of any row or the end of the turn.
 * NOT_FOUND. */
int store_core_row(struct store_core *core,
                   enum store_table t,
                   const struct store_key *key,
                   struct cq_view *value) CQ_MUST_CHECK;
void store_core_put(struct store_core *core,
                    enum store_table t,
                    const struct store_key *key,
                    struct cq_view value);
int store_core_snapshot(struct store_core *core, store_snapshot_t **s) CQ_MUST_CHECK;
/* Calls fn for each row with the prefix, changes that are under way included (in no particular
 * order). */
int store_core_scan(struct store_core *core,
                    enum store_table t,
                    const struct store_key *prefix,
                    store_row_fn *fn,
                    void *ctx) CQ_MUST_CHECK;
/* The chat if the user is a member of it, else NOT_FOUND, the same as if it did not exist. */
int store_core_chat(struct store_core *core,
                    const struct cq_id *chat,
                    const struct cq_id *user,
                    struct store_chat **out,
                    int *member) CQ_MUST_CHECK;
/* The record at a position, from memory or disk. View as store_core_row. */
int store_core_record(struct store_core *core, uint64_t pos, struct cq_view *record) CQ_MUST_CHECK;

/* The newest batch that holds or will hold a change, NULL if everything is durable. */
struct store_batch *store_core_pending(struct store_core *core);
void store_core_reply(struct store_core *core,
                      const struct cq_bus_from *to,
                      const struct cq_schema *s,
                      const void *in);
void store_core_reply_raw(struct store_core *core,
                          const struct cq_bus_from *to,
                          size_t field_count,
                          struct cq_view raw);
/* Errors say something of the state, too: CHAT_CLOSED, NOT_FOUND, NAME_TAKEN. */
void store_core_reply_err(struct store_core *core,
                          const struct cq_bus_from *to,
                          int err,
                          uint64_t detail);
/* An event to every live edge. */
void store_core_tell_edges(struct store_core *core,
                           uint8_t op,
                           const struct cq_schema *s,
                           const void *in);
/* Runs fn when everything so far is durable: at once, or with the pending batch. */
void store_core_after(struct store_core *core, store_batch_fn *fn, void *arg);

/* What the reader actor does, first member of its jobs: run there (core->engine only, snapshots of
 * its own), then done on the loop thread, which frees the job. */
struct store_reading {
    void (*run)(struct store_core *core, struct store_reading *job);
    void (*done)(struct store_core *core, struct store_reading *job, int rc);
};
/* Hands a job to the reader once everything so far is durable. done: rc 0, or BUSY (it was not run:
 * the reader's queue is full or the commit failed). */
void store_core_read(struct store_core *core, struct store_reading *job);

/* ---- replay.c ---- */

/* Reads marker and epoch, and whose the records behind the marker are: chats get theirs when they
 * are loaded. */
int store_replay_run(struct store_core *core) CQ_MUST_CHECK;
/* Applies the records of further chats until then, or until all have theirs. 0; CORRUPT, IO: the
 * store cannot go on. */
int store_replay_settle(struct store_core *core, uint64_t until_mono_us) CQ_MUST_CHECK;
/* The stored routed-up-to position, 0 if none. */
int store_replay_routed(struct store_core *core, uint64_t *pos) CQ_MUST_CHECK;

/* ---- ops.c: what the bus brings ---- */

extern const struct cq_bus_row store_ops_rows[];
extern const size_t store_ops_row_count;

/* One client operation of an authenticated device, decoded. */
struct store_call {
    const struct cq_bus_from *from;
    struct cq_id user;
    struct cq_id device;
    uint8_t op;
    uint64_t detail; /* out: goes with the error, see the protocol's errors */
};
/* in: the operation's decoded fields. Answers itself and returns 0, or returns the error to answer.
 */
typedef int store_call_fn(struct store_core *core, struct store_call *call, const void *in);

/* on_message.c */
store_call_fn store_on_send, store_on_ack, store_on_typing;
/* on_sync.c */
store_call_fn store_on_sync, store_on_chats, store_on_keys;
/* history.c */
store_call_fn store_on_history;
/* on_job.c */
cq_bus_handler store_on_job_start, store_on_job_status, store_on_job_cancel;
extern const struct store_job_kind store_job_kinds[];
extern const size_t store_job_kind_count;
/* ledger.c */
store_call_fn store_on_ledger;
cq_bus_handler store_on_bus_ledger;
/* on_friend.c */
store_call_fn store_on_friends, store_on_friend_op;
cq_bus_handler store_on_watchlist;
int store_friend_row(struct store_core *core,
                     const struct cq_id *user,
                     const struct cq_id *peer,
                     struct store_friend *out) CQ_MUST_CHECK;
int store_name_find(struct store_core *core, struct cq_view name, struct cq_id *user) CQ_MUST_CHECK;
/* A user's friend rows: calls fn with each; returning false stops. */
typedef bool store_friend_fn(void *ctx, const struct cq_id *peer, const struct store_friend *row);
int store_friend_each(struct store_core *core,
                      const struct cq_id *user,
                      store_friend_fn *fn,
                      void *ctx) CQ_MUST_CHECK;
/* on_privacy.c */
store_call_fn store_on_privacy;
/* Does the user hide when they were last seen? 0, or NOT_FOUND, CORRUPT. */
int
store_privacy_hides(struct store_core *core, const struct cq_id *user, bool *hides) CQ_MUST_CHECK;
/* on_account.c */
cq_bus_handler store_on_auth;
void store_account_free(struct store_core *core);
/* on_device.c */
store_call_fn store_on_devices, store_on_revoke, store_on_logout;
cq_bus_handler store_on_edge_init;
/* The revoked ones as they are on disk: at start and after a failed commit. */
int store_device_load(struct store_core *core) CQ_MUST_CHECK;
void store_device_free(struct store_core *core);
bool store_device_is_revoked(const struct store_core *core,
                             const struct cq_id *user,
                             const struct cq_id *device);
int store_device_row(struct store_core *core,
                     const struct cq_id *user,
                     const struct cq_id *device,
                     struct store_device *out) CQ_MUST_CHECK;
/* 0; REVOKED if there is no such device: it was made after the backup that this database was
 * restored from, and has to log in again. (Revoked ones are refused before:
 * store_device_is_revoked.) */
int store_device_check(struct store_core *core,
                       const struct cq_id *user,
                       const struct cq_id *device) CQ_MUST_CHECK;
void store_device_put(struct store_core *core,
                      const struct cq_id *user,
                      const struct cq_id *device,
                      const struct store_device *row);

/* Frees a place among the devices of a chat that is full: one that was logged out is forgotten, and
 * cannot log in again. 0; BAD_DEVICE (all of them may still act); other. */
int store_device_make_room(struct store_core *core, struct store_chat *chat) CQ_MUST_CHECK;

/* ---- audit.c: which Read_Audit rows do all of a user's devices know? begin, look at each chat of
 * the user, end ---- */

struct store_audit {
    struct cq_id user, device;
    struct store_device row; /* of the device */
    bool has_device;
    uint64_t knows_pos;    /* the device, up to there */
    uint64_t all_know_pos; /* all that are not logged out */
    bool is_news;          /* a row that waits for others, too, is now known to the device */
    struct cq_id *chats;   /* whose row ends */
    size_t count, room;
    int rc;
};
/* The device says what it knows: version (none, 0: no device does). 0; REVOKED if there is no such
 * device, see store_device_check; other. */
int store_audit_begin(struct store_core *core,
                      const struct cq_id *user,
                      const struct cq_id *device,
                      uint64_t version,
                      struct store_audit *a) CQ_MUST_CHECK;
void store_audit_look(struct store_audit *a, const struct store_chat *chat, int member);
/* Writes what follows, as soon as writes are taken (else the next SYNC does). After any begin. */
int store_audit_end(struct store_core *core, struct store_audit *a) CQ_MUST_CHECK;
/* A device of the user was logged out: no row waits for it any more. */
int store_audit_logged_out(struct store_core *core, const struct cq_id *user) CQ_MUST_CHECK;

/* on_blob.c */
cq_bus_handler store_on_blob_reserve, store_on_blob_whole, store_on_blob_release,
    store_on_blob_known, store_on_blob_access;
/* May this user's message refer to this blob? 0; NO_BLOB; other. */
int store_blob_may_refer(struct store_core *core,
                         const struct cq_id *user,
                         const struct cq_id *id,
                         uint64_t length) CQ_MUST_CHECK;
/* A message of this chat does: with the message's commit its members may read it. */
int store_blob_refer(struct store_core *core,
                     const struct store_chat *chat,
                     const struct cq_id *id) CQ_MUST_CHECK;
void store_blob_tick(struct store_core *core);
/* Stops collecting, or goes on with it. Returns how many are being collected still. */
size_t store_blob_hold(struct store_core *core, bool is_held);
void store_blob_free(struct store_core *core);

#endif
