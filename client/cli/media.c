/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/media.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    DRAW_COLUMNS = 40,
    DRAW_ROWS = 12,
    DRAW_MEMORY_MAX = 512 * 1048576,
    DRAW_CPU_S = 3,
    DRAW_OUTPUT_MAX = 1048576,
    DRAW_MS = 5000,
    DRAW_PAUSE_MS = 5,
    LINE_MAX_TEXT = 4096,
};

const char *
cli_media_size(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    double v = (double)bytes / 1000;
    size_t unit = 0;
    if (bytes < 1000) {
        (void)snprintf(out, size, "%u B", (unsigned)bytes);
        return out;
    }
    while (v >= 999.95 && unit + 1 < sizeof units / sizeof units[0]) {
        v /= 1000;
        unit++;
    }
    (void)snprintf(out, size, "%.1f %s", v, units[unit]);
    return out;
}

static const char *
kind(const cq_client_media_t *m)
{
    static const struct {
        const char *prefix, *word;
    } kinds[] = {
        {"image/", "picture"}, {"audio/ogg", "voice"}, {"audio/wav", "voice"},
        {"audio/", "sound"},   {"video/", "video"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!strncmp(m->type, kinds[i].prefix, strlen(kinds[i].prefix))) {
            return kinds[i].word;
        }
    }
    return "file";
}

/* " 1:05", or "". */
static const char *
length(uint64_t ms, char *out, size_t size)
{
    uint64_t s = (ms + 500) / 1000;
    out[0] = '\0';
    if (ms) {
        (void)snprintf(out, size, " %" PRIu64 ":%02u", s / 60, (unsigned)(s % 60));
    }
    return out;
}

char *
cli_media_line(const char *text,
               size_t text_size,
               const cq_client_media_t *media,
               const char *peer,
               uint64_t seq,
               size_t columns)
{
    char line[LINE_MAX_TEXT];
    char size[32];
    char duration[32];
    char get[160] = "";
    if (!media) {
        return out_safe(text, text_size, columns);
    }
    if (seq) {
        (void)snprintf(get, sizeof get, " — chasqui get %s %" PRIu64, peer, seq);
    }
    (void)snprintf(line, sizeof line, "[%s %s%s %s%s%s]%s%.*s", kind(media), media->name,
                   length(media->duration_ms, duration, sizeof duration),
                   cli_media_size(media->size, size, sizeof size), get,
                   media->thumbnail_damaged ? " — its thumbnail is damaged" : "",
                   text_size ? " " : "", (int)(text_size < 3000 ? text_size : 3000), text);
    return out_safe(line, strlen(line), columns);
}

void
cli_media_json(cq_buf_t *line, const cq_client_media_t *media)
{
    if (!media) {
        json_null(line, "media_type");
        return;
    }
    json_str(line, "media_type", media->type);
    json_str(line, "name", media->name);
    json_uint(line, "size", media->size);
    json_uint(line, "width", media->width);
    json_uint(line, "height", media->height);
    json_uint(line, "duration_ms", media->duration_ms);
    json_uint(line, "thumbnail_size", media->thumbnail_size);
    json_bool(line, "thumbnail_damaged", media->thumbnail_damaged);
}

/* ---- thumbnails ---- */

/* Before it gets anything to decode. (prlimit, as nothing can be set between posix_spawn's fork and
 * exec.) */
static void
confine(pid_t pid)
{
    static const struct {
        int what;
        rlim_t most;
    } limits[] = {
        {RLIMIT_AS, DRAW_MEMORY_MAX},
        {RLIMIT_CPU, DRAW_CPU_S},
        {RLIMIT_CORE, 0},
        {RLIMIT_FSIZE, DRAW_OUTPUT_MAX},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const struct rlimit r = {limits[i].most, limits[i].most};
        (void)prlimit(pid, limits[i].what, &r, NULL);
    }
}

static void
wait_for(pid_t pid)
{
    const struct timespec pause = {0, DRAW_PAUSE_MS * 1000000L};
    int status = 0;
    for (int i = 0; i < DRAW_MS / DRAW_PAUSE_MS; i++) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR)) {
            return;
        }
        (void)nanosleep(&pause, NULL);
    }
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
}

static bool
start(int in, const char *size, const char *colors, pid_t *pid)
{
    char program[] = "chafa";
    char animate[] = "--animate=off";
    char format[] = "--format=symbols";
    char threads[] = "--threads=1"; /* each takes address space */
    char size_option[48];
    char colors_option[32];
    char input[] = "-";
    (void)snprintf(size_option, sizeof size_option, "--size=%s", size);
    (void)snprintf(colors_option, sizeof colors_option, "--colors=%s", colors);
    char *const arguments[] = {program,     animate,       format, threads,
                               size_option, colors_option, input,  NULL};
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    bool is_started = !posix_spawnp(pid, program, &actions, NULL, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    return is_started;
}

void
cli_media_draw(const cq_client_media_t *media)
{
    char size[32];
    int ends[2];
    pid_t pid = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it */
    const char *depth = getenv("COLORTERM");
    bool is_full = depth && (strstr(depth, "truecolor") || strstr(depth, "24bit"));
    if (!media || !media->thumbnail || !out_has_colors() || pipe2(ends, O_CLOEXEC)) {
        return;
    }
    (void)snprintf(size, sizeof size, "%dx%d", DRAW_COLUMNS, DRAW_ROWS);
    (void)fflush(stdout);
    bool is_started = start(ends[0], size, is_full ? "full" : "256", &pid);
    if (is_started) {
        confine(pid);
        /* A thumbnail fits into the pipe's buffer; our reading end is open: no SIGPIPE. */
        (void)!write(ends[1], media->thumbnail, media->thumbnail_size);
    }
    close(ends[1]);
    if (is_started) {
        wait_for(pid);
    }
    close(ends[0]);
}
