/* SPDX-License-Identifier: MPL-2.0
 * What the commands of the terminal client share: options, waiting for the library, errors and exit
 * codes.
 */
#ifndef CLIENT_CLI_CLI_H
#define CLIENT_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cli/output.h"
#include "client/include/chasqui/client.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_REFUSED = 1,       /* the server said no */
    CLI_USAGE = 2,         /* the command line is wrong */
    CLI_UNREACHABLE = 3,   /* no server could be reached, or it did not answer in time */
    CLI_NOT_LOGGED_IN = 4, /* sign up or log in first */
    CLI_LOCAL = 5,         /* this device: its files, its keys */
};

struct cli;
typedef void cli_event_fn(struct cli *cli, const cq_client_event_t *event);

struct cli {
    const char *home;
    const char *servers;
    const char *ca_file;
    bool accept_any_certificate;
    const char *command; /* name of the command, for messages */
    bool json;
    uint64_t timeout_s; /* 0: the command's own */
    cq_client_t *client;
    cli_event_fn *on_event; /* the command's own handler, may be NULL */
    void *ctx;
    /* kept up to date by dispatching */
    enum cq_client_state state;
    int state_error;
    char state_text[512];
    unsigned failures;  /* attempts to connect */
    unsigned untrusted; /* of them: the latest, all because of a certificate */
    bool told_waiting;
    uint64_t request; /* the answer that is waited for */
    bool answered;
    int answer_error;
    char answer_text[512];
    cq_buf_t line; /* for JSON */
};

/* ---- options of a command ---- */
enum cli_option_type {
    CLI_FLAG,
    CLI_STRING,
    CLI_NUMBER
};

struct cli_option {
    const char *name; /* "--last" */
    enum cli_option_type type;
    void *target; /* bool, const char *, uint64_t */
    uint64_t min, max;
};

struct cli_args {
    char **argv; /* what is not an option, in order (view of main's) */
    int argc;
};

/* Takes options out of args (the common ones too). After `stop` positional arguments everything is
 * text (0: never). CLI_OK or CLI_USAGE (told). */
int cli_options(struct cli *cli,
                struct cli_args *args,
                const struct cli_option *options,
                size_t count,
                int stop);

/* ---- errors: one line on stderr, or a JSON object on stdout; all return the exit code ---- */
int cli_fail(struct cli *cli, enum cli_exit code, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* By the library's error; what: "add bob", said before the text. */
int cli_error(struct cli *cli, int error, const char *what);
enum cli_exit cli_exit_of(int error);
/* A remark for people: stderr, or a JSON object of type "note". */
void cli_note(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_check_name(struct cli *cli, const char *name);

/* ---- the client ---- */
/* Opens the home. messages: deliver MESSAGE events. CLI_OK or an exit code (told). */
int cli_open(struct cli *cli, bool messages);
/* Dispatches what comes until `until_ms` (monotonic) or a signal. false: interrupted by ^C or TERM.
 */
bool cli_step(struct cli *cli, uint64_t until_ms);
uint64_t cli_now_ms(void);
bool cli_interrupted(void);
/* Waits for the answer to a request (negative: an error at once). CLI_OK, or an exit code; told
 * unless quiet. */
int cli_wait(struct cli *cli, int64_t request, const char *what);
/* Tells of the error with which cli_wait_quietly ended; its exit code. */
int cli_wait_failed(struct cli *cli, int error, const char *what);
int cli_wait_quietly(struct cli *cli, int64_t request, int *error);
/* Connects and fetches everything. For commands that can do without: CLI_UNREACHABLE is a note,
 * `*offline` is set, and CLI_OK comes back. */
int cli_sync(struct cli *cli, bool *offline);
/* Has connecting failed often and long enough to say so? since_ms: when it began. */
bool cli_is_hopeless(const struct cli *cli, uint64_t since_ms);
/* Has every server, one after the other, shown a certificate that is not trusted? Waiting makes
 * that no better. */
bool cli_is_untrusted(const struct cli *cli);
/* Tells a person, once, why nothing happens yet, and that what ("message") is safe in the outbox.
 * For a loop that steps until end_ms. */
void cli_tell_waiting(struct cli *cli, const char *what, uint64_t since_ms, uint64_t end_ms);

/* ---- password.c ---- */
/* From file, or a prompt without echo (twice if repeat), or a line of stdin. Gives a string of its
 * own (wipe and free with cli_password_free), or NULL (told). */
char *cli_password(struct cli *cli, const char *file, bool repeat);
void cli_password_free(char **password);

/* ---- commands ---- */
typedef int cli_command_fn(struct cli *cli, struct cli_args *args);
cli_command_fn cli_signup, cli_login, cli_logout, cli_devices, cli_revoke, cli_privacy;
cli_command_fn cli_add, cli_accept, cli_decline, cli_cancel, cli_remove, cli_block, cli_unblock,
    cli_friends;
cli_command_fn cli_chats, cli_send, cli_history, cli_search, cli_outbox, cli_listen, cli_chat,
    cli_proof, cli_send_file, cli_get;

/* "online", "last seen 5 min ago", "" */
const char *cli_presence_text(bool online, uint64_t time_unix_ms, char *out, size_t size);

#endif
