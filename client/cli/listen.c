/* SPDX-License-Identifier: MPL-2.0
 * listen: prints what arrives, until --for is over or ^C.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/limits.h"

#include "client/cli/media.h"

/* What a line has said of somebody: servers repeat it after every (re)connection. */
struct told {
    char peer[CQ_NAME_MAX + 1];
    bool online;
};

struct listening {
    bool read;
    bool was_online;
    int last_error; /* of the connection, told once */
    struct told *told;
    size_t told_count;
};

/* Is this news? Remembers it. */
static bool
is_news(struct listening *l, const char *peer, bool online)
{
    for (size_t i = 0; i < l->told_count; i++) {
        if (strcmp(l->told[i].peer, peer) == 0) {
            bool changed = l->told[i].online != online;
            l->told[i].online = online;
            return changed;
        }
    }
    struct told *grown = realloc(l->told, (l->told_count + 1) * sizeof *grown);
    if (grown) {
        l->told = grown;
        l->told[l->told_count].online = online;
        (void)snprintf(l->told[l->told_count++].peer, sizeof grown->peer, "%s", peer);
    }
    return online; /* who was away before is not worth a line */
}

static void
print_json(struct cli *cli, const cq_client_event_t *e)
{
    cq_buf_t *b = &cli->line;
    switch ((int)e->type) {
    case CQ_CLIENT_EVENT_MESSAGE:
        json_begin(b, "message");
        json_str(b, "peer", e->peer);
        json_str(b, "from", e->from);
        json_uint(b, "seq", e->seq);
        json_uint(b, "time_unix_ms", e->time_unix_ms);
        json_text(b, "text", e->text, e->text_size);
        cli_media_json(b, e->media);
        json_bool(b, "own", e->own);
        json_bool(b, "unreadable", e->unreadable);
        break;
    case CQ_CLIENT_EVENT_RECEIPT:
        json_begin(b, e->receipt == CQ_CLIENT_READ ? "read" : "delivered");
        json_str(b, "peer", e->peer);
        json_str(b, "from", e->from);
        json_uint(b, "up_to", e->seq);
        json_uint(b, "time_unix_ms", e->time_unix_ms);
        json_bool(b, "own", e->own);
        break;
    case CQ_CLIENT_EVENT_PRESENCE:
        json_begin(b, "presence");
        json_str(b, "name", e->peer);
        json_bool(b, "online", e->online);
        json_uint(b, "last_seen_unix_ms", e->time_unix_ms);
        break;
    case CQ_CLIENT_EVENT_TYPING:
        json_begin(b, "typing");
        json_str(b, "name", e->peer);
        json_bool(b, "on", e->online);
        break;
    case CQ_CLIENT_EVENT_FRIEND: {
        static const char *const relations[] = {"stranger", "asked", "requested", "friend",
                                                "removed"};
        json_begin(b, "friend");
        json_str(b, "name", e->peer);
        json_str(b, "relation",
                 (unsigned)e->relation <= CQ_CLIENT_REMOVED ? relations[e->relation] : "");
        json_bool(b, "blocked", e->blocked);
        json_bool(b, "open", e->open);
        break;
    }
    case CQ_CLIENT_EVENT_SENT:
        json_begin(b, "sent");
        json_str(b, "peer", e->peer);
        json_uint(b, "seq", e->seq);
        json_uint(b, "time_unix_ms", e->time_unix_ms);
        break;
    default:
        return;
    }
    json_end(b);
}

static const char *
now_text(uint64_t time_unix_ms, char *out, size_t size)
{
    uint64_t now = out_now_unix_ms();
    return out_clock(time_unix_ms ? time_unix_ms : now, now, out, size);
}

static void
print_line(const cq_client_event_t *e)
{
    char when[64];
    char *text;
    switch ((int)e->type) {
    case CQ_CLIENT_EVENT_MESSAGE:
        text = cli_media_line(e->text, e->text_size, e->media, e->peer, e->seq, 0);
        (void)printf("%s%s%s  %s%s%s%s%s  %s\n", out_style(OUT_DIM),
                     now_text(e->time_unix_ms, when, sizeof when), out_style(OUT_PLAIN),
                     out_style(OUT_BOLD), e->from, out_style(OUT_PLAIN), e->own ? " → " : "",
                     e->own ? e->peer : "", e->unreadable ? "(unsupported message)" : text);
        cli_media_draw(e->media);
        free(text);
        break;
    case CQ_CLIENT_EVENT_RECEIPT:
        (void)printf("%s%s  %s %s up to %" PRIu64 "%s%s%s\n", out_style(OUT_DIM),
                     now_text(e->time_unix_ms, when, sizeof when), e->from,
                     e->receipt == CQ_CLIENT_READ ? "● read" : "✓✓ received", e->seq,
                     e->own ? " in " : "", e->own ? e->peer : "", out_style(OUT_PLAIN));
        break;
    case CQ_CLIENT_EVENT_PRESENCE:
        (void)printf("%s%s  %s is %s%s\n", out_style(OUT_DIM),
                     now_text(e->time_unix_ms, when, sizeof when), e->peer,
                     e->online ? "online" : "offline", out_style(OUT_PLAIN));
        break;
    case CQ_CLIENT_EVENT_FRIEND: {
        static const char *const texts[] = {"is a stranger now", "has been asked",
                                            "asks you to be friends", "is your friend",
                                            "is no longer your friend"};
        (void)printf("%s%s%s  %s%s%s %s%s\n", out_style(OUT_DIM), now_text(0, when, sizeof when),
                     out_style(OUT_PLAIN), out_style(OUT_BOLD), e->peer, out_style(OUT_PLAIN),
                     (unsigned)e->relation <= CQ_CLIENT_REMOVED ? texts[e->relation] : "",
                     e->blocked ? " (blocked)" : "");
        break;
    }
    case CQ_CLIENT_EVENT_SENT:
        (void)printf("%s%s  ✓ sent to %s, seq %" PRIu64 "%s\n", out_style(OUT_DIM),
                     now_text(e->time_unix_ms, when, sizeof when), e->peer, e->seq,
                     out_style(OUT_PLAIN));
        break;
    case CQ_CLIENT_EVENT_TYPING:
        if (e->online) {
            (void)printf("%s%s  %s is typing…%s\n", out_style(OUT_DIM),
                         now_text(0, when, sizeof when), e->peer, out_style(OUT_PLAIN));
        }
        break;
    default:
        return;
    }
    (void)fflush(stdout);
}

static void
on_state(struct cli *cli, struct listening *l, const cq_client_event_t *e)
{
    if (e->state == CQ_CLIENT_ONLINE) {
        l->was_online = true;
        l->last_error = 0;
    }
    if (e->state == CQ_CLIENT_CONNECTING && e->error && e->error != l->last_error) {
        l->last_error = e->error;
        cli_note(cli, "no connection (%s), trying again", e->text);
    }
}

static void
on_listen(struct cli *cli, const cq_client_event_t *e)
{
    struct listening *l = cli->ctx;
    if (e->type == CQ_CLIENT_EVENT_STATE) {
        on_state(cli, l, e);
        return;
    }
    if (e->own_device) {
        return; /* this device's own doing */
    }
    bool is_known = e->type == CQ_CLIENT_EVENT_PRESENCE && !is_news(l, e->peer, e->online);
    if (cli->json) {
        print_json(cli, e);
    } else if (!is_known) {
        print_line(e);
    }
    if (l->read && e->type == CQ_CLIENT_EVENT_MESSAGE && !e->own) {
        int rc = cq_client_read(cli->client, e->peer, e->seq);
        if (rc) {
            cli_error(cli, rc, e->peer);
        }
    }
}

static int
listen_until(struct cli *cli, const struct listening *l, uint64_t end_ms)
{
    while (cli_now_ms() < end_ms) {
        uint64_t until = cli_now_ms() + 3600000;
        if (!cli_step(cli, until < end_ms ? until : end_ms)) {
            break;
        }
        if (cli->state == CQ_CLIENT_IDLE && cli->state_error) {
            return cli_error(cli, cli->state_error, NULL);
        }
    }
    return l->was_online || cli_interrupted()
               ? CLI_OK
               : cli_fail(cli, CLI_UNREACHABLE, "OFFLINE", "cannot reach a server (%s)",
                          cli->state_text);
}

int
cli_listen(struct cli *cli, struct cli_args *args)
{
    uint64_t seconds = 0;
    struct listening l = {0};
    const struct cli_option options[] = {
        {"--for", CLI_NUMBER, &seconds, 1, 31536000},
        {"--read", CLI_FLAG, &l.read, 0, 0},
    };
    int rc = cli_options(cli, args, options, 2, 0);
    if (!rc && args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "listen takes no arguments");
    }
    rc = rc ? rc : cli_open(cli, true);
    if (rc) {
        return rc;
    }
    cli->on_event = on_listen;
    cli->ctx = &l;
    rc = cq_client_connect(cli->client);
    if (!rc) {
        /* who is there now; then what changes */
        int64_t request = cq_client_presence(cli->client);
        rc = request < 0 ? (int)request : 0;
    }
    if (rc) {
        return cli_error(cli, rc, NULL);
    }
    rc = listen_until(cli, &l, seconds ? cli_now_ms() + seconds * 1000 : UINT64_MAX);
    cli->on_event = NULL;
    cli->ctx = NULL;
    free(l.told);
    return rc;
}
