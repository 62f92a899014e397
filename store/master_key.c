/* SPDX-License-Identifier: MPL-2.0 */
#include "store/master_key.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "common/rt/log.h"
#include "common/rt/loop.h"

enum {
    HEX_SIZE = 2 * STORE_MASTER_KEY_SIZE,
    TEXT_SIZE = HEX_SIZE + 2, /* digits, newline, and one more to see that there is more */
    FILE_MODE = 0600,
    FOLDER_MODE = 0700,
};

static int
refuse(const char *source, const char *advice)
{
    char text[512];
    CQ_LOG(ERROR, "STORE-KEY-REFUSED", "source=%s advice=\"%s\"",
           cq_log_text(source, strlen(source), text, sizeof text), advice);
    return -CQ_E_CONFIG;
}

static bool
decode(const char *text, size_t n, uint8_t key[STORE_MASTER_KEY_SIZE])
{
    size_t size = 0;
    const char *end = NULL;
    if (n == HEX_SIZE + 1 && text[HEX_SIZE] == '\n') {
        n = HEX_SIZE;
    }
    return n == HEX_SIZE &&
           sodium_hex2bin(key, STORE_MASTER_KEY_SIZE, text, n, NULL, &size, &end) == 0 &&
           size == STORE_MASTER_KEY_SIZE && end == text + n;
}

/* Does path (resolved) lie in the folder dir, or is it that? */
static bool
is_inside(const char *path, const char *dir)
{
    char *real = realpath(dir, NULL);
    if (!real) {
        return false; /* there is no such folder for it to lie in */
    }
    size_t n = strlen(real);
    bool inside = strncmp(path, real, n) == 0 && (path[n] == '\0' || path[n] == '/' || n == 1);
    free(real);
    return inside;
}

/* ---- reading ---- */

static const char *
problem_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return "the master key file cannot be examined";
    }
    if (!S_ISREG(st.st_mode)) {
        return "the master key must be a regular file";
    }
    if (st.st_uid != geteuid()) {
        return "the master key file belongs to another user: chown it to the one that runs this";
    }
    if (st.st_mode & 077) {
        return "others may use the master key file: chmod 0600, and consider the key known to them";
    }
    return NULL;
}

static int
read_file(int fd, const char *path, uint8_t key[STORE_MASTER_KEY_SIZE])
{
    const char *problem = problem_of(fd);
    if (problem) {
        return refuse(path, problem);
    }
    char text[TEXT_SIZE];
    size_t n = 0;
    ssize_t got = 1;
    while (n < sizeof text && got > 0) {
        got = read(fd, text + n, sizeof text - n);
        n += got > 0 ? (size_t)got : 0;
    }
    bool ok = got >= 0 && decode(text, n, key);
    sodium_memzero(text, sizeof text);
    return ok ? 0 : refuse(path, "the master key file must hold 64 hex digits: restore it");
}

/* ---- creating ---- */

/* The folder that path lies in, resolved; made if it is missing. NULL if there is none. */
static char *
folder_of(const char *path, bool may_create)
{
    char *copy = strdup(path);
    if (!copy) {
        abort();
    }
    char *slash = strrchr(copy, '/');
    const char *folder = ".";
    if (slash == copy) {
        folder = "/";
    } else if (slash) {
        *slash = '\0';
        folder = copy;
    }
    if (may_create && mkdir(folder, FOLDER_MODE) != 0 && errno != EEXIST) {
        CQ_LOG(WARN, "STORE-KEY-FOLDER", "errno=%d", errno);
    }
    char *real = realpath(folder, NULL);
    free(copy);
    return real;
}

static bool
write_all(int fd, const char *folder, const uint8_t key[STORE_MASTER_KEY_SIZE])
{
    char text[HEX_SIZE + 2];
    sodium_bin2hex(text, HEX_SIZE + 1, key, STORE_MASTER_KEY_SIZE);
    text[HEX_SIZE] = '\n';
    bool ok = write(fd, text, HEX_SIZE + 1) == HEX_SIZE + 1 && fsync(fd) == 0;
    sodium_memzero(text, sizeof text);
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = ok && dir >= 0 && fsync(dir) == 0;
    if (dir >= 0) {
        close(dir);
    }
    return ok;
}

static int
create_file(const char *path, const char *folder, uint8_t key[STORE_MASTER_KEY_SIZE])
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return refuse(path,
                      "the master key file cannot be created: check its folder's owner and mode");
    }
    randombytes_buf(key, STORE_MASTER_KEY_SIZE);
    bool ok = write_all(fd, folder, key);
    close(fd);
    if (!ok) {
        /* Nothing is wrapped under it yet: half a key must not be found at the next start. */
        (void)unlink(path);
        sodium_memzero(key, STORE_MASTER_KEY_SIZE);
        return refuse(path, "the master key file cannot be written: is the disk full?");
    }
    char text[512];
    CQ_LOG(INFO, "STORE-KEY-CREATED",
           "path=%s advice=\"keep a copy of this file apart from the database's backups\"",
           cq_log_text(path, strlen(path), text, sizeof text));
    return 0;
}

int
store_master_key_from_file(const char *path,
                           const char *data_dir,
                           bool may_create,
                           uint8_t key[STORE_MASTER_KEY_SIZE])
{
    char *folder = folder_of(path, may_create);
    if (!folder) {
        return refuse(path,
                      "the folder of the master key file does not exist: create it, mode 0700");
    }
    /* O_NONBLOCK: a FIFO must not stop us here. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool is_missing = fd < 0 && errno == ENOENT;
    char *real = fd >= 0 ? realpath(path, NULL) : NULL;
    int rc;
    if (is_inside(folder, data_dir) || (real && is_inside(real, data_dir))) {
        rc = refuse(path,
                    "the master key lies in the data folder, so that a copy holds both: move it");
    } else if (fd >= 0) {
        rc = read_file(fd, path, key);
    } else if (!is_missing) {
        rc = refuse(path, "the master key file cannot be opened: check owner and mode");
    } else if (may_create) {
        rc = create_file(path, folder, key);
    } else {
        rc = refuse(path, "the master key file is missing and the database is not new: restore it");
    }
    if (fd >= 0) {
        close(fd);
    }
    free(real);
    free(folder);
    return rc;
}

/* What the command prints, at most n bytes; its exit status, -1: it cannot be started. */
static int
ask(const char *command, char *text, size_t *n)
{
    /* The operator's own command from the configuration. */
    FILE *f = popen(command, "re"); /* NOLINT(cert-env33-c): what key_command is for */
    if (!f) {
        return -1;
    }
    (void)setvbuf(f, NULL, _IONBF, 0); /* no copy of the key in stdio's buffer */
    *n = fread(text, 1, *n, f);
    return pclose(f);
}

int
store_master_key_from_command(const char *command, uint8_t key[STORE_MASTER_KEY_SIZE])
{
    static const char source[] = "key-command";
    char text[TEXT_SIZE];
    size_t n = sizeof text;
    /* The command may ask somebody for a passphrase: it inherits what is blocked, and has to end at
     * Ctrl-C, as we have. */
    bool were_blocked = cq_loop_block_signals(false);
    int status = ask(command, text, &n);
    (void)cq_loop_block_signals(were_blocked);
    if (status < 0) {
        return refuse(source, "the command cannot be started");
    }
    bool ok = decode(text, n, key);
    sodium_memzero(text, sizeof text);
    if (status != 0) {
        sodium_memzero(key, STORE_MASTER_KEY_SIZE);
        return refuse(source, "the command failed: run it by hand");
    }
    return ok ? 0 : refuse(source, "the command must print 64 hex digits and nothing else");
}
