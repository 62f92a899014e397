/* SPDX-License-Identifier: MPL-2.0
 * proof: the life of one message, a line per step.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/err.h"

#include "client/cli/cli.h"

enum {
    SHORT_ID = 8
};

static const struct step {
    const char *name;
    const char *mark;
    enum out_style style;
} steps[] = {
    [CQ_CLIENT_PROOF_ACCEPTED] = {"accepted", "✓", OUT_GREEN},
    [CQ_CLIENT_PROOF_DURABLE] = {"durable", "✓", OUT_GREEN},
    [CQ_CLIENT_PROOF_DELIVERED] = {"delivered", "✓✓", OUT_GREEN},
    [CQ_CLIENT_PROOF_READ] = {"read", "●", OUT_CYAN},
};

struct proof {
    out_table_t *table; /* NULL: JSON */
    uint64_t accepted_unix_ms;
    char title[256];
};

static void
print_json(struct cli *cli, const cq_client_event_t *e)
{
    json_begin(&cli->line, "proof");
    json_str(&cli->line, "step", steps[e->proof].name);
    json_str(&cli->line, "peer", e->peer);
    json_uint(&cli->line, "seq", e->seq);
    if (e->time_unix_ms) {
        json_uint(&cli->line, "time_unix_ms", e->time_unix_ms);
    } else {
        json_null(&cli->line, "time_unix_ms");
    }
    if (e->from) {
        json_str(&cli->line, "name", e->from);
        json_bool(&cli->line, "own", e->own);
    }
    if (e->id) {
        json_str(&cli->line, "device", e->id);
        json_bool(&cli->line, "this", e->own_device);
    }
    if (e->proof == CQ_CLIENT_PROOF_ACCEPTED) {
        json_uint(&cli->line, "position", e->position);
    }
    if (e->proof == CQ_CLIENT_PROOF_DELIVERED) {
        json_bool(&cli->line, "revoked", e->revoked);
    }
    json_end(&cli->line);
}

/* "your device 1cfa9a92 (laptop), this one" */
static void
write_where(const cq_client_event_t *e, char *out, size_t size)
{
    char whose[64] = "";
    char label[128] = "";
    if (e->proof == CQ_CLIENT_PROOF_DURABLE) {
        (void)snprintf(out, size, "%s",
                       e->time_unix_ms ? "on the server's disk for good"
                                       : "on the server's disk for good; when is not in its log");
        return;
    }
    if (e->proof == CQ_CLIENT_PROOF_READ) {
        (void)snprintf(out, size, "by %s", e->own ? "you" : e->from);
        return;
    }
    (void)snprintf(whose, sizeof whose, "%s%s", e->own ? "your" : e->from, e->own ? "" : "'s");
    if (e->text_size) {
        char *safe = out_safe(e->text, e->text_size, 32);
        (void)snprintf(label, sizeof label, " (%s)", safe);
        free(safe);
    }
    (void)snprintf(out, size, "%s%s device %.*s%s%s%s",
                   e->proof == CQ_CLIENT_PROOF_ACCEPTED ? "from " : "", whose, SHORT_ID, e->id,
                   label, e->own_device ? ", this one" : "", e->revoked ? ", logged out" : "");
}

static void
on_step(struct cli *cli, const cq_client_event_t *e)
{
    struct proof *p = cli->ctx;
    if (e->type != CQ_CLIENT_EVENT_PROOF || e->request != cli->request ||
        (unsigned)e->proof >= sizeof steps / sizeof steps[0]) {
        return;
    }
    if (cli->json) {
        print_json(cli, e);
        return;
    }
    const struct step *step = &steps[e->proof];
    char when[64] = "not yet";
    char after[64] = "";
    char where[256];
    bool is_durable = e->proof == CQ_CLIENT_PROOF_DURABLE;
    if (e->time_unix_ms) {
        out_stamp(e->time_unix_ms, out_now_unix_ms(), when, sizeof when);
    } else if (is_durable) {
        (void)snprintf(when, sizeof when, "yes");
    }
    if (e->proof == CQ_CLIENT_PROOF_ACCEPTED) {
        p->accepted_unix_ms = e->time_unix_ms;
        (void)snprintf(p->title, sizeof p->title,
                       "Message %" PRIu64 " %s %s, log position %" PRIu64, e->seq,
                       e->own ? "to" : "from", e->peer, e->position);
    } else if (e->time_unix_ms) {
        char elapsed[48];
        (void)snprintf(after, sizeof after, "+ %s",
                       out_after(p->accepted_unix_ms, e->time_unix_ms, elapsed, sizeof elapsed));
    }
    write_where(e, where, sizeof where);
    bool is_done = e->time_unix_ms || is_durable;
    const char *const cells[] = {is_done ? step->mark : "…", step->name, when, after, where};
    const enum out_style styles[] = {is_done ? step->style : OUT_DIM, is_done ? OUT_BOLD : OUT_DIM,
                                     is_done ? OUT_PLAIN : OUT_DIM, OUT_YELLOW,
                                     is_done ? OUT_PLAIN : OUT_DIM};
    out_table_row(p->table, cells, styles);
}

static int
take_seq(struct cli *cli, const char *text, uint64_t *seq)
{
    errno = 0;
    unsigned long long v = strtoull(text, NULL, 10);
    if (errno || !text[0] || strspn(text, "0123456789") != strlen(text) || v == 0) {
        return cli_fail(cli, CLI_USAGE, "USAGE",
                        "SEQ is the number of a message, from 1, not \"%s\" (chasqui history shows "
                        "them)",
                        text);
    }
    *seq = v;
    return CLI_OK;
}

/* Asks; if the chat is not known here yet, syncs first. */
static int
ask(struct cli *cli, const char *peer, uint64_t seq)
{
    int error;
    int64_t request = cq_client_proof(cli->client, peer, seq);
    if (request == -CQ_E_NOT_FOUND) {
        int rc = cli_wait(cli, cq_client_sync(cli->client), NULL);
        if (rc) {
            return rc;
        }
        request = cq_client_proof(cli->client, peer, seq);
    }
    if (request == -CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "you have no chat with %s", peer);
    }
    int rc = cli_wait_quietly(cli, request, &error);
    if (error == CQ_E_NOT_FOUND) {
        return cli_fail(cli, CLI_REFUSED, "NOT_FOUND",
                        "the server has no message %" PRIu64
                        " in your chat with %s (chasqui history "
                        "%s shows the numbers)",
                        seq, peer, peer);
    }
    if (error == CQ_CLIENT_E_OFFLINE) {
        return cli_fail(cli, CLI_UNREACHABLE, "OFFLINE",
                        "cannot reach a server (%s): proofs come from its ledger",
                        cli->state_text[0] ? cli->state_text : "no answer");
    }
    return rc ? cli_error(cli, error, "proof") : CLI_OK;
}

int
cli_proof(struct cli *cli, struct cli_args *args)
{
    static const char *const titles[] = {"", "STEP", "WHEN", "AFTER", "WHERE"};
    struct proof p = {0};
    uint64_t seq = 0;
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc != 2) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "proof takes a NAME and a SEQ");
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : take_seq(cli, args->argv[1], &seq);
    rc = rc ? rc : cli_open(cli, false);
    if (rc) {
        return rc;
    }
    p.table = cli->json ? NULL : out_table_new(5, titles);
    cli->on_event = on_step;
    cli->ctx = &p;
    rc = ask(cli, args->argv[0], seq);
    if (!rc && p.table) {
        (void)printf("%s%s%s\n", out_style(OUT_BOLD), p.title, out_style(OUT_PLAIN));
    }
    if (p.table && !rc) {
        out_table_print(&p.table, 0);
    } else if (p.table) {
        out_table_destroy(&p.table);
    }
    return rc;
}
