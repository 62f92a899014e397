/* SPDX-License-Identifier: MPL-2.0
 * A client and a scripted edge, both ends of its connection in the test's hand. give_… and serve_…
 * answer what the client asks; expect_… and take_… check it; wait_for takes events.
 */
#ifndef TESTS_UNIT_CLIENT_SESSION_WORLD_H
#define TESTS_UNIT_CLIENT_SESSION_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "client/include/chasqui/client.h"
#include "tests/unit/client/fake_edge.h"

enum {
    DEADLINE_MS = 15000,
    EVENTS_MAX = 256
};

struct seen {
    cq_client_event_t event;
    char text[256];
    char peer[64];
};

struct world {
    char home[64];
    fake_edge_t *edge;
    cq_client_t *client;
    struct cq_id user, peer, device, peer_device, chat, epoch;
    uint8_t store_key[32], store_secret[64], chat_keys[3][32];
    uint64_t key_version; /* the chat's current one */
    uint64_t head, read, delivered, last_dseq;
    uint64_t version;
    bool reset;
    uint8_t device_key[32];
    struct seen events[EVENTS_MAX];
    int event_count;
};

void world_welcome(struct world *w, uint64_t rid);
void world_give_keys(struct world *w);
void world_give_sync(struct world *w);
void world_serve_login(struct world *w);
void world_serve_resume(struct world *w);
void world_make_message(struct world *w,
                        uint64_t seq,
                        const char *text,
                        struct cq_message *m,
                        cq_buf_t *ct,
                        uint8_t nonce[24]);
void world_push_message(struct world *w, uint64_t seq, const char *text);
void world_give_history(struct world *w, uint64_t from, uint64_t to);
void world_take_ack(struct world *w, uint64_t delivered, uint64_t read);
void world_sent(struct world *w, uint64_t rid, uint64_t seq);
struct seen world_wait_for(struct world *w, enum cq_client_event_type type);
void world_wait_for_state(struct world *w, enum cq_client_state state);
void world_open_client(struct world *w);
uint64_t world_send_text(struct world *w, const char *text);
void world_expect_send(struct world *w, uint64_t dseq, uint64_t prev, struct fake_op *op);
int world_set_up(void **state);
int world_tear_down(void **state);

#endif
