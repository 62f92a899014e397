/* SPDX-License-Identifier: MPL-2.0 */
#include "client/transfer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <sodium.h>

#include "common/rt/check.h"

#include "client/transfer_parts.h"

enum {
    RETRY_FIRST_MS = 200,
    RETRY_MAX_MS = 10000,
    TELL_MS = 100,
};

uint64_t
cq_transfer_now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

char *
cq_transfer_path(const char *home, const char *folder, const char *name)
{
    size_t n = strlen(home) + strlen(folder) + strlen(name) + 3;
    char *path = cq_alloc(n);
    (void)snprintf(path, n, "%s/%s", home, folder);
    if (mkdir(path, 0700) && errno != EEXIST) {
        free(path);
        return NULL;
    }
    (void)snprintf(path, n, "%s/%s/%s", home, folder, name);
    return path;
}

bool
cq_transfer_is_stopping(cq_transfer_t *t)
{
    pthread_mutex_lock(&t->lock);
    bool is_stopping = t->is_stopping;
    pthread_mutex_unlock(&t->lock);
    return is_stopping;
}

void
cq_transfer_wait(struct cq_transfer_side *side, uint64_t delay_ms)
{
    cq_transfer_t *t = side->t;
    struct timespec end;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t ns = (uint64_t)end.tv_nsec + delay_ms % 1000 * 1000000;
    end.tv_sec += (time_t)(delay_ms / 1000 + ns / 1000000000);
    end.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&t->lock);
    int rc = 0;
    while (!t->is_stopping && !side->is_woken && !rc) {
        rc = pthread_cond_timedwait(&t->changed, &t->lock, &end);
    }
    side->is_woken = false;
    pthread_mutex_unlock(&t->lock);
}

int
cq_transfer_server(struct cq_transfer_side *side, struct cq_http_server *out)
{
    int rc = cq_db_identity_load(side->db, &side->id);
    if (rc) {
        return rc;
    }
    if (!side->id.token_size || side->id.cloned) {
        return side->id.cloned ? -CQ_CLIENT_E_CLONED : -CQ_CLIENT_E_NOT_LOGGED_IN;
    }
    const struct cq_url *url = &side->t->urls.urls[side->server % side->t->urls.count];
    *out = (struct cq_http_server){url->host, url->port, url->is_tls, side->id.token,
                                   side->id.token_size};
    return 0;
}

bool
cq_transfer_is_passing(int rc)
{
    static const int passing[] = {
        CQ_CLIENT_E_OFFLINE,
        CQ_CLIENT_E_NOT_LOGGED_IN,
        CQ_CLIENT_E_CLONED,
        CQ_E_UNAVAILABLE,
        CQ_E_BUSY,
        CQ_E_DEADLINE,
        CQ_E_RATE_LIMITED,
        CQ_E_BLOB_OFFSET,
        CQ_E_NO_SPACE,
        CQ_E_INTERNAL,
        CQ_E_BAD_TOKEN,
        CQ_E_REVOKED,
        CQ_E_LOCKED,
        CQ_E_BAD_STATE,
        CQ_CLIENT_E_UNTRUSTED,
    };
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        if (rc == -passing[i]) {
            return true;
        }
    }
    return false;
}

uint64_t
cq_transfer_failed(struct cq_transfer_side *side, int rc)
{
    unsigned shift = side->failures < 6 ? side->failures : 6;
    uint64_t pause = (uint64_t)RETRY_FIRST_MS << shift;
    uint64_t asked = cq_http_retry_after_s(side->http) * 1000;
    pause = pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS;
    asked = asked < RETRY_MAX_MS ? asked : RETRY_MAX_MS;
    /* The first try again of a connection that broke is at once: it may just have been cut. */
    if (rc == -CQ_CLIENT_E_OFFLINE && !side->failures) {
        pause = 0;
    } else if (rc == -CQ_CLIENT_E_OFFLINE || rc == -CQ_E_UNAVAILABLE) {
        side->server++;
    }
    side->failures++;
    return pause > asked ? pause : asked;
}

void
cq_transfer_tell(struct cq_transfer_side *side, const cq_client_event_t *event)
{
    uint64_t now = cq_transfer_now_ms();
    if (event->done == event->total || now - side->told_mono_ms >= TELL_MS) {
        side->told_mono_ms = now;
        cq_events_push(side->t->events, event);
    }
}

/* ---- threads ---- */

static void *
run_side(void *arg)
{
    struct cq_transfer_side *side = arg;
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    if (side == &side->t->up) {
        cq_upload_run(side);
    } else {
        cq_download_run(side);
    }
    sodium_memzero(&side->id, sizeof side->id);
    return NULL;
}

static int
start_side(cq_transfer_t *t, struct cq_transfer_side *side, bool accepts_any_certificate)
{
    side->t = t;
    side->http = cq_http_new(t->ca_file, accepts_any_certificate);
    int rc = cq_db_open(t->home, &side->db);
    if (rc) {
        return rc;
    }
    side->has_thread = pthread_create(&side->thread, NULL, run_side, side) == 0;
    return side->has_thread ? 0 : -CQ_E_IO;
}

static void
end_side(struct cq_transfer_side *side)
{
    if (side->has_thread) {
        cq_http_stop(side->http);
        (void)pthread_join(side->thread, NULL);
    }
    cq_http_destroy(&side->http);
    cq_db_close(&side->db);
}

int
cq_transfer_new(const struct cq_transfer_cfg *cfg, cq_transfer_t **out)
{
    *out = NULL;
    cq_transfer_t *t = cq_alloc(sizeof *t);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&t->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&t->lock, NULL);
    t->downloads_last = &t->downloads;
    t->home = strdup(cfg->home);
    t->ca_file = cfg->ca_file ? strdup(cfg->ca_file) : NULL;
    t->events = cfg->events;
    t->on_queued = cfg->on_queued;
    t->ctx = cfg->ctx;
    int rc = cq_reconnect_init(&t->urls, cfg->servers, 0);
    rc = rc ? rc : start_side(t, &t->up, cfg->accepts_any_certificate);
    rc = rc ? rc : start_side(t, &t->down, cfg->accepts_any_certificate);
    if (rc) {
        cq_transfer_destroy(&t);
    }
    *out = t;
    return rc;
}

static void
wake(cq_transfer_t *t, struct cq_transfer_side *side)
{
    side->is_woken = true;
    pthread_cond_broadcast(&t->changed);
}

void
cq_transfer_wake(cq_transfer_t *t)
{
    pthread_mutex_lock(&t->lock);
    wake(t, &t->up);
    pthread_mutex_unlock(&t->lock);
}

void
cq_transfer_get(cq_transfer_t *t, struct cq_download **d)
{
    pthread_mutex_lock(&t->lock);
    (*d)->next = NULL;
    *t->downloads_last = *d;
    t->downloads_last = &(*d)->next;
    *d = NULL;
    wake(t, &t->down);
    pthread_mutex_unlock(&t->lock);
}

void
cq_transfer_destroy(cq_transfer_t **p)
{
    cq_transfer_t *t = *p;
    *p = NULL;
    if (!t) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->is_stopping = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    end_side(&t->up);
    end_side(&t->down);
    while (t->downloads) {
        struct cq_download *d = t->downloads;
        t->downloads = d->next;
        sodium_memzero(&d->medium, sizeof d->medium);
        free(d->path);
        free(d);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->home);
    free(t->ca_file);
    free(t);
}
