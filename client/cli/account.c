/* SPDX-License-Identifier: MPL-2.0
 * signup, login, logout, devices, revoke, privacy
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "client/cli/cli.h"

enum {
    DEVICES_MAX = 4096,
    LOGIN_TIMEOUT_S = 30,
    ID_HEX = 32,
    PREFIX_MIN = 4
};

/* Before the password is asked for. */
static int
check_owner(struct cli *cli, const char *name)
{
    const char *owner = cq_client_user(cli->client);
    if (!owner[0] || !strcmp(owner, name)) {
        return CLI_OK;
    }
    return cli_fail(cli, CLI_USAGE, cq_client_error_name(CQ_CLIENT_E_OTHER_USER),
                    "%s is the home of %s: choose another one with --home", cli->home, owner);
}

static int
authenticate(struct cli *cli, struct cli_args *args, bool is_new)
{
    const char *file = NULL;
    const struct cli_option options[] = {{"--password-file", CLI_STRING, &file, 0, 0}};
    int rc = cli_options(cli, args, options, 1, 0);
    if (!rc && args->argc != 1) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "%s takes one NAME", cli->command);
    }
    rc = rc ? rc : cli_check_name(cli, args->argv[0]);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : check_owner(cli, args->argv[0]);
    char *password = rc ? NULL : cli_password(cli, file, is_new);
    if (!password) {
        return rc ? rc : cli_interrupted() ? CLI_UNREACHABLE : CLI_USAGE;
    }
    cli->timeout_s = cli->timeout_s ? cli->timeout_s : LOGIN_TIMEOUT_S;
    int64_t request = is_new ? cq_client_signup(cli->client, args->argv[0], password)
                             : cq_client_login(cli->client, args->argv[0], password);
    cli_password_free(&password);
    rc = cli_wait(cli, request, args->argv[0]);
    if (rc) {
        return rc;
    }
    if (cli->json) {
        json_begin(&cli->line, "account");
        json_str(&cli->line, "user", cq_client_user(cli->client));
        json_str(&cli->line, "device", cq_client_device(cli->client));
        json_end(&cli->line);
        return CLI_OK;
    }
    (void)printf("%s %s%s%s. This device is %.8s.\n", is_new ? "Welcome," : "Logged in as",
                 out_style(OUT_BOLD), args->argv[0], out_style(OUT_PLAIN),
                 cq_client_device(cli->client));
    return CLI_OK;
}

int
cli_signup(struct cli *cli, struct cli_args *args)
{
    return authenticate(cli, args, true);
}

int
cli_login(struct cli *cli, struct cli_args *args)
{
    return authenticate(cli, args, false);
}

static int
no_arguments(struct cli *cli, struct cli_args *args)
{
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "%s takes no arguments", cli->command);
    }
    return rc;
}

int
cli_logout(struct cli *cli, struct cli_args *args)
{
    int rc = no_arguments(cli, args);
    rc = rc ? rc : cli_open(cli, false);
    if (!rc && !cq_client_user(cli->client)[0]) {
        rc = cli_error(cli, CQ_CLIENT_E_NOT_LOGGED_IN, NULL);
    }
    rc = rc ? rc : cli_wait(cli, cq_client_logout(cli->client), "log out");
    if (rc) {
        return rc;
    }
    if (cli->json) {
        json_begin(&cli->line, "account");
        json_null(&cli->line, "user");
        json_str(&cli->line, "device", cq_client_device(cli->client));
        json_end(&cli->line);
    } else {
        (void)printf("Logged out. The messages on this device stay in %s.\n", cli->home);
    }
    return CLI_OK;
}

/* ---- devices ---- */

struct device {
    char id[ID_HEX + 1];
    char *label;
    uint64_t created_unix_ms;
    bool revoked;
    bool own;
};

struct devices {
    struct device *rows;
    size_t count;
};

static void
on_device(struct cli *cli, const cq_client_event_t *e)
{
    struct devices *list = cli->ctx;
    if (e->type != CQ_CLIENT_EVENT_DEVICE || list->count == DEVICES_MAX) {
        return;
    }
    list->rows = realloc(list->rows, (list->count + 1) * sizeof *list->rows);
    CQ_ASSERT(list->rows);
    struct device *d = &list->rows[list->count++];
    *d = (struct device){
        .created_unix_ms = e->time_unix_ms, .revoked = e->revoked, .own = e->own_device};
    (void)snprintf(d->id, sizeof d->id, "%s", e->id);
    d->label = out_safe(e->text, e->text_size, 0);
}

static void
free_devices(struct devices *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->rows[i].label);
    }
    free(list->rows);
}

static int
fetch_devices(struct cli *cli, struct devices *list)
{
    cli->on_event = on_device;
    cli->ctx = list;
    int rc = cli_wait(cli, cq_client_devices(cli->client), "devices");
    cli->on_event = NULL;
    return rc;
}

static void
print_devices(struct cli *cli, const struct devices *list)
{
    static const char *const titles[] = {"DEVICE", "LABEL", "SINCE", ""};
    out_table_t *t = cli->json ? NULL : out_table_new(4, titles);
    for (size_t i = 0; i < list->count; i++) {
        const struct device *d = &list->rows[i];
        if (cli->json) {
            json_begin(&cli->line, "device");
            json_str(&cli->line, "device", d->id);
            json_str(&cli->line, "label", d->label);
            json_uint(&cli->line, "created_unix_ms", d->created_unix_ms);
            json_bool(&cli->line, "revoked", d->revoked);
            json_bool(&cli->line, "this", d->own);
            json_end(&cli->line);
            continue;
        }
        char since[64];
        const char *const cells[] = {
            d->id,
            d->label,
            out_ago(d->created_unix_ms, out_now_unix_ms(), since, sizeof since),
            d->own       ? "this device"
            : d->revoked ? "logged out"
                         : "",
        };
        const enum out_style styles[] = {d->revoked ? OUT_DIM : OUT_PLAIN, OUT_PLAIN, OUT_PLAIN,
                                         d->own ? OUT_GREEN : OUT_DIM};
        out_table_row(t, cells, styles);
    }
    if (t) {
        out_table_print(&t, 0);
    }
}

int
cli_devices(struct cli *cli, struct cli_args *args)
{
    struct devices list = {0};
    int rc = no_arguments(cli, args);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : fetch_devices(cli, &list);
    if (!rc) {
        print_devices(cli, &list);
    }
    free_devices(&list);
    return rc;
}

/* The one device whose id begins with prefix, or NULL (told). */
static const struct device *
find_device(struct cli *cli, const struct devices *list, const char *prefix)
{
    const struct device *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (strncmp(list->rows[i].id, prefix, strlen(prefix)) != 0) {
            continue;
        }
        if (found) {
            cli_fail(cli, CLI_USAGE, "USAGE", "several devices begin with %s: give more of the id",
                     prefix);
            return NULL;
        }
        found = &list->rows[i];
    }
    if (!found) {
        cli_fail(cli, CLI_REFUSED, "NOT_FOUND", "no device of yours begins with %s", prefix);
    }
    return found;
}

static int
check_prefix(struct cli *cli, const char *s)
{
    size_t n = strlen(s);
    bool ok = n >= PREFIX_MIN && n <= ID_HEX;
    for (size_t i = 0; i < n; i++) {
        ok = ok && (isdigit((unsigned char)s[i]) || (s[i] >= 'a' && s[i] <= 'f'));
    }
    return ok ? CLI_OK
              : cli_fail(cli, CLI_USAGE, "USAGE",
                         "a DEVICE is the first 4 to 32 hex digits of an id: see chasqui devices");
}

int
cli_revoke(struct cli *cli, struct cli_args *args)
{
    struct devices list = {0};
    int rc = cli_options(cli, args, NULL, 0, 0);
    if (!rc && args->argc != 1) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "revoke takes one DEVICE: see chasqui devices");
    }
    rc = rc ? rc : check_prefix(cli, args->argv[0]);
    rc = rc ? rc : cli_open(cli, false);
    rc = rc ? rc : fetch_devices(cli, &list);
    const struct device *d = rc ? NULL : find_device(cli, &list, args->argv[0]);
    if (!rc && !d) {
        rc = CLI_REFUSED;
    }
    if (!rc && d->own) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "that is this device: use chasqui logout");
    }
    rc = rc ? rc : cli_wait(cli, cq_client_revoke(cli->client, d->id), "revoke");
    if (!rc && cli->json) {
        json_begin(&cli->line, "device");
        json_str(&cli->line, "device", d->id);
        json_bool(&cli->line, "revoked", true);
        json_end(&cli->line);
    } else if (!rc) {
        (void)printf("Device %.8s (%s) is logged out.\n", d->id, d->label);
    }
    free_devices(&list);
    return rc;
}

/* ---- privacy ---- */

static void
on_privacy(struct cli *cli, const cq_client_event_t *e)
{
    if (e->type == CQ_CLIENT_EVENT_PRIVACY && e->request && e->request == cli->request) {
        *(bool *)cli->ctx = e->hide_last_seen;
    }
}

static bool
read_last_seen(const char *word, enum cq_client_last_seen *last_seen)
{
    static const struct {
        const char *word;
        enum cq_client_last_seen value;
    } words[] = {{"show", CQ_CLIENT_LAST_SEEN_SHOW}, {"hide", CQ_CLIENT_LAST_SEEN_HIDE}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!strcmp(word, words[i].word)) {
            *last_seen = words[i].value;
            return true;
        }
    }
    return false;
}

int
cli_privacy(struct cli *cli, struct cli_args *args)
{
    const char *word = NULL;
    const struct cli_option options[] = {{"--last-seen", CLI_STRING, &word, 0, 0}};
    enum cq_client_last_seen last_seen = CQ_CLIENT_LAST_SEEN_ASK;
    bool is_hidden = false;
    int rc = cli_options(cli, args, options, 1, 0);
    if (!rc && (args->argc || (word && !read_last_seen(word, &last_seen)))) {
        rc = cli_fail(cli, CLI_USAGE, "USAGE", "privacy takes --last-seen show or hide");
    }
    rc = rc ? rc : cli_open(cli, false);
    if (rc) {
        return rc;
    }
    cli->on_event = on_privacy;
    cli->ctx = &is_hidden;
    rc = cli_wait(cli, cq_client_privacy(cli->client, last_seen), "privacy");
    cli->on_event = NULL;
    if (!rc && cli->json) {
        json_begin(&cli->line, "privacy");
        json_bool(&cli->line, "hide_last_seen", is_hidden);
        json_end(&cli->line);
    } else if (!rc) {
        (void)printf("Friends see whether you are online%s.\n",
                     is_hidden ? ", but not when you were last seen"
                               : " and when you were last seen");
    }
    return rc;
}
