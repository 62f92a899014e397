/* SPDX-License-Identifier: MPL-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/check.h"
#include "common/wire/err.h"
#include "common/wire/limits.h"

#include "client/cli/cli.h"

enum {
    LINE_SIZE = CQ_PASSWORD_MAX + 2
};

/* One line, byte by byte, so that nothing of what follows is swallowed and no stdio buffer keeps a
 * copy. Length or -1 (too long, no line). */
static int
read_line(int fd, char line[LINE_SIZE])
{
    size_t n = 0;
    char c;
    ssize_t got;
    while ((got = read(fd, &c, 1)) == 1 && c != '\n') {
        if (n == LINE_SIZE - 1) {
            return -1;
        }
        line[n++] = c;
    }
    if (n && line[n - 1] == '\r') {
        n--;
    }
    line[n] = '\0';
    return got == 1 || (got == 0 && n) ? (int)n : -1;
}

static int
prompt(int tty, const char *question, char line[LINE_SIZE])
{
    struct termios before;
    struct termios quiet;
    ssize_t done = write(tty, question, strlen(question));
    if (done < 0 || tcgetattr(tty, &before)) {
        return -1;
    }
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
    /* ^C ends the read, not the process (cli.c): the terminal gets its echo back. */
    tcsetattr(tty, TCSAFLUSH, &quiet);
    int n = read_line(tty, line);
    tcsetattr(tty, TCSAFLUSH, &before);
    done = write(tty, "\n", 1);
    return done < 0 ? -1 : n;
}

static int
from_file(struct cli *cli, const char *file, char line[LINE_SIZE])
{
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    if (S_ISREG(st.st_mode) && (st.st_mode & 077)) {
        cli_note(cli, "warning: %s can be read by others: chmod 600 it", file);
    }
    int n = read_line(fd, line);
    close(fd);
    return n;
}

static int
from_terminal(struct cli *cli, bool repeat, char line[LINE_SIZE])
{
    char again[LINE_SIZE] = "";
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (tty < 0) {
        return -1;
    }
    int n = prompt(tty, "Password: ", line);
    if (n >= 0 && repeat) {
        int m = prompt(tty, "Password again: ", again);
        if (cli_interrupted()) {
            n = -1;
        } else if (m != n || sodium_memcmp(line, again, LINE_SIZE) != 0) {
            cli_fail(cli, CLI_USAGE, "USAGE", "the two passwords differ");
            n = -2;
        }
    }
    sodium_memzero(again, sizeof again);
    close(tty);
    return n;
}

static int
read_password(struct cli *cli, const char *file, bool repeat, char line[LINE_SIZE])
{
    /* The home is open, and with it signals come only while events are waited for: no ^C would end
     * a read. */
    sigset_t ends;
    sigset_t before;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    (void)pthread_sigmask(SIG_UNBLOCK, &ends, &before);
    int n = cli_interrupted()      ? -1
            : file                 ? from_file(cli, file, line)
            : isatty(STDIN_FILENO) ? from_terminal(cli, repeat, line)
                                   : read_line(STDIN_FILENO, line);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

char *
cli_password(struct cli *cli, const char *file, bool repeat)
{
    char *line = cq_alloc(LINE_SIZE);
    int n = read_password(cli, file, repeat, line);
    if (n == -1 && cli_interrupted()) {
        cli_fail(cli, CLI_UNREACHABLE, "INTERRUPTED", "interrupted: no password was read");
    } else if (n == -1) {
        cli_fail(cli, CLI_USAGE, "USAGE", "cannot read a password of at most %d bytes from %s",
                 CQ_PASSWORD_MAX, file ? file : "the terminal");
    } else if (n >= 0 && (n < CQ_PASSWORD_MIN || n > CQ_PASSWORD_MAX)) {
        cli_fail(cli, CLI_USAGE, "BAD_PASSWORD", "%s", cq_err_text(CQ_E_BAD_PASSWORD));
        n = -1;
    }
    if (n < 0) {
        cli_password_free(&line);
    }
    return line;
}

void
cli_password_free(char **password)
{
    if (*password) {
        sodium_memzero(*password, LINE_SIZE);
        free(*password);
        *password = NULL;
    }
}
