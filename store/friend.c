/* SPDX-License-Identifier: MPL-2.0
 * The pairs (mine, the other's) that the rules below lead to: NONE-NONE, ASKED-REQUESTED,
 * FRIENDS-FRIENDS, REMOVED-REMOVED and their mirror images; and, when a block has hidden a request
 * or its refusal, ASKED beside NONE, REMOVED or ASKED. Whoever reads such a pair sees only his own
 * half, so he cannot tell. Rows that disagree in another way (damage) are led back to one of these.
 */
#include "store/friend.h"

#include <string.h>

#include "common/wire/name.h"
#include "common/wire/pack.h"

enum {
    FRIEND_FIELDS = 7
};

typedef int rule_fn(const struct store_friend *user,
                    const struct store_friend *peer,
                    struct store_friend_step *step);

/* What is left when a request ends: a former chat stays readable. */
static enum cq_relation
rest_of(const struct store_friend *f)
{
    return cq_id_is_none(&f->chat) ? CQ_RELATION_NONE : CQ_RELATION_REMOVED;
}

static void
make_friends(struct store_friend_step *step)
{
    step->user_relation = CQ_RELATION_FRIENDS;
    step->peer_relation = CQ_RELATION_FRIENDS;
}

static int
add(const struct store_friend *user,
    const struct store_friend *peer,
    struct store_friend_step *step)
{
    if (user->blocks) {
        return -CQ_E_BAD_STATE;
    }
    if (user->relation == CQ_RELATION_FRIENDS) {
        return 0;
    }
    bool asked_me = peer->relation == CQ_RELATION_ASKED;
    /* I know of his request (and it stands although he blocks me since), or both have asked. */
    if (asked_me && (user->relation == CQ_RELATION_REQUESTED || !peer->blocks)) {
        make_friends(step);
        return 0;
    }
    /* A repeated request is not delivered after an unblock either. */
    if (user->relation != CQ_RELATION_ASKED && !peer->blocks) {
        step->peer_relation = CQ_RELATION_REQUESTED;
    }
    step->user_relation = CQ_RELATION_ASKED;
    return 0;
}

static int
accept_request(const struct store_friend *user,
               const struct store_friend *peer,
               struct store_friend_step *step)
{
    if (user->relation == CQ_RELATION_FRIENDS) {
        return 0;
    }
    if (user->relation != CQ_RELATION_REQUESTED || peer->relation != CQ_RELATION_ASKED ||
        user->blocks) {
        return -CQ_E_BAD_STATE;
    }
    make_friends(step);
    return 0;
}

static int
decline(const struct store_friend *user,
        const struct store_friend *peer,
        struct store_friend_step *step)
{
    if (user->relation == CQ_RELATION_NONE || user->relation == CQ_RELATION_REMOVED) {
        return 0;
    }
    if (user->relation != CQ_RELATION_REQUESTED) {
        return -CQ_E_BAD_STATE;
    }
    step->user_relation = rest_of(user);
    /* Whom I block learns nothing: for him the request stays unanswered. */
    if (peer->relation == CQ_RELATION_ASKED && !user->blocks) {
        step->peer_relation = rest_of(peer);
    }
    return 0;
}

static int
cancel(const struct store_friend *user,
       const struct store_friend *peer,
       struct store_friend_step *step)
{
    if (user->relation == CQ_RELATION_NONE || user->relation == CQ_RELATION_REMOVED) {
        return 0;
    }
    if (user->relation != CQ_RELATION_ASKED) {
        return -CQ_E_BAD_STATE;
    }
    step->user_relation = rest_of(user);
    if (peer->relation == CQ_RELATION_REQUESTED) {
        step->peer_relation = rest_of(peer);
    }
    return 0;
}

static int
end_friendship(const struct store_friend *user,
               const struct store_friend *peer,
               struct store_friend_step *step)
{
    if (user->relation == CQ_RELATION_REMOVED) {
        return 0;
    }
    if (user->relation != CQ_RELATION_FRIENDS) {
        return -CQ_E_BAD_STATE;
    }
    step->user_relation = CQ_RELATION_REMOVED;
    if (peer->relation == CQ_RELATION_FRIENDS) {
        step->peer_relation = CQ_RELATION_REMOVED;
    }
    return 0;
}

static int
block(const struct store_friend *user,
      const struct store_friend *peer,
      struct store_friend_step *step)
{
    (void)user;
    (void)peer;
    step->user_blocks = true;
    return 0;
}

static int
unblock(const struct store_friend *user,
        const struct store_friend *peer,
        struct store_friend_step *step)
{
    (void)user;
    (void)peer;
    step->user_blocks = false;
    return 0;
}

static rule_fn *const rules[] = {
    [0] = add,
    [CQ_OP_ACCEPT - CQ_OP_ADD] = accept_request,
    [CQ_OP_DECLINE - CQ_OP_ADD] = decline,
    [CQ_OP_CANCEL - CQ_OP_ADD] = cancel,
    [CQ_OP_REMOVE - CQ_OP_ADD] = end_friendship,
    [CQ_OP_BLOCK - CQ_OP_ADD] = block,
    [CQ_OP_UNBLOCK - CQ_OP_ADD] = unblock,
};

static bool
is_open(const struct store_friend_step *s)
{
    return s->user_relation == CQ_RELATION_FRIENDS && s->peer_relation == CQ_RELATION_FRIENDS &&
           !s->user_blocks && !s->peer_blocks;
}

static bool
are_friends(const struct store_friend_step *s)
{
    return s->user_relation == CQ_RELATION_FRIENDS && s->peer_relation == CQ_RELATION_FRIENDS;
}

int
store_friend_step(uint8_t action,
                  const struct store_friend *user,
                  const struct store_friend *peer,
                  struct store_friend_step *step)
{
    struct store_friend_step before = {
        .user_relation = user->relation,
        .peer_relation = peer->relation,
        .user_blocks = user->blocks,
        .peer_blocks = peer->blocks,
    };
    *step = before;
    if (action < CQ_OP_ADD || action > CQ_OP_UNBLOCK) {
        return -CQ_E_BAD_STATE;
    }
    int rc = rules[action - CQ_OP_ADD](user, peer, step);
    if (rc) {
        return rc;
    }
    bool peer_changed = step->peer_relation != before.peer_relation;
    step->changed = peer_changed || step->user_relation != before.user_relation ||
                    step->user_blocks != before.user_blocks;
    step->tell_peer = peer_changed || is_open(step) != is_open(&before);
    step->accepted = are_friends(step) && !are_friends(&before);
    return 0;
}

bool
store_friend_is_open(const struct store_friend *user, const struct store_friend *peer)
{
    return user->relation == CQ_RELATION_FRIENDS && peer->relation == CQ_RELATION_FRIENDS &&
           !user->blocks && !peer->blocks;
}

void
store_friend_write(cq_buf_t *b, const struct store_friend *f)
{
    cq_pack_array(b, FRIEND_FIELDS);
    cq_pack_uint(b, f->last_pos);
    cq_pack_uint(b, (uint64_t)f->relation);
    cq_pack_bool(b, f->blocks);
    cq_pack_id(b, &f->chat);
    cq_pack_uint(b, f->key_version);
    cq_pack_bin(b, f->wrapped, cq_id_is_none(&f->chat) ? 0 : sizeof f->wrapped);
    cq_pack_str(b, f->peer_name, strnlen(f->peer_name, CQ_NAME_MAX));
}

int
store_friend_read(struct cq_view row, struct store_friend *f)
{
    memset(f, 0, sizeof *f);
    cq_reader_t r = cq_reader_of(row);
    struct store_friend out = {0};
    cq_read_array(&r, FRIEND_FIELDS, FRIEND_FIELDS);
    out.last_pos = cq_read_uint(&r, UINT64_MAX);
    out.relation = (enum cq_relation)cq_read_uint(&r, CQ_RELATION_REMOVED);
    out.blocks = cq_read_bool(&r);
    out.chat = cq_read_id_or_nil(&r);
    out.key_version = cq_read_uint(&r, UINT64_MAX);
    size_t wrapped_size = cq_id_is_none(&out.chat) ? 0 : sizeof out.wrapped;
    struct cq_view wrapped = cq_read_bin(&r, wrapped_size, wrapped_size);
    struct cq_view name = cq_read_str(&r, 0, CQ_NAME_MAX);
    if (r.err || !cq_reader_at_end(&r) || (name.n && !cq_name_ok((const char *)name.p, name.n))) {
        return -CQ_E_CORRUPT;
    }
    if (wrapped.n) {
        memcpy(out.wrapped, wrapped.p, sizeof out.wrapped);
    }
    if (name.n) {
        memcpy(out.peer_name, name.p, name.n);
    }
    *f = out;
    return 0;
}
