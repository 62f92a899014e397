/* SPDX-License-Identifier: MPL-2.0
 * status: who is on the bus, with version and age, whether what a system needs is there, and how
 * blobd's disk is.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

struct actor {
    struct ctl_peer peer;
    char version[32];
    uint64_t start_unix_s; /* 0: unknown */
    bool answers;
    char trouble[192]; /* what it says is wrong with it, "": nothing */
    struct ctl_blobd blobd;
};

static bool
is_blobd(const struct actor *a)
{
    return a->answers && strcmp(a->peer.role, "blobd") == 0;
}

static void
examine(struct ctl *ctl, struct actor *a)
{
    cq_buf_t text = {0};
    if (ctl_metrics_of(ctl, a->peer.name, &text) == 0) {
        a->answers = true;
        (void)ctl_metrics_label(&text, "chasqui_info", "version", a->version, sizeof a->version);
        (void)ctl_metrics_value(&text, "chasqui_start_time_seconds", &a->start_unix_s);
        ctl_status_read_blobd(&text, &a->blobd);
        (void)ctl_metrics_label(&text, "chasqui_trouble", "what", a->trouble, sizeof a->trouble);
    }
    cq_buf_free(&text);
}

static void
print_json(struct ctl *ctl, const struct actor *a)
{
    char incarnation[17];
    (void)snprintf(incarnation, sizeof incarnation, "%016" PRIx64, a->peer.incarnation);
    json_begin(&ctl->line, "actor");
    json_str(&ctl->line, "name", a->peer.name);
    json_str(&ctl->line, "role", a->peer.role);
    if (a->peer.incarnation) {
        json_str(&ctl->line, "incarnation", incarnation);
    } else {
        json_null(&ctl->line, "incarnation");
    }
    if (a->answers) {
        json_str(&ctl->line, "version", a->version);
        json_uint(&ctl->line, "started_unix_ms", a->start_unix_s * 1000);
    } else {
        json_null(&ctl->line, "version");
        json_null(&ctl->line, "started_unix_ms");
    }
    json_bool(&ctl->line, "answers", a->answers);
    if (a->trouble[0]) {
        json_str(&ctl->line, "trouble", a->trouble);
    } else {
        json_null(&ctl->line, "trouble");
    }
    json_end(&ctl->line);
}

static const char *
state_of(const struct actor *a)
{
    if (!a->answers) {
        return "does not answer";
    }
    return a->trouble[0] ? "in trouble" : "up";
}

static void
print_table(const struct actor *actors, size_t count)
{
    static const char *const titles[] = {"ACTOR", "ROLE", "VERSION", "UPTIME", "STATE"};
    out_table_t *table = out_table_new(5, titles);
    uint64_t now = cq_now_unix_ms() / 1000;
    for (size_t i = 0; i < count; i++) {
        const struct actor *a = &actors[i];
        char uptime[32] = "-";
        if (a->start_unix_s && a->start_unix_s <= now) {
            uint64_t s = now - a->start_unix_s;
            (void)snprintf(uptime, sizeof uptime, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600,
                           s / 60 % 60, s % 60);
        }
        const char *cells[] = {a->peer.name, a->peer.role, a->version[0] ? a->version : "-", uptime,
                               state_of(a)};
        out_table_row(table, cells, NULL);
    }
    out_table_print(&table, 1U << 3);
    for (size_t i = 0; i < count; i++) {
        if (actors[i].trouble[0]) {
            (void)printf("%s: %s\n", actors[i].peer.name, actors[i].trouble);
        }
    }
}

/* A system without one of these does not serve. */
static int
check_roles(struct ctl *ctl, const struct actor *actors, size_t count)
{
    static const char *const roles[] = {"broker", "store", "presence", "edge"};
    int rc = CTL_OK;
    for (size_t r = 0; r < sizeof roles / sizeof roles[0]; r++) {
        size_t answering = 0;
        for (size_t i = 0; i < count; i++) {
            answering += actors[i].answers && strcmp(actors[i].peer.role, roles[r]) == 0;
        }
        if (answering == 0) {
            rc = ctl_fail(ctl, CTL_FAILED, "UNAVAILABLE", "no %s answers", roles[r]);
        }
    }
    for (size_t i = 0; i < count && rc == CTL_OK; i++) {
        rc = actors[i].answers && !actors[i].trouble[0] ? CTL_OK : CTL_FAILED;
    }
    return rc;
}

int
ctl_status(struct ctl *ctl, struct ctl_args *args)
{
    int rc = ctl_words(ctl, args, 0, 0);
    rc = rc ? rc : ctl_open(ctl);
    if (rc) {
        return rc;
    }
    size_t count = ctl->peer_count + 1;
    struct actor *actors = cq_alloc(count * sizeof *actors);
    actors[0].peer = (struct ctl_peer){.name = "broker", .role = "broker"};
    for (size_t i = 1; i < count; i++) {
        actors[i].peer = ctl->peers[i - 1];
    }
    for (size_t i = 0; i < count && !ctl->is_interrupted; i++) {
        examine(ctl, &actors[i]);
    }
    for (size_t i = 0; ctl->json && i < count; i++) {
        print_json(ctl, &actors[i]);
        if (is_blobd(&actors[i])) {
            ctl_status_print_blobd(ctl, actors[i].peer.name, &actors[i].blobd);
        }
    }
    if (!ctl->json) {
        print_table(actors, count);
        for (size_t i = 0; i < count; i++) {
            if (is_blobd(&actors[i])) {
                ctl_status_print_blobd(ctl, actors[i].peer.name, &actors[i].blobd);
            }
        }
    }
    rc = check_roles(ctl, actors, count);
    free(actors);
    return rc;
}
