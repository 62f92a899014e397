/* SPDX-License-Identifier: MPL-2.0 */
#include "blobd/upload.h"

#include <stdlib.h>

#include "common/rt/check.h"

#include "blobd/stats.h"

enum {
    BUCKETS = 4096,
    ASKS_MAX = 16 /* waiting for one upload; an edge has two under way */
};

struct blobd_uploads {
    blobd_t *blobd;
    size_t count;
    struct blobd_upload *buckets[BUCKETS];
};

struct blobd_uploads *
blobd_upload_table_new(blobd_t *b)
{
    struct blobd_uploads *u = cq_alloc(sizeof *u);
    u->blobd = b;
    return u;
}

static struct blobd_upload **
place_of(struct blobd_uploads *u, const struct cq_id *id)
{
    struct blobd_upload **at = &u->buckets[cq_id_hash(id) % BUCKETS];
    while (*at && !cq_id_eq(&(*at)->id, id)) {
        at = &(*at)->next;
    }
    return at;
}

static void
remove_at(struct blobd_uploads *u, struct blobd_upload **at)
{
    struct blobd_upload *upload = *at;
    *at = upload->next;
    u->count--;
    blobd_stats.uploads_open = u->count;
    blobd_part_close(&upload->part);
    free(upload);
}

static void
empty_bucket(struct blobd_uploads *u, size_t i)
{
    while (u->buckets[i]) {
        CQ_ASSERT(!u->buckets[i]->asks);
        remove_at(u, &u->buckets[i]);
    }
}

void
blobd_upload_table_destroy(struct blobd_uploads **uploads)
{
    struct blobd_uploads *u = *uploads;
    for (size_t i = 0; u && i < BUCKETS; i++) {
        empty_bucket(u, i);
    }
    free(u);
    *uploads = NULL;
}

bool
blobd_upload_is_open(const struct blobd_uploads *u, const struct cq_id *id)
{
    const struct blobd_upload *at = u->buckets[cq_id_hash(id) % BUCKETS];
    while (at && !cq_id_eq(&at->id, id)) {
        at = at->next;
    }
    return at != NULL;
}

size_t
blobd_upload_count(const struct blobd_uploads *u)
{
    return u->count;
}

void
blobd_upload_tidy(struct blobd_uploads *u)
{
    uint64_t now = cq_now_mono_ms();
    uint64_t idle_ms = u->blobd->cfg->upload_idle_s * 1000;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct blobd_upload **at = &u->buckets[i];
        while (*at) {
            if (!(*at)->asks && now - (*at)->used_mono_ms >= idle_ms) {
                remove_at(u, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
}

static void
start_next(struct blobd_upload *upload)
{
    if (!upload->is_running && upload->asks) {
        upload->is_running = true;
        blobd_job_start(&upload->asks->job);
    }
}

static void
on_done(struct blobd_job *job)
{
    struct blobd_ask *ask = (struct blobd_ask *)job;
    struct blobd_upload *upload = ask->upload;
    upload->asks = ask->next;
    if (!upload->asks) {
        upload->asks_tail = &upload->asks;
    }
    upload->ask_count--;
    upload->is_running = false;
    upload->used_mono_ms = cq_now_mono_ms();
    if (!upload->part) {
        upload->transfer = 0;
    }
    start_next(upload);
    if (!upload->asks && !upload->part) {
        remove_at(job->blobd->uploads, place_of(job->blobd->uploads, &upload->id));
    }
    ask->upload = NULL;
    free(ask->data);
    ask->data = NULL;
    blobd_on_upload_done(ask);
}

static struct blobd_upload *
open_upload(struct blobd_uploads *u, struct blobd_upload **at, const struct cq_id *id)
{
    struct blobd_upload *upload = cq_alloc(sizeof *upload);
    upload->id = *id;
    upload->asks_tail = &upload->asks;
    *at = upload;
    u->count++;
    blobd_stats.uploads_open = u->count;
    return upload;
}

int
blobd_upload_ask(blobd_t *b, const struct cq_id *id, struct blobd_ask *ask)
{
    struct blobd_uploads *u = b->uploads;
    struct blobd_upload **at = place_of(u, id);
    bool is_full = *at ? (*at)->ask_count >= ASKS_MAX : u->count >= b->cfg->uploads_open_max;
    if (is_full) {
        return -CQ_E_BUSY;
    }
    struct blobd_upload *upload = *at ? *at : open_upload(u, at, id);
    ask->job = (struct blobd_job){.blobd = b, .run = blobd_on_upload_run, .done = on_done};
    ask->upload = upload;
    ask->next = NULL;
    *upload->asks_tail = ask;
    upload->asks_tail = &ask->next;
    upload->ask_count++;
    upload->used_mono_ms = cq_now_mono_ms();
    start_next(upload);
    return 0;
}
