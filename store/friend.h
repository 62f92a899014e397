/* SPDX-License-Identifier: MPL-2.0
 * The rules of friendship (docs/protocol.md §4) as a pure function over both users' rows, and the
 * row of the User table.
 */
#ifndef STORE_FRIEND_H
#define STORE_FRIEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/buf.h"
#include "common/wire/frame.h"

#include "store/vault.h"

/* One row (user, peer) of the User table. An absent row is all zero: strangers. */
struct store_friend {
    uint64_t last_pos; /* log position that last changed it: a replay skips what is at or below */
    enum cq_relation relation;
    bool blocks;       /* user blocks peer */
    struct cq_id chat; /* none until the first accept */
    uint64_t key_version;
    uint8_t wrapped[STORE_WRAPPED_SIZE]; /* valid if chat */
    char peer_name[CQ_NAME_MAX + 1];
};

/* What an operation leads to. */
struct store_friend_step {
    enum cq_relation user_relation, peer_relation;
    bool user_blocks, peer_blocks;
    bool changed;   /* false: it stood like this already; answer, store nothing, tell nobody */
    bool tell_peer; /* push FRIEND to the peer */
    bool accepted;  /* both are friends now and were not before: the chat is needed */
};

/* action: CQ_OP_ADD … CQ_OP_UNBLOCK by user on peer. 0 or -CQ_E_BAD_STATE. Pure.
 * A blocked user's ADD changes only his own row (ASKED), so that he cannot tell. */
int store_friend_step(uint8_t action,
                      const struct store_friend *user,
                      const struct store_friend *peer,
                      struct store_friend_step *step) CQ_MUST_CHECK;
/* May both send? Both FRIENDS, neither blocks. */
bool store_friend_is_open(const struct store_friend *user, const struct store_friend *peer);

/* msgpack array in this order of fields. */
void store_friend_write(cq_buf_t *b, const struct store_friend *f);
int store_friend_read(struct cq_view row, struct store_friend *f) CQ_MUST_CHECK; /* CORRUPT */

#endif
