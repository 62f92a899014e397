/* SPDX-License-Identifier: MPL-2.0
 * WebSocket frames from a client (RFC 6455 §5), read as they come: pure, no allocation, no I/O. One
 * struct per connection, whatever the size of the messages.
 */
#ifndef EDGE_FRAME_H
#define EDGE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum edge_frame_opcode {
    EDGE_FRAME_CONTINUATION = 0,
    EDGE_FRAME_TEXT = 1,
    EDGE_FRAME_BINARY = 2,
    EDGE_FRAME_CLOSE = 8,
    EDGE_FRAME_PING = 9,
    EDGE_FRAME_PONG = 10,
};

/* Close codes that RFC 6455 gives for what a peer did wrong. */
enum {
    EDGE_FRAME_E_PROTOCOL = 1002,
    EDGE_FRAME_E_KIND = 1003, /* text, and only binary is taken */
    EDGE_FRAME_E_UTF8 = 1007,
    EDGE_FRAME_E_TOO_BIG = 1009,
};

enum {
    EDGE_FRAME_HEADER_MAX = 14,       /* of a client's frame */
    EDGE_FRAME_CONTROL_MAX = 125,     /* payload of a control frame */
    EDGE_FRAME_OUT_HEADER_MAX = 10,   /* of ours */
    EDGE_FRAME_FRAGMENTS_MAX = 65535, /* of one message */
};

struct edge_frame_limits {
    uint64_t frame_max_bytes, message_max_bytes;
    bool takes_text;
};

/* Where UTF-8 stands between two pieces of a text. */
struct edge_utf8 {
    uint8_t need;   /* continuation bytes that are missing */
    uint8_t lo, hi; /* bounds of the next one */
};

/* {0} is a new connection. */
struct edge_frame {
    uint64_t left;          /* payload bytes of this frame that have not come yet */
    uint64_t message_bytes; /* of the message so far */
    uint8_t header[EDGE_FRAME_HEADER_MAX];
    uint8_t header_size;
    uint8_t mask_at; /* which byte of the mask is next */
    uint8_t opcode;  /* of this frame */
    uint8_t message; /* opcode of the message under way, 0: none */
    bool is_payload; /* the header is complete */
    bool is_final;   /* FIN of this frame */
    uint16_t fragments;
    struct edge_utf8 utf8;
};

/* A piece of payload, unmasked. */
struct edge_frame_part {
    uint8_t opcode; /* TEXT or BINARY (of the message, continuations too), CLOSE, PING, PONG */
    bool is_frame_end, is_message_end;
    uint8_t *data;
    size_t n;
};

/* Reads on from *at, which it moves; unmasks in place, checks text as it comes. 1: a part is there;
 * 0: everything is read, more is needed; negative: minus the close code, nothing can be read any
 * more. Reserved bits are refused: no extension is ever agreed. */
int edge_frame_next(struct edge_frame *f,
                    const struct edge_frame_limits *limits,
                    uint8_t **at,
                    const uint8_t *end,
                    struct edge_frame_part *part) __attribute__((warn_unused_result));

/* A frame's header for n bytes of payload, right before `payload`: not masked, FIN set. Returns how
 * many bytes it takes (2, 4 or 10, at most EDGE_FRAME_OUT_HEADER_MAX, which must be writable). */
size_t edge_frame_write_header(uint8_t *payload, enum edge_frame_opcode opcode, uint64_t n);

/* The payload of a Close frame. Returns its code; 0: none was given; negative: minus the code to
 * answer with, as it is not valid. */
int edge_frame_read_close(const uint8_t *payload, size_t n) __attribute__((warn_unused_result));

/* True if the bytes go on as UTF-8; they may end within a character (u->need). */
bool edge_frame_utf8(struct edge_utf8 *u, const uint8_t *p, size_t n)
    __attribute__((warn_unused_result));

#endif
