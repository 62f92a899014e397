/* SPDX-License-Identifier: MPL-2.0
 * add, accept, decline, cancel, remove, block, unblock, friends
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/wire/err.h"

#include "client/cli/cli.h"

enum {
    FRIENDS_MAX = 8192
};

static const char *const relation_names[] = {
    [CQ_CLIENT_STRANGER] = "stranger",   [CQ_CLIENT_ASKED] = "asked",
    [CQ_CLIENT_REQUESTED] = "requested", [CQ_CLIENT_FRIEND] = "friend",
    [CQ_CLIENT_REMOVED] = "removed",
};

static const char *const relation_texts[] = {
    [CQ_CLIENT_STRANGER] = "",
    [CQ_CLIENT_ASKED] = "you asked",
    [CQ_CLIENT_REQUESTED] = "asks you",
    [CQ_CLIENT_FRIEND] = "friend",
    [CQ_CLIENT_REMOVED] = "no longer friends",
};

/* ---- one person ---- */

struct result {
    char name[64];
    enum cq_client_relation relation;
    bool blocked;
    bool open;
    bool is_set;
};

static void
on_result(struct cli *cli, const cq_client_event_t *e)
{
    struct result *r = cli->ctx;
    if (e->type == CQ_CLIENT_EVENT_FRIEND && e->request == cli->request && e->request) {
        (void)snprintf(r->name, sizeof r->name, "%s", e->peer);
        r->relation = e->relation;
        r->blocked = e->blocked;
        r->open = e->open;
        r->is_set = true;
    }
}

static void
print_friend_json(struct cli *cli, const struct result *r)
{
    json_str(&cli->line, "name", r->name);
    json_str(&cli->line, "relation", relation_names[r->relation]);
    json_bool(&cli->line, "blocked", r->blocked);
    json_bool(&cli->line, "open", r->open);
}

static void
print_result(struct cli *cli, enum cq_client_action action, const struct result *r)
{
    static const char *const by_relation[] = {
        [CQ_CLIENT_STRANGER] = "There is nothing between you and %s now.\n",
        [CQ_CLIENT_ASKED] = "You asked %s to be friends.\n",
        [CQ_CLIENT_REQUESTED] = "%s asks you to be friends.\n",
        [CQ_CLIENT_FRIEND] = "You and %s are friends.\n",
        [CQ_CLIENT_REMOVED] = "You and %s are no longer friends. The chat can still be read.\n",
    };
    if (cli->json) {
        json_begin(&cli->line, "friend");
        print_friend_json(cli, r);
        json_end(&cli->line);
        return;
    }
    char name[128];
    (void)snprintf(name, sizeof name, "%s%s%s", out_style(OUT_BOLD), r->name, out_style(OUT_PLAIN));
    if (action == CQ_CLIENT_BLOCK || action == CQ_CLIENT_UNBLOCK) {
        (void)printf("%s is %s.\n", name, r->blocked ? "blocked" : "not blocked");
        return;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)printf(by_relation[r->relation], name);
#pragma GCC diagnostic pop
}

static int
act(struct cli *cli, struct cli_args *args, enum cq_client_action action)
{
    struct result r = {0};
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc != 1) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "%s takes one NAME", cli->command);
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : cli_open(cli, false);
    if (!rc && !strcmp(args->argv[0], cq_client_user(cli->client))) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "%s is you", args->argv[0]);
    }
    if (rc) {
        return rc;
    }
    cli->on_event = on_result;
    cli->ctx = &r;
    char what[96];
    (void)snprintf(what, sizeof what, "%s %s", cli->command, args->argv[0]);
    int error;
    rc = cli_wait_quietly(cli, cq_client_friend(cli->client, action, args->argv[0]), &error);
    if (error == CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "there is nobody called %s", args->argv[0]);
    }
    rc = rc ? cli_wait_failed(cli, error, what) : CLI_OK;
    if (!rc && r.is_set && (unsigned)r.relation <= CQ_CLIENT_REMOVED) {
        print_result(cli, action, &r);
    }
    return rc;
}

int
cli_add(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_ADD);
}

int
cli_accept(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_ACCEPT);
}

int
cli_decline(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_DECLINE);
}

int
cli_cancel(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_CANCEL);
}

int
cli_remove(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_REMOVE);
}

int
cli_block(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_BLOCK);
}

int
cli_unblock(struct cli *cli, struct cli_args *args)
{
    return act(cli, args, CQ_CLIENT_UNBLOCK);
}

/* ---- all of them ---- */

struct person {
    struct result friend;
    bool has_presence;
    bool online;
    uint64_t time_unix_ms;
};

struct people {
    struct person *rows;
    size_t count;
};

static void
on_person(struct cli *cli, const cq_client_event_t *e)
{
    struct people *p = cli->ctx;
    if (e->type == CQ_CLIENT_EVENT_FRIEND && e->request && p->count < FRIENDS_MAX &&
        (unsigned)e->relation <= CQ_CLIENT_REMOVED) {
        p->rows = realloc(p->rows, (p->count + 1) * sizeof *p->rows);
        CQ_ASSERT(p->rows);
        struct person *row = &p->rows[p->count++];
        *row = (struct person){
            .friend = {.relation = e->relation, .blocked = e->blocked, .open = e->open}};
        (void)snprintf(row->friend.name, sizeof row->friend.name, "%s", e->peer);
    }
    for (size_t i = 0; e->type == CQ_CLIENT_EVENT_PRESENCE && i < p->count; i++) {
        if (!strcmp(p->rows[i].friend.name, e->peer)) {
            p->rows[i].has_presence = true;
            p->rows[i].online = e->online;
            p->rows[i].time_unix_ms = e->time_unix_ms;
        }
    }
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct person *)a)->friend.name, ((const struct person *)b)->friend.name);
}

static void
print_person_json(struct cli *cli, const struct person *p)
{
    json_begin(&cli->line, "friend");
    print_friend_json(cli, &p->friend);
    if (p->has_presence) {
        json_bool(&cli->line, "online", p->online);
        json_uint(&cli->line, "last_seen_unix_ms", p->time_unix_ms);
    } else {
        json_null(&cli->line, "online");
        json_null(&cli->line, "last_seen_unix_ms");
    }
    json_end(&cli->line);
}

static void
print_people(struct cli *cli, struct people *p)
{
    static const char *const titles[] = {"NAME", "", "SEEN"};
    if (p->count) {
        qsort(p->rows, p->count, sizeof *p->rows, by_name);
    }
    out_table_t *t = cli->json ? NULL : out_table_new(3, titles);
    for (size_t i = 0; i < p->count; i++) {
        const struct person *row = &p->rows[i];
        char seen[96] = "";
        if (cli->json) {
            print_person_json(cli, row);
            continue;
        }
        if (row->has_presence) {
            cli_presence_text(row->online, row->time_unix_ms, seen, sizeof seen);
        }
        const char *relation =
            row->friend.blocked ? "blocked" : relation_texts[row->friend.relation];
        const char *const cells[] = {row->friend.name, relation, seen};
        const enum out_style styles[] = {
            OUT_BOLD,
            row->friend.blocked                           ? OUT_RED
            : row->friend.relation == CQ_CLIENT_REQUESTED ? OUT_YELLOW
                                                          : OUT_PLAIN,
            row->online ? OUT_GREEN : OUT_DIM,
        };
        out_table_row(t, cells, styles);
    }
    if (!t) {
        return;
    }
    if (p->count) {
        out_table_print(&t, 0);
    } else {
        out_table_print(&t, 0);
        puts("Nobody yet. chasqui add NAME asks someone.");
    }
}

int
cli_friends(struct cli *cli, struct cli_args *args)
{
    struct people p = {0};
    int error;
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "friends takes no arguments");
    }
    rc = rc ? rc : cli_open(cli, false);
    if (rc) {
        return rc;
    }
    cli->on_event = on_person;
    cli->ctx = &p;
    rc = cli_wait(cli, cq_client_friends(cli->client), "friends");
    if (!rc) {
        /* Presence may be away for a moment: the list is worth showing without it. */
        (void)cli_wait_quietly(cli, cq_client_presence(cli->client), &error);
        print_people(cli, &p);
    }
    free(p.rows);
    return rc;
}
