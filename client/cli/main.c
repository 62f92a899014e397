/* SPDX-License-Identifier: MPL-2.0
 * chasqui, the terminal client: finds the command and runs it.
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "client/cli/cli.h"

struct command {
    const char *name;
    const char *arguments;
    const char *summary;
    const char *help; /* more, for COMMAND --help; may be NULL */
    cli_command_fn *fn;
};

static const struct command commands[] = {
    {"signup", "NAME [--password-file F]", "create an account and log in",
     "A name is 3 to 32 characters of a-z 0-9 . _ -, a password 8 to 256 bytes.\n"
     "The password comes from a prompt without echo, from the first line of F, or, if standard "
     "input is no terminal,\n"
     "from its first line.",
     cli_signup},
    {"login", "NAME [--password-file F]", "log in on this device",
     "The password comes as for signup. The messages of all your chats are fetched by the next "
     "command.",
     cli_login},
    {"logout", "", "log this device out; its messages stay", NULL, cli_logout},
    {"devices", "", "list your devices", NULL, cli_devices},
    {"revoke", "DEVICE", "log another device out",
     "DEVICE: the first 4 to 32 digits of its id, as devices shows it.", cli_revoke},
    {"privacy", "[--last-seen show|hide]", "what friends may see of you",
     "Friends see whether you are online and when you were last seen; with hide no times, neither "
     "now nor later.\n"
     "You go on seeing theirs. Whom you block sees nothing at all.",
     cli_privacy},
    {"add", "NAME", "ask someone to be friends",
     "If NAME has asked you already, you are friends at once.", cli_add},
    {"accept", "NAME", "accept a request", NULL, cli_accept},
    {"decline", "NAME", "decline a request", NULL, cli_decline},
    {"cancel", "NAME", "take your own request back", NULL, cli_cancel},
    {"remove", "NAME", "end a friendship; the chat can still be read", NULL, cli_remove},
    {"block", "NAME", "block someone",
     "Nothing can be sent in either direction, and neither sees the other's presence.", cli_block},
    {"unblock", "NAME", "unblock someone", NULL, cli_unblock},
    {"friends", "", "list friends and requests, and who is online", NULL, cli_friends},
    {"chats", "", "who, unread, last message, online or last seen", NULL, cli_chats},
    {"send", "NAME TEXT...", "send a message",
     "TEXT: all that follows, joined by spaces; a single - reads standard input. At most 16384 "
     "bytes of UTF-8.\n"
     "Exits with 0 only when the server has stored the message durably. Without a connection the "
     "message stays in\n"
     "the outbox, the exit code is 3, and the message goes out, once, when any command connects.\n"
     "Options stand before NAME.",
     cli_send},
    {"send-file", "NAME FILE [--caption TEXT]", "send a picture, a file, a voice message",
     "FILE is encrypted on this device and goes up in pieces: what breaks goes on from there, by "
     "this "
     "command or any\n"
     "other that connects. Exits with 0 only when the message is on the server, durably. Pictures "
     "get "
     "a thumbnail, voice\n"
     "messages (Opus in Ogg, WAV) their length. The file itself is sent as it is, with whatever it "
     "says of place and camera.",
     cli_send_file},
    {"get", "NAME SEQ [--out FILE] [--force]", "fetch a picture or file",
     "SEQ is the number that history shows. FILE (else the name that it was sent with, in the "
     "current "
     "folder) appears when\n"
     "it is complete and verified. After ^C the same command goes on where it was. --force "
     "replaces "
     "FILE.",
     cli_get},
    {"history", "NAME [--last N] [--before SEQ] [--read]", "show a chat",
     "The last N (20) messages, those before SEQ if given. --read: tell the other side that you "
     "have read them.\n"
     "Marks of own messages: ✓ sent, ✓✓ received, ● read.",
     cli_history},
    {"proof", "NAME SEQ", "the life of a message: accepted, durable, delivered, read",
     "SEQ is the number that history shows. From the server's ledger: when it took the message, "
     "when "
     "it was on its\n"
     "disk for good, when each device got it, when it was read.",
     cli_proof},
    {"search", "TEXT [--in NAME] [--last N]", "search your messages, on this device",
     "Every word of TEXT must be in the message, in any case; parts of words count. The newest N "
     "(100), oldest first.",
     cli_search},
    {"listen", "[--for SECONDS] [--read]", "print what arrives",
     "Messages that no earlier listen or chat has shown, then what arrives: messages, receipts, "
     "presence, requests.\n"
     "Messages count as received; with --read also as read. Ends after SECONDS, or with ^C.",
     cli_listen},
    {"chat", "NAME", "talk: type, see, typing and receipt marks",
     "Enter sends, ^C or ^D ends. Marks of own messages: … waiting, ✓ sent, ✓✓ received, ● read.\n"
     "If standard input is no terminal, every line of it is sent.",
     cli_chat},
    {"outbox", "[--clear]", "own messages that are not on the server",
     "--clear forgets those that were refused for good.", cli_outbox},
};

enum {
    HELP_COLUMN = 49,
    COMMAND_COUNT = sizeof commands / sizeof commands[0]
};

static const char common_help[] =
    "Options\n"
    "  --home DIR       where this device keeps its keys and messages (~/.config/chasqui)\n"
    "  --server URLS    ws://HOST:PORT/ws, several with commas between; remembered in the home\n"
    "                   (" CQ_CLIENT_DEFAULT_SERVERS ")\n"
    "  --ca-file FILE   wss://: certificate authorities (PEM) that are trusted beside the "
    "system's\n"
    "  --accept-any-certificate\n"
    "                   wss:// without verification: anybody in between can read the password\n"
    "  --json           one JSON object per line, errors too (docs/cli.md has the fields)\n"
    "  --timeout S      how long to wait for a server (10; 30 for send, signup, login)\n"
    "  --help           this, or the help of a command\n"
    "  --version\n";

static const char exit_help[] =
    "Exit codes\n"
    "  0 done   1 refused by the server   2 wrong usage   3 no server reached, or no answer in "
    "time\n"
    "  4 not logged in   5 a problem of this device (its files, its keys)\n";

static void
print_help(void)
{
    puts(
        "chasqui — a messenger for the terminal\n\nUsage: chasqui [OPTIONS] COMMAND …\n\nCommands");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        char left[64];
        (void)snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].arguments);
        (void)printf("  %-*s %s\n", HELP_COLUMN, left, commands[i].summary);
    }
    (void)printf("\n%s\n%s", common_help, exit_help);
}

static void
print_command_help(const struct command *c)
{
    (void)printf("chasqui %s %s\n    %s\n\n%s%s%s\n%s", c->name, c->arguments, c->summary,
                 c->help ? c->help : "", c->help ? "\n\n" : "", common_help, exit_help);
}

static const struct command *
find_command(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (!strcmp(commands[i].name, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

/* ~/.config/chasqui, as XDG says. In a static buffer. */
static const char *
default_home(void)
{
    static char path[4096];
    const char *config =
        getenv("XDG_CONFIG_HOME");     /* NOLINT(concurrency-mt-unsafe): one thread yet */
    const char *home = getenv("HOME"); /* NOLINT(concurrency-mt-unsafe): one thread yet */
    int n = config && config[0] == '/' ? snprintf(path, sizeof path, "%s/chasqui", config)
            : home && home[0]          ? snprintf(path, sizeof path, "%s/.config/chasqui", home)
                                       : 0;
    return n > 0 && n < (int)sizeof path ? path : NULL;
}

/* Options before the command; *at: where the command is. */
static int
leading_options(struct cli *cli, int argc, char **argv, int *at)
{
    int i = 1;
    while (i < argc && !strncmp(argv[i], "-", 1)) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            return -1;
        }
        if (!strcmp(argv[i], "--version")) {
            puts("chasqui " CQ_VERSION);
            return -1;
        }
        bool is_flag = !strcmp(argv[i], "--json") || !strcmp(argv[i], "--accept-any-certificate");
        bool has_value = !is_flag && !strchr(argv[i], '=');
        struct cli_args one = {&argv[i], has_value && i + 1 < argc ? 2 : 1};
        int used = one.argc;
        int rc = cli_options(cli, &one, NULL, 0, 0);
        if (rc) {
            return rc;
        }
        i += used;
    }
    *at = i;
    return CLI_OK;
}

/* --help anywhere before the text of a message */
static bool
wants_help(const struct command *c, int argc, char **argv)
{
    int most = !strcmp(c->name, "send") && argc > 1 ? 1 : argc;
    for (int i = 0; i < most; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            return true;
        }
    }
    return false;
}

static int
run(struct cli *cli, int argc, char **argv)
{
    int at = 0;
    int rc = leading_options(cli, argc, argv, &at);
    if (rc) {
        return rc < 0 ? CLI_OK : rc;
    }
    if (at == argc) {
        print_help();
        return CLI_USAGE;
    }
    const struct command *c = find_command(argv[at]);
    if (!c) {
        return cli_fail(cli, CLI_USAGE, "USAGE", "unknown command \"%s\" (try: chasqui --help)",
                        argv[at]);
    }
    if (wants_help(c, argc - at - 1, &argv[at + 1])) {
        print_command_help(c);
        return CLI_OK;
    }
    cli->command = c->name;
    if (!cli->home) {
        cli->home = default_home();
    }
    struct cli_args args = {&argv[at + 1], argc - at - 1};
    rc = c->fn(cli, &args);
    cq_client_close(&cli->client);
    return rc;
}

int
main(int argc, char **argv)
{
    /* Keys and passwords must not end up in a core dump, nor be read by another process of the user
     * through ptrace. */
    struct rlimit none = {0, 0};
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread yet */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) {
        (void)setlocale(LC_CTYPE, "C.UTF-8"); /* NOLINT(concurrency-mt-unsafe) */
    }
    struct cli cli = {0};
    int rc = run(&cli, argc, argv);
    cq_buf_free(&cli.line);
    return rc;
}
