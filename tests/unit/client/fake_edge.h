/* SPDX-License-Identifier: MPL-2.0
 * An edge that does what a test says: a WebSocket server for one client, written out here so that
 * every byte is the test's. All functions block until a deadline and abort the test when it passes.
 */
#ifndef TESTS_UNIT_CLIENT_FAKE_EDGE_H
#define TESTS_UNIT_CLIENT_FAKE_EDGE_H

#include "common/wire/frame.h"

typedef struct fake_edge fake_edge_t;

/* Listens on a free port of 127.0.0.1. */
fake_edge_t *fake_edge_new(void);
void fake_edge_destroy(fake_edge_t **p);
const char *fake_edge_url(const fake_edge_t *e);
/* Waits for a client, and shakes hands. */
void fake_edge_accept(fake_edge_t *e);
/* Closes the connection without a word. */
void fake_edge_hang_up(fake_edge_t *e);

/* One operation from the client; its fields are valid until the next call. */
struct fake_op {
    uint8_t code;
    uint64_t rid;
    union {
        struct cq_auth auth;
        struct cq_resume resume;
        struct cq_keys keys;
        struct cq_sync sync;
        struct cq_send send;
        struct cq_history history;
        struct cq_ack ack;
        struct cq_friend_name friend_name;
    };
};

/* The next operation, which must be `code` (PINGs are skipped). */
void fake_edge_expect(fake_edge_t *e, uint8_t code, struct fake_op *out);
/* Is there no operation for ms? */
void fake_edge_expect_silence(fake_edge_t *e, int ms);
void fake_edge_ok(fake_edge_t *e, uint64_t rid, const struct cq_schema *s, const void *in);
void fake_edge_err(fake_edge_t *e, uint64_t rid, int err, uint64_t retry_after_ms, uint64_t detail);
void fake_edge_push(fake_edge_t *e, uint8_t code, const struct cq_schema *s, const void *in);
/* Raw bytes of a binary message. */
void fake_edge_raw(fake_edge_t *e, const void *data, size_t n);

#endif
