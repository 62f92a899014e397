/* SPDX-License-Identifier: MPL-2.0
 * Messages (messages.def), operations of the WebSocket protocol (ops.def) and of the bus
 * (bus_ops.def), client frames and bus envelopes. docs/protocol.md and docs/bus.md say the same in
 * prose.
 */
#ifndef CQ_WIRE_FRAME_H
#define CQ_WIRE_FRAME_H

#include "common/wire/schema.h"

#define CQ_MESSAGE(tag, fields) CQ_DECLARE_MESSAGE(tag, fields)
#include "common/wire/messages.def"
#undef CQ_MESSAGE

/* C has no empty structs; the schema has no fields. */
struct cq_empty {
    char unused;
};
extern const struct cq_schema cq_empty_schema;

enum cq_relation {
    CQ_RELATION_NONE = 0,
    CQ_RELATION_ASKED = 1,     /* I asked, no answer yet */
    CQ_RELATION_REQUESTED = 2, /* I was asked */
    CQ_RELATION_FRIENDS = 3,
    CQ_RELATION_REMOVED = 4, /* were friends; the chat is readable, closed for sending */
};

/* Of a long job of the store. */
enum cq_job_state_code {
    CQ_JOB_RUNNING = 1,
    CQ_JOB_DONE = 2,      /* it has come to its end; it may have found something */
    CQ_JOB_FAILED = 3,    /* it could not do its work */
    CQ_JOB_CANCELLED = 4, /* by JOB_CANCEL, or because the store stops */
};

enum cq_op_code {
#define CQ_REQUEST(name, code, served, state, fields, answer, doc) CQ_OP_##name = (code),
#define CQ_PUSH(name, code, policy, fields, doc)                   CQ_OP_##name = (code),
#include "common/wire/ops.def"
#undef CQ_REQUEST
#undef CQ_PUSH
};

enum cq_served {
    CQ_SERVED_EDGE,
    CQ_SERVED_STORE,
    CQ_SERVED_PRESENCE,
    CQ_SERVED_NONE
};
enum cq_op_state {
    CQ_STATE_GUEST = 1,
    CQ_STATE_USER = 2,
    CQ_STATE_BOTH = 3
};
enum cq_op_policy {
    CQ_POLICY_DURABLE,
    CQ_POLICY_EPHEMERAL
};

struct cq_op {
    const char *name;
    uint8_t code;
    bool is_push;
    enum cq_served served;    /* requests */
    enum cq_op_state state;   /* requests */
    enum cq_op_policy policy; /* pushes */
    const struct cq_schema *fields;
    const struct cq_schema *answer; /* requests */
    const char *doc;
};

/* The row of an operation, or NULL. */
const struct cq_op *cq_op_find(uint64_t code);
/* All rows, for tests, documents and fuzzers. */
const struct cq_op *cq_op_all(size_t *count);
/* All messages' schemas, likewise. */
const struct cq_schema *const *cq_schema_all(size_t *count);

enum cq_bus_op_code {
#define CQ_BUS_OP(name, code, from, to, fields, answer, doc) CQ_BUS_##name = (code),
#include "common/wire/bus_ops.def"
#undef CQ_BUS_OP
};

struct cq_bus_op {
    const char *name;
    uint8_t code;
    const char *from;
    const char *to;
    const struct cq_schema *fields;
    const struct cq_schema *answer; /* NULL for events */
    const char *doc;
};

const struct cq_bus_op *cq_bus_op_find(uint64_t code);
const struct cq_bus_op *cq_bus_op_all(size_t *count);

/* ---- client frames: one WebSocket binary message = array of operations ---- */

/* One operation of a frame: [code, rid, fields…] of a request or an answer, [code, fields…] of a
 * push. */
struct cq_frame_op {
    uint8_t code;
    uint64_t rid;       /* requests and answers; 0: no answer wanted */
    size_t field_count; /* values under `fields` */
    cq_reader_t fields; /* at the first field */
    struct cq_view raw; /* the whole operation */
};

/* Opens a frame: its number of operations, or -CQ_E_BAD_FRAME / -CQ_E_TOO_BIG; *r stands at the
 * first. */
int cq_frame_open(const void *data, size_t n, size_t ops_max, cq_reader_t *r) CQ_MUST_CHECK;
/* Reads the next operation. 0 or -CQ_E_BAD_FRAME. Unknown codes are not an error here; for them the
 * first value is taken as rid if it is an unsigned integer, else rid is 0. */
int cq_frame_next(cq_reader_t *r, struct cq_frame_op *op) CQ_MUST_CHECK;

/* Write one operation. Requests and answers with rid, pushes without. */
void cq_frame_request(cq_buf_t *b,
                      enum cq_op_code code,
                      uint64_t rid,
                      const struct cq_schema *s,
                      const void *in);
void cq_frame_ok(cq_buf_t *b, uint64_t rid, const struct cq_schema *s, const void *in);
/* OK with fields that are packed already: field_count values in raw */
void cq_frame_ok_raw(cq_buf_t *b, uint64_t rid, size_t field_count, struct cq_view raw);
void cq_frame_err(cq_buf_t *b, uint64_t rid, int err, uint64_t retry_after_ms, uint64_t detail);
void cq_frame_push(cq_buf_t *b, enum cq_op_code code, const struct cq_schema *s, const void *in);

/* ---- bus envelopes: frames [dst or src][header][body] ---- */

struct cq_envelope {
    uint8_t op;
    uint64_t corr;        /* of this envelope, chosen by its sender; a bounce names it */
    uint64_t deadline_ms; /* how long the sender waits, 0: for ever; informs the receiver */
    uint64_t flags;       /* 0 */
    /* When it was sent, by the sender's monotonic clock; 0: not said. Only means something on the
     * sender's own machine. */
    uint64_t sent_mono_us;
};

enum {
    CQ_ENVELOPE_VERSION = 1,
    CQ_ENVELOPE_HEADER_MAX = 64
};

/* Header: msgpack array [version, op, corr, deadline_ms, flags]. */
void cq_envelope_write(cq_buf_t *b, const struct cq_envelope *e);
int cq_envelope_read(const void *data, size_t n, struct cq_envelope *e) CQ_MUST_CHECK;
/* Opens a body (array of items): number of items or negative; *r at the first. */
int cq_envelope_open(const void *data, size_t n, cq_reader_t *r) CQ_MUST_CHECK;

/* ---- the media part of SEND, MESSAGE and their record ---- */

/* Decodes a field `media`: 1; 0 if it is nil or missing (*out is zeroed); -CQ_E_BAD_ARG or
 * -CQ_E_BAD_FRAME. The thumbnail borrows the value's bytes. */
int cq_media_read(struct cq_view value, struct cq_media *out) CQ_MUST_CHECK;

/* ---- log records: array [kind, fields…] ---- */

enum cq_rec_kind {
    CQ_REC_MESSAGE = 1,
    CQ_REC_RECEIPT = 2,
    CQ_REC_FRIEND = 3,
    CQ_REC_COMMIT = 4,
    CQ_REC_READ = 5,
    CQ_REC_PRIVACY = 6,
    CQ_REC_KNOWN = 7,
    CQ_REC_FORGET = 8
};

void cq_rec_write(cq_buf_t *b, enum cq_rec_kind kind, const void *in);
/* Kind and a reader at the fields; 0 or negative. */
int cq_rec_open(const void *data,
                size_t n,
                enum cq_rec_kind *kind,
                cq_reader_t *fields,
                size_t *count) CQ_MUST_CHECK;
const struct cq_schema *cq_rec_schema(enum cq_rec_kind kind); /* NULL: unknown */
/* The fields; those that a record of an earlier version does not have are zero, none, empty. */
int cq_rec_read(enum cq_rec_kind kind, cq_reader_t *fields, size_t count, void *out) CQ_MUST_CHECK;

#endif
