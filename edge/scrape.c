/* SPDX-License-Identifier: MPL-2.0
 * One round at a time: every actor is asked at once, then all that came is merged and given to
 * everybody who waits.
 */
#include "edge/scrape.h"

#include <stdlib.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/rt/metric.h"
#include "common/rt/metric_merge.h"

enum {
    KNOWN_MAX = 4096,
    WAITERS_MAX = 16,
    FORGET_MS = 3600000,
    TEXT_TOTAL_MAX = 67108864 /* bytes of all actors' texts of a round */
};

/* What every system has. */
static const char *const parts[] = {"broker", "store", "presence"};

struct known {
    char name[CQ_ACTOR_NAME_MAX + 1];
    char role[CQ_ACTOR_NAME_MAX + 1];
    bool is_up;
    uint64_t down_mono_ms;
};

struct ask {
    edge_scrape_t *scrape;
    char name[CQ_ACTOR_NAME_MAX + 1];
};

struct waiter {
    edge_scrape_fn *fn; /* NULL: taken back */
    void *ctx;
};

struct edge_scrape {
    edge_t *edge;
    struct known *known;
    size_t known_count;
    cq_metric_merge_t *merge; /* of the round; NULL: there is none */
    struct ask *asks;
    size_t asked; /* and not answered */
    size_t text_total;
    struct waiter waiters[WAITERS_MAX];
    size_t waiter_count;
    cq_timer_t *done; /* ends a round in which nobody was to be asked */
};

/* ---- who there is ---- */

static struct known *
find(edge_scrape_t *s, const char *name)
{
    for (size_t i = 0; i < s->known_count; i++) {
        if (strcmp(s->known[i].name, name) == 0) {
            return &s->known[i];
        }
    }
    return NULL;
}

static void
forget_old(edge_scrape_t *s, uint64_t now)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->known_count; i++) {
        const struct known *k = &s->known[i];
        if (k->is_up || now - k->down_mono_ms < FORGET_MS) {
            s->known[kept++] = *k;
        }
    }
    s->known_count = kept;
}

static struct known *
add(edge_scrape_t *s, const char *name, const char *role)
{
    forget_old(s, cq_now_mono_ms());
    if (s->known_count == KNOWN_MAX) {
        return NULL;
    }
    s->known = realloc(s->known, (s->known_count + 1) * sizeof *s->known);
    CQ_ASSERT(s->known);
    struct known *k = &s->known[s->known_count++];
    *k = (struct known){0};
    (void)snprintf(k->name, sizeof k->name, "%s", name);
    (void)snprintf(k->role, sizeof k->role, "%s", role);
    return k;
}

void
edge_scrape_peer(edge_scrape_t *s, const char *name, const char *role, bool up)
{
    if (!s || strcmp(role, "ctl") == 0) { /* operators' programs come and go */
        return;
    }
    struct known *k = find(s, name);
    k = k || !up ? k : add(s, name, role);
    if (k) {
        k->is_up = up;
        k->down_mono_ms = cq_now_mono_ms();
    }
}

static bool
has_role(const edge_scrape_t *s, const char *role)
{
    for (size_t i = 0; i < s->known_count; i++) {
        if (strcmp(s->known[i].role, role) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- a round ---- */

static void
end_round(edge_scrape_t *s)
{
    struct waiter waiters[WAITERS_MAX];
    size_t count = s->waiter_count;
    cq_buf_t text = {0};
    cq_metric_merge_write(s->merge, &text);
    size_t refused = cq_metric_merge_refused(s->merge);
    if (refused) {
        CQ_LOG(WARN, "EDGE-SCRAPE-LINES", "refused=%zu", refused);
    }
    cq_metric_merge_destroy(&s->merge);
    free(s->asks);
    s->asks = NULL;
    memcpy(waiters, s->waiters, sizeof waiters);
    s->waiter_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (waiters[i].fn) {
            waiters[i].fn(waiters[i].ctx, (struct cq_view){text.data, text.size});
        }
    }
    cq_buf_free(&text);
}

static void
on_done(void *ctx)
{
    edge_scrape_t *s = ctx;
    if (s->merge && !s->asked) {
        end_round(s);
    }
}

static void
take_text(edge_scrape_t *s, const char *name, struct cq_view text)
{
    if (text.n > TEXT_TOTAL_MAX - s->text_total) {
        CQ_LOG(WARN, "EDGE-SCRAPE-LARGE", "actor=%s bytes=%zu", name, text.n);
        cq_metric_merge_missing(s->merge, name);
        return;
    }
    s->text_total += text.n;
    cq_metric_merge_add(s->merge, name, text);
}

static void
on_answer(void *ctx, int err, uint64_t detail, cq_reader_t *fields, size_t count)
{
    (void)detail;
    const struct ask *ask = ctx;
    edge_scrape_t *s = ask->scrape;
    struct cq_metrics m;
    if (!err && !cq_schema_read(&cq_metrics_schema, fields, count, &m)) {
        take_text(s, ask->name, m.text);
    } else {
        cq_metric_merge_missing(s->merge, ask->name);
    }
    if (--s->asked == 0) {
        end_round(s);
    }
}

static void
ask(edge_scrape_t *s, struct ask *a, const char *name)
{
    static const struct cq_empty none;
    edge_t *e = s->edge;
    a->scrape = s;
    (void)snprintf(a->name, sizeof a->name, "%s", name);
    struct cq_bus_wait wait = {e->cfg->metrics_timeout_ms, on_answer, a};
    if (!cq_bus_is_registered(e->bus) ||
        cq_bus_request(e->bus, name, CQ_BUS_METRICS, &cq_empty_schema, &none, &wait)) {
        cq_metric_merge_missing(s->merge, name);
        return;
    }
    s->asked++;
}

static void
add_own(edge_scrape_t *s)
{
    cq_buf_t text = {0};
    cq_metric_text(&text, s->edge->cfg->name);
    cq_metric_merge_add(s->merge, s->edge->cfg->name, (struct cq_view){text.data, text.size});
    cq_buf_free(&text);
}

static void
begin_round(edge_scrape_t *s)
{
    forget_old(s, cq_now_mono_ms());
    s->merge = cq_metric_merge_new();
    s->asks = cq_alloc((s->known_count + 1) * sizeof *s->asks);
    s->asked = s->text_total = 0;
    add_own(s);
    ask(s, &s->asks[s->known_count], "broker");
    for (size_t i = 0; i < s->known_count; i++) {
        if (s->known[i].is_up) {
            ask(s, &s->asks[i], s->known[i].name);
        } else {
            cq_metric_merge_missing(s->merge, s->known[i].name);
        }
    }
    for (size_t i = 1; i < sizeof parts / sizeof parts[0]; i++) {
        if (!has_role(s, parts[i])) {
            cq_metric_merge_missing(s->merge, parts[i]);
        }
    }
    if (!s->asked) {
        cq_timer_start(s->done, 0, 0);
    }
}

int
edge_scrape_begin(edge_scrape_t *s, edge_scrape_fn *fn, void *ctx)
{
    if (s->waiter_count == WAITERS_MAX) {
        return -CQ_E_BUSY;
    }
    s->waiters[s->waiter_count++] = (struct waiter){fn, ctx};
    if (!s->merge) {
        begin_round(s);
    }
    return 0;
}

void
edge_scrape_forget(edge_scrape_t *s, const void *ctx)
{
    for (size_t i = 0; i < s->waiter_count; i++) {
        if (s->waiters[i].ctx == ctx) {
            s->waiters[i].fn = NULL;
        }
    }
}

/* ---- life ---- */

edge_scrape_t *
edge_scrape_new(edge_t *e)
{
    edge_scrape_t *s = cq_alloc(sizeof *s);
    s->edge = e;
    s->done = cq_timer_new(e->loop, on_done, s);
    return s;
}

void
edge_scrape_destroy(edge_scrape_t **scrape)
{
    edge_scrape_t *s = *scrape;
    *scrape = NULL;
    if (!s) {
        return;
    }
    cq_metric_merge_destroy(&s->merge);
    cq_timer_destroy(&s->done);
    free(s->asks);
    free(s->known);
    free(s);
}
