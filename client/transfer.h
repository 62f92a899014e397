/* SPDX-License-Identifier: MPL-2.0
 * Blobs up and down, each on a thread of its own with its own view of the database: transfer.c
 * (threads, waiting), upload.c, download.c. What breaks is tried again, on any of the servers, from
 * where it was.
 *
 * An upload is a row of the outbox (CQ_OUT_UPLOADING) and a file of ciphertext in the home; so it
 * goes on whichever process of the home comes next. When the blob is complete the row becomes an
 * ordinary waiting message. A download grows in a file of ciphertext, too, and is verified before
 * anything of it becomes the file that was asked for.
 */
#ifndef CLIENT_TRANSFER_H
#define CLIENT_TRANSFER_H

#include "client/db.h"
#include "client/events.h"
#include "client/medium.h"

typedef struct cq_transfer cq_transfer_t;

#define CQ_TRANSFER_OUTGOING "outgoing" /* folders of the home */
#define CQ_TRANSFER_INCOMING "incoming"

/* A message is in the outbox now, or was refused for good (dseq 0). On the upload's thread. */
typedef void cq_transfer_fn(void *ctx, const struct cq_out *row);

struct cq_transfer_cfg {
    const char *home;
    const char *servers; /* checked before */
    const char *ca_file;
    bool accepts_any_certificate;
    cq_events_t *events; /* these three are borrowed until destroyed */
    cq_transfer_fn *on_queued;
    void *ctx;
};

struct cq_download {
    struct cq_download *next;
    uint64_t request; /* ANSWER and TRANSFER have it */
    char peer[CQ_NAME_MAX + 1];
    struct cq_medium medium;
    char *path; /* where the file goes */
    bool replaces;
};

int cq_transfer_new(const struct cq_transfer_cfg *cfg, cq_transfer_t **out) CQ_MUST_CHECK;
/* There may be uploads. */
void cq_transfer_wake(cq_transfer_t *t);
/* Takes it. */
void cq_transfer_get(cq_transfer_t *t, struct cq_download **d);
/* Stops at once what is under way; it goes on another time. */
void cq_transfer_destroy(cq_transfer_t **p);

/* home/folder/name in a string of its own (free it); makes the folder. NULL: it cannot be made. */
char *cq_transfer_path(const char *home, const char *folder, const char *name);

#endif
