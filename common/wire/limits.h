/* SPDX-License-Identifier: MPL-2.0
 * Every limit of the protocol, once. Bytes unless the name says otherwise.
 */
#ifndef CQ_WIRE_LIMITS_H
#define CQ_WIRE_LIMITS_H

enum {
    CQ_ID_SIZE = 16,                                    /* user, device, chat, epoch */
    CQ_NAME_MIN = 3,                                    /* user name */
    CQ_NAME_MAX = 32,                                   /* user name */
    CQ_PASSWORD_MIN = 8,                                /* password, UTF-8 */
    CQ_PASSWORD_MAX = 256,                              /* password, UTF-8 */
    CQ_LABEL_MAX = 64,                                  /* device label */
    CQ_KEY_SIZE = 32,                                   /* X25519, Ed25519 public keys; chat keys */
    CQ_NONCE_SIZE = 24,                                 /* XChaCha20-Poly1305 */
    CQ_MAC_SIZE = 16,                                   /* Poly1305 */
    CQ_SEAL_SIZE = 48,                                  /* crypto_box_seal overhead */
    CQ_SIGN_SIZE = 64,                                  /* Ed25519 signature */
    CQ_TEXT_MAX = 16384,                                /* a message's text, UTF-8 */
    CQ_CIPHERTEXT_MAX = CQ_TEXT_MAX + 64 + CQ_MAC_SIZE, /* text, its msgpack frame, MAC */
    CQ_THUMBNAIL_MAX = 8192,                            /* a medium's thumbnail, encrypted */
    CQ_TOKEN_MAX = 512,                                 /* signed resume token */
    CQ_WINDOW = 16, /* W: unanswered sends per (chat, device); stored answers per device */
    CQ_HISTORY_MAX_COUNT = 500, /* messages in one HISTORY answer */
    CQ_HISTORY_MAX_BYTES =
        262144,                  /* bytes of messages in one HISTORY answer, at least one message */
    CQ_LEDGER_DEVICES_MAX = 256, /* devices in one LEDGER answer */
    CQ_LIST_MAX = 4096,          /* entries in any list of a frame */
    CQ_ACK_MAX = 256,            /* entries in one ACK */
    CQ_FRAME_OPS_MAX = 1024,     /* operations in one WebSocket frame from a client */
    CQ_FRAME_MAX = 65536,        /* a WebSocket frame from a client */
    CQ_PUSH_FRAME_MAX = 1048576, /* a WebSocket frame from an edge */
    CQ_DEPTH_MAX = 8,            /* nesting of msgpack arrays */
    CQ_ACTOR_NAME_MAX = 31,      /* "edge.2" */
    CQ_ENVELOPE_MAX = 4194304,   /* body of a bus envelope */
    CQ_ENVELOPE_ITEMS_MAX = 8192,     /* items in one envelope */
    CQ_JOB_PATH_MAX = 4000,           /* a job's path */
    CQ_JOB_TEXT_MAX = 2000,           /* what a job says */
    CQ_JOB_FINDING_MAX = 500,         /* one finding of a job */
    CQ_JOB_FINDINGS_MAX = 1000,       /* findings of a job that are kept; all are counted */
    CQ_BLOB_HASH_SIZE = 32,           /* root of a blob's hashes: its ETag */
    CQ_BLOB_PART_MAX = 131072,        /* bytes of a blob in one request on the bus */
    CQ_BLOB_PATH_MAX = 4064,          /* folder of a backup that is being made */
    CQ_BLOB_CHECK_MAX = 1048576,      /* bytes of a blob in one check */
    CQ_BLOB_PLACE_MAX = 524288,       /* bytes of a blob that are placed at once */
    CQ_BLOB_LIST_MAX = 1024,          /* blobs in one list on the bus */
    CQ_HEARTBEAT_INTERVAL_MS = 25000, /* default: client and edge ping each other */
    CQ_HEARTBEAT_LIMIT_MS = 60000,    /* default: silence after which a peer is dead */
};

#endif
