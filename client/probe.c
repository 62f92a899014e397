/* SPDX-License-Identifier: MPL-2.0 */
#include "client/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/picture.h"
#include "client/probe_form.h"

extern char **environ;

enum {
    PATH_SIZE = 4096
};

/* ---- the type of everything else, by its name ---- */

static const struct {
    const char *ending;
    const char *type;
} endings[] = {
    {"txt", "text/plain"},      {"md", "text/markdown"},      {"csv", "text/csv"},
    {"html", "text/html"},      {"json", "application/json"}, {"pdf", "application/pdf"},
    {"zip", "application/zip"}, {"gz", "application/gzip"},   {"tar", "application/x-tar"},
    {"mp3", "audio/mpeg"},      {"m4a", "audio/mp4"},         {"flac", "audio/flac"},
    {"mp4", "video/mp4"},       {"webm", "video/webm"},       {"mkv", "video/x-matroska"},
    {"svg", "image/svg+xml"},   {"heic", "image/heic"},       {"avif", "image/avif"},
};

static void
set_type(struct cq_medium *m, const char *type)
{
    (void)snprintf(m->type, sizeof m->type, "%s", type);
}

static void
type_by_name(struct cq_medium *m)
{
    const char *dot = strrchr(m->name, '.');
    set_type(m, "application/octet-stream");
    for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++) {
        if (!strcasecmp(dot + 1, endings[i].ending)) {
            set_type(m, endings[i].type);
        }
    }
}

/* ---- the answer ---- */

int
cq_probe_read(struct cq_view answer, struct cq_medium *m)
{
    cq_reader_t r = cq_reader_of(answer);
    (void)cq_read_array(&r, CQ_PROBE_FIELDS, CQ_PROBE_FIELDS);
    struct cq_view type = cq_read_str(&r, 0, CQ_MEDIUM_TYPE_MAX);
    uint64_t width = cq_read_uint(&r, UINT32_MAX);
    uint64_t height = cq_read_uint(&r, UINT32_MAX);
    uint64_t duration_ms = cq_read_uint(&r, INT64_MAX);
    struct cq_view thumbnail = cq_read_bin(&r, 0, CQ_MEDIUM_JPEG_MAX);
    struct cq_picture picture = {0};
    if (r.err || !cq_reader_at_end(&r) ||
        (thumbnail.n &&
         (cq_picture_read(thumbnail.p, thumbnail.n, &picture) ||
          picture.width > CQ_MEDIUM_SIDE_MAX || picture.height > CQ_MEDIUM_SIDE_MAX))) {
        return -CQ_E_BAD_FRAME;
    }
    if (type.n) {
        memcpy(m->type, type.p, type.n);
        m->type[type.n] = '\0';
    }
    m->width = width;
    m->height = height;
    m->duration_ms = duration_ms;
    m->thumbnail_size = thumbnail.n;
    memcpy(m->thumbnail, thumbnail.n ? thumbnail.p : answer.p, thumbnail.n);
    return 0;
}

/* ---- the process ---- */

/* Beside our own program, else wherever PATH says. */
static void
find_program(char out[PATH_SIZE])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_SIZE - 32);
    char *slash = NULL;
    if (n > 0) {
        out[n] = '\0';
        slash = strrchr(out, '/');
    }
    if (slash) {
        memcpy(slash + 1, "chasqui-probe", sizeof "chasqui-probe");
    }
    if (!slash || access(out, X_OK)) {
        memcpy(out, "chasqui-probe", sizeof "chasqui-probe");
    }
}

static int
start(int file, int out, pid_t *pid)
{
    char program[PATH_SIZE];
    char name[] = "chasqui-probe";
    char *const arguments[] = {name, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    find_program(program);
    sigemptyset(&none);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, file, STDIN_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    int rc = posix_spawnp(pid, program, &actions, &attributes, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    return rc ? -CQ_E_IO : 0;
}

static uint64_t
now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until the end, at most `room` bytes and CQ_PROBE_MS. Bytes read, or -1. */
static ssize_t
read_answer(int fd, uint8_t *p, size_t room)
{
    uint64_t end = now_ms() + CQ_PROBE_MS;
    size_t have = 0;
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ms();
        if (now >= end || have == room || poll(&poll_fd, 1, (int)(end - now)) == 0) {
            return -1;
        }
        ssize_t got = read(fd, p + have, room - have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got ? -1 : (ssize_t)have;
        }
        have += (size_t)got;
    }
}

/* The answer's size, or -1 if the process said nothing of use. */
static ssize_t
ask(int file, uint8_t *answer, size_t room)
{
    int ends[2];
    pid_t pid = 0;
    int status = 0;
    if (pipe2(ends, O_CLOEXEC)) {
        return -1;
    }
    int rc = start(file, ends[1], &pid);
    close(ends[1]);
    ssize_t n = rc ? -1 : read_answer(ends[0], answer, room);
    close(ends[0]);
    if (rc) {
        return -1;
    }
    if (n < 0) {
        (void)kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return n >= 0 && WIFEXITED(status) && !WEXITSTATUS(status) ? n : -1;
}

/* Which limit, or that it is no whole picture. */
static const char *
reason(int fd, const struct cq_medium *m)
{
    static uint8_t head[65536];
    struct cq_picture picture;
    ssize_t n = pread(fd, head, sizeof head, 0);
    if (n <= 0 || cq_picture_read(head, (size_t)n, &picture) == -CQ_E_NOT_FOUND) {
        return NULL;
    }
    uint64_t pixels = (uint64_t)picture.width * picture.height;
    if (m->size > CQ_PROBE_PICTURE_MAX || pixels > CQ_PROBE_PIXELS_MAX) {
        return "the picture is too large for a thumbnail";
    }
    return picture.is_animated
               ? "an animated WebP gets no thumbnail"
               : "the picture cannot be decoded (cut off or damaged): sent without a thumbnail";
}

int
cq_probe_file(int fd, struct cq_medium *m, const char **why)
{
    uint8_t answer[CQ_PROBE_ANSWER_MAX];
    *why = NULL;
    type_by_name(m);
    if (lseek(fd, 0, SEEK_SET)) {
        return -CQ_E_IO;
    }
    ssize_t n = ask(fd, answer, sizeof answer);
    bool is_said = n > 0 && !cq_probe_read((struct cq_view){answer, (size_t)n}, m);
    if (!is_said || !m->thumbnail_size) {
        *why = reason(fd, m);
    }
    return lseek(fd, 0, SEEK_SET) ? -CQ_E_IO : 0;
}
