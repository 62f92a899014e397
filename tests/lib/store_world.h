/* SPDX-License-Identifier: MPL-2.0
 * A small world in a real database, made the way the store makes it (records, projection, rows,
 * group commits) but without bus and log-ins: for tests and benchmarks of what reads databases.
 *
 * User n is called "user<n>" and has one device; every pair of friends has a chat with a key of the
 * vault's. One thread. Failures end the program.
 */
#ifndef TESTS_LIB_STORE_WORLD_H
#define TESTS_LIB_STORE_WORLD_H

#include "store/core.h"

struct store_world {
    struct store_core core;
    struct store_core_cfg cfg;
    char key_path[4096];
    size_t slice_max;          /* chats written with a commit while a round is under way */
    uint64_t interval_records; /* not 0: rounds begin and go on by themselves (checkpoint.h) */
};

/* dir: for the database, made if missing; key_path: of the master key, likewise, outside of dir. */
void store_world_open(struct store_world *w, const char *dir, const char *key_path);
/* What is not committed is gone; rows that were not flushed are replayed by the next open. */
void store_world_close(struct store_world *w);

struct cq_id store_world_user_id(uint64_t user);
struct cq_id store_world_device_id(uint64_t user);
struct cq_id store_world_chat_id(uint64_t user, uint64_t peer);

void store_world_add_user(struct store_world *w, uint64_t user);
/* ADD by user, then ACCEPT by peer: two records. */
void store_world_befriend(struct store_world *w, uint64_t user, uint64_t peer);
/* Only the first of them. */
void store_world_ask(struct store_world *w, uint64_t user, uint64_t peer);
/* A message of user to peer: size bytes of ciphertext, at least CQ_MAC_SIZE + 1. */
void store_world_say(struct store_world *w, uint64_t user, uint64_t peer, struct cq_view text);
/* A complete blob of user: number n, of this length; a message of user to peer that refers to it.
 */
struct cq_id store_world_blob_id(uint64_t n);
void store_world_add_blob(struct store_world *w, uint64_t user, uint64_t n, uint64_t length);
void store_world_show(struct store_world *w,
                      uint64_t user,
                      uint64_t peer,
                      struct cq_view text,
                      uint64_t n);
/* Receipts of user in his chat with peer, up to its head minus `behind`. */
void store_world_receive(struct store_world *w, uint64_t user, uint64_t peer, uint64_t behind);
void store_world_read(struct store_world *w, uint64_t user, uint64_t peer, uint64_t behind);
void store_world_hide(struct store_world *w, uint64_t user, bool hides);
/* All devices know what the peer has read of user's messages. */
void store_world_settle(struct store_world *w, uint64_t user, uint64_t peer);
struct store_chat *store_world_chat(struct store_world *w, uint64_t user, uint64_t peer);

/* One group commit, with a slice of rows if a round is under way. */
void store_world_commit(struct store_world *w);
/* The same in two steps, for a committer of the caller's: begin gives the batch for
 * store_core_run_commit (NULL: nothing to write), end is called when that is done. */
struct store_batch *store_world_commit_begin(struct store_world *w);
void store_world_commit_end(struct store_world *w, struct store_batch *b);
/* Begins to write rows. */
void store_world_round(struct store_world *w);
/* Everything to disk: afterwards the marker is at the log's end. */
void store_world_flush(struct store_world *w);

#endif
